"""An elementwise recurrence over time: by a kernel, in segments of time where there are few channels."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cells.scans.kernels.steps import LANES

Arrays = tuple[jax.Array, ...]
# (consts, carry, xs) -> (carry, ys, sums), tuples of arrays of one and the same shape, whatever that is.
Body = Callable[[Arrays, Arrays, Arrays], tuple[Arrays, Arrays, Arrays]]

# Blocks from which on a chip counts as full: twice the multiprocessors of an H100.
FULL = 264
SHORTEST = 64  # steps of a segment


class Way(NamedTuple):
    """How a kernel runs.

    Attributes:
      target: "gpu", "tpu", or "" for a `lax.scan`.
      chunk: steps that are copied at once; 0: 16 on a GPU, 64 on a TPU.
      depth: chunks under way at the same time (GPU).
      segments: parts of time that run side by side; 0: as many as fill the chip.
      interpret: runs on a CPU, step by step, watched for races (GPU).
    """

    target: str
    chunk: int = 0
    depth: int = 4
    segments: int = 0
    interpret: bool = False

    def of(self, state) -> "Way":
        """For a state: kernels have float32, wider ones a `lax.scan`."""
        return self if jnp.real(state).dtype == jnp.float32 else self._replace(target="")


def way(strategy) -> Way:
    """That of a `strategies.Kernel` with a target."""
    return Way(strategy.target, strategy.chunk, strategy.depth, strategy.segments, strategy.interpret)


def available(backend: str) -> str | None:
    """Why there are no kernels for a backend with this version of JAX; None: there are."""
    if backend not in ("gpu", "tpu"):
        return f"kernels are for GPUs and TPUs, not for {backend!r}"
    if jax.__version_info__ < (0, 11):
        return f"kernels need jax 0.11 or newer, not {jax.__version__}"
    if backend == "gpu" == jax.default_backend():
        capability = getattr(jax.devices()[0], "compute_capability", None)
        if capability is None or float(capability) < 9:
            return f"Mosaic GPU is for NVIDIA's Hopper and later, not for {jax.devices()[0].device_kind}"
    return None


def scan(
    body: Body,
    consts: Arrays,
    first: Arrays,
    xs: Arrays,
    dtypes: tuple,
    reverse: bool,
    affine: bool,
    way: Way,
):
    """Runs `body` over time; every array is float32, or bfloat16 in `xs`, which a body sees as float32.

    Args:
      consts: (batch, channels) each. first: (batch, channels), the state before the first step.
      xs: (time, batch, channels).
      dtypes: of the outputs.
      affine: whether the next state is A c + b with A and b that do not depend on c: time may then run in
        segments, see `Way`.

    Returns:
      The last state; the outputs, (time, batch, channels) each; the sums over time, (batch, channels).

    What is differentiated is a `lax.scan` of the same body.
    """
    return _scan(body, dtypes, reverse, affine, way, consts, first, xs)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3, 4))
def _scan(body, dtypes, reverse, affine, way, consts, first, xs):
    if not way.target:
        return plain(body, dtypes, reverse, consts, first, xs)
    segments = _segments(way, xs) if affine else 1
    if segments == 1:
        last, ys, sums = _kernel(body, dtypes, reverse, way, consts, tuple(c[None] for c in first), xs)
        return tuple(c[0] for c in last), ys, tuple(s[0] for s in sums)
    return _in_segments(body, dtypes, reverse, way, segments, consts, first, xs)


@_scan.defjvp
def _(body, dtypes, reverse, affine, way, primals, tangents):
    return jax.jvp(functools.partial(plain, body, dtypes, reverse), primals, tangents)


def plain(body, dtypes, reverse, consts, first, xs):
    """`scan` by a `lax.scan`."""

    def step(state, x):
        carry, sums = state
        carry, ys, more = body(consts, carry, tuple(map(_wide, x)))
        sums = tuple(a + b for a, b in zip(sums, more, strict=True)) if sums else more
        return (carry, sums), tuple(y.astype(d) for y, d in zip(ys, dtypes, strict=True))

    zeros = tuple(jnp.zeros_like(first[0]) for _ in range(_count_sums(body, consts, first, xs)))
    (carry, sums), ys = lax.scan(step, (first, zeros), xs, reverse=reverse)
    return carry, ys, sums


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _count_sums(body, consts, carry, xs) -> int:
    shape = jax.ShapeDtypeStruct((LANES,), jnp.float32)
    like = tuple(tuple(shape for _ in group) for group in (consts, carry, xs))
    return len(jax.eval_shape(body, *like)[2])


def _segments(way: Way, xs) -> int:
    time, batch, channels = xs[0].shape
    if way.segments:
        return min(way.segments, time)
    blocks = math.ceil(batch * channels / LANES)
    return max(1, min(FULL // blocks, time // SHORTEST))


def _in_segments(body, dtypes, reverse, way, segments, consts, first, xs):
    """Segments side by side: first what each makes of a state, c -> A c + b; then, of its first one, all."""
    n = len(first)

    def ends(consts, carry, xs):
        b, columns = carry[:n], [carry[n * (j + 1) : n * (j + 2)] for j in range(n)]

        def one(*c):
            return body(consts, c, xs)[0]

        new, push = jax.linearize(one, *b)
        return tuple(itertools.chain(new, *(push(*column) for column in columns))), (), ()

    # Only what the state depends on is read.
    like = tuple(first[0] for _ in range(n * (n + 1)))
    needed = used(lambda *args: ends(*args)[0], consts, like, xs)
    few, some = (
        tuple(x for x, use in zip(group, which, strict=True) if use)
        for group, which in zip((consts, xs), needed, strict=True)
    )

    def of_few(few, carry, some):
        consts, xs = (filled(x, use, carry[0]) for x, use in zip((few, some), needed, strict=True))
        return ends(consts, carry, xs)

    zero = jnp.zeros((segments, *first[0].shape), first[0].dtype)
    start = tuple(zero + (i == j) for j in range(-1, n) for i in range(n))
    out, _, _ = _kernel(of_few, (), reverse, way, few, start, some)

    def after(made, vector):
        columns = [made[n * (j + 1) : n * (j + 2)] for j in range(n)]
        # What is nothing does not grow, whatever a product of many is.
        grown = [
            [jnp.where(c == 0, 0.0, times(a, c)) for a in a_s] for a_s, c in zip(columns, vector, strict=True)
        ]
        return [sum(parts) for parts in zip(*grown, strict=True)]

    def both(one, other):  # as matrices are: the columns of one, and where it brings zeros, through the other
        new = [after(other, one[n * j : n * (j + 1)]) for j in range(n + 1)]
        new[0] = [a + b for a, b in zip(new[0], other, strict=False)]
        return tuple(itertools.chain(*new))

    through = lax.associative_scan(both, out, reverse=reverse)
    ends_at = [a + b for a, b in zip(after(through, first), through, strict=False)]
    starts = tuple(
        jnp.concatenate([end[1:], c[None]] if reverse else [c[None], end[:-1]])
        for end, c in zip(ends_at, first, strict=True)
    )
    last, ys, sums = _kernel(body, dtypes, reverse, way, consts, starts, xs)
    return tuple(c[0 if reverse else -1] for c in last), ys, tuple(s.sum(0) for s in sums)


def times(a, c):
    """a * c, where a = 0 forgets even an infinite c, as a reset must."""
    return jnp.where(a == 0, jnp.zeros_like(c), a * c)


def used(f, consts, carry, xs) -> tuple[list[bool], list[bool]]:
    """Which of the consts, and of the xs, the results of an elementwise f depend on."""
    shape = jax.ShapeDtypeStruct((LANES,), jnp.float32)
    like = [tuple(shape for _ in group) for group in (consts, carry, xs)]
    jaxpr = jax.make_jaxpr(f)(*like).jaxpr
    live = {v for v in jaxpr.outvars if not hasattr(v, "val")}
    for eqn in reversed(jaxpr.eqns):
        if live.intersection(eqn.outvars):
            live |= {v for v in eqn.invars if not hasattr(v, "val")}
    flags = [v in live for v in jaxpr.invars]
    return flags[: len(consts)], flags[len(flags) - len(xs) :]


def filled(values, use, like):
    values = iter(values)
    return tuple(next(values) if u else jnp.zeros_like(like) for u in use)


def _kernel(body, dtypes, reverse, way, consts, first, xs):
    """One kernel: `first` and what is last are (segments, batch, channels), time is segment after segment.

    Under `vmap` what is mapped joins the batch.
    """

    @jax.custom_batching.custom_vmap
    def call(consts, first, xs):
        from cells.scans.kernels import gpu, tpu

        run = {"gpu": gpu.run, "tpu": tpu.run}[way.target]
        sums = _count_sums(body, consts, first, xs)
        return run(inlined(body), dtypes, sums, reverse, way, consts, first, xs)

    @call.def_vmap
    def _(size, mapped, consts, first, xs):
        def folded(x, is_mapped, axis):
            x = x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))
            x = jnp.moveaxis(x, 0, axis)
            return x.reshape(*x.shape[:axis], -1, x.shape[-1])

        groups = [
            tuple(folded(x, m, axis) for x, m in zip(group, which, strict=True))
            for group, which, axis in zip((consts, first, xs), mapped, (0, 1, 1), strict=True)
        ]
        out = _kernel(body, dtypes, reverse, way, *groups)
        out = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(len(x), size, -1, x.shape[-1]), 1, 0), out)
        return out, jax.tree.map(lambda _: True, out)

    return call(consts, first, xs)


def inlined(body: Body) -> Body:
    """The same, of arithmetic alone: what derivatives leave in a program and kernels do not know is gone."""

    def run(*args):
        flat, tree = jax.tree.flatten(args)
        jaxpr, shape = jax.make_jaxpr(lambda *flat: body(*jax.tree.unflatten(tree, flat)), return_shape=True)(
            *flat
        )
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluated(jaxpr.jaxpr, jaxpr.consts, flat))

    return run


def _evaluated(jaxpr, consts, args) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(v):
        return v.val if hasattr(v, "val") else values[v]

    for eqn in jaxpr.eqns:
        ins, name = [read(v) for v in eqn.invars], eqn.primitive.name
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if name == "add_any":
            outs = [ins[0] + ins[1]]
        elif inner is not None and name in ("jit", "pjit", "custom_jvp_call", "closed_call"):
            outs = _evaluated(inner.jaxpr, inner.consts, ins)
        else:
            shape = eqn.outvars[0].aval.shape
            if eqn.primitive is not lax.broadcast_in_dim_p:  # numbers beside arrays, which Mosaic GPU refuses
                ins = [jnp.broadcast_to(x, shape) if jnp.ndim(x) < len(shape) else x for x in ins]
            outs = eqn.primitive.bind(*ins, **eqn.params)
            outs = outs if eqn.primitive.multiple_results else [outs]
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]
