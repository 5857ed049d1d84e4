"""How deep stacks of SRU train: with and without highway, tailored initialisation and alpha, beside LSTM.

  python -m experiments.depth
  python -m experiments.depth --cells=sru,sru:rescale=false,sru:highway_bias=-3 --config.depths=2,12
  python -m experiments.depth --preset=full

Stacks of one hidden size (parameters are in the table) learn scikit-learn's digits, some pixels a step. Every
seed trains with a grid of learning rates, the whole budget, and counts with the one that was best for the
other seeds. The variants are options of cells/sru.py: highway (h = r c + (1 - r) x alpha, else h = r c),
rescale (alpha, else 1), tailored (weights of variance 1 / d, else torch's). For the deepest stacks the
variance of every layer's output and the gradient of its parameters are measured before training, too.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.figure import Figure

from experiments.lab import experiment, probes, protocol, runs, statistics, style
from experiments.lab.experiment import Claim, Experiment, Verdict
from train import metrics

DEEP = "Highway connections and a tailored initialisation let SRU train deep"
CLAIMS = {"sru_deep": Claim(DEEP, "depth")}
WHOLE = "sru"
# What the claim says SRU needs, and the variant that goes without.
PARTS = {"highway": "sru:highway=false", "initialisation and alpha": "sru:tailored=false:rescale=false"}


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    cells: tuple = (WHOLE, *PARTS.values(), "lstm")
    depths: tuple = (1, 4, 12)
    seeds: int = 5
    hidden_size: int = 24
    pixels_per_step: int = 8
    steps: int = 300
    batch_size: int = 32
    learning_rates: tuple = (0.005, 0.02, 0.08)
    threshold: float = 0.9  # validation accuracy from which on a stack counts as trained
    rows: int = 128  # images for what is measured before training

    def runs(self, ended=None):
        self.require("threshold", self.threshold <= 1, "at most 1")
        stacks = itertools.product(self.depths, self.cells)
        return {f"{runs.file_name(cell)}-{depth}": _config(self, depth, cell) for depth, cell in stacks}


PRESETS = {
    "quick": Settings(
        cells=(WHOLE, "sru:highway=false"), depths=(1, 2), seeds=2, hidden_size=4, pixels_per_step=32,
        steps=20, batch_size=8, learning_rates=(0.01, 0.03), rows=8,
    ),
    "fast": Settings(),
    "full": Settings(
        cells=(
            WHOLE, "sru:highway_bias=-3.0", *PARTS.values(), "sru:tailored=false", "sru:rescale=false",
            "lstm",
        ),
        depths=(1, 2, 4, 6, 8, 10, 12), seeds=10, hidden_size=64, pixels_per_step=4, steps=3000,
        batch_size=64, learning_rates=(0.001, 0.003, 0.01, 0.03, 0.1), rows=180,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`runs`: every seed and learning rate at every depth, and which were `chosen`; `layers`: variance of the
    output and norm of the gradient of each layer of the deepest stacks, at initialisation (layer 0: what the
    first one sees)."""
    rows = []
    stacks = itertools.product(settings.depths, settings.cells)
    for (depth, cell), (name, config) in zip(stacks, settings.runs().items(), strict=True):
        deepest = depth == max(settings.depths)
        probe = functools.partial(_probe, settings, lab.folder(name), deepest)
        fields = settings.of("rows", "threshold") | {"layers": deepest}
        found = lab.train(name, config, probe, fields)
        rows += [{**runs.labels(cell), "depth": depth} | row for row in found]
    return runs.by_kind(rows, run="runs", layer="layers")


def _config(settings, depth, cell):
    return runs.config(
        cell,
        "digits",
        cell={"hidden_size": settings.hidden_size},
        task={"pixels_per_step": settings.pixels_per_step},
        # As wide as the cells: no layer of SRU needs a projection in its highway.
        model={"depth": depth, "embedding_size": settings.hidden_size, "dropout": 0.0},
        optim={"learning_rates": settings.learning_rates},
        train={
            "steps": settings.steps, "seeds": settings.seeds, "batch_size": settings.batch_size,
            "eval_every": max(1, min(25, settings.steps // 4)), "stop_when_solved": False,
        },
        chrono="cell",  # alpha is derived for gates that start at 1/2
    )  # fmt: skip


def _probe(settings, folder, deepest, result) -> list[dict]:
    fields = runs.fields(result, "parameters", "hidden_size", "budget_steps", "baseline")
    frame = pd.DataFrame(runs.seeds(result)).assign(**fields, threshold=settings.threshold)
    # The task's own threshold, 0.95, is near what the smallest stacks can do at all.
    curves = pd.read_json(folder / "metrics.jsonl", lines=True)
    reached = curves[curves["valid_metric"] >= settings.threshold]
    first = reached.groupby(["seed", "learning_rate"])["step"].min().rename("solved_step").astype(float)
    frame = frame.drop(columns="solved_step").join(first, on=["seed", "learning_rate"])
    frame = runs.with_chosen(frame.assign(solved=frame["solved_step"].notna()), better=True)
    columns = ["seed", "learning_rate", "chosen", "solved", "solved_step", "valid_metric", "test_metric"]
    frame = frame[[*columns, *fields, "threshold"]].assign(kind="run")
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return rows + (_layers(settings, result) if deepest else [])


def _layers(settings, result) -> list[dict]:
    """Variance and gradient of every layer at initialisation, one row per seed and layer."""
    run = result.run

    def loss(params, batch):
        return metrics.loss(run.spec, run.model.apply(params, batch.xs, lengths=batch.lengths), batch)

    def of(params, data):
        batch = run.config.task.eval_batch(data, "valid", 0, settings.rows)
        outputs = run.model.hidden_states(params, batch.xs, lengths=batch.lengths)
        outputs = [probes.embedded(run.spec, params, batch.xs), *outputs]
        gradients = jax.grad(loss)(params, batch)["layers"]
        norms = [optax.tree.norm(gradients[str(i)]) for i in range(len(outputs) - 1)]
        return jnp.stack([jnp.var(ys) for ys in outputs]), jnp.stack(norms)

    params = jax.tree.map(lambda p: p[: settings.seeds], runs.initial(result))
    of = runs.compiled(jax.vmap(of, (0, None)))
    variances, norms = jax.device_get(of(params, jax.device_get(run.data)))
    return [
        {"kind": "layer", "seed": seed, "layer": layer, "variance": float(variances[i, layer])}
        | {"gradient": float(norms[i, layer - 1]) if layer else None}
        for i, (seed, _) in enumerate(run.config.lanes[: settings.seeds])
        for layer in range(variances.shape[1])
    ]


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """`sru_deep`. At the deepest stacks tried,

    * SRU trains if the interval of its median steps to the threshold ends within the budget;
    * a part (PARTS) is needed if without it that interval lies wholly above SRU's, not solved being infinite;
    * it is needed for depth if, moreover, leaving it out costs more test accuracy in the deepest stacks than
      in the shallowest: the interval of the median over seeds of the difference is above 0.

    Holds: SRU trains, and both parts are needed for depth. Does not hold: SRU does not train, or neither part
    is needed. In part: anything else. Not tested: one depth, or a variant is missing.
    """
    rows = _chosen(frames)
    deep, shallow = rows["depth"].max(), rows["depth"].min()
    if deep == shallow or not {WHOLE, *PARTS.values()} <= set(rows["label"]):
        missing = "needs two depths, and SRU with and without each part."
        return {"sru_deep": Verdict("not tested here", missing)}
    last = dict(list(rows[rows["depth"] == deep].groupby("label")))
    steps = {label: statistics.median(seeds["steps"]) for label, seeds in last.items()}
    accuracy = rows.pivot(index="seed", columns=["label", "depth"], values="test_metric")
    trains, needed, costs = np.isfinite(steps[WHOLE].high), [], []
    for part, label in PARTS.items():
        cost = {depth: accuracy[WHOLE, depth] - accuracy[label, depth] for depth in (shallow, deep)}
        grows = statistics.median(cost[deep] - cost[shallow])
        slower = steps[label].low > steps[WHOLE].high
        needed.append((slower, slower and grows.low > 0))
        at = (f"{statistics.median(cost[d]):.3f} of test accuracy at {d}" for d in (shallow, deep))
        costs.append(
            f"without {part} {_steps(last[label])}; it costs {' and '.join(at)} (difference {grows:.3f})"
        )
    verdict = "holds in part"
    if trains and all(for_depth for _, for_depth in needed):
        verdict = "holds"
    elif not trains or not any(slower for slower, _ in needed):
        verdict = "does not hold here"
    evidence = f"{deep} layers: SRU {_steps(last[WHOLE])} steps to the threshold; {'; '.join(costs)}."
    if "lstm" in steps:
        evidence += f" LSTM of the same width: {_steps(last['lstm'])} steps."
    return {"sru_deep": Verdict(verdict, evidence)}


def _chosen(frames) -> pd.DataFrame:
    rows = frames["runs"][frames["runs"]["chosen"]]
    return rows.assign(steps=rows["solved_step"].astype(float).fillna(np.inf))


def _steps(rows) -> str:
    return statistics.censored(
        statistics.median(rows["steps"]), f">{rows['budget_steps'].iloc[0]:,}", "{:,.0f}"
    )


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Trainability by depth and variant; layers at initialisation."""
    chosen, rows = _chosen(frames), []
    for (depth, label), seeds in chosen.groupby(["depth", "label"], sort=False):
        rates = seeds["learning_rate"].value_counts().sort_index()
        rows.append(
            {
                "layers": depth,
                "cell": label,
                "params": f"{seeds['parameters'].iloc[0]:,}",
                "chosen rates": ", ".join(f"{rate:g} ({n})" for rate, n in rates.items()),
                "trained": f"{int(seeds['solved'].sum())}/{len(seeds)}",
                "steps": _steps(seeds),
                "test accuracy": f"{statistics.median(seeds['test_metric']):.3f}",
            }
        )
    layers, inside = frames["layers"], []
    last = layers["layer"].max()
    for label, group in layers.groupby("label", sort=False):
        of = {
            (name, layer): statistics.median(group[name][group["layer"] == layer])
            for name, layer in (("variance", 0), ("variance", last), ("gradient", 1), ("gradient", last))
        }
        row = {f"{name}, layer {layer}": f"{value:.2g}" for (name, layer), value in of.items()}
        inside.append({"cell": label} | row)
    threshold = chosen["threshold"].iloc[0]
    return {
        f"Digits by depth: trained at validation accuracy {threshold:g} (median [95 %])": pd.DataFrame(rows),
        f"At initialisation, {last} layers (median [95 %])": pd.DataFrame(inside),
    }


def figures(frames) -> dict[str, Figure]:
    """`depth`: steps to the threshold and test accuracy against depth; `layers`: inside, before training."""
    return {"depth": _depth_figure(frames), "layers": _layers_figure(frames["layers"])}


def _depth_figure(frames) -> Figure:
    rows = _chosen(frames)
    look, budget = style.styles(rows), rows["budget_steps"].iloc[0]
    depths, labels = sorted(rows["depth"].unique()), list(dict.fromkeys(rows["label"]))
    figure, ((left, right),) = style.panels(1, 2, (4.6, 4.1))
    for i, label in enumerate(labels):
        group, colour = rows[rows["label"] == label], look[label]["color"]
        shift = (i - (len(labels) - 1) / 2) * 0.12  # side by side, that none hides another
        group = group.assign(at=group["depth"].map(depths.index) + shift)
        middle = group.groupby("at")["steps"].apply(lambda steps: statistics.median(steps).value)
        left.plot(middle.index, middle.replace(np.inf, np.nan), **look[label], ms=6, lw=1.4)
        for at, seeds in group.groupby("at"):
            reached = seeds["steps"][np.isfinite(seeds["steps"])]
            if len(reached):
                left.vlines(at, reached.min(), reached.max(), color=colour, lw=1.2, alpha=0.7)
            if missing := len(seeds) - len(reached):
                left.plot(at, 1.13 * budget, marker=look[label]["marker"], ms=7, mfc="none", color=colour)
                left.annotate(str(missing), (at, 1.19 * budget), ha="center", va="bottom", fontsize=8)
        test = group.groupby("at")["test_metric"]
        right.plot(test.median(), label=label, **look[label], ms=6, lw=1.4)
        right.vlines(test.min().index, test.min(), test.max(), color=colour, lw=1.2, alpha=0.7)
    left.axhspan(1.06 * budget, 1.32 * budget, color="#DDDDDD", lw=0, zorder=0)
    left.set_ylim(0, 1.32 * budget)
    left.set_yticks([tick for tick in left.get_yticks() if tick <= budget])
    left.set_ylabel(f"optimiser steps to validation accuracy {rows['threshold'].iloc[0]:g}")
    style.title(left, "in grey: how many seeds did not reach it")
    right.axhline(rows["baseline"].iloc[0], color=style.MUTED, lw=1, ls=":")
    right.set(ylim=(0, 1), ylabel="test accuracy")
    style.title(right, "dotted: majority class")
    for ax in (left, right):
        ax.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        ax.set_xlabel("depth, layers")
        ax.grid(axis="x", visible=False)
    rates = ", ".join(f"{rate:g}" for rate in sorted(frames["runs"]["learning_rate"].unique()))
    note = (
        f"Digits. Lines: median over {rows['seed'].nunique()} seeds (left: where at least half reached it); "
        "bars: all seeds (left: those that did).\n"
        f"Hidden size {rows['hidden_size'].iloc[0]}, {budget:,} steps, the best of the rates {rates}."
    )
    style.legend(figure, right, [note])
    return figure


def _layers_figure(layers) -> Figure:
    look, (figure, axes) = style.styles(layers), style.panels(1, 2, (4.6, 3.9))
    names = {"variance": "variance of the layer's output", "gradient": "norm of its parameters' gradient"}
    for ax, (name, text) in zip(axes[0], names.items(), strict=True):
        for label, group in layers.dropna(subset=[name]).groupby("label", sort=False):
            style.line(ax, group, "layer", name, look[label], label=label)
        ax.set(yscale="log", xlabel="layer" + " (0: its input)" * (name == "variance"), ylabel=text)
        ax.xaxis.get_major_locator().set_params(integer=True)
    note = f"Stacks of {layers['layer'].max()} layers before training, on digits. Line: median over "
    style.legend(figure, axes[0, 0], [f"{note}{layers['seed'].nunique()} seeds; band: all."])
    return figure


EXPERIMENT = Experiment(
    "What lets deep stacks of SRU train?", CLAIMS, PRESETS, measure, judge, tables, figures
)
if __name__ == "__main__":
    experiment.command(EXPERIMENT)
