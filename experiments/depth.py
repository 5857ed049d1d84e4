"""What deep stacks need to train: highway connections, an initialisation made for them, a residual block.

  python -m experiments.depth
  python -m experiments.depth --config.variants=sru+highway+init,sru+highway --config.depths=2,12
  python -m experiments.depth --preset=full --workers=2

Stacks of SRU and LSTM of one hidden size learn scikit-learn's digits, a pixel a step, and questions (TREC,
see train/README.md for its data). A variant names the help that it has:

  highway  SRU's own, h = r c + (1 - r) x alpha, else h = r c; around LSTM layers `model.connection=highway`
  init     SRU: weights of variance 1 / d and alpha = sqrt(3), else torch's weights and alpha = 1; LSTM: a
           forget bias of 1, else 0
  block    `model.block=residual`: x + cell(norm(x)), a norm before the head

sru+highway+init is SRU as designed. The learning rate of each variant is tuned for each depth and task
(`lab/tuning.py`), with as many trials; then ten other seeds train for the whole budget. A seed is trained
once its accuracy on validation has been the task's THRESHOLD; which of two is slower is told by the
restricted means of the steps to it. Before training, every layer's output and gradient are measured.
"""

import dataclasses
import functools
import itertools
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import configs
from experiments.lab import experiment, probes, rules, runs, stacks, statistics, style, survival, tuning
from experiments.lab.experiment import Claim, Experiment, Part, Verdict
from experiments.lab.stacks import Stacks


class Help(NamedTuple):
    """What a variant of a cell has."""

    cell: str
    highway: bool
    init: bool
    block: bool

    @property
    def name(self) -> str:
        return "+".join([self.cell, *(name for name in self._fields[1:] if getattr(self, name))])

    @property
    def text(self) -> str:
        """The cell."""
        if self.cell == "lstm":
            return "lstm" if self.init else "lstm:forget_bias=0"
        highway = "" if self.highway else ":highway=false"
        plain = ":tailored=false" + ":rescale=false" * self.highway  # without highway there is no alpha
        return "sru" + highway + plain * (not self.init)

    @property
    def model(self) -> dict:
        """What is around it."""
        if self.block:
            return {"block": "residual"}
        return {"connection": "highway"} if self.cell == "lstm" and self.highway else {}


EVERY = (Help(*parts) for parts in itertools.product(("sru", "lstm"), *[(False, True)] * 3))
# A block is LSTM's connection: it has no highway beside it.
VARIANTS = {one.name: one for one in EVERY if not (one.cell == "lstm" and one.highway and one.block)}
DESIGNED, PLAIN = "sru+highway+init", "sru"
HIGHWAY, INIT, BLOCK = "sru+highway", "sru+init", "sru+block"
TASKS = {"pixels": "digits:pixels_per_step=1", "questions": "sentence:dataset=trec:min_count=2"}
# Of accuracy on validation, below what such stacks of tuning's seeds reach.
THRESHOLD = {"pixels": 0.5, "questions": 0.6}
LOOKS = [{"color": c, "marker": m} for c, m in (("#56B4E9", "o"), ("#0072B2", "s"), ("#222222", "D"))]
NEEDED = 1.25  # times the steps that it takes without, from which on a help is called needed

HALF = "The interval (Wilson) of the share of seeds that are trained is above (below) a half, on every task."
SLOWER = (
    "The interval of the ratio of restricted mean steps, without it over with it, is above (below) "
    f"{NEEDED}, on every task where most seeds of SRU as designed are trained, in a budget that could tell."
)
MORE = (
    "The interval of the ratio of that ratio, {}, is above (below) 1, on every task where the budget could "
    "tell; not where it cuts off the one that would have to be smaller."
)
DEEPER, ALONE = MORE.format("deepest over shallowest"), MORE.format("without the initialisation over with it")
CLAIMS = {
    "sru_deep": Claim(
        "Highway connections and a tailored initialisation let SRU train deep",
        {
            "depth_sru": Part("SRU as designed trains deep", HALF),
            "depth_highway_needed": Part("It needs its highway, where nothing stands in for it", SLOWER),
            "depth_init_needed": Part("It needs its initialisation, where nothing stands in for it", SLOWER),
            "depth_highway_enough": Part("The highway is enough, without the initialisation", HALF),
            "depth_init_enough": Part("The initialisation is enough, without the highway", HALF),
            "depth_highway_deep": Part("The highway helps more in deep stacks", DEEPER),
            "depth_init_deep": Part("The initialisation helps more in deep stacks", DEEPER),
            "depth_either": Part("The highway helps more where the initialisation is missing", ALONE),
            "depth_block": Part(
                "A pre-norm residual block does as well, without either",
                "The interval of the ratio of restricted mean steps, block over SRU as designed, is below "
                f"(above) {NEEDED}, on every task where that can be told, as above.",
            ),
            "depth_lstm": Part(
                "An LSTM as deep trains with highway connections and a forget bias of 1", HALF
            ),
        },
        "depth",
    )
}


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    variants: tuple = (
        DESIGNED, HIGHWAY, INIT, PLAIN, BLOCK, "lstm+init", "lstm+highway+init", "lstm+init+block",
    )  # fmt: skip
    data: tuple = ("pixels",)
    depths: tuple = (2, 8)
    hidden_size: int = 16
    steps: int = 400
    batch_size: int = 32
    eval_every: int = 20
    learning_rates: tuple = (0.003, 0.01, 0.03, 0.1)
    initialisations: int = 1  # it is what is compared
    rows: int = 128  # sequences for what is measured before training

    choices: ClassVar = {"variants": tuple(VARIANTS), "data": tuple(TASKS)}

    def models(self):
        """Task, variant, depth."""
        return itertools.product(self.data, self.variants, self.depths)

    def part(self, train, *model):
        return _tuned_and_trained(train, self, *model)

    def configs(self):
        return (_config(self, *model) for model in self.models())


PRESETS = {
    "quick": Settings(
        variants=(DESIGNED, PLAIN), depths=(1, 2), seeds=2, tuning_seeds=1, hidden_size=4, steps=20,
        batch_size=8, eval_every=10, learning_rates=(0.01, 0.03), widenings=0, rows=8,
    ),
    "fast": Settings(),
    "full": Settings(
        variants=tuple(VARIANTS), data=("pixels", "questions"), depths=(2, 12), hidden_size=24, steps=600,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`tuning`: every trial; `runs`: the seeds that count, with the steps to THRESHOLD; `layers`: variance of
    the output and norm of the gradient of each layer of the deepest stacks, before training (layer 0: what
    the first one sees)."""
    tuned, found = [], []
    for task, variant, depth in settings.models():
        told = {"task": task, "cell": VARIANTS[variant].cell, "label": variant, "depth": depth}
        trials, rows = _tuned_and_trained(lab.train, settings, task, variant, depth, lab.folder)
        tuned += [row | told for row in trials]
        found += [row | told | {"inside": trials[0]["inside"]} for row in rows]
    return {"tuning": pd.DataFrame(tuned)} | runs.by_kind(found, run="runs", layer="layers")


def _tuned_and_trained(train, settings, task, variant, depth, folder=str) -> tuple[list, list]:
    name, text = f"{task}-{variant}-{depth}", VARIANTS[variant].text
    make = functools.partial(_config, settings, task, variant, depth)
    trials, final = tuning.tuned(train, name, lambda _: make(), text, settings)
    deepest = depth == max(settings.depths)
    probe = functools.partial(_probe, settings, task, deepest, folder(name))
    return trials, train(name, final, probe, {"rows": settings.rows, "threshold": THRESHOLD[task]})


def _config(settings, task, variant, depth):
    one, (name, options) = VARIANTS[variant], configs.with_options(TASKS[task])
    # As wide as the cells: no layer of SRU needs a projection in its highway.
    width = {} if one.block else {"embedding_size": settings.hidden_size}
    return runs.config(
        one.text, name, task=options,
        cell={"hidden_size": settings.hidden_size},
        model={"depth": depth, "dropout": 0.0} | width | one.model,
        train=settings.of("steps", "batch_size", "eval_every") | {"stop_when_solved": False},
    )  # fmt: skip


def _probe(settings, task, deepest, folder, result) -> list[dict]:
    fields = runs.fields(result, "parameters", "budget_steps", "baseline")
    fields |= {"kind": "run", "threshold": THRESHOLD[task]} | settings.of("hidden_size")
    curves = pd.read_json(folder / "metrics.jsonl", lines=True)
    # The tasks' own thresholds are near what such small stacks can do at all.
    reached = curves[curves["valid_metric"] >= THRESHOLD[task]].groupby("seed")["step"].min()
    rows = [
        fields
        | {name: seed[name] for name in ("seed", "learning_rate", "test_metric")}
        | {"solved_step": float(reached[seed["seed"]]) if seed["seed"] in reached else None}
        for seed in runs.seeds(result)
    ]
    return rows + (probes.before_training(result, settings.rows) if deepest else [])


# --- the rules


def judge(frames) -> dict[str, Verdict]:
    """`sru_deep`: its parts, each for every task that was trained; the rules are theirs."""
    of = {
        "depth_sru": lambda s: s.trains(DESIGNED),
        "depth_highway_needed": lambda s: s.needs(INIT),
        "depth_init_needed": lambda s: s.needs(HIGHWAY),
        "depth_highway_enough": lambda s: s.trains(HIGHWAY),
        "depth_init_enough": lambda s: s.trains(INIT),
        "depth_highway_deep": lambda s: s.more_when_deep(INIT),
        "depth_init_deep": lambda s: s.more_when_deep(HIGHWAY),
        "depth_either": lambda s: s.more_alone((PLAIN, HIGHWAY), (INIT, DESIGNED), "1: as much with it"),
        "depth_block": lambda s: s.as_well(BLOCK),
        "depth_lstm": lambda s: s.trains("lstm+highway+init"),
    }
    by_task = frames["runs"].groupby("task", sort=False)
    each = {task: Stacks(rows, DESIGNED, NEEDED) for task, rows in by_task}
    return {key: rules.everywhere({task: rule(each[task]) for task in each}) for key, rule in of.items()}


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Steps and scores; effects of each help without and with the other; inside, before training."""
    shown = {}
    for task, rows in frames["runs"].groupby("task", sort=False):
        of, trained = Stacks(rows, DESIGNED, NEEDED), []
        for (depth, label), seeds in rows.groupby(["depth", "label"], sort=False):
            one, steps = seeds.iloc[0], of.steps(label, depth)
            row = {"layers": depth, "variant": label, "params": f"{one['parameters']:,}"}
            row["tuned rate"] = f"{one['learning_rate']:g}" + " (edge)" * (not one["inside"])
            row["trained"] = f"{int(np.isfinite(steps).sum())}/{len(steps)}"
            row["mean steps"] = f"{survival.restricted_mean(steps, of.budget):.0f}"
            row["test accuracy"] = (
                f"{statistics.score(statistics.worst_last(seeds['test_metric'], True)):.3f}"
            )
            if label != DESIGNED and len(of.of(DESIGNED, depth)):
                row["times the steps"] = f"{of.ratio(label, depth):.2f}"
                row["p, log-rank"] = survival.logrank(steps, of.steps(DESIGNED, depth), of.budget)
                row["SRU as designed scores higher"] = f"{of.better(label, depth):.2f}"
            trained.append(row)
        trained = pd.DataFrame(trained).astype(object)
        trained = trained.where(trained.notna(), "")
        if "p, log-rank" in trained:
            compared = trained["p, log-rank"] != ""
            p = statistics.holm(trained["p, log-rank"][compared].to_numpy(float))
            trained.loc[compared, "p, log-rank"] = [f"{value:.2g}" for value in p]
        title = f"{task}: steps to validation accuracy {rows['threshold'].iloc[0]:g}"
        shown[f"{title}, restricted to {of.budget:,.0f}; [95 %], p by Holm over the table"] = trained
    return shown | {"Before training, the deepest stacks (median [95 %])": stacks.inside(frames["layers"])}


def figures(frames) -> dict[str, Figure]:
    """`depth`: steps and test accuracy; `layers`: inside, before training."""
    return {"depth": _depth_figure(frames["runs"]), "layers": stacks.figure(frames["layers"])}


def _depth_figure(rows) -> Figure:
    tasks, depths = list(rows["task"].unique()), sorted(rows["depth"].unique())
    labels, budget = list(dict.fromkeys(rows["label"])), rows["budget_steps"].iloc[0]
    figure, axes = style.panels(len(tasks), 2, (5.2, 0.9 + 0.3 * len(labels)), sharey=True)
    looks = dict(zip(depths, itertools.cycle(LOOKS), strict=False))
    for (left, right), task in zip(axes, tasks, strict=True):
        here = rows[rows["task"] == task]
        of = Stacks(here, DESIGNED, NEEDED)
        for (i, label), (j, depth) in itertools.product(enumerate(labels), enumerate(depths)):
            at = i + 0.3 * (j - (len(depths) - 1) / 2)
            steps, scores = np.minimum(of.steps(label, depth), budget), of.of(label, depth)["test_metric"]
            for ax, values in ((left, steps), (right, scores.dropna())):
                ax.plot(values, np.full(len(values), at), **looks[depth], ls="none", ms=3, alpha=0.4)
                ax.plot(np.mean(values), at, **looks[depth], ms=6)
        left.axvline(budget, color=style.MUTED, lw=1, ls=":")
        right.axvline(here["baseline"].iloc[0], color=style.MUTED, lw=1, ls=":")
        left.set(xlim=(0, 1.03 * budget), xlabel=f"steps to validation accuracy {THRESHOLD[task]:g}")
        right.set(xlim=(0, 1), xlabel="test accuracy")
        left.set_yticks(range(len(labels)), labels)
        left.set_ylim(len(labels) - 0.5, -0.5)
        style.title(left, task, strong=True)
    handles = [style.handle(f"{depth} layers", **looks[depth], ls="none") for depth in depths]
    note = (
        f"Small: {rows['seed'].nunique()} seeds, at the budget (dotted) where one did not reach it; large: "
        f"their mean. Hidden size {rows['hidden_size'].iloc[0]}, {budget:,} steps, the learning rate of each "
        "tuned. Dotted at the right: the commonest class."
    )
    style.legend(figure, handles, [note])
    return figure


EXPERIMENT = Experiment(
    "What do deep stacks of recurrent cells need to train?", CLAIMS, PRESETS, measure, judge, tables, figures
)
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
