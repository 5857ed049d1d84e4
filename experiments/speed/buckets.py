"""Measures what batches of rows that are about as long save (`train.buckets`), in one process, in turn.

  python -m experiments.speed.buckets

Steps of one seed of a GRU of 128 units, with the recipe of each set. "at most": by the steps over time alone,
those with every batch padded to the longest row over those of all buckets together.
"""

import numpy as np
from absl import flags

from experiments import cli, screen

flags.DEFINE_integer("repeats", 5, "Timed runs of every case.", lower_bound=1)
FLAGS = flags.FLAGS

SETS = {"music": ("jsb",), "sentence": ("mr", "trec")}
COUNTS = (1, 2, 4, 8)
STEPS = 56  # optimiser steps of one timed run: two rounds of JSB


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Prints a table; returns the exit code."""
    import pandas as pd

    from experiments import tables
    from experiments.lab import timing

    if config or overrides:
        raise ValueError("this benchmark takes no --config flags")
    console = screen.console()
    for task, names in SETS.items():
        for name in names:
            runs = {count: run_config(task, name, count) for count in COUNTS}
            cases = [
                timing.Case({"set": name, "buckets": count}, maker(run), STEPS) for count, run in runs.items()
            ]
            rows = timing.interleaved(cases, FLAGS.repeats)
            frame, steps = pd.DataFrame(rows), [padded_steps(run) for run in runs.values()]
            shown = frame[["buckets"]].assign(
                **{
                    "ms a step": frame["ms"].map("{:.2f}".format),
                    "faster": (frame["ms"].iloc[0] / frame["ms"]).map("{:.2f}".format),
                    "at most": [f"{steps[0] / count:.2f}" for count in steps],
                    "compiled in s": frame["compile_s"].map("{:.1f}".format),
                }
            )
            tables.show(console, f"{task}, {name}", shown)
    return 0


def run_config(task: str, name: str, count: int):
    """A run of one seed."""
    import configs

    train = {"seeds": 1, "eval_every": STEPS, "buckets": count, "steps": 1_000_000}
    return configs.freeze(
        configs.make("gru", task, task={"dataset": name}, cell={"hidden_size": 128}, train=train)
    )


def maker(run):
    """Makes the program of its training steps."""
    from experiments.lab import runs

    return lambda: runs.training(run)


def padded_steps(run) -> int:
    """Steps over time of every training row once, padding included."""
    from train.resolve import in_buckets

    data, made = in_buckets(run, run.task.load(FLAGS.data_dir))
    lengths = np.asarray(data["train"]["lengths"])
    return sum(b.rows * b.time for b in made) if made else len(lengths) * int(lengths.max())


if __name__ == "__main__":
    cli.run(main, __doc__)
