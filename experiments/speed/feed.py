"""Measures what it costs to gather rows on the host, not the device (`train.data`), in one process, in turn.

  python -m experiments.speed.feed

Optimiser steps of two seeds of a GRU of 64 units, with the recipe of each set; the numbers are the same. "MB
a step" is what the host sends.
"""

from absl import flags

from experiments import cli

flags.DEFINE_integer("repeats", 5, "Timed runs of every case.", lower_bound=1)
FLAGS = flags.FLAGS

SETS = {"digits": {}, "music": {"dataset": "jsb"}}
WAYS = ("device", "host")
STEPS, DISPATCHES = 25, 4  # optimiser steps of a dispatch; dispatches of a timed run, more than wait gathered
SEEDS = 2


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Prints a table; returns the exit code."""
    import pandas as pd

    from experiments import tables
    from experiments.lab import timing

    if config or overrides:
        raise ValueError("this benchmark takes no --config flags")
    cases = [
        timing.Case({"task": task, "rows are on the": way}, maker(run_config(task, way)), STEPS * DISPATCHES)
        for task in SETS
        for way in WAYS
    ]
    frame = pd.DataFrame(timing.interleaved(cases, FLAGS.repeats))
    sent = [sent_a_step(run_config(task, "host")) / 1e6 for task in SETS]
    shown = frame[["task", "rows are on the"]].assign(
        **{
            "steps a second": (1000 / frame["ms"]).map("{:.0f}".format),
            "ms a step": frame["ms"].map("{:.3g}".format),
            "MB a step": [f"{size:.2g}" if way == "host" else "" for size in sent for way in WAYS],
        }
    )
    tables.show(cli.console(), "where rows are gathered", shown)
    return 0


def run_config(task: str, way: str):
    """A run of SEEDS seeds."""
    import configs

    train = {"seeds": SEEDS, "eval_every": STEPS, "steps": 1_000_000, "data": way}
    return configs.freeze(configs.make("gru", task, task=SETS[task], cell={"hidden_size": 64}, train=train))


def maker(run):
    """Makes the program of its training steps."""
    from experiments.lab import runs

    def make():
        dispatch = runs.training(run)
        return lambda: [dispatch() for _ in range(DISPATCHES)]

    return make


def sent_a_step(run) -> float:
    """Bytes."""
    from train import memory

    rows = run.task.load(FLAGS.data_dir)["train"]
    return SEEDS * run.train.batch_size * memory.stored(rows) / len(rows["xs"])


if __name__ == "__main__":
    cli.run(main, __doc__)
