"""Pieces that several cells share: initialisers, products, layer normalisation, causal convolutions."""

import itertools
import math

import jax
import jax.numpy as jnp

from cells.base import Array, Params

# Lines of cells in figures. Colours are those of Okabe and Ito, which the colour-blind tell apart, and, where
# they do not suffice, some of Tol's on broken lines; markers tell all of them apart.
DASHED, DOTTED, MIXED = (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1))

# How a cascade of linear recurrences runs: each of them so.
LINEAR_FORMS = ("sequential", "associative", "chunked")


def negative(factor: Array) -> Array:
    """2 a - 1: a factor in (0, 1) of a linear recurrence becomes one in (-1, 1): a state can then alternate
    and count modulo 2 (Grazzi et al. 2025, "Unlocking state-tracking in linear RNNs through negative
    eigenvalues")."""
    return 2 * factor - 1


# --- initialisers


def input_initializer():
    """Weights from the input: uniform with variance 1 / fan_in (LeCun 1998)."""
    return jax.nn.initializers.lecun_uniform()


def dense_weights(key: Array, names: str, prefix: str, shape: tuple[int, int], initializer, dtype) -> Params:
    """One matrix `prefix_name` for each letter of `names`, each from a key of its own."""
    keys = jax.random.split(key, len(names))
    return {f"{prefix}_{name}": initializer(k, shape, dtype) for name, k in zip(names, keys, strict=True)}


# One matrix at a time, under `vmap` too: on a CPU a batch of QRs waits for threads of the pool that it
# runs in itself, and can wait for ever.
_qr = jax.custom_batching.sequential_vmap(lambda matrix: tuple(jnp.linalg.qr(matrix)))


def orthogonal(key: Array, shape: tuple[int, int], dtype) -> Array:
    """Weights from the state: a random orthogonal matrix (Saxe 2014), which keeps the state's norm."""
    # The QR takes no bfloat16; the signs make it uniform over all orthogonal matrices (Mezzadri 2007).
    q, r = _qr(jax.random.normal(key, shape, jnp.promote_types(dtype, jnp.float32)))
    return (q * jnp.sign(jnp.diagonal(r))).astype(dtype)


def recurrent_initializer(diagonal: bool, heads: int = 1):
    """Weights of the state of gated cells: orthogonal matrices, of several heads one for each, (heads, d, d);
    or vectors, uniform in +-1, as the SRU authors' package starts v, which is such a vector too."""
    if heads > 1:

        def blocks(key, shape, dtype):
            d = shape[-1] // heads
            return jax.vmap(lambda key: orthogonal(key, (d, d), dtype))(jax.random.split(key, heads))

        return blocks
    if not diagonal:
        return orthogonal
    return lambda key, shape, dtype: jax.random.uniform(key, shape[-1:], dtype, -1.0, 1.0)


def chrono_bias(key: Array, hidden_size: int, longest: int, dtype) -> Array:
    """Bias of a gate that keeps the past: log U(1, longest - 1) (Tallec & Ollivier 2018, eq. 16).

    Args:
      longest: the longest dependency expected, in steps, at least 3.
    """
    return jnp.log(jax.random.uniform(key, (hidden_size,), dtype, 1.0, longest - 1.0))


def middle_bias(steps: int) -> dict[str, float]:
    """`forget_bias` of all units at the middle of the time scales that `chrono_bias` spreads them over."""
    return {"forget_bias": math.log(steps / 2)}


def time_steps(key: Array, shape: tuple[int, ...], least: float, most: float, dtype) -> Array:
    """Step sizes dt, log-uniform between `least` and `most` (Gu & Dao 2023, section 3.6)."""
    return jnp.exp(jax.random.uniform(key, shape, dtype, math.log(least), math.log(most)))


def before_softplus(x: Array) -> Array:
    """The number of which softplus is x > 0."""
    return x + jnp.log(-jnp.expm1(-x))


def spread_bias(first: float, size: int, dtype) -> Array:
    """Bias of xLSTM's forget gates: evenly spaced from `first` to `first + 3` (the authors' package)."""
    return jnp.linspace(first, first + 3, size, dtype=dtype)


def small_init():
    """Weights of xLSTM from the input: normal with variance 2 / (5 fan_in) (Nguyen & Salazar 2019)."""
    return jax.nn.initializers.variance_scaling(0.4, "fan_in", "normal")


def gains(names: str, hidden_size: int, dtype) -> Params:
    """Initial gains of LN(W x) and LN(U h') for each letter of `names`."""
    return {f"gain_{kind}_{name}": jnp.ones(hidden_size, dtype) for kind in "WU" for name in names}


# --- many weights as one


def split(x: Array, parts: int) -> list[Array]:
    """`x` (..., parts * n) cut into `parts` arrays (..., n)."""
    return jnp.split(x, parts, axis=-1)


def cut(x: Array, *widths: int) -> list[Array]:
    """`x` (..., sum of widths) cut into arrays of these widths."""
    return jnp.split(x, list(itertools.accumulate(widths[:-1])), axis=-1)


def stack(params: Params, *names: str, axis: int = -1) -> Array:
    """The named matrices side by side, so that one matmul does for all of them; blocks: axis 0."""
    return jnp.concatenate([params[name] for name in names], axis)


# --- weights of the state that may be matrices, for `diagonal` cells vectors, for several `heads` blocks


def product(h: Array, weight: Array) -> Array:
    """h U for a matrix, h * u for a vector, which stands for diag(u), each part of h with its own matrix for
    (heads, d, d)."""
    if weight.ndim == 3:
        parts = h.reshape(*h.shape[:-1], *weight.shape[:2])
        return jnp.einsum("...hi,hij->...hj", parts, weight).reshape(h.shape)
    return h * weight if weight.ndim == 1 else h @ weight


# --- layer normalisation


def normalise(x: Array) -> Array:
    """(x - mean) / sqrt(variance + 1e-5) over the last axis, in float32 or wider (Ba 2016; epsilon as in the
    authors' code)."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def normalised_preactivations(params: Params, gates: str, x: Array, h: Array) -> dict[str, Array]:
    """LN(W x) + LN(U h') + b of each gate, normalised over all these gates together, with a gain for each
    number (Ba 2016, eq. 20; its two biases are one with b)."""
    p = params
    W_x, U_h = [x @ p[f"W_{k}"] for k in gates], [product(h, p[f"U_{k}"]) for k in gates]
    W_x, U_h = (split(normalise(jnp.concatenate(a, axis=-1)), len(gates)) for a in (W_x, U_h))
    return {
        k: p[f"gain_W_{k}"] * a + p[f"gain_U_{k}"] * q + p[f"b_{k}"]
        for k, a, q in zip(gates, W_x, U_h, strict=True)
    }


# --- causal convolutions


def taps(xs: Array, W: Array, b: Array, product=jnp.matmul) -> tuple[Array, Array]:
    """What each input adds to a causal convolution, in one matmul; for `push` and `Steps.causal`.

    Args:
      xs: (..., m); b: (k,).
      W: (window, m, k), W[lag] for the input `lag` steps ago.

    Returns:
      now (..., k), to its own step, with the bias; past (..., (window - 1) * k), to the steps after it.
    """
    sums = product(xs, jnp.concatenate(list(W), axis=-1))
    return sums[..., : len(b)] + b, sums[..., len(b) :]


def push(pending: Array, now: Array, past: Array, dilation: int = 1) -> tuple[Array, Array]:
    """One step of a causal convolution that is kept as what it still has to add.

    Args:
      pending: (batch, lags * dilation, k), what earlier inputs add to this step and the ones after it.
      now: (batch, k), what this input adds to this step.
      past: (batch, lags * k), what it adds to the steps dilation, 2 * dilation, ... later.

    Returns:
      The sum of this step (batch, k), and what is pending after it.
    """
    later = pending.shape[1]
    if not later:
        return now, pending
    parts = jnp.stack(jnp.split(past, later // dilation, axis=-1), axis=1)
    moved = jnp.concatenate([pending[:, 1:], jnp.zeros_like(pending[:, :1])], axis=1)
    return now + pending[:, 0], moved.at[:, dilation - 1 :: dilation].add(parts.astype(moved.dtype))
