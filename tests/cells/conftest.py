"""What the laws are tested on: every registered cell, its options, its strategies; and the plain loop.

A test that asks for `case` runs for every cell and option, one that asks for `strategy` as well for
every way to run it, one that asks for `recurrence` for the cases that differ in a step over time. A new cell
in the registry gets all of them. Other strategies than the sequential one see the default options; with
-m slow, all of them.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from cells.scans import sequential

# Options worth a law that are not simply a bool (those are found by themselves).
OPTIONS = {
    "rnn": [{"activation": "relu"}],
    "qrnn": [{"window": 1, "pooling": "f"}, {"window": 3, "pooling": "ifo"}],
    "knn": [{"order": 3, "combine": "additive", "decay": "constant"}],
    "slstm": [{"heads": 2}],
    "mlstm": [{"heads": 2}],
    "mamba2": [{"heads": 2, "state_size": 3}],
    "window": [{"window": 1}],
    "tcn": [{"levels": 1, "kernel": 2}],
}


def _accepted(name, value):
    """Whether this version's compiler knows the option."""
    try:
        jax.jit(lambda: 0.0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


# Trades run time for compile time, most of a test's time.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
jit = functools.partial(jax.jit, compiler_options={k: v for k, v in QUICK.items() if _accepted(k, v)})


class Case(NamedTuple):
    name: str
    options: dict

    def __str__(self):
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    def cell(self, hidden_size):
        multiple = cells.CELLS.cls(self.name).size_multiple(**self.options)
        return cells.get(self.name, hidden_size=-(-hidden_size // multiple) * multiple, **self.options)


def all_cases():
    for name in cells.names():
        fields = dataclasses.fields(cells.CELLS.cls(name))
        bools = [{f.name: not f.default} for f in fields if isinstance(f.default, bool)]
        yield from (Case(name, options) for options in [{}, *bools, *OPTIONS.get(name, [])])


@functools.cache
def all_recurrences():
    """One of all cases that take the same steps: options that act before or after the loop are left out."""

    def steps(cell):
        params = jax.eval_shape(functools.partial(cell.init, input_size=2), jax.random.key(0))
        weights, carry = jax.eval_shape(lambda p: (cell.recurrent_weights(p), cell.initial_carry(1)), params)
        us = jax.eval_shape(lambda p: cell.project(p, jnp.ones((1, 1, 2)))[0], params)

        def run(weights, carry, us):
            return sequential._forward((cell, False), weights, carry, us, (carry, None, None))

        return str(jax.make_jaxpr(run)(weights, carry, us))

    seen = {}
    for case in all_cases():
        cell = case.cell(2)
        linear_only = type(cell).recur is cells.Cell.recur
        seen.setdefault((case.name, str(case) if linear_only else steps(cell)), case)
    return list(seen.values())


def all_strategies(cell):
    return [name for name in cells.strategies(cell) if name != "auto"]


def pytest_generate_tests(metafunc):
    if "strategy" in metafunc.fixturenames:
        pairs = [
            pytest.param(case, s, id=f"{case}-{s}", marks=[pytest.mark.slow] * bool(i and case.options))
            for case in all_cases()
            for i, s in enumerate(all_strategies(case.cell(1)))
        ]
        metafunc.parametrize("case, strategy", pairs)
    elif "recurrence" in metafunc.fixturenames:
        metafunc.parametrize("recurrence", all_recurrences(), ids=str)
    elif "case" in metafunc.fixturenames:
        metafunc.parametrize("case", list(all_cases()), ids=str)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class Problem(NamedTuple):
    """The arguments of a run."""

    params: dict
    xs: np.ndarray
    carry: object
    lengths: np.ndarray
    mask: np.ndarray
    resets: np.ndarray

    @property
    def valid(self):
        return self.mask & (np.arange(self.xs.shape[1]) < self.lengths[:, None])


class Result(NamedTuple):
    ys: np.ndarray
    carry: object
    gradients: tuple  # with respect to params, xs, carry


def _problem(cell, shape=(4, 5, 2), seed=0, flags=True, dtype=np.float64):
    batch, time, features = shape
    rng = np.random.default_rng(seed)

    def normal(tree):  # not `cell.init`, whose zeros would hide mistakes
        def make(x):
            x_ = 0.7 * rng.normal(size=x.shape)
            if jnp.issubdtype(x.dtype, jnp.complexfloating):
                return (x_ + 0.7j * rng.normal(size=x.shape)).astype(jnp.result_type(dtype, jnp.complex64))
            return x_.astype(dtype)

        return jax.tree.map(make, tree)

    params = normal(jax.eval_shape(functools.partial(cell.init, input_size=features), jax.random.key(0)))
    carry = normal(jax.eval_shape(lambda: cell.initial_carry(batch)))
    xs = rng.normal(size=shape).astype(dtype)
    lengths, mask, resets = np.full(batch, time), np.ones((batch, time), bool), np.zeros((batch, time), bool)
    if flags:
        lengths = np.resize([time, 0, max(time - 1, 1), time], batch)
        mask, resets = rng.random((batch, time)) < 0.75, rng.random((batch, time)) < 0.3
    return Problem(params, xs, carry, lengths, mask, resets)


def _loop(cell, params, xs, carry, lengths, mask, resets):
    """What a scan is: the textbook step, one time after the other."""
    valid = mask & (jnp.arange(xs.shape[1]) < lengths[:, None])
    xs = jnp.where(valid[..., None], xs, 0)
    fresh, ys = cell.initial_carry(len(xs), xs.dtype), []

    def where(condition, new, old):
        def pick(a, b):
            return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return jax.tree.map(pick, new, old)

    for t in range(xs.shape[1]):
        after, y = cell.step(params, where(resets[:, t], fresh, carry), xs[:, t])
        carry = where(valid[:, t], after, carry)
        ys.append(jnp.where(valid[:, t, None], y, 0))
    return carry, jnp.stack(ys, 1)


def _scalar(tree):
    """A loss that tells rows and units apart, but not times, so that a run may be moved along."""
    leaves = [
        part for x in jax.tree.leaves(tree) for part in ([x.real, x.imag] if jnp.iscomplexobj(x) else [x])
    ]
    row_unit = [jnp.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)) + jnp.arange(x.shape[-1]) for x in leaves]
    return sum(jnp.sum(jnp.sin(x + i)) for x, i in zip(leaves, row_unit, strict=True))


@functools.cache
def _runner(cell, strategy, reverse=False, remat=0):
    """Compiled `Problem -> Result` of a strategy, or of the plain "loop"; one for all tests."""
    if strategy == "loop":
        run = functools.partial(_loop, cell)
    else:
        run = functools.partial(cells.scan, cell, reverse=reverse, strategy=strategy, remat=remat)

    @jit
    def result(*problem):
        def loss(*args):
            carry, ys = run(*args, *problem[3:])
            return _scalar((carry, ys)), (carry, ys)

        gradients, (carry, ys) = jax.grad(loss, (0, 1, 2), has_aux=True)(*problem[:3])
        return Result(ys, carry, gradients)

    def reversed_loop(p):
        """The loop over everything turned around, padding too."""
        full = np.full_like(p.lengths, p.xs.shape[1])
        flipped = {name: getattr(p, name)[:, ::-1] for name in ("xs", "resets")}
        r = forward(p._replace(**flipped, mask=p.valid[:, ::-1], lengths=full))
        d_params, d_xs, d_carry = r.gradients
        return Result(r.ys[:, ::-1], r.carry, (d_params, d_xs[:, ::-1], d_carry))

    if strategy == "loop" and reverse:
        forward = _runner(cell, "loop")
        return reversed_loop
    return lambda problem: jax.tree.map(np.asarray, result(*problem))


def _same(got, want, tolerance=1e-10, what=""):
    """Two pytrees are equal to a tolerance, absolute and relative."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, g), w in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        wide = np.complex128 if np.iscomplexobj(w) else np.float64
        g, w = np.asarray(g, wide), np.asarray(w, wide)
        where = f"{what}{jax.tree_util.keystr(path)}"
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance, err_msg=where)


class Laws(NamedTuple):
    problem = staticmethod(_problem)
    loop = staticmethod(_loop)
    runner = staticmethod(_runner)
    scalar = staticmethod(_scalar)
    same = staticmethod(_same)
    jit = staticmethod(jit)


@pytest.fixture(scope="session")
def laws():
    """The tools above, for tests in other files."""
    return Laws()
