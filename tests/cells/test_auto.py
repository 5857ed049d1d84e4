"""Laws of the strategy "auto": a table that names only what a cell can do; what it named is what runs."""

import itertools
import re

import jax
import jax.numpy as jnp
import pytest

import cells
import configs
from cells import scans
from cells.scans import auto
from train.lanes import make_run

BACKENDS = [*auto.TABLE, "another"]
TIMES = sorted(
    {1, 10**6} | {row.time - d for rows in auto.TABLE.values() for row in rows[1:] for d in (0, 1)}
)
BATCHES = (1, 32, 10**4)
LINEAR = [name for name in cells.names() if cells.get(name, hidden_size=1).is_linear]


def test_auto_is_a_strategy_of_the_cell_at_every_size(case):
    cell = case.cell(4)
    for backend, time, batch in itertools.product(BACKENDS, TIMES, BATCHES):
        chosen = scans.resolve(cell, "auto", backend, time, batch)
        assert chosen in cells.strategies(cell) and chosen != "auto"
        if cell.parallel:
            assert chosen == cell.parallel[0]
        elif backend == "cpu" or not cell.is_linear:
            assert chosen == "sequential"


@pytest.mark.parametrize("backend", ["gpu", "tpu", "another"])
@pytest.mark.parametrize("name", LINEAR)
def test_on_accelerators_long_sequences_run_in_parallel_and_the_shortest_do_not(name, backend):
    cell = cells.get(name, hidden_size=4)
    assert scans.resolve(cell, "auto", backend, time=1) == "sequential"
    assert scans.resolve(cell, "auto", backend, time=1000) == "associative"


def test_the_last_row_that_fits_counts(monkeypatch):
    rows = [auto.Row(1, 1, "sequential"), auto.Row(10, 1, "associative"), auto.Row(100, 64, "chunked")]
    monkeypatch.setitem(auto.TABLE, "cpu", rows)
    cell = cells.get(LINEAR[0], hidden_size=8)
    sizes = {(9, 99): "sequential", (10, 99): "associative", (100, 7): "associative", (100, 8): "chunked"}
    for (time, batch), want in sizes.items():
        assert scans.resolve(cell, "auto", "cpu", time, batch) == want
    assert scans.resolve(cells.get("gru", hidden_size=8), "auto", "cpu", 100, 8) == "sequential"


def config(name, **model):
    """One step of training: 3 rows of 10 steps, 2 hidden units."""
    task, train = {"gap": 8, "eval_examples": 4}, {"steps": 1, "eval_every": 1, "batch_size": 3, "seeds": 1}
    sections = {"cell": {"hidden_size": 2}, "task": task, "train": train, "model": model}
    return configs.freeze(configs.make(name, "delayed_recall", **sections))


@pytest.mark.parametrize("more, fits", [(0, True), (1, False)], ids=["fits", "too-small"])
@pytest.mark.parametrize("name", cells.names())
def test_the_choice_is_what_runs_and_what_a_run_says(name, more, fits, monkeypatch):
    rows = [("sequential", 1, 1), ("chunked", 10, 3 * 2 + more), ("associative", 11, 1)]
    rows = [auto.Row(time, size, strategy) for strategy, time, size in rows]
    monkeypatch.setitem(auto.TABLE, jax.default_backend(), rows)
    parallel = cells.CELLS.cls(name).parallel
    want = parallel[0] if parallel else "chunked" if fits and name in LINEAR else "sequential"
    run = make_run(config(name), devices=jax.devices()[:1])
    assert run.strategy == want
    cell, xs = run.config.cell, jnp.ones((3, 10, 2))
    params = cell.init(jax.random.key(0), 2)

    def program(strategy):
        traced = jax.make_jaxpr(lambda params, xs: cells.scan(cell, params, xs, strategy=strategy))(
            params, xs
        )
        return re.sub("0x[0-9a-f]+", "", str(traced))

    assert program("auto") == program(want)
    assert name not in LINEAR or program("sequential") != program("chunked")


@pytest.mark.parametrize("name", cells.names())
def test_the_config_overrides_the_table(name):
    for strategy in set(cells.strategies(cells.get(name, hidden_size=1))) - {"auto"}:
        assert make_run(config(name, strategy=strategy)).strategy == strategy
