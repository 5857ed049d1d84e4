"""What the kernels of both backends do alike: time in chunks, and arrays that fill their blocks."""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

LANES = 128  # channels of a block


def fitted(x, axis: int, multiple: int):
    """Filled up with zeros at the end of an axis."""
    more = -x.shape[axis] % multiple
    if not more:
        return x
    return jnp.pad(x, [(0, more if i == axis % x.ndim else 0) for i in range(x.ndim)])


def turned(i, count, reverse):
    """i, or counted from the end."""
    return count - 1 - i if reverse else i


class Steps(NamedTuple):
    """Time in a kernel: `segments` parts of `chunks` of `chunk` steps; the last of all may not be real."""

    chunk: int
    chunks: int
    segments: int
    time: int

    @classmethod
    def of(cls, chunk: int, time: int, segments: int) -> "Steps":
        """With a chunk that is not longer than a segment has to be."""
        chunk = min(chunk, -(-time // segments))
        return cls(chunk, -(-time // (segments * chunk)), segments, time)

    @property
    def in_all(self) -> int:
        """With those that are not real."""
        return self.segments * self.chunks * self.chunk

    def begin(self, segment, i, reverse):
        """The first step of the chunk that is the i-th to be worked on."""
        return (segment * self.chunks + turned(i, self.chunks, reverse)) * self.chunk

    def work(self, body, held, begin, tiles, write, state, carries: int, reverse: bool, unrolled: int = 1):
        """A loop over the steps of a chunk; the carry and the sums after it.

        Args:
          held: the consts. begin: the chunk's first step. tiles: refs of its inputs, (chunk, ...) each.
          write: (step of the chunk, outputs), keeps them.
          state: the carry, of so many arrays, and the sums, before it.
          unrolled: steps of one turn of the loop, if the chunk has a multiple of these.
        """

        def one_step(i, state):
            t = turned(i, self.chunk, reverse)
            carry, so_far = state[:carries], state[carries:]
            new, ys, more = body(held, carry, tuple(tile[t].astype(jnp.float32) for tile in tiles))
            write(t, ys)
            new += tuple(a + b for a, b in zip(so_far, more, strict=True))
            if self.in_all == self.time:
                return new
            real = jnp.broadcast_to(begin + t < self.time, state[0].shape)
            return tuple(jnp.where(real, a, b) for a, b in zip(new, state, strict=True))

        unrolled = math.gcd(self.chunk, unrolled)

        def one_turn(i, state):
            for j in range(unrolled):
                state = one_step(i * unrolled + j, state)
            return state

        return lax.fori_loop(0, self.chunk // unrolled, one_turn, state)


def cut(refs, *sizes) -> list[list]:
    """Lists of these sizes, and one of what is left."""
    ends = list(itertools.accumulate(sizes))
    return [list(refs[start:end]) for start, end in zip([0, *ends], [*ends, len(refs)], strict=True)]
