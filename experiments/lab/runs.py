"""Training runs of an experiment: their configs, and their rows with the label and the chosen learning rate.

What an experiment uses of training's programs, it has from here.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import configs
from experiments.lab import statistics
from train import metrics
from train.compile import executable
from train.config import RunConfig
from train.lanes import compiled as compiled_run
from train.lanes import dispatched_data, held_out, initial_state, make_run


def config(text: str, task: str, /, **sections) -> RunConfig:
    """That of a cell, "lstm:peepholes=true", on a task, with sections as for `configs.make`.

    Gates start where the cell has them by default, and a lane that diverges leaves the others alone, unless
    the sections say otherwise.
    """
    name, options = configs.with_options(text)
    sections = {"chrono": "cell"} | sections
    sections["train"] = {"on_nan": "drop"} | sections.get("train", {})
    made = configs.make(name, task, **sections)
    configs.update(made, {"cell": options})
    made.label = text
    return configs.freeze(made)


def file_name(text: str) -> str:
    """A label as part of a file's name."""
    return text.replace(":", "_")


def labels(text: str) -> dict:
    """The columns `cell` and `label`."""
    return {"cell": text.split(":")[0], "label": text}


def by_kind(rows: list[dict], **kinds: str) -> dict[str, pd.DataFrame]:
    """Rows that say their `kind` as a frame per kind, by the name that is given for it."""
    return {
        name: pd.DataFrame(row for row in rows if row["kind"] == kind).drop(columns="kind", errors="ignore")
        for kind, name in kinds.items()
    }


def higher_is_better(config: RunConfig, data_dir: str | None = None) -> bool:
    """Of the metric of its task."""
    return bool(metrics.higher_is_better(config.task.spec(config.task.load(data_dir))))


def with_chosen(rows, better: bool) -> pd.DataFrame:
    """Rows of `store.Lab.train`, one per seed and learning rate, with `higher_is_better` and whether it is
    `chosen`: its learning rate is the best for the other seeds."""
    frame = pd.DataFrame(rows).assign(higher_is_better=better).astype({"solved_step": float})
    return frame.assign(chosen=statistics.chosen(frame))


def seeds(result) -> list[dict]:
    """A run's lanes (seed, learning rate) as in summary.json, in the order of their parameters."""
    return [dict(seed) for seed in result.summary["seeds"]]


def lanes(result) -> pd.DataFrame:
    """`seeds`, `with_chosen`."""
    return with_chosen(seeds(result), result.summary["run"]["higher_is_better"])


def fields(result, *names: str) -> dict:
    """Fields of a run that its rows repeat."""
    return {name: result.summary["run"][name] for name in names}


def initial(result):
    """The parameters that a run began with, stacked over lanes."""
    lanes = len(result.run.config.lanes)
    params = initial_state(result.run).params
    return jax.tree.map(lambda p: np.asarray(p)[:lanes], params)  # lanes are padded to fill the devices


def trained(result):
    """The parameters that a run ended with, stacked over lanes."""
    return jax.tree.map(np.asarray, result.state.params)


def lane(params, number: int):
    """One lane's parameters."""
    return jax.tree.map(lambda p: p[number], params)


def shapes(config: RunConfig):
    """A run's spec, and the shapes of one lane's parameters."""
    run = make_run(config)
    return run.spec, jax.eval_shape(run.model.init, jax.random.key(0))


def training(config: RunConfig) -> Callable:
    """The program of `train.loop`, compiled: each call runs one dispatch of optimiser steps."""
    run = make_run(config)
    state = initial_state(run)
    run, _ = compiled_run(run, state, held_out(run, "valid"))
    step, feed = 0, dispatched_data(run, 0)
    data = next(feed)

    def once():
        nonlocal state, step, data
        state, logs = run.programs.train(state, data, jnp.int32(step))
        data = next(feed)
        jax.block_until_ready(logs)
        step += config.train.eval_every

    return once


def compiled(program: Callable) -> Callable:
    """A function that runs a few times: compiled quickly, at the first call for arguments of each shape."""
    jitted = jax.jit(program)
    return lambda *args: executable(jitted, *args, effort="once")(*args)


def table(rows: pd.DataFrame, test: str = "test_metric") -> pd.DataFrame:
    """A line per label, of rows that are one per seed: medians over seeds [95 %]."""
    shown = []
    for label, seeds in rows.groupby("label", sort=False):
        row = {"cell": label, "parameters": int(seeds["parameters"].iloc[0])}
        row["solved"] = f"{int(seeds['solved'].sum())}/{len(seeds)}"
        steps, budget = statistics.median_steps(seeds["solved_step"]), f">{seeds['budget_steps'].iloc[0]:g}"
        row["steps to solve"] = statistics.censored(steps, budget)
        row["test"] = f"{statistics.median(seeds[test]):.3f}"
        shown.append(row | {"rate": f"{seeds['learning_rate'].iloc[0]:g}"})
    return pd.DataFrame(shown)
