"""What a sweep shows of itself, and how its flags are read."""

import time

from rich.table import Table


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
        eta = f", about {took / ended * left:.0f} s to go" if ended and left else ""
        before = f" ({self.before} before)" if self.before else ""
        return (
            f"{self.before + self.done} of {self.runs} runs done{before}, {len(self.failed)} failed, "
            f"{len(self.running)} running, {took:.0f} s{eta}"
        )

    def table(self) -> Table:
        """For a terminal: a line for every run that trains."""
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, (step, steps) in self.running.items():
            table.add_row(name, f"{step}/{steps}")
        table.add_row(self.text())
        return table


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
