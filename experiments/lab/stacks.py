"""Deep stacks: what is inside of them before training, and what is said of those that train."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import ranking, rules, style, survival
from experiments.lab.experiment import FALSE, TRUE, UNDECIDED, Verdict, untested
from experiments.lab.statistics import Estimate, score


def inside(layers: pd.DataFrame) -> pd.DataFrame:
    """A line for each task and variant: variance and gradient of the first layer and the last."""
    rows = []
    for (task, label), group in layers.groupby(["task", "label"], sort=False):
        last, row = group["layer"].max(), {"task": task, "variant": label}
        for name, layer in (("variance", 0), ("variance", last), ("gradient", 1), ("gradient", last)):
            row[f"{name}, layer {layer}"] = f"{score(group[name][group['layer'] == layer]):.2g}"
        rows.append(row)
    return pd.DataFrame(rows)


def figure(layers: pd.DataFrame) -> Figure:
    """Variance and gradient of `probes.before_training` against the layer, on the first task."""
    layers = layers[layers["task"] == layers["task"].iloc[0]]
    look, (drawn, axes) = style.styles(layers), style.panels(1, 2, (4.6, 3.9))
    names = {"variance": "variance of the layer's output", "gradient": "norm of its parameters' gradient"}
    for ax, (name, text) in zip(axes[0], names.items(), strict=True):
        for label, group in layers.dropna(subset=[name]).groupby("label", sort=False):
            style.line(ax, group, "layer", name, look[label], label=label)
        ax.set(yscale="log", xlabel="layer" + " (0: its input)" * (name == "variance"), ylabel=text)
        ax.xaxis.get_major_locator().set_params(integer=True)
    note = f"Stacks of {layers['layer'].max()} layers before training, on {layers['task'].iloc[0]}. "
    note += f"Line: median over {layers['seed'].nunique()} seeds; band: all."
    style.legend(drawn, axes[0, 0], [note])
    return drawn


class Stacks:
    """The seeds of one task that count, at several depths, and what is said of the deepest.

    Args:
      rows: one per variant (`label`), `depth` and seed: `solved_step`, `budget_steps`, `test_metric`.
      designed: the variant that the others are compared with.
      needed: how many times as many steps are called slower.
    """

    def __init__(self, rows: pd.DataFrame, designed: str, needed: float):
        self.rows, self.budget = rows, float(rows["budget_steps"].iloc[0])
        self.designed, self.needed = designed, needed
        self.shallow, self.deep = rows["depth"].min(), rows["depth"].max()

    def of(self, variant, depth=None) -> pd.DataFrame:
        rows, depth = self.rows, self.deep if depth is None else depth
        return rows[(rows["label"] == variant) & (rows["depth"] == depth)]

    def steps(self, variant, depth=None) -> np.ndarray:
        """To the threshold; infinite where it was not reached."""
        return self.of(variant, depth)["solved_step"].astype(float).fillna(np.inf).to_numpy()

    def missing(self, *variants) -> str:
        """Why nothing can be said of them; empty: it can."""
        for variant in variants:
            if not len(self.of(variant)):
                return f"{variant} was not trained"
        if len({self.shallow, self.deep}) < 2:
            return "a single depth was trained"
        return ""

    def trains(self, variant) -> Verdict:
        """Whether most of its seeds are trained."""
        if why := self.missing(variant):
            return untested(why)
        steps = self.steps(variant)
        return rules.most(int(np.isfinite(steps).sum()), len(steps))

    def ratio(self, variant, depth=None) -> Estimate:
        """Restricted mean steps, over those of the one that is compared with."""
        return survival.restricted_ratio(
            self.steps(variant, depth), self.steps(self.designed, depth), self.budget
        )

    def _hidden(self, variant, depth=None) -> str:
        """Why the budget would not show that others are slower than this one; empty: it would."""
        steps, name = self.steps(variant, depth), f"{variant}, {depth or self.deep} layers"
        if 2 * np.isfinite(steps).sum() < len(steps):
            return f"most seeds of {name}, are not trained"
        if self.budget < self.needed * survival.restricted_mean(steps, self.budget).high:
            return f"{self.needed} times the steps of {name}, are beyond the budget"
        return ""

    def needs(self, without) -> Verdict:
        """Whether it is slower without."""
        if why := self.missing(without, self.designed) or self._hidden(self.designed):
            return untested(why)
        note = f"test accuracy is better with it: {self.better(without):.2f}"
        seeds = min(len(self.of(without)), len(self.of(self.designed)))
        return rules.above(self.ratio(without), self.needed, seeds, f"{self.needed} times the steps", note)

    def as_well(self, variant) -> Verdict:
        """Whether it is not slower."""
        if why := self.missing(variant, self.designed) or self._hidden(self.designed):
            return untested(why)
        seeds = min(len(self.of(variant)), len(self.of(self.designed)))
        return rules.below(self.ratio(variant), self.needed, seeds, f"{self.needed} times the steps")

    def better(self, variant, depth=None) -> Estimate:
        """The probability that what it is compared with has the higher test accuracy."""
        ours, theirs = (self.of(name, depth)["test_metric"] for name in (self.designed, variant))
        return ranking.improvement(ours, theirs)

    def more_when_deep(self, without) -> Verdict:
        """Whether it is slower by a larger factor in deep stacks."""
        pairs = [[(name, depth) for name in (without, self.designed)] for depth in (self.deep, self.shallow)]
        return self._more(pairs, f"1: as much at {self.shallow} layers")

    def more_alone(self, alone: tuple[str, str], beside: tuple[str, str], against: str) -> Verdict:
        """Whether a help does more by itself than beside another one: variants without and with it."""
        return self._more([[(name, self.deep) for name in pair] for pair in (alone, beside)], against)

    def _more(self, pairs, against) -> Verdict:
        """Of pairs of (variant, depth) without and with a help; what the budget cuts off may be larger."""
        why = self.missing(*(variant for pair in pairs for variant, _ in pair))
        why = why or next(filter(None, (self._hidden(*with_) for _, with_ in pairs)), "")
        if why:
            return untested(why)
        groups = [[self.steps(*of) for of in pair] for pair in pairs]
        found = survival.interaction(*groups, self.budget)
        verdict = rules.above(found, 1, min(len(steps) for pair in groups for steps in pair), against)
        cut = [2 * np.isfinite(without).sum() < len(without) for without, _ in groups]
        if (verdict.verdict == TRUE and cut[1]) or (verdict.verdict == FALSE and cut[0]):
            return verdict._replace(
                verdict=UNDECIDED, note="the budget cuts off what would have to be smaller"
            )
        return verdict
