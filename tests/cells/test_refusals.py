"""Wrong names, options, shapes and dtypes: each refused with one line that says what was expected."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from cells import scans
from quickly import quickly


def refused(call, *words):
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("lsmt", {}, ["unknown cell 'lsmt'", "did you mean 'lstm'?", "sru_feedback"]),
        ("sru-feedback", {}, ["did you mean 'sru_feedback'?"]),
        ("xyzzy", {}, ["unknown cell 'xyzzy'", "choices: rnn, lstm"]),
        ("lstm", {"forget_bais": 1.0}, ["no option 'forget_bais'", "did you mean 'forget_bias'?"]),
        ("rnn", {"activation": "sigmoid"}, ["RNN: activation must be 'tanh' or 'relu', got 'sigmoid'"]),
        ("rnn", {"recurrent_init": "zero"}, ["RNN: recurrent_init", "'identity'"]),
        ("gru", {"chrono": 2}, ["GRU: chrono", "at least 3", "got 2"]),
        ("lstm", {"forget_bias": float("nan")}, ["LSTM: forget_bias", "finite"]),
        ("sru", {"highway_bias": "big"}, ["SRU: highway_bias", "'big'"]),
    ],
)
def test_names_and_options(name, options, words):
    refused(lambda: cells.get(name, hidden_size=2, **options), *words)


def test_hidden_size(case):
    for size in (0, -1, 2.0, None):
        wrong = functools.partial(case.cls, hidden_size=size, **case.options)
        refused(wrong, "hidden_size must be a positive int", repr(size))
    refused(lambda: cells.get("gru"), "needs the option 'hidden_size'")


def test_cells_are_values(case):
    """Equal options make equal cells, which hash: they can be static arguments."""
    a, b = case.cell(3), case.cell(3)
    assert a == b and hash(a) == hash(b) and a != case.cell(5)
    with pytest.raises(AttributeError):
        a.hidden_size = 5


@pytest.mark.parametrize("name", quickly(cells.names(), "lstm", "sru", "lru", "mlstm", "tcn"))
def test_arguments_of_a_scan(name):
    cell = cells.get(name, hidden_size=4)
    params, xs = cell.init(jax.random.key(0), 3), jnp.ones((2, 5, 3))
    first = next(iter(params))

    def check(*words, params=params, xs=xs, **kwargs):
        call = functools.partial(cells.scan, cell, params, xs, **kwargs)
        refused(call, *words)
        refused(lambda: jax.eval_shape(call), *words)

    check("(batch, time, features)", "(5, 3)", xs=xs[0])
    check("none of them 0", "(2, 0, 3)", xs=xs[:, :0])
    check("none of them 0", "(0, 5, 3)", xs=xs[:0])
    check("floating", "int32", xs=jnp.ones((2, 5, 3), jnp.int32))
    wide = cell.init(jax.random.key(0), 7)
    shapes = next(
        (str(p.shape), str(wide[name].shape))
        for name, p in params.items()
        if name in wide and wide[name].shape != p.shape
    )
    check("do not fit", "7 input features", *shapes, xs=jnp.ones((2, 5, 7)))
    check(f"{first} is missing", params={k: v for k, v in params.items() if k != first})
    check("extra is (2,), expected none", params=params | {"extra": jnp.ones(2)})
    carry = cell.initial_carry(3)
    check("carry", "initial_carry(2)", str(jax.tree.leaves(carry)[0].shape), carry=carry)
    check("carry", "initial_carry(2)", carry=[jnp.ones((2, 4))] * 3)
    for name in ("mask", "resets"):
        check(f"{name} must be bool (2, 5)", "float32 (2, 5)", **{name: jnp.ones((2, 5))})
        check(f"{name} must be bool (2, 5)", "bool (5, 2)", **{name: jnp.ones((5, 2), bool)})
    check("lengths must be integers (2,)", "float32", lengths=jnp.ones(2))
    check("lengths must be integers (2,)", "(3,)", lengths=jnp.ones(3, int))
    check("lengths must lie in 0..5", "2..6", lengths=np.array([2, 6]))
    check("lengths must lie in 0..5", "-1..3", lengths=np.array([-1, 3]))
    check("unknown strategy 'sequental'", "did you mean 'sequential'?", strategy="sequental")


def test_a_strategy_that_a_cell_cannot_use(case):
    cell = case.cell(2)
    allowed = cells.strategies(cell)
    assert len(set(allowed)) == len(allowed) and set(allowed) <= set(scans.STRATEGIES)
    old = set() if "sequential" in allowed else {"sequential"}  # names of older versions mean something else
    old |= {"chunked"} if "chunkwise" in allowed else set()
    # Those for accelerators are another strategy where there is none, as here.
    old |= {kind.name for kind in (scans.Kernel, scans.Cudnn) if kind().refuses(cell) is None}
    for strategy in set(scans.STRATEGIES) - set(allowed) - old:
        words = f"{type(cell).__name__} cannot use strategy '{strategy}'", ", ".join(allowed)
        refused(lambda how=strategy: cells.scan(cell, {}, jnp.ones((1, 2, 3)), strategy=how), *words)


@pytest.mark.parametrize("name", quickly(cells.names(), "lstm", "lru"))
def test_numpy_arguments_are_taken(laws, name):
    cell = cells.get(name, hidden_size=4)
    params, xs = cell.init(jax.random.key(0), 3), np.ones((2, 3, 3), np.float32)
    ones, zeros, lengths = np.ones((2, 3), bool), np.zeros((2, 3), bool), np.array([1, 3])
    got = cells.scan(cell, jax.tree.map(np.asarray, params), xs, lengths=lengths, mask=ones, resets=zeros)
    want = cells.scan(cell, params, jnp.asarray(xs), lengths=jnp.asarray(lengths))
    laws.same(got, want, 1e-6)


@pytest.mark.parametrize(
    "options", [{"hidden_size": 3.5}, {"hidden_size": True}, {"hidden_size": 4, "peepholes": "yes"}]
)
def test_an_option_of_the_wrong_type_is_refused_with_one_line(options):
    with pytest.raises(ValueError, match=f"LSTM: {list(options)[-1]} must be") as refusal:
        cells.get("lstm", **options)
    assert "\n" not in str(refusal.value)


class Sum(cells.Nonlinear):
    """A cell whose `project` gives what a test says."""

    def init(self, key, input_size, dtype=jnp.float32):
        return {"W": jnp.ones((input_size, self.hidden_size), dtype)}

    def step(self, params, carry, x):
        return (carry + x @ params["W"],) * 2

    def recur(self, w, carry, u):
        return carry + u, ()


@pytest.mark.parametrize(
    "project, words",
    [
        (lambda u: u, "must return a tuple (us, rest)"),
        (lambda u: [u, None], "must return a tuple (us, rest)"),
        (lambda u: (u, None, None), "must return a tuple (us, rest)"),
        (lambda u: None, "got NoneType"),
        (lambda u: (u, u), "returns a `rest`, but there is no `readout`"),
    ],
)
def test_a_project_that_misreads_its_contract_is_refused_with_one_line(project, words):
    methods = {"project": lambda self, params, xs: project(xs @ params["W"])}
    cell = type("Misread", (Sum,), methods)(hidden_size=2)
    with pytest.raises(TypeError) as refusal:
        cells.scan(cell, cell.init(None, 3), jnp.ones((1, 2, 3)))
    message = str(refusal.value)
    assert message.startswith("Misread.project ") and words in message and "\n" not in message
