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


def check(source: Path, config: RunConfig) -> tuple[RunConfig, dict]:
    """What a run was asked to do, and what is to be noted of how it goes on.

    Args:
      source: its folder.
      config: what it is asked to do now.

    Raises:
      ValueError: it is no run's folder, or more than its steps and schedule would change.
    """
    path = source / "config.json"
    try:
        saved = json.loads(path.read_text())
        before = RunConfig.from_dict(saved)
    except FileNotFoundError:
        raise ValueError(f"--continue={source} is no run's folder: it has no config.json") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"--continue={source}: config.json is damaged: {error}") from None
    if differing := same_run.differences(saved, config.to_dict(), same_run.GOES_ON):
        raise ValueError(
            f"--continue={source}: a run goes on as what it is ({', '.join(differing[:3])}); "
            "--init begins another one with its weights"
        )
    old, new = before.train.steps, config.train.steps
    if new < old:
        raise ValueError(f"--continue={source}: it has {old:,} steps, config.train.steps={new} are fewer")
    if new == old and not same_run.differences(saved, config.to_dict()):
        return before, {}
    rates = [
        float(schedule(one.optim, one.train.steps, rate)(old))
        for one in (before, config)
        for rate in [max(rate for _, rate in one.lanes)]
    ]
    said = f"from {old:,} to {new:,} steps; {config.optim.schedule} over {new:,} steps: at step {old:,} the "
    said += f"learning rate was {rates[0]:.3g}, is {rates[1]:.3g}"
    return before, {"continues": str(source), "steps_before": old, "said": said}


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
