"""Each cell against its paper's equations, written out in NumPy float64 (DESIGN.md, section 2)."""

import jax
import numpy as np
import pytest

import cells

pytestmark = pytest.mark.usefixtures("x64")


def sigma(a):
    return 1 / (1 + np.exp(-a))


def rnn(cell, p, x, h):
    a = x @ p["W"] + h @ p["U"] + p["b"]
    h = np.maximum(a, 0) if cell.activation == "relu" else np.tanh(a)
    return h, h


def lstm(cell, p, x, carry):
    c_, h_ = carry
    a = {k: x @ p["W_" + k] + h_ @ p["U_" + k] + p["b_" + k] for k in "ifog"}
    v = {k: p["p_" + k] if cell.peepholes else np.zeros_like(p["b_i"]) for k in "ifo"}
    i, f = sigma(a["i"] + v["i"] * c_), sigma(a["f"] + v["f"] * c_)
    c = f * c_ + i * np.tanh(a["g"])
    h = sigma(a["o"] + v["o"] * c) * np.tanh(c)
    return (c, h), h


def gru(cell, p, x, h_):
    r, z = (sigma(x @ p["W_" + k] + h_ @ p["U_" + k] + p["b_" + k]) for k in "rz")
    inner = r * (h_ @ p["U_n"] + p["c_n"]) if cell.reset_after else (r * h_) @ p["U_n"]
    n = np.tanh(x @ p["W_n"] + p["b_n"] + inner)
    h = z * h_ + (1 - z) * n
    return h, h


def sru(cell, p, x, c_):
    v_f = p["v_f"] if isinstance(cell, cells.CELLS.cls("sru_feedback")) else 0.0
    v_r = p["v_r"] if isinstance(cell, cells.CELLS.cls("sru_feedback")) or cell.reset_feedback else 0.0
    f = sigma(x @ p["W_f"] + v_f * c_ + p["b_f"])
    c = f * c_ + (1 - f) * (x @ p["W"])
    r = sigma(x @ p["W_r"] + v_r * c_ + p["b_r"])
    alpha = np.sqrt(1 + 2 * np.exp(cell.highway_bias)) if cell.rescale else 1.0
    if not cell.highway:
        return c, r * c
    highway = x @ p["W_x"] if x.shape[-1] != cell.hidden_size else x * alpha
    return c, r * c + (1 - r) * highway


EQUATIONS = {"rnn": rnn, "lstm": lstm, "gru": gru, "sru": sru, "sru_feedback": sru}


def test_every_cell_has_its_equations_here():
    assert set(EQUATIONS) == set(cells.names())


@pytest.mark.parametrize("features", [2, 3], ids=["features!=hidden", "features==hidden"])
def test_step_and_scan_obey_the_equations(laws, case, features):
    cell = case.cell(3)
    p = laws.problem(cell, (4, 5, features), flags=False)
    carry, ys = jax.tree.leaves(p.carry), []
    carry = carry[0] if len(carry) == 1 else carry
    step_carry, first = cell.step(p.params, p.carry, p.xs[:, 0])
    for t in range(p.xs.shape[1]):
        carry, y = EQUATIONS[case.name](cell, p.params, p.xs[:, t], carry)
        ys.append(y)
        if t == 0:
            laws.same((jax.tree.leaves(step_carry), first), (jax.tree.leaves(carry), y))
    final, got = cells.scan(cell, p.params, p.xs, p.carry)
    laws.same((jax.tree.leaves(final), got), (jax.tree.leaves(carry), np.stack(ys, 1)))


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


def lstm_from_gates(cell, p, x, carry, gates):
    c = gates["forget"] * carry.c + gates["input"] * np.tanh(x @ p["W_g"] + carry.h @ p["U_g"] + p["b_g"])
    return (c, gates["output"] * np.tanh(c)), gates["output"] * np.tanh(c)


def gru_from_gates(cell, p, x, h_, gates):
    r, z = gates["reset"], gates["update"]
    inner = r * (h_ @ p["U_n"] + p["c_n"]) if cell.reset_after else (r * h_) @ p["U_n"]
    h = z * h_ + (1 - z) * np.tanh(x @ p["W_n"] + p["b_n"] + inner)
    return h, h


def sru_from_gates(cell, p, x, c_, gates):
    f, r = gates["forget"], gates["reset"]
    c = f * c_ + (1 - f) * (x @ p["W"])
    highway = (x @ p["W_x"] if "W_x" in p else x * cell.alpha) if cell.highway else 0.0
    return c, r * c + (1 - r) * highway


FROM_GATES = {"lstm": lstm_from_gates, "gru": gru_from_gates}
FROM_GATES |= dict.fromkeys(("sru", "sru_feedback"), sru_from_gates)


def test_a_step_is_what_its_gates_make_of_it(laws, case):
    cell = case.cell(3)
    p = laws.problem(cell, flags=False)
    x = p.xs[:, 0]
    gates = {name: np.asarray(gate) for name, gate in cell.gates(p.params, p.carry, x).items()}
    assert bool(gates) == (case.name in FROM_GATES)
    if gates:
        assert all(((0 < gate) & (gate < 1)).all() and gate.shape == (4, 3) for gate in gates.values())
        carry, y = FROM_GATES[case.name](cell, p.params, x, p.carry, gates)
        after, out = cell.step(p.params, p.carry, x)
        laws.same((jax.tree.leaves(after), out), (jax.tree.leaves(carry), y))
