"""Configs and sweeps as files of this folder or of the user's."""

import contextlib
import importlib.util
import re
import traceback
from pathlib import Path

from ml_collections import ConfigDict

import cells
import configs
from cells.registry import nearest
from configs import precedence, saved

FOLDER = Path(__file__).parent
FOLDERS = (FOLDER, FOLDER / "sweeps")


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
    with _blamed(Path(loaded.__file__)):
        config = loaded.get_config()
    if not isinstance(config, ConfigDict) or not {"cell", "task", *precedence.SECTIONS} <= set(config.keys()):
        raise ValueError(
            f"get_config() of {name} must return what configs.make(...) gives, got {config!r:.40}"
        )
    return config


def module(name: str):
    """The Python file of a config or sweep, by path or by name.

    Raises:
      ValueError: there is none, with the nearest name, or it cannot be run: with the line.
    """
    path = Path(name).expanduser()
    if not name:
        raise ValueError(f"--config names nothing; {nearest('', names())}")
    if path.is_dir():
        raise ValueError(f"{name} is a folder without a config.json")
    if not (path.suffix == ".py" and path.is_file()):
        # By name; `configs/sru.py` and `configs/sweeps/compare.py` from outside the repository too.
        folders = {Path(): FOLDERS, Path("configs"): FOLDERS[:1], Path("configs/sweeps"): FOLDERS[1:]}
        files = [folder / f"{path.stem}.py" for folder in folders.get(path.parent, ())]
        path = next((file for file in files if file.is_file()), path)
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"no config {name!r}; {nearest(path.stem, names())}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    with _blamed(path):
        spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def _blamed(path: Path):
    """Whatever a user's file raises, as one line that says where."""
    try:
        yield
    except SyntaxError as error:
        raise ValueError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        number = next((frame.lineno for frame in frames[::-1] if frame.filename == str(path)), None)
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        said = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{path}:{number}: {kind}{said}") from error


def names() -> list[str]:
    """The configs and sweeps that have a name: the cells, and the files here that define one."""
    defines = re.compile(r"^(def get_config\(|CELLS = )", re.MULTILINE)
    files = {
        path.stem for folder in FOLDERS for path in folder.glob("*.py") if defines.search(path.read_text())
    }
    return sorted(files | set(cells.names()))
