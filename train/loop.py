"""The shared training loop, host side: dispatches, times, records, checkpoints, stops."""

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cells import CELLS
from train.config import RunConfig
from train.metrics import higher_is_better
from train.programs import (
    Run,
    State,
    compiled,
    dispatch_steps,
    held_out,
    initial_state,
    make_room,
    make_run,
)
from train.resolve import pinned
from train.tasks import TASKS


class Progress(NamedTuple):
    """What a watcher is told: once before the first step, then after every evaluation."""

    step: int
    steps: int  # the budget
    loss: float  # mean over the seeds that still train; NaN before the first step
    metric: float
    metric_name: str
    solved: int
    seeds: int
    steps_per_second: float
    compile_seconds: float


class Result(NamedTuple):
    """A run that has ended: its summary (as in summary.json), final state, and what it was made of."""

    summary: dict
    state: State
    run: Run


def train(
    config: RunConfig,
    workdir: str | Path | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Trains all seeds of a run until every one has stopped or the budget is spent.

    Args:
      config: what to train.
      workdir: run directory; None: nothing is written. If it holds a checkpoint of the same run, the
        run goes on from there, and gives the numbers of a run that was never interrupted.
      data_dir: folder of the real data sets; None: environment variable, then the cache.
      overwrite: empties the run directory first.
      watch: told how it goes.

    Returns:
      The result; `summary["run"]["status"]` is "finished", "interrupted" (Ctrl-C; resumable) or
      "diverged" (a loss was not finite and `train.on_nan` is "stop"), `summary["run"]["message"]` says
      what happened.

    Raises:
      ValueError, DataError, WorkdirError, CheckpointError, OSError: with one clear line.
    """
    make_room()
    run = make_run(config, data_dir)
    asked, config, options, lanes = config, run.config, run.config.train, run.config.lanes
    record = checkpoints = None
    if workdir is not None:
        from train.checkpoint import Checkpoints
        from train.record import Record

        if overwrite and Path(workdir).exists():
            shutil.rmtree(workdir)
        runs_as = pinned(config, run.strategy, run.seed_batching, run.mesh.shape["batch"])
        record = Record(Path(workdir), asked.to_dict(), runs_as.to_dict(), options.tensorboard)
        checkpoints = Checkpoints(Path(workdir) / "checkpoints")

    state = initial_state(run)
    step, seconds, solved_seconds, last_rows = 0, 0.0, {}, {}
    if restored := checkpoints and checkpoints.restore(_unpadded(run, state)):
        step, kept, progress = restored
        state = _padded(run, state, kept)
        seconds = progress["seconds"]
        solved_seconds = {int(lane): s for lane, s in progress["solved_seconds"].items()}
        last_rows = {int(lane): row for lane, row in progress["last_rows"].items()}
    if record:
        record.keep_until(step)

    def running():
        alive = state.diverged_step < 0
        if options.stop_when_solved:
            alive &= state.solved_step < 0
        return np.asarray(alive)[: len(lanes)]

    def save():
        progress = {"seconds": seconds, "solved_seconds": solved_seconds, "last_rows": last_rows}
        checkpoints.save(step, _unpadded(run, state), progress)

    valid_batches = held_out(run, "valid")
    run, compile_seconds = compiled(run, state, valid_batches)
    dispatch, budget = dispatch_steps(config), options.steps
    saved_at, saved_step = time.monotonic(), step
    status = "finished"

    def tell(loss, metric, rate):
        solved = int((np.asarray(state.solved_step)[: len(lanes)] >= 0).sum())
        watch(
            Progress(step, budget, loss, metric, run.spec.metric, solved, len(lanes), rate, compile_seconds)
        )

    tell(math.nan, math.nan, math.nan)
    try:
        with _Interrupt() as interrupted:
            while step < budget and running().any():
                was_running = running()
                start = time.perf_counter()
                state, logs = run.programs.train(state, run.data, jnp.int32(step))
                jax.block_until_ready(logs)
                took = time.perf_counter() - start
                done = min(dispatch, budget - step)
                step, seconds = step + done, seconds + took
                state, valid = run.programs.evaluate(state, valid_batches, jnp.int32(step))
                logs, valid, solved, diverged = jax.device_get(
                    (logs, valid, state.solved_step, state.diverged_step)
                )
                rows = []
                for lane in np.flatnonzero(was_running):
                    row = {
                        "step": step,
                        "seed": lanes[lane][0],
                        "learning_rate": lanes[lane][1],
                        "examples": step * options.batch_size,
                        "tokens": step * options.batch_size * run.spec.time,
                        "seconds": seconds,
                        "train_loss": float(logs["loss"][lane]),
                        "valid_loss": float(valid["loss"][lane]),
                        "valid_metric": float(valid["metric"][lane]),
                    }
                    if diverged[lane] >= 0:  # it stopped with finite parameters, but its loss was not
                        row |= {"train_loss": math.nan, "valid_loss": math.nan, "valid_metric": math.nan}
                    else:
                        last_rows[int(lane)] = row
                    if solved[lane] == step:
                        solved_seconds[int(lane)] = seconds
                    rows.append(row)
                if record:
                    record.append(rows)
                tell(
                    *(np.mean([r[name] for r in rows]) for name in ("train_loss", "valid_metric")),
                    done / took,
                )
                if options.on_nan == "stop" and (diverged[: len(lanes)] >= 0).any():
                    status = "diverged"
                    break
                if interrupted:
                    status = "interrupted"
                    break
                if checkpoints and time.monotonic() - saved_at >= options.checkpoint_seconds:
                    save()
                    saved_at, saved_step = time.monotonic(), step
        if checkpoints and (step > saved_step or not restored):
            save()
    finally:
        if checkpoints:
            checkpoints.close()  # what was saved is on disk, whatever ended the loop
            record.close()

    _, test = run.programs.evaluate(state, held_out(run, "test"), jnp.int32(step))
    test = jax.device_get(test)
    seeds = _seed_summaries(run, state, test, step, solved_seconds, last_rows)
    steps_run = max([row["final_step"] for row in seeds], default=0)
    summary = {
        "run": {
            "task": TASKS.name_of(config.task),
            "cell": CELLS.name_of(config.cell),
            "label": config.label or CELLS.name_of(config.cell),
            "metric": run.spec.metric,
            "higher_is_better": higher_is_better(run.spec),
            "threshold": run.spec.threshold,
            "baseline": run.spec.baseline,
            "parameters": run.model.parameters,
            "hidden_size": config.cell.hidden_size,
            "strategy": run.strategy,
            "seed_batching": run.seed_batching,
            "budget_steps": budget,
            "steps": steps_run,
            "batch_size": options.batch_size,
            "seconds_per_step": seconds / step if step else math.nan,
            "compile_seconds": compile_seconds,
            "run_seconds": seconds,
            "status": status,
            "message": _message(status, seeds, step, workdir),
            "device": jax.default_backend(),
            "devices": run.mesh.size,
        },
        "seeds": seeds,
    }
    if record:
        record.summary(summary)
    return Result(summary, _unpadded(run, state), run)


def _seed_summaries(run, state, test, step, solved_seconds, last_rows) -> list[dict]:
    """One dict per seed and learning rate, as in summary.json."""
    options = run.config.train
    rows = []
    for lane, (seed, learning_rate) in enumerate(run.config.lanes):
        solved, diverged = int(state.solved_step[lane]), int(state.diverged_step[lane])
        stopped = options.stop_when_solved and solved >= 0
        final = diverged if diverged >= 0 else solved if stopped else step
        last = last_rows.get(lane, {})
        examples = solved * options.batch_size
        rows.append(
            {
                "seed": seed,
                "learning_rate": learning_rate,
                "solved": solved >= 0,
                "solved_step": solved if solved >= 0 else None,
                "solved_examples": examples if solved >= 0 else None,
                "solved_tokens": examples * run.spec.time if solved >= 0 else None,
                "solved_seconds": solved_seconds.get(lane),
                "final_step": final,
                **{name: last.get(name) for name in ("train_loss", "valid_loss", "valid_metric")},
                "test_loss": float(test["loss"][lane]),
                "test_metric": float(test["metric"][lane]),
                "diverged_step": diverged if diverged >= 0 else None,
            }
        )
    return rows


def _message(status, seeds, step, workdir) -> str:
    """One line for a person, for the runs that did not just finish."""
    kept = f"; metrics and the last finite parameters are in {workdir}" if workdir else ""
    if status == "diverged":
        first = min(
            (row for row in seeds if row["diverged_step"] is not None), key=lambda r: r["diverged_step"]
        )
        return (
            f"the loss or gradient of seed {first['seed']} is not finite "
            f"at step {first['diverged_step']}{kept}; try a lower optim.learning_rate or optim.clip_norm, "
            "or train.on_nan=drop to go on without it"
        )
    if status == "interrupted":
        how = "; the same command goes on from here" if workdir else ""
        return f"interrupted at step {step}{how}"
    return ""


def _unpadded(run: Run, state: State) -> State:
    """The state of the asked-for lanes, without those that fill up the devices."""
    n = len(run.config.lanes)
    return state if run.mesh.size == 1 else jax.tree.map(lambda x: np.asarray(x)[:n], state)


def _padded(run: Run, like: State, state: Any) -> State:
    """The inverse of `_unpadded`, spread over the devices as `like` is."""

    def place(x, like):
        rows = np.minimum(np.arange(len(like)), len(x) - 1)
        return jax.device_put(np.asarray(x)[rows], like.sharding)

    return jax.tree.map(place, state, like)


class _Interrupt:
    """While it holds, the first Ctrl-C asks for a stop after the running dispatch; the second one kills."""

    def __enter__(self):
        self._asked = False
        self._old = None
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_):
        self._asked = True
        signal.signal(signal.SIGINT, self._old)

    def __bool__(self):
        return self._asked

    def __exit__(self, *_):
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)
