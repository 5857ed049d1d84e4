"""Trains one config: all its seeds at once, resumable.

  python -m experiments.train --config=configs/sru.py --config.task.gap=400 --workdir=runs/x

--config     a file of configs/, one of the names below, or a run's folder
--config.X   replaces any field: --config.cell.name=gru --config.cell.hidden_size=32
             --config.task.name=adding --config.train.steps=500 (--show_config prints them all)
--describe   a cell or task: prints what it is, and its options
--continue   a run's folder: it goes on with more steps, --config.train.steps=3000
--init       a run's folder: another run begins with its weights
--workdir    run directory: config, metrics, summary, checkpoints. The same command again goes on
             where it was stopped.

On several machines the same command runs on each, told apart by --process:

  python -m experiments.train --config=sru --workdir=runs/x --coordinator=HOST:PORT --processes=2 --process=0

--coordinator  where the first process is reached; auto: a cluster says this, and the rest (SLURM, Open MPI,
               Kubernetes, TPU). Process 0 has the run's folder; the others write nothing.
"""

import os
import sys

from absl import flags

from experiments import cli, entry, screen

flags.DEFINE_string("workdir", None, "Run directory. Without it nothing is written.")
flags.DEFINE_string(
    "continue",
    None,
    "Folder of a run that goes on with more steps, --config.train.steps=N: there, or copied into --workdir.",
)
flags.DEFINE_string(
    "init", None, "Folder of a run whose best parameters the seeds begin with: --config.init of another name."
)
flags.DEFINE_boolean("show_config", False, "Print the config with all its fields, and stop.")
flags.DEFINE_string("describe", None, "Print what a cell or a task is, and its options, and stop.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0 of a run on several machines; or auto.")
flags.DEFINE_integer("processes", None, "How many processes train the run.", lower_bound=1)
flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)
flags.DEFINE_integer(
    "patience", 900, "Of several processes: seconds without progress after which they end.", lower_bound=1
)
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Trains; returns the exit code."""
    from experiments import describe, supervise

    if FLAGS.describe is not None:
        print(describe.text(FLAGS.describe))
        return 0
    check_processes()
    if FLAGS.coordinator is not None and not supervise.inside():
        return supervise.run("experiments.train", FLAGS.coordinator, FLAGS.patience)

    import configs

    source, overrides = FLAGS["continue"].value, cli.add_flags(overrides, {"init": FLAGS.init})
    if source is not None:
        check_continue(source, config)
        FLAGS.workdir, config = FLAGS.workdir or source, source
    cli.check_written(FLAGS.workdir, overrides)
    built = configs.apply(configs.load("sru" if config is None else config), overrides)
    if FLAGS.show_config:
        print(built)
        return 0
    run_config = configs.freeze(built)
    if FLAGS.coordinator is None:
        return train_one(run_config)
    supervise.end(lambda: train_together(run_config))


def check_continue(source: str, config: str | None) -> None:
    """Refuses flags that do not fit a run that goes on.

    Raises:
      ValueError: with the flag.
    """
    if config is not None:
        raise ValueError("--continue and --config exclude each other: the run has its own")
    if FLAGS.overwrite:
        raise ValueError("--continue and --overwrite exclude each other")
    if not os.path.isfile(os.path.join(source, "config.json")):
        raise ValueError(f"--continue={source} is no run's folder: it has no config.json")


def check_processes() -> None:
    """Refuses flags of several processes that do not fit together.

    Raises:
      ValueError: with the flag.
    """
    names, auto = ("processes", "process"), FLAGS.coordinator == "auto"
    for name in (*names, "patience"):
        if FLAGS[name].present and FLAGS.coordinator is None:
            raise ValueError(f"--{name} has no effect without --coordinator=HOST:PORT")
        if FLAGS[name].present and auto and name in names:
            raise ValueError(f"--{name} has no effect with --coordinator=auto: the cluster says it")
    if FLAGS.coordinator is None or auto:
        return
    entry.host_and_port("coordinator", FLAGS.coordinator)
    for name in names:
        if FLAGS[name].value is None:
            raise ValueError(f"--coordinator={FLAGS.coordinator} needs --{name} as well")
    if FLAGS.process >= FLAGS.processes:
        raise ValueError(f"--process={FLAGS.process} must be below --processes={FLAGS.processes}")


def train_together(config) -> int:
    """`train_one` by several processes."""
    from experiments import supervise
    from train import hosts

    # Who watches loses patience before jax, which would abort.
    hosts.join(FLAGS.coordinator, FLAGS.processes, FLAGS.process, wait=FLAGS.patience + 60)
    alive = supervise.SignOfLife()
    alive()
    code = train_one(config, alive)
    hosts.leave()
    return code


def train_one(config, alive=lambda: None) -> int:
    """Trains; returns the exit code.

    Args:
      alive: called now and then.
    """
    from experiments import results
    from train import hosts
    from train.ahead import Prepared
    from train.loop import train

    console = screen.console()
    console.quiet = not hosts.first()
    meanwhile = screen.meanwhile(console)
    if FLAGS.workdir is None:
        meanwhile.print("nothing of this run will be kept; --workdir=FOLDER keeps it", soft_wrap=True)
    asked = config.to_dict()
    title = f"{config.label or asked['cell']['name']} on {asked['task']['name']}"
    prepared, told = Prepared(config, FLAGS.data_dir), set()
    with screen.ProgressBar(meanwhile, title) as bar:

        def watch(progress):
            alive()
            if not told:  # once: it may look at all the data
                screen.tell_read(meanwhile, prepared.run(), told)
            bar(progress)

        result = train(
            config,
            FLAGS.workdir,
            FLAGS.data_dir,
            FLAGS.overwrite,
            watch,
            prepared,
            continues=FLAGS["continue"].value,
        )
    run = result.summary.run
    console.print(
        f"{title}: {run.parameters:,} parameters (hidden size {run.hidden_size}, state "
        f"of {run.state_size:,} numbers), "
        f"strategy {run.strategy}, {run.device} x {run.devices}, "
        f"compiled in {run.compile_seconds:.1f} s, trained {run.run_seconds:.1f} s"
    )
    found = results.aggregate(results.seeds_frame(result.summary))
    console.print(results.table(found, width=console.width))
    if FLAGS.workdir:
        meanwhile.print(f"written to {FLAGS.workdir}", soft_wrap=True)
    if run.message:
        print(run.message, file=sys.stderr)
    return result.exit_code


if __name__ == "__main__":
    cli.run(main, cli.with_choices(__doc__), allocator="default")
