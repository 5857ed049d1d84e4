"""How long a gap each cell still learns, for what budget of steps, and how far beyond its length it goes.

  python -m experiments.horizon
  python -m experiments.horizon --cells=lstm,lstm:forget_bias=3 --config.tasks=adding --config.gaps=64,128
  python -m experiments.horizon --preset=full --workers=2

For every task and cell the gap is doubled until fewer than half of the seeds solve it within the budget. At
every gap every cell is tuned anew, learning rate and initialisation (`lab/tuning.py`), and the learning rate
is constant, so that the steps to solve a gap do not depend on the budget: what is solved within fewer steps
is read from the same runs. The plain RNN is there twice, orthogonal with tanh and identity with relu
(Le et al. 2015). No cell is told the gap. Then the seeds that solved one gap are tested on longer ones.
"""

import dataclasses
import itertools
from typing import ClassVar

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import experiment, protocol, rules, runs, statistics, style, survival, tuning
from experiments.lab.experiment import FALSE, TRUE, Claim, Experiment, Part, Verdict, untested
from train import metrics, tasks
from train.tasks import STRETCHABLE

IDENTITY = "rnn:activation=relu:recurrent_init=identity"
PLAIN = ("rnn:recurrent_init=orthogonal", IDENTITY)
WORDS = {"delayed_recall": "recall", "adding": "adding"}
RULES = {
    "lstm_helps": (
        "LSTM solves long gaps faster than a plain RNN",
        "at the longest gap that half of the seeds of either solve, the interval of LSTM's restricted mean "
        "of steps over that of the better plain RNN lies below 1 (false: above)",
    ),
    "lstm_ends": (
        "within the budget there is a gap that LSTM does not learn",
        "of the longest gap tried, the interval of the share of seeds that solve it lies below a half "
        "(false: above)",
    ),
    "lstm_grows": (
        "no wall: what LSTM needs grows with the gap",
        "the interval of p in steps ~ gap^p, over the gaps that half of the seeds solve, lies above 0 "
        "(false: below)",
    ),
    "gru_faster": (
        "fewer steps than LSTM at equal parameters",
        "the interval of GRU's restricted mean of steps over LSTM's, the geometric mean over the gaps that "
        "half of the seeds of both solve, lies below 1 (false: above)",
    ),
}


def _parts(name) -> dict[str, Part]:
    text, rule = RULES[name]
    return {f"{name}_{word}": Part(f"{text}: {word}", rule) for word in WORDS.values()}


CLAIMS = {
    "lstm_length": Claim(
        "LSTM's gates help, but only up to some length",
        _parts("lstm_helps") | _parts("lstm_ends") | _parts("lstm_grows"),
        "horizon",
    ),
    "gru_fast": Claim(
        "GRU has fewer parameters and converges fast",
        {"gru_fewer": Part("fewer parameters than LSTM at equal width", "counted")} | _parts("gru_faster"),
        "horizon",
    ),
}
FACTORS = (1, 2, 4, 8)  # lengths of the tests, as multiples of the one trained on


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = (*PLAIN, "lstm", "gru", "sru", "sru_feedback")
    tasks: tuple = ("delayed_recall", "adding")
    gaps: tuple = (8, 16, 32, 64, 128)
    trained_at: int = 0  # one of them, for the test on longer gaps; 0: the middle one
    parameters: int = 5000
    steps: int = 1000
    batch_size: int = 32

    choices: ClassVar = {"tasks": STRETCHABLE}
    least: ClassVar = tuning.Settings.least | {"trained_at": 0}

    @property
    def tested(self) -> int:
        """The gap whose seeds are tested on longer ones."""
        return self.trained_at or self.gaps[len(self.gaps) // 2]

    def runs(self, ended=lambda name, config: None):
        known = protocol.Known(ended)
        for task, cell in itertools.product(self.tasks, self.cells):
            known.follow(_search, self, task, cell)
        return known.runs

    def configs(self):
        ascending = self.gaps == tuple(sorted(self.gaps))
        self.require("gaps", ascending, "ascending")
        self.require("trained_at", self.tested in self.gaps, f"one of config.gaps = {self.gaps}")
        for of in itertools.product(self.tasks, self.gaps, self.cells):
            yield _config(self, *of)


PRESETS = {
    "quick": Settings(
        cells=("rnn", "gru"), tasks=("delayed_recall",), seeds=2, tuning_seeds=1, parameters=1500, steps=40,
        learning_rates=(0.01, 0.03), initialisations=1, widenings=0, gaps=(2, 4),
    ),
    "fast": Settings(gaps=(8, 24, 72)),
    "full": Settings(gaps=(8, 16, 32, 64, 128, 256), steps=3000),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`tuning`: every trial at every gap; `runs`: the seeds that count; `lengths`: the metric of those that
    solved one gap at multiples of it."""
    found = {"tuning": [], "runs": [], "lengths": []}
    for task, cell in itertools.product(settings.tasks, settings.cells):
        for name, rows in _search(lab.train, settings, task, cell).items():
            found[name] += [{"task": task, **runs.labels(cell)} | row for row in rows]
    return {name: pd.DataFrame(rows) for name, rows in found.items()}


def _config(settings, task, gap, cell):
    stretch = tasks.TASKS.cls(task).stretch
    return runs.config(
        cell,
        task,
        task={stretch: gap, "eval_examples": 512},
        # One width for all tasks and cells, so that a cell without recurrent matrix is not all embedding.
        model={"embedding_size": 32},
        optim={"schedule": "constant"},
        train=settings.of("steps", "batch_size")
        | {"eval_every": max(1, min(25, settings.steps // 4)), "stop_when_solved": True},
        parameters=settings.parameters,
    )


def _search(train, settings, task, cell) -> dict[str, list[dict]]:
    """The rows of every gap until half of the seeds fail, from `train(name, config)`; last, since processes
    side by side train first, what is looked at in trained seeds."""
    found, probed = {"tuning": [], "runs": [], "lengths": []}, None
    for gap in settings.gaps:
        name = f"{task}-{runs.file_name(cell)}-{gap}"

        def make(text, gap=gap):
            return _config(settings, task, gap, text)

        trials, final = tuning.tuned(train, name, make, cell, settings)
        rows = train(name, final)
        picked = next(row["trial"] for row in trials if row["picked"])
        higher = trials[0]["higher_is_better"]
        found["tuning"] += [{"gap": gap} | row for row in trials]
        found["runs"] += [{"gap": gap, "trial": picked, "higher_is_better": higher} | row for row in rows]
        if 2 * sum(row["solved"] for row in rows) < settings.seeds:
            break
        if gap == settings.tested:
            probed = f"{name}-beyond", final, _beyond, {"factors": FACTORS}
    if probed:
        told = {"trained_at": settings.tested, "higher_is_better": higher}
        found["lengths"] = [told | row for row in train(*probed)]
    return found


def _beyond(result) -> list[dict]:
    """The test metric of the seeds that solved their gap, at multiples of it."""
    run = result.run
    stretch = run.config.task.stretch
    trained_at = getattr(run.config.task, stretch)

    def score(params, batch):
        outputs = run.model.apply(params, batch.xs, lengths=batch.lengths)
        total, number = metrics.score(run.spec, outputs, batch)
        return total / number

    scores, rows = jax.jit(jax.vmap(score, (0, None))), []
    for factor in FACTORS:
        options = {stretch: factor * trained_at, f"max_{stretch}": max(FACTORS) * trained_at}
        longer = dataclasses.replace(run.config.task, **options)
        values = np.asarray(scores(result.state.params, longer.eval_batch(longer.load(), "test", 0, 256)))
        rows += [
            {"seed": seed["seed"], "factor": factor, "metric": float(value)}
            for seed, value in zip(runs.seeds(result), values, strict=True)
            if seed["solved"]
        ]
    return rows


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """The parts of `lstm_length` and `gru_fast`, each by its rule. Steps are censored at the budget; "not
    tested here" where a cell or a task was not there, and with fewer than `statistics.LEAST` seeds."""
    found = {
        "gru_fewer": Verdict(TRUE if _ratio() < 1 else FALSE, f"{_ratio():.1%} of LSTM's", "all of them")
    }
    for task, word in WORDS.items():
        rows = frames["runs"][frames["runs"]["task"] == task] if len(frames["runs"]) else frames["runs"]
        by = {label: dict(list(group.groupby("gap"))) for label, group in rows.groupby("label")}
        plain = {label: gaps for label, gaps in by.items() if label.split(":")[0] == "rnn"}
        lstm, gru = by.get("lstm"), by.get("gru")
        if lstm is None:
            found |= dict.fromkeys((f"lstm_ends_{word}", f"lstm_grows_{word}"), untested("no LSTM"))
        else:
            found[f"lstm_ends_{word}"], found[f"lstm_grows_{word}"] = _ends(lstm), _grows(lstm)
        both = lstm is not None and plain
        found[f"lstm_helps_{word}"] = _helps(lstm, plain) if both else untested("no LSTM or no plain RNN")
        both = lstm is not None and gru is not None
        found[f"gru_faster_{word}"] = _faster(gru, lstm) if both else untested("no LSTM or no GRU")
    return found


def _solves(seeds) -> bool:
    return 2 * seeds["solved"].sum() >= len(seeds)


def _budget(seeds) -> float:
    return float(seeds["budget_steps"].iloc[0])


def _helps(lstm, plain) -> Verdict:
    """Where a cell was not tried any more, since it failed before, its seeds have not solved the gap."""
    every = (lstm, *plain.values())
    solved = {gap for gaps in every for gap, seeds in gaps.items() if _solves(seeds)}
    if not solved:
        return untested("neither solves any gap")
    gap, budget = max(solved), _budget(next(iter(lstm.values())))
    seeds = min(len(seeds) for gaps in every for seeds in gaps.values())

    def steps(gaps):
        return gaps[gap]["solved_step"] if gap in gaps else np.full(seeds, np.inf)

    best = min(plain, key=lambda label: survival.restricted_mean(steps(plain[label]), budget).value)
    ours, theirs = steps(lstm), steps(plain[best])
    note = f"steps over steps at gap {gap}, log-rank p {survival.logrank(ours, theirs, budget):.2g}"
    return rules.below(survival.restricted_ratio(ours, theirs, budget), 1, seeds, f"1, {best}", note)


def _ends(lstm) -> Verdict:
    gap, seeds = max(lstm.items())
    note = f"solve gap {gap} within {_budget(seeds):,.0f} steps: a budget, not a limit of memory"
    return rules.few(int(seeds["solved"].sum()), len(seeds), note)


def _grows(lstm) -> Verdict:
    solved = {gap: seeds for gap, seeds in lstm.items() if _solves(seeds)}
    if len(solved) < 3:
        return untested("fewer than three gaps were solved")
    seeds, budget = min(map(len, solved.values())), _budget(next(iter(lstm.values())))
    p = survival.growth({gap: rows["solved_step"] for gap, rows in solved.items()}, budget)
    return rules.above(p, 0, seeds, "0", f"gaps {min(solved)} to {max(solved)}")


def _faster(gru, lstm) -> Verdict:
    gaps = [gap for gap in gru if gap in lstm and _solves(gru[gap]) and _solves(lstm[gap])]
    if not gaps:
        return untested("no gap that both solve")
    both = {gap: (gru[gap]["solved_step"], lstm[gap]["solved_step"], _budget(lstm[gap])) for gap in gaps}
    ratio = survival.pooled_ratio([survival.restricted_ratio(*of) for of in both.values()])
    seeds = min(len(of[gap]) for of in (gru, lstm) for gap in gaps)
    return rules.below(ratio, 1, seeds, "1, LSTM", f"steps over steps, gaps {', '.join(map(str, gaps))}")


def _ratio(size: int = 64) -> float:
    """Parameters of a GRU over those of an LSTM of the same input and hidden size."""
    inits = [cells.get(name, hidden_size=size).init for name in ("gru", "lstm")]
    shapes = [jax.eval_shape(lambda key, init=init: init(key, size), jax.random.key(0)) for init in inits]
    gru, lstm = (sum(leaf.size for leaf in jax.tree.leaves(of)) for of in shapes)
    return gru / lstm


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Steps to solve by task, cell and gap; what tuning picked; beyond the trained length."""
    shown = {}
    for task, here in frames["runs"].groupby("task", sort=False):
        budget = _budget(here)
        rows, picks = [], []
        for label, group in here.groupby("label", sort=False):
            row, pick = {"cell": label}, {"cell": label}
            for gap, seeds in group.groupby("gap"):
                mean = survival.restricted_mean(seeds["solved_step"], budget)
                row[str(gap)] = f"{int(seeds['solved'].sum())}/{len(seeds)}, {mean:.0f}"
                knob = seeds["trial"].iloc[0][len(label) :].lstrip(":") or "as it is"
                pick[str(gap)] = f"{seeds['learning_rate'].iloc[0]:g}, {knob}"
            rows.append(row)
            picks.append(pick)
        title = f"{task}: seeds that solve a gap, restricted mean of steps [95 %], budget {budget:,.0f}"
        shown[title] = pd.DataFrame(rows).fillna("")
        shown[f"{task}: learning rate and initialisation picked"] = pd.DataFrame(picks).fillna("")
    lengths = frames["lengths"]
    for task, here in lengths.groupby("task", sort=False) if len(lengths) else ():
        rows = []
        for label, group in here.groupby("label", sort=False):
            by = {
                f"{factor}x": f"{statistics.median(g['metric']):.3g}" for factor, g in group.groupby("factor")
            }
            rows.append({"cell": label, "seeds": group["seed"].nunique()} | by)
        title = (
            f"{task}: of seeds that solved {int(here['trained_at'].iloc[0])}, test metric at multiples of it"
        )
        shown[title] = pd.DataFrame(rows)
    return shown


def figures(frames) -> dict[str, Figure]:
    """`horizon`: steps to solve against the gap; `lengths`: the metric beyond the trained length."""
    tried, lengths = frames["runs"], frames["lengths"]
    steps = tried["solved_step"].astype(float).fillna(tried["budget_steps"])
    look, budget = style.styles(tried), _budget(tried)
    note = (
        f"Line: median over {tried['seed'].nunique()} seeds; band: quartiles. A seed that did not solve it "
    )
    note += f"stands at the budget, {budget:,.0f}. Every cell tuned at every gap; none is told it."
    names = {task: "gap, steps" if task == "delayed_recall" else "length, steps" for task in tried["task"]}
    labels = dict.fromkeys(names, "optimiser steps to solve it")
    made = {"horizon": _panels(tried.assign(steps=steps), "gap", "steps", look, names, labels, note)}
    if len(lengths):
        note = "Line: median over the seeds that solved the trained gap; band: quartiles."
        name = f"length of the test, multiples of the trained {lengths['trained_at'].iloc[0]}"
        names, labels = dict.fromkeys(lengths["task"], name), {}
        for task, higher in zip(lengths["task"], lengths["higher_is_better"], strict=True):
            labels[task] = f"test {'accuracy (higher' if higher else 'squared error (lower'} is better)"
        made["lengths"] = _panels(lengths, "factor", "metric", look, names, labels, note)
    return made


def _panels(frame, x, y, look, names, labels, note) -> Figure:
    """A panel per task; `names` of their x axes, `labels` of their y axes."""
    figure, axes = style.panels(1, len(names), (4.7, 3.9))
    for ax, (task, name) in zip(axes[0], names.items(), strict=True):
        here = frame[frame["task"] == task]
        for label, group in here.groupby("label", sort=False):
            style.line(ax, group, x, y, look[label], (0.25, 0.75), label=label)
        ax.set(xscale="log", xlabel=name, ylabel=labels[task])
        style.ticks_at(ax, here[x], "{}")
        if "accuracy" not in labels[task]:
            style.log(ax)
        style.title(ax, task.replace("_", " "), strong=True)
    style.legend(figure, axes[0, 0], [note])
    return figure


EXPERIMENT = Experiment(
    "How long a gap does each cell still learn, and for what budget?",
    CLAIMS, PRESETS, measure, judge, tables, figures,
    models={"task": "tasks", "label": "cells"},
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
