"""Runs as plain tasks of a Ray cluster, whose machines share the runs' folder.

Ray gives a task whose process or machine dies to another one, and the run goes on from its last checkpoint.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from experiments import entry
from experiments.engines import Event, Job


def run(
    jobs: Iterable[Job],
    tell: Callable[[Event], None],
    data_dir: str | None = None,
    address: str | None = None,
    retries: int = 2,
    stop: threading.Event | None = None,
) -> None:
    """Trains all jobs, and tells how each ended.

    Args:
      address: of the cluster, or "auto"; None: this machine alone.
      retries: how often a task that died is tried again.
      stop: set from outside, asks all runs to keep a checkpoint and end.

    Raises:
      ValueError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("--engine=ray needs Ray: pip install 'recurrent-cells[ray]'") from None

    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    own = not ray.is_initialized()
    if own:
        environment = {"env_vars": {"PYTHONPATH": path, "JAX_NUM_CPU_DEVICES": "1"}}
        try:
            ray.init(address=address, runtime_env=environment, logging_level="ERROR", log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(f"--address={address}: {str(error).splitlines()[0]}") from None
    try:
        task = ray.remote(num_cpus=1, max_retries=retries)(train)
        waiting = {task.options(name=job.name).remote(job.message(data_dir)): job for job in jobs}
        asked = False
        while waiting:
            if stop and stop.is_set() and not asked:
                asked = True
                for ref in waiting:
                    ray.cancel(ref)  # as Ctrl-C there
            for ref in ray.wait(list(waiting), timeout=0.5)[0]:
                job = waiting.pop(ref)
                try:
                    tell(Event(job.name, **ray.get(ref)))
                except ray.exceptions.TaskCancelledError:
                    tell(Event(job.name, "stopped"))
                except ray.exceptions.RayError as error:
                    tell(Event(job.name, "failed", str(error).strip().splitlines()[0]))
    finally:
        if own:
            ray.shutdown()


def check(address: str | None) -> None:
    """Refuses at once the address of a cluster that is not there, for which Ray looks for a minute.

    Raises:
      ValueError: with the address.
    """
    if address in (None, "auto", "local") or "://" in address:
        return
    try:
        socket.create_connection(entry.host_and_port("address", address), timeout=5).close()
    except OSError as error:
        raise ValueError(f"--address={address}: no cluster there ({error})") from None


def train(asked: dict) -> dict:
    """In a process of the cluster: trains one run; returns how it ended, {"kind": ..., "line": ...}."""
    from experiments.engines import worker
    from train import host

    host.prepare(allocator="default")
    return worker.outcome(asked)
