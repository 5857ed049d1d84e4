"""Runs as tasks of a SLURM array: a script that `sbatch` takes, and a list of the runs.

SLURM starts the tasks, requeues those whose machine goes away, and warns them before it does. The same sweep
again submits what has not finished, and where nothing is left puts the results together.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from experiments.engines import Job
from train.files import write

SCRIPT = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{at_once}
#SBATCH --cpus-per-task=1
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --output={log}
{options}
cd {here}
exec {python} -m experiments.engines.task {jobs} "$SLURM_ARRAY_TASK_ID"
"""


def script(jobs: list[Job], workdir: Path, workers: int = 0, options: list[str] = ()) -> str:
    """What `sbatch` is given.

    Args:
      jobs: a task each.
      workdir: on a file system that the machines share.
      workers: how many tasks run at once; 0: as many as SLURM gives.
      options: more of sbatch's, "--time=4:00:00".
    """
    workdir = workdir.absolute()
    return SCRIPT.format(
        name=workdir.name,
        last=len(jobs) - 1,
        at_once=f"%{workers}" if workers else "",
        log=workdir / "slurm-%a.txt",
        options="".join(f"#SBATCH {option}\n" for option in options),
        here=shlex.quote(str(Path(__file__).parents[2])),
        python=shlex.quote(sys.executable),
        jobs=shlex.quote(str(workdir / "jobs.json")),
    )


def submit(jobs: list[Job], workdir: Path, text: str, data_dir: str | None = None) -> str:
    """Writes the list and the script, and gives them to `sbatch`; returns what that says.

    Raises:
      ValueError: there is no sbatch here, or it refuses.
    """
    write(workdir / "jobs.json", json.dumps([job.message(data_dir) for job in jobs], indent=1))
    write(workdir / "sweep.sbatch", text)
    try:
        done = subprocess.run(["sbatch", str(workdir / "sweep.sbatch")], capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(
            f"no sbatch on this machine; the script is in {workdir / 'sweep.sbatch'}, --dry-run prints it"
        ) from None
    if done.returncode:
        raise ValueError(f"sbatch refuses: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return done.stdout.strip()
