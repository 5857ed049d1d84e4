"""What commands print while they work: a bar on a terminal, now and then a whole line elsewhere."""

import math
import time
from collections.abc import Callable

from absl import flags
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

flags.DEFINE_boolean("quiet", False, "Print what was found, and errors, but not how it goes meanwhile.")
FLAGS = flags.FLAGS

UNBROKEN = 10_000  # columns outside a terminal
TITLE = 0.5  # of the width is the most that a title has


def console() -> Console:
    """Where commands print what they found: text as it is, names with brackets too; outside a terminal no
    line is broken."""
    found = Console(highlight=False, markup=False)
    if not found.is_terminal:
        found.width = UNBROKEN
    return found


def meanwhile(console: Console) -> Console:
    """Where they print how it goes: the same console, or with --quiet none."""
    return Console(quiet=True) if FLAGS["quiet"].value else console


def tell_read(console: Console, run, told: set[str]) -> None:
    """Prints what the task of a run (`train.lanes.Run`) has read, unless that was told before."""
    line = run.config.task.describe(run.data)
    if line and line not in told:
        console.print(line, soft_wrap=True)
    told.add(line)


def clock(seconds: float) -> str:
    """7.4 -> "0:07", 3725 -> "1:02:05"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class ProgressBar:
    """Shows a `train.loop.Progress`: two lines on a terminal, now and then one elsewhere.

    The time to go is that of the budget, at the pace so far, evaluations included; seeds that solve their
    task stop before.

    Args:
      line_every: seconds between the lines where no terminal is; a shorter run has none.
    """

    def __init__(self, console: Console, title: str, line_every: float = 15.0):
        self.console, self.title, self.line_every = console, title, line_every
        self._created = self._told = time.monotonic()
        self._began = None  # when the first step did, and which it was
        self._ends = math.nan  # when the budget will be spent
        self._state = ""
        title_width = Column(no_wrap=True, overflow="ellipsis", max_width=int(TITLE * console.width))
        self._bar = _TwoLines(
            self._below,
            TextColumn("{task.description}", markup=False, table_column=title_width),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6)),
            TextColumn("{task.percentage:>3.0f} %"),
            _Call(lambda: f"eta {self._eta()}"),
            console=console,
            expand=True,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(title, total=None)

    def __enter__(self):
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_):
        if self.console.is_terminal:
            self._bar.stop()

    def __call__(self, progress):
        now, first = time.monotonic(), math.isnan(self._ends)
        if math.isnan(progress.steps_per_second):
            self._began, self._told = (now, progress.step), now
            self._state = "training"
        else:
            began, step = self._began
            pace = (now - began) / (progress.step - step)
            self._ends = now + pace * (progress.steps - progress.step)
            self._state = state(progress)
        self._bar.update(self._task, total=progress.steps, completed=progress.step)
        if self.console.is_terminal or math.isnan(self._ends):
            return
        due = now - self._told > self.line_every or (first and self._ends - now > self.line_every)
        if due and progress.step < progress.steps:
            self._told = now
            self.console.print(f"{self.title}: {self._state}, eta {self._eta()}", soft_wrap=True)

    def _below(self) -> str:
        return self._state or f"compiling, {clock(time.monotonic() - self._created)}"

    def _eta(self) -> str:
        left = self._ends - time.monotonic()
        return "-:--" if math.isnan(left) else clock(max(0, left))


def state(progress) -> str:
    """A `train.loop.Progress` in words; losses are of training, metrics of validation."""
    rate = progress.steps_per_second
    return (
        f"step {progress.step:,}/{progress.steps:,}, {f'{rate:,.0f}' if rate >= 10 else f'{rate:.2g}'}/s: "
        f"train loss {progress.loss:.3g}, validation {progress.metric_name} {progress.metric:.3g}, "
        f"{progress.solved}/{progress.seeds} solved"
    )


class _TwoLines(Progress):
    """A bar, and what below() says."""

    def __init__(self, below: Callable[[], str], *columns, **options):
        self._below = below
        super().__init__(*columns, **options)

    def get_renderables(self):
        yield from super().get_renderables()
        yield Text(self._below())


class _Call(ProgressColumn):
    """A column of what f() says."""

    def __init__(self, f: Callable[[], str]):
        super().__init__(Column(no_wrap=True))
        self._f = f

    def render(self, task):
        return Text(self._f())
