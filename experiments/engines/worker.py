"""A process that trains runs, one after the other: told by lines of JSON on its input, tells by lines.

  python -m experiments.engines.worker [--core=N]

Whatever else is printed goes to its standard error. It stops, with a checkpoint, at SIGTERM or when nobody
listens any longer.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time

EVERY = 0.2  # seconds between reports of progress
PATIENCE = 30  # seconds for which a folder may be in use


def main(argv: list[str]) -> int:
    """Trains until the input ends; returns the exit code."""
    cores = {int(word.removeprefix("--core=")) for word in argv if word.startswith("--core=")}
    if cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # not one of ours any longer
            os.sched_setaffinity(0, cores)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no message

    from train import host

    host.prepare(devices=1, allocator="default")

    def tell(**message):
        try:
            told.write(json.dumps(message) + "\n")
            told.flush()
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)  # the run keeps a checkpoint and ends

    tell(kind="ready")
    asked = queue.Queue()

    def listen():
        for line in sys.stdin:
            asked.put(json.loads(line))
        asked.put(None)
        if busy:  # who asked has died: the run keeps a checkpoint, or has not begun, and the folder is free
            os.kill(os.getpid(), signal.SIGTERM)

    busy = False
    threading.Thread(target=listen, daemon=True).start()
    while (one := asked.get()) is not None:
        busy = True
        ends = train(one, tell)
        busy = False
        if ends:
            break
    return 0


def train(asked: dict, tell) -> bool:
    """Trains one run, and tells how it went; returns whether a signal wants this process to end."""
    from experiments import results
    from train.config import RunConfig
    from train.files import InUseError
    from train.loop import train

    last = 0.0

    def watch(progress):
        nonlocal last
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            tell(kind="progress", step=progress.step, steps=progress.steps)

    def say(line):
        print(f"{asked['name']}: {line}", file=sys.stderr, flush=True)

    try:
        config = RunConfig.from_dict(asked["config"])
        for wait in range(PATIENCE, -1, -1):  # a process that was told to stop may take its time
            try:
                result = train(config, asked["folder"], asked["data_dir"], watch=watch, say=say)
                break
            except InUseError as error:
                if not wait:
                    tell(kind="busy", line=str(error))
                    return False
                time.sleep(1)
    except Exception as error:  # told, and the next run is another
        first = (str(error).strip().splitlines() or [""])[0]
        tell(kind="failed", line=f"{type(error).__name__}: {first}")
        return False
    if result.summary.run.status == "interrupted":
        tell(kind="stopped", line=result.summary.run.message)
        return True
    lost = result.exit_code == 1
    tell(kind="failed" if lost else "done", line=results.line(result.summary))
    return result.signal is not None


def outcome(asked: dict) -> dict:
    """Trains one run; how it ended, {"kind": ..., "line": ...}."""
    ended = {}

    def tell(kind, **message):
        if kind != "progress":
            ended.update(message, kind=kind)

    train(asked, tell)
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
