"""Tables and figures on disk: each file whole or not at all."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from train.files import write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def write_frame(path: Path, frame: "pd.DataFrame", **options) -> None:
    """Writes a CSV; options as for `DataFrame.to_csv`."""
    write(path, frame.to_csv(index=False, **options))


def write_parquet(path: Path, frame: "pd.DataFrame") -> None:
    """Writes a Parquet file, which pandas, polars and duckdb read alike.

    A column of several types, as options of different runs may be, becomes text.
    """
    import pyarrow
    from pyarrow import parquet

    columns = {}
    for name, column in frame.items():
        try:
            columns[str(name)] = pyarrow.Array.from_pandas(column)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            known = column.notna().tolist()
            columns[str(name)] = pyarrow.array(
                [str(x) if k else None for x, k in zip(column, known, strict=True)]
            )
    buffer = BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer)
    write(path, buffer.getvalue())


def write_figure(path: Path, figure: "Figure", **options) -> None:
    """Writes a PNG; options as for `Figure.savefig`."""
    write(path, png(figure, **options))


def png(figure: "Figure", **options) -> bytes:
    """A figure as a PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", **options)
    return buffer.getvalue()
