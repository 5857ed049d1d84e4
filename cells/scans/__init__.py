"""Running a cell over time: one entry, `scan`, for every cell and every strategy."""

import functools
from collections.abc import Callable
from typing import Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cells import base
from cells.base import Array, Carry, Cell, Params
from cells.scans import cudnn, kernels, linear, over_devices, sequence, sequential
from cells.scans import newton as newton_
from cells.scans import remat as rematerialise
from cells.scans.newton import Report
from cells.scans.strategies import (
    STRATEGIES,
    Associative,
    Chunked,
    Chunkwise,
    Cudnn,
    Kernel,
    Newton,
    Parallel,
    Sequential,
    Stepwise,
    Strategy,
    choose,
    parse,
    resolve,
    strategies,
)

__all__ = [
    "STRATEGIES", "Associative", "Chunked", "Chunkwise", "Cudnn", "Kernel", "Newton", "Parallel", "Report",
    "Sequential", "Stepwise", "Strategy", "over_devices", "parse", "resolve", "scan", "strategies",
]  # fmt: skip


@overload
def scan(
    cell: Cell, params: Params, xs: Array, carry: Carry | None = None, lengths: Array | None = None,
    mask: Array | None = None, resets: Array | None = None, reverse: bool = False,
    strategy: str | Strategy = "auto", remat: int = 0, newton: Newton | None = None,
    report: Literal[False] = False,
) -> tuple[Carry, Array]: ...  # fmt: skip
@overload
def scan(
    cell: Cell, params: Params, xs: Array, carry: Carry | None = None, lengths: Array | None = None,
    mask: Array | None = None, resets: Array | None = None, reverse: bool = False,
    strategy: str | Strategy = "auto", remat: int = 0, newton: Newton | None = None,
    *, report: Literal[True],
) -> tuple[Carry, Array, Report]: ...  # fmt: skip
def scan(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry | None = None,
    lengths: Array | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    strategy: str | Strategy = "auto",
    remat: int = 0,
    newton: Newton | None = None,
    report: bool = False,
) -> tuple[Carry, Array] | tuple[Carry, Array, Report]:
    """Runs `cell` over time.

    Args:
      cell: from `cells.get`.
      params: from `cell.init`.
      xs: (batch, time, input_size), floating; time >= 1.
      carry: state before the first step; None: `cell.initial_carry`.
      lengths: (batch,) ints in 0..time. Steps from `lengths` on are padding: outputs are zero, the
        state stays, and no gradient reaches them.
      mask: (batch, time) bool. False skips the element, wherever it is, as if it were not there (a
        reset at a skipped element is skipped too); its output is zero.
      resets: (batch, time) bool. True starts a new episode: the state before that step, in the order
        in which steps are taken, is `cell.initial_carry`. Infinities before a reset end there, forwards: the
        gradients of parameters that saw them are not finite. In the chunkwise form of matrix memories
        they reach the rest of their chunk, in attention all that follows.
      reverse: takes the steps of each row from its last real one to its first; outputs stay at their
        input's place.
      strategy: one of `strategies(cell)`, with options as in "newton:window=1", or a value such as
        `Newton(window=1)`.
      remat: for long sequences: gradients keep the states only every `remat` steps and compute the rest
        again; -1: every sqrt(time) steps; 0: keep everything.
      newton: `strategy="newton"` with options, as `strategy=Newton(...)` has them.
      report: says as well what the run did.

    Returns:
      The carry after each row's last step taken, in float32 or wider, and ys (batch, time,
      hidden_size) in the dtype of the computation; with `report` a `cells.Report`.

    Warns:
      RuntimeWarning: Newton's method did not converge; the results are those of "sequential".

    Raises:
      ValueError: wrong shapes or dtypes, unknown strategy, a strategy the cell cannot use.
    """
    if newton is not None:
        if not isinstance(newton, Newton) or parse(strategy) not in (Newton(), newton):
            raise ValueError(
                f"newton must be a cells.Newton beside strategy='newton', got {newton!r}, {strategy!r}"
            )
        strategy = newton
    choose(cell, strategy)  # refused before anything else is looked at
    if isinstance(remat, bool) or not isinstance(remat, int) or remat < -1:
        raise ValueError(f"remat must be a number of steps, 0 (off) or -1 (sqrt(time)), got {remat!r}")
    dtype = check_inputs(cell, params, xs, lengths, mask, resets)
    batch, time, _ = xs.shape
    is_free = parse(strategy) is None
    strategy, fresh = choose(cell, strategy, None, time, batch), carry is None and not remat
    if isinstance(strategy, Cudnn) and (resets is not None or dtype != jnp.float32):
        if not is_free:
            flags = " and resets" if resets is not None else ""
            raise ValueError(f"strategy 'cudnn' takes float32 and no resets, got {dtype}{flags}")
        strategy = Sequential()
    initial, carry = states_from(cell, carry, batch, jnp.promote_types(dtype, jnp.float32))
    valid = valid_steps(lengths, mask, time)
    if valid is not None:
        xs = jnp.where(valid[..., None], xs, 0)  # whatever padding holds, NaN too, stays out

    if remat and jax.export.is_symbolic_dim(time):
        raise ValueError(f"remat={remat} needs a known number of steps, not {time}: use remat=0")
    params, xs, carry, initial = sequential.varying_alike((params, xs, carry, initial))

    def run(xs, carry, valid, resets):
        xs = xs.astype(dtype)
        in_order = isinstance(cell, base.Sequence) or isinstance(strategy, Stepwise | Cudnn)
        by = functools.partial(_in_order, fresh) if in_order else _by_states
        return by(strategy, cell, params, xs, carry, initial, valid, resets, reverse)

    if remat:
        size = rematerialise.chunk_size(remat, time)
        (carry, ys), did = rematerialise.run(run, xs, carry, valid, resets, reverse, size)
        of_all: tuple[Callable, ...] = (jnp.sum, jnp.max, jnp.any)
        did = Report(*(combine(x) for combine, x in zip(of_all, did, strict=True)))
    else:
        (carry, ys), did = run(xs, carry, valid, resets)
    if isinstance(strategy, Newton):
        newton_.warn(did)
    return (carry, ys.astype(dtype), did) if report else (carry, ys.astype(dtype))


def valid_steps(lengths, mask, time):
    """(batch, time) bool: the steps that are taken; None: all of them."""
    if lengths is None:
        return None if mask is None else jnp.asarray(mask)
    real = jnp.arange(time) < jnp.asarray(lengths)[:, None]
    return real if mask is None else mask & real


def states_from(cell, carry, batch, dtype):
    """The state after a reset, and the one before the first step, which is the same unless it is given."""
    initial = cell.initial_carry(batch, dtype)
    if carry is None:
        return initial, initial
    want, got = (jax.tree.map(jnp.shape, c) for c in (initial, carry))
    if want != got:
        raise ValueError(f"carry must look like cell.initial_carry({batch}): {want}, got {got}")
    return initial, jax.tree.map(lambda c, like: jnp.asarray(c).astype(like.dtype), carry, initial)


def _by_states(strategy, cell, params, xs, carry, initial, valid, resets, reverse):
    """All states, then all outputs -> (carry, ys), report; valid, resets (batch, time) or None."""
    report = Report()
    is_fused = isinstance(strategy, Kernel) and kernels.fusible(cell)
    us, rest = projected(cell, params, xs, None if is_fused else initial)
    valid, resets = (None if m is None else jnp.asarray(m).T[..., None] for m in (valid, resets))
    flags = initial, valid, resets, reverse
    if is_fused:
        last, ys = kernels.run(cell, params, carry, us, rest, *flags, kernels.way(strategy))
        return (last, jnp.swapaxes(ys, 0, 1)), report
    match strategy:
        case Newton():
            states, report = newton_.run(cell, cell.recurrent_weights(params), carry, us, *flags, strategy)
        case Sequential() if isinstance(cell, base.Nonlinear):
            states = sequential.run(cell, cell.recurrent_weights(params), carry, us, *flags)
        case _:
            solver = linear.solver(strategy)
            states = linear.run(*cell.coefficients(params, us), carry, *flags, solver)
    previous = sequential.previous(states, carry, initial, resets, reverse)
    ys = cell.readout(params, rest, previous, states)
    if valid is not None:
        ys = jnp.where(valid, ys, 0)
    last = jax.tree.map(lambda state: state[0 if reverse else -1], states)
    return (last, jnp.swapaxes(ys, 0, 1)), report


def _in_order(fresh, strategy, cell, params, xs, carry, initial, valid, resets, reverse):
    """The same, of steps that are put in the order in which they are taken."""
    indices = sequence.order(valid, reverse, xs.shape[1])
    xs, taken, resets = (sequence.arrange(x, indices) for x in (xs, valid, resets))
    if isinstance(strategy, Stepwise):
        carry, ys = sequence.stepwise(cell, params, carry, jnp.swapaxes(xs, 0, 1), initial, taken, resets)
    elif isinstance(strategy, Cudnn):
        carry, ys = cudnn.run(cell, params, carry, xs, taken)
        ys = jnp.swapaxes(ys, 0, 1)
    else:
        us, rest = projected(cell, params, xs, initial)
        carry, ys = sequence.run(cell, params, carry, us, rest, taken, resets, strategy, fresh)
    ys = jnp.swapaxes(ys, 0, 1)
    if indices is not None:
        ys = sequence.arrange(ys, jnp.argsort(indices, axis=1))
    return (carry, ys if valid is None else jnp.where(valid[..., None], ys, 0)), Report()


def projected(cell, params, xs, initial):
    """`cell.project` of xs (batch, time, features): (time, batch, k) each, in the dtype of the state
    `initial`; None: in their own."""
    batch, time, features = xs.shape
    state_dtype = None if initial is None else jnp.real(jax.tree.leaves(initial)[0]).dtype
    # Time leads from here on; flat, so that the projections and their gradients are plain matmuls.
    xs = lax.optimization_barrier(jnp.swapaxes(xs, 0, 1)).reshape(time * batch, features)
    return jax.tree.map(
        lambda u: u.reshape(time, batch, u.shape[-1]).astype(state_dtype or u.dtype),
        _project(cell, params, xs),
    )


def _project(cell, params, xs):
    """`cell.project`, whose contract a new cell may have misread."""
    projected = cell.project(params, xs)
    if not isinstance(projected, tuple) or len(projected) != 2:
        raise TypeError(
            f"{type(cell).__name__}.project must return a tuple (us, rest): what the recurrence needs, what "
            f"only `readout` needs (None for nothing); got {type(projected).__name__}"
        )
    unread = isinstance(cell, base.Stateful) and type(cell).readout is base.Stateful.readout
    if projected[1] is not None and unread:
        raise TypeError(
            f"{type(cell).__name__}.project returns a `rest`, but there is no `readout` to use it"
        )
    return projected


def check_inputs(cell, params, xs, lengths, mask, resets):
    """Refuses wrong shapes and dtypes with one line; returns the dtype of the computation."""
    shape = jnp.shape(xs)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"xs must be (batch, time, features), none of them 0, got shape {shape}")
    if not jnp.issubdtype(xs.dtype, jnp.floating):
        raise ValueError(f"xs must be floating, got {xs.dtype}")
    batch, time, features = shape
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    want = jax.eval_shape(
        lambda k: cell.init(jax.random.wrap_key_data(k, impl="threefry2x32"), features), key
    )
    want = {name: p.shape for name, p in want.items()}
    got = {name: jnp.shape(p) for name, p in params.items()}
    if want != got:
        wrong = sorted(name for name in want | got if want.get(name) != got.get(name))
        raise ValueError(
            f"params do not fit {type(cell).__name__}(hidden_size={cell.hidden_size}) with {features} input "
            "features: "
            + ", ".join(f"{n} is {got.get(n, 'missing')}, expected {want.get(n, 'none')}" for n in wrong)
        )
    for name, flags in (("mask", mask), ("resets", resets)):
        if flags is not None and (jnp.shape(flags) != (batch, time) or jnp.asarray(flags).dtype != bool):
            got = f"{jnp.asarray(flags).dtype} {jnp.shape(flags)}"
            raise ValueError(f"{name} must be bool ({batch}, {time}), that is (batch, time), got {got}")
    if lengths is not None:
        integer = jnp.issubdtype(jnp.asarray(lengths).dtype, jnp.integer)
        if jnp.shape(lengths) != (batch,) or not integer:
            got = f"{jnp.asarray(lengths).dtype} {jnp.shape(lengths)}"
            raise ValueError(f"lengths must be integers ({batch},), that is (batch,), got {got}")
        if not isinstance(lengths, jax.core.Tracer):
            low, high = (
                np.asarray(lengths).min(),
                np.asarray(lengths).max(),
            )  # NumPy: known even while tracing
            if low < 0 or high > time:
                raise ValueError(f"lengths must lie in 0..{time} (time), got {low}..{high}")
    return jnp.result_type(xs, *params.values())
