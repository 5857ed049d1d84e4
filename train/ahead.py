"""Runs on their way to the first step: programs are compiled side by side, and never while a run trains."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from train import host, hosts
from train.compile import Once
from train.config import RunConfig
from train.lanes import (
    Run,
    compile_evaluation,
    compile_training,
    compiled,
    held_out,
    initial_state,
    make_run,
    state_like,
)


class Prepared:
    """A run in stages, each gone through once, by the thread that first asks for it; the others wait.

    Stages: `run` (resolved, its data loaded), `state` (to be used once: training writes over it), `valid`
    and `test` (the held-out batches), and the compilation of training and of its evaluation.

    Args:
      config, data_dir: as for `train.loop.train`.
      finished: the run has finished before: nothing needs to be compiled.
    """

    def __init__(self, config: RunConfig, data_dir: str | None = None, finished: bool = False):
        self.seconds = 0.0  # that compiling training and evaluation took
        self.run = Once(lambda: make_run(config, data_dir))
        self.state = Once(lambda: initial_state(self.run()))
        self.valid = Once(lambda: held_out(self.run(), "valid"))
        self.test = Once(lambda: held_out(self.run(), "test"))
        self._train = Once(lambda: self._compile(compile_training))
        self._evaluate = Once(lambda: self._compile(compile_evaluation, self.valid()))
        # What it needs before its first step, the longest first.
        self.stages = () if finished else (self._train, self._evaluate, self.state, self.valid)

    def _compile(self, compile: Callable, *data) -> None:
        run, start = self.run(), time.perf_counter()
        compile(run, state_like(run), *data)
        self.seconds += time.perf_counter() - start

    def programs(self) -> Run:
        """The run with what it needs for its first step compiled."""
        side_by_side([self])
        state, valid, _, _ = self.state(), self.valid(), self._evaluate(), self._train()
        return compiled(self.run(), state, valid)[0]


def side_by_side(runs: Iterable[Prepared]) -> None:
    """Makes runs ready for their first step in as many threads as there are cores; in one where several
    processes have to do the same in the same order.

    XLA compiles without holding Python's lock. An error is passed over: it comes again, and is told, where
    the run asks for the stage.
    """

    def go_through(stage: Callable):
        with contextlib.suppress(Exception):
            stage()

    pool = ThreadPoolExecutor(1 if hosts.several() else host.cores(), "compile")
    try:
        # The first stages of all, then the second ones: short ones at the end keep all threads busy.
        stages = zip(*(run.stages for run in runs if run.stages), strict=True)
        list(pool.map(go_through, [stage for each in stages for stage in each]))
    finally:
        pool.shutdown(cancel_futures=True)


class InGroups:
    """Runs that will train one after the other, made ready in groups.

    The first group is one run, so that there is a result soon; then every group has `size`. A group is made
    ready when its first run begins: while a run trains the machine is its own, and so are its seconds.

    Args:
      runs: name -> run, in the order in which they will begin.
    """

    def __init__(self, runs: Mapping[str, Prepared], size: int = 4):
        self._waiting, self._ready, self._size = dict(runs), {}, size
        self._next = 1

    def begin(self, name: str) -> Prepared:
        """The run that trains now; it is not kept here any longer."""
        if name not in self._ready:
            names = list(self._waiting)[: self._next]
            self._ready = {name: self._waiting.pop(name) for name in names}
            self._next = self._size
            side_by_side(self._ready.values())
        return self._ready.pop(name)
