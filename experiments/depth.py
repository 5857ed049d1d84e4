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
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import plots
from experiments.lab import probes, statistics, study
from experiments.lab.study import Verdict

WHOLE = "sru"
# What the claim says SRU needs, and the variant that goes without.
PARTS = {
    "highway": "sru:highway=false",
    "initialisation and alpha": "sru:tailored=false:rescale=false",
}


@dataclasses.dataclass(frozen=True)
class Settings:
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
    runs, layers = [], []
    for depth in settings.depths:
        for cell in settings.cells:
            deepest = depth == max(settings.depths)
            name = f"{cell.replace(':', '_')}-{depth}"
            rows = lab.train(
                name,
                _config(settings, depth, cell),
                lambda result, name=name, deepest=deepest: _probe(
                    settings, result, lab.workdir / "runs" / name, deepest
                ),
                {"rows": settings.rows, "threshold": settings.threshold, "layers": deepest},
            )
            shared = {"cell": cell.split(":")[0], "label": cell, "depth": depth}
            for kind, kept in (("run", runs), ("layer", layers)):
                kept += [shared | row for row in rows if row["kind"] == kind]
    frames = {"runs": pd.DataFrame(runs), "layers": pd.DataFrame(layers)}
    return {name: frame.drop(columns="kind") for name, frame in frames.items()}


def _config(settings, depth, cell):
    return study.cell_config(
        cell,
        "digits",
        cell={"hidden_size": settings.hidden_size},
        task={"pixels_per_step": settings.pixels_per_step},
        # As wide as the cells: no layer of SRU needs a projection in its highway.
        model={"depth": depth, "embedding_size": settings.hidden_size, "dropout": 0.0},
        optim={"learning_rates": settings.learning_rates},
        train={
            "steps": settings.steps, "seeds": settings.seeds, "batch_size": settings.batch_size,
            "eval_every": max(1, min(25, settings.steps // 4)), "on_nan": "drop", "stop_when_solved": False,
        },
        chrono="cell",  # alpha is derived for gates that start at 1/2
    )  # fmt: skip


def _probe(settings, result, folder, deepest) -> list[dict]:
    run, summary = result.run, result.summary
    told = {name: summary["run"][name] for name in ("parameters", "hidden_size", "budget_steps", "baseline")}
    frame = pd.DataFrame(summary["seeds"]).assign(**told, threshold=settings.threshold)
    # The task's own threshold, 0.95, is near what the smallest stacks can do at all.
    curves = pd.read_json(folder / "metrics.jsonl", lines=True)
    reached = curves[curves["valid_metric"] >= settings.threshold]
    first = reached.groupby(["seed", "learning_rate"])["step"].min().rename("solved_step").astype(float)
    frame = frame.drop(columns="solved_step").join(first, on=["seed", "learning_rate"])
    frame = frame.assign(solved=frame["solved_step"].notna(), higher_is_better=True)
    chosen = statistics.tuned(frame).set_index(["seed", "learning_rate"]).index
    frame["chosen"] = frame.set_index(["seed", "learning_rate"]).index.isin(chosen)
    kept = ["seed", "learning_rate", "chosen", "solved", "solved_step", "valid_metric", "test_metric"]
    rows = json.loads(frame[[*kept, *told, "threshold"]].assign(kind="run").to_json(orient="records"))
    return rows + (_layers(settings, run) if deepest else [])


def _layers(settings, run) -> list[dict]:
    """Variance and gradient of every layer at initialisation, one row per seed and layer."""
    from train import lanes, metrics

    def loss(params, batch):
        return metrics.loss(run.spec, run.model.apply(params, batch.xs, lengths=batch.lengths), batch)

    def of(params, data):
        batch = run.config.task.eval_batch(data, "valid", 0, settings.rows)
        outputs = run.model.hidden_states(params, batch.xs, lengths=batch.lengths)
        outputs = [probes.embedded(run.spec, params, batch.xs), *outputs]
        gradients = jax.grad(loss)(params, batch)["layers"]
        squares = [
            sum(jnp.square(g).sum() for g in jax.tree.leaves(gradients[str(i)]))
            for i in range(len(outputs) - 1)
        ]
        return jnp.stack([jnp.var(ys) for ys in outputs]), jnp.sqrt(jnp.stack(squares))

    # One run each: compiled in a hurry.
    of = jax.jit(jax.vmap(of, (0, None)), compiler_options={"xla_backend_optimization_level": 0})
    params = jax.tree.map(lambda p: np.asarray(p)[: settings.seeds], lanes.initial_state(run).params)
    variances, norms = jax.device_get(of(params, jax.device_get(run.data)))
    return [
        {
            "kind": "layer",
            "seed": seed,
            "layer": layer,
            "variance": float(variances[i, layer]),
            "gradient": float(norms[i, layer - 1]) if layer else None,
        }
        for i, (seed, _) in enumerate(run.config.lanes[: settings.seeds])
        for layer in range(variances.shape[1])
    ]


# --- what follows from the numbers


def _chosen(frames) -> pd.DataFrame:
    runs = frames["runs"][frames["runs"]["chosen"]]
    return runs.assign(steps=runs["solved_step"].astype(float).fillna(np.inf))


def _steps(estimate, budget) -> str:
    def show(x):
        return f">{budget:,}" if np.isinf(x) else f"{x:,.0f}"

    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def tables(frames) -> dict[str, pd.DataFrame]:
    """Trainability by depth and variant; layers at initialisation."""
    runs, rows = _chosen(frames), []
    for (depth, label), seeds in runs.groupby(["depth", "label"], sort=False):
        rates = seeds["learning_rate"].value_counts().sort_index()
        rows.append(
            {
                "layers": depth,
                "cell": label,
                "params": f"{seeds['parameters'].iloc[0]:,}",
                "chosen rates": ", ".join(f"{rate:g} ({n})" for rate, n in rates.items()),
                "trained": f"{int(seeds['solved'].sum())}/{len(seeds)}",
                "steps": _steps(statistics.median(seeds["steps"]), seeds["budget_steps"].iloc[0]),
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
    threshold = runs["threshold"].iloc[0]
    return {
        f"Digits by depth: trained at validation accuracy {threshold:g} (median [95 %])": pd.DataFrame(rows),
        f"At initialisation, {last} layers (median [95 %])": pd.DataFrame(inside),
    }


def figures(frames) -> dict[str, Figure]:
    """`depth`: steps to the threshold and test accuracy against depth; `layers`: inside, before training."""
    runs = _chosen(frames)
    return {"depth": _depth_figure(runs, frames), "layers": _layers_figure(frames["layers"])}


def _depth_figure(runs, frames) -> Figure:
    look, budget = plots.styles(runs), runs["budget_steps"].iloc[0]
    depths, labels = sorted(runs["depth"].unique()), list(dict.fromkeys(runs["label"]))
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, label in enumerate(labels):
        group, style = runs[runs["label"] == label], look[label] | {"ms": 6, "lw": 1.4}
        middle = group.groupby("depth")["steps"].apply(lambda steps: statistics.median(steps).value)
        shift = (i - (len(labels) - 1) / 2) * 0.12  # side by side, that none hides another
        at = {depth: place + shift for place, depth in enumerate(depths)}
        xs = [at[d] for d in middle.index]
        left.plot(xs, middle.replace(np.inf, np.nan), **style)
        for depth, seeds in group.groupby("depth"):
            reached = seeds["steps"][np.isfinite(seeds["steps"])]
            if len(reached):
                left.vlines(at[depth], reached.min(), reached.max(), color=style["color"], lw=1.2, alpha=0.7)
            if missing := len(seeds) - len(reached):
                hollow = {"marker": style["marker"], "ms": 7, "mfc": "none", "color": style["color"]}
                left.plot(at[depth], 1.13 * budget, **hollow)
                left.annotate(str(missing), (at[depth], 1.19 * budget), ha="center", va="bottom", fontsize=8)
        by_depth = group.groupby("depth")["test_metric"]
        right.plot(xs, by_depth.median(), label=label, **style)
        right.vlines(xs, by_depth.min(), by_depth.max(), color=style["color"], lw=1.2, alpha=0.7)
    left.axhspan(1.06 * budget, 1.32 * budget, color="#DDDDDD", lw=0, zorder=0)
    left.set_ylim(0, 1.32 * budget)
    left.set_yticks([tick for tick in left.get_yticks() if tick <= budget])
    left.set_ylabel(f"optimiser steps to validation accuracy {runs['threshold'].iloc[0]:g}")
    left.set_title("in grey: how many seeds did not reach it", loc="left", fontsize=9)
    right.axhline(runs["baseline"].iloc[0], color=plots.MUTED, lw=1, ls=":")
    right.set(ylim=(0, 1), ylabel="test accuracy")
    right.set_title("dotted: majority class", loc="left", fontsize=9)
    for ax in (left, right):
        ax.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        ax.set_xlabel("depth, layers")
        ax.grid(axis="y", alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    rates = ", ".join(f"{rate:g}" for rate in sorted(frames["runs"]["learning_rate"].unique()))
    note = (
        f"Digits. Lines: median over {runs['seed'].nunique()} seeds (left: where at least half reached it); "
        f"bars: all seeds (left: those that did).\n"
        f"Hidden size {runs['hidden_size'].iloc[0]}, {budget:,} steps, "
        f"the best of the learning rates {rates}."
    )
    _legend(figure, right, note)
    return figure


def _layers_figure(layers) -> Figure:
    look = plots.styles(layers)
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    names = {
        "variance": "variance of the layer's output",
        "gradient": "norm of the gradient of its parameters",
    }
    for ax, (name, text) in zip(figure.subplots(1, 2), names.items(), strict=True):
        for label, group in layers.dropna(subset=[name]).groupby("label", sort=False):
            by_layer = group.groupby("layer")[name]
            ax.plot(by_layer.median(), label=label, ms=4, **look[label])
            low, high = by_layer.min(), by_layer.max()
            ax.fill_between(low.index, low, high, color=look[label]["color"], alpha=0.15, lw=0)
        ax.set(yscale="log", xlabel="layer" + " (0: its input)" * (name == "variance"), ylabel=text)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    note = (
        f"Stacks of {layers['layer'].max()} layers before training, on digits. "
        f"Line: median over {layers['seed'].nunique()} seeds; band: all."
    )
    _legend(figure, figure.axes[0], note)
    return figure


def _legend(figure, ax, note):
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, title=note,
        title_fontproperties={"size": 8}, fontsize=9, handlelength=3.5,
    )  # fmt: skip


def verdicts(frames) -> dict[str, Verdict]:
    """`sru_deep`. At the deepest stacks tried,

    * SRU trains if the interval of its median steps to the threshold ends within the budget;
    * a part (PARTS) is needed if without it that interval lies wholly above SRU's, not solved being infinite;
    * it is needed for depth if, moreover, leaving it out costs more test accuracy in the deepest stacks than
      in the shallowest: the interval of the median over seeds of the difference is above 0.

    Holds: SRU trains, and both parts are needed for depth. Does not hold: SRU does not train, or neither part
    is needed. In part: anything else. Not tested: one depth, or a variant is missing.
    """
    runs = _chosen(frames)
    deep, shallow = runs["depth"].max(), runs["depth"].min()
    if deep == shallow or not {WHOLE, *PARTS.values()} <= set(runs["label"]):
        return {
            "sru_deep": Verdict("not tested here", "needs two depths, and SRU with and without each part.")
        }
    budget, last = runs["budget_steps"].iloc[0], runs[runs["depth"] == deep]
    steps = {label: statistics.median(seeds["steps"]) for label, seeds in last.groupby("label")}
    accuracy = runs.pivot(index="seed", columns=["label", "depth"], values="test_metric")
    trains, needed, told = np.isfinite(steps[WHOLE].high), [], []
    for part, label in PARTS.items():
        cost = {depth: accuracy[WHOLE, depth] - accuracy[label, depth] for depth in (shallow, deep)}
        grows = statistics.median(cost[deep] - cost[shallow])
        slower = steps[label].low > steps[WHOLE].high
        needed.append((slower, slower and grows.low > 0))
        costs = " and ".join(
            f"{statistics.median(cost[depth]):.3f} of test accuracy at {depth}" for depth in (shallow, deep)
        )
        told.append(
            f"without {part} {_steps(steps[label], budget)}; it costs {costs} (difference {grows:.3f})"
        )
    verdict = "holds in part"
    if trains and all(for_depth for _, for_depth in needed):
        verdict = "holds"
    elif not trains or not any(slower for slower, _ in needed):
        verdict = "does not hold here"
    evidence = f"{deep} layers: SRU {_steps(steps[WHOLE], budget)} steps to the threshold; {'; '.join(told)}."
    if "lstm" in steps:
        evidence += f" LSTM of the same width: {_steps(steps['lstm'], budget)} steps."
    return {"sru_deep": Verdict(verdict, evidence)}


if __name__ == "__main__":
    study.command(sys.modules[__name__])
