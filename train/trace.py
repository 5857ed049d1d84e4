"""Inside a model while it reads: gates, states, gradients, by the textbook step of its cell."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import cells
from cells.scans import valid_steps
from train import metrics
from train.model import ModelConfig, Network
from train.tasks.base import Batch, Spec

Array = jax.Array


class CellTrace(NamedTuple):
    """One cell of one layer, in one direction. Arrays lead with (batch, time); what belongs to a step that is
    padding, or skipped, means nothing."""

    gates: dict[str, Array]  # (batch, time, units), by the names that its file has; those of a reset as well
    states: Any  # the carry after each step, as the cell has it: each array (batch, time, ...)
    inputs: Array  # (batch, time, features), what the cell sees
    outputs: Array  # (batch, time, hidden_size)
    gradients: Array  # as outputs, of the answer by them


class Trace(NamedTuple):
    """What goes on inside a model.

    Gradients are of the answer, summed over rows: of classes the largest logit, of numbers the sum of all
    outputs, where each step has one of the last real step; or, where targets are given, of the loss.
    """

    outputs: Array  # as `Model.apply` gives them
    layers: tuple[CellTrace, ...]  # nearest to the inputs first
    backward: tuple[CellTrace, ...]  # of a bidirectional model, the cells that read from the end; else empty
    gradients: Array  # (batch, time, features) by the inputs; of tokens by their embedding


class Traced(Network):
    """The network, whose inputs can be moved a little."""

    def entered(self, xs):
        tokens = self.spec.inputs == "tokens"
        return super().entered(xs) + self.tap if tokens else super().entered(xs + self.tap)


def make_trace(cell: cells.Cell, spec: Spec, config: ModelConfig) -> Callable[..., Trace]:
    """(params, xs, steps, ys) -> Trace, to be compiled.

    steps: {"lengths": ..., "mask": ..., "resets": ...}, those that there are. ys: as in `Batch`, or None.
    Everything is computed in the parameters' precision, one step after the other, and nothing is dropped.
    """
    directions = 2 if config.bidirectional else 1

    def answer(outputs, xs, steps, ys):
        if ys is not None:
            real = valid_steps(steps.get("lengths"), steps.get("mask"), xs.shape[1])
            ones = jnp.ones(outputs.shape[:-1])
            weights = ones * real if spec.per_step and real is not None else ones
            batch = Batch(xs, ys, None, weights, weights)
            return metrics.loss_sum(spec, outputs, batch)[0]
        if spec.per_step:
            real = valid_steps(steps.get("lengths"), steps.get("mask"), xs.shape[1])
            last = jnp.full(len(xs), xs.shape[1] - 1)
            if real is not None:
                last = xs.shape[1] - 1 - jnp.argmax(real[:, ::-1], axis=1)
            outputs = jnp.take_along_axis(outputs, last[:, None, None], axis=1)[:, 0]
        classes = spec.loss in metrics.CLASS_LOSSES
        return (jnp.max(outputs, axis=-1) if classes else outputs.sum(-1)).sum()

    def trace(params, xs, steps, ys):
        dtype = jax.tree.leaves(params)[0].dtype

        def run(taps):
            seen, taps_left = [], list(taps[1:])

            def over_time(cell, params, xs, reverse=False, carry=None, **steps):
                found = _textbook(cell, params, xs, reverse, **steps)
                found = found._replace(outputs=found.outputs + taps_left.pop(0))
                seen.append(found)
                return carry, found.outputs

            network = nnx.eval_shape(lambda: Traced(cell, spec, config, over_time, nnx.Rngs(0)))
            network = nnx.merge(nnx.graphdef(network), params)
            network.tap = taps[0]
            outputs = network(xs, **steps)
            return answer(outputs, xs, steps, ys), (outputs, seen)

        wide = xs.shape[2:] if spec.inputs == "features" else params["embed"]["embedding"].shape[1:]
        units = jnp.zeros((*xs.shape[:2], cell.hidden_size), dtype)
        taps = [jnp.zeros((*xs.shape[:2], *wide), dtype)] + [units] * (config.depth * directions)
        gradients, (outputs, seen) = jax.grad(run, has_aux=True)(taps)
        layers = [found._replace(gradients=d) for found, d in zip(seen, gradients[1:], strict=True)]
        back = tuple(layers[1::2]) if directions == 2 else ()
        return Trace(outputs, tuple(layers[::directions]), back, gradients[0])

    return trace


def _textbook(cell, params, xs, reverse, lengths=None, mask=None, resets=None) -> CellTrace:
    """One cell over time, as `cells.scan` runs it."""
    batch, time, _ = xs.shape
    real = valid_steps(lengths, mask, time)
    initial = cell.initial_carry(batch, xs.dtype)

    def chosen(where, some, other):
        return jax.tree.map(
            lambda a, b: jnp.where(where.reshape(-1, *(1,) * (a.ndim - 1)), a, b), some, other
        )

    def body(carry, step):
        x, real, reset = step
        if reset is not None:
            carry = chosen(reset if real is None else reset & real, initial, carry)
        gates = cell.gates(params, carry, x)
        after, y = cell.step(params, carry, x)
        if real is not None:
            after, y = chosen(real, after, carry), jnp.where(real[:, None], y, 0)
        return after, (gates, after, y)

    in_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (xs, real, resets))
    found = jax.lax.scan(body, initial, in_time, reverse=reverse)[1]
    gates, states, ys = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), found)
    return CellTrace(gates, states, xs, ys, jnp.zeros_like(ys))
