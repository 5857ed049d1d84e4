"""Laws of `strategy="newton"` beyond those of all: it converges, and says how fast or that it does not."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import cells
import laws
from cells import Newton

pytestmark = pytest.mark.usefixtures("x64")
WAYS = {  # every kind of Jacobian
    "elementwise": ("sru_feedback", {}, {}),
    "blocks": ("lstm", {"diagonal": True}, {}),
    "heads": ("lstm", {"heads": 2}, {}),
    "dense": ("gru", {}, {"jacobian": "dense"}),
    "quasi": ("gru", {"update_bias": 2.0}, {"jacobian": "diagonal"}),
    "quasi-blocks": ("lstm", {"forget_bias": 2.0}, {"jacobian": "diagonal", "damping": 0.1}),
    "deer": ("rnn", {"recurrent_scale": 0.8}, {"window": 1}),
    "quasi-deer": ("rnn", {"recurrent_scale": 0.5}, {"window": 1, "jacobian": "diagonal"}),
}


def problem(name, time, dtype=np.float64, hidden=8, batch=2, **options):
    """A cell as its authors start it, with random inputs."""
    cell = cells.get(name, hidden_size=hidden, **options)
    params = cell.init(jax.random.key(1), hidden, dtype)
    return cell, params, jax.random.normal(jax.random.key(2), (batch, time, hidden), dtype)


@functools.cache
def gradient(cell, strategy, newton=None, reverse=False):
    """Compiled: arguments -> (carry, ys, report), gradients of params and xs."""

    @jax.jit
    def run(params, xs, resets=None):
        def loss(params, xs):
            result = cells.scan(
                cell,
                params,
                xs,
                strategy=strategy,
                newton=newton,
                report=True,
                resets=resets,
                reverse=reverse,
            )
            return laws.scalar(result[:2]), result

        gradients, result = jax.grad(loss, (0, 1), has_aux=True)(params, xs)
        return result, gradients

    return run


def compare(cell, newton, *args, tolerance, reverse=False):
    """The report of a run that did what a sequential one does."""
    (*got, report), d_got = gradient(cell, "newton", newton, reverse)(*args)
    (*want, _), d_want = gradient(cell, "sequential", None, reverse)(*args)
    laws.same(got, want, tolerance)
    laws.same(d_got, d_want, tolerance)
    return jax.tree.map(lambda x: x.item(), report)


@pytest.mark.parametrize(
    "way, reverse",
    [
        *(
            pytest.param(way, False, marks=[pytest.mark.slow] * (way not in ("heads", "elementwise")))
            for way in WAYS
        ),
        ("blocks", True),
    ],
)
def test_every_jacobian_gives_the_sequential_result(way, reverse):
    name, options, how = WAYS[way]
    cell, params, xs = problem(name, 75, **options)
    resets = np.random.default_rng(0).random(xs.shape[:2]) < 0.02
    report = compare(cell, Newton(**how), params, xs, resets, reverse=reverse, tolerance=1e-10)
    assert not report.fallback and 1 < report.iterations <= 75 and report.residual <= 1e-12


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-10), (np.float32, 1e-5)], ids=["64", "32"])
@pytest.mark.parametrize("time", [2, pytest.param(1000, marks=pytest.mark.slow), 16384])
@pytest.mark.slow
def test_sru_with_feedback_converges_in_a_few_iterations_at_any_length(time, dtype, tolerance):
    cell, params, xs = problem("sru_feedback", time, dtype)
    with jax.enable_x64(dtype == np.float64):
        report = compare(cell, None, params, xs, tolerance=tolerance)
    assert not report.fallback and report.iterations <= 6


@pytest.mark.parametrize("v, most", [(1.0, 4), (1.7, 8)])
@pytest.mark.slow
def test_windows_need_few_iterations_where_single_steps_need_many(v, most):
    cell, params, xs = problem("sru_feedback", 512)
    params |= {name: v * jnp.sign(params[name]) for name in ("v_f", "v_r")}
    windows = compare(cell, None, params, xs, tolerance=1e-10)
    deer = compare(cell, Newton(window=1), params, xs, tolerance=1e-10)
    assert windows.iterations <= most < deer.iterations


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sru_feedback", "gru"])
def test_it_converges_after_training_too(name):
    """On the mean of the inputs so far, which takes memory; with Newton's method from first to last."""
    cell, params, xs = problem(name, 200, batch=8)
    target = jnp.cumsum(xs, 1) / jnp.arange(1, 201)[:, None]
    optimiser = optax.adam(0.02)

    @jax.jit
    def train(params):
        def step(state, _):
            def loss(params):
                return jnp.mean((cells.scan(cell, params, xs, strategy="newton")[1] - target) ** 2)

            value, d_params = jax.value_and_grad(loss)(state[0])
            updates, optimiser_state = optimiser.update(d_params, state[1])
            return (optax.apply_updates(state[0], updates), optimiser_state), value

        return jax.lax.scan(step, (params, optimiser.init(params)), None, 150)

    (params, _), losses = train(params)
    assert losses[-1] < losses[0] / 3
    long = jax.random.normal(jax.random.key(3), (2, 16384 if name == "sru_feedback" else 2000, 8))
    report = compare(cell, None, params, long, tolerance=1e-10)
    assert not report.fallback and report.iterations <= 12


def test_as_many_iterations_as_windows_always_suffice():
    """Each makes one more window exact, even of a chaotic network."""
    cell, params, xs = problem("rnn", 60, hidden=20, recurrent_scale=3.0)
    report = compare(cell, Newton(window=6), params, xs, tolerance=1e-10)
    assert report.iterations <= 10 and not report.fallback


def test_products_of_jacobians_may_overflow():
    """Of a latch that may also jump: |v| is so large that Newton's moves leave the range of float32."""
    with jax.enable_x64(False):
        cell, params, xs = problem("sru_feedback", 4096, np.float32)
        params |= {"v_f": 60 * jnp.sign(params["v_f"])}
        run = functools.partial(cells.scan, cell, params, xs)
        *got, report = run(strategy="newton", report=True)
        assert report.iterations <= 64 and not report.fallback
        assert np.mean(np.abs(got[1] - run(strategy="sequential")[1]) > 1e-4) < 0.01


# --- what does not converge


@pytest.mark.parametrize("way", ["elementwise", "dense", "quasi-blocks"])
def test_what_has_not_converged_is_computed_sequentially_with_a_warning(way):
    name, options, how = WAYS[way]
    cell, params, xs = problem(name, 75, **options)
    with pytest.warns(RuntimeWarning, match="did not converge in 1 iterations .residual .*step by step"):
        report = compare(cell, Newton(**how, iterations=1), params, xs, tolerance=1e-12)
        jax.effects_barrier()
    assert report.fallback and report.iterations == 1 and report.residual > 1e-12


def test_only_a_row_that_fell_back_warns_under_vmap():
    cell, params, xs = problem("sru_feedback", 400)
    seeds = jax.tree.map(lambda p: jnp.stack([p, p]), params)
    seeds["v_f"] *= jnp.array([[1.0], [40.0]])
    how = Newton(iterations=6)

    @jax.jit
    @jax.vmap
    def run(params):
        return cells.scan(cell, params, xs, strategy="newton", newton=how, report=True)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        carry, ys, report = run(seeds)
        jax.effects_barrier()
    assert report.fallback.tolist() == [False, True]
    assert len([w for w in caught if "did not converge" in str(w.message)]) == 1
    want = jax.vmap(lambda params: cells.scan(cell, params, xs, strategy="sequential"))(seeds)
    laws.same((carry, ys), want, 1e-10)


def test_states_that_overflow_are_those_of_a_sequential_run():
    cell, params, xs = problem("rnn", 300, np.float32, activation="relu", recurrent_scale=40.0)
    with jax.enable_x64(False), pytest.warns(RuntimeWarning, match="residual inf"):
        got, want = (cells.scan(cell, params, xs, strategy=s) for s in ("newton", "sequential"))
        jax.effects_barrier()
    assert not np.isfinite(got[1]).all()
    jax.tree.map(np.testing.assert_array_equal, got, want)


# --- what it costs and says


def test_other_strategies_report_no_iterations():
    cell, params, xs = problem("sru", 20)
    for strategy in ("sequential", "associative", "chunked"):
        *got, report = cells.scan(cell, params, xs, strategy=strategy, report=True)
        assert report == cells.Report(0, 0.0, False)
        laws.same(tuple(got), cells.scan(cell, params, xs, strategy=strategy))


def test_a_report_of_chunks_adds_their_iterations_up():
    cell, params, xs = problem("gru", 40)
    *got, whole = cells.scan(cell, params, xs, strategy="newton", remat=10, report=True)
    parts = [cells.scan(cell, params, xs[:, :10], strategy="newton", report=True)[2]]
    laws.same(tuple(got), cells.scan(cell, params, xs, strategy="sequential"))
    assert int(whole.iterations) > parts[0].iterations and not whole.fallback


def test_memory_of_a_gradient_is_at_most_twice_that_of_a_sequential_run():
    cell = cells.get("sru_feedback", hidden_size=32)
    params = jax.eval_shape(functools.partial(cell.init, input_size=32), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((2, 4096, 32), jnp.float32)

    def planned(strategy):
        def loss(params, xs):
            return cells.scan(cell, params, xs, strategy=strategy)[1].sum()

        compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert planned("newton") < 2 * planned("sequential")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"window": -1}, "window must be an integer, 0 or more"),
        ({"iterations": -1}, "iterations must be an integer, 0 or more"),
        ({"jacobian": "full"}, "jacobian must be 'auto', 'dense' or 'diagonal'"),
        ({"tolerance": -1.0}, r"tolerance must be in \[0, 1\)"),
        ({"damping": 1.0}, r"damping must be in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused_with_one_line(options, words):
    with pytest.raises(ValueError, match=f"Newton: {words}, got") as refusal:
        Newton(**options)
    assert "\n" not in str(refusal.value)


def test_something_else_than_options_is_refused():
    cell, params, xs = problem("gru", 3)
    with pytest.raises(ValueError, match="newton must be a cells.Newton beside .*, got 3"):
        cells.scan(cell, params, xs, strategy="newton", newton=3)


# --- more than one device


@pytest.mark.two_devices
def test_a_batch_split_over_devices_has_the_gradient_of_the_whole():
    """Under `shard_map`, which checks what differs between devices."""
    for way in ("elementwise", "quasi"):
        name, options, how = WAYS[way]
        cell, params, xs = problem(name, 20, **options)

        def gradient(params, xs, cell=cell, how=how):
            def loss(params):
                ys = cells.scan(cell, params, xs, strategy="newton", newton=Newton(**how))[1]
                return jax.lax.psum(jnp.sin(ys).sum(), "batch")

            return jax.grad(loss)(params)

        def sharded(devices, gradient=gradient):
            mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
            specs = {"in_specs": (P(), P("batch")), "out_specs": P()}
            return jax.jit(jax.shard_map(gradient, mesh=mesh, check_vma=True, **specs))

        laws.same(*(sharded(devices)(params, xs) for devices in (2, 1)))


@pytest.mark.slow
def test_on_two_devices(on_two_devices):
    on_two_devices(__file__)
