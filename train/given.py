"""What a person gives a trained model, checked: a compiled program refuses nothing."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train import metrics
from train.model import Model, check_inputs
from train.tasks.base import Spec
from train.tasks.meaning import Meaning, scaled


def array(name: str, value: Any) -> np.ndarray:
    """A NumPy array of numbers.

    Raises:
      ValueError: it is ragged, masked or complex.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array: fill it, with NaN where a value is missing")
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {str(error).splitlines()[0]}") from None
    if found.dtype.kind in "cOUSM":
        raise ValueError(f"{name} must be numbers, got {found.dtype}")
    return found


def inputs(
    spec: Spec, meaning: Meaning, xs, lengths=None, mask=None, resets=None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Inputs, and what is said of their steps, as `Model.apply` takes them.

    Raises:
      ValueError: they do not fit the task, or each other.
    """
    xs, steps = array("xs", xs), {}
    if xs.ndim < 2 or not len(xs) or not xs.shape[1]:
        raise ValueError(f"xs: a sequence or more, of a step or more, are needed, got {xs.shape}")
    for name, value, kinds in (("lengths", lengths, "iu"), ("mask", mask, "b"), ("resets", resets, "b")):
        if value is None:
            continue
        value = array(name, value)
        if kinds == "b" and value.dtype.kind in "iu" and ((value == 0) | (value == 1)).all():
            value = value.astype(bool)
        wanted = xs.shape[:1] if name == "lengths" else xs.shape[:2]
        if value.dtype.kind not in kinds or value.shape != wanted:
            kind = "integers" if name == "lengths" else "True and False"
            raise ValueError(f"{name} must be {kind} of shape {wanted}, got {value.dtype} {value.shape}")
        steps[name] = value
    real = np.ones(xs.shape[:2], bool) if mask is None else steps["mask"]
    if lengths is not None:
        lengths = steps["lengths"]
        if ((lengths < 0) | (lengths > xs.shape[1])).any():
            raise ValueError(f"lengths must be in 0..{xs.shape[1]}, got {lengths.min()} to {lengths.max()}")
        real = real & (np.arange(xs.shape[1]) < lengths[:, None])
    if spec.inputs == "tokens":
        return _checked(spec, xs, steps)
    if xs.dtype.kind not in "fiub" and xs.dtype != jnp.bfloat16:
        raise ValueError(f"xs must be numbers (batch, time, {spec.input_size}), got {xs.dtype}")
    xs, kept = meaning.inputs(xs, real)
    with np.errstate(over="ignore"):  # infinite, which is refused
        xs = xs.astype(np.float32)
    if kept is not None:
        real = real & kept
        steps["mask"] = kept if mask is None else kept & steps["mask"]
    for row, step in np.argwhere(~np.isfinite(xs).all(axis=tuple(range(2, xs.ndim))) & real)[:1]:
        raise ValueError(f"xs: row {row}, step {step} is no finite number that float32 has")
    return _checked(spec, xs, steps)


def _checked(spec: Spec, xs, steps):
    check_inputs(spec, xs, *(steps.get(name) for name in ("lengths", "mask", "resets")))
    return xs, steps


def targets(spec: Spec, meaning: Meaning, ys, shape: tuple[int, ...]) -> np.ndarray:
    """Targets of inputs of a shape, as in the task's batches.

    Raises:
      ValueError: they do not fit.
    """
    ys = array("ys", ys)
    wanted, classes = shape[: 2 if spec.per_step else 1], spec.loss in metrics.CLASS_LOSSES
    if not classes:
        wanted += (spec.output_size // (2 if spec.loss == "gaussian_nll" else 1),)
    if ys.shape != wanted or ys.dtype.kind not in ("iu" if classes else "iuf"):
        kind = "classes, by number," if classes else "numbers"
        raise ValueError(f"ys must be {kind} of shape {wanted}, got {ys.dtype} {ys.shape}")
    if classes:
        if ((ys < 0) | (ys >= spec.output_size)).any():
            raise ValueError(f"ys must be in 0..{spec.output_size - 1}, got {ys.min()} to {ys.max()}")
        return ys.astype(np.int32)
    scales = meaning.target_scales
    return (scaled(scales, ys) if scales else ys).astype(np.float32)


@functools.lru_cache(64)  # in a loop in real time it is asked for at every step
def carry_like(initial_carry: Callable, batch: int) -> tuple[Any, list[tuple[int, ...]]]:
    """The structure of a carry of so many rows, and the shapes of its arrays."""
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda: initial_carry(batch)))
    return structure, [leaf.shape for leaf in leaves]


def check_carry(model: Model, carry, batch: int, seeds: int | None = None) -> None:
    """Raises ValueError unless a carry is that of so many rows, of so many seeds where these lead."""
    wanted, more = carry_like(model.initial_carry, batch), () if seeds is None else (seeds,)
    leaves, structure = jax.tree.flatten(carry)
    if (structure, list(map(np.shape, leaves))) != (wanted[0], [more + shape for shape in wanted[1]]):
        raise ValueError(
            f"carry must be that of {batch} row(s){' of all seeds' if seeds else ''}, as it was returned"
        )
