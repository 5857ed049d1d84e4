"""An experiment as a command: settings from flags, resumable work, tables, figures, verdicts on disk."""

import dataclasses
import time
import types
import typing
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from absl import flags
from rich.console import Console

from cells.registry import nearest
from experiments import cli, tables

flags.DEFINE_enum("preset", "fast", ["quick", "fast", "full"], "Values of all settings: see above.")
flags.DEFINE_list("cells", None, "Cells, with options after colons: lstm:peepholes=true; all: every cell.")
flags.DEFINE_integer("seeds", None, "Seeds per cell.", lower_bound=1)
flags.DEFINE_string("workdir", None, "Where everything is written (default: runs/NAME-PRESET).")
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS

VERDICTS = ("holds", "holds in part", "does not hold here", "not tested here")


class Verdict(NamedTuple):
    """What the numbers say of a claim, one of VERDICTS, and the numbers."""

    verdict: str
    evidence: str


def command(module: types.ModuleType) -> None:
    """Runs an experiment's module as a command."""
    name = module.__spec__.name.split(".")[-1]

    def main(config, overrides):
        if config:
            raise ValueError(f"{name} has presets (--preset) and fields (--config.FIELD=VALUE), no --config")
        settings = settings_of(module, FLAGS.preset, overrides | shared_flags(module))
        workdir = Path(FLAGS.workdir or f"runs/{name}-{FLAGS.preset}")
        console = Console(highlight=False)
        run(module, settings, workdir, console, FLAGS.data_dir, FLAGS.overwrite)
        return 0

    cli.run(main, help_of(module))


def help_of(module) -> str:
    """The module's text, then its settings."""
    rows = []
    for field in dataclasses.fields(module.Settings):
        values = ", ".join(f"{name} {_shown(getattr(p, field.name))}" for name, p in module.PRESETS.items())
        rows.append(f"  --config.{field.name}: {values}")
    return module.__doc__.strip() + "\n\nSettings and their presets:\n" + "\n".join(rows) + "\n"


def shared_flags(module) -> dict:
    """The settings that have flags of their own."""
    fields = {field.name for field in dataclasses.fields(module.Settings)}
    given = {"cells": FLAGS.cells and _cells(module, FLAGS.cells), "seeds": FLAGS.seeds}
    for name, value in given.items():
        if value is not None and name not in fields:
            raise ValueError(f"this experiment has no --{name}")
    return {name: value for name, value in given.items() if value is not None}


def _cells(module, given) -> tuple:
    """The cells of a flag; "all" are those that the module can look at: its `eligible()`, else every one."""
    import configs

    return tuple(configs.all_cells(given, module.eligible() if hasattr(module, "eligible") else None))


def settings_of(module, preset: str, overrides: dict):
    """A preset with fields replaced.

    Raises:
      ValueError: unknown field, with the nearest, or a value of the wrong type.
    """
    import configs

    base = module.PRESETS[preset]
    hints = typing.get_type_hints(type(base))
    values = {}
    for name, value in overrides.items():
        if name not in hints:
            raise ValueError(f"no setting {name!r}; {nearest(name, hints)}")
        value, kind = configs.literal(value), type(getattr(base, name))
        if kind is tuple:
            value = tuple(value) if isinstance(value, list | tuple) else tuple(str(value).split(","))
            kinds = {type(item) for item in getattr(base, name)}
            value = tuple(configs.literal(v) if kinds != {str} else str(v) for v in value)
        elif kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"config.{name} must be {kind.__name__}, got {value!r}")
        values[name] = value
    return dataclasses.replace(base, **values)


def cell_config(cell_text: str, task: str, /, **sections):
    """A frozen RunConfig of "lstm:peepholes=true" on a task, with sections as for `configs.make`."""
    import configs

    name, options = configs.with_options(cell_text)
    config = configs.make(name, task, **sections)
    configs.update(config, {"cell": options})
    config.label = cell_text
    return configs.freeze(config)


def run(
    module, settings, workdir: Path, console: Console, data_dir: str | None = None, overwrite: bool = False
) -> dict[str, pd.DataFrame]:
    """Measures (or goes on measuring), then writes and prints all that follows from it.

    Into `workdir`: a CSV per frame, a PNG per figure, report.md, environment.json, and `done/`, the pieces
    of work; `load` reads the frames again.
    """
    from experiments.lab.store import Lab
    from train.record import environment, write_json

    name = module.__spec__.name.split(".")[-1]
    lab = Lab(workdir, console, data_dir, overwrite)
    console.print(f"{name}: results go to {workdir}", soft_wrap=True)
    start = time.monotonic()
    told = environment() | {"settings": dataclasses.asdict(settings)}
    frames = module.measure(settings, lab)
    took = time.monotonic() - start
    for frame_name, frame in frames.items():
        frame.to_csv(workdir / f"{frame_name}.csv", index=False, float_format="%.8g")
    told["seconds_of_this_call"] = took
    write_json(workdir / "environment.json", told)
    report(module, frames, workdir, console, told)
    console.print(f"{name}: {took:.0f} s; wrote {workdir / 'report.md'}", soft_wrap=True)
    return frames


def load(workdir) -> dict[str, pd.DataFrame]:
    """The frames of an experiment that has run.

    Raises:
      FileNotFoundError: there are none.
    """
    found = {path.stem: pd.read_csv(path) for path in sorted(Path(workdir).glob("*.csv"))}
    if not found:
        raise FileNotFoundError(f"no tables (CSV) in {workdir}")
    return found


def report(module, frames, workdir: Path, console: Console, told: dict) -> None:
    """Tables, figures and verdicts, on screen and in report.md."""
    parts = [f"# {module.__spec__.name.split('.')[-1].replace('_', ' ').capitalize()}", caption(told)]
    for title, table in module.tables(frames).items():
        tables.show(console, title, table)
        parts += [f"## {title}", tables.markdown(table)]
    for name, figure in module.figures(frames).items():
        figure.savefig(workdir / f"{name}.png", dpi=150)
        parts.append(f"![{name}]({name}.png)")
    for claim, (verdict, evidence) in module.verdicts(frames).items():
        console.print(f"{claim}: {verdict}. {evidence}")
        parts.append(f"**{claim}: {verdict}.** {evidence}")
    (workdir / "report.md").write_text("\n\n".join(parts) + "\n")


def caption(told: dict) -> str:
    """Where, when and with what settings."""
    settings = ", ".join(f"{name} {_shown(value)}" for name, value in told["settings"].items())
    commit = (told["git_commit"] or "unknown")[:10] + (" with changes" if told["git_dirty"] else "")
    return (
        f"`{told['command']}`, {told['started'][:10]}, commit {commit}; {told['cpu']}, "
        f"{told['cores']} cores, {told['backend']}; Python {told['python']}, jax {told['jax']}."
        f"\n\nSettings: {settings}."
    )


def _shown(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
