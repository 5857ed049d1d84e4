"""Looking inside: how gradients flow back through time, what gates do, how long units remember.

All of it goes through the textbook `step`, so that no fast path is in the way. `xs` is (batch, time,
features): what the cell itself sees.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

import cells
from experiments.lab import runs
from train import metrics
from train.model import Model, ModelConfig, build
from train.tasks.base import Batch, Spec

DIRECTIONS = 256  # rows of a Jacobian that are followed at most


class Trace(NamedTuple):
    """What a cell does over time."""

    states: (
        jax.Array
    )  # (batch, time + 1, S): the whole carry, `flat_step`, before the first and after each step
    ys: jax.Array  # (batch, time, hidden_size)
    gates: dict[str, jax.Array]  # (batch, time, hidden_size)


def _real(x):
    """A complex array as its real and its imaginary part, (2, ...)."""
    return jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x


def flat_step(cell: cells.Cell, params):
    """The textbook step of one row on flat, real states: (S,), (features,) -> (S,), y (hidden_size,), gates;
    and the initial state.

    A state is everything in the carry, array after array; of complex ones the real parts, then the
    imaginary ones. Of sLSTM and mLSTM the stabiliser is among it, of convolutions what is pending.
    """
    start = jax.tree.map(lambda c: c[0], cell.initial_carry(1, jax.tree.leaves(params)[0].dtype))
    flat, unravel = ravel_pytree(jax.tree.map(_real, start))

    def restore(like, part):
        return (jax.lax.complex(*part) if jnp.iscomplexobj(like) else part)[None]

    def step(state, x):
        carry = jax.tree.map(restore, start, unravel(state))
        after, y = cell.step(params, carry, x[None])
        gates = {name: gate[0] for name, gate in cell.gates(params, carry, x[None]).items()}
        return ravel_pytree(jax.tree.map(lambda c: _real(c[0]), after))[0], y[0], gates

    return step, flat


def trace(cell: cells.Cell, params, xs) -> Trace:
    """Runs the textbook step and keeps everything."""
    step, start = flat_step(cell, params)

    def row(xs):
        def body(state, x):
            state, y, gates = step(state, x)
            return state, (state, y, gates)

        states, ys, gates = jax.lax.scan(body, start, xs)[1]
        return Trace(jnp.concatenate([start[None], states]), ys, gates)

    return jax.vmap(row)(xs)


def state_gains(cell: cells.Cell, params, xs) -> jax.Array:
    """log10 of the gain of d s_T / d s_{T-k}, for k = 0..time: (batch, time + 1).

    s is the whole carry (of an LSTM: c and h); the gain is the Frobenius norm over sqrt(S), 1 for the
    identity. The Jacobian goes backwards by one vector-Jacobian product per row and step, and is scaled to
    norm 1 on the way, so that nothing under- or overflows. Of a state larger than DIRECTIONS so many random
    combinations of its rows do for all of them: the norm is then right to about 0.05 decades.
    """
    step, _ = flat_step(cell, params)

    def rows_of(size, dtype):
        if size <= DIRECTIONS:
            return jnp.eye(size, dtype=dtype)
        return jax.random.normal(jax.random.key(0), (DIRECTIONS, size), dtype) / DIRECTIONS**0.5

    def row(states, xs):
        size = states.shape[-1]

        def body(carry, inputs):
            jacobian, log = carry  # d s_T / d s_t, scaled
            state, x = inputs
            pullback = jax.vjp(lambda s: step(s, x)[0], state)[1]
            jacobian = jax.vmap(lambda d: pullback(d)[0])(jacobian)
            norm = jnp.linalg.norm(jacobian) / jnp.sqrt(size)
            log = log + jnp.log10(norm)
            return (jacobian / jnp.where(norm > 0, norm, 1), log), log

        start = (rows_of(size, states.dtype), jnp.zeros((), states.dtype))
        logs = jax.lax.scan(body, start, (states[:-1], xs), reverse=True)[1]
        return jnp.concatenate([jnp.zeros(1, logs.dtype), logs[::-1]])

    return jax.vmap(row)(trace(cell, params, xs).states, xs)


def lyapunov_spectrum(cell: cells.Cell, params, xs, skip: int = 0) -> jax.Array:
    """Lyapunov exponents per step (natural logarithm), largest first, mean over rows: (S,).

    The growth of S orthonormal directions under the step's Jacobians, made orthonormal again by QR at
    every step (Benettin 1980). The first `skip` steps only turn the directions. A singular Jacobian, of a
    window or of sLSTM's first step, leaves directions to chance: such cells have no spectrum to speak of.
    """
    step, _ = flat_step(cell, params)

    def row(args):
        states, xs = args

        def body(q, inputs):
            state, x = inputs
            q = jax.vmap(lambda d: jax.jvp(lambda s: step(s, x)[0], (state,), (d,))[1], 1, 1)(q)
            q, r = jnp.linalg.qr(q)
            return q, jnp.log(jnp.abs(jnp.diagonal(r)))

        logs = jax.lax.scan(body, jnp.eye(states.shape[-1], dtype=states.dtype), (states[:-1], xs))[1]
        return logs[skip:].mean(0)

    # Row by row: a batch of QRs can wait for ever on a CPU.
    exponents = jax.lax.map(row, (trace(cell, params, xs).states, xs)).mean(0)
    return jnp.sort(exponents)[::-1]


def largest_exponent(cell: cells.Cell, params, xs) -> jax.Array:
    """The largest Lyapunov exponent per step of one sequence, (1, time, features): ().

    Where units do not see each other it is that of the fastest growing unit, the mean of log |dc_t /
    dc_{t-1}|; else one tangent is followed.
    """
    step, start = flat_step(cell, params)
    alone = cell.is_elementwise and len(start) == cell.hidden_size

    def body(carry, x):
        state, tangent = carry
        state, grown = jax.jvp(lambda state: step(state, x)[0], (state,), (tangent,))
        size = jnp.abs(grown) if alone else jnp.linalg.norm(grown)
        log = jnp.log(jnp.maximum(size, jnp.finfo(size.dtype).tiny))
        return (state, tangent if alone else grown / jnp.where(size > 0, size, 1)), log

    tangent = jnp.ones_like(start) if alone else jnp.full_like(start, len(start) ** -0.5)
    return jax.lax.scan(body, (start, tangent), xs[0])[1].mean(0).max()


def unit_memory(cell: cells.Cell, params, xs, of: str = "output", lag: str = "mean") -> jax.Array:
    """How far back each unit looks, in steps: (hidden_size,).

    The mean of k weighted by |d y_T[unit] / d x_{T-k}|, over rows: 0 for a unit that sees only the present
    input. It is measured on what a unit does, not on what its gates say.

    Args:
      of: "output" (y), or "state": what a unit keeps, whether or not it shows it, `unit_states`.
      lag: "mean", or the "median" of k: little that leaks in from long ago does not count.
    """

    def at_end(xs):
        carry = cell.initial_carry(1, xs.dtype)

        def body(carry, x):
            return cell.step(params, carry, x[None])

        carry, ys = jax.lax.scan(body, carry, xs)
        return ys[-1, 0][:, None] if of == "output" else unit_states(cell, carry)[0]

    jacobians = jax.vmap(jax.jacrev(at_end))(xs)  # (batch, H, kept by a unit, time, features)
    return _lag(jnp.sqrt(jnp.square(jacobians).sum((2, 4))).mean(0), lag)


def _lag(weights, of: str):
    """Mean or median over steps, the last one of lag 0, of weights (hidden_size, time)."""
    weights, lags = weights[:, ::-1], jnp.arange(weights.shape[1])
    if of == "median":
        return (weights.cumsum(1) < weights.sum(1, keepdims=True) / 2).sum(1).astype(weights.dtype)
    return (weights * lags).sum(1) / jnp.maximum(weights.sum(1), jnp.finfo(weights.dtype).tiny)


def other_tokens(key, tokens, symbols: int, distractors: int):
    """At each place another token of the same kind: (batch, time) of symbols, then distractors."""
    first, size = jnp.where(tokens < symbols, 0, symbols), jnp.where(tokens < symbols, symbols, distractors)
    shift = 1 + jax.random.randint(key, tokens.shape, 0, size - 1)
    return first + (tokens - first + shift) % size


def swap_memory(cell: cells.Cell, params, xs, others, lag: str = "mean"):
    """How far back each unit's state looks, in steps: (hidden_size,).

    The mean (or median) of k weighted by |change of c_T[unit]| where x_{T-k} alone is replaced by that of
    `others`. Unlike a gradient it also sees what a saturated unit holds.

    Args:
      xs, others: (batch, time, features).
    """
    batch, time, features = xs.shape
    at = jnp.eye(time, dtype=bool)[:, None, :, None]
    swapped = jnp.where(at, others, xs).reshape(time * batch, time, features)

    def at_end(xs):
        return unit_states(cell, cells.scan(cell, params, xs)[0])

    after = at_end(swapped).reshape(time, batch, cell.hidden_size, -1)
    return _lag(jnp.abs(after - at_end(xs)).mean((1, 3)).T, lag)


def unit_states(cell: cells.Cell, carry) -> jax.Array:
    """What each unit keeps: (batch, hidden_size, numbers), real.

    Out of the first array of the carry: c of LSTM and SRU, a row of a matrix memory, all that is pending of a
    convolution, both parts of a complex number.
    """
    first = jax.tree.leaves(carry)[0]
    parts = [first.real, first.imag] if jnp.iscomplexobj(first) else [first]
    if not hasattr(cell, "heads"):  # else heads and what they hold come first
        parts = [jnp.moveaxis(part, -1, 1) for part in parts]
    return jnp.concatenate([part.reshape(len(part), cell.hidden_size, -1) for part in parts], -1)


def kind(name: str) -> str:
    """What a registered cell is by its mathematics, not by how it is run: `cells.Cell.dynamics`."""
    return default(name).dynamics


def is_linear(cell: cells.Cell) -> bool:
    """Whether linear recurrences are all that it has, so that their solvers run it."""
    return "associative" in cells.strategies(cell)


def default(name: str) -> cells.Cell:
    """The smallest cell of a name, with its default options."""
    return cells.get(name, hidden_size=cells.CELLS.cls(name).size_multiple())


def embedded(spec: Spec, params, xs) -> jax.Array:
    """What the first layer sees of a task's inputs."""
    if spec.inputs == "tokens":
        return params["embed"]["embedding"][xs]
    return xs @ params["dense"]["kernel"] + params["dense"]["bias"] if "dense" in params else xs


def after_embedding(cell: cells.Cell, spec: Spec, config: ModelConfig, width: int) -> Model:
    """The rest of the model: its `apply` takes `embedded` inputs, and the same parameters but those."""
    spec = dataclasses.replace(spec, inputs="features", input_size=width)
    return build(cell, spec, dataclasses.replace(config, embedding_size=0))


def input_gradients(
    cell: cells.Cell, spec: Spec, config: ModelConfig, params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """The loss and || d loss / d x_t || of what the first layer sees at each step: (), (batch, time).

    The loss is summed over rows, so that a row's gradient does not depend on how many there are.
    """
    xs = embedded(spec, params, batch.xs)
    model = after_embedding(cell, spec, config, xs.shape[-1])
    rest = {name: value for name, value in params.items() if name not in ("embed", "dense")}

    def loss(xs):
        return metrics.loss_sum(spec, model.apply(rest, xs, lengths=batch.lengths), batch)[0]

    total, gradients = jax.value_and_grad(loss)(xs)
    largest = jnp.abs(gradients).max(axis=-1, keepdims=True)  # its square may be too small for float32
    norms = jnp.linalg.norm(gradients / jnp.where(largest > 0, largest, 1), axis=-1)
    return total / len(xs), largest[..., 0] * norms


def before_training(result, rows: int) -> list[dict]:
    """Variance of the output and norm of the parameters' gradient of every layer of a run's models as they
    began, one row per seed and layer; layer 0 is what the first one sees.

    Args:
      rows: sequences by which they are measured.
    """
    run = result.run

    def loss(params, batch):
        return metrics.loss(run.spec, run.model.apply(params, batch.xs, lengths=batch.lengths), batch)

    def of(params, data):
        batch = run.config.task.eval_batch(data, "valid", 0, rows)
        outputs = run.model.hidden_states(params, batch.xs, lengths=batch.lengths)
        outputs = [embedded(run.spec, params, batch.xs), *outputs]
        gradients = jax.grad(loss)(params, batch)["layers"]
        norms = [optax.tree.norm(gradients[str(i)]) for i in range(len(outputs) - 1)]
        return jnp.stack([jnp.var(ys) for ys in outputs]), jnp.stack(norms)

    of = runs.compiled(jax.vmap(of, (0, None)))
    variances, norms = jax.device_get(of(runs.initial(result), jax.device_get(run.data)))
    return [
        {"kind": "layer", "seed": seed, "layer": layer, "variance": float(variances[i, layer])}
        | {"gradient": float(norms[i, layer - 1]) if layer else None}
        for i, (seed, _) in enumerate(run.config.lanes)
        for layer in range(variances.shape[1])
    ]


def layer_params(params, number: int = 0) -> dict:
    """The cell's parameters of one layer of a model."""
    return params["layers"][str(number)]["forward"]
