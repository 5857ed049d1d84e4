"""Laws of a scan, for every cell, option and strategy, on drawn problems."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import cells
import laws
from laws import BATCH, TIME
from quickly import quickly

pytestmark = pytest.mark.usefixtures("x64")

KINDS = pytest.mark.kinds  # one cell of each kind and strategy; all others with -m slow
FEW = pytest.mark.kinds("lstm", "sru")  # likewise, of these: derivatives take long to compile


def others(name):
    """Strategies beside the sequential one, for any number of steps: Newton's method may take as many as a
    chaotic cell has steps."""
    strategies = cells.strategies(cells.get(name, hidden_size=1))
    return [s for s in strategies if s not in ("stepwise", "newton", "auto")]


# --- what a scan is


@KINDS  # test_equations.py has all outputs, test_gradient_by_hand.py all gradients
@given(draw=laws.draws, reverse=laws.directions)
def test_a_scan_is_the_loop_over_step(case, strategy, represents, draw, reverse):
    """Outputs, final carry and all gradients, with mask, lengths, resets and an initial carry at once.

    Backwards in time one cell of each kind, as in all laws of flags."""
    cell, reverse = case.cell(laws.HIDDEN), reverse and represents
    p = draw.problem(cell)
    got, want = (laws.runner(cell, s, reverse)(p) for s in (strategy, "loop"))
    laws.same(got, want)


@FEW
@given(seed=laws.seeds)
def test_one_step_and_as_many_inputs_as_units(case, strategy, seed):
    cell = case.cell(laws.HIDDEN)
    p = laws.problem(cell, (2, 1, cell.hidden_size), seed)
    got, want = (laws.runner(cell, s, reverse=True)(p) for s in (strategy, "loop"))
    laws.same(got, want)


@FEW
@given(seed=laws.seeds, reverse=laws.directions)
def test_flags_that_say_nothing_and_padding_change_nothing(case, strategy, seed, reverse):
    """A scan without flags and carry is one from zeros, in a longer sequence."""
    cell, time = case.cell(laws.HIDDEN), TIME - 1
    p = laws.problem(cell, seed=seed, flags=False)._replace(carry=laws.initial(cell))
    padded = laws.runner(cell, strategy, reverse)(p._replace(lengths=np.full(BATCH, time)))
    got = laws.values(cell, strategy, reverse)(p.params, p.xs[:, :time])
    laws.same(got, (padded.carry, padded.ys[:, :time]))


@pytest.mark.kinds("lstm", "sru", "mlstm", "lru")
@given(draw=laws.draws, reverse=laws.directions, cut=laws.cuts)
def test_a_run_may_stop_and_go_on_at_any_step(case, strategy, draw, reverse, cut):
    """Chained by the carry, which is the one after the last real step."""
    cell = case.cell(laws.HIDDEN)
    p, run = draw.problem(cell), laws.runner(cell, strategy, reverse)
    early = laws.taken(reverse) < cut
    one = run(p._replace(mask=p.mask & early))
    two = run(p._replace(mask=p.mask & ~early, carry=one.carry))
    want = run(p)
    laws.same((one.ys + two.ys, two.carry), (want.ys, want.carry))


# --- padding, masks and resets


@KINDS
@given(
    draw=laws.draws,
    reverse=laws.directions,
    junk=st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 1e30, 1e300]), min_size=1, max_size=3),
)
def test_padding_holds_anything_and_changes_nothing(case, strategy, draw, reverse, junk):
    """Bit for bit. Its outputs and gradients are zero, and without other steps the carry stays."""
    cell = case.cell(laws.HIDDEN)
    p, run = draw.problem(cell), laws.runner(cell, strategy, reverse)
    padding, want = ~p.valid, run(p)
    dirty = np.where(padding[..., None], np.resize(junk, p.xs.shape), p.xs)
    laws.same(run(p._replace(xs=dirty)), want, 0)
    assert not np.any(want.ys[padding]) and not np.any(want.gradients[1][padding])
    empty = padding.all(1)
    laws.same(*(jax.tree.map(lambda c: c[empty], carry) for carry in (want.carry, p.carry)), 0)


@KINDS
@given(draw=laws.draws, reverse=laws.directions)
def test_skipped_elements_are_as_if_they_were_not_there(case, strategy, draw, reverse):
    """A masked run is the run on what is left when the masked elements, resets and all, are cut out."""
    cell = case.cell(laws.HIDDEN)
    p, run = draw.problem(cell), laws.runner(cell, strategy, reverse)
    order = np.argsort(~p.valid, axis=1, kind="stable")

    def cut(x):
        return np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 1)

    short = p._replace(xs=cut(p.xs), resets=cut(p.resets), lengths=p.valid.sum(1), mask=p.mask | True)
    got, want = run(p), run(short)
    d_params, d_xs, d_carry = got.gradients
    laws.same(got._replace(ys=cut(got.ys), gradients=(d_params, cut(d_xs), d_carry)), want)


@KINDS
@pytest.mark.filterwarnings("ignore:newton")  # infinity makes it go step by step
@given(draw=laws.draws, reverse=laws.directions, cut=st.integers(0, TIME - 1))
def test_a_reset_is_a_fresh_start_whatever_came_before(case, strategy, draw, reverse, cut):
    """Infinity too, but where matmuls are: they multiply what a step does not see by zero."""
    cell = case.cell(laws.HIDDEN)
    p, run = draw.problem(cell), laws.runner(cell, strategy, reverse)
    matmuls = strategy == "chunkwise" or (case.name, strategy) == ("attention", "parallel")
    early, here = laws.taken(reverse) < cut, laws.taken(reverse) == cut
    p = p._replace(lengths=np.full(BATCH, TIME), mask=p.mask | here)
    fresh = run(p._replace(mask=p.mask & ~early, resets=p.resets & ~here, carry=laws.initial(cell)))
    for before in (p.xs, p.xs + 1 if matmuls else np.inf):
        xs = np.where(early[:, None], before, p.xs)
        got = run(p._replace(xs=xs, resets=p.resets | here))
        laws.same((got.ys[:, ~early], got.carry), (fresh.ys[:, ~early], fresh.carry))


@KINDS
@given(draw=laws.draws, reverse=laws.directions)
def test_a_reset_at_a_skipped_element_is_skipped(case, strategy, draw, reverse):
    cell = case.cell(laws.HIDDEN)
    p, run = draw.problem(cell), laws.runner(cell, strategy, reverse)
    more, fewer = (run(p._replace(resets=r)) for r in (p.resets | ~p.valid, p.resets & p.valid))
    laws.same(more, fewer, 0)


# --- order


@pytest.mark.kinds("lstm", "sru", "mlstm", "lru")
@given(draw=laws.draws)
def test_reverse_is_flipping_inside_each_length(case, strategy, draw):
    cell = case.cell(laws.HIDDEN)
    p, t = draw.problem(cell), np.arange(TIME)
    order = np.where(t < p.lengths[:, None], p.lengths[:, None] - 1 - t, t)

    def flip(x):
        return np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 1)

    flipped = p._replace(xs=flip(p.xs), mask=flip(p.mask), resets=flip(p.resets))
    got, want = laws.runner(cell, strategy, True)(p), laws.runner(cell, strategy)(flipped)
    d_params, d_xs, d_carry = want.gradients
    laws.same(got, want._replace(ys=flip(want.ys), gradients=(d_params, flip(d_xs), d_carry)))


@KINDS
@given(draw=laws.draws, other=laws.draws, reverse=laws.directions, cut=laws.cuts)
def test_no_step_sees_later_ones(case, strategy, draw, other, reverse, cut):
    """Neither their inputs nor their flags."""
    cell = case.cell(laws.HIDDEN)
    p, run = draw.problem(cell)._replace(lengths=np.full(BATCH, TIME)), laws.runner(cell, strategy, reverse)
    late, q = laws.taken(reverse) >= cut, other.problem(cell)
    changed = p._replace(
        xs=np.where(late[:, None], q.xs, p.xs),
        mask=np.where(late, q.mask, p.mask),
        resets=np.where(late, q.resets, p.resets),
    )
    laws.same(run(changed).ys[:, ~late], run(p).ys[:, ~late], 1e-13)


@KINDS
@given(
    draw=laws.draws,
    rows=st.lists(st.integers(0, BATCH - 1), min_size=BATCH, max_size=BATCH),
    reverse=laws.directions,
)
def test_no_row_sees_others(case, strategy, draw, rows, reverse):
    """Rows in another order, or one row in place of all."""
    cell = case.cell(laws.HIDDEN)
    p, run = draw.problem(cell), laws.runner(cell, strategy, reverse)
    got, want = run(laws.Problem(p.params, *jax.tree.map(lambda x: x[rows], p[1:]))), run(p)
    laws.same((got.ys, got.carry), jax.tree.map(lambda x: x[rows], (want.ys, want.carry)), 1e-13)


# --- derivatives


@KINDS
@given(draw=laws.draws, along=laws.seeds, reverse=laws.directions)
def test_gradients_are_those_of_finite_differences(case, strategy, draw, along, reverse):
    cell = case.cell(laws.HIDDEN)
    p, run = draw._replace(scale=1.0).problem(cell), laws.runner(cell, strategy, reverse)
    tangents = laws.problem(cell, seed=along)[:3]
    gradients = run(p).gradients
    assume(not laws.steep(gradients))
    change = laws.difference(lambda p: laws.scalar(run(p)[:2], np), p, tangents)
    laws.same(laws.dot(gradients, tangents), change, 1e-6)


@FEW
@given(seed=laws.seeds, along=laws.seeds)
def test_forward_mode_and_second_derivatives(case, strategy, seed, along):
    """The jvp of the loss and of its gradient (a Hessian-vector product), without flags."""
    cell = case.cell(laws.HIDDEN)
    p, run = laws.problem(cell, seed=seed, flags=False), laws.runner(cell, strategy)
    tangents = laws.problem(cell, seed=along)[:3]
    change, gradients, hvp = laws.derivatives(cell, strategy)(p[:3], tangents)
    laws.same(gradients, run(p).gradients, what="gradient")
    laws.same(change, laws.dot(gradients, tangents), what="jvp")
    assume(not laws.steep(hvp))
    laws.same(hvp, laws.difference(lambda p: run(p).gradients, p, tangents), 1e-6, "hessian")


@FEW
@given(draws=st.tuples(laws.draws, laws.draws))
def test_gradients_under_checkpoint_and_mapped_over_seeds_and_inputs(case, strategy, draws):
    cell = case.cell(laws.HIDDEN)
    run, ps = laws.runner(cell, strategy), [draw.problem(cell) for draw in draws]
    each = [[run(p._replace(params=s.params)).gradients[0] for p in ps] for s in ps]
    sums = [jax.tree.map(np.add, *gradients) for gradients in each]
    ps, want = (jax.tree.map(lambda *x: np.stack(x), *trees) for trees in (ps, sums))
    laws.same(laws.mapped_gradient(cell, strategy)(*ps), want)


@FEW
@given(draw=laws.draws)
def test_states_computed_again_change_nothing(case, strategy, draw):
    """In chunks that do not divide the time, backwards in time; forwards is in test_remat.py."""
    cell = case.cell(laws.HIDDEN)
    p = draw.problem(cell)
    got, want = (laws.runner(cell, strategy, True, remat)(p) for remat in (2, 0))
    laws.same(got, want)


# --- precision


@pytest.mark.kinds("lstm", "sru", "mlstm", "tcn", "lru")
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 2e-5), (jnp.bfloat16, 0.08)], ids=["32", "16"])
@given(seed=laws.seeds)
@example(seed=1777)  # a layer norm over next to nothing
def test_float32_and_bfloat16(case, strategy, dtype, tolerance, seed):
    """float32 is within 2e-5 of float64, bfloat16 within 8%, and twice what rounding the inputs alone does
    (much where a layer norm divides by next to nothing); the carry is float32 in both."""
    cell = case.cell(laws.HIDDEN)
    p = laws.problem(cell, seed=seed)._replace(carry=laws.initial(cell))
    want = laws.runner(cell, "loop")(p)
    with jax.enable_x64(False):
        params, xs = jax.tree.map(lambda x: jnp.asarray(x, dtype), p[:2])
        carry, ys = laws.values(cell, strategy)(params, xs, None, *p[3:])
    assert ys.dtype == dtype
    assert {c.dtype for c in jax.tree.leaves(carry)} <= {np.dtype("float32"), np.dtype("complex64")}
    rounded = jax.tree.map(lambda x: np.asarray(x, dtype).astype(x.dtype), p[:2])
    moved = laws.runner(cell, "loop")(p._replace(params=rounded[0], xs=rounded[1]))
    both = zip(jax.tree.leaves((moved.carry, moved.ys)), jax.tree.leaves((want.carry, want.ys)), strict=True)
    by_rounding = max(np.abs(m - w).max(initial=0) / np.abs(w).max(initial=1) for m, w in both)
    laws.same((carry, ys), (want.carry, want.ys), tolerance + 2 * by_rounding)


@KINDS
def test_the_wider_of_two_dtypes_counts(case, strategy):
    """bfloat16 inputs to float32 parameters are computed in float32, and the other way round."""
    cell = case.cell(laws.HIDDEN)
    with jax.enable_x64(False):
        p = laws.problem(cell, dtype=np.float32)
        for low, high in ((jnp.bfloat16, jnp.float32), (jnp.float32, jnp.bfloat16)):
            params = jax.tree.map(lambda x, low=low: jnp.asarray(x, low), p.params)
            run = functools.partial(cells.scan, cell, strategy=strategy)
            carry, ys = jax.eval_shape(run, params, jnp.asarray(p.xs, high))
            assert ys.dtype == jnp.float32
            assert jax.tree.map(lambda c: c.dtype, carry) == jax.tree.map(lambda c: c.dtype, p.carry)


# --- long sequences


@pytest.mark.parametrize("name", quickly(cells.names(), "lstm", "sru", "mlstm"))
def test_long_sequences_in_float32(name):
    """3,000 steps, in chunks as long as they are: every strategy within 1e-5 of the textbook step."""
    cell = cells.get(name, hidden_size=4)
    with jax.enable_x64(False):
        p = laws.problem(cell, (2, 3000, 3), flags=False, dtype=np.float32)
        want, *rest = (
            laws.jit(functools.partial(cells.scan, cell, strategy=s))(*p[:3])
            for s in ("stepwise", *others(name))
        )
    for strategy, got in zip(others(name), rest, strict=True):
        laws.same(got, want, 1e-5, strategy)
