"""Several processes, on one machine or many, that train one run together by `jax.distributed`.

All of them run the same programs in the same order, each on its own devices. The first one has the run's
folder, and tells the others what is in it: they need no file of it.
"""

import collections
import contextlib
import os
import pickle
import re
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from train import same_run
from train.compile import kept
from train.workdir import Nowhere

AGAIN = "the same command on all of them goes on from the last checkpoint"
GONE = f"another process of this run is gone, which ends this one; {AGAIN}"

# How errors of jax's transports (gloo, NCCL, gRPC) begin, and what is in them where the other side is gone.
STATUS = re.compile(
    r"(UNKNOWN|UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|ABORTED|CANCELLED|FAILED_PRECONDITION)\b"
)
LOST = ("Gloo", "NCCL", "peer", "coordination service", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat")


class PeerError(RuntimeError):
    """Another process of a run is gone, or was asked for something else."""


def join(coordinator: str, processes: int | None = None, process: int | None = None, wait: int = 300) -> None:
    """Makes this process one of several that train a run together; before anything of jax.

    Args:
      coordinator: "HOST:PORT" of the first process, where it is reached by all; "auto": what the cluster says
        (SLURM, Open MPI, Kubernetes, TPU).
      processes: how many there are.
      process: which of them this is, from 0.
      wait: seconds for the others to come; jax aborts the process then.

    Raises:
      ValueError: another program has the port; no cluster says anything; one has more devices than another.
    """
    auto = coordinator == "auto"
    if process == 0:
        port = int(coordinator.rpartition(":")[2])
        try:
            socket.create_server(("", port)).close()
        except OSError as error:  # jax would crash
            raise ValueError(f"--coordinator={coordinator}: port {port} cannot be had: {error}") from None
    try:
        jax.distributed.initialize(
            None if auto else coordinator,
            processes,
            process,
            cluster_detection_method=None if auto else "deactivate",
            initialization_timeout=wait,
            # Whoever waits for a process that is stuck is told by a watchdog, see `experiments.supervise`.
            heartbeat_timeout_seconds=10 * wait,
            shutdown_timeout_seconds=30,
        )
    except ValueError as error:
        if auto:
            raise ValueError(f"--coordinator=auto: no cluster that jax knows ({error}); name it") from None
        raise
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in process {index}" for index, count in sorted(counts.items()))
        raise ValueError(f"all processes of a run need as many devices (--devices): {listed}")
    with one_clear_error(), _unheard():
        most(0)


def leave() -> None:
    """Waits for the others, and lets them go.

    Raises:
      PeerError: one of them is gone.
    """
    with one_clear_error():
        most(0)
    jax.distributed.shutdown()


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this process has the run's folder, and speaks."""
    return jax.process_index() == 0


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays, which are the same in all processes, on the devices of all of them."""
    if not several():
        return jax.device_put(tree, sharding)

    def on_all(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(on_all, tree)


def fetch(tree: Any) -> Any:
    """The values, as NumPy arrays in every process, of arrays that are spread over the devices of all."""
    leaves = jax.tree.leaves(tree)
    if several() and any(not x.is_fully_replicated for x in leaves):
        tree = _gathered(leaves[0].sharding.mesh)(tree)
    return jax.device_get(tree)


def local(tree: Any) -> Any:
    """Arrays, of which every device has all, on this process's first device alone."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree) if several() else tree


def most(*numbers: float) -> tuple[float, ...]:
    """The largest of each over the processes."""
    if not several():
        return numbers
    return tuple(multihost_utils.process_allgather(np.array(numbers, np.float32)).max(axis=0).tolist())


def told(value: Any = None) -> Any:
    """What the first process has, in all of them."""
    if not several():
        return value
    said = np.frombuffer(pickle.dumps(value) if first() else b"", np.uint8)
    size = np.array(divmod(len(said), 2**30), np.int32)
    high, low = multihost_utils.broadcast_one_to_all(size).tolist()
    size = high * 2**30 + low
    said = multihost_utils.broadcast_one_to_all(said if first() else np.zeros(size, np.uint8))
    return pickle.loads(said.tobytes())


def check_same(config: dict, digests: dict[str, str]) -> None:
    """Refuses to go on, in all processes, where one was asked for another run than the first one.

    Args:
      config: nested dict.
      digests: of what else has to be the same, "data": ...

    Raises:
      PeerError: with what differs.
    """
    there, theirs = told((config, digests))
    differing = same_run.differences(there, config)
    differing += [f"other {name}" for name in digests if digests[name] != theirs[name]]
    (wrong,) = most(bool(differing))
    same = "all of them need the same command, but for --process"
    if differing:
        listed = ", ".join(differing[:3])
        raise PeerError(f"this process was asked for another run than the first one ({listed}); {same}")
    if wrong:
        raise PeerError(f"another process was asked for another run than the first one; {same}")


@contextlib.contextmanager
def one_clear_error() -> Iterator[None]:
    """Says in one line that a process of the run is gone, where that ends this one.

    Raises:
      PeerError: instead of the many errors of as many libraries.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        lost = STATUS.match(str(error)) and any(word in str(error) for word in LOST)
        if not several() or not lost:
            raise
        line = str(error).splitlines()[0]
        reason = line.rpartition(".cc:")[2].partition("] ")[2] or line  # without the place in C++
        raise PeerError(f"{GONE} ({reason[:100]})") from error


class Shared(Nowhere):
    """The folder of a run of several processes: the first one's, which tells the others what is in it.

    Args:
      own: of the first process: where it writes to; of the others: nowhere.
    """

    def __init__(self, own: Nowhere):
        self._own, self.path = own, own.path

    def finished(self, like):
        return self._told(self._own.finished, like)

    def begin(self, likes):
        return self._told(self._own.begin, likes)

    def append(self, rows):
        self._own.append(rows)

    def save(self, step, arrays, progress):
        self._own.save(step, arrays, progress)

    def summary(self, summary):
        self._own.summary(summary)

    def close(self):
        self._own.close()

    @staticmethod
    def _told(read: Callable, like):
        return told(read(like) if first() else None)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Gloo tells on standard output whom it has met."""
    sys.stdout.flush()
    heard, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(heard, 1)
        os.close(heard)
        os.close(nothing)


@kept(8)
def _gathered(mesh) -> Callable:
    """The program that gives every device of a mesh all of a tree of arrays."""
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))
