"""Published results: the data file, ours beside it, the sweeps that are rows of a paper's table."""

import math
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import cells
import configs
from experiments import cli, results
from experiments.reference import beside, published

RESULTS = published.load()
NAMES = pytest.mark.parametrize("name", RESULTS)


@NAMES
def test_every_number_has_its_source_a_known_cell_and_a_value(name):
    """That fields are there, and of their type, is the reader's to say."""
    result = RESULTS[name]
    assert result.published and result.differs and result.about
    for number in result.published:
        assert math.isfinite(number.value) and number.model
        assert number.source.year > 1990 and number.source.checked and number.source.table
        if number.cell:
            name, options = configs.with_options(number.cell)
            assert cells.get(name, hidden_size=8, **options)


@NAMES
def test_every_result_has_its_sweep_or_waits_for_it(name):
    """Where the file is there, its name leaves the list `pending` of published.toml."""
    result = RESULTS[name]
    there = (configs.FOLDER / "sweeps" / f"{result.config}.py").is_file()
    assert there != result.pending


@NAMES
def test_what_has_not_run_has_a_command_that_trains_it(name):
    result = RESULTS[name]
    command = beside.not_run(result, beside.rows(result, None))
    start = "python -m experiments.reference "
    assert command.startswith(start)
    config, overrides, rest = cli.split_config_flags(["prog", *command.removeprefix(start).split()])
    named = [flag.removeprefix("--cells=").split(",") for flag in rest[2:]]
    assert (config, overrides, rest[1]) == (None, {}, f"--run={name}") and len(named) < 2
    if not result.pending:
        runs = configs.sweep(result.config, *named or [None], [result.tasks] if result.tasks else None)
        trained = {cells.CELLS.name_of(configs.freeze(run).cell) for run in runs.values()}
        assert trained >= {number.cell.split(":")[0] for number in result.published if number.cell}
        budgets = {configs.freeze(run).parameters for run in runs.values()}
        assert budgets == {result.parameters}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("value = 8.45", 'value = "8.45"', "jsb: value is '8.45'"),
        ('metric = "frame_nll"', "", "jsb: no metric"),
        ("differs =", "difers =", "jsb: no field 'difers'; did you mean 'differs'?"),
        ('source = "bai2018"', 'source = "bai"', "jsb: source: did you mean 'bai2018'?"),
        ('unit = "nats a frame"', 'unit = "nats"', "jsb: unit: did you mean"),
        ("pending = [", "pending = ", "x.toml: "),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_line(tmp_path, old, new, told):
    file = tmp_path / "x.toml"
    file.write_text(published.FILE.read_text().replace(old, new, 1))
    with pytest.raises(ValueError) as refusal:
        published.load(file)
    assert told in str(refusal.value) and "\n" not in str(refusal.value)


def seeds(**rates):
    """Seeds of LSTMs: learning rate -> pairs of best validation and test."""
    rows = [
        {"run": "music-lstm", "cell": "lstm", "label": f"lstm (learning_rate={rate})", "metric": "frame_nll"}
        | {"higher_is_better": False, "learning_rate": rate, "seed": seed, "best_valid_metric": valid}
        | {"best_test_metric": test, "test_metric": test + 1, "status": "finished", "parameters": 300_000}
        | {"budget_steps": 1500, "run_seconds": 9.0, "device": "cpu"}
        for rate, pairs in rates.items()
        for seed, (valid, test) in enumerate(pairs)
    ]
    return pd.DataFrame(rows)


def test_the_learning_rate_that_validation_prefers_counts():
    frame = beside.rows(RESULTS["jsb"], seeds(low=[(8.0, 9.0), (8.2, 9.5)], high=[(8.3, 8.0), (8.4, 8.0)]))
    row = frame[frame["cell"] == "lstm"].iloc[0]
    assert row["learning_rate"] == "low" and row["each"] == (9.0, 9.5)
    assert row["ours"] == pytest.approx(9.25) and row["at_end"] == pytest.approx(10.25)
    assert row["difference"] == pytest.approx(9.25 - 8.45)
    others = frame[frame["cell"] != "lstm"]
    assert set(others["cell"]) == {"gru", "rnn", "tcn"} and others["ours"].isna().all()
    assert beside.not_run(RESULTS["jsb"], frame).endswith("--run=jsb --cells=gru,rnn,tcn:levels=2")


def test_a_share_is_shown_in_percent_and_a_lost_seed_leaves_no_mean():
    frame = seeds(low=[(0.7, 0.75), (0.8, math.nan)]).assign(metric="accuracy", cell="sru", label="sru")
    both = beside.rows(RESULTS["mr"], frame)
    assert both["published"].tolist() == [76.1, 82.3] and both["ours"].isna().all()
    assert both["each"].iloc[0][0] == 75.0
    first = beside.rows(RESULTS["mr"], frame[:1])
    assert first["difference"].tolist() == pytest.approx([-1.1, -7.3])


def test_runs_of_something_else_are_refused(tmp_path, run_dir):
    folder = run_dir(tmp_path / "x")
    with pytest.raises(ValueError, match="jsb is about frame_nll; these runs have accuracy"):
        beside.record(RESULTS["jsb"], folder)
    with pytest.raises(ValueError, match="is a run of DelayedRecall"):
        beside.record(RESULTS["mr"], folder)


def test_runs_are_recorded_as_they_are_read_and_shown_in_80_columns(tmp_path, monkeypatch):
    """From the committed runs of jsb: the table says what they say."""
    result, folder = RESULTS["jsb"], beside.recorded(RESULTS["jsb"])
    frame = beside.rows(result, beside.committed(result))
    console = Console(width=80, record=True, markup=False)
    beside.show(result, frame, console, folder, every=True)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    row = frame[frame["cell"] == "lstm"].iloc[0]
    for said in (beside.number(row["published"]), beside.number(row["ours"]), f"{row['seconds']:,.0f}"):
        assert said in text
    for said in ("Bai, Kolter & Koltun 2018, table 1", folder.name[-10:], "differs: ", "checked: "):
        assert said in text
    summary = pd.read_csv(folder / "summary.csv")
    pd.testing.assert_frame_equal(
        results.aggregate(beside.committed(result))[["label", "best_test_metric"]],
        summary[["label", "best_test_metric"]],
    )
    beside.draw(tmp_path / "x.png", {"jsb": (result, frame)})
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(beside, "FIGURES", tmp_path)
    assert beside.recorded(result) is None
    for date in ("2026-01-02", "2026-11-01"):
        shutil.copytree(folder, tmp_path / f"jsb-{date}")
    assert beside.recorded(result).name == "jsb-2026-11-01"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(8.45, "8.45"), (96.2, "96.2"), (0.0204, "0.0204"), (5.3e-5, "5.3e-05"), (0.0, "0.0000")],
)
def test_numbers_look_as_in_papers(value, shown):
    assert beside.number(value) == shown
    assert beside.number(math.nan) == "–"
    assert beside.number(-0.111, "+", 8.91) == "-0.11"


def test_the_model_of_torch_costs_what_ours_does_with_the_same_weights():
    """Of music, without dropout: one batch with padding."""
    torch = pytest.importorskip("torch")
    from experiments.reference import torch_lstm
    from train import metrics, model
    from train.tasks import base
    from train.tasks.music import KEYS

    cell, config = cells.get("lstm", hidden_size=5), model.ModelConfig()
    spec = base.Spec("features", KEYS, KEYS, True, "last", "binary_cross_entropy", "frame_nll", 0, 0, 6)
    ours = model.build(cell, spec, config)
    params = ours.init(jax.random.key(0))
    rolls = np.random.default_rng(0).random((3, 7, KEYS)) < 0.1
    xs, ys = rolls[:, :-1].astype(np.float32), rolls[:, 1:].astype(np.float32)
    lengths = np.array([6, 2, 4])
    weights = (np.arange(6) < lengths[:, None]).astype(np.float32)
    batch = base.Batch(xs, ys, lengths, weights, weights)
    cost = metrics.loss(spec, ours.apply(params, xs, lengths=lengths), batch)

    held_out = [(*map(torch.from_numpy, (xs, ys, weights)), False)]
    task = torch_lstm.Task(
        KEYS, KEYS, False, "frame_nll", 1.0, None, lambda split: held_out, torch_lstm.frame_nll
    )
    theirs = torch_lstm.Model(task, 5, config)
    theirs.load_state_dict(torch_lstm.weights_of(cell, params), strict=True)
    assert torch_lstm.evaluate(task, theirs, "test") == pytest.approx(float(cost), rel=1e-5)
