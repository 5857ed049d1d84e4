"""Laws of strategies: of the choice that "auto" makes, and of their texts."""

import itertools

import jax
import jax.numpy as jnp
import pytest

import cells
from cells import scans

BACKENDS = ("cpu", "gpu", "tpu", "another")


def test_auto_is_a_strategy_of_the_cell_at_every_size(case):
    cell = case.cell(4)
    for backend, time in itertools.product(BACKENDS, (1, 15, 16, 10**6)):
        chosen = scans.resolve(cell, "auto", backend, time)
        assert chosen.split(":")[0] in cells.strategies(cell) and chosen != "auto"
        if isinstance(cell, cells.Linear):
            assert chosen == ("sequential" if backend == "cpu" or time < 16 else "associative")
        elif isinstance(cell, cells.Nonlinear):
            assert chosen == "sequential"


def test_a_strategy_is_its_text(case):
    """Options too; and a value may stand for its text."""
    cell = case.cell(4)
    for name in cells.strategies(cell):
        value = scans.parse(name)
        assert (value is None) == (name == "auto")
        if value is not None:
            assert str(value) == name == scans.resolve(cell, value) == scans.resolve(cell, name)
    newton = scans.Newton(window=1, jacobian="diagonal", tolerance=0.5)
    assert (
        str(newton) == "newton:window=1:jacobian=diagonal:tolerance=0.5"
        and scans.parse(str(newton)) == newton
    )


@pytest.mark.parametrize(
    "text, line",
    [
        ("newtom", "unknown strategy 'newtom'; did you mean 'newton'?"),
        ("newton:windo=1", "strategy 'newton' has no option 'windo'; did you mean 'window'?"),
        ("newton:window", "write each option once, as name=value, got 'window'"),
        ("newton:window=1:window=2", "write each option once"),
        ("newton:window=-1", "Newton: window must be an integer, 0 or more, got -1"),
        ("newton:jacobian=full", "Newton: jacobian must be 'auto', 'dense' or 'diagonal', got 'full'"),
        ("chunked:chunk=0", "Chunked: chunk must be a positive int, got 0"),
        ("auto:chunk=1", "strategy 'auto' has no option 'chunk'"),
        ("associative", "GRU cannot use strategy 'associative': its next state is no linear function"),
        ("chunked:chunk=3", "GRU cannot use strategy 'chunked:chunk=3'"),
        (3, "unknown strategy 3"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused_in_one_line(text, line):
    cell = cells.get("gru", hidden_size=2)
    params = cell.init(jax.random.key(0), 2)
    with pytest.raises(ValueError) as refusal:
        cells.scan(cell, params, jnp.ones((1, 3, 2)), strategy=text)
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


def test_names_of_older_versions_mean_what_they_meant():
    of = {
        name: cells.get(name, hidden_size=4)
        for name in ("mlstm", "mamba2", "mamba3", "deltanet", "tcn", "window")
    }
    of["knn"] = cells.get("knn", hidden_size=4, decay="recurrent")
    assert {scans.resolve(cell, "sequential") for cell in of.values()} == {"stepwise"}
    assert {scans.resolve(of[name], "chunked") for name in ("mlstm", "mamba2", "mamba3", "deltanet")} == {
        "chunkwise"
    }


@pytest.mark.parametrize("name", ["mlstm", "mamba2", "mamba3", "deltanet"])
def test_matrix_memories_take_shorter_chunks_on_a_cpu(name):
    cell = cells.get(name, hidden_size=4)
    assert {backend: scans.resolve(cell, backend=backend) for backend in ("cpu", "gpu", "tpu")} == {
        "cpu": "chunkwise:chunk=16", "gpu": "chunkwise", "tpu": "chunkwise",
    }  # fmt: skip
    assert scans.resolve(cell, "chunkwise", backend="cpu") == "chunkwise"


def test_options_of_newton_beside_another_strategy_are_refused():
    cell = cells.get("gru", hidden_size=2)
    params, xs = cell.init(jax.random.key(0), 2), jnp.ones((1, 3, 2))
    with pytest.raises(ValueError, match="newton must be a cells.Newton beside strategy='newton'"):
        cells.scan(cell, params, xs, newton=cells.Newton(window=1))
    one, two = (
        jax.make_jaxpr(lambda xs, options=options: cells.scan(cell, params, xs, **options))(xs)
        for options in (
            {"strategy": "newton", "newton": cells.Newton(window=1)},
            {"strategy": "newton:window=1"},
        )
    )
    assert len(one.eqns) == len(two.eqns) and one.out_avals == two.out_avals


def test_the_length_of_a_chunk_is_in_the_program():
    cell = cells.get("mingru", hidden_size=2)
    params, xs = cell.init(jax.random.key(0), 2), jnp.ones((1, 12, 2))
    programs = {
        str(jax.make_jaxpr(lambda xs, s=s: cells.scan(cell, params, xs, strategy=s))(xs))
        for s in ("chunked:chunk=3", "chunked:chunk=4", "chunked")
    }
    assert len(programs) == 3
