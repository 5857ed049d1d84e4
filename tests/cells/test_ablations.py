"""What the ablations of the classic cells leave out, as laws between a cell and the one it came from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells

pytestmark = pytest.mark.usefixtures("x64")


def by(laws, cell, p, params):
    """Carry, outputs and the gradients of inputs and carry, of `cell` with other parameters than p's."""
    return laws.runner(cell, "sequential")(p._replace(params=params))


def same(laws, got, want, tolerance=1e-10):
    """All but the gradients of the parameters, which may have other names."""
    laws.same((got[:2], got.gradients[1:]), (want[:2], want.gradients[1:]), tolerance)


def get(name, **options):
    return cells.get(name, hidden_size=3, **options)


@pytest.mark.parametrize("options", [{}, {"peepholes": True}, {"diagonal": True}], ids=str)
def test_a_coupled_lstm_is_one_whose_input_gate_sees_the_negative_of_the_forget_gate(laws, options):
    """1 - sigma(a) = sigma(-a)."""
    coupled, free = get("lstm", coupled=True, **options), get("lstm", **options)
    p = laws.problem(coupled)
    assert not {name for name in p.params if name[-2:] == "_i"}
    mirrored = {f"{name[0]}_i": -x for name, x in p.params.items() if name[-2:] == "_f"}
    same(laws, by(laws, coupled, p, p.params), by(laws, free, p, p.params | mirrored))


@pytest.mark.parametrize(
    "options", [{}, {"reset_after": True}, {"layer_norm": True}, {"diagonal": True}], ids=str
)
def test_a_gru_without_reset_gate_is_one_whose_gate_never_resets(laws, options):
    """With layer normalisation r and z share statistics: there r's products are copies of z's."""
    without, full = get("gru", reset_gate=False, **options), get("gru", **options)
    p = laws.problem(without)
    assert not {name for name in p.params if name[-2:] == "_r"}
    reset = {f"{name[:-2]}_r": x for name, x in p.params.items() if name[-2:] == "_z"}
    same(laws, by(laws, without, p, p.params), by(laws, full, p, p.params | reset | {"b_r": np.full(3, 1e3)}))


DIAGONAL = [
    ("rnn", {}),
    ("rnn", {"activation": "relu"}),
    ("gru", {}),
    ("gru", {"reset_after": True}),
    ("gru", {"reset_after": True, "layer_norm": True}),
    ("gru", {"reset_gate": False}),
    ("lstm", {"peepholes": True}),
    ("lstm", {"coupled": True, "layer_norm": True}),
]


@pytest.mark.parametrize("name, options", DIAGONAL, ids=str)
def test_a_diagonal_recurrence_is_a_dense_one_with_diagonal_matrices(laws, name, options):
    diagonal, dense = get(name, diagonal=True, **options), get(name, **options)
    p = laws.problem(diagonal)
    matrices = {key: np.diag(x) for key, x in p.params.items() if key[0] == "U"}
    got, want = by(laws, diagonal, p, p.params), by(laws, dense, p, p.params | matrices)
    same(laws, got, want)
    gradients = {key: np.diagonal(x) if key[0] == "U" else x for key, x in want.gradients[0].items()}
    laws.same(got.gradients[0], gradients)


def test_units_see_those_of_their_block_alone(laws, recurrence):
    """Those of a classic cell see each other; of an elementwise one each has a block of its own."""
    cell = recurrence.cell(4)
    p = laws.problem(cell, (1, 1, 2), flags=False)
    classic = recurrence.name in ("rnn", "lstm", "gru", "sru", "sru_feedback")
    if not (classic or cell.is_elementwise):
        pytest.skip("says nothing")
    jacobian = jax.jacobian(lambda carry: cell.step(p.params, carry, p.xs[:, 0])[0])(p.carry)
    seen = sum(abs(np.asarray(part)[0, :, 0]) for part in jax.tree.leaves(jacobian)) > 0
    blocks = np.kron(np.eye(4 // cell.block), np.ones((cell.block, cell.block))) > 0
    assert not seen[~blocks].any() and seen[blocks & ~np.eye(4, dtype=bool)].any() == (cell.block > 1)


@pytest.mark.parametrize("name", ["sru", "sru_feedback"])
@pytest.mark.parametrize("features", [2, 3])
def test_a_projected_sru_is_one_with_multiplied_matrices(laws, name, features):
    projected, full = get(name, projection=2), get(name)
    p = laws.problem(projected, (4, 5, features))
    params = {key: x for key, x in p.params.items() if key != "W_q"}
    multiplied = {key: p.params["W_q"] @ params[key] for key in ("W", "W_f", "W_r")}
    same(laws, by(laws, projected, p, p.params), by(laws, full, p, params | multiplied))


@pytest.mark.parametrize("name, options", [("lstm", {}), ("lstm", {"coupled": True}), ("gru", {})], ids=str)
def test_layer_norm_takes_no_notice_of_the_scale_of_weights(laws, name, options):
    """Of all U, and of all W: but for epsilon. A GRU's gates and its n are normalised apart."""
    cell = get(name, layer_norm=True, **options)
    p = laws.problem(cell)
    large = {key: 1e3 * x if key[:2] in ("W_", "U_") else x for key, x in p.params.items()}
    larger = {
        key: x * (100.0 if key[:2] in ("W_", "U_") and key[-1] != "n" else 1) for key, x in large.items()
    }
    carry, ys = cells.scan(cell, large, *p[1:])
    laws.same((carry, ys), cells.scan(cell, larger, *p[1:]), 1e-3)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_layer_norm_is_computed_in_float32_or_wider(laws, name):
    """With bfloat16 parameters and inputs: near the result of the same numbers in float64."""
    cell = get(name, layer_norm=True)
    p = laws.problem(cell, (4, 5, 2), flags=False)
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (p.params, p.xs))
    exact = jax.tree.map(np.float64, low)
    with jax.enable_x64(False):
        carry, ys = cells.scan(cell, *low)
    assert ys.dtype == jnp.bfloat16 and all(x.dtype == jnp.float32 for x in jax.tree.leaves(carry))
    laws.same(ys, cells.scan(cell, *exact)[1], 0.1)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_equal_numbers_are_normalised_to_zero(laws, name):
    """No division by zero: a state of zeros, and inputs of zeros, give finite values and gradients."""
    cell = get(name, layer_norm=True)
    p = laws.problem(cell, flags=False)
    zeros = jax.tree.map(np.zeros_like, (p.xs, p.carry))
    result = laws.runner(cell, "sequential")(p._replace(xs=zeros[0], carry=zeros[1]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))


def test_projections_are_sizes():
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="SRU: projection must be a number of features, or 0 for none"):
            get("sru", projection=wrong)
