"""Products of the state with a recurrent weight: a matrix, a vector that stands for a diagonal one, blocks
(heads, d, d) that stand for a block-diagonal one, or several of one kind side by side; with a bias or
without."""

import jax.numpy as jnp
from jax import lax


def parts(weight):
    """(matrix or vector, bias or None)."""
    return weight if isinstance(weight, tuple) else (weight, None)


def multiply(h, weight):
    """h U for a matrix, h * v for a vector, each part of h times its block (each of them, where several stand
    side by side); states wider than the weight take the weight's precision."""
    if weight.ndim == 1:
        return _side_by_side(h, weight) * weight
    if weight.ndim == 3:
        return _by_block(_side_by_side(h, weight), weight)
    return jnp.matmul(h.astype(weight.dtype), weight, preferred_element_type=h.dtype)


def product(weight, h):
    """What a step adds: the product, and the bias where there is one."""
    weight, bias = parts(weight)
    product = multiply(h, weight)
    return product if bias is None else product + bias


def transposed(weight, size):
    """The gradient of what was multiplied, of that size, as a function of the product's gradient."""
    weight, _ = parts(weight)
    several = _width(weight) // size

    def total(d):
        return sum(jnp.split(d, several, axis=-1)) if several > 1 else d

    if weight.ndim == 1:
        return lambda d: total(d * weight)
    # Transposed once: the product with a transposed matrix packs it anew in every step. The barrier keeps XLA
    # from folding the transposition back into the loop.
    turned = lax.optimization_barrier(jnp.swapaxes(weight, -1, -2))
    if weight.ndim == 3:
        return lambda d: total(_by_block(d, turned))
    return lambda d: multiply(d, turned)


def gradient(weight, seen, d_product):
    """The gradient of a weight, with its bias, from what it multiplied and the product's gradient in all
    steps, (..., m) and (..., k), in one matmul."""
    weight, bias = parts(weight)
    if weight.ndim == 2:
        d = jnp.matmul(seen.reshape(-1, seen.shape[-1]).T, d_product.reshape(-1, d_product.shape[-1]))
    elif weight.ndim == 3:
        seen = _side_by_side(seen, weight)
        d = jnp.einsum("nhi,nhj->hij", *(x.reshape(-1, *weight.shape[:2]) for x in (seen, d_product)))
    else:
        d = _total(_side_by_side(seen, weight) * d_product)
    d = d.astype(weight.dtype)
    return d if bias is None else (d, _total(d_product).astype(bias.dtype))


def _width(weight):
    """Of a product with vectors or blocks."""
    return len(weight) if weight.ndim == 1 else len(weight) * weight.shape[-1]


def _side_by_side(h, weight):
    several = _width(weight) // h.shape[-1]
    return jnp.concatenate([h] * several, axis=-1) if several > 1 else h


def _by_block(h, blocks):
    parts = h.reshape(*h.shape[:-1], *blocks.shape[:2]).astype(blocks.dtype)
    return jnp.einsum("...hi,hij->...hj", parts, blocks, preferred_element_type=h.dtype).reshape(h.shape)


def _total(ds):
    return ds.reshape(-1, ds.shape[-1]).sum(0)
