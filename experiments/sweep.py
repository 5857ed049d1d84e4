"""Trains a sweep: cells x tasks x seeds x any fields, in processes side by side, one per core.

  python -m experiments.sweep --config=rates
  python -m experiments.sweep --config=rates --cells=gru,lstm --vary=optim.learning_rate=0.001,0.01,0.1
  python -m experiments.sweep --config=compare --seeds=1 --vary=train.seed=0,1,2,3 --workdir=runs/mine

Every run has a folder in --workdir: finished ones are skipped, others go on from their last checkpoint, so
the same command again goes on where it was stopped. A process that dies or makes no progress is replaced. At
the end failures are listed with their line, and all runs are in seeds.parquet.

Clusters: --engine=slurm submits the runs as an array (--dry-run prints the script), --engine=ray gives them
to a Ray cluster (--address). Their machines need to share --workdir.

--config     a sweep file, of configs/sweeps/ or your own: CELLS, TASKS, SHARED and VARY
--cells      cells with commas between; a cell's options after colons: gru:reset_after=true
--tasks      tasks with commas between; options likewise: delayed_recall:gap=50
--vary       a field and its values; may be given several times, for all combinations
--config.X   replaces a field in every run that has it: --config.optim.learning_rate=0.001
"""

import sys
from pathlib import Path

from absl import flags

from experiments import cli, screen
from experiments.engines import board

flags.DEFINE_list("cells", None, "Cells (default: those of the sweep file).")
flags.DEFINE_list("tasks", None, "Tasks (default: those of the sweep file).")
flags.DEFINE_multi_string(
    "vary", None, "FIELD=VALUE,VALUE: instead of the sweep file's values for that field."
)
flags.DEFINE_integer("seeds", None, "Seeds of each run, which train together.", lower_bound=1)
flags.DEFINE_integer("steps", None, "Budget of optimiser steps of every run.", lower_bound=1)
flags.DEFINE_integer(
    "workers", 0, "Processes side by side; 0: one per core.", lower_bound=0, upper_bound=1024
)
flags.DEFINE_integer("retries", 2, "How often a run whose process died is tried again.", lower_bound=0)
flags.DEFINE_float("patience", 900.0, "Seconds without progress after which a process is replaced.", 1.0)
flags.DEFINE_enum("engine", "local", ["local", "slurm", "ray"], "Where the runs train.")
flags.DEFINE_boolean("dry-run", False, "slurm: print the script and do nothing.")
flags.DEFINE_multi_string("sbatch", None, "slurm: another option of sbatch: --sbatch=--time=4:00:00.")
flags.DEFINE_string("address", None, "ray: the cluster, auto or its address; none: this machine alone.")
flags.DEFINE_string("workdir", "runs/sweep", "Where everything is written.")
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS

ACT = {  # flags of some engines only
    "dry-run": ["slurm"],
    "sbatch": ["slurm"],
    "address": ["ray"],
    "workers": ["local", "slurm"],
    "retries": ["local", "ray"],
    "patience": ["local"],
    "devices": [],
    "allocator": [],
}


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Runs the sweep; returns the exit code."""
    import configs
    from experiments.engines import Job, drive, on_ray, slurm

    if config is None:
        raise ValueError("name a sweep: --config=rates, or a file of your own")
    for name, engines in ACT.items():
        if FLAGS[name].present and FLAGS.engine not in engines:
            of = " or ".join(engines) or "no engine: each process has one core"
            raise ValueError(f"--{name} has no effect with --engine={FLAGS.engine}: it is of {of}")
    if FLAGS.engine == "ray":
        on_ray.check(FLAGS.address)
    overrides = cli.add_flags(overrides, {"train.seeds": FLAGS.seeds, "train.steps": FLAGS.steps})
    runs = configs.sweep(
        config, FLAGS.cells, FLAGS.tasks, overrides, FLAGS.data_dir, board.varied(FLAGS.vary or ())
    )
    workdir = Path(FLAGS.workdir)
    jobs = [Job(name, configs.freeze(run), workdir / "runs" / name) for name, run in runs.items()]
    if FLAGS["dry-run"].value:
        todo, listed = drive.left(jobs, overwrite=False)[0], slurm.list_file(workdir)
        if todo:
            print(slurm.script(todo, listed, workdir, FLAGS.workers, FLAGS.sbatch or []), end="")
        return 0
    workdir.mkdir(parents=True, exist_ok=True)
    return run_all(jobs, workdir, screen.console())


def run_all(jobs, workdir: Path, console) -> int:
    """Trains what is not finished yet; returns the exit code: 1 if some run failed, 128 + a signal."""
    from experiments.engines import drive, local, on_ray
    from train.files import locked

    def on_this_machine(todo, tell, stop):
        log, patience = workdir / "workers.log", FLAGS.patience
        local.run(todo, tell, log, FLAGS.data_dir, FLAGS.workers, FLAGS.retries, patience, stop)

    def by_ray(todo, tell, stop):
        on_ray.run(todo, tell, FLAGS.data_dir, FLAGS.address, FLAGS.retries, stop)

    meanwhile = screen.meanwhile(console)
    with locked(workdir):
        todo, state = drive.left(jobs, FLAGS.overwrite)
        meanwhile.print(
            f"{len(jobs)} runs, {len(todo)} of them to train; results go to {workdir}", soft_wrap=True
        )
        if FLAGS.engine == "slurm":
            return submit(jobs, todo, state, workdir, console)
        received = drive.train(todo, state, by_ray if FLAGS.engine == "ray" else on_this_machine, meanwhile)
        return finish(jobs, state, workdir, console, received)


def submit(jobs, todo, state, workdir: Path, console) -> int:
    """Gives SLURM what has neither finished nor failed; where nothing is left, puts the results together."""
    from experiments import results
    from experiments.engines import slurm
    from train.files import in_use

    failed = [job for job in todo if (job.folder / results.FAILED).exists()]
    todo = [job for job in todo if job not in failed and not in_use(job.folder)]
    if todo:
        listed = slurm.list_file(workdir)
        text = slurm.script(todo, listed, workdir, FLAGS.workers, FLAGS.sbatch or [])
        console.print(slurm.submit(todo, listed, text, FLAGS.data_dir), soft_wrap=True)
        console.print("when they have ended, the same command puts the results together", soft_wrap=True)
        return 0
    for job in failed:
        state.failed[job.name] = results.load_failures(job.folder)["error"].iloc[0]
    return finish(jobs, state, workdir, console, None)


def finish(jobs, state, workdir: Path, console, received: int | None) -> int:
    """Writes what all runs together say, and lists what failed."""
    from experiments import output, results

    folders = [job.folder for job in jobs if (job.folder / "summary.json").exists()]
    if folders:
        seeds = results.load_seeds(*folders)
        output.write_parquet(workdir / "seeds.parquet", seeds)
        aggregated = results.aggregate(seeds)
        if len(aggregated) <= 40:
            console.print(results.table(aggregated, width=console.width))
        screen.meanwhile(console).print(
            f"wrote {workdir / 'seeds.parquet'}: {len(seeds)} seeds", soft_wrap=True
        )
    for name, line in state.failed.items():
        console.print(f"failed: {name}: {line}", soft_wrap=True)
    console.print(state.text(), soft_wrap=True)
    if received:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 128 + received
    return int(bool(state.failed) or len(folders) < len(jobs))


if __name__ == "__main__":
    cli.run(main, cli.with_choices(__doc__), allocator="default")
