"""A trained model as one file, to be used without this package: a program with the parameters inside.

  python -m experiments.export --run=runs/x --out=model.bin
  python -m experiments.export --run=runs/x --out=model.bin --lengths --platforms=cuda --seed=1

It takes any batch and any number of steps. Where there is jax (and flatbuffers):

  outputs = jax.export.deserialize(open("model.bin", "rb").read()).call(xs)

The parameters are those of the best validation result, of the seed and learning rate that had it.
"""

from pathlib import Path

from absl import flags

from experiments import cli, screen

flags.DEFINE_string("run", None, "Folder of a run.")
flags.DEFINE_string(
    "out", None, "The file to write. One that was not written here is kept, but for --overwrite."
)
flags.DEFINE_boolean("lengths", False, "The program also takes the lengths of the rows: call(xs, lengths).")
flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "Where it can run: some of cpu, cuda, tpu, rocm.")
flags.DEFINE_integer("seed", None, "Which seed of the run; default: the best.", lower_bound=0)
flags.DEFINE_float("learning_rate", None, "Which of the run's learning rates; default: the best.")
flags.DEFINE_enum("at", "best", ["best", "last"], "The best validation result, or the last step.")
FLAGS = flags.FLAGS


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Writes, and prints what; returns the exit code."""
    if config is not None or overrides:
        raise ValueError("export takes no --config: a run has its own")
    if not FLAGS.run:
        raise ValueError("--run=FOLDER is missing: the folder of a run")
    if not FLAGS.out:
        raise ValueError("--out=FILE is missing: the file to write")

    import train
    from train import exported
    from train.files import write

    out = Path(FLAGS.out)
    exported.check_platforms(FLAGS.platforms)
    check_free(out, exported.NAME.encode())
    run = train.load(FLAGS.run, FLAGS.data_dir)
    seed, rate = run.lane(FLAGS.seed, FLAGS.learning_rate)
    blob = run.export(seed, rate, FLAGS.at, FLAGS.lengths, FLAGS.platforms).serialize()
    write(out, bytes(blob))
    call = "call(xs, lengths)" if FLAGS.lengths else "call(xs)"
    lines = [
        f"{out}: {run!r}, seed {seed}, learning rate {rate:g}, {FLAGS.at}",
        f"{run.model.parameters:,} parameters, {len(blob):,} bytes, for {', '.join(FLAGS.platforms)}",
        f'jax.export.deserialize(open("{out}", "rb").read()).{call}',
        *exported.describe(run.spec, run.meaning, FLAGS.lengths),
    ]
    for line in lines:
        screen.console().print(line, soft_wrap=True)
    return 0


def check_free(out: Path, mark: bytes) -> None:
    """Refuses a place where no file can be, or another program's is.

    Raises:
      ValueError: with what is there.
    """
    if out.is_dir():
        raise ValueError(f"--out={out} is a folder: name a file")
    if not out.parent.is_dir():
        raise ValueError(f"--out={out}: no such folder: {out.parent}")
    if out.exists() and not FLAGS.overwrite and mark not in out.read_bytes():
        raise ValueError(f"--out={out} was not written by this command: name another, or --overwrite")


if __name__ == "__main__":
    cli.run(main, __doc__)
