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
import sys

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import plots
from experiments.lab import probes, statistics, study
from experiments.lab.study import Verdict

FLOOR = 1e-6  # a gradient below it is lost in the sum over time in float32
FAR = 100  # the distance, in steps, at which RNNs of all scales are compared
SMALL, LARGE = -3, 3  # decades of gain within which a gradient counts as kept


@dataclasses.dataclass(frozen=True)
class Settings:
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


PRESETS = {
    "quick": Settings(
        cells=("rnn", "lstm"), seeds=2, hidden_size=4, time=110, rows=2, gap=3, steps=20,
        learning_rates=(0.01,), scales=(1.0, 4.0), input_scales=(1.0,), clip_scales=(4.0,), clip_rates=(0.1,),
        clip_gap=3,
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
    gains, training, spectrum = [], [], []
    for cell in settings.cells:
        config = _config(cell, settings)
        told = {"time": settings.time, "rows": settings.rows, "lyapunov": settings.lyapunov}
        rows = lab.train(
            f"train-{cell.replace(':', '_')}", config, lambda result: _probe(settings, result), told
        )
        for kind, kept in (("gain", gains), ("run", training), ("exponent", spectrum)):
            kept += [{"cell": cell.split(":")[0], "label": cell} | row for row in rows if row["kind"] == kind]
    frames = {"gains": pd.DataFrame(gains), "training": pd.DataFrame(training)}
    if spectrum:
        frames["lyapunov"] = pd.DataFrame(spectrum)
    frames = {name: frame.drop(columns="kind") for name, frame in frames.items()}
    frames["scaled"] = pd.DataFrame(lab.do("scaled", dataclasses.asdict(settings), lambda: _scaled(settings)))
    frames["clipping"] = _clipping(settings, lab)
    return frames


def _config(cell, settings, **optim):
    """Delayed recall over a short gap, every gate where the cell has it by default."""
    return study.cell_config(
        cell,
        "delayed_recall",
        cell={"hidden_size": settings.hidden_size},
        task={"gap": settings.gap},
        optim={"learning_rates": settings.learning_rates, **optim},
        train={"steps": settings.steps, "seeds": settings.seeds, "eval_every": 50, "on_nan": "drop"},
        chrono="cell",
    )


def _probe(settings, result) -> list[dict]:
    """Both gradients of each seed, as initialised and as trained with the learning rate of the other seeds'
    choice."""
    from train import lanes

    config, spec = result.run.config, result.run.spec
    better = result.summary["run"]["higher_is_better"]
    runs = pd.DataFrame(result.summary["seeds"]).assign(higher_is_better=better)
    runs = statistics.tuned(runs.astype({"solved_step": float}))
    task = dataclasses.replace(config.task, gap=settings.time - 2, max_gap=0)
    batch = task.eval_batch({}, "test", 0, settings.rows)
    initial = lanes.initial_state(lanes.make_run(config)).params
    lanes = {lane: i for i, lane in enumerate(config.lanes)}
    at = _distances(settings.time)

    @jax.jit
    def gains(params):
        cell_params = probes.layer_params(params)
        xs = probes.embedded(spec, params, batch.xs)
        state = probes.state_gains(config.cell, cell_params, xs).mean(0)  # geometric mean over rows
        norms = probes.input_gradients(config.cell, spec, config.model, params, batch)[1]
        logs = jax.numpy.log10(norms).mean(0)
        spectrum = ()
        if settings.lyapunov:
            spectrum = probes.lyapunov_spectrum(config.cell, cell_params, xs[:2], skip=settings.time // 10)
        return state, logs[::-1], spectrum

    rows = []
    for run in runs.to_dict("records"):
        lane = lanes[run["seed"], run["learning_rate"]]
        kept = ("seed", "learning_rate", "solved", "solved_step", "test_metric")
        rows.append({"kind": "run"} | {name: _plain(run[name]) for name in kept})
        for stage, params in (("initial", initial), ("trained", result.state.params)):
            # Zero gains are minus infinity; JSON and CSV both know it.
            state, inputs, spectrum = jax.device_get(gains(jax.tree.map(lambda p, i=lane: p[i], params)))
            shared = {"stage": stage, "seed": run["seed"]}
            rows += [
                {"kind": "gain", **shared, "k": int(k), "state": float(state[k]), "inputs": _at(inputs, k)}
                for k in at
            ]
            rows += [
                {"kind": "exponent", **shared, "rank": i, "exponent": float(value)}
                for i, value in enumerate(spectrum)
            ]
    return rows


def _plain(value):
    return value.item() if hasattr(value, "item") else value


def _at(logs, k):
    return float(logs[k]) if k < len(logs) else float("nan")  # there are time inputs, time + 1 states


def _distances(time: int) -> list[int]:
    """k = 0..time, all of the first ones, then about 100 of them; FAR among them."""
    return sorted({*range(min(20, time)), *range(0, time + 1, max(1, time // 100)), min(FAR, time)})


def _scaled(settings) -> list[dict]:
    """Gains of RNNs at initialisation on white noise, by scale of the matrix and of the inputs."""
    import cells

    rows = []
    for scale in settings.scales:
        cell = cells.get("rnn", hidden_size=settings.hidden_size, recurrent_scale=scale)
        gains = jax.jit(lambda params, xs, cell=cell: probes.state_gains(cell, params, xs).mean(0))
        for input_scale in settings.input_scales:
            for seed in range(settings.seeds):
                key_params, key_xs = jax.random.split(jax.random.key(seed))
                params = cell.init(key_params, settings.hidden_size)
                shape = (settings.rows, settings.time, settings.hidden_size)
                state = np.asarray(gains(params, input_scale * jax.random.normal(key_xs, shape)))
                told = {"scale": scale, "input_scale": input_scale, "seed": seed}
                rows += [told | {"k": int(k), "state": float(state[k])} for k in _distances(settings.time)]
    return rows


def _clipping(settings, lab) -> pd.DataFrame:
    """Training of RNNs that start with a scaled-up matrix, with and without clipping, on a gap that some of
    them can learn. Plain SGD: Adam divides by the size of the gradients, and hides what clipping does."""
    frames = []
    for scale in settings.clip_scales:
        for clip in (0.0, 1.0):
            config = _config(f"rnn:recurrent_scale={scale}", settings, clip_norm=clip)
            optim = dataclasses.replace(
                config.optim, optimizer="sgd", schedule="constant", learning_rates=settings.clip_rates
            )
            task = dataclasses.replace(config.task, gap=settings.clip_gap)
            config = dataclasses.replace(config, optim=optim, task=task)
            rows = lab.train(f"clip-{scale:g}-{clip:g}", config)
            frames.append(pd.DataFrame(rows).assign(scale=scale, clip_norm=clip, gap=settings.clip_gap))
    return pd.concat(frames, ignore_index=True)


# --- what follows from the numbers


def decay(gains: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, stage, seed and quantity.

    `rate`: decades per step, fitted over the farther three quarters of the distances at which there is a
    gradient. `reach`: the first k from which on it stays below FLOOR; infinite where it does not.
    """
    rows = []
    for (label, cell, stage, seed), group in gains.groupby(["label", "cell", "stage", "seed"]):
        for quantity in ("state", "inputs"):
            one = group[["k", quantity]].dropna().sort_values("k")
            finite = one[np.isfinite(one[quantity])]  # below 1e-38 float32 has nothing
            far = finite[finite["k"] >= finite["k"].max() / 4]
            alive = one["k"][one[quantity] >= np.log10(FLOOR)]
            last = alive.max() if len(alive) else -1
            gone = one["k"][one["k"] > last]
            rows.append(
                {
                    "label": label,
                    "cell": cell,
                    "stage": stage,
                    "seed": seed,
                    "quantity": quantity,
                    "rate": statistics.slope(far["k"], far[quantity]),
                    "reach": float(gone.min()) if len(gone) else np.inf,
                }
            )
    return pd.DataFrame(rows)


def tables(frames) -> dict[str, pd.DataFrame]:
    """Decay and reach by cell and stage; gains by scale; clipping."""
    fitted, limit = decay(frames["gains"]), frames["gains"]["k"].max()
    shown = {}
    for quantity, title in (("state", "Gain of ds_T / ds_{T-k}"), ("inputs", "|| d loss / d x_{T-k} ||")):
        of = fitted[fitted["quantity"] == quantity]
        shown[f"{title}: median over seeds [95 %]"] = pd.DataFrame(
            {
                "cell": label,
                "stage": stage,
                "decades per 100 steps": f"{statistics.median(100 * group['rate']):.2g}",
                "below 1e-6 from k =": _reach(statistics.median(group["reach"]), limit),
            }
            for (label, stage), group in of.groupby(["label", "stage"])
        )
    wide = _far(frames["scaled"]).pivot_table(
        index="scale", columns="input_scale", values="state", aggfunc="median"
    )
    wide = wide.map("{:.1f}".format).reset_index()
    wide.columns = ["scale of U", *(f"inputs x {c:g}" for c in wide.columns[1:])]
    clipped = []
    for (scale, clip), group in frames["clipping"].groupby(["scale", "clip_norm"]):
        row = {"scale of U": f"{scale:g}", "clipped to norm": f"{clip:g}" if clip else "no"}
        for rate, seeds in group.groupby("learning_rate"):
            gone = int(seeds["diverged_step"].notna().sum())
            row[f"rate {rate:g}"] = f"{int(seeds['solved'].sum())}/{len(seeds)}" + f", {gone} NaN" * bool(
                gone
            )
        clipped.append(row)
    far = int(_far(frames["scaled"])["k"].iloc[0])
    shown[f"RNN: log10 gain over {far} steps, median over seeds"] = wide
    gap = int(frames["clipping"]["gap"].iloc[0])
    shown[f"RNN from a scaled-up matrix, SGD: seeds that learn a gap of {gap}"] = pd.DataFrame(clipped)
    if "lyapunov" in frames:
        top = frames["lyapunov"][frames["lyapunov"]["rank"] == 0]
        shown["Largest Lyapunov exponent per step"] = pd.DataFrame(
            {"cell": label, "stage": stage, "exponent": f"{statistics.median(group['exponent']):.3f}"}
            for (label, stage), group in top.groupby(["label", "stage"])
        )
    return shown


def _far(scaled: pd.DataFrame) -> pd.DataFrame:
    return scaled[scaled["k"] == min(FAR, scaled["k"].max())]


def _reach(estimate, limit) -> str:
    def show(x):
        return f">{limit:.0f}" if np.isinf(x) else f"{x:.0f}"

    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def figures(frames) -> dict[str, Figure]:
    """`gradients`: both quantities against k, before and after training; `scaled`: RNNs by scale."""
    gains = frames["gains"]
    look = plots.styles(gains)
    stages = [stage for stage in ("initial", "trained") if stage in set(gains["stage"])]
    figure = Figure(figsize=(9.5, 7.2), layout="constrained")
    axes = figure.subplots(2, len(stages), sharex=True, sharey="row", squeeze=False)
    titles = {"initial": "at initialisation", "trained": "after training on a short gap"}
    names = {"state": "log10 gain of $ds_T / ds_{T-k}$", "inputs": r"log10 $\|d\,loss / dx_{T-k}\|$"}
    for line, quantity in zip(axes, names, strict=True):
        for ax, stage in zip(line, stages, strict=True):
            for label, group in gains[gains["stage"] == stage].groupby("label"):
                wide = group.pivot(index="k", columns="seed", values=quantity).dropna()
                style = look[label] | {"markevery": max(1, len(wide) // 8), "ms": 4}
                ax.plot(wide.index, wide.median(axis=1), label=label, **style)
                ax.fill_between(
                    wide.index, wide.min(axis=1), wide.max(axis=1), color=style["color"], alpha=0.15, lw=0
                )
            ax.axhline(np.log10(FLOOR), color=plots.MUTED, lw=1, ls="--")
            ax.set_ylim(max(-40, gains[quantity].replace(-np.inf, np.nan).min()) - 1, None)
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(names[quantity])
    for ax, stage in zip(axes[0], stages, strict=True):
        ax.set_title(titles[stage], loc="left")
    for ax in axes[-1]:
        ax.set_xlabel("distance k, steps back from the end")
    note = f"Line: median over {gains['seed'].nunique()} seeds; band: all seeds. Dashed: 1e-6."
    plots.legend(figure, axes[0, 0].get_legend_handles_labels()[0], [note])
    return {"gradients": figure, "scaled": _scaled_figure(frames["scaled"])}


def _scaled_figure(scaled) -> Figure:
    inputs = sorted(scaled["input_scale"].unique())
    figure = Figure(figsize=(3.6 * len(inputs) + 1, 3.8), layout="constrained")
    axes = figure.subplots(1, len(inputs), sharey=True, squeeze=False)[0]
    scales = sorted(scaled["scale"].unique())
    import matplotlib

    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(scales)))
    for ax, input_scale in zip(axes, inputs, strict=True):
        for scale, colour in zip(scales, shades, strict=True):
            rows = scaled[(scaled["scale"] == scale) & (scaled["input_scale"] == input_scale)]
            wide = rows.pivot(index="k", columns="seed", values="state")
            ax.plot(wide.index, wide.median(axis=1), color=colour, label=f"{scale:g}")
            ax.fill_between(wide.index, wide.min(axis=1), wide.max(axis=1), color=colour, alpha=0.15, lw=0)
        ax.axhspan(SMALL, LARGE, color="#DDDDDD", alpha=0.5, zorder=0, lw=0)
        ax.set_title(f"inputs of standard deviation {input_scale:g}", loc="left", fontsize=10)
        ax.set_xlabel("distance k, steps")
        ax.set_ylim(-40, 40)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("RNN: log10 gain of $dh_T / dh_{T-k}$")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(scales), frameon=False,
        title=f"scale of the orthogonal recurrent matrix; median and range of {scaled['seed'].nunique()} "
        "seeds; grey: within a factor 1000 of 1",
        title_fontproperties={"size": 8},
    )  # fmt: skip
    return figure


def verdicts(frames) -> dict[str, Verdict]:
    """`rnn_gradient`: an RNN's gain over FAR steps, at initialisation, for every scale of its matrix and
    inputs. A setting keeps its gradient if the interval of the median lies within 1e-3..1e3, loses it if the
    interval lies outside. Holds: no setting keeps it, or may; does not hold: most settings keep it; else in
    part.
    """
    at = _far(frames["scaled"])
    kept, vanished, exploded = [], [], []
    for (scale, input_scale), group in at.groupby(["scale", "input_scale"]):
        gain = statistics.median(group["state"])
        setting = f"U x {scale:g}, inputs x {input_scale:g}: 1e{gain.value:.1f}"
        if gain.high < SMALL:
            vanished.append(setting)
        elif gain.low > LARGE:
            exploded.append(setting)
        else:
            kept.append(setting)
    settings = len(kept) + len(vanished) + len(exploded)
    verdict = "holds" if not kept else "does not hold here" if 2 * len(kept) > settings else "holds in part"
    told = (
        f"Over {int(at['k'].iloc[0])} steps, at initialisation, the gain of {settings} settings vanishes in "
        f"{len(vanished)}, explodes in {len(exploded)} and stays within a factor of 1000 in {len(kept)}"
        f"{' (' + '; '.join(kept) + ')' if kept else ''}. "
    )
    fitted = decay(frames["gains"])
    fitted = fitted[(fitted["quantity"] == "state") & (fitted["stage"] == "initial")]
    rates = {label: statistics.median(100 * group["rate"]) for label, group in fitted.groupby("label")}
    told += "Decades per 100 steps on delayed recall: " + ", ".join(
        f"{label} {rate:.2g}" for label, rate in rates.items()
    )
    return {"rnn_gradient": Verdict(verdict, told + ".")}


if __name__ == "__main__":
    study.command(sys.modules[__name__])
