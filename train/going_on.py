"""A run that goes on with more steps, where it is or in a folder of its own."""

import json
import shutil
from pathlib import Path

from train import files, same_run
from train.config import RunConfig
from train.files import WorkdirError
from train.optim import schedule
from train.record import FILES

KEPT = tuple(name for name in FILES if name not in ("summary.json", "failed.json"))


def check(source: Path, config: RunConfig) -> RunConfig:
    """What a run was asked to do.

    Args:
      source: its folder.
      config: what it is asked to do now.

    Raises:
      ValueError: it is no run's folder, it had more steps, or more than steps and schedule would change.
    """
    path, name = source / "config.json", f"--continue: {source}"
    try:
        saved = json.loads(path.read_text())
        before = RunConfig.from_dict(saved)
    except FileNotFoundError:
        raise ValueError(f"--continue={source} is no run's folder: it has no config.json") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: config.json is damaged: {error}") from None
    if differing := same_run.differences(saved, config.to_dict(), same_run.GOES_ON):
        raise ValueError(
            f"{name}: a run goes on as what it is ({', '.join(differing[:3])}); "
            "--init begins another one with its weights"
        )
    old, new = before.train.steps, config.train.steps
    if new < old:
        raise ValueError(f"{name} has {old:,} steps, config.train.steps={new} are fewer")
    return before


def note(source: Path, before: RunConfig, config: RunConfig, step: int) -> dict:
    """What the record says of a run that goes on at a step otherwise than it began; {}: as it did."""
    if not same_run.differences(before.to_dict(), config.to_dict()):
        return {}
    was, now = (
        float(schedule(one.optim, one.train.steps, max(rate for _, rate in one.lanes))(step))
        for one in (before, config)
    )
    old, new = before.train.steps, config.train.steps
    said = (
        f"from step {step:,}, with {new:,} steps in place of {old:,}; {config.optim.schedule}: the learning "
    )
    said += f"rate there was {was:.3g}, is {now:.3g}"
    return {"continues": str(source), "steps_before": old, "said": said}


def copy(source: Path, target: Path) -> None:
    """Copies what a run goes on from. A folder that has a run already stays as it is.

    Raises:
      WorkdirError: a process trains it now, or the target has other files of these names.
    """
    if (target / "config.json").exists() or source.resolve() == target.resolve():
        return
    if files.in_use(source):
        raise WorkdirError(f"{source} is in use by another process; wait for it")
    there = [name for name in (*KEPT, "checkpoints") if (target / name).exists()]
    part = target / "continuing.part"
    if there and not part.exists():
        raise WorkdirError(f"{target} holds {', '.join(there)}, but no run; use another --workdir")
    part.mkdir(parents=True, exist_ok=True)  # until config.json, the last one, is there
    shutil.rmtree(target / "checkpoints", ignore_errors=True)
    shutil.copytree(source / "checkpoints", target / "checkpoints")
    for name in reversed(KEPT):
        if (source / name).exists():
            files.write(target / name, (source / name).read_bytes())
    part.rmdir()
