"""Configs as runs save them: asked and resolved apart, launched again, also from older versions."""

import functools
import json
import shutil
from pathlib import Path

import pytest

import cells
import configs
from configs import precedence
from train.files import WorkdirError
from train.record import Record
from train.resolve import pinned, resolve

OLD = Path(__file__).parent / "saved"  # by a version that wrote one file, resolved: gap 10, budget 2000
OLD_NAMES = [path.stem for path in sorted(OLD.glob("*.json"))]


@functools.cache
def resolved(run):
    return resolve(run, run.task.load())[0]


def save(run, folder):
    """A run directory, as the training loop writes it."""
    Record(folder, run.to_dict(), pinned(resolved(run), "sequential", "vmap", 1, "device").to_dict()).begin()


def asked_again(name, **fields):
    """What the command was that made the old run."""
    return configs.apply(configs.make(name), {**OLD_COMMAND, **fields})


OLD_COMMAND = {
    "task.gap": "10", "task.eval_examples": "8", "train.steps": "2", "train.seeds": "1",
    "train.eval_every": "2", "parameters": "2000",
}  # fmt: skip


@pytest.mark.parametrize("name", cells.names())
def test_a_run_saves_what_was_asked_and_what_runs(name, tmp_path):
    budget = 3000 if name in OLD_NAMES else 0  # finding a size takes its time
    asked = configs.freeze(configs.make(name, task={"gap": 50}, parameters=budget))
    save(asked, tmp_path)
    saved, runs = (json.loads((tmp_path / f"{file}.json").read_text()) for file in ("config", "resolved"))
    assert saved == json.loads(json.dumps(asked.to_dict()))
    assert saved["cell"] == {"name": name} | cells.get(name, hidden_size=64).__dict__
    assert runs["cell"] == {"name": name} | resolved(asked).cell.__dict__
    assert configs.freeze(configs.load(str(tmp_path))) == asked
    assert configs.freeze(configs.load(str(tmp_path / "config.json"))) == asked
    exact = configs.freeze(configs.load(str(tmp_path / "resolved.json")))
    assert resolved(exact).cell == exact.cell == resolved(asked).cell


@pytest.mark.parametrize("name", [name for name in cells.names() if cells.CELLS.cls(name).length_options])
def test_a_saved_run_with_another_length_is_told_that_one(name, tmp_path):
    save(configs.freeze(configs.make(name, task={"gap": 10})), tmp_path)
    longer = configs.apply(configs.load(str(tmp_path)), {"task.gap": "400"})
    plain = configs.make(name, task={"gap": 400})
    longer, plain = (resolved(configs.freeze(config)) for config in (longer, plain))
    assert longer == plain and longer.cell == cells.get(name, hidden_size=64).for_length(402)


@pytest.mark.parametrize("name", [name for name in cells.names() if cells.CELLS.cls(name).length_options])
def test_an_option_that_the_user_named_stays_named(name, tmp_path):
    for option in cells.CELLS.cls(name).length_options:
        value = getattr(cells.get(name, hidden_size=8), option)
        run = configs.freeze(configs.make(name, cell={"hidden_size": 8, option: value}))
        save(run, tmp_path / option)
        longer = configs.apply(configs.load(str(tmp_path / option)), {"task.gap": "400"})
        assert resolved(configs.freeze(longer)).cell == run.cell


def test_there_are_old_runs():
    assert OLD_NAMES == ["lru", "lstm", "qrnn", "tcn"]


@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_run_is_what_its_command_asked(name, tmp_path):
    shutil.copy(OLD / f"{name}.json", tmp_path / "config.json")
    for place in (tmp_path, tmp_path / "config.json"):
        assert configs.load(str(place)) == asked_again(name)
    run = resolved(configs.freeze(configs.load(str(tmp_path))))
    saved = json.loads((tmp_path / "config.json").read_text())["cell"]
    # Options that came later are at their defaults.
    assert saved.items() <= ({"name": name} | run.cell.__dict__).items()
    longer = configs.apply(configs.load(str(tmp_path)), {"task.gap": "400"})
    assert configs.freeze(longer) == configs.freeze(asked_again(name, **{"task.gap": "400"}))


def test_an_old_run_whose_option_was_overruled_is_the_run_that_it_was(tmp_path):
    """In older versions forget_bias did nothing where the task's length was told."""
    saved = json.loads((OLD / "lstm.json").read_text())
    saved["cell"]["forget_bias"] = 2.5
    saved["optim"] |= {"learning_rates": [0.1, 0.2], "momentum": 0.5}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    config = configs.load(str(tmp_path))
    assert config == asked_again("lstm", **{"optim.learning_rates": "0.1,0.2"})


def test_an_old_option_of_the_users_own_is_kept(tmp_path):
    saved = json.loads((OLD / "lstm.json").read_text())
    saved["cell"]["chrono"] = 77
    (tmp_path / "config.json").write_text(json.dumps(saved))
    config = configs.apply(configs.load(str(tmp_path)), {"task.gap": "400"})
    assert resolved(configs.freeze(config)).cell.chrono == 77


@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_run_goes_on_by_the_same_command_and_by_no_other(name, tmp_path):
    shutil.copy(OLD / f"{name}.json", tmp_path / "config.json")
    with pytest.raises(WorkdirError, match="task.gap 10 there, 11 now"):
        save(configs.freeze(asked_again(name, **{"task.gap": "11"})), tmp_path)
    with pytest.raises(WorkdirError, match="cell"):
        save(configs.freeze(asked_again(name, chrono="cell")), tmp_path)
    for _ in range(2):  # then it is a new one
        save(configs.freeze(asked_again(name)), tmp_path)
    assert configs.load(str(tmp_path)) == asked_again(name)


def test_a_run_goes_on_by_what_was_asked_and_two_labels_are_two_runs(tmp_path):
    plain = configs.make("lstm", task={"gap": 10})
    save(configs.freeze(plain), tmp_path)
    save(configs.freeze(plain), tmp_path)
    told = configs.apply(plain, {"cell.chrono": "12"})
    with pytest.raises(WorkdirError, match="cell.chrono None there, 12 now, chrono 'task' there, 'cell' now"):
        save(configs.freeze(told), tmp_path)


def test_a_damaged_saved_config_is_one_line(tmp_path):
    path = tmp_path / "config.json"
    for content in ("{", "[]", "{}", '{"cell": 3}'):
        path.write_text(content)
        for name in (path, tmp_path):
            with pytest.raises(ValueError, match="config.json is not a saved config"):
                configs.load(str(name))
    path.unlink()
    with pytest.raises(ValueError, match="is a folder without a config.json"):
        configs.load(str(tmp_path))


def test_a_config_made_in_python_keeps_a_length_option_of_its_own(tmp_path):
    base = configs.freeze(configs.make("lstm", cell={"hidden_size": 8}))
    config = configs.freeze(configs.make("lstm", cell={"hidden_size": 8, "forget_bias": 2.5}))
    python = type(base)(config.cell, base.task)
    assert python.chrono == "task" and resolved(python).cell == config.cell
    save(python, tmp_path)
    assert resolved(configs.freeze(configs.load(str(tmp_path)))).cell == config.cell
    assert precedence.default(configs.load(str(tmp_path)), "cell.forget_bias") == 1.0
