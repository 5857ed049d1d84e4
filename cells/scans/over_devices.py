"""Time over devices, for linear cells: each device has a stretch of the steps, and one message joins them.

A stretch maps the state before it to the one after it, c -> A c + B; what the devices send each other are the
A and B of their stretches, and the state at the borders. Derivatives are those of `linear`: the transposed
system is the same recurrence the other way, over the devices too.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from cells import base
from cells.base import Array, Carry, Cell, Params
from cells.scans import linear, sequential
from cells.scans.strategies import Associative, Chunked, Sequential, Strategy, choose


def scan(
    cell: Cell,
    params: Params,
    xs: Array,
    mesh: Mesh,
    carry: Carry | None = None,
    lengths: Array | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    strategy: str | Strategy = "auto",
) -> tuple[Carry, Array]:
    """`cells.scan` of a linear cell, with time over the devices of a mesh; arguments and results as there.

    Args:
      mesh: with an axis "time"; steps that its size does not divide are filled up. An axis "batch" shares the
        rows, and has to divide them.
      strategy: how each device runs over its own steps.

    Raises:
      ValueError: the cell is not linear, the mesh has no such axis, or as `cells.scan` does.
    """
    if "time" not in mesh.axis_names:
        raise ValueError(f"the mesh needs an axis 'time', it has {', '.join(mesh.axis_names)}")
    if jnp.shape(xs)[0] % mesh.shape.get("batch", 1):
        raise ValueError(
            f"{jnp.shape(xs)[0]} rows are not shared by the {mesh.shape['batch']} devices of 'batch'"
        )
    parts, time, dtype = mesh.shape["time"], jnp.shape(xs)[1], xs.dtype
    strategy, xs, initial, carry, valid, resets = _prepared(
        cell, params, xs, carry, lengths, mask, resets, strategy, parts
    )
    rows = "batch" if "batch" in mesh.axis_names else None
    steps, state = PartitionSpec(rows, "time"), PartitionSpec(rows)
    flags = [None if flag is None else steps for flag in (valid, resets)]
    run = partial(_stretch, cell, reverse, strategy, parts)
    run = jax.shard_map(
        run, mesh=mesh, in_specs=(PartitionSpec(), steps, state, state, *flags), out_specs=(state, steps),
        check_vma=False,
    )  # fmt: skip
    carry, ys = run(params, xs, carry, initial, valid, resets)
    return carry, ys[:, :time].astype(dtype)


def within(cell, params, xs, parts, lengths=None, mask=None, resets=None, reverse=False, strategy="auto"):
    """The outputs, under a `shard_map` over an axis "time" of so many devices, which all have all of `xs`.

    Each device runs its own steps, and all of them get all outputs; so do the gradients.
    """
    time, dtype = xs.shape[1], xs.dtype
    strategy, xs, initial, _, valid, resets = _prepared(
        cell, params, xs, None, lengths, mask, resets, strategy, parts
    )
    size = xs.shape[1] // parts

    def mine(x):
        return None if x is None else lax.dynamic_slice_in_dim(x, lax.axis_index("time") * size, size, axis=1)

    def all_of(x):
        return lax.all_gather(x, "time", axis=1, tiled=True)

    def stretch(params, xs, initial, valid, resets):
        return _stretch(cell, reverse, strategy, parts, params, xs, initial, initial, valid, resets)[1]

    @jax.custom_vjp
    def run(params, xs, initial, valid, resets):
        return forward(params, xs, initial, valid, resets)[0]

    def forward(params, xs, initial, *flags):
        flags = map(mine, flags)
        ys, back = jax.vjp(lambda params, xs: stretch(params, xs, initial, *flags), params, mine(xs))
        return all_of(ys), back

    def backward(back, gradient):
        params, xs = back(mine(gradient))  # of its own steps, with what the others' need of them
        return lax.psum(params, "time"), all_of(xs), None, None, None

    run.defvjp(forward, backward)
    return run(params, xs, initial, valid, resets)[:, :time].astype(dtype)


def _prepared(cell, params, xs, carry, lengths, mask, resets, strategy, parts):
    """Checked, and filled up to a multiple of `parts` steps."""
    from cells.scans import check_inputs, states_from, valid_steps

    if not isinstance(cell, base.Linear):
        linears = "a Linear cell, such as sru or lru"
        raise ValueError(f"{type(cell).__name__} cannot run with time over devices; it takes {linears}")
    dtype = check_inputs(cell, params, xs, lengths, mask, resets)
    batch, time, _ = xs.shape
    strategy = choose(cell, strategy, time=-(-time // parts))
    if not isinstance(strategy, Associative | Chunked | Sequential):
        raise ValueError(f"strategy {strategy} cannot run with time over devices")
    initial, carry = states_from(cell, carry, batch, jnp.promote_types(dtype, jnp.float32))
    valid = valid_steps(lengths, mask, time)
    if more := -time % parts:
        ends = ((0, 0), (0, more))
        valid = jnp.pad(jnp.ones((batch, time), bool) if valid is None else valid, ends)
        xs = jnp.pad(xs, (*ends, (0, 0)))
        resets = None if resets is None else jnp.pad(jnp.asarray(resets), ends)
    if valid is not None:
        xs = jnp.where(valid[..., None], xs, 0)  # whatever padding holds, NaN too, stays out
    return strategy, xs.astype(dtype), initial, carry, valid, resets


def _stretch(cell, reverse, strategy, parts, params, xs, carry, initial, valid, resets):
    """One device's steps: xs (rows, steps, features) -> the last carry of all, its ys."""
    from cells.scans import projected

    us, rest = projected(cell, params, xs, initial)
    valid, resets = (None if flag is None else flag.T[..., None] for flag in (valid, resets))
    a, b = linear.flagged(*cell.coefficients(params, us), initial, valid, resets)
    border = partial(_from_before, parts=parts)
    first = lax.axis_index("time") == (parts - 1 if reverse else 0)
    start = -1 if reverse else 0
    b = b.at[start].add(jnp.where(first, linear._times(a[start], carry), 0))
    solver = partial(_joined, linear.solver(strategy), parts)

    def shift(cs, reverse):
        before = border(cs[0 if reverse else -1], reverse)[None]
        return jnp.concatenate([cs[1:], before] if reverse else [before, cs[:-1]])

    states = linear.solved(a, b, reverse, solver, shift)
    last = states[0 if reverse else -1]
    before = jnp.where(first, carry, border(last, reverse))
    ys = cell.readout(params, rest, sequential.previous(states, before, initial, resets, reverse), states)
    if valid is not None:
        ys = jnp.where(valid, ys, 0)
    at_the_end = lax.axis_index("time") == (0 if reverse else parts - 1)
    return lax.psum(jnp.where(at_the_end, last, 0), "time"), jnp.swapaxes(ys, 0, 1)


def _from_before(x, reverse, parts):
    """x of the device whose steps are taken before this one's; zeros for the first."""
    pairs = [(i, i + 1) for i in range(parts - 1)]
    return lax.ppermute(x, "time", [(j, i) for i, j in pairs] if reverse else pairs)


def _joined(solver, parts, a, b, reverse):
    """`linear`'s solvers over all devices: own steps from a state of zeros, then what comes before them."""
    one = jnp.zeros_like(a).at[-1 if reverse else 0].set(a[-1 if reverse else 0])
    alone, products = solver(a, b, reverse), solver(a, one, reverse)
    end = 0 if reverse else -1
    ends = lax.all_gather((products[end], alone[end]), "time")
    index, state = lax.axis_index("time"), jnp.zeros_like(b[0])
    for i in reversed(range(parts)) if reverse else range(parts):
        after = linear._times(ends[0][i], state) + ends[1][i]
        before = i > index if reverse else i < index
        state = jnp.where(before, after, state)
    return alone + linear._times(products, state)
