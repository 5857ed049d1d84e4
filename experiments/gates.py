"""What gates do: the activity of every unit's gates against how far back the unit remembers.

  python -m experiments.gates
  python -m experiments.gates --cells=gru,gru:reset_after=true --seeds=10
  python -m experiments.gates --cells=gru:chrono=12,lstm:chrono=12

Trains gated cells on `mixed_recall`, which needs memory of one step and of many, and measures for each unit
the mean and the standard deviation over time of its gates, and the memory time of its state (c of LSTM and
SRU, h of GRU), in two ways that do not look at gates: by gradients (`probes.unit_memory`) and by replacing
one token (`probes.swap_memory`). Two controls: the same units before training, and before training with
biases spread as by chrono initialisation.

In Cho et al. 2014 units of short memory have "reset gates that are frequently active", units of long memory
"update gates that are mostly active". Here, as there, a large update gate z keeps the past, and a reset
gate r multiplies it: to reset is r near 0. What a busy reset gate is can be read in two ways, and both are
measured: the mean of 1 - r (it resets much), and the standard deviation of r over time (it switches much).
"""

import dataclasses
import functools

import jax
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import experiment, probes, protocol, runs, statistics, style
from experiments.lab.experiment import Claim, Experiment, Verdict
from experiments.lab.units import MEMORIES, activity, correlations, has_gates, memory_times, moments, spread

CLAIMS = {
    "gru_gates": Claim(
        "Short-range units keep the reset gate busy, long-range units the update gate", "gates"
    ),
}
# What Cho et al. 2014 say of a GRU: gate, statistic, sign of its correlation with memory, in words.
READINGS = {
    "update": ("update", "mean", 1, "mean of z"),
    "reset": ("reset", "off", -1, "mean of 1 - r"),
    "switching": ("reset", "std", -1, "std of r over time"),
}
MODERATE = 0.3  # a smaller correlation is not called one, however narrow its interval
OUTCOMES = ("not supported", "supported, not shown to be learned", "supported and learned")
STAGES = {
    "untrained": "before training",
    "spread": "before training,\nbiases spread",
    "trained": "after training",
}
SHORT = 0.1  # steps of memory: below, figures are linear


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    cells: tuple = ("gru", "lstm", "sru", "sru_feedback")
    seeds: int = 5
    hidden_size: int = 32
    gap: int = 10  # steps of the long dependency, less one
    lag: int = 1  # of the short one
    symbols: int = 4  # and as many distractors
    steps: int = 600
    learning_rates: tuple = (0.003, 0.01, 0.03, 0.1, 0.3)
    rows: int = 32  # sequences that are probed

    def runs(self, ended=None):
        return {f"train-{runs.file_name(cell)}": _config(cell, self) for cell in self.cells}


PRESETS = {
    "quick": Settings(
        cells=("gru",), seeds=2, hidden_size=8, gap=2, symbols=2, steps=150, learning_rates=(0.03,), rows=4,
    ),
    "fast": Settings(),
    "full": Settings(
        seeds=10, hidden_size=64, gap=20, steps=10_000, rows=256,
        learning_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`training`: the run of each seed, at the learning rate that was best for the others; `units`: one row
    for each unit, gate and stage."""
    rows, probe = [], functools.partial(_probe, settings)
    for cell, (name, config) in zip(settings.cells, settings.runs().items(), strict=True):
        rows += [runs.labels(cell) | row for row in lab.train(name, config, probe, {"rows": settings.rows})]
    return runs.by_kind(rows, run="training", unit="units")


def eligible() -> list[str]:
    """The cells that have gates."""
    return [name for name in cells.names() if has_gates(probes.default(name))]


def _config(cell, settings):
    """Gates start where the cell has them by default: chrono initialisation would give the units different
    time scales before they learn any. All seeds and rates train equally long."""
    config = runs.config(
        cell, "mixed_recall", cell={"hidden_size": settings.hidden_size},
        task=settings.of("gap", "lag", "symbols") | {"distractors": settings.symbols},
        optim={"learning_rates": settings.learning_rates},
        train=settings.of("steps", "seeds") | {"eval_every": 50, "stop_when_solved": False},
    )  # fmt: skip
    if not has_gates(config.cell):
        raise ValueError(f"{cell} has no gates")
    return config


def _probe(settings, result) -> list[dict]:
    config, spec = result.run.config, result.run.spec
    lanes = pd.DataFrame(runs.seeds(result))
    # Solved, and still so at the end, when the gates are looked at.
    lanes["solved"] &= lanes["valid_metric"].astype(float) >= spec.threshold
    lanes["solved_step"] = lanes["solved_step"].astype(float).where(lanes["solved"])
    lanes = runs.with_chosen(lanes, result.summary["run"]["higher_is_better"])
    batch = config.task.eval_batch({}, "test", 0, settings.rows)
    tokens = batch.xs[:, :-1]  # without the query: what units do while they wait for it
    others = probes.other_tokens(jax.random.key(0), tokens, config.task.symbols, config.task.distractors)

    @runs.compiled
    def look(params):
        cell_params = probes.layer_params(params)
        xs, replaced = (probes.embedded(spec, params, t) for t in (tokens, others))
        memory = probes.unit_memory(config.cell, cell_params, xs, of="state")
        of = moments(config.cell, cell_params, xs)
        return of, memory, probes.swap_memory(config.cell, cell_params, xs, replaced)

    fields = {"kind": "run"} | runs.fields(result, "parameters") | {"budget_steps": config.train.steps}
    fields |= {"rates": " ".join(f"{rate:g}" for rate in settings.learning_rates), "gap": settings.gap}
    names = ["seed", "learning_rate", "solved", "solved_step", "valid_metric", "test_metric"]
    rows, initial, trained = [], runs.initial(result), runs.trained(result)
    for lane in lanes.index[lanes["chosen"]]:
        run = {name: lanes[name].tolist()[lane] for name in names}
        rows.append(fields | run)
        before = runs.lane(initial, lane)
        stages = {"untrained": before, "trained": runs.lane(trained, lane)}
        if getattr(config.cell, "chrono", 0) is None:
            stages["spread"] = spread(config.cell, before, run["seed"], spec.time)
        for stage in [s for s in STAGES if s in stages]:
            gates, memory, swap = jax.device_get(look(stages[stage]))
            shared = {"kind": "unit", "stage": stage, "seed": run["seed"], "solved": run["solved"]}
            rows += [
                shared
                | {"unit": i, "gate": gate, "mean": float(mean[i]), "std": float(std[i])}
                | {"memory": float(memory[i]), "swap": float(swap[i])}
                for gate, (mean, std) in gates.items()
                for i in range(len(memory))
            ]
    return rows


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """`gru_gates`: each of READINGS is supported if the trained units' correlation has the claimed sign, is
    MODERATE or larger, and its interval excludes 0, for both ways to measure memory; it is learned if the
    interval of trained minus untrained lies on the claimed side of 0, likewise. Holds: all three are
    supported and learned. Does not hold here: none is supported. Else in part. Not tested here: no GRU, fewer
    than 3 seeds, or fewer than half, solved the task.
    """
    label = _gru(frames["units"])
    if label is None:
        return {"gru_gates": Verdict("not tested here", "no GRU among the cells")}
    seeds = frames["training"][frames["training"]["label"] == label]
    solved = f"{int(seeds['solved'].sum())} of {len(seeds)} seeds solved the task"
    if seeds["solved"].sum() < max(3, len(seeds) / 2):
        return {"gru_gates": Verdict("not tested here", f"{solved}, too few")}
    units, gap = frames["units"][frames["units"]["label"] == label], frames["training"]["gap"].iloc[0]
    rho = correlations(units).set_index(["gate", "statistic", "memory"])
    evidence, supported, learned = [], 0, 0
    for gate, statistic, sign, words in READINGS.values():
        rows = [rho.loc[gate, statistic, memory] for memory in MEMORIES]
        ok = all(_beyond(row["trained"], sign) and abs(row["trained"].value) >= MODERATE for row in rows)
        gained = ok and all(_beyond(row["gained"], sign) for row in rows)
        supported, learned = supported + ok, learned + gained
        by_gradient, by_swap = rows
        evidence.append(
            f"{words} (claimed {'+' if sign > 0 else '-'}): {_rho(by_gradient['trained'])}, by swap "
            f"{_rho(by_swap['trained'])}, untrained {_rho(by_gradient['untrained'])}, with spread biases "
            f"{_rho(by_gradient.get('spread')) or 'not measured'}: {OUTCOMES[ok + gained]}"
        )
    verdict = "holds" if learned == len(READINGS) else "holds in part" if supported else "does not hold here"
    literal = rho.loc["reset", "mean", "memory"]["trained"]
    text = f"{solved}; {memory_times(units, gap)}. Correlation with memory time: {'; '.join(evidence)}. If a "
    return {"gru_gates": Verdict(verdict, f"{text}busy reset gate is one with a large r: {literal:+.2f}.")}


def _rho(estimate) -> str:
    return f"{estimate:+.2f}" if isinstance(estimate, statistics.Estimate) else ""


def _beyond(estimate, sign) -> bool:
    """The interval excludes 0 on the side of `sign`."""
    return (estimate.low if sign > 0 else -estimate.high) > 0


def _gru(units) -> str | None:
    """The first GRU there is."""
    return next(iter(units["label"][units["cell"] == "gru"]), None)


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Training, correlations."""
    first = frames["training"].iloc[0]
    shown = {
        f"Training on mixed recall, long dependency {int(first['gap']) + 1} steps, {first['budget_steps']:g} "
        f"steps at each rate of {first['rates']}; a seed's rate is what is best for the others; median "
        "[95 %]": runs.table(frames["training"], "test accuracy")
    }
    rho, rows = correlations(frames["units"]), []
    if not len(rho):
        return shown
    means = rho[rho["statistic"] != "off"]
    for (label, gate, statistic), group in means.groupby(["label", "gate", "statistic"], sort=False):
        by = group.set_index("memory").to_dict("index")
        row = {"cell": label, "gate": gate, "of": "mean" if statistic == "mean" else "std over time"}
        row |= {stage: _rho(by["memory"].get(stage)) for stage in STAGES}
        row |= {"trained, by swap": _rho(by["swap"]["trained"])}
        rows.append(row | {"same sign in": f"{by['memory']['agree']}/{by['memory']['seeds']} seeds"})
    title = "Spearman's rho of gate and memory time over units of solved seeds [95 %, seeds resampled]"
    return shown | {title: pd.DataFrame(rows)}


def figures(frames) -> dict[str, Figure]:
    """`gates`: memory against the mean of each gate, for every cell; `gru`: the claim's three readings, by
    stage. A dot is a unit."""
    units = frames["units"]
    gates = {label: list(group["gate"].unique()) for label, group in units.groupby("label", sort=False)}
    panels = [[(label, gate, "mean", "trained") for gate in named] for label, named in gates.items()]
    made = {"gates": _scatter(units, panels, behind="untrained")}
    if gru := _gru(units):
        stages = [stage for stage in STAGES if stage in set(units["stage"])]
        lines = [[(gru, gate, of, stage) for gate, of, *_ in READINGS.values()] for stage in stages]
        made["gru"] = _scatter(units, lines)
    return made


def _scatter(units, lines, behind=None) -> Figure:
    """Lines of panels (label, gate, statistic, stage); `behind`: a stage in grey below."""
    look, rho = style.styles(units), correlations(units)
    columns, sharex = max(map(len, lines)), True if behind else "col"
    figure, axes = style.panels(len(lines), columns, (3.1, 2.5), sharey=True, sharex=sharex)
    names = {"mean": "mean over time", "std": "std over time", "off": "mean of 1 - gate"}
    dot = {"ls": "none", "ms": 4, "mew": 0.7}
    for line, panels in zip(axes, lines, strict=True):
        for ax in line[len(panels) :]:
            ax.set_visible(False)
        for ax, (label, gate, statistic, stage) in zip(line, panels, strict=False):
            of = activity(units[units["label"] == label], gate, statistic)
            mark = {"marker": look[label]["marker"], "mec": look[label]["color"], **dot}
            if behind:
                old = of[of["stage"] == behind]
                ax.plot(old["activity"], old["memory"], color="#BBBBBB", **dot | {"marker": ".", "ms": 3})
            for solved, fill in ((True, look[label]["color"]), (False, "none")):
                rows = of[(of["stage"] == stage) & (of["solved"].astype(bool) == solved)]
                ax.plot(rows["activity"], rows["memory"], mfc=fill, alpha=0.75, **mark)
            title = f"{label}: {gate}"
            key = {"label": label, "gate": gate, "statistic": statistic, "memory": "memory"}
            here = rho[(rho[list(key)] == pd.Series(key)).all(axis=1)] if len(rho) else rho
            if len(here):  # some seed of this cell has solved the task
                title += f", $\\rho$ = {here.iloc[0][stage]:+.2f}"
            style.title(ax, title)
            ax.set_xlabel(f"{gate} gate, {names[statistic]}", fontsize=9)
            ax.set_yscale("symlog", linthresh=SHORT, linscale=0.3)  # a few see little but the present
            ax.yaxis.set_major_formatter("{x:g}")
            ax.tick_params(labelbottom=True)
        stage = "" if behind else f"{STAGES[panels[0][-1]]}\n"
        line[0].set_ylabel(f"{stage}memory time, steps", fontsize=9)
    units = units[units["label"].isin({panel[0] for line in lines for panel in line})]
    low, high = units["memory"].min(), units["memory"].max()
    axes[0, 0].set_ylim(0 if low < SHORT else low / 1.3, 1.3 * high)
    handles = [
        style.handle(text, color=style.MUTED, marker="o", mfc=style.MUTED if solved else "none", **dot)
        for solved, text in ((True, "a unit, seed solved the task"), (False, "a unit, seed did not"))
        if solved in set(units["solved"].astype(bool))
    ]
    if behind:
        handles.append(style.handle("a unit before training", color="#BBBBBB", **dot | {"marker": "."}))
    seeds, size = units["seed"].nunique(), units["unit"].nunique()
    note = (
        f"{seeds} seeds of {size} units each. Memory time: mean distance, weighted by gradient.\n"
        "$\\rho$: Spearman's, over units of the seeds that solved the task; 95 % by resampling seeds."
    )
    style.legend(figure, handles, [note])
    return figure


EXPERIMENT = Experiment(
    "What do gates do in units of short and of long memory?",
    CLAIMS, PRESETS, measure, judge, tables, figures, eligible,
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
