"""Who holds what in a gated cell: the gates of units that remember long against those that remember short.

  python -m experiments.gates
  python -m experiments.gates --cells=gru,gru:reset_after=true --config.gaps=20
  python -m experiments.gates --preset=full --workers=2

Trains gated cells, each tuned alike (`lab/tuning.py`), on `mixed_recall`, which asks for what was seen one
step ago and for what was seen `gap` steps ago, until they solve it; only seeds that do count. The memory time
of a unit's state (c of LSTM and SRU, h of GRU) is measured in two ways that do not look at gates: by
gradients (`probes.unit_memory`) and by replacing one token (`probes.swap_memory`), the median lag of each. A
unit is long if both are more than half of the gap, short if both are less than SHORT steps.

What gates do is observed: do they tell long units from short ones? And it is tried: a gate of the long units
is held still, or that of as many short ones, and what is forgotten is counted, of long ago (the question's
answer) and of just now (the others). The control is the same units before training.

In Cho et al. 2014 units of short memory have "reset gates that are frequently active", units of long memory
"update gates that are mostly active". Here, as there, a large update gate z keeps the past, and a reset
gate r multiplies it: to reset is r near 0. What a busy reset gate is can be read in two ways, and both are
measured: the mean of 1 - r (it resets much), and the standard deviation of r over time (it switches much).
"""

import dataclasses
import functools
import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
from experiments.lab import experiment, forgetting, holding, probes, rules, runs, statistics, tuning, units
from experiments.lab.experiment import Claim, Experiment, Part, Verdict, untested

SHORT = 2  # steps
APART = 0.6  # the least AUC that is called a difference; 0.5 is none
ALL_GAPS = "True (false) if so at every gap with 10 solved seeds or more that have units of both kinds."
AUC = f"The interval of the AUC, its mean over seeds, is above (below) {APART}. {ALL_GAPS}"
LOSS = f"The interval of the difference of what is lost, its mean over seeds, is above (below) 0. {ALL_GAPS}"
# Parts that are observed: cell, gate, statistic, of which units it is more.
SEEN = {
    "gates_update": ("gru", "update", "mean", "long"),
    "gates_reset": ("gru", "reset", "off", "short"),
    "gates_switch": ("gru", "reset", "std", "short"),
}
LEARNED = "gates_learned"
# Parts that are tried: cell, gate, what it is held at, of which units it costs more, and of which answers.
TRIED = {
    "gates_update_holds": ("gru", "update", "0", "long"),
    "gates_reset_clears": ("gru", "reset", "1", "short"),
    "gates_switch_clears": ("gru", "reset", "mean", "short"),
    "gates_lstm_holds": ("lstm", "forget", "0", "long"),
    "gates_sru_holds": ("sru", "forget", "0", "long"),
}
CLAIMS = {
    "gru_gates": Claim(
        "Short-range units keep the reset gate busy, long-range units the update gate",
        {
            "gates_update": Part("A GRU's long units have the larger mean of z", AUC),
            LEARNED: Part(
                "They have learned to",
                f"The interval of that AUC minus the one before training is above (below) 0. {ALL_GAPS}",
            ),
            "gates_reset": Part("A GRU's short units have the larger mean of 1 - r", AUC),
            "gates_switch": Part("A GRU's short units have the larger deviation of r over time", AUC),
            "gates_update_holds": Part(
                "What is long ago is forgotten with z = 0 in long units, rather than in as many short ones",
                LOSS,
            ),
            "gates_reset_clears": Part(
                "What was just seen is lost with r = 1 in short units, rather than in as many long ones", LOSS
            ),
            "gates_switch_clears": Part("Likewise with r at its mean over time", LOSS),
            "gates_lstm_holds": Part(
                "In an LSTM what is long ago is forgotten with f = 0 in long units, rather than in short",
                LOSS,
            ),
            "gates_sru_holds": Part("Likewise in SRU", LOSS),
        },
        "held",
    ),
}
SEEN_TITLE = "Gates of long and of short units; AUC: mean over seeds [95 %]"
TRIED_TITLE = "Accuracy lost where a gate is held; mean over seeds [95 %]"


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = ("gru", "lstm", "sru")
    gaps: tuple = (10, 20)  # the long dependency is one step more
    hidden_size: int = 32
    symbols: int = 4  # and as many distractors
    steps: int = 1500
    learning_rates: tuple = (0.003, 0.01, 0.03, 0.1)
    probed: int = 64  # sequences, for memory times and gates
    tested: int = 256  # sequences, for what is forgotten
    draws: int = 8  # of as many units of each range

    def models(self):
        """Cell, gap."""
        return itertools.product(self.cells, self.gaps)

    def part(self, train, *model):
        return _tuned_and_looked_into(train, self, *model)

    def configs(self):
        return (_config(self, gap, cell) for cell, gap in self.models())


PRESETS = {
    "quick": Settings(
        cells=("gru",), gaps=(4,), seeds=2, tuning_seeds=1, hidden_size=8, symbols=2, steps=150,
        learning_rates=(0.03, 0.1), initialisations=1, widenings=0, probed=4, tested=8, draws=2,
    ),
    "fast": Settings(),
    "full": Settings(gaps=(10, 20, 50), seeds=20, steps=3000, probed=128, tested=1024),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`tuning`: every trial; `training`: the seeds that count; of those that solved the task, `units`: a row
    for each unit and gate, and `held`: for each gate, what it is held at, and the range of the units in which
    it is, the accuracy that is lost."""
    tuned, found = [], []
    for cell, gap in settings.models():
        told = runs.labels(cell) | {"gap": gap}
        trials, rows = _tuned_and_looked_into(lab.train, settings, cell, gap)
        tuned += [told | row for row in trials]
        found += [told | row for row in rows]
    frames = {"tuning": pd.DataFrame(tuned)} | runs.by_kind(found, run="training", unit="units", held="held")
    return {name: frame if len(frame.columns) else frame.assign(**NOTHING) for name, frame in frames.items()}


# Where no seed has solved it.
NOTHING = dict.fromkeys(("cell", "label", "gap", "seed", "gate", "to", "range"), pd.Series(dtype=str))


def eligible() -> list[str]:
    """The cells that have gates which can be held still."""
    return [name for name in cells.names() if holding.gates_of(probes.default(name))]


def _tuned_and_looked_into(train, settings, cell, gap) -> tuple[list, list]:
    name = f"{runs.file_name(cell)}-{gap}"
    trials, final = tuning.tuned(train, name, functools.partial(_config, settings, gap), cell, settings)
    picked = next(row for row in trials if row["picked"])
    probe = functools.partial(_probe, settings, picked["trial"])
    return trials, train(name, final, probe, settings.of("probed", "tested", "draws") | {"short": SHORT})


def _config(settings, gap, cell):
    """Gates start where the cell has them, or where tuning has put them, all units alike: chrono
    initialisation would give them different time scales before they learn any."""
    config = runs.config(
        cell, "mixed_recall", cell={"hidden_size": settings.hidden_size},
        task={"gap": gap, "lag": 1, "symbols": settings.symbols, "distractors": settings.symbols},
        train={"steps": settings.steps, "eval_every": 25},
    )  # fmt: skip
    if not holding.gates_of(config.cell):
        raise ValueError(f"{cell} has no gates that can be held still")
    return config


def _probe(settings, trial, result) -> list[dict]:
    fields = {"kind": "run", "trial": trial} | runs.fields(result, "parameters", "budget_steps")
    names = ("seed", "learning_rate", "solved", "solved_step", "test_metric")
    rows = [fields | {name: seed[name] for name in names} for seed in runs.seeds(result)]
    return rows + holding.looked_into(result, SHORT, **settings.of("probed", "tested", "draws"))


# --- the rules


def judge(frames) -> dict[str, Verdict]:
    """`gru_gates`: its parts, each by one number for every gap; the rules are theirs."""
    verdicts = {}
    for key, (cell, gate, statistic, of) in SEEN.items():
        found = _by_gap(frames, "units", cell, forgetting.aucs, gate, statistic, of)
        verdicts[key] = _decided(frames, cell, found, APART, f"AUC {APART:g}")
    cell, *what = SEEN["gates_update"]
    verdicts[LEARNED] = _decided(
        frames, cell, _by_gap(frames, "units", cell, _gained, *what), 0, "0: before training"
    )
    for key, (cell, gate, to, of) in TRIED.items():
        found = _by_gap(frames, "held", cell, _lost_more, gate, to, of)
        verdicts[key] = _decided(
            frames, cell, found, 0, f"0: as many {'short' if of == 'long' else 'long'} units"
        )
    return verdicts


def _gained(rows, *what) -> pd.Series:
    return forgetting.aucs(rows, *what) - forgetting.aucs(rows, *what, before=True)


def _lost_more(rows, gate, to, of) -> pd.Series:
    """By seed, of the answers that units of this range should hold."""
    lost = forgetting.lost(rows, gate, to, of)
    return lost[of] - lost["short" if of == "long" else "long"]


def _by_gap(frames, name, cell, values, *what) -> dict[int, pd.Series]:
    """Numbers by seed, of the first such cell there is, at each gap that some seed of it has solved."""
    rows = frames[name][frames[name]["label"] == _first(frames, cell)]
    return {int(gap): values(group, *what) for gap, group in rows.groupby("gap")}


def _first(frames, cell) -> str | None:
    return next(iter(frames["training"]["label"][frames["training"]["cell"] == cell]), None)


def _decided(frames, cell, by_gap, edge, against) -> Verdict:
    """One verdict of all gaps, out of numbers by seed at each gap."""
    label, verdicts = _first(frames, cell), {}
    if label is None:
        return untested(f"no {cell} among the cells")
    training = frames["training"][frames["training"]["label"] == label]
    for gap, solved in training.groupby("gap")["solved"]:
        values = by_gap.get(gap, [])
        note = f"solved by {solved.sum()} of {len(solved)} seeds"
        if len(values) < solved.sum():
            note += f", {len(values)} have units of both kinds"
        mean = statistics.mean(values)
        verdicts[f"gap {gap}"] = rules.above(mean, edge, len(values), against, note, ".3f")
    return rules.everywhere(verdicts)


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Training; gates of long and of short units; what is forgotten."""
    shown = {"Training on mixed recall, tuned, until solved": [], SEEN_TITLE: [], TRIED_TITLE: []}
    for (label, gap), rows in frames["training"].groupby(["label", "gap"], sort=False):
        trials, here, held = (_of(frames[name], label, gap) for name in ("tuning", "units", "held"))
        row, one = {"cell": label, "gap": gap}, rows.iloc[0]
        tuned = {"tuned to": one["trial"], "rate": f"{one['learning_rate']:g}"}
        tuned |= {"inside the grid": "yes" if trials["inside"].all() else "no"}
        steps = statistics.median_steps(rows["solved_step"])
        tuned |= {"solved": f"{int(rows['solved'].sum())}/{len(rows)}"}
        tuned |= {"steps to solve [95 %]": statistics.censored(steps, f">{one['budget_steps']:g}")}
        for of in units.RANGES:
            counts = (here["range"] == of).groupby([here["gate"], here["seed"]]).sum()
            tuned[f"{of} units"] = (
                f"{counts.mean():.1f} ({counts.min()} to {counts.max()})" if len(counts) else "–"
            )
        shown["Training on mixed recall, tuned, until solved"].append(row | tuned)
        for gate, of in itertools.product(here["gate"].unique(), ("mean", "std")):
            gates = here[here["gate"] == gate]
            means = gates.groupby("range")[of].mean()
            told = {"gate": gate, "of": forgetting.WORDS[of]} | {
                f"{name} units": f"{means.get(name, np.nan):.2f}" for name in units.RANGES
            }
            for name, before in (("AUC, long over short", False), ("before training", True)):
                told[name] = f"{statistics.mean(forgetting.aucs(here, gate, of, 'long', before)):.2f}"
            shown[SEEN_TITLE].append(row | told)
        for gate, to in itertools.product(held["gate"].unique(), holding.HELD_AT):
            told = {"gate": gate, "held at": to}
            for answers, of in itertools.product(("long", "short"), units.RANGES):
                lost = forgetting.lost(held, gate, to, answers)[of]
                told[f"of {forgetting.AGO[answers]}, in {of} units"] = f"{statistics.mean(lost):.3f}"
            shown[TRIED_TITLE].append(row | told)
    return {title: pd.DataFrame(rows) for title, rows in shown.items()}


def _of(frame, label, gap) -> pd.DataFrame:
    return frame[(frame["label"] == label) & (frame["gap"] == gap)]


def figures(frames) -> dict[str, Figure]:
    """`held`: what is forgotten where gates are held; `gates`: gates of a GRU's units, before and after."""
    made, rows = {}, frames["units"][frames["units"]["label"] == _first(frames, "gru")]
    if len(frames["held"]):
        made["held"] = forgetting.held_figure(frames["held"])
    if len(rows):
        made["gates"] = forgetting.gates_figure(rows, [tuple(what) for _, *what, _ in SEEN.values()])
    return made


EXPERIMENT = Experiment(
    "Who holds what in a gated cell, which gate of which units?",
    CLAIMS, PRESETS, measure, judge, tables, figures, eligible,
    models={"label": "cells", "gap": "gaps"},
)  # fmt: skip
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
