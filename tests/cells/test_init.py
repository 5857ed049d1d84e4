"""Initial parameters: shapes, variances, biases, and what each option changes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from cells.s5 import hippo

D, H = 150, 200
KEY = jax.random.key(0)


def close(x, value, tolerance=0.03):
    np.testing.assert_allclose(x, value, rtol=tolerance)


@pytest.mark.parametrize(
    "features, dtype",
    [(1, jnp.bfloat16), pytest.param(4, jnp.float32, marks=pytest.mark.slow)],
    ids=["1", "4"],
)
def test_params_are_flat_finite_and_of_the_dtype(case, features, dtype):
    params = case.cell(4).init(KEY, features, dtype)
    assert type(params) is dict
    for p in params.values():
        assert p.dtype == dtype and 1 <= p.ndim <= 3 and p.size
        assert np.isfinite(np.asarray(p, np.float32)).all()


@pytest.mark.kinds
def test_no_two_parameters_share_their_random_numbers(case):
    cell = case.cell(16)
    random = [np.asarray(p) for p in cell.init(KEY, 16).values() if np.std(p) > 0 and p.ndim >= 2]
    for i, a in enumerate(random):
        for b in random[:i]:
            if a.shape == b.shape:
                assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < max(0.25, 4 / math.sqrt(a.size))
    one, other = (jax.tree.leaves(cell.init(jax.random.key(k), 16)) for k in (1, 2))
    assert not all(map(np.array_equal, one, other))


def test_the_first_carry_is_zero(case):
    for c in jax.tree.leaves(case.cell(4).initial_carry(3)):
        assert c.shape[0] == 3 and c.dtype in (jnp.float32, jnp.complex64) and not c.any()


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


CHRONO = {"lstm": "f", "gru": "z", "sru": "f", "sru_feedback": "f", "mingru": "z", "minlstm": "f"}


def test_every_cell_with_chrono_is_tested(laws):
    assert set(CHRONO) == {name for name in laws.listed() if hasattr(cells.CELLS.cls(name), "chrono")}


@pytest.mark.parametrize("name, gate", CHRONO.items())
def test_chrono_biases_are_logs_of_uniform_times(name, gate):
    """exp(b) is uniform in [1, longest - 1]; an LSTM's input gate mirrors it; minGRU's gate forgets."""
    for longest in (3, 100):
        p = cells.get(name, hidden_size=500, chrono=longest).init(KEY, 1)
        times = np.exp(-p[f"b_{gate}"] if name == "mingru" else p[f"b_{gate}"])
        assert times.min() >= 1 and times.max() <= (longest - 1) * 1.0001
        close(times.mean(), longest / 2, 0.1)
        if name in ("lstm", "minlstm"):
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


@pytest.mark.parametrize(
    "name, options, biases",
    [
        ("qrnn", {"pooling": "ifo", "window": 3, "forget_bias": 1.5}, {"f": 1.5}),
        ("knn", {"decay": "recurrent", "forget_bias": 1.5}, {"l": 1.5}),
        ("mingru", {}, {}),
        ("minlstm", {}, {"f": 1.0}),
        ("rglru", {}, {}),
        ("window", {"window": 3}, {}),
        ("attention", {}, {}),
    ],
)
def test_weights_have_variance_one_over_fan_in_and_biases_are_constant(name, options, biases):
    cell = cells.get(name, hidden_size=H, **options)
    for key, p in cell.init(KEY, D).items():
        if key[0] == "W":
            fan_in = p.size // H
            assert fan_in == (3 * D if "window" in options else H if key == "W_o" else D)
            close(np.var(p), 1 / fan_in)
            assert np.abs(p).max() <= math.sqrt(3 / fan_in)
        if key[0] == "b":
            assert (p == biases.get(key[2:], 0)).all()
    assert "b_l" not in cells.get("knn", hidden_size=3, decay="constant").init(KEY, 2)


def test_xlstm_starts_as_the_authors_package():
    for name, names, heads in (("slstm", "ifzo", 4), ("mlstm", "qkvo", H)):
        p = cells.get(name, hidden_size=H, heads=heads).init(KEY, D)
        for letter in names:
            close(np.var(p[f"W_{letter}"]), 0.4 / D)
        assert not p["b_o"].any()
        spread = np.linspace(3, 6, H // heads if name == "slstm" else heads)
        np.testing.assert_allclose(p["b_f"], np.tile(spread, H // len(spread)), rtol=1e-6)
    assert not any(p[name].any() for name in ("W_i", "W_f"))
    close(np.std(p["b_i"]), 0.1, 0.15)
    p = cells.get("slstm", hidden_size=4, heads=4, forget_bias=1.0).init(KEY, D)
    assert (p["b_f"] == 1).all()
    assert not any(p[f"R_{letter}"].any() for letter in "ifzo")


def uniform(x, low, high):
    """Within [low, high], with the mean and the variance of a uniform distribution."""
    assert low <= x.min() and x.max() <= high
    close(x.mean(), (low + high) / 2, 0.1)
    close(x.std(), (high - low) / math.sqrt(12), 0.1)


@pytest.mark.parametrize(
    "ring",
    [pytest.param({}, marks=pytest.mark.slow), {"r_min": 0.8, "r_max": 0.99, "max_phase": 0.3}],
    ids=str,
)
def test_lru_eigenvalues_are_uniform_on_a_ring(ring):
    cell = cells.get("lru", hidden_size=2000, **ring)
    p = cell.init(KEY, 3)
    radius, phase = np.exp(-np.exp(p["nu"])), np.exp(p["theta"])
    uniform(radius**2, cell.r_min**2 * 0.9999, cell.r_max**2)
    uniform(phase, 0, cell.max_phase)
    np.testing.assert_allclose(np.exp(p["gamma_log"]) ** 2, 1 - radius**2, atol=1e-5)
    for part in ("re", "im"):
        close(np.var(p[f"B_{part}"]), 1 / 6)
        close(np.var(p[f"C_{part}"]), 1 / 2000)
    close(np.var(p["D"]), 1 / 3)
    close(np.var(jax.jit(lambda: cell.init(KEY, 2000)["D"])()), 1, 0.1)  # draws nothing else


def test_lru_states_have_the_variance_of_their_input():
    """What gamma is for (section 3.4): |c|^2 is about 1 for white noise, however near 1 lambda is."""
    for r_min, r_max in ((0.0, 0.9), (0.9, 0.99)):
        cell = cells.get("lru", hidden_size=200, r_min=r_min, r_max=r_max)
        xs = jax.random.normal(KEY, (20, 500, 50))
        close(np.mean(np.abs(cells.scan(cell, cell.init(KEY, 50), xs)[0]) ** 2), 1, 0.15)


def test_s5_starts_as_the_normal_hippo_matrix():
    """Of LegS it is the part that is not of rank one: A = normal - P P^T (appendix B.1)."""
    n = np.arange(16)
    legs = -np.tril(np.sqrt(np.outer(2 * n + 1, 2 * n + 1)), -1) - np.diag(n + 1)
    normal = legs + np.sqrt(np.outer(n + 0.5, n + 0.5))
    positive, V = hippo(8, jnp.float32)
    np.testing.assert_allclose(normal @ V, V * (-0.5 + 1j * positive), atol=1e-3)
    np.testing.assert_allclose(V.conj().T @ V, np.eye(8), atol=1e-5)
    for eigenvalues, omega in {"hippo": positive, "s4d": np.pi * np.arange(1000)}.items():
        N = len(omega)
        p = cells.get("s5", hidden_size=H, eigenvalues=eigenvalues, state_size=N).init(KEY, D)
        np.testing.assert_allclose(p["omega"], omega, rtol=1e-5)
        np.testing.assert_allclose(np.exp(p["alpha"]), 0.5, rtol=1e-6)
        close(np.var(p["B_re"]) + np.var(p["B_im"]), 1 / D, 0.1)
        close(np.var(p["C_re"]) + np.var(p["C_im"]), 1 / (2 * N), 0.1)
    uniform(p["log_dt"], math.log(0.001), math.log(0.1))


def test_rglru_keeps_between_a_min_and_a_max():
    for low, high in ((0.9, 0.999), (0.2, 0.4)):
        options = {} if low == 0.9 else {"a_min": low, "a_max": high}
        p = cells.get("rglru", hidden_size=2000, **options).init(KEY, 3)
        uniform((1 / (1 + np.exp(-p["Lambda"].astype(float)))) ** 8, low * 0.9999, high * 1.0001)
    assert "W_x" in p and "W_x" not in cells.get("rglru", hidden_size=3).init(KEY, 3)


def test_mamba2_time_steps_and_decays():
    p = cells.get("mamba2", hidden_size=2000, heads=2000).init(KEY, 300)
    dt = np.log1p(np.exp(np.asarray(p["b_dt"], float)))
    uniform(np.log(dt), math.log(0.001) * 1.0001, math.log(0.1))
    uniform(np.exp(p["A_log"]), 0.9999, 16.001)
    assert (p["D"] == 1).all()
    for key in ("x", "z", "dt", "B", "C"):
        close(np.var(p[f"W_{key}"]), 1 / 300)


def test_mamba3_starts_dt_as_mamba2_and_the_rest_at_ones():
    p = cells.get("mamba3", hidden_size=2000, heads=2000, state_size=5, rotated=1.0).init(KEY, 300)
    uniform(np.log(np.log1p(np.exp(np.asarray(p["b_dt"], float)))), math.log(0.001) * 1.0001, math.log(0.1))
    sizes = {"x": 2000, "z": 2000, "B": 5, "C": 5, "dt": 2000, "A": 2000, "lam": 2000, "theta": 2}
    for key, size in sizes.items():
        assert p[f"W_{key}"].shape == (300, size)
    close(np.var(p["W_x"]), 1 / 300)
    assert all((p[key] == 1).all() for key in ("w_B", "w_C", "b_B", "b_C", "D"))
    plain = cells.get("mamba3", hidden_size=3, rotated=0.0, trapezoid=False).init(KEY, 3)
    assert {"W_lam", "W_theta"} == {key for key in p if key not in plain}


def test_deltanet_starts_its_decays_as_mamba2_but_for_a():
    p = cells.get("deltanet", hidden_size=2000, heads=2000, state_size=2, products=2).init(KEY, 30)
    uniform(np.log(np.log1p(np.exp(np.asarray(p["b_dt"], float)))), math.log(0.001) * 1.0001, math.log(0.1))
    uniform(np.exp(p["A_log"]), 0, 16.001)
    sizes = {"q": 2, "k": 4, "v": 2, "z": 1, "beta": 2, "dt": 1}
    for key, size in sizes.items():
        assert p[f"W_{key}"].shape == (30, size * 2000)
        close(np.var(p[f"W_{key}"]), 1 / 30)
    plain = cells.get("deltanet", hidden_size=3, decay=False).init(KEY, 3)
    assert set(plain) == {"W_q", "W_k", "W_v", "W_z", "W_beta"}


def test_tcn_weights_are_hes():
    p = cells.get("tcn", hidden_size=H, kernel=4, levels=2).init(KEY, D)
    for n, size in enumerate((D, H, H, H)):
        assert p[f"W_{n}"].shape == (4, size, H) and not p[f"b_{n}"].any()
        close(np.var(p[f"W_{n}"]), 2 / (4 * size))
    close(np.var(p["W_x"]), 1 / D)
    assert not p["b_x"].any() and "W_x" not in cells.get("tcn", hidden_size=3).init(KEY, 3)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("qrnn", {"window": 0}, "QRNN: window must be a positive int, got 0"),
        ("qrnn", {"pooling": "of"}, "QRNN: pooling must be 'f', 'fo' or 'ifo', got 'of'"),
        ("qrnn", {"forget_bias": float("inf")}, "QRNN: forget_bias must be a finite number"),
        ("knn", {"order": True}, "KNN: order must be a positive int, got True"),
        ("knn", {"combine": "sum"}, "KNN: combine must be 'multiplicative' or 'additive'"),
        ("knn", {"decay": "none"}, "KNN: decay must be 'gated', 'recurrent', 'learned' or 'constant'"),
        ("knn", {"activation": "gelu"}, "KNN: activation must be 'tanh', 'relu' or 'identity'"),
        ("knn", {"all_orders": 1}, "KNN: all_orders must be True or False, got 1"),
        ("mingru", {"positive": "yes"}, "MinGRU: positive must be True or False"),
        ("minlstm", {"forget_bias": None}, "MinLSTM: forget_bias must be a finite number"),
        ("gru", {"heads": 3}, "GRU: heads must be a divisor of hidden_size, got 3"),
        ("lstm", {"heads": 2, "diagonal": True}, "LSTM: heads must be 1 with diagonal"),
        ("lru", {"r_min": 0.9, "r_max": 0.8}, "LRU: r_min must be in"),
        ("lru", {"max_phase": 0}, "LRU: max_phase must be above 0"),
        ("s5", {"eigenvalues": "legs"}, "S5: eigenvalues must be 'hippo' or 's4d', got 'legs'"),
        ("s5", {"state_size": -1}, "S5: state_size must be a positive int, or 0: as hidden_size, got -1"),
        ("s5", {"dt_min": 0.2}, "S5: dt_min must be above 0 and at most dt_max, got 0.2"),
        ("rglru", {"a_max": 1.0}, "RGLRU: a_min must be above 0 and at most a_max < 1"),
        ("slstm", {"heads": 5}, "SLSTM: heads must be a divisor of hidden_size, got 5"),
        ("slstm", {"forget": "tanh"}, "SLSTM: forget must be 'sigmoid' or 'exp'"),
        ("mlstm", {"heads": 0}, "MLSTM: heads must be a divisor of hidden_size, got 0"),
        ("mlstm", {"forget": "tanh"}, "MLSTM: forget must be 'sigmoid' or 'exp'"),
        ("mamba2", {"state_size": 1.5}, "Mamba2: state_size must be a positive int"),
        ("mamba2", {"heads": 3}, "Mamba2: heads must be a divisor of hidden_size"),
        ("mamba3", {"rotated": 1.5}, "Mamba3: rotated must be in [0, 1], got 1.5"),
        ("deltanet", {"products": 0}, "DeltaNet: products must be a positive int, got 0"),
        ("deltanet", {"heads": 3}, "DeltaNet: heads must be a divisor of hidden_size"),
        ("tcn", {"levels": 21}, "TCN: levels must be in 1..20, got 21"),
        ("tcn", {"kernel": 1}, "TCN: kernel must be an int of at least 2"),
        ("attention", {"heads": 3}, "Attention: heads must be a divisor of hidden_size"),
        ("attention", {"window": 0}, "Attention: window must be a positive int"),
        ("window", {"window": "8"}, "Window: window must be a positive int, got '8'"),
    ],
)
def test_bad_options_are_refused_with_one_line(name, options, words):
    with pytest.raises(ValueError) as refusal:
        cells.get(name, hidden_size=4, **options)
    assert str(refusal.value).startswith(words) and "\n" not in str(refusal.value)


# --- ablations of the classic cells


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_layer_norm_starts_with_gains_of_one_and_biases_of_zero(name):
    plain, normed = (cells.get(name, hidden_size=4, layer_norm=on).init(KEY, 3) for on in (False, True))
    new = {key: x for key, x in normed.items() if key not in plain}
    assert all((x == key.startswith("gain_")).all() and x.shape == (4,) for key, x in new.items())
    assert {key for key in new if key.startswith("gain_W")} == {
        "gain_" + key for key in plain if key[0] == "W"
    }
    assert {key for key in new if key.startswith("gain_U")} == {
        "gain_" + key for key in plain if key[0] == "U"
    }
    for key, x in plain.items():  # nothing else changes
        np.testing.assert_array_equal(x, normed[key])


def test_a_coupled_lstm_has_the_biases_of_its_forget_gate():
    def biases(**options):
        p = cells.get("lstm", hidden_size=500, coupled=True, **options).init(KEY, 2)
        assert not {key for key in p if key.endswith("_i")}
        return p["b_f"]

    assert (biases() == 1).all() and (biases(forget_bias=-2.0) == -2).all()
    assert 1 <= np.exp(biases(chrono=100)).min() and np.exp(biases(chrono=100)).max() <= 99.01


def test_diagonal_recurrent_weights():
    """IndRNN: in [0, 1], times the scale, or 1; gated cells: in +-1."""

    def U(**options):
        return np.asarray(cells.get("rnn", hidden_size=2000, diagonal=True, **options).init(KEY, 2)["U"])

    assert U().shape == (2000,) and 0 <= U().min() < 0.01 and 0.99 < U().max() <= 1
    np.testing.assert_array_equal(U(recurrent_scale=2.0), 2 * U())
    np.testing.assert_array_equal(U(recurrent_init="identity", recurrent_scale=0.5), np.full(2000, 0.5))
    for name in ("lstm", "gru"):
        p = cells.get(name, hidden_size=2000, diagonal=True).init(KEY, 2)
        for u in (x for key, x in p.items() if key[0] == "U"):
            assert u.shape == (2000,) and -1 <= u.min() < -0.99 and 0.99 < u.max() <= 1


def test_the_recurrent_weights_of_each_head_are_orthogonal_and_its_own():
    for name in ("lstm", "gru"):
        p = cells.get(name, hidden_size=6, heads=2).init(KEY, 2)
        for U in (x for key, x in p.items() if key[0] == "U"):
            np.testing.assert_allclose(U @ jnp.swapaxes(U, 1, 2), np.stack([np.eye(3)] * 2), atol=1e-5)
            assert not np.allclose(*U)


@pytest.mark.parametrize("name", ["sru", "sru_feedback"])
def test_a_projection_keeps_variance_through_the_bottleneck(name):
    p = cells.get(name, hidden_size=H, projection=50).init(KEY, D)
    shapes = {"W_q": (D, 50), "W": (50, H), "W_x": (D, H)}
    assert {key: p[key].shape for key in shapes} == shapes
    close(np.std(p["W_q"]), 1 / math.sqrt(D))
    close(np.std(p["W"]), 1 / math.sqrt(50))
    plain = cells.get(name, hidden_size=H).init(KEY, D)
    np.testing.assert_array_equal(p["W_x"], plain["W_x"])
