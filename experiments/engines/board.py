"""What a sweep shows of itself, and how its flags are read."""

import time

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.screen import clock


class Board:
    """How a sweep stands: what runs, what is done, what failed, how long the rest will take."""

    def __init__(self, runs: int, finished: int):
        self.runs, self.before = runs, finished
        self.done, self.failed, self.running = 0, {}, {}
        self.start = time.monotonic()

    def take(self, event) -> None:
        """An engine's event."""
        if event.kind == "progress":
            self.running[event.job] = (event.step, event.steps)
            return
        self.running.pop(event.job, None)
        if event.kind in ("failed", "busy"):
            self.failed[event.job] = event.line
        self.done += event.kind == "done"

    def text(self) -> str:
        """In a line."""
        took, ended = time.monotonic() - self.start, self.done + len(self.failed)
        left = self.runs - self.before - ended
        done = ended + sum(step / steps for step, steps in self.running.values())
        eta = clock(took * (ended + left - done) / done) if done else "-:--"
        eta = f", eta {eta}" if left else ""
        before = f" ({self.before} before)" if self.before else ""
        return (
            f"{self.before + self.done} of {self.runs} runs done{before}, {len(self.failed)} failed, "
            f"{len(self.running)} running, {clock(took)}{eta}"
        )

    def table(self) -> Group:
        """For a terminal: how all stands, then a line for every run that trains."""
        table = Table.grid(padding=(0, 1, 0, 0), expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        table.add_column(ratio=1)
        for _ in range(2):
            table.add_column(no_wrap=True, justify="right")
        for name, (step, steps) in self.running.items():
            table.add_row(Text(name), ProgressBar(steps, step), f"{step / steps:.0%}", f"{step:,}/{steps:,}")
        return Group(Text(self.text()), table)


def varied(texts) -> dict[str, list[str]]:
    """{"optim.learning_rate": ["0.1", "0.01"]} of "optim.learning_rate=0.1,0.01".

    Raises:
      ValueError: one is not of this form, or names a field that another has named.
    """
    fields = {}
    for text in texts:
        path, equals, values = text.partition("=")
        if not equals or not path or not values:
            raise ValueError(f"--vary={text}: write FIELD=VALUE,VALUE")
        if path in fields:
            raise ValueError(f"--vary names {path} twice")
        fields[path] = values.split(",")
    return fields
