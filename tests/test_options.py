"""An option acts, or one line refuses it: for every option of every cell and section, by the registries.

What acts is a program: the initial parameters and one step of the cell, of the model, of the optimiser. Two
programs are compared as text (jaxprs), so nothing is compiled.
"""

import copy
import dataclasses
import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
import configs
from configs import overrides, precedence
from configs.precedence import SECTIONS, NoEffectError
from quickly import quickly
from train import effects, tasks
from train.config import OPTIMIZERS, SCHEDULES, OptimConfig, TrainConfig
from train.model import BLOCKS, CONNECTIONS, DTYPES, NORMS, POOLINGS
from train.optim import optimizer
from train.resolve import resolve

HIDDEN, TASK = 4, ["adding"]  # whose recipe says no option of a cell
WORDS = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "block": BLOCKS,
    "connection": CONNECTIONS,
    "layer_norm": NORMS,
    "pooling": POOLINGS,
    "compute_dtype": DTYPES,
    "strategy": ("stepwise", "newton", "newton:window=1"),
}


def options(cls) -> dict[str, list]:
    """The options of a cell or section, each with values other than its default, some out of range."""
    return {
        field.name: others(cls, field) for field in dataclasses.fields(cls) if field.name != "hidden_size"
    }


def others(cls, field: dataclasses.Field) -> list:
    match field.default:
        case bool(default):
            values = [not default]
        case int(default):
            values = [default + 1, 2 * default + 2, default // 2, 2]
        case float(default):
            values = [default + 0.25, 0.98 * default, 0.5 * default + 0.1]
        case str():
            values = WORDS[field.name] if cls in SECTIONS.values() else words(cls, field.name)
        case tuple():
            values = [(0.1, 0.2)]
        case None:
            values = [5]
    return [value for value in dict.fromkeys(values) if value != field.default]


def words(cell: type, option: str) -> list[str]:
    """What an option of a cell may be, from the line that refuses another word."""
    with pytest.raises(ValueError) as refusal:
        cell(HIDDEN, **{option: "?"})
    return re.findall(r"'(\w+)'", str(refusal.value))


def text(f, *args) -> str:
    """A program as text, without addresses."""
    traced = jax.make_jaxpr(f)(*args)
    return re.sub(r"0x[0-9a-f]+", "", f"{traced} {[np.asarray(x).tolist() for x in traced.consts]}")


def cell_program(cell: cells.Cell) -> str:
    def run(xs):
        params = cell.init(jax.random.key(0), xs.shape[-1])
        return params, cell.step(params, cell.initial_carry(1), xs)

    # Where the input is as wide as the state, a cell may need no projection.
    return "".join(text(run, jnp.zeros((1, size))) for size in (HIDDEN, HIDDEN + 1))


def resolved(config) -> cells.Cell:
    run = configs.freeze(config)
    return resolve(run, run.task.load())[0].cell


def refused(refusal: pytest.ExceptionInfo, *words: str) -> None:
    line = str(refusal.value)
    assert "\n" not in line and all(word in line for word in words), line


# --- cells


def variants(name, most):
    """Cells with up to so many options at other values, and what was said; the cell may refuse some."""
    given = options(cells.CELLS.cls(name))
    for number in range(1, most + 1):
        for chosen in itertools.combinations(given, number):
            accepted = 0
            for values in itertools.product(*(given[option] for option in chosen)):
                said = dict(zip(chosen, values, strict=True))
                try:
                    cell = cells.get(name, hidden_size=HIDDEN, **said)
                except ValueError as refusal:
                    assert "\n" not in str(refusal)
                    assert any(option in str(refusal) for option in chosen), refusal
                    continue
                accepted += 1
                yield said, cell
                if number > 1:
                    break
            assert accepted or number > 1, f"every value of {chosen} is refused"


@pytest.mark.parametrize("name", quickly(cells.names(), "lstm", "gru", "sru", "knn", "lru", "mamba3"))
def test_two_cells_whose_options_differ_are_two_programs(name):
    programs = {cell_program(cells.get(name, hidden_size=HIDDEN)): {}}
    for said, cell in variants(name, most=2):
        same = programs.setdefault(cell_program(cell), said)
        assert same is said, f"{said} does the same as {same}"


@pytest.mark.parametrize("name", cells.names())
def test_an_option_that_a_user_names_is_the_one_that_runs(name):
    """However it is named, at its default too, on a task that tells cells its length."""
    cls = cells.CELLS.cls(name)
    fields = cls.__dataclass_fields__
    plain = configs.make(name, "delayed_recall", cell={"hidden_size": HIDDEN})
    for said, _ in variants(name, most=1):
        (option, other), *_ = said.items()
        for value in (other, fields[option].default):
            by_flag = configs.apply(plain, {f"cell.{option}": str(value)})
            by_keyword = configs.make(name, "delayed_recall", cell={"hidden_size": HIDDEN, option: value})
            by_text = configs.sweep("compare", [f"{name}:hidden_size={HIDDEN}:{option}={value}"], TASK)
            for config in (by_flag, by_keyword, *by_text.values()):
                assert (config.cell[option], config.cell.hidden_size) == (value, HIDDEN)
                assert config.chrono == ("cell" if option in cls.length_options else "task")
                assert config.parameters == 0


@pytest.mark.parametrize("name", [name for name in cells.names() if cells.CELLS.cls(name).length_options])
def test_a_cell_is_told_the_length_unless_it_has_its_own(name):
    plain = configs.make(name, "delayed_recall", task={"gap": 400}, cell={"hidden_size": HIDDEN})
    cell = cells.get(name, hidden_size=HIDDEN)
    assert resolved(plain) == cell.for_length(402) != cell
    assert resolved(configs.apply(plain, {"chrono": "cell"})) == cell
    assert resolved(configs.apply(plain, {"task.gap": "9"})) == cell.for_length(11)
    for option in cell.length_options:
        own = configs.make(name, "delayed_recall", cell={option: getattr(cell, option)})
        assert own.chrono == "cell"
        with pytest.raises(ValueError, match=rf"config.cell.{option}=.* config.chrono='task' overrules it"):
            configs.apply(plain, {f"cell.{option}": str(getattr(cell, option)), "chrono": "task"})
        assert resolved(configs.apply(own, {"chrono": "task"})) != cell


@pytest.mark.parametrize("name", [name for name in cells.names() if not cells.CELLS.cls(name).length_options])
def test_a_cell_that_cannot_be_told_the_length_refuses_to_be_asked(name):
    with pytest.raises(NoEffectError, match=f"config.chrono='cell' has no effect: {name} has no options"):
        configs.apply(configs.make(name), {"chrono": "cell"})


# --- sections

# Tasks with their options, and what of the model and the optimiser is not at its default: where one option
# of RULES is overruled, another acts.
PLACES = [
    ("delayed_recall", {"gap": 2, "symbols": 2, "distractors": 1}, {"dropout": 0.5}, {}),
    ("copy_memory", {"length": 1, "symbols": 2, "items": 1}, {"block": "gated"}, {"optimizer": "sgd"}),
    ("adding", {"length": 3}, {}, {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "constant"}),
    ("adding", {"length": 3}, {}, {"optimizer": "schedule_free_adamw", "learning_rates": (0.1, 0.3)}),
]


def model_program(run) -> str:
    """The initial parameters, and the gradient of a step with dropout."""
    _, spec, model = resolve(run, {})
    batch = jax.eval_shape(lambda: run.task.train_batch({}, jax.random.key(0), 0, 2))

    def step(xs):
        params = model.init(jax.random.key(0))
        return params, jax.grad(lambda p: model.apply(p, xs, key=jax.random.key(1)).sum())(params)

    return text(step, batch.xs)


def optim_program(run) -> str:
    """A step of the optimiser at each learning rate."""

    def step(params):
        rules = [optimizer(run.optim, run.train.steps, rate) for _, rate in run.lanes]
        return [rule.update(params, rule.init(params), params) for rule in rules]

    return text(step, {"w": jnp.ones(2)})


PROGRAMS = {"model": model_program, "optim": optim_program}
SECTION_OPTIONS = [
    pytest.param(f"{section}.{option}", values, id=f"{section}.{option}")
    for section in PROGRAMS
    for option, values in options(SECTIONS[section]).items()
]


def in_range(section, option, value) -> bool:
    try:
        section(**{option: value})
    except ValueError as refusal:
        return "overrules" in str(refusal)
    return True


@pytest.mark.parametrize("path, values", SECTION_OPTIONS)
def test_an_option_of_a_section_acts_or_its_line_says_what_overrules_it(path, values):
    section, option = path.split(".")
    programs = {}
    for task, task_options, model, optim in PLACES:
        sections = {"task": task_options, "model": model, "optim": optim}
        plain = configs.make("rnn", task, cell={"hidden_size": 3}, **sections)
        for value in values:
            changed = copy.deepcopy(plain)
            overrides.set_field(changed, path, value)
            if not in_range(SECTIONS[section], option, value):
                continue
            rules = [rule for rule in effects.RULES if rule.option == path and rule.applies(changed)]
            if rules:
                with pytest.raises(ValueError) as in_python:
                    configs.freeze(changed)
                refused(in_python, f"config.{path}=", f"config.{rules[0].by}=", "overrules it")
                if rules[0].off is effects.STAYS:
                    with pytest.raises(NoEffectError) as by_flag:
                        configs.apply(plain, {path: str(value)})
                    assert str(by_flag.value) == str(in_python.value)
            elif value not in programs.values() and value != "last":  # which the task suggests
                try:
                    run = configs.freeze(configs.apply(plain, {path: str(value)}))
                except ValueError as refusal:
                    assert f"{option} must be" in str(refusal)
                    continue
                assert effects.value(run, path) == value
                before = programs or {PROGRAMS[section](configs.freeze(plain)): plain[section][option]}
                programs = {PROGRAMS[section](run): value, **before}
                assert len(programs) > len(before), f"{path}={value!r} does the same as another"
    assert programs


def test_every_option_of_training_is_read():
    sources = "".join(path.read_text() for path in Path(tasks.__file__).parents[1].glob("*.py"))
    sources = re.sub(r'"""class TrainConfig.*?def __post_init__', "", sources, flags=re.DOTALL)
    for field in dataclasses.fields(TrainConfig):
        assert re.search(rf"(options|train)\.{field.name}\b", sources), field.name


# --- two settings that exclude each other

EXCLUSIVE = [
    pytest.param(name, rule, id=f"{name}-{rule.option}-{rule.by}")
    for name in cells.names()
    for rule in effects.rules(cells.CELLS.cls(name))
    if rule.off is not effects.STAYS and (rule.option.startswith("cell.") or name == "rnn")
]
OVERRULING = {"chrono": "task", "parameters": 5000, "optim.learning_rates": (0.1, 0.2), "cell.chrono": 9}


@pytest.mark.parametrize("name, rule", EXCLUSIVE)
def test_of_two_settings_that_exclude_each_other_the_later_stands_and_two_at_once_are_refused(name, rule):
    plain = configs.make(name, "delayed_recall")
    default = precedence.default(plain, rule.option)
    value, by = (9 if default is None else default), OVERRULING[rule.by]
    both = {rule.option: str(value), rule.by: str(by)}

    later = configs.apply(configs.apply(plain, {rule.by: str(by)}), {rule.option: str(value)})
    assert effects.value(later, rule.option) == value and not rule.applies(later)
    assert effects.value(later, rule.by) == rule.off
    if rule.by != "cell.chrono":  # below, of the same cell
        earlier = configs.apply(configs.apply(plain, {rule.option: str(value)}), {rule.by: str(by)})
        assert effects.value(earlier, rule.by) == by and effects.value(earlier, rule.option) == default
    with pytest.raises(ValueError) as refusal:
        configs.apply(plain, both)
    refused(refusal, f"config.{rule.option}=", f"config.{rule.by}=", "overrules it")


def test_a_recipe_does_not_stand_in_the_way():
    rate = configs.make("gru", "adding").optim.learning_rate
    assert rate != OptimConfig().learning_rate
    run = configs.freeze(configs.apply(configs.make("gru", "adding"), {"optim.learning_rates": "0.1,0.2"}))
    assert run.optim.learning_rate == OptimConfig().learning_rate
    assert configs.make("lstm", "word_problem").chrono == "cell"
    assert configs.apply(configs.make("lstm", "word_problem"), {"chrono": "task"}).chrono == "task"
    with pytest.raises(ValueError, match="config.model.dropout=0.0 overrules it"):
        configs.make("rnn", "digits", model={"dropout": 0.0, "variational": True})
