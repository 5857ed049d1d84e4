"""How gradients flow back through time, for every cell: before training, after it, and scaled up.

  python -m experiments.gradients
  python -m experiments.gradients --cells=rnn,lstm,lstm:chrono=200 --config.time=1000
  python -m experiments.gradients --config.lyapunov=true

Measures the gain of d s_T / d s_{T-k} (s: the whole state; 1 is the identity's) and || d loss / d x_{T-k} ||
against k on delayed recall, at initialisation and after training on a short gap, with the rate of decay and
where each falls below 1e-6; how a plain RNN's gain depends on the scale of its recurrent matrix and of its
inputs; and what clipping does for an RNN that starts with a scaled-up matrix.
"""

import dataclasses
import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import experiment, probes, protocol, runs, statistics, style
from experiments.lab.experiment import Claim, Experiment, Verdict

CLAIMS = {"rnn_gradient": Claim("A plain RNN's gradients vanish or explode", "scaled")}
FLOOR = 1e-6  # a gradient below it is lost in the sum over time in float32
FAR = 100  # the distance, in steps, at which RNNs of all scales are compared
SMALL, LARGE = -3, 3  # decades of gain within which a gradient counts as kept
CLIPS = (0.0, 1.0)  # norms to which gradients are clipped; 0: they are not


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    cells: tuple = ("rnn", "lstm", "gru", "sru", "sru_feedback")
    seeds: int = 5
    hidden_size: int = 32
    time: int = 300  # steps of the sequences that are probed
    rows: int = 8  # sequences, averaged
    gap: int = 20  # that cells are trained on
    steps: int = 600
    learning_rates: tuple = (0.001, 0.003, 0.01)
    scales: tuple = (0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 4.0)  # of the RNN's recurrent matrix
    input_scales: tuple = (0.01, 0.1, 1.0)  # standard deviations
    clip_scales: tuple = (1.0, 2.0, 4.0)
    clip_rates: tuple = (0.01, 0.03, 0.1)  # of SGD
    clip_gap: int = 10
    lyapunov: bool = False

    least: ClassVar = {"time": 3}

    def runs(self, ended=None):
        cells = {f"train-{runs.file_name(cell)}": _config(cell, self, self.gap) for cell in self.cells}
        return cells | dict(_clipped(self, *of) for of in itertools.product(self.clip_scales, CLIPS))


PRESETS = {
    "quick": Settings(
        cells=("rnn", "lstm"), seeds=2, hidden_size=4, time=110, rows=2, gap=3, steps=20, clip_gap=3,
        learning_rates=(0.01,), scales=(1.0, 4.0), input_scales=(1.0,), clip_scales=(4.0,), clip_rates=(0.1,),
    ),
    "fast": Settings(),
    "full": Settings(
        seeds=10, hidden_size=64, time=1000, rows=32, gap=50, steps=3000,
        learning_rates=(0.0003, 0.001, 0.003, 0.01), lyapunov=True,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`gains`: log10 of both gradients by cell, stage, seed and k; `scaled`: gains of RNNs by scale;
    `clipping`: training runs of scaled RNNs; `lyapunov`: exponents, if asked for; `training`: which runs
    the trained stage is of."""
    rows, probe, fields = [], functools.partial(_probe, settings), settings.of("time", "rows", "lyapunov")
    for cell, run in zip(settings.cells, settings.runs().items(), strict=False):
        rows += [runs.labels(cell) | row for row in lab.train(*run, probe, fields)]
    names = {"gain": "gains", "run": "training"} | ({"exponent": "lyapunov"} if settings.lyapunov else {})
    frames = runs.by_kind(rows, **names)
    frames["scaled"] = pd.DataFrame(lab.do("scaled", dataclasses.asdict(settings), lambda: _scaled(settings)))
    return frames | {"clipping": _clipping(settings, lab)}


def _config(cell, settings, gap, **optim):
    """Delayed recall over a short gap, every gate where the cell has it by default."""
    return runs.config(
        cell,
        "delayed_recall",
        cell={"hidden_size": settings.hidden_size},
        task={"gap": gap},
        optim={"learning_rates": settings.learning_rates} | optim,
        train={"steps": settings.steps, "seeds": settings.seeds, "eval_every": 50},
    )


def _probe(settings, result) -> list[dict]:
    """Both gradients of each seed, as initialised and as trained with the learning rate of the other seeds'
    choice."""
    config, spec, lanes = result.run.config, result.run.spec, runs.lanes(result)
    task = dataclasses.replace(config.task, gap=settings.time - 2, max_gap=0)
    batch = task.eval_batch({}, "test", 0, settings.rows)

    @runs.compiled
    def look(params):
        cell_params = probes.layer_params(params)
        xs = probes.embedded(spec, params, batch.xs)
        state = probes.state_gains(config.cell, cell_params, xs).mean(0)  # geometric mean over rows
        norms = probes.input_gradients(config.cell, spec, config.model, params, batch)[1]
        spectrum = ()
        if settings.lyapunov:
            spectrum = probes.lyapunov_spectrum(config.cell, cell_params, xs[:2], skip=settings.time // 10)
        return state, jnp.log10(norms).mean(0)[::-1], spectrum

    names = ["seed", "learning_rate", "solved", "solved_step", "test_metric"]
    rows = [{"kind": "run"} | row for row in lanes.loc[lanes["chosen"], names].to_dict("records")]
    stages = {"initial": runs.initial(result), "trained": runs.trained(result)}
    for lane, seed in lanes["seed"][lanes["chosen"]].items():
        for stage, params in stages.items():
            # Zero gains are minus infinity; JSON and CSV both know it.
            state, inputs, spectrum = jax.device_get(look(runs.lane(params, lane)))
            inputs = [*inputs, np.nan]  # there are time inputs, time + 1 states
            shared = {"stage": stage, "seed": int(seed)}
            for k in _distances(settings.time):
                gains = {"k": k, "state": float(state[k]), "inputs": float(inputs[k])}
                rows.append({"kind": "gain"} | shared | gains)
            for i, value in enumerate(spectrum):
                rows.append({"kind": "exponent"} | shared | {"rank": i, "exponent": float(value)})
    return rows


def _distances(time: int) -> list[int]:
    """k = 0..time, all of the first ones, then about 100 of them; FAR among them."""
    return sorted({*range(min(20, time)), *range(0, time + 1, max(1, time // 100)), min(FAR, time)})


def _scaled(settings) -> list[dict]:
    """Gains of RNNs at initialisation on white noise, by scale of the matrix and of the inputs."""
    rows = []
    for scale in settings.scales:
        cell = cells.get("rnn", hidden_size=settings.hidden_size, recurrent_scale=scale)
        gains = jax.jit(lambda params, xs, cell=cell: probes.state_gains(cell, params, xs).mean(0))
        for input_scale in settings.input_scales:
            for seed in range(settings.seeds):
                key_params, key_xs = jax.random.split(jax.random.key(seed))
                params = cell.init(key_params, settings.hidden_size)
                xs = jax.random.normal(key_xs, (settings.rows, settings.time, settings.hidden_size))
                state = np.asarray(gains(params, input_scale * xs))
                told = {"scale": scale, "input_scale": input_scale, "seed": seed}
                rows += [told | {"k": int(k), "state": float(state[k])} for k in _distances(settings.time)]
    return rows


def _clipping(settings, lab) -> pd.DataFrame:
    """Training of RNNs that start with a scaled-up matrix, with and without clipping, on a gap that some of
    them can learn. Plain SGD: Adam divides by the size of the gradients, and hides what clipping does."""
    frames = []
    for scale, clip in itertools.product(settings.clip_scales, CLIPS):
        frame = pd.DataFrame(lab.train(*_clipped(settings, scale, clip)))
        frames.append(frame.assign(scale=scale, clip_norm=clip, gap=settings.clip_gap))
    return pd.concat(frames, ignore_index=True)


def _clipped(settings, scale, clip):
    cell, rates = f"rnn:recurrent_scale={scale}", settings.clip_rates
    sgd = {"optimizer": "sgd", "schedule": "constant", "learning_rates": rates, "clip_norm": clip}
    return f"clip-{scale:g}-{clip:g}", _config(cell, settings, settings.clip_gap, **sgd)


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """`rnn_gradient`: an RNN's gain over FAR steps, at initialisation, for every scale of its matrix and
    inputs. A setting keeps its gradient if the interval of the median lies within 1e-3..1e3, loses it if the
    interval lies outside. Holds: no setting keeps it, or may; does not hold: most settings keep it; else in
    part.
    """
    at = _far(frames["scaled"])
    kept, vanished, exploded = [], [], []
    for (scale, input_scale), group in at.groupby(["scale", "input_scale"]):
        gain = statistics.median(group["state"])
        fate = vanished if gain.high < SMALL else exploded if gain.low > LARGE else kept
        fate.append(f"U x {scale:g}, inputs x {input_scale:g}: 1e{gain.value:.1f}")
    settings = len(kept) + len(vanished) + len(exploded)
    verdict = "holds" if not kept else "does not hold here" if 2 * len(kept) > settings else "holds in part"
    evidence = (
        f"Over {int(at['k'].iloc[0])} steps, at initialisation, the gain of {settings} settings vanishes in "
        f"{len(vanished)}, explodes in {len(exploded)} and stays within a factor of 1000 in {len(kept)}"
        f"{' (' + '; '.join(kept) + ')' if kept else ''}. "
    )
    fitted = decays(frames["gains"])
    fitted = fitted[(fitted["quantity"] == "state") & (fitted["stage"] == "initial")]
    rates = {label: statistics.median(100 * group["rate"]) for label, group in fitted.groupby("label")}
    rates = ", ".join(f"{label} {rate:.2g}" for label, rate in rates.items())
    evidence += f"Decades per 100 steps on delayed recall: {rates}."
    return {"rnn_gradient": Verdict(verdict, evidence)}


def _far(scaled: pd.DataFrame) -> pd.DataFrame:
    return scaled[scaled["k"] == min(FAR, scaled["k"].max())]


def decays(gains: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, stage, seed and quantity: `rate` and `reach` of `statistics.decay`."""
    rows = []
    for keys, group in gains.groupby(["label", "cell", "stage", "seed"]):
        row = dict(zip(("label", "cell", "stage", "seed"), keys, strict=True))
        for quantity in ("state", "inputs"):
            rate, reach = statistics.decay(group["k"], group[quantity], np.log10(FLOOR))
            rows.append(row | {"quantity": quantity, "rate": rate, "reach": reach})
    return pd.DataFrame(rows)


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Decay and reach by cell and stage; gains by scale; clipping."""
    by, limit, shown = ["label", "stage"], f">{frames['gains']['k'].max():.0f}", {}
    for quantity, fitted in decays(frames["gains"]).groupby("quantity", sort=False):
        rows = []
        for (label, stage), group in fitted.groupby(by):
            row = {"cell": label, "stage": stage}
            row["decades per 100 steps"] = f"{statistics.median(100 * group['rate']):.2g}"
            reach = statistics.censored(statistics.median(group["reach"]), limit)
            rows.append(row | {"below 1e-6 from k =": reach})
        name = {"state": "Gain of ds_T / ds_{T-k}", "inputs": "|| d loss / d x_{T-k} ||"}[quantity]
        shown[f"{name}: median over seeds [95 %]"] = pd.DataFrame(rows)
    at = _far(frames["scaled"])
    wide = at.pivot_table(index="scale", columns="input_scale", values="state", aggfunc="median")
    wide = wide.map("{:.1f}".format).rename(columns="inputs x {:g}".format).reset_index(names="scale of U")
    shown[f"RNN: log10 gain over {int(at['k'].iloc[0])} steps, median over seeds"] = wide
    clipped = []
    for (scale, clip), group in frames["clipping"].groupby(["scale", "clip_norm"]):
        row = {"scale of U": f"{scale:g}", "clipped to norm": f"{clip:g}" if clip else "no"}
        for rate, seeds in group.groupby("learning_rate"):
            gone = int(seeds["diverged_step"].notna().sum())
            solved = f"{int(seeds['solved'].sum())}/{len(seeds)}"
            row[f"rate {rate:g}"] = solved + f", {gone} NaN" * bool(gone)
        clipped.append(row)
    gap = int(frames["clipping"]["gap"].iloc[0])
    shown[f"RNN from a scaled-up matrix, SGD: seeds that learn a gap of {gap}"] = pd.DataFrame(clipped)
    if "lyapunov" in frames:
        top = frames["lyapunov"][frames["lyapunov"]["rank"] == 0].groupby(by)["exponent"]
        top = top.agg(lambda values: f"{statistics.median(values):.3f}").reset_index()
        shown["Largest Lyapunov exponent per step"] = top.rename(columns={"label": "cell"})
    return shown


def figures(frames) -> dict[str, Figure]:
    """`gradients`: both quantities against k, before and after training; `scaled`: RNNs by scale."""
    gains = frames["gains"]
    look, titles = (
        style.styles(gains),
        {"initial": "at initialisation", "trained": "after training on a short gap"},
    )
    stages = [stage for stage in titles if stage in set(gains["stage"])]
    names = {"state": "log10 gain of $ds_T / ds_{T-k}$", "inputs": r"log10 $\|d\,loss / dx_{T-k}\|$"}
    figure, axes = style.panels(2, len(stages), (4.5, 3.4), sharex=True, sharey="row")
    for line, (quantity, name) in zip(axes, names.items(), strict=True):
        for ax, stage in zip(line, stages, strict=True):
            for label, group in gains[gains["stage"] == stage].groupby("label"):
                group = group.dropna(subset=[quantity])
                every = max(1, group["k"].nunique() // 8)
                style.line(ax, group, "k", quantity, look[label], label=label, markevery=every)
            ax.axhline(np.log10(FLOOR), color=style.MUTED, lw=1, ls="--")
            ax.set_ylim(max(-40, gains[quantity].replace(-np.inf, np.nan).min()) - 1, None)
            style.title(ax, titles[stage] if quantity == "state" else "")
            ax.set_xlabel("distance k, steps back from the end" if quantity == "inputs" else "")
        line[0].set_ylabel(name)
    note = f"Line: median over {gains['seed'].nunique()} seeds; band: all seeds. Dashed: 1e-6."
    style.legend(figure, axes[0, 0], [note])
    return {"gradients": figure, "scaled": _scaled_figure(frames["scaled"])}


def _scaled_figure(scaled) -> Figure:
    inputs, scales = (sorted(scaled[name].unique()) for name in ("input_scale", "scale"))
    figure, axes = style.panels(1, len(inputs), (3.6, 3.5), sharey=True)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(scales)))
    for ax, input_scale in zip(axes[0], inputs, strict=True):
        for scale, colour in zip(scales, shades, strict=True):
            rows = scaled[(scaled["scale"] == scale) & (scaled["input_scale"] == input_scale)]
            style.line(ax, rows, "k", "state", {"color": colour}, label=f"{scale:g}")
        ax.axhspan(SMALL, LARGE, color="#DDDDDD", alpha=0.5, zorder=0, lw=0)
        style.title(ax, f"inputs of standard deviation {input_scale:g}")
        ax.set(xlabel="distance k, steps", ylim=(-40, 40))
    axes[0, 0].set_ylabel("RNN: log10 gain of $dh_T / dh_{T-k}$")
    note = f"Scale of the orthogonal recurrent matrix; median and range of {scaled['seed'].nunique()} seeds; "
    style.legend(figure, axes[0, 0], [f"{note}grey: within a factor 1000 of 1."])
    return figure


EXPERIMENT = Experiment(
    "How do gradients flow back through time, and what does a plain RNN's depend on?",
    CLAIMS, PRESETS, measure, judge, tables, figures,
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
