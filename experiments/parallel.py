"""What can run in parallel over time: the longest chain of operations, and measured time, against length.

  python -m experiments.parallel
  python -m experiments.parallel --cells=lstm,sru --config.times=256,1024,4096

Every cell and strategy next to a causal convolution and a feed-forward layer of equal size: as many
parameters as an SRU of `width` units, all on `width` features; hidden sizes follow from that. Each weight is
used once a step, so the work of the matmuls is equal too. The critical path is counted in the program
(jaxpr): it is what time would be on a machine without end; of an LSTM by Newton's method with the iterations
that it took. Measured time also has the work, and how the machine does it: on few CPU cores that decides.
"""

import dataclasses
import functools

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import convergence, experiment, protocol, timing
from experiments.lab.critical_path import NoCriticalPath, critical_path, growths
from experiments.lab.experiment import FALSE, TRUE, Claim, Experiment, Part, Verdict, untested
from experiments.lab.layer_figures import by_cell, lstm_ratios, ratio_table, ratios
from experiments.lab.layers import Layer, all_layers
from experiments.lab.rules import above, below, ratio
from experiments.lab.timing import PASSES
from train.model import count

LACKS = "it is not among what was measured"
DECIDES = "gradient"  # the pass whose times decide: forward and gradients, as in training
SHARE = 0.5  # of a layer's time
SAME = 1e-3  # of the largest entry: states further off are others
RULE = "forward and gradients, longest length: 95 % interval over rounds {} {:g} true, {} {:g} false"
LESS, MORE = RULE.format("below", 1, "above", 1), RULE.format("above", 1, "below", 1)
COUNT = "counted in the program, in both passes: {} fits better than {}"
FAST = "its fastest strategy takes no longer than a convolution of as many parameters"
NEWTON = "Newton's method takes longer than step by step"
CLAIMS = {
    "lstm_cost": Claim(
        "LSTM's gates cost compute that cannot be parallelised",
        {
            "lstm_path": Part(
                "step by step its path grows linearly with T", COUNT.format("a + b T", "a + b log2 T")
            ),
            "lstm_newton": Part(
                "Newton's method needs no fewer operations one after the other (at initialisation)",
                "forward, with the iterations of each seed, over those step by step, longest length: 95 % "
                f"interval of the geometric mean above 1 true, below 1 false; states the same to {SAME:g}",
            ),
            "lstm_newton_time": Part(f"{NEWTON}, on CPU cores", MORE),
            "lstm_newton_time_gpu": Part(f"{NEWTON}, on a GPU", MORE),
            "lstm_serial": Part(
                f"more than {SHARE:.0%} of its time goes outside W x, which needs no state",
                RULE.format("above", SHARE, "below", SHARE),
            ),
            "lstm_units": Part("it takes longer than an RNN of as many units", MORE),
            "lstm_size": Part("it takes longer than an RNN of as many parameters", MORE),
        },
        "lstm",
    ),
    "sru_parallel": Claim(
        "SRU matches convolution's parallelism, since each state dimension is independent",
        {
            "sru_path": Part(
                "a strategy has a path that grows no faster than log T",
                COUNT.format("a constant, or a + b log2 T", "a + b T"),
            ),
            "sru_others": Part(
                "those of all other recurrent cells grow linearly (Newton's method apart)",
                COUNT.format("a + b T", "a + b log2 T"),
            ),
            "sru_reason": Part(
                "independent dimensions suffice for a short path",
                "every other cell whose units see no other's past has one: true; one has none: false",
            ),
            "sru_time": Part(f"{FAST}, on CPU cores", LESS),
            "sru_time_gpu": Part(f"{FAST}, on a GPU", LESS),
        },
        "time",
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    cells: tuple = ("rnn", "lstm", "gru", "sru", "sru_feedback", "gru:diagonal=true", "lstm:diagonal=true")
    seeds: int = 10  # of Newton's iterations
    width: int = 64
    batch: int = 4
    path_times: tuple = (16, 64, 256, 1024, 4096, 16384)  # to which a power of time is fitted
    times: tuple = (128, 512, 2048)
    rounds: int = 12  # each the median of `repeats` runs
    repeats: int = 3

    def configs(self):
        self.require("path_times", len(self.path_times) > 1, "two lengths or more")
        return ()


PRESETS = {
    "quick": Settings(
        cells=("lstm", "sru"), seeds=2, width=4, batch=2, path_times=(4, 16, 64), times=(8, 16),
        rounds=2, repeats=1,
    ),
    "fast": Settings(),
    "full": Settings(
        path_times=tuple(2**k for k in range(4, 15)), times=tuple(2**k for k in range(6, 15)), rounds=20,
        repeats=5,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`path`: operations by layer, pass and time; `newton`: those of LSTM's forward run by Newton's method,
    and step by step, by time and seed; `time`: ms by layer, pass, time and round."""
    paths, newton, times, fields = [], [], [], settings.of("cells", "width")
    for time in settings.path_times:
        paths += lab.do(f"path-{time}", fields, lambda time=time: _paths(settings, time))
    for time in settings.path_times * ("lstm" in settings.cells):
        fields = settings.of("width", "seeds")
        newton += lab.do(f"newton-{time}", fields, lambda time=time: _newton(settings, time))
    for time in settings.times:
        fields = settings.of("cells", "width", "batch", "rounds", "repeats")
        fields["backend"] = jax.default_backend()
        times += lab.do(f"time-{time}", fields, lambda time=time: _times(settings, time))
        lab.console.print(f"{time} steps are measured")
    frames = {"path": pd.DataFrame(paths), "time": pd.DataFrame(times)}
    return frames | ({"newton": pd.DataFrame(newton)} if newton else {})


def _newton(settings, time) -> list[dict]:
    layer = next(layer for layer in all_layers(("lstm",), settings.width) if layer.label == "lstm")
    cell = cells.get("lstm", hidden_size=layer.hidden_size)
    args = convergence.initial(cell, settings.seeds, time, width=settings.width)
    return [{"label": "lstm"} | row for row in convergence.chains(cell, *args)]


def _labels(layer: Layer, time, which) -> dict:
    fields = {"label": layer.label, "cell": layer.cell, "part": layer.part, "pass": which, "time": time}
    return fields | {"hidden_size": layer.hidden_size, "parameters": count(layer.params)}


def _paths(settings, time) -> list[dict]:
    xs, rows = jax.ShapeDtypeStruct((settings.batch, time, settings.width), np.float32), []
    for layer in all_layers(settings.cells, settings.width):
        d_ys = jax.eval_shape(layer.run, layer.params, xs)
        for which in PASSES:
            program, args = timing.program_of(layer.run, layer.params, xs, d_ys, which, devices=1)
            try:
                path = critical_path(program, *args)
            except NoCriticalPath:  # it depends on the numbers
                continue
            rows.append(_labels(layer, time, which) | {"independent": layer.independent, "operations": path})
    return rows


def _times(settings, time) -> list[dict]:
    xs, cases = jax.random.normal(jax.random.key(1), (settings.batch, time, settings.width)), []
    for layer in all_layers(settings.cells, settings.width):
        labels = functools.partial(_labels, layer, time)
        cases += timing.by_pass(labels, layer.run, layer.params, xs)
    return timing.rounds(cases, settings.rounds, settings.repeats, batch=settings.batch)


# --- the rule

# part: a column of `ratios`, the side of the edge that is true, the edge, whose it is
TIMED = {
    "lstm_newton_time": ("newton", above, 1, "step by step"),
    "lstm_serial": ("serial", above, SHARE, f"a share of {SHARE:g}"),
    "lstm_units": ("units", above, 1, "an RNN of as many units"),
    "lstm_size": ("size", above, 1, "an RNN of as many parameters"),
    "sru_time": ("sru", below, 1, "the convolution"),
}


def judge(frames) -> dict[str, Verdict]:
    """The parts of `lstm_cost` and `sru_parallel`."""
    gpu = untested("no GPU was here: `python -m experiments.parallel --preset=full` on one")
    found = {part: gpu if part.endswith("_gpu") else untested(LACKS) for part in EXPERIMENT.parts}
    found |= _paths_judged(growths(frames["path"]))
    if "newton" in frames:
        found["lstm_newton"] = _newton_judged(frames["newton"])
    for backend, suffix in (("cpu", ""), ("gpu", "_gpu")):
        time = frames["time"][frames["time"]["backend"] == backend]
        judged = _times_judged(time) if len(time) else {}
        found |= {part + suffix: verdict for part, verdict in judged.items() if part + suffix in found}
    return found


def _paths_judged(paths) -> dict[str, Verdict]:
    paths, found = paths[paths["part"] == "layer"], {}
    paths = paths.assign(text=paths["label"].str.split().str[0])  # a cell without its strategy
    short = paths.groupby("label")["growth"].agg(lambda growth: "linear" not in set(growth))
    fast = set(paths["text"][paths["label"].isin(short.index[short])])
    others = paths[~paths["cell"].isin(["sru", "convolution", "feed_forward"])]

    def decided(ok, labels) -> Verdict:
        told = "; ".join(_path(paths, label) for label in dict.fromkeys(labels))
        return Verdict(TRUE if ok else FALSE, told, f"{paths['time'].max():,} steps")

    if "lstm" in set(paths["label"]):
        linear = paths["growth"][paths["label"] == "lstm"] == "linear"
        found["lstm_path"] = decided(linear.all(), ["lstm"])
    if "sru" in set(paths["text"]):
        labels = paths["label"][paths["text"] == "sru"]
        found["sru_path"] = decided("sru" in fast, [*labels, "convolution"])
    odd = others["label"][others["growth"] != "linear"]
    if len(others):
        found["sru_others"] = decided(odd.empty, odd if len(odd) else others["label"])
    alike = others[others["independent"].astype(bool)]
    if "sru" in fast and len(alike):
        slow = alike["label"][~alike["text"].isin(fast)]
        found["sru_reason"] = decided(slow.empty, slow if len(slow) else alike["label"])
    return found


def _newton_judged(newton) -> Verdict:
    last = newton[newton["time"] == newton["time"].max()]
    middle = f"{last['newton'].median():,.0f} of {last['stepwise'].median():,.0f} operations"
    note = f"{middle} at {last['time'].max():,} steps, {last['iterations'].max()} iterations at most"
    if last["error"].max() > SAME:
        return untested(f"its states are others: {last['error'].max():.0e} off, {note}")
    return above(ratio(last["newton"], last["stepwise"]), 1, len(last), "step by step", note, ".3g")


def _times_judged(time) -> dict[str, Verdict]:
    last = ratios(time[time["time"] == time["time"].max()]).set_index("pass")
    rounds, found = time["round"].nunique(), {}
    where = f"{timing.machine(time)}, {time['time'].max():,} steps, {rounds} rounds"
    for part, (name, side, edge, against) in TIMED.items():
        if name in last:
            note = f"{last.loc[DECIDES, 'fastest']}; " * (name == "sru")
            note += f"forward alone {last.loc['forward', name]:.3g}; {where}"
            verdict = side(last.loc[DECIDES, name], edge, rounds, against, note, ".3g")
            found[part] = verdict._replace(seeds=0)  # rounds are none
    return found


def _path(paths: pd.DataFrame, label) -> str:
    rows = paths[paths["label"] == label].set_index("pass")
    counts = " and ".join(f"{rows.loc[which, 'operations']:,}" for which in PASSES)
    return f"{label.replace('_', ' ')} {counts} ({'/'.join(dict.fromkeys(rows['growth']))})"


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Sizes and paths; times at the longest length; what the verdicts rest on."""
    path, time, rows = frames["path"], frames["time"], []
    for label, group in growths(path).groupby("label", sort=False):
        first = group.iloc[0]
        row = {"layer": label, "hidden": first["hidden_size"], "parameters": first["parameters"]}
        for one in group.to_dict("records"):
            row[f"{one['pass']}, operations"] = f"{one['operations']:,}"
            row[f"{one['pass']}, growth"] = one["growth"]
        rows.append(row)
    title = f"Critical path: the longest chain of operations at {path['time'].max():,} steps"
    shown = {title: pd.DataFrame(rows)}
    if "newton" in frames:
        title = "LSTM by Newton's method, forward, and step by step: median (most) over seeds"
        shown[title] = convergence.chain_table(frames["newton"])
    title = f"Measured time at {time['time'].max():,} steps, {timing.machine(time)} (median of rounds [95 %])"
    return shown | {title: timing.table(time), "Ratios of times": ratio_table(ratios(time))}


def figures(frames) -> dict[str, Figure]:
    """`critical_path` and `time` against length, a panel per cell; `lstm`: what its time is spent on."""
    layers, time = (frames[name][frames[name]["part"] == "layer"] for name in ("path", "time"))
    size = f"ayers of about {int(layers['parameters'].median()):,} parameters"
    note, path = f"Forward, counted in the program. L{size}.", layers[layers["pass"] == "forward"]
    if "newton" in frames:
        newton = frames["newton"].assign(label="lstm newton", cell="lstm")
        path = pd.concat([path, newton.assign(operations=newton["newton"])])
        note += f" Newton's method: median and range of {newton['seed'].nunique()} seeds, as initialised."
    machine, rounds = timing.machine(time), time["round"].nunique()
    told = f"Forward and gradients. Line: median of {rounds} rounds; band: middle half. {machine}; l{size}."
    decide = time[time["pass"] == DECIDES]
    made = {
        "critical_path": by_cell(path, "operations", "operations one after the other", note, (0, 1)),
        "time": by_cell(decide, "ms", "time of one run, ms", told, (0.25, 0.75)),
    }
    if "lstm" in set(time["label"]):
        note = f"Line: geometric mean of {rounds} rounds; band: its 95 % interval. Dotted: the rule's edge. "
        edges = {name: edge for name, _, edge, _ in TIMED.values()}
        made["lstm"] = lstm_ratios(ratios(frames["time"]), edges, f"{note}{machine}.")
    return made


EXPERIMENT = Experiment(
    "What can run in parallel over time, and is that what takes the time?",
    CLAIMS, PRESETS, measure, judge, tables, figures,
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
