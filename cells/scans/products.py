"""Products of the state with a recurrent weight: a matrix, a vector that stands for a diagonal one, or
several of either side by side; with a bias or without."""

import jax.numpy as jnp
from jax import lax


def parts(weight):
    """(matrix or vector, bias or None)."""
    return weight if isinstance(weight, tuple) else (weight, None)


def multiply(h, weight):
    """h U for a matrix, h * v for a vector (each of them, where several stand side by side); states wider
    than the weight take the weight's precision."""
    if weight.ndim == 1:
        return (h if h.shape[-1] == len(weight) else _side_by_side(h, weight)) * weight
    return jnp.matmul(h.astype(weight.dtype), weight, preferred_element_type=h.dtype)


def product(weight, h):
    """What a step adds: the product, and the bias where there is one."""
    weight, bias = parts(weight)
    product = multiply(h, weight)
    return product if bias is None else product + bias


def transposed(weight, size):
    """The gradient of what was multiplied, of that size, as a function of the product's gradient."""
    weight, _ = parts(weight)
    if weight.ndim == 1:
        several = len(weight) // size
        return lambda d: sum(jnp.split(d * weight, several, axis=-1)) if several > 1 else d * weight
    # Transposed once: the product with a transposed matrix packs it anew in every step. The barrier keeps XLA
    # from folding the transposition back into the loop.
    turned = lax.optimization_barrier(weight.T)
    return lambda d: multiply(d, turned)


def gradient(weight, seen, d_product):
    """The gradient of a weight, with its bias, from what it multiplied and the product's gradient in all
    steps, (..., m) and (..., k), in one matmul."""
    weight, bias = parts(weight)
    if weight.ndim == 2:
        d = jnp.matmul(seen.reshape(-1, seen.shape[-1]).T, d_product.reshape(-1, d_product.shape[-1]))
    else:
        seen = seen if seen.shape[-1] == len(weight) else _side_by_side(seen, weight)
        d = _total(seen * d_product)
    d = d.astype(weight.dtype)
    return d if bias is None else (d, _total(d_product).astype(bias.dtype))


def _side_by_side(h, weight):
    return jnp.concatenate([h] * (len(weight) // h.shape[-1]), axis=-1)


def _total(ds):
    return ds.reshape(-1, ds.shape[-1]).sum(0)
