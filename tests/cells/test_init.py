"""Initial parameters: shapes, variances, biases, and what each option changes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells

D, H = 150, 200
KEY = jax.random.key(0)


def close(x, value, tolerance=0.03):
    np.testing.assert_allclose(x, value, rtol=tolerance)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("features", [1, 4, 5])
def test_params_are_flat_finite_and_of_the_dtype(case, features, dtype):
    cell = case.cell(4)
    for p in cell.init(KEY, features, dtype).values():
        assert p.dtype == dtype and p.shape[-1] == 4 and p.shape[:-1] in ((), (features,), (4,))
        assert np.isfinite(np.asarray(p, np.float32)).all()


def test_no_two_parameters_share_their_random_numbers(case):
    cell = case.cell(16)
    random = [np.asarray(p) for p in cell.init(KEY, 16).values() if np.std(p) > 0 and p.ndim == 2]
    for i, a in enumerate(random):
        for b in random[:i]:
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.25
    assert not np.array_equal(*(jax.tree.leaves(cell.init(jax.random.key(k), 16))[0] for k in (1, 2)))


def test_the_first_carry_is_zero(case):
    for c in jax.tree.leaves(case.cell(4).initial_carry(3)):
        assert c.shape == (3, 4) and c.dtype == jnp.float32 and not c.any()


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_input_weights_have_variance_one_over_fan_in_and_recurrent_ones_are_orthogonal(name):
    for key, p in cells.get(name, hidden_size=H).init(KEY, D).items():
        if key[0] == "W":
            close(np.var(p), 1 / D)
            assert np.abs(p).max() <= math.sqrt(3 / D)
        if key[0] == "U":
            np.testing.assert_allclose(p @ p.T, np.eye(H), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"highway_bias": -2.0}, {"rescale": False}], ids=str)
@pytest.mark.parametrize("name, fed", [("sru", ""), ("sru+", "r"), ("sru_feedback", "fr")])
def test_sru_weights_are_those_of_the_authors_recipe(name, fed, options):
    feedback = {"reset_feedback": True} if name == "sru+" else {}
    cell = cells.get(name.strip("+"), hidden_size=H, **feedback, **options)
    p, bias = cell.init(KEY, D), options.get("highway_bias", 0.0)
    alpha = math.sqrt(1 + 2 * math.exp(bias)) if options.get("rescale", True) else 1.0
    assert cell.alpha == pytest.approx(alpha)
    factors = {"W": 1.0, "W_x": alpha} | {
        f"W_{gate}": math.sqrt(0.5) if gate in fed else 1.0 for gate in "fr"
    }
    for key, factor in factors.items():
        close(np.std(p[key]), factor / math.sqrt(D))
        assert np.abs(p[key]).max() <= 1.0001 * factor * math.sqrt(3 / D)
    assert {key for key in p if key[0] == "v"} == {f"v_{gate}" for gate in fed}
    for gate in fed:
        close(np.std(p[f"v_{gate}"]), math.sqrt(0.5), 0.15)
        assert np.abs(p[f"v_{gate}"]).max() <= math.sqrt(1.5)
    assert not p["b_f"].any() and (p["b_r"] == bias).all()
    assert "W_x" not in cell.init(KEY, H)
    assert "W_x" not in cells.get(name.strip("+"), hidden_size=H, highway=False).init(KEY, D)


@pytest.mark.parametrize("name, gate", [("lstm", "f"), ("gru", "z"), ("sru", "f"), ("sru_feedback", "f")])
def test_chrono_biases_are_logs_of_uniform_times(name, gate):
    """exp(b) is uniform in [1, longest - 1]; an LSTM's input gate mirrors it."""
    for longest in (3, 100):
        p = cells.get(name, hidden_size=500, chrono=longest).init(KEY, 1)
        times = np.exp(p[f"b_{gate}"])
        assert times.min() >= 1 and times.max() <= (longest - 1) * 1.0001
        close(times.mean(), longest / 2, 0.1)
        if name == "lstm":
            np.testing.assert_array_equal(p["b_i"], -p["b_f"])


def test_constant_biases():
    lstm, gru = cells.get("lstm", hidden_size=3), cells.get("gru", hidden_size=3, update_bias=0.5)
    p = lstm.init(KEY, 2)
    assert (p["b_f"] == 1).all() and not any(p[f"b_{gate}"].any() for gate in "igo")
    assert (cells.get("lstm", hidden_size=3, forget_bias=2.5).init(KEY, 2)["b_f"] == 2.5).all()
    assert (gru.init(KEY, 2)["b_z"] == 0.5).all() and not gru.init(KEY, 2)["b_r"].any()
    for name in ("sru", "sru_feedback"):
        assert (cells.get(name, hidden_size=3, forget_bias=1.5).init(KEY, 2)["b_f"] == 1.5).all()


def test_rnn_recurrent_weights():
    identity = cells.get("rnn", hidden_size=5, recurrent_init="identity", recurrent_scale=0.5).init(KEY, 2)
    np.testing.assert_array_equal(identity["U"], 0.5 * np.eye(5))
    U = np.asarray(cells.get("rnn", hidden_size=5, recurrent_scale=2.0).init(KEY, 2)["U"])
    np.testing.assert_allclose(U @ U.T, 4 * np.eye(5), atol=1e-5)


def test_an_sru_keeps_the_variance_of_its_input_over_depth():
    """What alpha is for (section 3.2): with it, h has about the variance of x; without it, much less."""

    def variance(rescale):
        xs = jax.random.normal(KEY, (16, 30, 64))
        for layer in range(4):
            cell = cells.get("sru_feedback", hidden_size=64, rescale=rescale)
            _, xs = cells.scan(cell, cell.init(jax.random.key(layer), 64), xs)
        return float(np.var(xs))

    assert 0.5 < variance(True) < 1.5 and variance(False) < 0.4
