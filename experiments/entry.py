"""How every command begins and ends: its flags read, and one clear line for what it cannot do."""

import contextlib
import difflib
import errno
import os
import re
import sys
import textwrap
from collections.abc import Callable

from absl import app, flags

FLAGS = flags.FLAGS

LISTED = re.compile(r" {2,4}\S+ {2,}\S")  # a name and what it is
OUT_OF_MEMORY = (
    "out of memory; take a smaller train.batch_size, cell.hidden_size or number of seeds, or "
    "--config.model.remat=-1"
)


def run(body: Callable[[list[str]], int], doc: str, argv: list[str] | None = None) -> None:
    """Reads the flags, runs `body(words that are no flags)` and ends the program with what it returns.

    Args:
      doc: what `--help` prints above the flags.
      argv: the command line; None: as it was given.
    """
    sys.modules["__main__"].__doc__ = doc

    def main(words):
        with one_clear_line():
            set_paths()
            sys.exit(body(words[1:]))

    app.run(main, argv=argv, flags_parser=_parsed)


def _parsed(argv: list[str]) -> list[str]:
    """absl's parser, with one line for what it refuses, and help of ours."""
    if {"--help", "-help", "-h", "--helpshort"} & set(argv[1:]):
        show_help()
        sys.exit(0)
    try:
        return FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        line = str(error).splitlines()[0]
        if "Did you mean" not in line and difflib.get_close_matches(error.flagname, ["config"]):
            line += ". Did you mean: config ?"  # which absl does not know
        fail(line)
    except flags.Error as error:
        fail(str(error).splitlines()[0])


def show_help() -> None:
    """Prints what a command is and its flags; on a terminal in lines of its width."""
    wide = os.get_terminal_size().columns if sys.stdout.isatty() else None
    doc = sys.modules["__main__"].__doc__.strip()
    lines = [doc, "", "flags:"] if wide is None else [*_in_lines(doc, wide), "", "flags:"]
    for flag in sorted(FLAGS.get_key_flags_for_module(sys.argv[0]), key=lambda flag: flag.name):
        default = f" (default: {flag.default_as_str})" if flag.default else ""
        said = f"  --{flag.name:13} {' '.join(flag.help.split())}{default}"
        lines += textwrap.wrap(said, min(wide or 100, 100), subsequent_indent=" " * 18)
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # `--help | head`; Python would say so when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _in_lines(doc: str, wide: int) -> list[str]:
    """A help text in lines of a width: paragraphs are broken anew, lines of lists cut."""
    items = [""]
    for line in doc.splitlines():
        if line and items[-1] and (not line.startswith(("--", "  ")) or line.startswith(" " * 6)):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    lines = []
    for item in items[1:]:
        if LISTED.match(item):
            lines.append(item if len(item) <= wide else f"{item[: wide - 1]}…")
        else:
            indent = " " * re.match(r"(--\S+)? *", item).end()
            lines += textwrap.wrap(item, wide, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return lines


def set_paths() -> None:
    """Flags that are paths: none may be empty, and `~` is the user's home.

    Raises:
      ValueError: one is empty.
    """
    for name in ("workdir", "data_dir", "out", "run", "init", "continue"):
        path = FLAGS[name].value if name in FLAGS else None
        if path is not None and not path.strip():
            raise ValueError(f"--{name} is empty: name a folder")
        if path:
            FLAGS[name].value = os.path.expanduser(path)


def host_and_port(flag: str, text: str) -> tuple[str, int]:
    """An address out of a flag, which may also say "auto".

    Raises:
      ValueError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--{flag}={text} must be HOST:PORT, or auto")
    return host, int(port)


def say(message: str) -> None:
    """Tells in one line what went wrong."""
    sys.stderr.write(f"error: {message}\n")  # at once: other threads and C++ write there, too


def fail(message: str, code: int = 2) -> None:
    """Ends the program with one line."""
    say(message)
    sys.exit(code)


@contextlib.contextmanager
def one_clear_line():
    """Turns what a user can mend into one line on stderr and exit code 2."""
    from train.checkpoint import CheckpointError
    from train.files import WorkdirError
    from train.hosts import PeerError
    from train.tasks.datasets import DataError

    try:
        yield
    except PeerError as error:
        fail(str(error), 1)
    except (ValueError, CheckpointError, WorkdirError, DataError, FileNotFoundError) as error:
        if os.environ.get("RECURRENT_TRACEBACK"):
            raise
        fail(" ".join(str(error).split("\n", 1)[0].split()) or type(error).__name__)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            fail(f"the disk is full: {error.filename or ''}; what was written before is kept", 1)
        if os.environ.get("RECURRENT_TRACEBACK"):
            raise
        fail(f"cannot read or write: {error}")
    except MemoryError:
        fail(OUT_OF_MEMORY, 1)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        fail(f"{OUT_OF_MEMORY} ({str(error).splitlines()[0][:120]})", 1)
    except KeyboardInterrupt:
        fail("interrupted", 130)
