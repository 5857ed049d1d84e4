"""How gradients flow back through time, for every cell: before training, after it, and scaled up.

  python -m experiments.gradients
  python -m experiments.gradients --cells=rnn,lstm,lstm:chrono=200 --config.time=1000

Measures the gain of d s_T / d s_{T-k} (s: the whole state; 1 is the identity's) and || d loss / d x_{T-k} ||
against k on delayed recall, where each falls below 1e-6, and the slope of the gain's logarithm, which is the
largest Lyapunov exponent: as initialised, and after training on a short gap, each cell tuned alike, of the
seeds that solved it. Then an LSTM's against its forget gate's bias, a plain RNN's against the scale of its
recurrent matrix and of its inputs; and what clipping does for an RNN that starts with a scaled-up matrix.
"""

import dataclasses
import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import experiment, gain_figures, gains, probes, runs, statistics, tuning
from experiments.lab.experiment import Claim, Experiment, Part, Verdict, untested
from experiments.lab.protocol import Known
from experiments.lab.rules import above, below, within

FLOOR = 1e-6  # a gradient below it is lost in the sum over time in float32
KEPT = float(np.log(1 / FLOOR)) / 1000  # an exponent that takes 1,000 steps to get there
FAR = 100  # the distance, in steps, at which RNNs of all scales are compared
SMALL, LARGE = -3, 3  # decades of gain within which a gradient counts as kept
CLIPS = (0.0, 1.0)  # norms to which gradients are clipped; 0: they are not
RELU, SCALED = "rnn:activation=relu:recurrent_init=identity", "rnn:recurrent_scale=4"  # as initialised only
RULE = "largest Lyapunov exponent on delayed recall, 95 % interval of the mean over seeds: {} true, {} false"
VANISHES = RULE.format("below 0", "above 0")
CLAIMS = {
    "rnn_gradient": Claim(
        "A plain RNN's gradients vanish or explode",
        {
            "rnn_vanishes": Part("as initialised (orthogonal, tanh) they vanish", VANISHES),
            "rnn_explodes": Part(
                "with a matrix 4 times as large they explode", RULE.format("above 0", "below 0")
            ),
            "rnn_keeps": Part(
                "with the identity and relu they do neither, as initialised",
                RULE.format(f"within {KEPT:.4f} of 0 (a factor of 1e6 takes 1,000 steps)", "outside"),
            ),
            "rnn_trained": Part(
                "tuned and trained to recall over a gap, they vanish over longer ones",
                VANISHES + "; solved seeds",
            ),
            "lstm_reach": Part(
                "an LSTM's reach further the larger the bias of its forget gate, as initialised",
                f"rank correlation of the bias with the distance from which on the gain is below {FLOOR:g}, "
                "95 % interval over seeds: above 0 true, below 0 false",
            ),
        },
        "gradients",
    )
}


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = ("rnn", "lstm", "gru", "sru", "sru_feedback")
    hidden_size: int = 32
    time: int = 300  # steps of the sequences that are probed
    rows: int = 8  # sequences, averaged
    gap: int = 20  # that cells are trained on
    steps: int = 600
    biased: tuple = tuple(f"lstm:forget_bias={bias}" for bias in (0, 1, 3, 5))
    reach_time: int = 3000
    scales: tuple = (0.5, 0.9, 1.0, 1.5, 2.0, 4.0)  # of the RNN's recurrent matrix
    input_scales: tuple = (0.01, 0.1, 1.0)  # standard deviations
    clip_scales: tuple = (1.0, 2.0, 4.0)
    clip_rates: tuple = (0.01, 0.03, 0.1)  # of SGD
    clip_gap: int = 10

    least: ClassVar = tuning.Settings.least | {"time": 3, "reach_time": 3}

    def runs(self, ended=lambda name, config: None):
        known = Known(ended)
        for text in self.cells:
            known.follow(_trained, self, text)
        return known.runs | dict(_clipped(self, *of) for of in itertools.product(self.clip_scales, CLIPS))

    def configs(self):
        biased = [_config(text, self) for text in self.biased]
        ok = all(hasattr(config.cell, "forget_bias") for config in biased)
        self.require("biased", ok, "cells that have the option forget_bias")
        return biased + [_config(text, self) for text in self.cells]


PRESETS = {
    "quick": Settings(
        cells=("rnn", "lstm"), seeds=2, tuning_seeds=1, initialisations=1, widenings=0,
        learning_rates=(0.01,), hidden_size=4, time=110, rows=2, gap=3, steps=20,
        biased=("lstm:forget_bias=3",), reach_time=50, scales=(1.0, 4.0), input_scales=(1.0,), clip_gap=3,
        clip_scales=(4.0,), clip_rates=(0.1,),
    ),
    "fast": Settings(),
    "full": Settings(
        cells=tuple(name for name in cells.names() if probes.kind(name) not in ("window", "attention")),
        hidden_size=64, time=1000, rows=32, gap=50, steps=3000,
        biased=tuple(f"lstm:forget_bias={bias}" for bias in range(6)),
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`gains`: log10 of both gradients by cell, stage, seed and k; `reach`: of cells by forget bias;
    `training`: the runs of the trained stage, `tuning`: those before; `scaled`: gains of RNNs by scale;
    `clipping`: training runs of scaled RNNs."""
    rows, tuned, reach, fields = [], [], [], settings.of("time", "rows")
    for text in dict.fromkeys((*settings.cells, RELU, SCALED)):
        told = runs.labels(text) | {"kind": "gain", "stage": "initial"}
        rows += [told | row for row in _initial(lab, settings, text, settings.time)]
    for text in settings.cells:
        probe = functools.partial(_probe, settings)
        trials, found = _trained(lab.train, settings, text, probe, fields)
        tuned += [runs.labels(text) | row for row in trials]
        picked = next(row["trial"] for row in trials if row["picked"])
        rows += [runs.labels(text) | {"trial": picked} | row for row in found]
    for text in settings.biased:
        told = runs.labels(text) | {"bias": _config(text, settings).cell.forget_bias}
        reach += [told | row for row in _initial(lab, settings, text, settings.reach_time)]
    frames = runs.by_kind(rows, gain="gains", run="training")
    frames |= {"tuning": pd.DataFrame(tuned), "reach": pd.DataFrame(reach)}
    fields |= settings.of("scales", "input_scales", "seeds", "hidden_size")
    frames["scaled"] = pd.DataFrame(lab.do("scaled", fields, lambda: _scaled(settings)))
    return frames | {"clipping": _clipping(settings, lab)}


def _config(text, settings, **sections):
    """Delayed recall over a short gap, every gate where the cell has it by default."""
    train = {"steps": settings.steps, "eval_every": min(25, settings.steps), "seeds": settings.seeds}
    sections = {"task": {"gap": settings.gap}, "train": train} | sections
    return runs.config(text, "delayed_recall", cell={"hidden_size": settings.hidden_size}, **sections)


def _trained(train, settings, text, *probe) -> tuple[list, list]:
    make, name = (lambda label: _config(label, settings)), runs.file_name(text)
    return tuning.tuned_and_trained(train, name, make, text, settings, *probe)


def _initial(lab, settings, text, time) -> list[dict]:
    """Both gradients of each seed, as initialised."""
    config = _config(text, settings)
    fields = {"config": config.to_dict(), "time": time, "rows": settings.rows}

    def make():
        run = runs.make_run(config)
        params = runs.initial_state(run).params
        look = _look(config, run.spec, time, settings.rows)
        return [row for seed in range(settings.seeds) for row in look(runs.lane(params, seed), seed)]

    return lab.do(f"initial-{runs.file_name(text)}-{time}", fields, make)


def _probe(settings, result) -> list[dict]:
    """Both gradients of each seed, before and after training, and whether it solved the task."""
    config, seeds = result.run.config, runs.seeds(result)
    look = _look(config, result.run.spec, settings.time, settings.rows)
    names = ["seed", "learning_rate", "solved", "solved_step", "test_metric"]
    rows = [{"kind": "run"} | {name: seed[name] for name in names} for seed in seeds]
    for stage, params in (("untrained", runs.initial(result)), ("trained", runs.trained(result))):
        for lane, seed in enumerate(seeds):
            told = {"kind": "gain", "stage": stage, "solved": bool(seed["solved"])}
            rows += [told | row for row in look(runs.lane(params, lane), seed["seed"])]
    return rows


def _look(config, spec, time, rows):
    """(parameters, seed) -> rows of both gradients by k, geometric means over sequences."""
    task = dataclasses.replace(config.task, gap=time - 2, max_gap=0)
    batch = task.eval_batch({}, "test", 0, rows)

    @runs.compiled
    def look(params):
        xs = probes.embedded(spec, params, batch.xs)
        state = probes.state_gains(config.cell, probes.layer_params(params), xs).mean(0)
        norms = probes.input_gradients(config.cell, spec, config.model, params, batch)[1]
        return state, jnp.log10(norms).mean(0)[::-1]

    def rows_of(params, seed):
        state, inputs = jax.device_get(look(params))  # minus infinity where they are zero
        inputs = [*inputs, np.nan]  # there are time inputs, time + 1 states
        rows = ({"k": k, "state": float(state[k]), "inputs": float(inputs[k])} for k in _distances(time))
        return [{"seed": int(seed)} | row for row in rows]

    return rows_of


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
    rates = {"schedule": "constant", "learning_rates": settings.clip_rates}
    sgd = {"optimizer": "sgd", "clip_norm": clip} | rates
    config = _config(f"rnn:recurrent_scale={scale}", settings, task={"gap": settings.clip_gap}, optim=sgd)
    return f"clip-{scale:g}-{clip:g}", config


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """The parts of `rnn_gradient`; what was not measured is not tested."""
    fitted = gains.exponents(frames["gains"], FLOOR)
    found = {part: untested("it is not among what was measured") for part in EXPERIMENT.parts}
    for part, label, stage, rule, edge, against in (
        ("rnn_vanishes", "rnn", "initial", below, 0, "0"),
        ("rnn_explodes", SCALED, "initial", above, 0, "0"),
        ("rnn_keeps", RELU, "initial", within, KEPT, f"0, give or take {KEPT:.4f}"),
        ("rnn_trained", "rnn", "trained", below, 0, "0"),
    ):
        rows = fitted[(fitted["label"] == label) & (fitted["stage"] == stage)]
        if len(rows):
            value = statistics.mean(rows["exponent"])
            reach = statistics.censored(
                statistics.median(rows["state"]), f">{frames['gains']['k'].max():.0f}"
            )
            note = f"gain below {FLOOR:g} from k = {reach} on"
            note += f"; tuned: {rows['trial'].iloc[0]}" * (stage == "trained")
            found[part] = rule(value, edge, len(rows), f"{against} a step", note, "+.4f")
    if "reach" in frames and frames["reach"]["bias"].nunique() > 1:
        rows = gains.reaches(frames["reach"], FLOOR)
        value, seeds = statistics.rank_correlation(rows, "bias", "state"), rows["seed"].nunique()
        limit = f">{frames['reach']['k'].max():.0f}"
        steps = (
            f"{bias:g}: {statistics.censored(statistics.median(group['state']), limit)}"
            for bias, group in rows.groupby("bias")
        )
        found["lstm_reach"] = above(value, 0, seeds, "0", f"steps by bias {', '.join(steps)}")
    return found


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Exponents and reaches by cell and stage; tuning; gains by scale; clipping."""
    title = "Largest Lyapunov exponent per step: mean over seeds [95 %]; trained: seeds that solved the task"
    shown = {title: gains.exponent_table(frames["gains"], FLOOR, KEPT)}
    shown["Tuning"] = tuning.picked_table(frames["tuning"])
    at = min(FAR, frames["scaled"]["k"].max())
    wide = gains.scaled_table(frames["scaled"][frames["scaled"]["k"] == at])
    shown[f"RNN on white noise: log10 gain over {at} steps, median over seeds"] = wide
    gap = int(frames["clipping"]["gap"].iloc[0])
    title = f"RNN from a scaled-up matrix, SGD: seeds that learn a gap of {gap}"
    return shown | {title: gains.clipping_table(frames["clipping"])}


def figures(frames) -> dict[str, Figure]:
    """`gradients`: both quantities against k, before and after training, a panel per cell; `scaled`: RNNs by
    scale; `reach`: by forget bias."""
    return {
        "gradients": gain_figures.by_cell(frames["gains"], FLOOR),
        "scaled": gain_figures.scaled(frames["scaled"], SMALL, LARGE),
        "reach": gain_figures.reach(gains.reaches(frames["reach"], FLOOR), frames["reach"]["k"].max(), FLOOR),
    }


EXPERIMENT = Experiment(
    "How do gradients flow back through time, and what does a plain RNN's depend on?",
    CLAIMS, PRESETS, measure, judge, tables, figures,
    models={"label": "cells"},
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
