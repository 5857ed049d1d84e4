"""An elementwise recurrence as a Pallas kernel for TPUs: blocks of 8 rows of the batch by 128 channels.

The last axis of the grid, chunks of time, is sequential; the state stays in scratch memory between them.
"""

import jax
import jax.numpy as jnp

from cells.scans.kernels.steps import LANES, Steps, cut, fitted, turned

CHUNK = 64  # steps
ROWS = 8


def run(body, dtypes, sums, reverse, way, consts, first, xs):
    """One kernel, as `recurrence._kernel` says it."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    time, batch, channels = xs[0].shape
    segments = first[0].shape[0]
    steps = Steps.of(way.chunk or CHUNK, time, segments)

    def padded(x):
        return fitted(fitted(x, -1, LANES), -2, ROWS)

    consts, first = [padded(x) for x in consts], [padded(x) for x in first]
    xs = [fitted(padded(x), 0, steps.in_all) for x in xs]
    rows, lanes = xs[0].shape[1:]

    def kernel(*refs):
        const_refs, first_refs, x_refs, out_refs, end_refs, held_refs = cut(
            refs, len(consts), len(first), len(xs), len(dtypes), len(first) + sums
        )
        segment, at = pl.program_id(0), pl.program_id(3)

        @pl.when(at == 0)
        def _():
            for held, ref in zip(held_refs, first_refs, strict=False):
                held[...] = ref[0]
            for held in held_refs[len(first) :]:
                held[...] = jnp.zeros_like(held)

        constants = tuple(ref[...] for ref in const_refs)

        def write(t, ys):
            for ref, y in zip(out_refs, ys, strict=True):
                ref[t] = y.astype(ref.dtype)

        begin, state = steps.begin(segment, at, reverse), tuple(held[...] for held in held_refs)
        state = steps.work(body, constants, begin, x_refs, write, state, len(first), reverse)
        for held, end, value in zip(held_refs, end_refs, state, strict=True):
            held[...] = value
            end[0] = value

    steps_of = pl.BlockSpec(
        (steps.chunk, ROWS, LANES),
        lambda s, b, h, i: (s * steps.chunks + turned(i, steps.chunks, reverse), b, h),
    )
    state_of = pl.BlockSpec((1, ROWS, LANES), lambda s, b, h, i: (s, b, h))
    const_of = pl.BlockSpec((ROWS, LANES), lambda s, b, h, i: (b, h))
    states = len(first) + sums
    out = pl.pallas_call(
        kernel,
        grid=(segments, rows // ROWS, lanes // LANES, steps.chunks),
        in_specs=[const_of] * len(consts) + [state_of] * len(first) + [steps_of] * len(xs),
        out_specs=[steps_of] * len(dtypes) + [state_of] * states,
        out_shape=[
            *(jax.ShapeDtypeStruct((steps.in_all, rows, lanes), dtype) for dtype in dtypes),
            *[jax.ShapeDtypeStruct((segments, rows, lanes), jnp.float32)] * states,
        ],
        scratch_shapes=[pltpu.VMEM((ROWS, LANES), jnp.float32)] * states,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        interpret=way.interpret,
    )(*consts, *first, *xs)
    ys = tuple(y[:time, :batch, :channels] for y in out[: len(dtypes)])
    ends = tuple(x[:, :batch, :channels] for x in out[len(dtypes) :])
    return ends[: len(first)], ys, ends[len(first) :]
