"""Whether what a directory holds is the run that was asked for."""

import json
from pathlib import Path

import cells
from train import effects, tasks
from train.config import OptimConfig, RunConfig, TrainConfig
from train.files import WorkdirError
from train.model import ModelConfig

# What a run writes, and when, is no part of what it is.
ONLY_WRITTEN = ("train.checkpoint_seconds", "train.tensorboard", "train.logger")


# In what a run that goes on with more steps may differ from what it was.
GOES_ON = frozenset(
    {
        "train.steps",
        "train.stop_when_solved",
        "optim.schedule",
        "optim.final_fraction",
        "optim.warmup_steps",
        "label",
    }
)


def check_saved(path: Path, asked: dict, resolved: dict, ignored=frozenset()) -> None:
    """Refuses to mix two runs in one directory.

    Args:
      path: a config.json.
      asked, resolved: the config as asked for and as it runs, nested dicts.
      ignored: fields in which they may differ.

    Raises:
      WorkdirError: it is another run's, with the fields that differ, or damaged.
    """
    try:
        saved = json.loads(path.read_text())
        flat(saved)
    except (ValueError, AttributeError):
        raise WorkdirError(
            f"{path} is damaged; use another --workdir, or --overwrite to start again"
        ) from None
    ignored = set(ignored)
    if not path.with_name("resolved.json").exists():
        # Older versions saved the cell as it ran, and options that were overruled.
        asked, ignored = asked | {"cell": resolved["cell"]}, ignored | {"chrono"}
        fields = flat(saved)
        for rule in effects.RULES:
            if rule.overrules(fields.get(rule.by), fields.get(rule.option)):
                ignored.add(rule.option)
    check(saved, asked, path.parent, ignored)


def check(saved: dict, asked: dict, directory: Path, ignored=frozenset()) -> None:
    """Refuses a saved config that is not the one that was asked for.

    Raises:
      WorkdirError: with the fields that differ.
    """
    if differing := differences(saved, asked, ignored):
        more = ", ..." if len(differing) > 3 else ""
        raise WorkdirError(
            f"{directory} holds another run ({', '.join(differing[:3])}{more}); "
            "use another --workdir, or --overwrite to start again"
        )


def differences(saved: dict, asked: dict, ignored=frozenset()) -> list[str]:
    """The fields in which two configs are different runs, in words.

    A field that an older version did not know has its default in what was saved.
    """
    there, now = (flat(json.loads(json.dumps(config))) for config in (saved, asked))
    defaults = _defaults(asked)
    return [
        f"{name} {there.get(name, defaults.get(name))!r} there, {now.get(name)!r} now"
        for name in there | now
        if name not in ignored
        and name not in ONLY_WRITTEN
        and there.get(name, defaults.get(name)) != now.get(name)
    ]


def flat(tree: dict, prefix: str = "") -> dict:
    """{"task.gap": 100, ...} of a nested config."""
    fields = {}
    for name, value in tree.items():
        fields |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return fields


def _defaults(asked: dict) -> dict:
    """Of all fields that have one."""
    owners = {
        "": RunConfig,
        "cell.": cells.CELLS.cls(asked["cell"]["name"]),
        "task.": tasks.TASKS.cls(asked["task"]["name"]),
        "model.": ModelConfig,
        "optim.": OptimConfig,
        "train.": TrainConfig,
    }
    fields = {
        prefix + name: field.default
        for prefix, owner in owners.items()
        for name, field in owner.__dataclass_fields__.items()
        if isinstance(field.default, bool | int | float | str | tuple | None)
    }
    return json.loads(json.dumps(fields))
