"""Which cells track a state: word problems of groups, learned on short words and tested on long ones.

  python -m experiments.tracking
  python -m experiments.tracking --cells=sru,sru_feedback --config.groups=z2 --config.longest=40
  python -m experiments.tracking --preset=full --workers=2

Every cell is tuned (`lab/tuning.py`) for the steps in which it fits words of the lengths that it is trained
on, then ten other seeds train for the whole budget, and the accuracy of the answer is measured at every place
of words six times as long. A seed holds the state if it is right there as often as at the trained length.

Theory (Sarrof 2024; Grazzi 2025): where c = f c' + (1 - f) u with f in (0, 1) and u of the input alone, each
unit only ever moves towards u, so on a repeated token the state converges and cannot go round a group. That
argument needs no linearity: it takes in SRU with feedback into its gates too, though not GRU, whose u sees
the state. A factor in (-1, 1) can alternate, which is parity; products of two reflections can rotate. Short
words can be fitted all the same, so it takes long ones to tell.
"""

import dataclasses
import functools
import itertools
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import experiment, rules, runs, statistics, style, tuning
from experiments.lab.experiment import Claim, Experiment, Part, Verdict, untested
from train.tasks import word_problem

KEPT = 0.9  # accuracy from which on the state counts as held
BEYOND = 6  # length of the words tested, as a multiple of the longest trained on
FEW = "the interval of the share of seeds that hold the state lies below a half (false: above), "
MOST = "the interval of the share of seeds that hold the state lies above a half (false: below), "
NEGATIVE = "negative_eigenvalues=true"
# By id: what is claimed, of which cells (the first that is there), on which group, and whether it is held.
SAID = {
    "positive_z2": ("SRU, linear with factors in (0, 1), loses parity", ("sru",), "z2", False),
    "positive_s3": ("SRU, linear with factors in (0, 1), loses S3", ("sru",), "s3", False),
    "feedback_z2": ("likewise SRU whose gates see the state: parity", ("sru_feedback",), "z2", False),
    "feedback_s3": ("likewise SRU whose gates see the state: S3", ("sru_feedback",), "s3", False),
    "negative_z2": ("with factors in (-1, 1) SRU holds parity", (f"sru:{NEGATIVE}",), "z2", True),
    "negative_s3": ("with factors in (-1, 1) SRU holds S3", (f"sru:{NEGATIVE}",), "s3", True),
    "delta_z2": ("DeltaNet with beta in (0, 2) holds parity", (f"deltanet:{NEGATIVE}",), "z2", True),
    "delta_s3": ("with two products a step it holds S3", (f"deltanet:{NEGATIVE}:products=2",), "s3", True),
    "turning_z2": ("Mamba-3, whose state turns as the input says, holds parity", ("mamba3",), "z2", True),
    "turning_s3": ("but loses S3, whose elements do not commute", ("mamba3",), "s3", False),
    "gru_z2": ("GRU, whose candidate sees the state, holds parity", ("gru",), "z2", True),
    "gru_s3": ("GRU, whose candidate sees the state, holds S3", ("gru",), "s3", True),
    "lstm_z2": ("LSTM, whose candidate sees the state, holds parity", ("lstm",), "z2", True),
    "lstm_s3": ("LSTM, whose candidate sees the state, holds S3", ("lstm",), "s3", True),
}  # fmt: skip
# What does not even fit the trained length cannot lose it beyond.
FITS = {
    "positive_fits_z2": (
        "SRU, linear with factors in (0, 1), fits parity at the trained length",
        "sru",
        "z2",
    ),
    "positive_fits_s3": ("SRU, linear with factors in (0, 1), fits S3 at the trained length", "sru", "s3"),
    "feedback_fits_z2": ("so does SRU whose gates see the state: parity", "sru_feedback", "z2"),
    "feedback_fits_s3": ("so does SRU whose gates see the state: S3", "sru_feedback", "s3"),
    "turning_fits_s3": ("so does Mamba-3: S3", "mamba3", "s3"),
}
FIT = f"the interval of the share of seeds that are right there to {KEPT} lies above a half (false: below)"
CLAIMS = {
    "state_tracking": Claim(
        "A linear recurrence with gates in (0, 1) cannot track state, a nonlinear one can",
        {name: Part(text, FIT) for name, (text, _, _) in FITS.items()}
        | {
            name: Part(text, (MOST if held else FEW) + f"{BEYOND} times beyond the trained length")
            for name, (text, _, _, held) in SAID.items()
        },
        "tracking",
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = (
        "rnn", "lstm", "gru", "sru", "sru_feedback", f"sru:{NEGATIVE}", f"deltanet:{NEGATIVE}",
        f"deltanet:{NEGATIVE}:products=2", "mamba3",
    )  # fmt: skip
    groups: tuple = ("z2", "s3")
    tokens: str = "elements"  # or "generators", see train/tasks/word_problem.py
    depth: int = 1
    parameters: int = 8000
    embedding_size: int = 32
    shortest: int = 4  # words trained on
    longest: int = 20
    steps: int = 1500
    batch_size: int = 32
    rows: int = 512  # words tested, the same for all

    choices: ClassVar = {"groups": tuple(word_problem.GENERATORS), "tokens": word_problem.TOKENS}

    def part(self, train, *model):
        return _trained(train, self, *model)

    def configs(self):
        self.require("shortest", self.shortest <= self.longest, f"at most config.longest = {self.longest}")
        return (_config(self, *model) for model in self.models())

    def models(self):
        return itertools.product(self.groups, self.cells)


PRESETS = {
    "quick": Settings(
        cells=("rnn", "sru"), groups=("z2",), seeds=2, tuning_seeds=1, learning_rates=(0.01,),
        initialisations=1, widenings=0, parameters=500, embedding_size=4, shortest=2, longest=4, steps=40,
        batch_size=8, rows=32,
    ),
    "fast": Settings(),
    "full": Settings(
        cells=(
            "rnn", "lstm", "gru", "sru", "sru_feedback", f"sru:{NEGATIVE}", "deltanet",
            f"deltanet:{NEGATIVE}", f"deltanet:{NEGATIVE}:products=2", "mamba3",
        ),
        groups=("z2", "s3", "a5"), parameters=20_000, embedding_size=64, shortest=8, longest=40, steps=5000,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`tuning`: every trial; `runs`: the seeds that count; `positions`: their accuracy against the place in
    the word."""
    found = {"tuning": [], "run": [], "position": []}
    for group, cell in settings.models():
        for row in _trained(lab.train, settings, group, cell):
            found[row.pop("kind")].append({"group": group, **runs.labels(cell)} | row)
    frames = {name: pd.DataFrame(rows) for name, rows in found.items()}
    return {"tuning": frames["tuning"], "runs": frames["run"], "positions": frames["position"]}


def _trained(train, settings, group, cell) -> list[dict]:
    name = f"{group}-{runs.file_name(cell)}"
    trials, final = tuning.tuned(train, name, lambda text: _config(settings, group, text), cell, settings)
    # A seed that stopped at 99 % at the trained length would be held to account for the rest beyond it.
    whole = dataclasses.replace(final.train, stop_when_solved=False)
    final = dataclasses.replace(final, train=whole)
    picked = next(row["trial"] for row in trials if row["picked"])
    rows = train(name, final, functools.partial(_probe, settings), {"rows": settings.rows, "beyond": BEYOND})
    return [{"kind": "tuning"} | row for row in trials] + [{"trial": picked} | row for row in rows]


def _config(settings, group, cell):
    return runs.config(
        cell,
        "word_problem",
        task={
            "group": group, "length": settings.longest, "min_length": settings.shortest,
            "eval_examples": 1024,
            "tokens": settings.tokens if group != "z2" else "elements",  # z2's generators are its elements
        },
        model={"depth": settings.depth, "embedding_size": settings.embedding_size},
        train=settings.of("steps", "batch_size")
        | {"eval_every": max(1, min(50, settings.steps // 10)), "stop_when_solved": True},
        parameters=settings.parameters,
    )  # fmt: skip


def _probe(settings, result) -> list[dict]:
    run, trained = result.run, runs.trained(result)
    fields = runs.fields(result, "parameters", "hidden_size", "state_size", "budget_steps", "baseline")
    task = dataclasses.replace(
        run.config.task, length=BEYOND * settings.longest, min_length=0, eval_min_length=0
    )
    batch = runs.compiled(lambda: task.eval_batch({}, "test", 0, settings.rows))()

    @runs.compiled
    def accuracy(params, batch):
        right = run.model.apply(params, batch.xs).argmax(-1) == batch.ys
        return right.mean(0)  # (time,)

    rows = []
    for lane, seed in enumerate(runs.seeds(result)):
        by_place = np.asarray(accuracy(runs.lane(trained, lane), batch))
        far = float(by_place[-settings.longest :].mean())  # over the last trained length
        near = float(by_place[settings.shortest - 1 : settings.longest].mean())
        rows.append({"kind": "run"} | fields | seed | {"near": near, "far": far, "longest": settings.longest})
        for places in np.array_split(np.arange(len(by_place)), BEYOND * 4):
            right = {"position": int(places[-1]) + 1, "accuracy": float(by_place[places].mean())}
            rows.append({"kind": "position", "seed": seed["seed"], "baseline": fields["baseline"]} | right)
    return rows


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """The parts of `state_tracking`: of each the share of seeds whose accuracy is at least KEPT over the last
    trained length of words BEYOND times as long. A cell that is said to lose the state has to have fitted the
    trained length with most seeds, else nothing is said of it but that (FITS)."""
    rows, found = frames["runs"], {}
    for name, (_, label, group) in FITS.items():
        seeds = rows[(rows["group"] == group) & (rows["label"] == label)] if len(rows) else rows
        found[name] = untested(f"{label} was not trained on {group}")
        if len(seeds):
            found[name] = rules.most(int((seeds["near"] >= KEPT).sum()), len(seeds))
    for name, (_, labels, group, held) in SAID.items():
        seeds = rows[(rows["group"] == group) & rows["label"].isin(labels)] if len(rows) else rows
        if not len(seeds):
            found[name] = untested(f"{labels[0]} was not trained on {group}")
            continue
        holds, fits = int((seeds["far"] >= KEPT).sum()), int((seeds["near"] >= KEPT).sum())
        note = f"{fits} of {len(seeds)} fit the trained length"
        if not held and 2 * fits < len(seeds):
            found[name] = untested(f"{note}: it may only be untrained")
        else:
            found[name] = (rules.most if held else rules.few)(holds, len(seeds), note)
    return found


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """One table per group."""
    shown, longest = {}, int(frames["runs"]["longest"].iloc[0])
    for group, here in frames["runs"].groupby("group", sort=False):
        rows = []
        for label, seeds in here.groupby("label", sort=False):
            row = {"cell": label, "params": f"{seeds['parameters'].iloc[0]:,}"}
            row["state"] = f"{seeds['state_size'].iloc[0]:,}"
            row["picked"] = f"{seeds['learning_rate'].iloc[0]:g}"
            if knob := seeds["trial"].iloc[0][len(label) :].lstrip(":"):
                row["picked"] += f", {knob}"
            steps, budget = statistics.median_steps(seeds["solved_step"]), seeds["budget_steps"].iloc[0]
            row["fits in steps"] = f">{budget:,}" if np.isinf(steps.value) else f"{steps.value:,.0f}"
            for name, words in (("near", f"to {longest}"), ("far", f"at {BEYOND * longest}")):
                row[f"accuracy {words}"] = f"{statistics.median(seeds[name]):.2f}"
            row["hold"] = f"{int((seeds['far'] >= KEPT).sum())}/{len(seeds)}"
            rows.append(row)
        title = f"{group}: median over seeds [95 %], chance {here['baseline'].iloc[0]:.2g}"
        shown[title] = pd.DataFrame(rows)
    return shown


def figures(frames) -> dict[str, Figure]:
    """`tracking`: accuracy against the place in the word, a panel per group."""
    positions, tried = frames["positions"], frames["runs"]
    look, longest = style.styles(positions), int(tried["longest"].iloc[0])
    groups = list(dict.fromkeys(positions["group"]))
    figure, axes = style.panels(1, len(groups), (4.6, 3.6), sharex=True, sharey=True)
    for ax, group in zip(axes[0], groups, strict=True):
        here = positions[positions["group"] == group]
        for i, (label, seeds) in enumerate(here.groupby("label", sort=False)):
            # Lines that coincide at 1 are told apart by their markers, every fifth one.
            more = {"label": label, "markevery": (i % 5, 5)}
            style.line(ax, seeds, "position", "accuracy", look[label], (0.25, 0.75), **more)
        ax.axvline(longest, color=style.INK, lw=1, ls="--")
        ax.axhline(here["baseline"].iloc[0], color=style.MUTED, lw=1, ls=":")
        style.title(ax, group.upper(), strong=True)
        ax.set(xscale="log", ylim=(0, 1.04))
        style.ticks_at(ax, [longest // 4, longest // 2, longest, 2 * longest, BEYOND * longest])
    style.names(axes, "place in the word, tokens", "accuracy of the answer there")
    note = (
        f"Line: median over {positions['seed'].nunique()} seeds; band: quartiles. Dashed: the longest word "
        f"trained on ({longest}); dotted: chance.\nEach cell: about {tried['parameters'].median():,.0f} "
        f"parameters, {tried['budget_steps'].iloc[0]:,} steps, tuned for fitting the trained lengths."
    )
    style.legend(figure, axes[0, 0], [note])
    return {"tracking": figure}


EXPERIMENT = Experiment(
    "Which cells track a state, and how far beyond the length they were trained on?",
    CLAIMS, PRESETS, measure, judge, tables, figures,
    models={"group": "groups", "label": "cells"},
)  # fmt: skip

if __name__ == "__main__":
    experiment.command(EXPERIMENT)
