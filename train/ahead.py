"""Runs on their way to the first step, and threads that make their programs ready side by side."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping

import jax.numpy as jnp

from train.compile import Once, executable
from train.config import RunConfig
from train.lanes import Run, compiled, held_out, initial_state, make_run, state_like


class Prepared:
    """A run in stages, each gone through once, by the thread that first asks for it; the others wait.

    Stages: `run` (resolved, its data loaded), `state` (to be used once: training writes over it), `valid`
    and `test` (the held-out batches), and the compilation of training and of its evaluation.

    Args:
      config, data_dir: as for `train.loop.train`.
      finished: the run has finished before: nothing needs to be compiled.
    """

    def __init__(self, config: RunConfig, data_dir: str | None = None, finished: bool = False):
        self.finished = finished
        self.seconds = 0.0  # that compiling training and evaluation took
        self.run = Once(lambda: make_run(config, data_dir))
        self.state = Once(lambda: initial_state(self.run()))
        self.valid = Once(lambda: held_out(self.run(), "valid"))
        self.test = Once(lambda: held_out(self.run(), "test"))
        self._train = Once(lambda: self._compile("train", self.run().data))
        self._evaluate = Once(lambda: self._compile("evaluate", self.valid()))

    def _compile(self, name: str, data) -> None:
        run, start = self.run(), time.perf_counter()
        executable(getattr(run.programs, name), state_like(run), data, jnp.int32(0))
        self.seconds += time.perf_counter() - start

    def stages(self) -> tuple[Callable, ...]:
        """Those that it needs, the longest of those that do not wait for each other first."""
        if self.finished:
            return (self.run,)
        compiling = self._train, self._evaluate
        return self.run, *compiling, self.state, self.valid

    def programs(self) -> Run:
        """The run with what it needs for its first step compiled."""
        state, valid, _, _ = self.state(), self.valid(), self._evaluate(), self._train()
        return compiled(self.run(), state, valid)[0]


class Ahead:
    """Threads that go through the stages of runs in order, while the runs before them train.

    XLA compiles without holding Python's lock. Here an error is passed over: it comes again, and is told,
    where the run asks for the stage.

    Args:
      runs: name -> run, in the order in which they will train.
      limit: how many runs may wait, ready, for their turn. 0: the programs of a run are compiled side by
        side, and nothing is while it trains: its seconds are its own.
      threads: how many compile while the first run, or a later one, waits for its programs.
    """

    def __init__(self, runs: Mapping[str, Prepared], limit: int = 0, threads: int = 2):
        self._names, self._runs, self._limit = list(runs), dict(runs), limit
        self._stages = ((i, stage) for i, name in enumerate(runs) for stage in self._stages_of(name))
        self._changed = threading.Condition()
        self._current, self._closed = 0, False
        self._threads = [threading.Thread(target=self._work, name="ahead") for _ in range(threads)]

    def _stages_of(self, name):
        return self._runs[name].stages() if name in self._runs else ()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def begin(self, name: str) -> Prepared:
        """The run that trains now; it is not kept here any longer."""
        with self._changed:
            self._current = self._names.index(name)
            self._changed.notify_all()
            return self._runs.pop(name)

    def __exit__(self, *_):
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()  # as soon as the program that compiles now is done

    def _next(self) -> Callable | None:
        """The next stage, when its time has come; None at the end."""
        with self._changed:
            number, stage = next(self._stages, (0, None))
            self._changed.wait_for(lambda: self._closed or number <= self._current + self._limit)
            return None if self._closed else stage

    def _work(self):
        while stage := self._next():
            with contextlib.suppress(Exception):
                stage()
