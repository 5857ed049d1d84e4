"""Configs: defaults, files, overrides, sweeps."""

import dataclasses
import json

import pytest

import cells
import configs
from train import tasks
from train.config import RunConfig


@pytest.mark.parametrize("task", tasks.names())
@pytest.mark.parametrize("cell", cells.names())
def test_every_cell_and_task_has_a_config(cell, task):
    run = configs.freeze(configs.make(cell, task))
    assert cells.CELLS.name_of(run.cell) == cell
    assert tasks.TASKS.name_of(run.task) == task


def test_every_config_file_loads():
    sweeps = {path.stem for path in configs.FOLDER.glob("sweeps/*.py")} - {"__init__"}
    for name in sweeps:
        for run in (configs.sweep(name), configs.sweep(f"configs/sweeps/{name}.py")):
            assert [configs.freeze(config) for config in run.values()]
    loaded = [name for name in configs.names() if name not in sweeps]
    assert set(cells.names()) <= set(loaded)
    for name in loaded:
        configs.freeze(configs.load(name))
        if (configs.FOLDER / f"{name}.py").is_file():
            configs.freeze(configs.load(f"configs/{name}.py"))


def test_a_run_config_survives_json():
    overrides = {"cell.chrono": "50", "task.gap": "7", "train.steps": "12", "label": "x"}
    run = configs.freeze(configs.apply(configs.make("lstm"), overrides))
    assert RunConfig.from_dict(json.loads(json.dumps(run.to_dict()))) == run


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"task.lenth": "4"}, "'lenth'; did you mean 'length'?"),
        ({"tsk.length": "4"}, "'tsk'; did you mean 'task'?"),
        ({"task.length.x": "4"}, "'x'"),
        ({"cell.forget_bias": "4"}, "config.cell of 'gru' has no field 'forget_bias'"),
        ({"task.length": "4.5"}, "config.task.length must be int, got 4.5"),
        ({"task.length": "many"}, "config.task.length must be int, got 'many'"),
        ({"task.length": "true"}, "config.task.length must be int, got True"),
        ({"optim.learning_rate": "fast"}, "config.optim.learning_rate must be float, got 'fast'"),
        ({"cell.reset_after": "1"}, "config.cell.reset_after must be bool, got 1"),
        ({"cell.name": "gruu"}, "unknown cell 'gruu'; did you mean 'gru'?"),
        ({"task": "adding"}, "config.task is a section"),
        ({"optim.learning_rates": "fast"}, "config.optim.learning_rates must be tuple, got 'fast'"),
        ({"optim.learning_rates": "0.1,fast"}, "config.optim.learning_rates must be tuple, got '0.1,fast'"),
    ],
)
def test_a_bad_override_is_refused_with_one_line(overrides, told):
    with pytest.raises(ValueError, match=".*") as refusal:
        configs.apply(configs.make("gru", "adding"), overrides)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.steps": "0"},
        {"optim.learning_rate": "-1.0"},
        {"optim.optimizer": "adma"},
        {"train.on_nan": "explode"},
        {"cell.hidden_size": "0"},
        {"task.length": "0"},
        {"model.dropout": "1.5"},
        {"parameters": "-3"},
        {"chrono": "tsk"},
        {"train.steps": "none"},
        {"parameters": "none"},
        {"optim.learning_rate": "1e999"},
        {"optim.learning_rates": "none"},
        {"optim.learning_rates": "0.1,1e999"},
        {"optim.learning_rates": "0.1,-0.2"},
        {"optim.learning_rates": "0.1,0.1"},
        {"optim.learning_rates": "0.1,True"},
        {"optim.learning_rates": "0.1,'fast'"},
        {"optim.learning_rates": "0.1,(0.2,)"},
        {"model.remat": "-2"},
        {"model.compute_dtype": "float16"},
        {"train.batch_devices": "-1"},
        {"train.seed_batching": "vmpa"},
        {"task.max_length": "3"},
    ],
)
def test_a_value_out_of_range_is_refused_with_one_line(overrides):
    config = configs.apply(configs.make("gru", "adding"), overrides)
    with pytest.raises(ValueError, match=next(iter(overrides)).split(".")[-1]) as refusal:
        configs.freeze(config)
    assert "\n" not in str(refusal.value)


def test_values_are_read_by_the_type_of_their_field():
    config = configs.apply(
        configs.make("gru", "adding"),
        {"optim.learning_rate": "1", "cell.chrono": "none", "cell.reset_after": "True", "label": "5"},
    )
    assert config.optim.learning_rate == 1.0
    assert config.cell.chrono is None
    assert config.cell.reset_after is True
    assert config.label == "5"


@pytest.mark.parametrize(
    "text, want",
    [
        ("0.001,0.003", (0.001, 0.003)),
        ("[1e-3, 1]", (0.001, 1)),
        ("0.5", (0.5,)),
        ("()", ()),
        ((0.1, 0.2), (0.1, 0.2)),
    ],
)
def test_a_list_of_values_is_read_with_or_without_brackets(text, want):
    config = configs.apply(configs.make("gru", "adding"), {"optim.learning_rates": text})
    run = configs.freeze(config)
    assert run.optim.learning_rates == want
    assert [rate for _, rate in run.lanes[:: run.train.seeds]] == list(want or [run.optim.learning_rate])
    assert RunConfig.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_another_cell_or_task_brings_its_own_options_and_keeps_what_the_file_said():
    config = configs.make("sru", "adding", task={"length": 30}, train={"steps": 77}, cell={"hidden_size": 5})
    swapped = configs.apply(config, {"cell.name": "lstm", "cell.forget_bias": "2.0"})
    assert (swapped.cell.name, swapped.cell.hidden_size, swapped.cell.forget_bias) == ("lstm", 5, 2.0)
    assert (swapped.task.length, swapped.train.steps) == (30, 77)
    other = configs.apply(config, {"task.name": "digits"})
    assert other.train.steps == 77
    assert "length" not in other.task
    assert other.train.batch_size == configs.make("sru", "digits").train.batch_size


def test_apply_leaves_its_input_alone():
    config = configs.make("sru", "adding")
    before = config.to_json()
    configs.apply(config, {"task.length": "3"})
    assert config.to_json() == before


@pytest.mark.parametrize("name", ["srv", "configs/srv.py"])
def test_an_unknown_config_gets_the_nearest_name(name):
    with pytest.raises(ValueError, match="did you mean 'sru'"):
        configs.load(name)


def test_the_default_sweep_gives_every_cell_the_same_treatment():
    runs = {name: configs.freeze(config) for name, config in configs.sweep("compare").items()}
    by_task = {}
    for run in runs.values():
        by_task.setdefault(run.task, []).append(run)
    for task_runs in by_task.values():
        rest = {"cell": task_runs[0].cell, "optim": task_runs[0].optim, "label": ""}  # those are tuned
        assert len({dataclasses.replace(run, **rest) for run in task_runs}) == 1
        assert len({dataclasses.replace(run.optim, learning_rate=1.0) for run in task_runs}) == 1
    assert all(run.parameters for run in runs.values())


def test_all_stands_for_every_cell_once():
    runs = configs.sweep("compare", ["sru:forget_bias=1.0", "all", "gru"], ["adding"])
    labels = [run.label for run in runs.values()]
    assert sorted(labels) == sorted([*cells.names(), "sru:forget_bias=1.0"])
    assert configs.all_cells(["all", "b:x=1"], ["a", "b"]) == ["a", "b", "b:x=1"]


def test_options_in_a_sweep_make_variants_with_labels_of_their_own():
    runs = configs.sweep("compare", ["gru", "gru:reset_after=true"], ["delayed_recall:gap=9"])
    plain, variant = (configs.freeze(run) for run in runs.values())
    assert (plain.label, variant.label) == ("gru", "gru:reset_after=true")
    assert (plain.cell.reset_after, variant.cell.reset_after) == (False, True)
    assert plain.task.gap == variant.task.gap == 9


def test_overrides_of_a_sweep_go_where_they_fit_and_must_fit_somewhere():
    runs = configs.sweep("compare", ["gru", "lstm"], None, {"cell.forget_bias": "3.0", "train.steps": 5})
    for run in runs.values():
        assert run.train.steps == 5
        assert run.cell.get("forget_bias", 3.0) == 3.0
    with pytest.raises(ValueError, match="did you mean 'steps'"):
        configs.sweep("compare", overrides={"train.stepz": "5"})
    with pytest.raises(ValueError, match="--cells"):
        configs.sweep("compare", overrides={"cell.name": "gru"})
    with pytest.raises(ValueError, match="did you mean 'lstm'"):
        configs.sweep("compare", ["lstmm"])
    with pytest.raises(ValueError, match="did you mean 'peepholes'"):
        configs.sweep("compare", ["lstm:peephole=true"])
    with pytest.raises(ValueError, match="name=value"):
        configs.sweep("compare", ["lstm:peepholes"])
    with pytest.raises(ValueError, match="--cells names none"):
        configs.sweep("compare", [])
    with pytest.raises(ValueError, match="--tasks names 'digits' twice"):
        configs.sweep("compare", None, ["digits", "digits"])
    with pytest.raises(ValueError, match="not a sweep"):
        configs.sweep("sru")


@pytest.mark.parametrize(
    "given, told",
    [
        (
            {"cells": ["lstm", "lstm:peepholes=false"]},
            "delayed_recall-lstm and delayed_recall-lstm_peepholes",
        ),
        (
            {"cells": ["lstm", "lstm:chrono=200"], "tasks": ["adding"]},
            "are the same run; leave one of them out",
        ),
        ({"cells": ["tcn:levels=2", "tcn:levels=2:kernel=3"]}, "are the same run"),
        ({"tasks": ["adding", "adding:length=200"]}, "are the same run"),
        ({"cells": ["lstm:peepholes=true:peepholes=false"]}, "says peepholes twice"),
        ({"cells": ["lstm:chrono=9"], "overrides": {"cell.chrono": "8"}}, "config.cell.chrono is set twice"),
        (
            {"cells": ["lstm:hidden_size=9"], "overrides": {"parameters": "999"}},
            "parameters=999 overrules it",
        ),
        ({"cells": ["lstm:forget_bias=2.5"], "overrides": {"chrono": "task"}}, "chrono='task' overrules it"),
        ({"overrides": {"optim.momentum": "0.5"}}, "config.optim.optimizer='adam' overrules it"),
        ({"overrides": {"label": "x"}}, "config.label is not for a comparison"),
        ({"cells": ["rnn", "window"], "overrides": {"chrono": "cell"}}, "has no options for it"),
    ],
)
def test_two_labels_are_two_runs_and_an_option_that_acts_nowhere_is_refused(given, told):
    overrides = given.get("overrides")
    with pytest.raises(ValueError) as refusal:
        configs.sweep("compare", given.get("cells"), given.get("tasks", ["delayed_recall"]), overrides)
    assert told in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_sizes_own_run_has_no_budget_and_the_others_have():
    runs = configs.sweep("compare", ["lstm", "lstm:hidden_size=64", "lstm:hidden_size=8"], ["delayed_recall"])
    sizes = [(run.parameters, run.cell.hidden_size) for run in map(configs.freeze, runs.values())]
    assert sizes == [(6000, 64), (0, 64), (0, 8)]
    for run in configs.sweep("compare", ["lstm", "gru"], None, {"cell.hidden_size": "64"}).values():
        assert (run.parameters, run.cell.hidden_size) == (0, 64)


def test_an_option_is_left_out_of_the_runs_where_it_would_not_act():
    given = {"model.embedding_scale": "0.5", "cell.chrono": "9"}
    runs = configs.sweep("compare", ["lstm", "rnn"], ["delayed_recall", "adding"], given)
    scales = {name: run.model.embedding_scale for name, run in runs.items()}
    assert {name: scale for name, scale in scales.items() if scale == 0.5}.keys() == {
        "delayed_recall-lstm", "delayed_recall-rnn"
    }  # fmt: skip
    assert [run.cell.get("chrono") for run in runs.values()] == [9, None, 9, None]


def test_distinct_compares_what_runs():
    run = configs.freeze(configs.make("lstm", cell={"hidden_size": 8}))
    told = configs.freeze(configs.make("lstm", cell={"hidden_size": 8, "chrono": 102}))
    other = configs.freeze(configs.make("lstm", cell={"hidden_size": 8, "chrono": 101}))
    configs.distinct({"a": run, "b": other})
    with pytest.raises(ValueError, match="^a and b are the same run"):
        configs.distinct({"a": run, "b": told})
