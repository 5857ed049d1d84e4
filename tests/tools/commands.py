"""Runs `python -m experiments.NAME` as a user does, without paying for the imports each time.

A process that has imported what all commands import, but has not started jax, waits for command lines; each
runs in a fork of it: a fresh process in every other way. POSIX only.
"""

import atexit
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


class Commands:
    """The waiting process, started at the first command. One serves all tests of a process: `SHARED`."""

    def __init__(self, *modules):
        """modules: of this project, imported before any command: quicker, but not as a user's process."""
        self._server, self._modules = None, modules

    def run(self, module: str, *flags, cwd=ROOT, limit: int = 0, **env) -> Done:
        """`python -m MODULE FLAGS` in `cwd`.

        Args:
          limit: seconds of processor time, after which it is killed; 0: none.
          env: adds to the environment.
        """
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), str(ROOT), *self._modules],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            )  # fmt: skip
            atexit.register(self.close)
        with tempfile.TemporaryDirectory() as folder:
            asked = {
                "module": module,
                "argv": list(map(str, flags)),
                "cwd": str(cwd),
                "out": folder,
                "env": env,
                "limit": limit,
            }
            self._server.stdin.write(json.dumps(asked) + "\n")
            self._server.stdin.flush()
            answer = self._server.stdout.readline()
            if not answer:
                raise RuntimeError("the process that runs commands has died")
            return Done(int(answer), *((Path(folder) / name).read_text() for name in ("stdout", "stderr")))

    def close(self) -> None:
        """Ends the waiting process."""
        if self._server is not None:
            self._server.stdin.close()
            self._server.wait(timeout=10)
            self._server = None


SHARED = Commands()


def _serve():
    import gc
    import importlib

    for name in (
        "jax", "jax.experimental.shard_map", "flax.nnx", "optax", "pandas", "rich.progress", "rich.table",
        "scipy.stats", "matplotlib.figure", "matplotlib.backends.backend_agg", "sklearn.datasets",
        "orbax.checkpoint", "absl.app", "ml_collections.config_dict", "jinja2", "pooch", *sys.argv[2:],
    ):  # fmt: skip
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # the command says so itself, if it needs it
    gc.freeze()  # a fork need not look at, and so copy, what is there
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(asked)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(asked):
    """In the fork: becomes the command, and exits as it does."""
    import runpy

    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(asked["out"]) / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if asked["limit"]:
        spent = math.ceil(time.process_time()) + asked["limit"]
        resource.setrlimit(resource.RLIMIT_CPU, (spent, spent))
    os.environ.update(asked["env"])
    if platforms := asked["env"].get("JAX_PLATFORMS"):
        sys.modules["jax"].config.update("jax_platforms", platforms)  # read when jax was imported
    os.chdir(asked["cwd"])
    sys.path[0] = asked["cwd"]  # as `python -m` does
    sys.argv = [asked["module"], *asked["argv"]]
    code = 1
    try:
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        # As at the end of any process: what was registered runs, buffers are written.
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()
        os._exit(code)


if __name__ == "__main__":
    sys.path.insert(1, sys.argv[1])
    _serve()
