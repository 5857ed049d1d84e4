"""Frames of strings as tables: on a terminal and as Markdown."""

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table


def show(console: Console, title: str, frame: pd.DataFrame) -> None:
    """Prints a frame as a table under a title."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for name in frame.columns:
        table.add_column(name, overflow="fold", min_width=max(map(len, name.split()), default=0))
    for line in frame.astype(str).to_numpy():
        table.add_row(*line)
    console.print(table)


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table."""
    cells = frame.astype(str).map(lambda cell: cell.replace("|", "\\|"))
    lines = [frame.columns, ["---"] * len(frame.columns), *cells.to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
