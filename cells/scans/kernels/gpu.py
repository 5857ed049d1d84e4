"""An elementwise recurrence as a Mosaic GPU kernel (Pallas): a warpgroup for each 128 channels of a segment.

Chunks of the inputs come into shared memory while those before them are worked on; the state stays in
registers, and outputs are written from there.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cells.scans.kernels.steps import LANES, Steps, cut, fitted, turned

CHUNK, FEWER = 16, 8  # steps; fewer of more than three arrays, so that several blocks have room
UNROLLED = 4  # steps of one turn of the loop over a chunk; on an H100 1 to 16 made no difference
SHARED = 200 * 1024  # bytes of shared memory that a block takes at most, of the 228 KB of a Hopper


def run(body, dtypes, sums, reverse, way, consts, first, xs):
    """One kernel, as `recurrence._kernel` says it."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import mosaic_gpu as plgpu

    time, batch, channels = xs[0].shape
    segments, width = first[0].shape[0], batch * channels
    steps = Steps.of(way.chunk or (CHUNK if len(xs) <= 3 else FEWER), time, segments)
    depth = max(1, min(way.depth, steps.chunks, SHARED // (len(xs) * steps.chunk * LANES * 4)))
    consts = [fitted(x.reshape(-1), 0, LANES) for x in consts]
    first = [fitted(x.reshape(segments, -1), 1, LANES) for x in first]
    xs = [fitted(fitted(x.reshape(time, -1), 1, LANES), 0, steps.in_all) for x in xs]
    lanes = xs[0].shape[1]
    ends = [jax.ShapeDtypeStruct((segments, lanes), jnp.float32)] * (len(first) + sums)
    outs = [jax.ShapeDtypeStruct((steps.in_all, lanes), dtype) for dtype in dtypes]

    def kernel(*refs):
        const_refs, first_refs, x_refs, out_refs, end_refs = cut(
            refs, len(consts), len(first), len(xs), len(outs)
        )
        segment, block = lax.axis_index("segment"), lax.axis_index("block")
        mine = pl.ds(block * LANES, LANES)
        held = tuple(ref[mine] for ref in const_refs)
        state = tuple(ref[segment, mine] for ref in first_refs)
        state += tuple(jnp.zeros((LANES,), jnp.float32) for _ in range(sums))

        def one_chunk(indices, *tiles_and_state):
            *tiles, state = tiles_and_state
            begin = steps.begin(segment, indices[0], reverse)

            def write(t, ys):
                for ref, y in zip(out_refs, ys, strict=True):
                    ref[begin + t, mine] = y.astype(ref.dtype)

            state = steps.work(body, held, begin, tiles, write, state, len(first), reverse, UNROLLED)
            # The next copy into these tiles waits for what was read of them.
            plgpu.commit_smem()
            return state

        pipeline = plgpu.emit_pipeline(
            one_chunk,
            grid=(steps.chunks,),
            in_specs=[
                plgpu.BlockSpec(
                    (steps.chunk, LANES),
                    lambda i: (segment * steps.chunks + turned(i, steps.chunks, reverse), block),
                )
            ]
            * len(xs),
            max_concurrent_steps=depth,
            init_carry=state,
        )
        for ref, value in zip(end_refs, pipeline(*x_refs), strict=True):
            ref[segment, mine] = value

    interpret = plgpu.InterpretGPUParams(detect_races=True) if way.interpret else None
    out = plgpu.kernel(
        kernel,
        out_type=[*outs, *ends],
        grid=(segments, lanes // LANES),
        grid_names=("segment", "block"),
        # Without this there are two barriers around each output of a step: for nothing, since no thread ever
        # reads what a kernel has written.
        compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=True),
        **({"interpret": interpret} if interpret else {}),
    )(*consts, *first, *xs)
    ys = tuple(y[:time, :width].reshape(time, batch, channels) for y in out[: len(outs)])
    ends = tuple(x[:, :width].reshape(segments, batch, channels) for x in out[len(outs) :])
    return ends[: len(first)], ys, ends[len(first) :]
