"""What all commands share: flags of configs, one clear line for bad input, the CPU's cores, progress."""

import logging
import math
import signal
import sys
import textwrap
import time

from absl import flags
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments import entry
from train import host

flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the real data sets (else: environment variable RECURRENT_DATA_DIR, then the download cache).",
)
flags.DEFINE_integer(
    "devices",
    0,
    "CPU only: how many devices jax sees; the seeds of a run, or the batch of a single seed, are spread "
    "over them. 0: one per core.",
    lower_bound=0,
    upper_bound=256,
)
flags.DEFINE_enum(
    "allocator",
    None,
    host.ALLOCATORS,
    "Linux: whether freed memory stays with the process, or the C library decides. Default: kept, which is "
    "faster for single layers; of compare and train, default: threads compile sooner with it.",
)
flags.DEFINE_boolean("overwrite", False, "Start again where the run directory already holds a run.")
FLAGS = flags.FLAGS


def run(main, doc: str, allocator: str = "kept") -> None:
    """Runs a command: `main(config, overrides)`, where `--config...` flags were taken out first.

    Args:
      main: gets the value of `--config` (or None) and {"task.length": "400", ...}.
      doc: what `--help` prints above the flags.
      allocator: the default of the flag.
    """
    config, overrides, argv = split_config_flags(sys.argv)

    def body(words):
        if words:
            entry.fail(f"unexpected argument {words[0]!r}; flags begin with --")
        # It tells which accelerators it did not find.
        logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
        logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)  # where it listens
        logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # and which fonts it did
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        FLAGS.allocator = FLAGS.allocator or allocator
        host.prepare(FLAGS.devices, FLAGS.allocator)
        return main(config, overrides)

    entry.run(body, doc, argv)


def split_config_flags(argv: list[str]) -> tuple[str | None, dict[str, str], list[str]]:
    """Takes `--config=NAME` and `--config.field=value` out of a command line.

    Returns:
      NAME or None, {field: value}, what is left.
    """
    config, overrides, rest = None, {}, []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        flag = flag.lstrip("-") if word.startswith("-") else ""
        if flag != "config" and not flag.startswith("config."):
            rest.append(word)
            continue
        if not equals:
            value = next(words, None)
            if value is None:
                entry.fail(f"--{flag} needs a value: --{flag}=...")
        if flag == "config":
            config = value
        else:
            overrides[flag.removeprefix("config.")] = value
    return config, overrides, rest


def add_flags(overrides: dict[str, str], flags: dict[str, object]) -> dict[str, str]:
    """The overrides with those of flags of their own, {"train.seeds": 4}; None: not given.

    Raises:
      ValueError: a field is set twice, with different values.
    """
    given = {path: str(value) for path, value in flags.items() if value is not None}
    for path, value in given.items():
        if overrides.get(path, value) != value:
            flag = path.split(".")[-1]
            raise ValueError(f"--{flag}={value} and --config.{path}={overrides[path]} say different things")
    return overrides | given


def check_written(workdir: str | None, overrides: dict[str, str]) -> None:
    """Refuses options of what is written where nothing is.

    Raises:
      ValueError: one of them is given without --workdir.
    """
    if FLAGS.overwrite and workdir is None:
        raise ValueError("--overwrite has no effect: without --workdir nothing is written")
    for path in ("train.checkpoint_seconds", "train.tensorboard"):
        if path in overrides and workdir is None:
            raise ValueError(f"config.{path} has no effect: without --workdir nothing is written")


def console() -> Console:
    """Where commands print: text as it is, names with brackets too."""
    return Console(highlight=False, markup=False)


def tell_read(console: Console, run, told: set[str]) -> None:
    """Prints what the task of a run (`train.lanes.Run`) has read, unless that was told before."""
    line = run.config.task.describe(run.data)
    if line and line not in told:
        console.print(line, soft_wrap=True)
    told.add(line)


class ProgressBar:
    """Shows a `train.loop.Progress`: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, console: Console, title: str, line_every: float = 15.0):
        self.console, self.title, self.line_every = console, title, line_every
        self.shown = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task(title, total=None, state="compiling")

    def __enter__(self):
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_):
        if self.console.is_terminal:
            self.bar.stop()

    def __call__(self, progress):
        state = "training"
        if not math.isnan(progress.steps_per_second):
            state = (
                f"loss {progress.loss:.3g} {progress.metric_name} {progress.metric:.3g} "
                f"solved {progress.solved}/{progress.seeds} {progress.steps_per_second:.0f} steps/s"
            )
        self.bar.update(self.task, total=progress.steps, completed=progress.step, state=state)
        if math.isnan(progress.steps_per_second):
            return
        if not self.console.is_terminal and time.monotonic() - self.shown > self.line_every:
            self.shown = time.monotonic()
            eta = (progress.steps - progress.step) / progress.steps_per_second
            self.console.print(
                f"{self.title} {progress.step}/{progress.steps} {state} eta {eta:.0f} s",
                highlight=False,
                soft_wrap=True,
            )


def doc_with_choices(doc: str) -> str:
    """A command's help with the cells, tasks and configs that there are, and what each task asks."""
    import cells
    import configs
    from experiments import describe
    from train import tasks

    listed = (("cells", cells.names()), ("configs", configs.names()))
    lines = [
        textwrap.fill(f"{name + ':':9}{', '.join(known)}", 88, subsequent_indent=" " * 9)
        for name, known in listed
    ]
    asked = [
        textwrap.fill(f"  {name:20}{describe.sentence(task)}", 88, subsequent_indent=" " * 22)
        for name, task in tasks.TASKS.table.items()
    ]
    more = "options of a cell or task: python -m experiments.train --describe=adding"
    return "\n".join([doc.strip(), "", *lines, "tasks:", *asked, more, ""])
