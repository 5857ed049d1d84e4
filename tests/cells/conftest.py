"""What the laws are tested on: every registered cell, its options, its strategies, and a cell that is `init`
and `step` alone.

A test that asks for `case` runs for every cell and option, one that asks for `strategy` as well for
every way to run it, one that asks for `recurrence` for the cases that differ in a step over time. A new cell
in the registry gets all of them. Other strategies than the first one see the default options, and laws
marked `kinds`, which do not depend on a cell's equation, one cell of each kind and strategy, or those that
the mark names; with -m slow, all of them. With --hypothesis-profile=thorough a law sees many more examples.
"""

import dataclasses
import functools
from typing import NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import pytest

import cells
import laws as tools
from cells.scans import sequential
from train import host

hypothesis.settings.register_profile(
    "repeatable",
    max_examples=10,
    deadline=None,  # the first example compiles
    database=None,
    derandomize=True,
    print_blob=False,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("repeatable"), max_examples=500, derandomize=False
)
hypothesis.settings.load_profile("repeatable")

# Smaller than the default where that takes long to compile, or is longer than the sequences here.
SMALL = {"tcn": {"levels": 2}, "attention": {"window": 4}}

# Options worth a law that are not simply a bool (those are found by themselves).
OPTIONS = {
    "rnn": [{"activation": "relu"}],
    "lstm": [
        *({"coupled": True, "peepholes": True, key: True} for key in ("layer_norm", "diagonal")),
        {"heads": 2},
    ],
    "gru": [
        *(
            {"reset_after": True, key: key != "reset_gate"}
            for key in ("reset_gate", "layer_norm", "diagonal")
        ),
        {"heads": 2},
    ],
    "sru": [{"projection": 2}],
    "sru_feedback": [{"projection": 2, "layer_norm": True}],
    "qrnn": [{"window": 1, "pooling": "f"}, {"window": 3, "pooling": "ifo"}],
    "knn": [{"order": 3, "combine": "additive", "decay": "constant"}],
    "s5": [{"eigenvalues": "s4d", "state_size": 2}],
    "slstm": [{"heads": 2}],
    "mlstm": [{"heads": 2}],
    "mamba2": [{"heads": 2, "state_size": 3}],
    "mamba3": [{"heads": 2, "state_size": 6, "rotated": 1.0}, {"rotated": 0.0}],
    "deltanet": [{"heads": 2, "state_size": 3, "products": 2, "negative_eigenvalues": True}],
    "window": [{"window": 1}],
    "tcn": [{"levels": 1, "kernel": 2}],
    "attention": [{"heads": 2, "window": 30}],
}


class Case(NamedTuple):
    name: str
    options: dict

    def __str__(self):
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def cls(self):
        return tools.StepAlone if self.name == "step_alone" else cells.CELLS.cls(self.name)

    def cell(self, hidden_size):
        multiple = self.cls.size_multiple(**self.options)
        options = SMALL.get(self.name, {}) | self.options
        return self.cls(hidden_size=-(-hidden_size // multiple) * multiple, **options)


def all_cases():
    yield Case("step_alone", {})
    for name in cells.names():
        fields = dataclasses.fields(cells.CELLS.cls(name))
        bools = [{f.name: not f.default} for f in fields if isinstance(f.default, bool)]
        yield from (Case(name, options) for options in [{}, *bools, *OPTIONS.get(name, [])])


@functools.cache
def all_recurrences():
    """One of all cases with `recur` that take the same steps: options that act before or after the loop are
    left out."""

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
        if isinstance(cell, cells.Nonlinear):
            seen.setdefault((case.name, cell.gradient_by_hand, steps(cell)), case)
    return list(seen.values())


def all_strategies(cell):
    return [name for name in cells.strategies(cell) if name != "auto"]


class Kind(NamedTuple):
    """What the scans ask of a cell."""

    classes: tuple
    forms: tuple
    is_complex: bool


def kind(cell):
    classes = cells.HandDifferentiated, cells.Nonlinear, cells.Linear, cells.Sequence
    forms = cell.forms if isinstance(cell, cells.Sequence) else ()
    carry = jax.eval_shape(lambda: cell.initial_carry(1))
    is_complex = any(jnp.issubdtype(c.dtype, jnp.complexfloating) for c in jax.tree.leaves(carry))
    return Kind(tuple(isinstance(cell, c) for c in classes), forms, is_complex)


@functools.cache
def representatives():
    """(case, strategy): of each kind and strategy the default cell with most arrays in its carry.

    The textbook step over time is tested on the cell that has nothing else, Newton's method, which asks
    nothing of a cell but its step, on one with two arrays.
    """
    # Strategies that one cell of any kind stands for, and the arrays for which another takes its place.
    chosen, most = {}, {"stepwise": 0, "newton": 2, "chunked": 1}
    for case in all_cases():
        if not case.options:
            cell = case.cell(2)
            size = len(jax.tree.leaves(cell.initial_carry(1)))
            usual, *others = all_strategies(cell)
            for strategy in [usual] if kind(cell).is_complex else [usual, *others]:
                key = strategy if strategy in most else (kind(cell), strategy)
                if key not in chosen or chosen[key][0] < size <= most.get(strategy, size):
                    chosen[key] = size, (case.name, strategy)
    return {pair for _, pair in chosen.values()}


def is_representative(case, strategy):
    return not case.options and (case.name, strategy) in representatives()


@pytest.fixture
def represents(case, strategy):
    """Whether laws of flags are tested on this one."""
    return is_representative(case, strategy)


def pytest_generate_tests(metafunc):
    kinds = metafunc.definition.get_closest_marker("kinds")

    def param(case, *more, slow=False):
        marks = [pytest.mark.slow] * slow
        return pytest.param(case, *more, id="-".join(map(str, (case, *more))), marks=marks)

    names = {name for name, _ in representatives()}

    named = kinds.args if kinds else ()
    slow_options = metafunc.definition.get_closest_marker("options_are_slow")

    def rare(case):
        return bool(kinds and (case.options or case.name not in (named or names)))

    if "strategy" in metafunc.fixturenames:
        pairs = []
        for case in all_cases():
            if case.options and metafunc.definition.get_closest_marker("default_options"):
                continue
            for i, s in enumerate(all_strategies(case.cell(1))):
                usual = (i == 0 or not case.options and s != "stepwise") and not (
                    case.options and slow_options
                )
                represents = is_representative(case, s) and (not named or case.name in named)
                pairs.append(param(case, s, slow=not (represents or usual and not kinds)))
        metafunc.parametrize("case, strategy", pairs)
    elif "recurrence" in metafunc.fixturenames:
        metafunc.parametrize("recurrence", [param(case, slow=rare(case)) for case in all_recurrences()])
    elif "case" in metafunc.fixturenames:
        rarely = {str(case): rare(case) or bool(slow_options and case.options) for case in all_cases()}
        metafunc.parametrize("case", [param(case, slow=rarely[str(case)]) for case in all_cases()])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Inside a file, case after case; each case of all files in one process: what is compiled for it serves
    all its laws."""
    files, cases = {}, {}

    def place(item):
        params = getattr(getattr(item, "callspec", None), "params", {})
        case = params.get("case", params.get("recurrence"))
        if isinstance(case, Case):
            item.add_marker(pytest.mark.xdist_group(str(case)))
        return files.setdefault(item.path, len(files)), cases.setdefault(str(case), len(cases))

    items.sort(key=place)


def pytest_runtest_teardown(item, nextitem):
    """Frees compiled programs between cases, in time: see tests/conftest.py."""
    ours, theirs = (it and it.get_closest_marker("xdist_group") for it in (item, nextitem))
    if ours and ours != theirs and host.crowded():
        jax.clear_caches()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def laws():
    """The tools of laws.py."""
    return tools
