"""What cells are told of the longest dependency."""

import dataclasses
import math

import jax
import numpy as np
import pytest

import cells
from train import timescale


@pytest.mark.parametrize("longest", [3, 12, 100, 5000])
@pytest.mark.parametrize("name", cells.names())
def test_every_cell_takes_what_it_is_told_and_is_told_once(name, longest):
    cell = cells.get(name, hidden_size=4)
    told = timescale.tell(cell, longest)
    assert timescale.tell(told, 10 * longest) == (
        told if told != cell else timescale.tell(cell, 10 * longest)
    )
    assert timescale.tell(cell, 2) == cell
    shapes = jax.eval_shape(lambda: told.init(jax.random.key(0), 3))
    assert shapes


def test_options_with_a_value_of_their_own_keep_it():
    for name, options in (("lstm", {"chrono": 7}), ("qrnn", {"forget_bias": 3.0}), ("lru", {"r_max": 0.5})):
        cell = cells.get(name, hidden_size=4, **options)
        assert timescale.tell(cell, 50) == cell


def test_what_is_told_is_the_time_scale():
    def of(name, longest):
        return timescale.tell(cells.get(name, hidden_size=500), longest)

    lru = of("lru", 100).init(jax.random.key(0), 2)
    kept = np.exp(-np.exp(lru["nu"]))
    assert 1 / (1 - kept.min()) >= 24 and 1 / (1 - kept.max()) <= 101
    rglru = of("rglru", 100).init(jax.random.key(0), 2)
    kept = 1 / (1 + np.exp(-rglru["Lambda"])) ** (8 / 2)
    assert 1 / (1 - kept.min()) >= 24 and 1 / (1 - kept.max()) <= 101
    assert of("knn", 100).forget_bias == pytest.approx(math.log(50))
    for longest in (3, 61, 62, 1000):
        tcn = of("tcn", longest)
        field = lambda cell: 1 + 2 * (cell.kernel - 1) * (2**cell.levels - 1)  # noqa: E731
        assert field(tcn) >= longest
        assert tcn.levels == 1 or field(dataclasses.replace(tcn, levels=tcn.levels - 1)) < longest
