"""Commands and what they share. Imports point one way: experiments -> configs, train -> cells."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

COMMAND = sys.argv[0] == "-m"  # imported for `python -m experiments.NAME`


def _stop(number, frame):
    os.write(2, b"error: interrupted\n")
    os._exit(128 + number)


if COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until the command itself begins: a Ctrl-C amid the imports of libraries would print what they do.
    signal.signal(signal.SIGINT, _stop)


def _check_neighbours() -> None:
    """`python -m` looks into the working directory first: a file of the user's may stand before ours."""
    for name in ("cells", "configs", "train"):
        spec = importlib.util.find_spec(name)
        where = Path(spec.origin or next(iter(spec.submodule_search_locations))) if spec else None
        ours = Path(__file__).parent.parent / name
        if where and where.resolve() not in (ours.resolve(), ours.resolve() / "__init__.py"):
            raise ImportError(
                f"{where} hides the package {name!r} of recurrent-cells; rename it, or run elsewhere"
            )


try:
    _check_neighbours()
except ImportError as error:
    if COMMAND:  # one line will do
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    raise
