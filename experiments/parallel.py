"""What can run in parallel over time: the longest chain of operations, and measured time, against length.

  python -m experiments.parallel
  python -m experiments.parallel --preset=full --config.batch=1
  python -m experiments.parallel --cells=lstm,sru --config.times=256,1024,4096

Every cell and strategy next to a causal convolution and a feed-forward layer of equal size: as many
parameters as an SRU of `width` units, all on `width` features; hidden sizes follow from that. Each weight is
used once a step, so the work of the matmuls is equal too. The critical path is counted in the program
(jaxpr): it is what time would be on a machine without end; Newton's method has none, its iterations depend on
the numbers. Measured time also has the work, and how the machine does it: on few CPU cores that decides.
"""

import dataclasses
import functools

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import experiment, protocol, statistics, style, timing
from experiments.lab.critical_path import NoCriticalPath, critical_path, growths
from experiments.lab.experiment import Claim, Experiment, Verdict
from experiments.lab.layers import OTHERS, Layer, all_layers
from experiments.lab.timing import PASSES
from train.model import count

CLAIMS = {
    "lstm_cost": Claim("LSTM's gates cost compute that cannot be parallelised", "time"),
    "sru_parallel": Claim(
        "SRU matches convolution's parallelism, since each state dimension is independent", "time"
    ),
}
MATCH = 2  # as fast as: at most so many times as slow
SHARE = 0.5  # of a layer's time


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    cells: tuple = ("rnn", "lstm", "gru", "sru", "sru_feedback")
    width: int = 64
    batch: int = 4
    path_times: tuple = (16, 64, 256, 1024, 4096, 16384)  # to which a power of time is fitted
    times: tuple = (128, 512, 2048)
    rounds: int = 7  # each the median of `repeats` runs
    repeats: int = 3

    def configs(self):
        self.require("path_times", len(self.path_times) > 1, "two lengths or more")
        return ()


PRESETS = {
    "quick": Settings(
        cells=("lstm", "sru"), width=4, batch=2, path_times=(4, 16, 64), times=(8, 16), rounds=2, repeats=1
    ),
    "fast": Settings(),
    "full": Settings(
        path_times=tuple(2**k for k in range(4, 15)), times=tuple(2**k for k in range(6, 15)), rounds=20,
        repeats=5,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`path`: operations by layer, pass and time; `time`: ms by layer, pass, time and round."""
    paths, times, fields = [], [], settings.of("cells", "width")
    for time in settings.path_times:
        paths += lab.do(f"path-{time}", fields, lambda time=time: _paths(settings, time))
    for time in settings.times:
        fields = settings.of("cells", "width", "batch", "rounds", "repeats")
        fields["backend"] = jax.default_backend()
        times += lab.do(f"time-{time}", fields, lambda time=time: _times(settings, time))
        lab.console.print(f"{time} steps are measured")
    return {"path": pd.DataFrame(paths), "time": pd.DataFrame(times)}


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


def judge(frames) -> dict[str, Verdict]:
    """`sru_parallel` has three parts. Path: some strategy of SRU has a path that grows no faster than
    log T, in both passes. Reason: so has every other cell whose state dimensions are independent. Time: at
    the longest length SRU's fastest strategy takes at most MATCH times as long as the convolution of its
    size, the whole interval, in both passes. Holds: all three. Does not hold here: no such path. Else in
    part.

    `lstm_cost` has three parts. Path: the LSTM's grows linearly with T in both passes. Serial: at the longest
    length more than SHARE of its time goes outside the input projection, the whole interval, in both passes.
    Gates: it takes longer than an RNN of as many units, likewise. Holds: all three. Does not hold here: the
    path is not linear, or neither of the others. Else in part.
    """
    paths, compared = growths(frames["path"]), ratios(frames["time"])
    last = compared[compared["time"] == compared["time"].max()].set_index("pass")
    machine = f"{timing.machine(frames['time'])}, {last['time'].iloc[0]:,} steps"
    return {"sru_parallel": _sru(paths, last, machine), "lstm_cost": _lstm(frames, paths, last, machine)}


def _sru(paths, last, machine) -> Verdict:
    if "sru" not in set(paths["cell"]) or "sru" not in last:
        return Verdict("not tested here", "no SRU among the cells")
    fast = _fast_path(paths, "sru")
    others = paths[paths["independent"].astype(bool)]
    others = sorted(set(others["cell"]) - {"sru", "convolution", "feed_forward"})
    slow = [cell for cell in others if not _fast_path(paths, cell)]
    matches = all(last.loc[which, "sru"].high <= MATCH for which in PASSES)
    shown = [fast or paths[paths["cell"] == "sru"]["label"].iloc[0], "convolution", *slow]
    shown = "; ".join(_path(paths, label) for label in shown if label in set(paths["label"]))
    evidence = f"Path at {paths['time'].max():,} steps, forward and gradient: {shown}. "
    if slow:
        evidence += (
            f"The state dimensions of {', '.join(slow)} are independent too, and its path is linear in T: it "
            "takes a state that is linear in the last one. "
        )
    elif not others:
        evidence += "No other cell with independent dimensions was there, so the reason is not tested. "
    times = (f"{which} {last.loc[which, 'sru']:.2f} ({last.loc[which, 'fastest']})" for which in PASSES)
    evidence += f"Time of SRU's fastest strategy over the convolution's ({machine}): {', '.join(times)}."
    if fast and fast not in set(last["fastest"]):
        evidence += (
            " The strategy of the short path is not the fastest there: the work decides, not the path."
        )
    verdict = "holds" if others and not slow and matches else "holds in part"
    return Verdict(verdict if fast else "does not hold here", evidence)


def _lstm(frames, paths, last, machine) -> Verdict:
    if "lstm" not in set(paths["label"]) or "serial" not in last:
        return Verdict("not tested here", "no LSTM among the cells")
    linear = set(paths[paths["label"] == "lstm"]["growth"]) == {"linear"}
    serial = all(last.loc[which, "serial"].low > SHARE for which in PASSES)
    gates = all(last.loc[which, "gates"].low > 1 for which in PASSES)
    shown = [_path(paths, label) for label in ("lstm", "rnn as wide") if label in set(paths["label"])]
    evidence = [f"Path at {frames['path']['time'].max():,} steps, forward and gradient: {'; '.join(shown)}"]
    words = {"serial": "Share of time outside W x", "gates": "Time over an RNN of as many units"}
    for name, text in words.items():
        times = ", ".join(f"{which} {last.loc[which, name]:.2f}" for which in PASSES)
        evidence.append(f"{text} ({machine}): {times}")
    if "lstm newton" in set(frames["time"]["label"]):
        at, text = frames["time"]["time"].max(), "Time of Newton's method, parallel over time at the cost of "
        here = frames["time"][frames["time"]["time"] == at].groupby("pass")
        ratio = {p: timing.by_round(of, "lstm newton") / timing.by_round(of, "lstm") for p, of in here}
        times = (f"{which} {statistics.median(ratio[which]):.2f}" for which in PASSES)
        evidence.append(f"{text}iterations, over step by step: {', '.join(times)}")
    verdict = "holds" if serial and gates else "holds in part" if serial or gates else "does not hold here"
    return Verdict(verdict if linear else "does not hold here", ". ".join(evidence) + ".")


def _fast_path(paths: pd.DataFrame, cell) -> str | None:
    """The label of a strategy of a cell whose path grows no faster than log T, in both passes."""
    for label, group in paths[(paths["cell"] == cell) & (paths["part"] == "layer")].groupby("label"):
        if set(group["growth"]) <= {"constant", "logarithmic"}:
            return label
    return None


def _path(paths: pd.DataFrame, label) -> str:
    rows = paths[paths["label"] == label].set_index("pass").loc[list(PASSES)]
    lengths = " and ".join(f"{length:,}" for length in rows["operations"])
    return f"{label} {lengths} operations ({', '.join(dict.fromkeys(rows['growth']))})"


def ratios(time: pd.DataFrame) -> pd.DataFrame:
    """Ratios of times by pass and length, an Estimate over rounds each: `sru`, its fastest strategy over the
    convolution; `serial`, the share of the LSTM's time outside its projection, taken to cost there what it
    costs alone; `gates`, the LSTM over the RNN."""
    rows = []
    for (which, at), here in time.groupby(["pass", "time"], sort=False):
        row = {"pass": which, "time": at}
        sru = here[(here["cell"] == "sru") & (here["part"] == "layer")]
        if len(sru):
            row["fastest"] = sru.groupby("label")["ms"].median().idxmin()
            ours, theirs = (timing.by_round(here, label) for label in (row["fastest"], "convolution"))
            row["sru"] = statistics.median(ours / theirs)
        if "lstm" in set(here["label"]):
            names = ("lstm", "lstm projection", "rnn as wide")
            lstm, projection, rnn = (timing.by_round(here, label) for label in names)
            row["serial"] = statistics.median(1 - projection / lstm)
            row["gates"] = statistics.median(lstm / rnn)
        rows.append(row)
    return pd.DataFrame(rows)


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
    longest = path["time"].max()
    shown = {f"Critical path: the longest chain of operations at {longest:,} steps": pd.DataFrame(rows)}
    rows, longest = [], time["time"].max()
    for label, group in time.groupby("label", sort=False):
        row = {"layer": label}
        for which, of in group.groupby("pass", sort=False):
            middle = of.groupby("time")["ms"].median()
            row[f"{which}, ms"] = f"{statistics.median(of['ms'][of['time'] == longest])}"
            row[f"{which}, time ~ T^"] = f"{statistics.exponent(middle.index, middle):.2f}"
        rows.append(row)
    title = f"Measured time at {longest:,} steps, {timing.machine(time)} (median of rounds [95 %])"
    shown[title] = pd.DataFrame(rows)
    names = {"sru": "SRU's fastest / convolution", "serial": "LSTM: share outside W x"}
    names |= {"gates": "LSTM / RNN as wide", "fastest": "fastest"}
    table = ratios(time).sort_values(["pass", "time"])
    for name in {"sru", "serial", "gates"} & set(table):
        table[name] = [f"{value:.2f}" for value in table[name]]
    table = table[["pass", "time", *(name for name in names if name in table)]]
    return shown | {"Ratios of times": table.rename(columns=names | {"time": "steps"})}


def figures(frames) -> dict[str, Figure]:
    """`critical_path` and `time` against length, by layer; `lstm`: what its time is spent on."""
    layers, time = (frames[name][frames[name]["part"] == "layer"] for name in ("path", "time"))
    size = f"ayers of about {int(layers['parameters'].median()):,} parameters."
    rounds = f"Line: median of {time['round'].nunique()} rounds; band: their middle half. "
    rounds += f"{timing.machine(time)}; l{size}"
    chain = "longest chain of dependent operations"
    made = {
        "critical_path": _lines(layers, "operations", chain, f"Counted in the program. L{size}"),
        "time": _lines(time, "ms", "time of one run, ms", rounds),
    }
    return made | ({"lstm": _lstm_time(frames["time"])} if "lstm" in set(frames["time"]["label"]) else {})


def _lines(frame, value, name, note) -> Figure:
    look = style.styles(frame) | OTHERS
    figure, axes = style.panels(1, len(PASSES), (4.7, 3.6), sharey=True)
    for ax, which in zip(axes[0], PASSES, strict=True):
        for label, group in frame[frame["pass"] == which].groupby("label", sort=False):
            style.line(ax, group, "time", value, look[label], (0.25, 0.75), label=label.replace("_", " "))
        style.lengths(ax, frame["time"])
        ax.set_yscale("log")
        style.title(ax, {"forward": "forward", "gradient": "forward and gradient"}[which])
    axes[0, 0].set_ylabel(name)
    style.legend(figure, axes[0, 0], [note])
    return figure


def _lstm_time(time) -> Figure:
    figure, axes = style.panels(1, 2, (4, 3.3))
    colour = style.known()["lstm"][0]
    for which, line in zip(PASSES, ("-", "--"), strict=True):
        rows = ratios(time).query("`pass` == @which").sort_values("time")
        for ax, name in zip(axes[0], ("serial", "gates"), strict=True):
            values, low, high = np.array(rows[name].tolist()).T
            ax.plot(rows["time"], values, line, color=colour, marker="s", ms=4, label=which)
            ax.fill_between(rows["time"], low, high, color=colour, alpha=0.15, lw=0)
            style.lengths(ax, time["time"])
    left, right = axes[0]
    left.set(ylabel="share of the LSTM's time", ylim=(min(0, left.get_ylim()[0]), 1))
    style.title(left, "outside its input projection W x")
    right.axhline(1, color=style.MUTED, lw=1, ls=":")
    right.set(ylabel="time of LSTM / time of RNN", ylim=(0, None))
    style.title(right, "against an RNN of as many units")
    note = f"Line: median of {time['round'].nunique()} rounds; band: its 95 % interval. "
    style.legend(figure, left, [note + timing.machine(time) + "."])
    return figure


EXPERIMENT = Experiment(
    "What can run in parallel over time, and is that what takes the time?",
    CLAIMS, PRESETS, measure, judge, tables, figures,
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
