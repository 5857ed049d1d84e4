"""Runs that train in a second, and what they wrote."""

import json

import configs

TINY = {
    "cell": {"hidden_size": 8},
    "task": {"gap": 3, "symbols": 4, "distractors": 2, "eval_examples": 64},
    "optim": {"learning_rate": 0.02, "warmup_steps": 2},
    "train": {"steps": 40, "batch_size": 8, "seeds": 2, "eval_every": 10, "checkpoint_seconds": 0.0},
}


def config(cell="gru", task="delayed_recall", /, **sections):
    """The frozen config of a tiny run, as the command line makes it."""
    base = configs.make(cell, task, **(TINY if task == "delayed_recall" else {}))
    flat = {f"{s}.{f}": v for s, fields in sections.items() for f, v in fields.items()}
    return configs.freeze(configs.apply(base, flat))


def lines(workdir):
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_times(rows):
    """Rows without what differs from run to run."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


class Killed(Exception):
    """What ends a run as a kill would."""


def kill_after(step):
    """A watcher that kills the run there."""

    def watch(progress):
        if progress.step >= step:
            raise Killed

    return watch
