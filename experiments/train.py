"""Trains one config: all its seeds at once, resumable.

  python -m experiments.train --config=configs/sru.py --config.task.gap=400 --workdir=runs/x

--config     a file of configs/, one of the names below, or a run's folder
--config.X   replaces any field: --config.cell.name=gru --config.cell.hidden_size=32
             --config.task.name=adding --config.train.steps=500 (--show_config prints them all)
--workdir    run directory: config, metrics, summary, checkpoints. The same command again goes on
             where it was stopped.
"""

import sys

from absl import flags

from experiments import cli

flags.DEFINE_string("workdir", None, "Run directory. Without it nothing is written.")
flags.DEFINE_boolean("show_config", False, "Print the config with all its fields, and stop.")
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Trains; returns the exit code."""
    import configs
    from experiments import results
    from train.loop import train

    cli.check_written(FLAGS.workdir, overrides)
    built = configs.apply(configs.load("sru" if config is None else config), overrides)
    if FLAGS.show_config:
        print(built)
        return 0
    run_config = configs.freeze(built)
    console = cli.console()
    title = f"{built.label or built.cell.name} on {built.task.name}"
    with cli.ProgressBar(console, title) as bar:
        result = train(run_config, FLAGS.workdir, FLAGS.data_dir, FLAGS.overwrite, watch=bar)
    run = result.summary.run
    console.print(
        f"{title}: {run.parameters:,} parameters (hidden size {run.hidden_size}), "
        f"strategy {run.strategy}, {run.device} x {run.devices}, "
        f"compiled in {run.compile_seconds:.1f} s, trained {run.run_seconds:.1f} s"
    )
    console.print(results.table(results.aggregate(results.seeds_frame(result.summary))))
    if FLAGS.workdir:
        console.print(f"written to {FLAGS.workdir}", soft_wrap=True)
    if run.message:
        print(run.message, file=sys.stderr)
    return result.exit_code


if __name__ == "__main__":
    cli.run(main, cli.doc_with_choices(__doc__), allocator="default")
