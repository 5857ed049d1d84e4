"""The shared training loop, host side: dispatches, times, records, checkpoints, stops."""

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from cells import CELLS
from train import going_on, host, hosts, saved_model
from train.ahead import Prepared
from train.checkpoint import digest_of
from train.compile import make_room
from train.config import RunConfig
from train.lanes import Run, dispatched_data, evaluate, no_best, padded, state_like, unpadded
from train.metrics import higher_is_better
from train.resolve import pinned
from train.step import Best, State, is_running, pieces
from train.summary import Evaluation, RunSummary, SeedSummary, Summary
from train.tasks import TASKS
from train.tasks.buckets import schedule
from train.workdir import Nowhere, Workdir


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

    summary: Summary
    state: State
    run: Run
    signal: int | None = None  # that asked for a stop; it may have been complete by then

    @property
    def exit_code(self) -> int:
        """Of a command that made this run: 1 where all its seeds are lost; where a signal cut it short, a
        shell's."""
        if self.summary.run.status == "interrupted":
            return 128 + self.signal
        return int(self.summary.lost)


def train(
    config: RunConfig,
    workdir: str | Path | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    watch: Callable[[Progress], None] = lambda progress: None,
    prepared: Prepared | None = None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    continues: str | Path | None = None,
) -> Result:
    """Trains all seeds of a run until every one has stopped or the budget is spent.

    Args:
      config: what to train.
      workdir: run directory; None: nothing is written. If it holds a checkpoint of the same run, the
        run goes on from there, and gives the numbers of a run that was never interrupted.
      data_dir: folder of the real data sets; None: environment variable, then the cache.
      overwrite: removes the run in the directory first; other files there stay.
      watch: told how it goes.
      prepared: of this config and data_dir, where threads make it ready meanwhile, see `train.ahead`.
      say: is told, in a line, what of the run in the directory could not be trusted, and with what it begins.
      continues: folder of a run that goes on with more steps (`same_run.GOES_ON`): in the same directory, or
        in another one, into which it is copied; it then stays as it is.

    Returns:
      The result; `summary.run.status` is "finished", "interrupted" (Ctrl-C, SIGTERM, SIGHUP; resumable) or
      "diverged" (a loss was not finite and `train.on_nan` is "stop"), `summary.run.message` says what
      happened.

    Raises:
      ValueError, DataError, WorkdirError, CheckpointError, PeerError, OSError: with one clear line.
    """
    make_room()
    prepared = prepared or Prepared(config, data_dir)
    with hosts.one_clear_error():
        run = prepared.run()
        data = digest_of(run.data) if workdir is not None or hosts.several() else ""
        if hosts.several():  # before anything is made, or overwritten
            hosts.check_same(config.to_dict(), {"data": data, "jax": jax.__version__})
        directory = Nowhere()
        if workdir is not None and hosts.first():
            runs_as = pinned(
                run.config, run.strategy, run.seed_batching, run.mesh.shape["batch"], run.data_at
            )
            model = saved_model.described(run.spec, run.meaning)
            goes_on = None
            if continues is not None:
                there = (Path(workdir) / "config.json").exists()  # and goes on itself
                before = going_on.check(Path(workdir if there else continues), config)
                going_on.copy(Path(continues), Path(workdir))

                def goes_on(step):
                    return going_on.note(Path(continues), before, config, step)

            directory = Workdir(Path(workdir), config, runs_as, overwrite, say, data, model, goes_on)
        try:
            if hosts.several():
                directory = hosts.Shared(directory)
            return _train(run, prepared, directory, watch, say)
        finally:
            directory.close()  # what was saved is on disk, whatever ended the loop


def _train(
    run: Run,
    prepared: Prepared,
    directory: Nowhere,
    watch: Callable[[Progress], None],
    say: Callable[[str], None],
) -> Result:
    """`train`, with everything that it needs made ready."""
    config, options, lanes = run.config, run.config.train, run.config.lanes
    if before := directory.finished(_like(run)):
        summary, step, state = before
        solved = sum(seed.solved for seed in summary.seeds)
        still = (math.nan, math.nan, run.spec.metric, solved, len(lanes), math.nan, 0.0)
        watch(Progress(step, options.steps, *still))
        return Result(summary, state, run)

    like = _like(run)
    restored = directory.begin(
        {"state": like, "best": Best(like.params, like.learning_rate, like.solved_step)}
    )
    run, state, valid_batches = prepared.programs(), prepared.state(), prepared.valid()
    best = no_best(run, state)
    step, seconds, solved_seconds, last_rows = 0, 0.0, {}, {}
    for line in run.notes if not restored and hosts.first() else ():
        say(line)
    if restored:
        step, kept, progress = restored
        state = padded(run, state, kept["state"])
        best = padded(run, best, kept["best"]) if "best" in kept else best  # older versions kept none
        seconds = progress["seconds"]
        solved_seconds = {int(lane): s for lane, s in progress["solved_seconds"].items()}
        last_rows = {int(lane): Evaluation.from_dict(row) for lane, row in progress["last_rows"].items()}

    def running():
        solved, diverged = hosts.fetch((state.solved_step, state.diverged_step))
        alive = is_running(config, state._replace(solved_step=solved, diverged_step=diverged))
        return alive[: len(lanes)] & (step < _race_ends(config, solved[: len(lanes)]))

    def save():
        rows = {lane: row.to_dict() for lane, row in last_rows.items()}
        progress = {"seconds": seconds, "solved_seconds": solved_seconds, "last_rows": rows}
        directory.save(step, {"state": unpadded(run, state), "best": unpadded(run, best)}, progress)

    dispatch, budget, asked = config.dispatch_steps, options.steps, 0
    saved_at, saved_step = time.monotonic(), step
    status = "finished"
    if options.on_nan == "stop" and (hosts.fetch(state.diverged_step)[: len(lanes)] >= 0).any():
        status = "diverged"  # as the run said before

    def tell(loss, metric, rate):
        solved = int((hosts.fetch(state.solved_step)[: len(lanes)] >= 0).sum())
        watch(
            Progress(step, budget, loss, metric, run.spec.metric, solved, len(lanes), rate, prepared.seconds)
        )

    tell(math.nan, math.nan, math.nan)
    feed, data = dispatched_data(run, step), None
    with _Interrupt() as interrupted, contextlib.closing(feed):
        while status == "finished" and step < budget and running().any():
            due = time.monotonic() - saved_at >= options.checkpoint_seconds
            asked, due = map(int, hosts.most(interrupted.by or 0, due))  # all processes do the same
            if asked:
                status = "interrupted"
                break
            if due and step > saved_step:
                save()
                saved_at, saved_step = time.monotonic(), step
            was_running = running()
            start = time.perf_counter()
            data = next(feed) if data is None else data
            state, logs = run.programs.train(state, data, np.int32(step))
            data = next(feed, None)  # while the devices train
            jax.block_until_ready(logs)
            took = time.perf_counter() - start
            done = min(dispatch, budget - step)
            step, seconds = step + done, seconds + took
            state, valid = evaluate(run, state, valid_batches, step)
            best = run.programs.keep(best, state, valid["metric"], np.int32(step))
            logs, valid, solved, diverged = hosts.fetch((logs, valid, state.solved_step, state.diverged_step))
            rows = []
            for lane in map(int, np.flatnonzero(was_running)):
                finite = diverged[lane] < 0  # else its parameters are, but its loss was not
                losses = logs["loss"][lane], valid["loss"][lane], valid["metric"][lane]
                row = Evaluation(
                    *lanes[lane],
                    step,
                    *_seen(run, step),
                    seconds,
                    *(float(x) if finite else math.nan for x in losses),
                )
                rows.append(row)
                if finite:
                    last_rows[lane] = row
                if solved[lane] == step:
                    solved_seconds[lane] = seconds
            directory.append(rows)
            tell(
                *(np.mean([row[name] for row in rows]) for name in ("train_loss", "valid_metric")),
                done / took,
            )
            if options.on_nan == "stop" and (diverged[: len(lanes)] >= 0).any():
                status = "diverged"
                break
        if step > saved_step or not restored:
            save()
        _, test = evaluate(run, state, prepared.test(), step)
        _, at_best = evaluate(run, state._replace(params=best.params), prepared.test(), step)
        tests = hosts.fetch((test, at_best))
        seeds = _seed_summaries(run, state, best, *tests, step, solved_seconds, last_rows)
        shared = RunSummary(
            task=TASKS.name_of(config.task),
            cell=CELLS.name_of(config.cell),
            label=config.label or CELLS.name_of(config.cell),
            metric=run.spec.metric,
            higher_is_better=higher_is_better(run.spec),
            threshold=run.spec.threshold,
            baseline=run.spec.baseline,
            parameters=run.model.parameters,
            hidden_size=config.cell.hidden_size,
            state_size=run.model.state_size,
            strategy=run.strategy,
            seed_batching=run.seed_batching,
            budget_steps=budget,
            steps=max((seed.final_step for seed in seeds), default=0),
            batch_size=options.batch_size,
            seconds_per_step=seconds / step if step else math.nan,
            compile_seconds=prepared.seconds,
            run_seconds=seconds,
            status=status,
            message=_message(status, seeds, step, directory.path),
            device=jax.default_backend(),
            devices=run.mesh.size,
        )
        directory.summary(Summary(shared, seeds))
    return Result(Summary(shared, seeds), unpadded(run, state), run, asked or interrupted.by)


def _race_ends(config: RunConfig, solved: np.ndarray) -> float:
    """The step at which a race is over, given the steps in which lanes solved the task (-1: not yet)."""
    options = config.train
    by_rate = solved.reshape(-1, options.seeds)
    won = [*by_rate[(by_rate >= 0).all(axis=1)].max(axis=1), *[options.to_beat] * (options.to_beat > 0)]
    return options.race * min(won) if options.race and won else math.inf


def _seen(run: Run, step: int) -> tuple[int, int]:
    """Examples begun, and tokens read, padding included, by a seed's optimiser steps."""
    count, size = pieces(run.config, run.spec)
    batch_size = run.config.train.batch_size
    if run.buckets:
        times = np.array([run.buckets[which].time for which in schedule(run.buckets)[0]])
        whole, rest = divmod(step, len(times))
        return step * batch_size, batch_size * int(whole * times.sum() + times[:rest].sum())
    whole, rest = divmod(step, count)
    tokens = batch_size * (whole * run.spec.time + rest * size)
    return -(-step // count) * batch_size, tokens


def _like(run: Run) -> State:
    """Shapes and dtypes of the state that a checkpoint holds."""
    if run.mesh.size == 1:
        return state_like(run)
    n = len(run.config.lanes)
    return jax.tree.map(lambda x: np.empty((n, *x.shape[1:]), x.dtype), state_like(run))


def _seed_summaries(
    run, state, best, test, at_best, step, solved_seconds, last_rows
) -> tuple[SeedSummary, ...]:
    """One for each lane; `test` and `at_best` are the logs of the evaluations on the test split."""
    options = run.config.train
    *steps, best_metric = hosts.fetch((state.solved_step, state.diverged_step, best.step, best.metric))
    seeds = []
    for lane, (seed, learning_rate) in enumerate(run.config.lanes):
        solved, diverged, best_step = (int(at[lane]) if at[lane] >= 0 else None for at in steps)
        at_its_best = (best_metric, at_best["loss"], at_best["metric"])
        at_its_best = (None if best_step is None else float(value[lane]) for value in at_its_best)
        best_valid_metric, best_test_loss, best_test_metric = at_its_best
        stopped = solved if options.stop_when_solved else None
        last = last_rows.get(lane)
        examples, tokens = (None, None) if solved is None else _seen(run, solved)
        seeds.append(
            SeedSummary(
                seed=seed,
                learning_rate=learning_rate,
                solved=solved is not None,
                solved_step=solved,
                solved_examples=examples,
                solved_tokens=tokens,
                solved_seconds=solved_seconds.get(lane),
                final_step=next((at for at in (diverged, stopped) if at is not None), step),
                train_loss=last and last.train_loss,
                valid_loss=last and last.valid_loss,
                valid_metric=last and last.valid_metric,
                test_loss=float(test["loss"][lane]),
                test_metric=float(test["metric"][lane]),
                best_step=best_step,
                best_valid_metric=best_valid_metric,
                best_test_loss=best_test_loss,
                best_test_metric=best_test_metric,
                diverged_step=diverged,
            )
        )
    return tuple(seeds)


def _message(status, seeds, step, workdir) -> str:
    """One line for a person, for the runs that did not just finish."""
    silent = [str(seed.seed) for seed in seeds if not math.isfinite(seed.test_loss)]
    lost = f"the test loss of seed {', '.join(dict.fromkeys(silent))} is no number" if silent else ""
    if status == "diverged":
        first = min((s for s in seeds if s.diverged_step is not None), key=lambda s: s.diverged_step)
        kept = f"; metrics and the last finite parameters are in {workdir}" if workdir else ""
        return (
            f"the loss or gradient of seed {first.seed} is not finite "
            f"at step {first.diverged_step}{kept}{lost and '; ' + lost}; try a lower optim.learning_rate or "
            "optim.clip_norm, or train.on_nan=drop to go on without it"
        )
    if status == "interrupted":
        again = "; the same command goes on from here" if workdir else ""
        return f"interrupted at step {step}{again}"
    return lost


class _Interrupt:
    """While it holds, the first Ctrl-C asks for a stop after the running dispatch; the second one kills.

    So do SIGTERM, which schedulers send, and SIGHUP. Of several processes each has one that watches it, from
    which a signal comes a second time: there it is the same one, and who watches kills.
    """

    def __enter__(self):
        self.by = None  # the signal that asked
        self._old = {}
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._ask) for number in host.stop_signals()}
        return self

    def _ask(self, number, frame):
        self.by = number
        if not hosts.several():
            self._restore()

    def _restore(self):
        for number, old in self._old.items():
            signal.signal(number, old)

    def __exit__(self, *_):
        self._restore()
