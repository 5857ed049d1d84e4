"""Compares recurrent cells: same tasks, same budget, matched parameters, several seeds.

  python -m experiments.compare
  python -m experiments.compare --cells=all
  python -m experiments.compare --cells=gru,lstm,lstm:chrono=100 --tasks=adding --seeds=8
  python -m experiments.compare --tasks=delayed_recall --config.task.gap=50 --steps=3000

Prints a table and writes, into --workdir: every run, tidy results (curves and seeds as .csv and .parquet,
summary.csv), learning curves and times to threshold (PNG), and a page that shows them (index.html).
The same command again goes on where it was stopped. A run that fails is told of, and the others go on.

--cells      cells with commas between; a cell's options after colons: gru:reset_after=true; "all": every
             cell there is
--tasks      tasks with commas between; options likewise: delayed_recall:gap=50
--config     a sweep file of configs/sweeps/ (default: compare, that is configs/sweeps/compare.py)
--config.X   replaces a field in every run that has it: --config.optim.learning_rate=0.001
"""

import importlib
import sys
import threading
from pathlib import Path

from absl import flags
from rich.console import Console

from experiments import cli, screen

flags.DEFINE_list("cells", None, "Cells to compare (default: those of the sweep file).")
flags.DEFINE_list("tasks", None, "Tasks to compare them on (default: those of the sweep file).")
flags.DEFINE_integer("seeds", None, "Seeds per cell and task.", lower_bound=1)
flags.DEFINE_integer("steps", None, "Budget of optimiser steps of every run.", lower_bound=1)
flags.DEFINE_integer(
    "parameters", None, "Parameter budget of every model; 0: cell.hidden_size as it is.", lower_bound=0
)
flags.DEFINE_integer(
    "workers", 0, "Train in so many processes side by side, a core each; 0: in this one.", lower_bound=0
)
flags.DEFINE_string("workdir", "runs/compare", "Where everything is written.")
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Runs the sweep; returns the exit code."""
    import configs

    shared = {"train.seeds": FLAGS.seeds, "train.steps": FLAGS.steps, "parameters": FLAGS.parameters}
    overrides = cli.add_flags(overrides, shared)
    name = "compare" if config is None else config
    runs = configs.sweep(name, FLAGS.cells, FLAGS.tasks, overrides, FLAGS.data_dir)
    run_configs = {name: configs.freeze(run) for name, run in runs.items()}  # all are checked before any runs
    console, workdir = screen.console(), Path(FLAGS.workdir)
    train = side_by_side if FLAGS.workers else run_all
    status = train(run_configs, workdir, screen.meanwhile(console))
    report_on(workdir, [workdir / "runs" / name for name in run_configs], console)
    return status


def run_all(run_configs: dict, workdir: Path, console: Console) -> int:
    """Trains every run that is not finished yet; a line each.

    A run that fails leaves failed.json in its folder, and the others go on.

    Returns:
      130 if interrupted (143, 129 by SIGTERM, SIGHUP), 1 if some run failed or lost all its
      seeds, else 0.

    Raises:
      ValueError and the like: what ails the whole command, or the error of the first run if all failed.
    """
    import jax

    from experiments import results
    from train.ahead import InGroups, Prepared
    from train.checkpoint import CheckpointError
    from train.files import WorkdirError
    from train.loop import train
    from train.record import finished
    from train.tasks.datasets import DataError

    first = next(iter(run_configs.values())).train
    console.print(
        f"{len(run_configs)} runs of {first.seeds} seeds on {len(jax.devices())} {jax.default_backend()} "
        f"device(s); results go to {workdir}",
        soft_wrap=True,
    )
    folders = {name: workdir / "runs" / name for name in run_configs}
    runs = {
        name: Prepared(config, FLAGS.data_dir, not FLAGS.overwrite and finished(folders[name]) is not None)
        for name, config in run_configs.items()
    }
    groups = InGroups(runs)
    del runs  # each is given up when it has trained
    errors, diverged, told = [], False, set()
    for number, (name, run_config) in enumerate(run_configs.items(), 1):
        title, folder = f"[{number}/{len(run_configs)}] {name}", folders[name]
        results.mark_failed(folder, None)
        if number == 2:  # what the report needs, imported while the others compile
            threading.Thread(target=importlib.import_module, args=("experiments.report",)).start()
        try:
            with screen.ProgressBar(console, title) as bar:
                begun = groups.begin(name)
                screen.tell_read(console, begun.run(), told)
                result = train(run_config, folder, FLAGS.data_dir, FLAGS.overwrite, bar, begun)
        except (CheckpointError, DataError, WorkdirError, OSError):
            raise
        except Exception as error:  # one cell must not cost the results of the others
            errors.append(error)
            results.mark_failed(folder, error, run_config)
            line = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            console.print(f"{title}: failed: {line}")
            continue
        console.print(f"{title}: {results.line(result.summary)}")
        if result.signal is not None:
            print(result.summary.run.message or "interrupted", file=sys.stderr)
            return 128 + result.signal
        diverged |= result.exit_code == 1
    if errors and len(errors) == len(run_configs):
        raise errors[0]
    return int(bool(errors) or diverged)


def side_by_side(run_configs: dict, workdir: Path, console: Console) -> int:
    """The same by `experiments.engines.local`, each run in a process with a core of its own."""
    from experiments.engines import Job, drive
    from train.files import locked

    jobs = [Job(name, config, workdir / "runs" / name) for name, config in run_configs.items()]
    workdir.mkdir(parents=True, exist_ok=True)

    with locked(workdir):
        todo, state = drive.left(jobs, FLAGS.overwrite)
        console.print(f"{len(jobs)} runs, {len(todo)} to train; results go to {workdir}", soft_wrap=True)
        drive.train_here(todo, state, FLAGS.workers, workdir / "workers.log", console, FLAGS.data_dir)
    return int(bool(state.failed))


def report_on(workdir: Path, runs: list[Path], console: Console) -> None:
    """Prints the table of the runs there are, and writes tables, figures and the page."""
    from experiments import report, results

    runs = _with(runs, "summary.json", results.FAILED)
    found, failed = results.aggregate(results.load_seeds(*runs)), results.load_failures(*runs)
    console.print(results.table(found, failed, console.width))
    for path in report.write(runs, workdir).values():
        screen.meanwhile(console).print(f"wrote {path}", soft_wrap=True)


def _with(runs, *names) -> list[Path]:
    """The folders that hold one of the files."""
    return [run for run in runs if any((run / name).exists() for name in names)]


if __name__ == "__main__":
    cli.run(main, cli.with_choices(__doc__), allocator="default")
