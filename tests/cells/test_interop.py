"""Weights in other libraries' layouts: exact round trips, refusals, and flax's own cells run on them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cells

LAYOUTS = {
    "torch": (cells.to_torch, cells.from_torch),
    "flax": (cells.to_flax_nnx, cells.from_flax_nnx),
    "flax-optimized": (functools.partial(cells.to_flax_nnx, optimized=True), cells.from_flax_nnx),
}
CELLS = {"torch": ["rnn", "lstm", "gru", "sru", "sru_feedback"], "flax": ["rnn", "lstm", "gru"]}
CELLS["flax-optimized"] = ["lstm"]
# Options that no other library has.
OWN = {"peepholes", "coupled", "reset_gate", "layer_norm", "diagonal", "heads", "negative_eigenvalues"}


def refused(call, *words):
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def params_of(laws, cell, features, library="torch", dtype=np.float32):
    p = laws.problem(cell, (1, 1, features), dtype=dtype).params
    bias = next(name for name in p if name[0] == "b")
    p[bias] = np.array([-0.0, *p[bias][1:]], dtype)  # a zero with a sign must keep it
    return p | {"c_n": np.zeros_like(p["c_n"])} if "c_n" in p and library == "flax" else p


def without(case, library):
    """What a library lacks, by the words of the refusal; None for nothing."""
    if case.name not in CELLS[library]:
        return f"no {case.cls.__name__} in"
    if OWN & case.options.keys():
        return f"{case.cls.__name__} with "
    return "reset_after=True" if case.name == "gru" and not case.options.get("reset_after") else None


@pytest.mark.parametrize("library", LAYOUTS)
@pytest.mark.parametrize("features", [1, 3, 4])
def test_there_and_back_is_exact(laws, case, library, features):
    cell, (there, back) = case.cell(3), LAYOUTS[library]
    none = without(case, library)
    if none:
        refused(lambda: there(cell, {}), none)
        if library != "flax-optimized":  # from_flax finds out by itself
            refused(lambda: back(cell, {}), none)
        return
    p = params_of(laws, cell, features, library.split("-")[0])
    if getattr(cell, "projection", 0) and features != 3:
        refused(lambda: there(cell, p), "no W_x")
        p |= {"W_x": np.zeros_like(p["W_x"])}
    for dtype in (np.float32, np.float64, jnp.bfloat16):
        with jax.enable_x64(dtype == np.float64):
            ours = jax.tree.map(lambda x, dtype=dtype: jnp.asarray(x, dtype), p)
            theirs = there(cell, ours)
            weights = [x for name, x in theirs.items() if name != "scale_x"]
            assert all(type(x) is np.ndarray and x.dtype == dtype for x in jax.tree.leaves(weights))
            again = back(cell, theirs)
            assert again.keys() == ours.keys()
            for name, x in ours.items():
                assert again[name].dtype == x.dtype and again[name].shape == x.shape
                assert np.asarray(again[name]).tobytes() == np.asarray(x).tobytes(), name
    assert {x.dtype for x in back(cell, theirs, dtype=jnp.float16).values()} == {np.dtype("float16")}


def test_a_cell_without_counterpart_is_refused():
    class New(cells.CELLS.cls("gru")):
        pass

    cell = New(hidden_size=2)
    for there, back in LAYOUTS.values():
        refused(
            lambda there=there: there(cell, {}), "no New in", "GRU" if there == cells.to_torch else "LSTM"
        )
        refused(lambda back=back: back(cell, {}), "no New in", "RNN, LSTM, GRU")


# --- torch's layout, without torch


def test_torch_layout(laws):
    gru = cells.get("gru", hidden_size=2, reset_after=True)
    p = params_of(laws, gru, 3)
    state = cells.to_torch(gru, p)
    assert list(state) == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    np.testing.assert_array_equal(state["weight_ih_l0"][2:4], p["W_z"].T)
    np.testing.assert_array_equal(state["bias_hh_l0"], [0, 0, 0, 0, *p["c_n"]])
    both = state | {"bias_hh_l0": np.arange(6, dtype=np.float32)}
    np.testing.assert_array_equal(cells.from_torch(gru, both)["b_z"], p["b_z"] + np.float32([2, 3]))
    np.testing.assert_array_equal(cells.from_torch(gru, both)["b_n"], p["b_n"])
    np.testing.assert_array_equal(cells.from_torch(gru, both)["c_n"], [4, 5])


def test_sru_layout(laws):
    sru = cells.get("sru_feedback", hidden_size=2)
    p = params_of(laws, sru, 3)
    state = cells.to_torch(sru, p)
    assert {name: x.shape for name, x in state.items()} == {
        "weight": (3, 8), "weight_c": (4,), "bias": (4,), "scale_x": (1,)
    }  # fmt: skip
    for i, name in enumerate(["W", "W_f", "W_r", "W_x"]):
        np.testing.assert_array_equal(state["weight"].reshape(3, 2, 4)[..., i], p[name])
    np.testing.assert_array_equal(state["weight_c"], [*p["v_f"], *p["v_r"]])
    np.testing.assert_array_equal(state["bias"], [*p["b_f"], *p["b_r"]])


def test_wrong_states_are_refused_by_name_and_shape(laws):
    lstm = cells.get("lstm", hidden_size=2)
    p = params_of(laws, lstm, 3)
    state, nested = cells.to_torch(lstm, p), cells.to_flax_nnx(lstm, p)

    def torch(**changes):
        changed = {k: v for k, v in (state | changes).items() if v is not None}
        return lambda: cells.from_torch(lstm, changed)

    refused(torch(bias_hh_l0=None), "'bias_hh_l0' is missing, expected (8,)")
    refused(torch(weight_ih_l0=None), "'weight_ih_l0' is missing", "bias_hh_l0")
    refused(torch(weight_ih_l1=np.ones(2)), "'weight_ih_l1' is (2,), expected no such name", "weight_ih_l0")
    refused(torch(weight_hh_l0=np.ones((2, 8))), "'weight_hh_l0' is (2, 8), expected (8, 2)")
    refused(torch(weight_ih_l0=np.ones((12, 3))), "'weight_ih_l0' is (12, 3), expected (8, 3)")
    refused(torch(weight_ih_l0=np.ones((8, 0))), "'weight_ih_l0' is (8, 0)")
    refused(torch(bias_ih_l0=np.ones(())), "'bias_ih_l0' is (), expected (8,)")
    refused(
        lambda: cells.from_flax_nnx(lstm, nested | {"hi": {"kernel": np.ones((2, 2))}}),
        "'hi.bias' is missing",
    )
    refused(lambda: cells.from_flax_nnx(lstm, nested | {"hi": 1.0}), "'hi.kernel' is missing")
    refused(lambda: cells.from_flax_nnx(lstm, None), "nnx module", "NoneType")
    refused(lambda: cells.to_torch(lstm, p | {"W_i": p["W_i"][:2]}), "(2, 2)", "(3, 2)")
    refused(lambda: cells.to_torch(lstm, {"W_i": p["W_i"]}), "is missing")
    refused(lambda: cells.to_flax_nnx(lstm, {}), "is missing")
    stacked = jax.tree.map(lambda x: np.stack([x, x]), p)
    refused(lambda: cells.to_torch(lstm, stacked), "params do not fit")


def test_sru_layout_with_a_bottleneck(laws):
    sru = cells.get("sru", hidden_size=3, projection=2)
    p = params_of(laws, sru, 3)
    state = cells.to_torch(sru, p)
    assert state["weight"].shape == (2, 9)
    np.testing.assert_array_equal(state["weight_proj"], p["W_q"])
    refused(
        lambda: cells.from_torch(sru, {k: v for k, v in state.items() if k != "weight_proj"}), "'weight_proj'"
    )
    flat = cells.get("sru", hidden_size=3)
    refused(lambda: cells.from_torch(flat, state), "weights do not fit")


def test_sru_states_that_the_options_cannot_take_are_refused(laws):
    cell = functools.partial(cells.get, hidden_size=3)
    full = cell("sru_feedback")
    state = cells.to_torch(full, params_of(laws, full, 3))
    wide = cells.to_torch(full, params_of(laws, full, 2))
    no_f = state | {"weight_c": np.float32([0, 0, 0, 1, 2, 3])}
    no_v = state | {"weight_c": np.zeros(6, np.float32)}
    refused(lambda: cells.from_torch(cell("sru"), state), "no v_f", "weight_c", "sru_feedback")
    refused(lambda: cells.from_torch(cell("sru"), no_f), "no v_r", "weight_c", "reset_feedback=True")
    assert set(cells.from_torch(cell("sru"), no_v)) == {"W", "W_f", "W_r", "b_f", "b_r"}
    assert "v_r" in cells.from_torch(cell("sru", reset_feedback=True), no_f)

    refused(lambda: cells.from_torch(cell("sru_feedback", highway=False), wide), "(2, 12)", "(2, 9)")
    narrow = {k: v for k, v in wide.items()} | {"weight": wide["weight"][:, :9]}
    refused(lambda: cells.from_torch(full, narrow), "'weight' is (2, 9), expected (2, 12)")

    def scaled(scale, like=state):
        return like | {"scale_x": np.float32(scale)}

    refused(lambda: cells.from_torch(full, scaled([1])), "scale_x is 1,", "1.732051", "rescale=False")
    unscaled = cell("sru_feedback", rescale=False)
    refused(lambda: cells.from_torch(unscaled, state), "1.732051", "is 1:", "rescale=True, highway_bias=")
    refused(lambda: cells.from_torch(full, scaled([2])), "highway_bias=0.4054651")
    cells.from_torch(cell("sru_feedback", highway_bias=0.4054651), scaled([2]))
    refused(lambda: cells.from_torch(full, scaled([0.5])), "scale_x is 0.5,", "no option")
    refused(lambda: cells.from_torch(full, scaled([1, 1])), "'scale_x' is (2,), expected (1,)")
    cells.from_torch(full, scaled([9], wide))  # a fourth projection: nothing is scaled
    cells.from_torch(cell("sru_feedback", highway=False), scaled([9]))
    cells.from_torch(full, {k: v for k, v in state.items() if k != "scale_x"})


AGREE = {
    "rescale",
    "highway",
    "layer_norm",
    "reset_after",
    "reset_feedback",
}  # the other library has them, too


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "sru", "sru_feedback"])
def test_an_option_of_the_mathematics_that_a_layout_lacks_is_refused(laws, name):
    """Else weights would be given to a cell that does something else with them."""
    base = {"reset_after": True} if name == "gru" else {}
    plain = cells.get(name, hidden_size=3, **base)
    for field in dataclasses.fields(plain):
        if field.type is not bool or field.name in AGREE:
            continue
        changed = dataclasses.replace(plain, **{field.name: not getattr(plain, field.name)})
        p = params_of(laws, changed, 3)
        try:
            cells.to_torch(changed, p)
        except ValueError as refusal:
            assert field.name in str(refusal) and "\n" not in str(refusal)
        else:  # it is one of the initial values
            x, carry = np.ones((1, 3), np.float32), plain.initial_carry(1)
            laws.same(changed.step(p, carry, x), plain.step(p, carry, x))


# --- flax's cells

FLAX = [
    ("rnn", {}, lambda *a, **k: nnx.SimpleCell(*a, **k)),
    ("rnn", {"activation": "relu"}, lambda *a, **k: nnx.SimpleCell(*a, activation_fn=jax.nn.relu, **k)),
    ("lstm", {}, nnx.LSTMCell),
    ("lstm", {"optimized": True}, nnx.OptimizedLSTMCell),
    ("gru", {"reset_after": True}, nnx.GRUCell),
]


def flax_pair(laws, name, options, module, features=2, hidden=3):
    optimized = options.get("optimized", False)
    cell = cells.get(name, hidden_size=hidden, **{k: v for k, v in options.items() if k != "optimized"})
    p = params_of(laws, cell, features, "flax")
    theirs = module(features, hidden, rngs=nnx.Rngs(0))
    nnx.update(theirs, cells.to_flax_nnx(cell, p, optimized=optimized))
    return cell, p, theirs


@pytest.mark.parametrize("name, options, module", FLAX, ids=lambda x: str(x) if isinstance(x, dict) else None)
def test_flax_cells_run_on_our_weights(laws, name, options, module):
    cell, p, theirs = flax_pair(laws, name, options, module)
    q = laws.problem(cell, (4, 6, 2), flags=False, dtype=np.float32)
    lengths = np.array([6, 1, 4, 6])
    start = tuple(q.carry) if name == "lstm" else q.carry
    for reverse in (False, True):
        rnn = nnx.RNN(theirs, return_carry=True, reverse=reverse, keep_order=True)
        want = rnn(jnp.asarray(q.xs), initial_carry=start, seq_lengths=jnp.asarray(lengths))
        carry, ys = cells.scan(cell, p, q.xs, q.carry, lengths=lengths, reverse=reverse)
        real = np.arange(6) < lengths[:, None]
        laws.same(
            (tuple(jax.tree.leaves(carry)), ys),
            (tuple(jax.tree.leaves(want[0])), real[..., None] * want[1]),
            1e-5,
        )


@pytest.mark.parametrize("name, options, module", FLAX, ids=lambda x: str(x) if isinstance(x, dict) else None)
def test_flax_weights_come_from_modules_states_and_dicts(laws, name, options, module):
    cell, p, theirs = flax_pair(laws, name, options, module)
    state = nnx.state(theirs, nnx.Param)
    variables = {layer: dict(fields) for layer, fields in state.items()}
    assert isinstance(jax.tree.leaves(variables, is_leaf=lambda x: isinstance(x, nnx.Param))[0], nnx.Param)
    for source in (theirs, state, variables, nnx.to_pure_dict(state)):
        jax.tree.map(np.testing.assert_array_equal, cells.from_flax_nnx(cell, source), p)
    fresh = module(2, 3, rngs=nnx.Rngs(1))
    x, h = jnp.ones((4, 2)), cell.initial_carry(4)
    _, y = fresh(tuple(h) if name == "lstm" else h, x)
    laws.same(cell.step(cells.from_flax_nnx(cell, fresh), h, x)[1], y, 1e-5)


def test_flax_gru_takes_no_c_n(laws):
    cell = cells.get("gru", hidden_size=3, reset_after=True)
    p = params_of(laws, cell, 2)
    refused(lambda: cells.to_flax_nnx(cell, p), "no c_n", "flax.nnx", "not zero")
    assert not cells.from_flax_nnx(cell, cells.to_flax_nnx(cell, p | {"c_n": np.zeros(3)}))["c_n"].any()
