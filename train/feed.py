"""Data that stay in the memory of the host: there the library grain gathers the batches of the next
dispatches, in threads, while the device trains; evaluations get what is held out piece by piece.

The examples and their order are those of rows that the device gathers: a batch follows from the seed and the
number of its step, so a run goes on at any step.
"""

import collections.abc
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train import host, hosts
from train.config import RunConfig
from train.step import Fed, pieces, step_keys
from train.tasks.base import Batch, InMemory, Spec
from train.tasks.buckets import Bucket, switch

SPECS = Fed(PartitionSpec(), PartitionSpec("lanes"), PartitionSpec("lanes", None, "batch"))
THREADS = 2  # each gathers one of the next dispatches
PIECE = 2**28  # bytes of held-out examples, as the model reads them, that a piece has at most


def grain():
    """The library.

    Raises:
      ValueError: it is not installed.
    """
    try:
        import grain
    except ImportError as error:
        cause = " ".join(str(error).split())
        raise ValueError(
            f"train.data=host: install the extra 'grain', pip install '.[grain]': {cause}"
        ) from None
    return grain


def batches(config: RunConfig, spec: Spec) -> int:
    """How many batches a dispatch trains on at most, of a seed."""
    steps, (count, _) = config.dispatch_steps, pieces(config, spec)
    return steps if count == 1 else (steps + count - 2) // count + 1  # it may begin amid one


class Source:
    """The dispatches of a run, as grain reads them: `source[i]` is a Fed of NumPy arrays.

    Args:
      lanes: (seed, learning rate) of each; those of a device share what their seeds are fed with.
      arrays: the training rows as `InMemory.load` gives them.
      begin: the step that the first of them begins with.
    """

    def __init__(
        self,
        config: RunConfig,
        spec: Spec,
        mesh: Mesh,
        lanes: list[tuple[int, float]],
        arrays: dict[str, np.ndarray],
        buckets: tuple[Bucket, ...] = (),
        begin: int = 0,
    ):
        groups = np.array([seed for seed, _ in lanes], np.int32).reshape(mesh.shape["lanes"], -1)
        of_device = [np.unique(group) for group in groups]
        most = max(map(len, of_device))
        self.seeds = np.concatenate([np.pad(seeds, (0, most - len(seeds)), "edge") for seeds in of_device])
        self.arrays, self.mesh = arrays, mesh
        self._steps, self._count = config.dispatch_steps, pieces(config, spec)[0]
        self._begin, self._dispatches = begin, -(-(config.train.steps - begin) // self._steps)
        asked = (config.task, len(arrays["xs"]), config.train.batch_size, batches(config, spec), buckets)
        self._order = functools.partial(order, *asked)

    def __len__(self) -> int:
        return self._dispatches

    def __getitem__(self, index: int) -> Fed:
        first = np.int32((self._begin + index * self._steps) // self._count)
        with jax.default_device(host.device()):
            rows = np.asarray(self._order(self.seeds, first))
        return Fed(first, self.seeds, {name: array.take(rows, axis=0) for name, array in self.arrays.items()})

    def like(self) -> Fed:
        """The shapes and shardings of what it gives, on the devices."""
        lead = jax.eval_shape(self._order, self.seeds, np.int32(0)).shape
        shapes = {
            name: jax.ShapeDtypeStruct(lead + array.shape[1:], array.dtype)
            for name, array in self.arrays.items()
        }
        like = Fed(
            jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct(self.seeds.shape, np.int32), shapes
        )
        return self._on_devices(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )

    def placed(self, fed: Fed) -> Fed:
        """On the devices, each of which has what its lanes and its rows of a batch need."""
        return self._on_devices(hosts.place, fed)

    def _on_devices(self, f: Callable, fed: Fed) -> Fed:
        each = zip(fed, SPECS, strict=True)
        return Fed(
            *(jax.tree.map(lambda x, s=spec: f(x, NamedSharding(self.mesh, s)), part) for part, spec in each)
        )

    def dispatches(self) -> Iterator[Fed]:
        """What the dispatches are fed with, on the devices; to be closed."""
        library = grain()
        options = library.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
        reader = iter(library.MapDataset.source(self).to_iter_dataset(options))
        try:
            for fed in reader:
                yield self.placed(fed)
        finally:
            reader.close()


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def order(task: InMemory, n: int, batch_size: int, count: int, buckets: tuple[Bucket, ...], seeds, first):
    """Which of n training rows some seeds' batches `first` onwards have: (seeds, count, batch) int32."""

    def of_batch(number):
        def of_seed(seed):
            key, _ = step_keys(seed, number)
            if not buckets:
                return task.train_rows(n, key, number, batch_size)
            return switch(buckets, number, lambda bucket, at: task.train_rows(n, key, at, batch_size, bucket))

        return jax.vmap(of_seed)(seeds)

    return jax.lax.map(of_batch, first + jnp.arange(count)).swapaxes(0, 1)


class Pieces(collections.abc.Sequence):
    """The batches of a held-out split, in pieces of as many, each made when it is asked for.

    Args:
      arrays: the rows as `InMemory.load` gives them.
      size: rows of a batch.
      made: of what `make_piece` makes a program of: the batches on the devices.
    """

    def __init__(self, arrays: dict[str, np.ndarray], size: int, spec: Spec, made: Callable[[tuple], Batch]):
        self._arrays, self._size, self._made, self._only = arrays, size, made, None
        all_of_them = -(-len(arrays["xs"]) // size)
        # Two at least, if there are as many: a loop of one step is compiled otherwise.
        self._batches = min(all_of_them, max(2, PIECE // (size * example_bytes(spec))))
        self._pieces = -(-all_of_them // self._batches)

    def __len__(self) -> int:
        return self._pieces

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < self._pieces:
            raise IndexError(index)
        if self._pieces > 1:
            return self._piece(index)
        if self._only is None:  # a single one stays on the devices
            self._only = self._piece(0)
        return self._only

    def _piece(self, index: int) -> Batch:
        each, n = self._batches * self._size, len(self._arrays["xs"])
        rows = (index * each + np.arange(each)).reshape(self._batches, self._size)
        counts, rows = (rows < n).astype(np.float32), np.minimum(rows, n - 1)
        return self._made(({name: array.take(rows, axis=0) for name, array in self._arrays.items()}, counts))


def make_piece(task: InMemory) -> Callable:
    """A program of (rows (batches, batch, ...) as they are stored, which count): batches, stacked."""
    return jax.jit(lambda piece: jax.lax.map(lambda batch: task.batch_of(batch[0], weights=batch[1]), piece))


def example_bytes(spec: Spec) -> int:
    """Of a held-out example's inputs, as the model reads them."""
    return 4 * (spec.eval_time or spec.time) * (1 if spec.inputs == "tokens" else spec.input_size)
