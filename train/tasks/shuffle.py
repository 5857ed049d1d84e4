"""Orders of the rows of a data set, drawn for each epoch, without storing them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


@functools.partial(jax.jit, static_argnames="n")
def shuffled(key: Array, epochs: Array, positions: Array, n: int) -> Array:
    """Pseudo-random permutations of range(n), evaluated at single positions, without storing them.

    A Feistel network on pairs (x % a, x // a) with a * b just above n; a value that falls outside goes
    through the network again until it is inside (cycle walking), which keeps it a permutation.
    Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains".

    Args:
      key: PRNG key of the run.
      epochs: (k,) int32; each epoch has a permutation of its own.
      positions: (k,) int32 in [0, n).
      n: number of rows, at least 1 and below 2**31.

    Returns:
      (k,) int32 in [0, n).
    """
    rounds = 8
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = jax.vmap(fold, (0, None))(fold(key, epochs), jnp.arange(rounds))
    words = jax.random.key_data(keys)[..., -1].T  # (rounds, k) uint32
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)

    def network(x):
        left, right = x % a, x // a
        for i in range(0, rounds, 2):
            left = (left + scramble(right ^ words[i]) % a) % a
            right = (right + scramble(left ^ words[i + 1]) % b) % b
        return right * a + left

    x = network(positions.astype(jnp.uint32))
    x = jax.lax.while_loop(lambda x: (x >= n).any(), lambda x: jnp.where(x >= n, network(x), x), x)
    return x.astype(jnp.int32)


def scramble(x: Array) -> Array:
    """Mixes the bits of uint32 words: the finaliser of MurmurHash3 (Appleby 2011)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
