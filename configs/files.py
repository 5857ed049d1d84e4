"""Configs and sweeps as files of this folder or of the user's."""

import importlib.util
import re
from pathlib import Path

from ml_collections import ConfigDict

import cells
import configs
from cells.registry import nearest
from configs import saved

FOLDER = Path(__file__).parent


def load(name: str) -> ConfigDict:
    """A config by file (`configs/sru.py`), by name (`sru`), or as saved (`runs/x`, or its config.json).

    Raises:
      ValueError: nothing of that name, with the nearest one, or a file that does not define a config.
    """
    if name in cells.names() and not (FOLDER / f"{name}.py").is_file():
        return configs.make(name)
    if name not in names() and saved.is_saved(name):
        return saved.load(name)
    loaded = module(name)
    if not hasattr(loaded, "get_config"):
        raise ValueError(f"{name} does not define get_config()")
    return loaded.get_config()


def module(name: str):
    """The Python file of a config or sweep, by path or by name."""
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"{name} is a folder without a config.json")
    if path.suffix != ".py":
        path = FOLDER / f"{name}.py"
    if not path.is_file():
        path = FOLDER / path.name  # `configs/sru.py` from outside the repository
    if not path.is_file():
        raise ValueError(f"no config {name!r}; {nearest(path.stem, names())}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def names() -> list[str]:
    """The configs and sweeps that have a name: the cells, and the files here that define one."""
    defines = re.compile(r"^(def get_config\(|CELLS = )", re.MULTILINE)
    files = {path.stem for path in FOLDER.glob("*.py") if defines.search(path.read_text())}
    return sorted(files | set(cells.names()))
