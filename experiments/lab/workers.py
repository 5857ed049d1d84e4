"""The training runs of experiments, in processes side by side, before anything is measured."""

from pathlib import Path

from rich.console import Console

from experiments import results
from experiments.engines import Job, drive
from experiments.lab.protocol import Settings
from experiments.lab.store import Lab
from train.record import finished


def train(
    experiments: dict[str, tuple[Lab, Settings]],
    workers: int,
    log: Path,
    console: Console,
    data_dir: str | None = None,
) -> None:
    """Trains what experiments need and has not been trained; they find it in their folders.

    What the next runs are may follow from those before: then it goes in rounds.

    Args:
      experiments: by name.
      workers: processes.
      log: file that gets what they print.

    Raises:
      ValueError: a run failed. WorkdirError: another one is in its place. SystemExit: Ctrl-C or the like;
        the same command goes on from there.
    """
    while True:
        todo, board = drive.left(_jobs(experiments), overwrite=False)
        if not todo:
            return
        console.print(f"{len(todo)} runs to train by {workers} processes", soft_wrap=True)
        for job in todo:
            experiment, name = job.name.split(" ", 1)
            experiments[experiment][0].begins(name, job.config)
        drive.train_here(todo, board, workers, log, console, data_dir)
        for job in todo:
            if finished(job.folder) is None:
                raise ValueError(f"{job.name} failed: {board.failed.get(job.name, 'it did not end')}")
            results.mark_failed(job.folder, None)  # that all seeds diverged is a result here


def _jobs(experiments: dict) -> list[Job]:
    """The runs of all experiments on which nothing has been measured yet."""
    return [
        Job(f"{experiment} {name}", config, lab.folder(name))
        for experiment, (lab, settings) in experiments.items()
        for name, config in settings.runs(lab.ended).items()
        if not lab.has(name, config)
    ]
