"""Which cells track a state: word problems of groups, trained on short words and tested on long ones.

  python -m experiments.tracking
  python -m experiments.tracking --cells=sru,sru_feedback --config.groups=z2 --config.depths=1,2,4
  python -m experiments.tracking --preset=full

Every cell has the same budget of parameters, steps, seeds and learning rates; a seed trains with all of the
rates, the whole budget, and counts with the one that was best for the other seeds at the trained length. Then
the accuracy of the answer is measured at every place of words many times as long.

Theory (Sarrof 2024; Grazzi 2025): where c = f c' + (1 - f) u with f in (0, 1) and u of the input alone, each
unit only ever moves towards u, so on a repeated token the state converges and cannot go round a group. That
argument needs no linearity: it takes in SRU with feedback into its gates too, at any depth, though not GRU,
whose u sees the state. Short words can be fitted all the same; so it takes long ones to tell.

Of the cells that --cells may name, matrix memories (mLSTM, Mamba-2) count as linear; LRU turns its state, and
TCN and window have none that lasts: they are shown, not judged.
"""

import dataclasses
import functools
import sys

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import plots
from experiments.lab import probes, statistics, study
from experiments.lab.study import Verdict

KEPT = 0.9  # accuracy from which on the state counts as tracked
FACTORS = (1, 2, 4, 8, 16)  # lengths of the words, as multiples of the trained one
WINDOWS = 4  # in which the accuracy is measured, of each trained length


@dataclasses.dataclass(frozen=True)
class Settings:
    cells: tuple = ("rnn", "lstm", "gru", "sru", "sru_feedback")
    groups: tuple = ("z2", "s3")
    tokens: str = "elements"  # or "generators", see train/tasks/word_problem.py
    depths: tuple = (2,)
    seeds: int = 5
    parameters: int = 8000
    embedding_size: int = 32
    length: int = 8  # of the words trained on
    steps: int = 1000
    batch_size: int = 32
    learning_rates: tuple = (0.003, 0.01, 0.03)
    rows: int = 512  # words tested, the same for all


PRESETS = {
    "quick": Settings(
        cells=("rnn", "sru"), groups=("z2",), depths=(1,), seeds=2, parameters=500, embedding_size=4,
        length=4, steps=40, batch_size=8, learning_rates=(0.01, 0.03), rows=32,
    ),
    "fast": Settings(),
    "full": Settings(
        groups=("z2", "s3", "z60", "a5", "s5"), depths=(1, 2, 4), seeds=10, parameters=100_000,
        embedding_size=128, length=16, steps=20_000, batch_size=128,
        learning_rates=(0.0003, 0.001, 0.003, 0.01),
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`runs`: every seed and learning rate, and which were `chosen`; `positions`: accuracy of the chosen
    ones against the place in the word, the last of each window."""
    runs, positions = [], []
    for group in settings.groups:
        for depth in settings.depths:
            for cell in settings.cells:
                config = _config(settings, group, depth, cell)
                name = f"{group}-{depth}-{cell.replace(':', '_')}"
                told = {"rows": settings.rows, "factors": FACTORS, "windows": WINDOWS}
                rows = lab.train(name, config, lambda result: _probe(settings, result), told)
                shared = {"group": group, "depth": depth, "cell": cell.split(":")[0], "label": cell}
                for kind, kept in (("run", runs), ("position", positions)):
                    kept += [shared | row for row in rows if row["kind"] == kind]
    frames = {"runs": pd.DataFrame(runs), "positions": pd.DataFrame(positions)}
    return {name: frame.drop(columns="kind") for name, frame in frames.items()}


def _config(settings, group, depth, cell):
    return study.cell_config(
        cell,
        "word_problem",
        task={
            "group": group, "tokens": settings.tokens, "length": settings.length, "eval_examples": 1024
        },
        model={"depth": depth, "embedding_size": settings.embedding_size},
        optim={"learning_rates": settings.learning_rates},
        train={
            "steps": settings.steps, "seeds": settings.seeds, "batch_size": settings.batch_size,
            "eval_every": max(1, min(50, settings.steps // 10)), "on_nan": "drop",
            # A seed that stops at 99 % at the trained length would be held to account for the rest at 16x.
            "stop_when_solved": False,
        },
        parameters=settings.parameters,
        # The gates start where the cells have them: no dependency is of a known length.
        chrono="cell",
    )  # fmt: skip


def _probe(settings, result) -> list[dict]:
    run, summary = result.run, result.summary
    told = {name: summary["run"][name] for name in ("parameters", "hidden_size", "budget_steps", "baseline")}
    told["trained_at"] = settings.length
    frame = pd.DataFrame(summary["seeds"]).assign(higher_is_better=True).astype({"solved_step": float})
    chosen = statistics.tuned(frame)[["seed", "learning_rate"]].itertuples(index=False, name=None)
    lanes = sorted(run.config.lanes.index(lane) for lane in chosen)
    task = dataclasses.replace(run.config.task, length=max(FACTORS) * settings.length)
    # A few calls: compiled in a hurry.
    jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    batch = jit(lambda: task.eval_batch({}, "test", 0, settings.rows))()

    @jit
    def accuracy(params, batch):
        right = run.model.apply(params, batch.xs).argmax(-1) == batch.ys
        return right.mean(0)  # (time,)

    rows = []
    for lane, seed in enumerate(summary["seeds"]):
        rows.append({"kind": "run"} | told | seed | {"chosen": lane in lanes})
    for lane in lanes:
        params = jax.tree.map(lambda p, i=lane: p[i], result.state.params)
        by_place = np.asarray(accuracy(params, batch))
        seed, rate = run.config.lanes[lane]
        for places in np.array_split(np.arange(len(by_place)), max(FACTORS) * min(WINDOWS, settings.length)):
            rows.append(
                {
                    "kind": "position",
                    "seed": seed,
                    "learning_rate": rate,
                    "position": int(places[-1]) + 1,
                    "accuracy": float(by_place[places].mean()),
                    "baseline": told["baseline"],
                    "trained_at": settings.length,
                }
            )
    return rows


# --- what follows from the numbers

CASE = ["group", "depth", "cell", "label", "seed"]


def at_factors(positions: pd.DataFrame) -> pd.DataFrame:
    """One row per group, depth, cell and seed, a column per factor: the accuracy over the last trained length
    of words that many times as long."""
    factor = np.ceil(positions["position"] / positions["trained_at"]).astype(int)
    here = positions.assign(factor=factor)[factor.isin(FACTORS)]
    return here.pivot_table(index=CASE, columns="factor", values="accuracy", sort=False).reset_index()


def reaches(positions: pd.DataFrame) -> pd.DataFrame:
    """`reach` of each seed: the largest factor at which, and at all smaller ones, the accuracy is at least
    KEPT; 0 for none, infinite for all that were tested."""
    found = at_factors(positions)
    factors = [column for column in found.columns if column not in CASE]
    kept = found[factors].to_numpy() >= KEPT
    first_lost = np.where(kept.all(1), len(factors), np.argmin(kept, axis=1))
    return found[CASE].assign(reach=np.array([0.0, *factors[:-1], np.inf])[first_lost])


def _times(value) -> str:
    return f"≥{max(FACTORS)}x" if np.isinf(value) else f"{value:g}x"


def _interval(estimate) -> str:
    return f"{_times(estimate.value)} [{_times(estimate.low)}, {_times(estimate.high)}]"


def tables(frames) -> dict[str, pd.DataFrame]:
    """One table per group and depth."""
    runs, factors, reach, shown = frames["runs"], at_factors(frames["positions"]), {}, {}
    reach = reaches(frames["positions"])
    for (group, depth), here in runs.groupby(["group", "depth"], sort=False):
        rows = []
        for label, seeds in here[here["chosen"]].groupby("label", sort=False):
            case = (factors["group"] == group) & (factors["depth"] == depth) & (factors["label"] == label)
            steps = statistics.median(seeds["solved_step"].astype(float).fillna(np.inf))
            rates = seeds["learning_rate"].value_counts(sort=False).sort_index()
            budget = f">{seeds['budget_steps'].iloc[0]:,}"
            rows.append(
                {
                    "cell": label,
                    "params": f"{seeds['parameters'].iloc[0]:,}",
                    "chosen rates": ", ".join(f"{rate:g} ({n})" for rate, n in rates.items()),
                    "solved": f"{int(seeds['solved'].sum())}/{len(seeds)}",
                    "steps": budget if np.isinf(steps.value) else f"{steps.value:,.0f}",
                    **{
                        f"at {factor}x": f"{statistics.median(factors[factor][case]):.2f}"
                        for factor in (1, 2, max(FACTORS))
                    },
                    "tracks to": _interval(statistics.median(reach["reach"][case])),
                }
            )
        title = f"{group}, {depth} layer{'s' * (depth > 1)}: accuracy at multiples of the trained length"
        shown[f"{title} (chance {here['baseline'].iloc[0]:.2g})"] = pd.DataFrame(rows)
    return shown


def figures(frames) -> dict[str, Figure]:
    """`tracking`: accuracy against the place in the word, a panel per group and depth."""
    positions, runs = frames["positions"], frames["runs"]
    look, trained = plots.styles(positions), int(positions["trained_at"].iloc[0])
    groups, depths = (list(dict.fromkeys(positions[name])) for name in ("group", "depth"))
    figure = Figure(figsize=(4.4 * len(groups) + 0.6, 3.1 * len(depths) + 0.9), layout="constrained")
    axes = figure.subplots(len(depths), len(groups), sharex=True, sharey=True, squeeze=False)
    for line, depth in zip(axes, depths, strict=True):
        for ax, group in zip(line, groups, strict=True):
            here = positions[(positions["group"] == group) & (positions["depth"] == depth)]
            for i, (label, seeds) in enumerate(here.groupby("label", sort=False)):
                by_place = seeds.groupby("position")["accuracy"]
                # Lines that coincide at 1 are told apart by their markers, every fifth one.
                ax.plot(by_place.median(), label=label, ms=4.5, lw=1.4, markevery=(i, 5), **look[label])
                low, high = by_place.min(), by_place.max()
                ax.fill_between(low.index, low, high, color=look[label]["color"], alpha=0.15, lw=0)
            ax.axvline(trained, color=plots.INK, lw=1, ls="--")
            ax.axhline(here["baseline"].iloc[0], color=plots.MUTED, lw=1, ls=":")
            ax.set_title(f"{group.upper()}, {depth} layer{'s' * (depth > 1)}", loc="left", fontweight="bold")
            ax.set(xscale="log", ylim=(0, 1.04))
            ticks = [trained // 4, trained // 2] + [trained * factor for factor in FACTORS]
            ax.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
            ax.minorticks_off()
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("accuracy of the answer there")
    for ax in axes[-1]:
        ax.set_xlabel("place in the word, tokens")
    rates = ", ".join(f"{rate:g}" for rate in sorted(runs["learning_rate"].unique()))
    note = (
        f"Line: median over {positions['seed'].nunique()} seeds; band: all. Dashed: longest place trained on "
        f"({trained}); dotted: chance.\nEach cell: about {runs['parameters'].median():,.0f} parameters, "
        f"{runs['budget_steps'].iloc[0]:,} steps, the best of the learning rates {rates}."
    )
    plots.legend(figure, axes[0, 0].get_legend_handles_labels()[0], [note])
    return {"tracking": figure}


def verdicts(frames) -> dict[str, Verdict]:
    """`state_tracking`. A seed tracks as far as its accuracy is at least KEPT (`reaches`); a cell as far as
    the median of its seeds, at its best depth. Linear and nonlinear are those of `probes.kind`; rotations and
    windows are neither, and only told of. On a group

    * the linear cells lose the state if at every depth each one's interval ends below the longest words;
    * a nonlinear cell keeps it if its whole interval is at the longest words, perhaps if its median is.

    Holds: on every group the linear cells lose it and every nonlinear cell keeps it; and on one at least a
    linear cell tracks it for the trained length, so that it was not merely untrained. Does not hold: on no
    group do the linear cells lose it and a nonlinear one perhaps keeps it. In part: anything else, such as a
    nonlinear cell that loses it. Not tested: cells of one kind only.
    """
    found, outcomes, said = reaches(frames["positions"]), [], []
    for group, here in found.groupby("group", sort=False):
        linear, nonlinear, told = [], [], []
        for (label, cell), seeds in here.groupby(["label", "cell"], sort=False):
            by_depth = [statistics.median(one["reach"]) for _, one in seeds.groupby("depth")]
            kind = probes.kind(cell)
            {"linear": linear, "nonlinear": nonlinear}.get(kind, []).append(by_depth)
            remark = "" if kind in ("linear", "nonlinear") else f" (a {kind})"
            told.append(f"{label}{remark} {_interval(max(by_depth))}")
        if linear and nonlinear:
            lost = all(np.isfinite(reach.high) for of in linear for reach in of)
            kept = all(any(np.isinf(reach.low) for reach in of) for of in nonlinear)
            perhaps = any(np.isinf(reach.value) for of in nonlinear for reach in of)
            fitted = any(reach.value >= 1 for of in linear for reach in of)
            outcomes.append((lost, kept, perhaps, fitted))
            said.append(f"{group}: {', '.join(told)}")
    if not outcomes:
        return {"state_tracking": Verdict("not tested here", "needs a linear and a nonlinear cell.")}
    verdict = "holds in part"
    if all(lost and kept for lost, kept, *_ in outcomes) and any(fitted for *_, fitted in outcomes):
        verdict = "holds"
    elif not any(lost and perhaps for lost, _, perhaps, _ in outcomes):
        verdict = "does not hold here"
    evidence = (
        f"How far beyond the trained length the accuracy stays at {KEPT} or more, median over seeds [95 %], "
        f"at the best depth. {'; '.join(said)}."
    )
    return {"state_tracking": Verdict(verdict, evidence)}


if __name__ == "__main__":
    study.command(sys.modules[__name__])
