"""Runs as tasks of a SLURM array: a script that `sbatch` takes, and a list of the runs.

SLURM starts the tasks, requeues those whose machine goes away, and warns them before it does. The same sweep
again submits what has not finished, and where nothing is left puts the results together.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from experiments.engines import Job
from train.files import write

SCRIPT = """#!/bin/bash
#SBATCH --job-name="{name}"
#SBATCH --array=0-{last}{at_once}
#SBATCH --cpus-per-task=1
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --output="{log}"
{options}
cd {here}
exec {python} -m experiments.engines.task {jobs} "$SLURM_ARRAY_TASK_ID"
"""


def script(jobs: list[Job], listed: Path, workdir: Path, workers: int = 0, options: list[str] = ()) -> str:
    """What `sbatch` is given.

    Args:
      jobs: a task each.
      listed: the file that lists them.
      workdir: on a file system that the machines share.
      workers: how many tasks run at once; 0: as many as SLURM gives.
      options: more of sbatch's, "--time=4:00:00".
    """
    workdir = workdir.absolute()
    return SCRIPT.format(
        name=workdir.name.replace("%", "%%"),
        last=len(jobs) - 1,
        at_once=f"%{workers}" if workers else "",
        log=str(workdir).replace("%", "%%") + "/slurm-%A-%a.txt",
        options="".join(f"#SBATCH {option}\n" for option in options),
        here=shlex.quote(str(Path(__file__).parents[2])),
        python=shlex.quote(sys.executable),
        jobs=shlex.quote(str(listed.absolute())),
    )


def list_file(workdir: Path) -> Path:
    """A new one for each submission: the tasks of an earlier one still read theirs."""
    return workdir / time.strftime("jobs-%Y%m%d-%H%M%S.json")


def submit(jobs: list[Job], listed: Path, text: str, data_dir: str | None = None) -> str:
    """Writes the list and the script, and gives them to `sbatch`; returns what that says.

    Raises:
      ValueError: there is no sbatch here, or it refuses.
    """
    file = listed.with_suffix(".sbatch")
    write(listed, json.dumps([job.message(data_dir) for job in jobs], indent=1))
    write(file, text)
    try:
        done = subprocess.run(["sbatch", str(file)], capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(f"no sbatch on this machine; the script is {file}, --dry-run prints it") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(f"sbatch refuses: {said[-1]}")
    return done.stdout.strip()
