"""Published results beside ours.

  python -m experiments.reference
  python -m experiments.reference --result=jsb
  python -m experiments.reference --run=jsb --cells=lstm --workdir=runs/jsb

Prints every result of published.toml, or one with all that is known of it: published, ours (mean over seeds,
tested at the best validation result), their difference, parameters, steps, seconds, how the protocols differ.
Ours are what was committed in experiments/figures/NAME-DATE; what has not been run has its command.

--run      trains a result's sweep, as `experiments.compare` does and with its flags, and prints ours out of
           these runs; the same command again goes on where it was stopped
--record   writes the finished runs of --workdir into experiments/figures/NAME-DATE, to be committed
--out      also draws the results that have been run, into this PNG
"""

from pathlib import Path

from absl import flags

from experiments import cli, compare, screen

flags.DEFINE_string("result", None, "One result, with all that is known of it.")
flags.DEFINE_string("run", None, "Train the sweep of this result.")
flags.DEFINE_string("record", None, "Write the runs of this result that are in --workdir, to be committed.")
flags.DEFINE_string("out", None, "PNG to draw.")
flags.adopt_module_key_flags(compare)
FLAGS = flags.FLAGS
FLAGS.set_default("workdir", None)  # runs/reference/NAME


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Prints, trains or records; returns the exit code."""
    from experiments.reference import beside, published

    if config is not None:
        raise ValueError("--config: a result names its sweep; --run=NAME trains it")
    given = [name for name in ("result", "run", "record") if FLAGS[name].value is not None]
    if len(given) > 1:
        raise ValueError(f"--{given[0]} and --{given[1]} exclude each other")
    _refuse_without_effect(given, overrides)
    if FLAGS.out and not FLAGS.out.endswith(".png"):
        raise ValueError(f"--out={FLAGS.out} must end in .png")
    console = screen.console()
    chosen = published.load()
    if given:
        name = FLAGS[given[0]].value
        chosen = {name: published.result(name)}
    if FLAGS.run:
        return train(chosen[FLAGS.run], overrides, console)
    if FLAGS.record:
        if FLAGS.workdir is None:
            raise ValueError("--record needs --workdir: the folder of the runs")
        folder = beside.record(chosen[FLAGS.record], Path(FLAGS.workdir))
        console.print(f"wrote {folder}: {', '.join(beside.FILES)}", soft_wrap=True)
    frames = {}
    for name, result in chosen.items():
        folder = beside.recorded(result)
        frames[name] = beside.rows(result, beside.committed(result))
        beside.show(result, frames[name], console, folder, every=bool(given))
    if FLAGS.out:
        ran = {name: (chosen[name], frame) for name, frame in frames.items() if frame["ours"].notna().any()}
        if not ran:
            raise ValueError("--out: none of these results has been run")
        beside.draw(Path(FLAGS.out), ran)
    return 0


def train(result, overrides: dict[str, str], console) -> int:
    """Trains the sweep of a result and prints ours of these runs; returns the exit code."""
    from experiments import results
    from experiments.reference import beside

    if result.pending:
        raise ValueError(f"the sweep {result.config!r} of {result.name} is not there yet")
    if result.tasks:
        if FLAGS.tasks:
            raise ValueError(f"--tasks has no effect: {result.name} is about {result.tasks}")
        FLAGS.tasks = [result.tasks]
    FLAGS.workdir = FLAGS.workdir or f"runs/reference/{result.name}"
    status = compare.main(result.config, overrides)
    beside.show(result, beside.rows(result, results.load_seeds(FLAGS.workdir)), console, None, every=True)
    return status


def _refuse_without_effect(given: list[str], overrides: dict[str, str]) -> None:
    """Flags that act in training, where nothing is trained."""
    if given == ["run"]:
        if FLAGS.out:
            raise ValueError("--out has no effect with --run: it draws what is committed")
        return
    if overrides:
        raise ValueError(f"--config.{next(iter(overrides))} has no effect without --run")
    for flag in FLAGS.get_key_flags_for_module(compare):
        if flag.present and not (flag.name == "workdir" and given == ["record"]):
            raise ValueError(f"--{flag.name} has no effect without --run")


if __name__ == "__main__":
    cli.run(main, cli.with_choices(__doc__), allocator="default")
