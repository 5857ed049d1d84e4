"""What all commands share: flags of configs, one clear line for bad input, the CPU's cores, help."""

import logging
import signal
import sys
import textwrap

from absl import flags

from experiments import entry, screen
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
flags.adopt_module_key_flags(screen)
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
    from train.same_run import ONLY_WRITTEN

    if FLAGS.overwrite and workdir is None:
        raise ValueError("--overwrite has no effect: without --workdir nothing is written")
    for path in ONLY_WRITTEN:
        if path in overrides and workdir is None:
            raise ValueError(f"config.{path} has no effect: without --workdir nothing is written")


def with_cells(doc: str) -> str:
    """A command's help with all cells and their options."""
    import cells

    return "\n".join([doc.strip(), "", *_choices("cell", cells.CELLS.table)])


def with_choices(doc: str) -> str:
    """A command's help with all cells and tasks and their options, and the configs that there are."""
    import configs
    from train import tasks

    names = textwrap.wrap(
        f"configs (--config=NAME): {', '.join(configs.names())}", 78, subsequent_indent="  "
    )
    return "\n".join([with_cells(doc), "", *_choices("task", tasks.TASKS.table), "", *names])


def _choices(kind: str, table: dict[str, type]) -> list[str]:
    """How cells, or tasks, are asked for, and what there is."""
    from experiments import describe

    how = f"--config.{kind}.name=NAME --config.{kind}.OPTION=VALUE"
    if f"{kind}s" in FLAGS:
        how = f"--{kind}s=NAME, or --{kind}s=NAME:OPTION=VALUE"
    full = "in full: python -m experiments.train --describe=NAME"
    return [f"{kind}s ({how}), and the defaults of their options; {full}", *describe.listing(table)]
