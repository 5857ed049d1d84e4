"""A process of several that train one run, watched from outside.

Such a process cannot always end itself: while it waits for another one that is stuck it hears no signal, and
where the coordinator is gone jax aborts it with a stack of C++. So the command runs again in a process of its
own, which tells that it goes on; this one says in one line how it ended.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable

from experiments import entry
from train import host

TELLS = "RECURRENT_TELLS"  # tells the inner process the file descriptor for its signs of life
# How the last words of C++ begin: it aborts, or has lost the others.
LAST_WORDS = re.compile(
    rb"F\d{4} [\d:.]+ +\d+ \S+\.(cc|h):|Fatal Python error|\*\*\* Check failure|"
    rb"[EW]\d{4} [\d:.]+ +\d+ \S*(coordination|distributed|preemption)\S*\.(cc|h):"
)


def inside() -> bool:
    """Whether this is the inner process."""
    return TELLS in os.environ


def run(module: str, coordinator: str, patience: float) -> int:
    """Runs the command line of this process again as `python -m MODULE`, watched; returns its exit code.

    The first Ctrl-C, SIGTERM or SIGHUP is handed on, the second one kills.

    Args:
      module: of the command.
      coordinator: where all processes meet.
      patience: seconds without a sign of life after which it is killed.
    """
    heard, tells = os.pipe()
    environment = os.environ | {TELLS: str(tells)}
    if not host.devices_chosen():
        # Two devices a process, with programs in flight, hang on jax 0.10.
        environment["JAX_NUM_CPU_DEVICES"] = "1"
    command = [sys.executable, "-m", module, *sys.argv[1:]]
    process = subprocess.Popen(
        command, env=environment, pass_fds=[tells], stderr=subprocess.PIPE, start_new_session=True
    )
    os.close(tells)
    received = []

    def hand_on(number, frame):
        received.append(number)
        process.send_signal(number if len(received) == 1 else signal.SIGKILL)

    for number in host.stop_signals():
        signal.signal(number, hand_on)
    withheld = []
    relay = threading.Thread(target=_relay, args=(process.stderr, withheld), daemon=True)
    relay.start()
    from train.hosts import AGAIN, GONE

    signs, stuck = _listen(heard, patience)
    if stuck:
        process.kill()
    code = process.wait()
    relay.join()
    if code >= 0 and not stuck:
        if code and b"Traceback" in b"".join(withheld):
            _say(withheld)
        return code
    aborted = code == -signal.SIGABRT and any(b"JAX distributed service" in line for line in withheld)
    if (stuck or aborted) and not signs:
        entry.say(
            f"the processes of this run did not meet at {coordinator} within {patience:g} s: has each been "
            "started, and reaches that address?"
        )
        return 1
    if stuck:
        entry.say(f"no progress for {patience:g} s: a process of this run is stuck, or gone; {AGAIN}")
        return 1
    if aborted:
        entry.say(GONE)
        return 1
    _say(withheld)
    entry.say(f"killed by {signal.Signals(-code).name}; {AGAIN}")
    return 128 - code


def _relay(stream, withheld: list[bytes]) -> None:
    """Hands on what the inner process says on its standard error; once C++ has begun its last words, only our
    own errors: the rest is withheld."""
    dying = False
    for line in stream:
        if last := LAST_WORDS.search(line):  # perhaps in the middle of one of ours
            dying = True
            withheld.append(line[last.start() :])
            if not last.start():
                continue
            line = line[: last.start()] + b"\n"
        if dying and not line.startswith(b"error: "):
            withheld.append(line)
        else:
            _say([line])


def _say(lines: list[bytes]) -> None:
    sys.stderr.write(b"".join(lines).decode(errors="replace"))
    sys.stderr.flush()


def _listen(heard: int, patience: float) -> tuple[int, bool]:
    """Until the inner process has ended, or is stuck: its signs of life, and whether it is stuck."""
    signs = 0
    while select.select([heard], [], [], patience)[0]:
        said = os.read(heard, 4096)
        if not said:
            return signs, False
        signs += len(said)
    return signs, True


class SignOfLife:
    """Tells the outer process that this one goes on; which ends, with a checkpoint, where nobody listens.

    Args:
      grace: seconds that it has for this.
    """

    def __init__(self, grace: float = 60.0):
        self._tells, self._grace = int(os.environ[TELLS]), grace
        os.set_inheritable(self._tells, False)
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._tells, b".")

    def _watch(self):
        pipe = select.poll()
        pipe.register(self._tells, 0)  # tells of an error alone: that nobody reads any longer
        pipe.poll()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._grace)
        os._exit(128 + signal.SIGTERM)


def end(body: Callable[[], int]) -> None:
    """Ends this process with what `body` returns, or a line and a code, and waits for no other."""
    code = 1
    try:
        with entry.one_clear_line():
            code = body()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
