"""Each cell against its paper's equations, written out in NumPy float64."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from quickly import quickly

pytestmark = pytest.mark.usefixtures("x64")


def sigma(a):
    return 1 / (1 + np.exp(-a))


def matrix(U):
    """A diagonal one is kept as a vector, a block-diagonal one as its blocks."""
    if U.ndim == 3:
        return np.block([[V * (i == j) for j in range(len(U))] for i, V in enumerate(U)])
    return np.diag(U) if U.ndim == 1 else U


def norm(a, axes=-1):
    return (a - a.mean(axes, keepdims=True)) / np.sqrt(a.var(axes, keepdims=True) + 1e-5)


def summed(cell, p, x, h_, gates):
    """W x + U h' + b of each gate, each of the two normalised over these gates."""
    a = {k: p["b_" + k] for k in gates}
    for kind, seen in (("W", x), ("U", h_)):
        products = np.stack([seen @ matrix(p[f"{kind}_{k}"]) for k in gates])
        if cell.layer_norm:
            gains = np.stack([p[f"gain_{kind}_{k}"] for k in gates])
            products = gains[:, None] * norm(products, (0, 2))
        a = {k: a[k] + product for k, product in zip(gates, products, strict=True)}
    return a


def rnn(cell, p, x, h):
    a = x @ p["W"] + h @ matrix(p["U"]) + p["b"]
    h = np.maximum(a, 0) if cell.activation == "relu" else np.tanh(a)
    return h, h


def lstm_output(cell, p, c):
    return np.tanh(p["gain_c"] * norm(c) + p["bias_c"] if cell.layer_norm else c)


def lstm(cell, p, x, carry):
    c_, h_ = carry
    a = summed(cell, p, x, h_, "fog" if cell.coupled else "ifog")
    v = {k: p["p_" + k] if cell.peepholes else 0.0 for k in a if k != "g"}
    f = sigma(a["f"] + v["f"] * c_)
    i = 1 - f if cell.coupled else sigma(a["i"] + v["i"] * c_)
    c = f * c_ + i * np.tanh(a["g"])
    h = sigma(a["o"] + v["o"] * c) * lstm_output(cell, p, c)
    return (c, h), h


def gru_candidate(cell, p, x, h_, r):
    def own(kind, seen):
        product = seen @ matrix(p[kind + "_n"])
        return p[f"gain_{kind}_n"] * norm(product) if cell.layer_norm else product

    inner = r * (own("U", h_) + p["c_n"]) if cell.reset_after else own("U", r * h_)
    return np.tanh(own("W", x) + p["b_n"] + inner)


def gru(cell, p, x, h_):
    a = summed(cell, p, x, h_, "rz" if cell.reset_gate else "z")
    r, z = sigma(a["r"]) if cell.reset_gate else 1.0, sigma(a["z"])
    h = z * h_ + (1 - z) * gru_candidate(cell, p, x, h_, r)
    return h, h


def sru_features(cell, p, x):
    x = x @ p["W_q"] if cell.projection else x
    return p["gain"] * norm(x) + p["bias"] if cell.layer_norm else x


def factor(cell, a):
    return 2 * a - 1 if cell.negative_eigenvalues else a


def sru(cell, p, x, c_):
    v_f = p["v_f"] if isinstance(cell, cells.CELLS.cls("sru_feedback")) else 0.0
    v_r = p["v_r"] if isinstance(cell, cells.CELLS.cls("sru_feedback")) or cell.reset_feedback else 0.0
    seen = sru_features(cell, p, x)
    f = sigma(seen @ p["W_f"] + v_f * c_ + p["b_f"])
    c = factor(cell, f) * c_ + (1 - f) * (seen @ p["W"])
    r = sigma(seen @ p["W_r"] + v_r * c_ + p["b_r"])
    alpha = np.sqrt(1 + 2 * np.exp(cell.highway_bias)) if cell.rescale else 1.0
    if not cell.highway:
        return c, r * c
    highway = x @ p["W_x"] if x.shape[-1] != cell.hidden_size else x * alpha
    return c, r * c + (1 - r) * highway


def knn(cell, p, x, cs):
    cs = cs if isinstance(cs, list) else [cs]
    activation = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0), "identity": lambda a: a}[
        cell.activation
    ]

    def output(cs):
        return activation(sum(cs) if cell.all_orders else cs[-1])

    keep = {
        "constant": lambda: sigma(cell.forget_bias),
        "learned": lambda: sigma(p["b_l"]),
        "gated": lambda: sigma(x @ p["W_l"] + p["b_l"]),
        "recurrent": lambda: sigma(x @ p["W_l"] + output(cs) @ p["U_l"] + p["b_l"]),
    }[cell.decay]()
    factor = 1 - keep if cell.normalised else 1.0
    new = [keep * cs[0] + factor * (x @ p["W_1"])]
    for j in range(2, cell.order + 1):
        u = x @ p[f"W_{j}"]
        joined = cs[j - 2] * u if cell.combine == "multiplicative" else cs[j - 2] + u
        new.append(keep * cs[j - 1] + factor * joined)
    return new, output(new)


def g(u):
    return np.where(u >= 0, u + 0.5, sigma(u))


def mingru(cell, p, x, h_):
    z, u = sigma(x @ p["W_z"] + p["b_z"]), x @ p["W_h"] + p["b_h"]
    h = factor(cell, 1 - z) * h_ + z * (g(u) if cell.positive else u)
    return h, h


def minlstm(cell, p, x, h_):
    f, i = (sigma(x @ p["W_" + k] + p["b_" + k]) for k in "fi")
    u = x @ p["W_h"] + p["b_h"]
    h = factor(cell, f / (f + i)) * h_ + i / (f + i) * (g(u) if cell.positive else u)
    return h, h


def lru(cell, p, x, c_):
    Lambda = np.diag(np.exp(-np.exp(p["nu"])) * np.exp(1j * np.exp(p["theta"])))
    B, C = p["B_re"] + 1j * p["B_im"], p["C_re"] + 1j * p["C_im"]
    c = c_ @ Lambda + np.exp(p["gamma_log"]) * (x @ B)
    D = np.diag(p["D"]) if p["D"].ndim == 1 else p["D"]
    return c, (c @ C).real + x @ D


def s5(cell, p, x, c_):
    """The whole state of the paper, conjugates and all."""

    def whole(half, axis=-1):
        return np.concatenate([half, half.conj()], axis)

    Lambda, dt = whole(-np.exp(p["alpha"]) + 1j * p["omega"]), np.exp(np.tile(p["log_dt"], 2))
    B, C = whole(p["B_re"] + 1j * p["B_im"]), whole(p["C_re"] + 1j * p["C_im"], 0)
    c = whole(c_) * np.exp(Lambda * dt) + x @ B * (np.exp(Lambda * dt) - 1) / Lambda
    D = np.diag(p["D"]) if p["D"].ndim == 1 else p["D"]
    return c[:, : c_.shape[-1]], (c @ C).real + x @ D


def rglru(cell, p, x, h_):
    r, i = (sigma(x @ p["W_" + k] + p["b_" + k]) for k in "ai")
    a = factor(cell, sigma(p["Lambda"]) ** (8 * r))
    x = x @ p["W_x"] if x.shape[-1] != cell.hidden_size else x
    h = a * h_ + np.sqrt(1 - a**2) * (i * x)
    return h, h


def slstm(cell, p, x, carry):
    c_, n_, h_ = carry
    blocks = np.split(h_, cell.heads, axis=-1)

    def a(k):
        return (
            x @ p["W_" + k]
            + np.hstack([b @ R for b, R in zip(blocks, p["R_" + k], strict=True)])
            + p["b_" + k]
        )

    i, f = np.exp(a("i")), (np.exp if cell.forget == "exp" else sigma)(a("f"))
    c, n = f * c_ + i * np.tanh(a("z")), f * n_ + i
    h = sigma(a("o")) * c / n
    return [c, n, h], h


def mlstm(cell, p, x, carry):
    C_, n_ = carry
    d = cell.hidden_size // cell.heads
    C, n, h = np.empty_like(C_), np.empty_like(n_), np.empty((len(x), cell.hidden_size))
    for row, head in itertools.product(range(len(x)), range(cell.heads)):
        part = slice(head * d, (head + 1) * d)
        q, k, v = (x[row] @ p["W_" + name][:, part] for name in "qkv")
        k = k / np.sqrt(d)
        i = np.exp(x[row] @ p["W_i"][:, head] + p["b_i"][head])
        f = (np.exp if cell.forget == "exp" else sigma)(x[row] @ p["W_f"][:, head] + p["b_f"][head])
        C[row, head] = f * C_[row, head] + i * np.outer(v, k)
        n[row, head] = f * n_[row, head] + i * k
        h[row, part] = C[row, head] @ q / max(abs(n[row, head] @ q), 1)
    return [C, n], sigma(x @ p["W_o"] + p["b_o"]) * h


def mamba2(cell, p, x, S_):
    d = cell.hidden_size // cell.heads
    dt = np.log(1 + np.exp(x @ p["W_dt"] + p["b_dt"]))
    u, z, B, C = (x @ p["W_" + name] for name in "xzBC")
    S, h = np.empty_like(S_), np.empty((len(x), cell.hidden_size))
    for row, head in itertools.product(range(len(x)), range(cell.heads)):
        part = slice(head * d, (head + 1) * d)
        A = -np.exp(p["A_log"][head])
        S[row, head] = factor(cell, np.exp(dt[row, head] * A)) * S_[row, head]
        S[row, head] += dt[row, head] * np.outer(u[row, part], B[row])
        h[row, part] = S[row, head] @ C[row] + p["D"][head] * u[row, part]
    return S, h * z * sigma(z)


def mamba3(cell, p, x, carry):
    S_, u_, B_ = carry
    d, n = cell.hidden_size // cell.heads, int(cell.state_size * cell.rotated) // 2
    S, h = np.empty_like(S_), np.empty((len(x), cell.hidden_size))
    u, z = x @ p["W_x"], x @ p["W_z"]
    kept = u.reshape(len(x), cell.heads, d), np.empty_like(B_)
    for row, head in itertools.product(range(len(x)), range(cell.heads)):
        part = slice(head * d, (head + 1) * d)
        dt = np.log(1 + np.exp(x[row] @ p["W_dt"][:, head] + p["b_dt"][head]))
        A = max(np.log(1 + np.exp(x[row] @ p["W_A"][:, head])), 1e-4)
        trapezoid = sigma(x[row] @ p["W_lam"][:, head]) if cell.trapezoid else 1.0
        B, C = (
            a / np.sqrt(a @ a / len(a) + 1e-5) * p["w_" + k] + p["b_" + k][head]
            for k, a in ((k, x[row] @ p["W_" + k]) for k in "BC")
        )
        R = np.eye(cell.state_size)
        for pair in range(n):
            angle = dt * np.pi * np.tanh(x[row] @ p["W_theta"][:, pair])
            R[pair, pair] = R[n + pair, n + pair] = np.cos(angle)
            R[pair, n + pair], R[n + pair, pair] = -np.sin(angle), np.sin(angle)
        before = (1 - trapezoid) * dt * np.outer(u_[row, head], B_[row, head])
        S[row, head] = np.exp(-dt * A) * (S_[row, head] + before) @ R.T
        S[row, head] += trapezoid * dt * np.outer(u[row, part], B)
        h[row, part] = S[row, head] @ C + p["D"][head] * u[row, part]
        kept[1][row, head] = B
    return [S, *kept], h * silu(z)


def unit(a):
    return a / np.sqrt(a @ a + 1e-6)


def silu(a):
    return a * sigma(a)


def deltanet(cell, p, x, S_):
    d, N = cell.hidden_size // cell.heads, cell.state_size
    S, h = S_.copy(), np.empty((len(x), cell.hidden_size))
    for row, head in itertools.product(range(len(x)), range(cell.heads)):
        if cell.decay:
            dt = np.log(1 + np.exp(x[row] @ p["W_dt"][:, head] + p["b_dt"][head]))
            S[row, head] *= np.exp(-np.exp(p["A_log"][head]) * dt)
        for at in range(head, cell.products * cell.heads, cell.heads):
            k = unit(silu(x[row] @ p["W_k"][:, at * N : (at + 1) * N]))
            v = silu(x[row] @ p["W_v"][:, at * d : (at + 1) * d])
            beta = (1 + cell.negative_eigenvalues) * sigma(x[row] @ p["W_beta"][:, at])
            S[row, head] = S[row, head] @ (np.eye(N) - beta * np.outer(k, k)) + beta * np.outer(v, k)
        q = unit(silu(x[row] @ p["W_q"][:, head * N : (head + 1) * N]))
        h[row, head * d : (head + 1) * d] = S[row, head] @ q
    return S, h * silu(x @ p["W_z"])


def convolution(W, b, xs, dilation=1):
    """Over the raw inputs; zeros stand before the first."""
    ys = np.zeros((*xs.shape[:2], W.shape[-1])) + b
    for t, lag in itertools.product(range(xs.shape[1]), range(len(W))):
        if t >= lag * dilation:
            ys[:, t] += xs[:, t - lag * dilation] @ W[lag]
    return ys


def qrnn(cell, p, xs):
    a = {k[2]: convolution(p[k], p["b" + k[1:]], xs) for k in p if k[0] == "W"}
    z, f = np.tanh(a["z"]), sigma(a["f"])
    i = sigma(a["i"]) if cell.pooling == "ifo" else 1 - f
    o = sigma(a["o"]) if "o" in cell.pooling else np.ones_like(f)
    hs, c = [], 0.0
    for t in range(xs.shape[1]):
        c = f[:, t] * c + i[:, t] * z[:, t]
        hs.append(o[:, t] * c)
    return np.stack(hs, 1)


def tcn(cell, p, xs):
    for level in range(cell.levels):
        y, shortcut = xs, xs
        for n in (2 * level, 2 * level + 1):
            y = np.maximum(convolution(p[f"W_{n}"], p[f"b_{n}"], y, 2**level), 0)
        if xs.shape[-1] != cell.hidden_size:
            shortcut = xs @ p["W_x"] + p["b_x"]
        xs = np.maximum(shortcut + y, 0)
    return xs


def window(cell, p, xs):
    return np.tanh(convolution(p["W"], p["b"], xs))


def attention(cell, p, xs):
    """Over the raw inputs; rotations are factors of complex numbers, of how many steps lie between."""
    d, half = cell.hidden_size // cell.heads, cell.hidden_size // cell.heads // 2
    q, k, v = (xs @ p["W_" + name] for name in "qkv")
    h = np.zeros_like(q)
    for row, t, head in itertools.product(range(len(xs)), range(xs.shape[1]), range(cell.heads)):
        part, seen = slice(head * d, (head + 1) * d), range(max(0, t - cell.window + 1), t + 1)
        scores = []
        for s in seen:
            one, other = q[row, t, part], k[row, s, part]
            a, b = (u[:half] + 1j * u[half : 2 * half] for u in (one, other))
            factors = np.exp(1j * (s - t) * 10000.0 ** (-2 * np.arange(half) / d))
            rest = one[2 * half :] @ other[2 * half :]
            scores.append(((a.conj() * b * factors).real.sum() + rest) / d**0.5)
        weights = np.exp(scores) / np.exp(scores).sum()
        h[row, t, part] = weights @ v[row, seen.start : t + 1, part]
    return h @ p["W_o"]


# One step, of the cells that have a state: carry -> carry, y. All of time, of those that see a window.
EQUATIONS = {
    "rnn": rnn, "lstm": lstm, "gru": gru, "sru": sru, "sru_feedback": sru, "knn": knn, "mingru": mingru,
    "minlstm": minlstm, "lru": lru, "s5": s5, "rglru": rglru, "slstm": slstm, "mlstm": mlstm,
    "mamba2": mamba2, "mamba3": mamba3, "deltanet": deltanet,
}  # fmt: skip
CONVOLUTIONS = {"qrnn": qrnn, "tcn": tcn, "window": window, "attention": attention}

# What a carry stands for, where that is not its arrays.
MEANINGS = {
    "slstm": lambda s: [s.c * np.exp(s.m), s.n * np.exp(s.m), s.h],
    "mlstm": lambda s: [s.C * np.exp(s.m)[..., None, None], s.n * np.exp(s.m)[..., None]],
}

# Options that the laws of all cells leave out.
MORE = [
    ("lstm", {"heads": 3, "layer_norm": True, "coupled": True}),
    ("gru", {"heads": 3, "layer_norm": True}),
    ("gru", {"heads": 3, "reset_after": True}),
    ("qrnn", {"pooling": "f"}),
    ("knn", {"order": 1, "decay": "learned", "activation": "identity"}),
    ("knn", {"order": 2, "decay": "recurrent", "activation": "relu"}),
    ("knn", {"order": 3, "decay": "recurrent", "combine": "additive", "all_orders": True}),
    ("slstm", {"heads": 3, "forget": "exp"}),
    ("mlstm", {"heads": 3, "forget": "exp"}),
    ("tcn", {"levels": 2, "kernel": 4}),
]


def test_every_cell_has_its_equations_here(laws):
    """Every one that the committed table of cells lists."""
    assert EQUATIONS.keys() | CONVOLUTIONS.keys() == laws.listed()


def steps(cell, params, xs, carry):
    """The textbook step, one time after the other."""
    carry, ys = jax.lax.scan(functools.partial(cell.step, params), carry, jnp.swapaxes(xs, 0, 1))
    return carry, jnp.swapaxes(ys, 0, 1)


def check(laws, name, run, cell, features=2):
    """`run(params, xs, carry)` obeys the equations."""
    if name not in EQUATIONS | CONVOLUTIONS:
        pytest.skip(f"no equations of {name} in NumPy here")
    p = laws.problem(cell, (4, 20 if name in CONVOLUTIONS else 5, features), flags=False)
    run = laws.jit(run)
    if name in CONVOLUTIONS:  # from zeros: their carry is no part of the equations; so also in two parts
        want, first = CONVOLUTIONS[name](cell, p.params, p.xs), cell.initial_carry(4, np.float64)
        laws.same(run(p.params, p.xs, first)[1], want)
        carry, start = run(p.params, p.xs[:, :7], first)
        laws.same(np.hstack([start, run(p.params, p.xs[:, 7:], carry)[1]]), want)
        return
    meaning = MEANINGS.get(name, jax.tree.leaves)
    carry, ys = meaning(p.carry), []
    carry = carry[0] if len(carry) == 1 else carry
    for t in range(p.xs.shape[1]):
        carry, y = EQUATIONS[name](cell, p.params, p.xs[:, t], carry)
        ys.append(y)
    final, got = run(p.params, p.xs, p.carry)
    laws.same((meaning(final), got), (jax.tree.leaves(carry), np.stack(ys, 1)))


def test_steps_obey_the_equations(laws, case):
    cell = case.cell(3)
    check(laws, case.name, functools.partial(steps, cell), cell, features=2)


@pytest.mark.options_are_slow
def test_steps_obey_the_equations_with_as_many_inputs_as_units(laws, case):
    cell = case.cell(3)
    check(laws, case.name, functools.partial(steps, cell), cell, features=cell.hidden_size)


@pytest.mark.options_are_slow
def test_scans_obey_the_equations(laws, case, strategy):
    cell = case.cell(3)
    check(laws, case.name, functools.partial(scan, cell, strategy), cell)


def scan(cell, strategy, params, xs, carry):
    return cells.scan(cell, params, xs, carry, strategy=strategy)


@pytest.mark.parametrize("name, options", MORE, ids=str)
@pytest.mark.slow
def test_more_options_obey_the_equations(laws, name, options):
    cell = cells.get(name, hidden_size=3, **options)
    check(laws, name, functools.partial(steps, cell), cell)
    for strategy in cells.strategies(cell):
        if strategy != "auto":
            check(laws, name, functools.partial(scan, cell, strategy), cell)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_kernel_network_sums_over_ngrams(laws, order):
    """Section 3.1: over all of the past, each times l to the power of the steps skipped and gone since."""
    options = {"decay": "constant", "forget_bias": 0.5, "normalised": False, "activation": "identity"}
    cell = cells.get("knn", hidden_size=3, order=order, **options)
    p = laws.problem(cell, (4, 6, 2), flags=False)
    want = np.zeros((4, 6, 3))
    for t in range(6):
        for ngram in itertools.combinations(range(t + 1), order):
            parts = [p.xs[:, i] @ p.params[f"W_{j}"] for j, i in enumerate(ngram, 1)]
            want[:, t] += sigma(0.5) ** (t - ngram[0] - (order - 1)) * np.prod(parts, axis=0)
    laws.same(cells.scan(cell, p.params, p.xs)[1], want)


@pytest.mark.parametrize("name, options, seen", [("tcn", {"levels": 2, "kernel": 3}, 13), ("window", {}, 8)])
def test_a_convolution_sees_so_many_inputs_and_no_more(laws, name, options, seen):
    cell = cells.get(name, hidden_size=3, **options)
    p = laws.problem(cell, (1, 20, 2), flags=False)
    params, xs = jax.tree.map(abs, (p.params, p.xs))  # all of relu's units are on
    d_xs = jax.grad(lambda xs: cells.scan(cell, params, 0.01 * xs)[1][0, -1].sum())(xs)
    np.testing.assert_array_equal(d_xs.any((0, 2)), np.arange(20) >= 20 - seen)


@pytest.mark.parametrize("reset_after", [False, True])
def test_a_gru_that_neither_resets_nor_keeps_is_an_rnn(laws, reset_after):
    gru, rnn = cells.get("gru", hidden_size=3, reset_after=reset_after), cells.get("rnn", hidden_size=3)
    p = laws.problem(gru)
    params = p.params | {"b_r": np.full(3, 1e3), "b_z": np.full(3, -1e3)}
    c_n = params.get("c_n", 0.0)
    plain = {"W": params["W_n"], "U": params["U_n"], "b": params["b_n"] + c_n}
    laws.same(cells.scan(gru, params, *p[1:]), cells.scan(rnn, plain, *p[1:]), 1e-14)


def test_an_lstm_with_open_forget_and_closed_input_gate_holds_its_memory(laws):
    cell = cells.get("lstm", hidden_size=3)
    p = laws.problem(cell)
    carry, _ = cells.scan(cell, p.params | {"b_f": np.full(3, 1e3), "b_i": np.full(3, -1e3)}, *p[1:5])
    np.testing.assert_array_equal(carry.c, p.carry.c)


def test_an_sru_with_open_forget_gate_holds_its_memory(laws):
    for name in ("sru", "sru_feedback"):
        cell = cells.get(name, hidden_size=3)
        p = laws.problem(cell)
        carry, _ = cells.scan(cell, p.params | {"b_f": np.full(3, 1e3)}, *p[1:5])
        np.testing.assert_array_equal(carry, p.carry)


def test_a_delta_rule_with_beta_of_2_reflects_its_state(laws):
    """Twice at the same key and value is back again, and once is the state's mirror image."""
    cell = cells.get("deltanet", hidden_size=3, negative_eigenvalues=True, decay=False)
    p = laws.problem(cell)
    x, params = np.abs(p.xs[:, 0]), p.params | {"W_beta": np.full((2, 1), 1e3)}
    step = laws.jit(cell.step)
    once, _ = step(params, p.carry, x)
    laws.same(step(params, once, x)[0], p.carry, 1e-4)  # a key's norm is less than 1 by an epsilon
    assert np.abs(once - p.carry).max((1, 2, 3)).min() > 0.1


def lstm_from_gates(cell, p, x, carry, gates):
    a = summed(cell, p, x, carry.h, "fog" if cell.coupled else "ifog")
    c = gates["forget"] * carry.c + gates["input"] * np.tanh(a["g"])
    h = gates["output"] * lstm_output(cell, p, c)
    return (c, h), h


def gru_from_gates(cell, p, x, h_, gates):
    z = gates["update"]
    h = z * h_ + (1 - z) * gru_candidate(cell, p, x, h_, gates.get("reset", 1.0))
    return h, h


def sru_from_gates(cell, p, x, c_, gates):
    f, r = gates["forget"], gates["reset"]
    c = factor(cell, f) * c_ + (1 - f) * (sru_features(cell, p, x) @ p["W"])
    highway = (x @ p["W_x"] if "W_x" in p else x * cell.alpha) if cell.highway else 0.0
    return c, r * c + (1 - r) * highway


FROM_GATES = {"lstm": lstm_from_gates, "gru": gru_from_gates}
FROM_GATES |= dict.fromkeys(("sru", "sru_feedback"), sru_from_gates)


def linear_gate(p, x, k):
    return sigma(x @ p["W_" + k] + p["b_" + k])


def qrnn_gates(cell, p, x, carry):
    names = "z" + "".join(sorted(cell.pooling))  # the order of what is pending
    first = np.split(carry.pending[:, 0], len(names), axis=-1) if cell.window > 1 else [0.0] * len(names)
    a = {k: x @ p["W_" + k][0] + first[n] + p["b_" + k] for n, k in enumerate(names)}
    long = {"f": "forget", "i": "input", "o": "output"}
    return {long[k]: sigma(a[k]) for k in names if k != "z"}


def knn_gates(cell, p, x, carry):
    return {"forget": linear_gate(p, x, "l")} if cell.decay == "gated" else {}


def mingru_gates(cell, p, x, carry):
    z = linear_gate(p, x, "z")
    return {"forget": 1 - z, "input": z}


def minlstm_gates(cell, p, x, carry):
    f, i = linear_gate(p, x, "f"), linear_gate(p, x, "i")
    return {"forget": f / (f + i), "input": i / (f + i)}


def rglru_gates(cell, p, x, carry):
    r = linear_gate(p, x, "a")
    return {"forget": sigma(p["Lambda"]) ** (8 * r), "recurrence": r, "input": linear_gate(p, x, "i")}


def slstm_gates(cell, p, x, carry):
    blocks = np.split(carry.h, cell.heads, axis=-1)

    def gate(k):
        fed = np.hstack([b @ R for b, R in zip(blocks, p["R_" + k], strict=True)])
        return sigma(x @ p["W_" + k] + fed + p["b_" + k])

    return {"forget": gate("f"), "output": gate("o")}


def mlstm_gates(cell, p, x, carry):
    d = cell.hidden_size // cell.heads
    return {"forget": np.repeat(linear_gate(p, x, "f"), d, axis=-1), "output": linear_gate(p, x, "o")}


def mamba2_gates(cell, p, x, carry):
    dt = np.log(1 + np.exp(x @ p["W_dt"] + p["b_dt"]))
    return {"forget": np.repeat(np.exp(-dt * np.exp(p["A_log"])), cell.hidden_size // cell.heads, axis=-1)}


def mamba3_gates(cell, p, x, carry):
    dt, A = (np.log(1 + np.exp(x @ p["W_" + k] + b)) for k, b in (("dt", p["b_dt"]), ("A", 0)))
    gates = {"forget": np.exp(-dt * A)} | ({"input": sigma(x @ p["W_lam"])} if cell.trapezoid else {})
    return {name: np.repeat(gate, cell.hidden_size // cell.heads, axis=-1) for name, gate in gates.items()}


def deltanet_gates(cell, p, x, carry):
    d = cell.hidden_size // cell.heads
    beta = np.split(sigma(x @ p["W_beta"]), cell.products, axis=-1)
    names = [f"write_{j}" for j in range(1, cell.products + 1)] if cell.products > 1 else ["write"]
    gates = {name: np.repeat(gate, d, axis=-1) for name, gate in zip(names, beta, strict=True)}
    return mamba2_gates(cell, p, x, carry) | gates if cell.decay else gates


GATES = {
    "qrnn": qrnn_gates, "knn": knn_gates, "mingru": mingru_gates, "minlstm": minlstm_gates,
    "rglru": rglru_gates, "slstm": slstm_gates, "mlstm": mlstm_gates, "mamba2": mamba2_gates,
    "mamba3": mamba3_gates, "deltanet": deltanet_gates,
}  # fmt: skip


@pytest.mark.options_are_slow
def test_gates_obey_the_equations(laws, case):
    """They are those of the equations, or the equations with them make the step."""
    cell = case.cell(3)
    p = laws.problem(cell, flags=False)
    x = p.xs[:, 0]
    gates = {name: np.asarray(gate) for name, gate in cell.gates(p.params, p.carry, x).items()}
    size = (4, cell.hidden_size)
    assert all(((0 < gate) & (gate < 1)).all() and gate.shape == size for gate in gates.values())
    if case.name in GATES:
        laws.same(gates, GATES[case.name](cell, p.params, x, p.carry))
    elif case.name in FROM_GATES:
        carry, y = FROM_GATES[case.name](cell, p.params, x, p.carry, gates)
        after, out = cell.step(p.params, p.carry, x)
        laws.same((jax.tree.leaves(after), out), (jax.tree.leaves(carry), y))
    else:
        assert not gates


def test_more_options_have_the_gates_of_their_equations(laws):
    def names(name, **options):
        cell = cells.get(name, hidden_size=3, **options)
        p = laws.problem(cell, flags=False)
        return set(cell.gates(p.params, p.carry, p.xs[:, 0]))

    assert names("slstm", forget="exp") == names("mlstm", forget="exp") == {"output"}
    assert names("knn", decay="recurrent") == {"forget"} and not names("knn", decay="learned")


@pytest.mark.parametrize("name", quickly([*EQUATIONS, *CONVOLUTIONS], "lstm", "sru"))
def test_extreme_gates_give_finite_values_and_gradients(laws, name):
    """In float32: inputs of 0, +-100, pre-activations of gates of +-80, resets, 200 steps."""
    cell = cells.get(name, hidden_size=4)
    p = laws.problem(cell, (4, 200, 2), flags=False, dtype=np.float32)
    first = jax.tree.map(np.asarray, cell.initial_carry(4, np.float32))
    resets = np.zeros((4, 200), bool)
    resets[2:, 10:150:7] = True
    sizes = np.array([0, 100, -100, 1], np.float32)[:, None, None]
    signs = np.resize([1, 1, -1, -1], 4)
    for bias, xs in itertools.product((0, 80 * signs, -80 * signs, 80, -80), (0 * p.xs, sizes * p.xs)):
        params = {
            k: (v + np.resize(bias, v.shape) if k[0] == "b" or k == "Lambda" else v).astype(np.float32)
            for k, v in p.params.items()
        }
        problem = p._replace(params=params, xs=xs, carry=first, resets=resets)
        for strategy in [s for s in cells.strategies(cell) if s != "auto"]:
            chex.assert_tree_all_finite(laws.runner(cell, strategy)(problem))
