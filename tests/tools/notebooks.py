"""Runs the notebooks from top to bottom, each in a process of its own, and keeps what they show.

  python tests/tools/notebooks.py                 # all of them
  python tests/tools/notebooks.py gates sru       # some

It needs the extra `notebook`.
"""

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def execute(path: Path, timeout: int = 600):
    """A notebook with its outputs, run in its folder as from a clone that is not installed.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = {"metadata": {"path": str(path.parent)}}
    client = nbclient.NotebookClient(notebook, timeout=timeout, resources=where, record_timing=False)
    client.execute(env=alone)
    notebook.metadata.pop("language_info", None)  # it names the version of this machine's Python
    return notebook


def main(names: list[str]) -> None:
    import nbformat

    unknown = set(names) - {path.stem for path in PATHS}
    if unknown:
        raise SystemExit(f"no notebook {sorted(unknown)[0]!r}; there are {[path.stem for path in PATHS]}")
    for path in PATHS:
        if not names or path.stem in names:
            nbformat.write(execute(path), path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
