"""The atlas and the optimisers: the quick presets end to end, scores and advice from made-up numbers."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import cells
import configs
from experiments import atlas, optimisers
from experiments.lab import bench, matrix, matrix_figures, store, tuning
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED
from experiments.lab.needs import COLUMNS, NEEDS
from experiments.lab.protocol import NotYet
from train import tasks
from train.model import build


def test_every_cell_and_need_is_there():
    assert set(atlas.EVERY) == set(cells.names())
    assert {column.need for column in COLUMNS.values()} == set(NEEDS)
    assert atlas.PRESETS["full"].columns == tuple(COLUMNS)


@pytest.mark.parametrize("form", ("bare", "block"))
@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_a_run(name, form):
    column = COLUMNS[name]
    config = bench.config(column, "gru", form)
    assert config.parameters == (0 if form == "state" else column.parameters)
    assert config.train.steps == column.train["steps"]
    assert (config.chrono == "task") == column.told
    assert (config.model.block == "bare") == (form != "block")


def test_with_equal_state_all_have_as_many_numbers_and_what_keeps_its_inputs_is_left_out():
    settings = atlas.Settings(forms=("state",), columns=("copy_30", "parity"))
    models = list(settings.models())
    assert {column for *_, column in models} == {"copy_30"}
    assert {cell for _, cell, _ in models} == set(cells.names()) - set(bench.UNBOUNDED)
    for name in ("rnn", "lstm", "mamba2"):
        config = bench.config(COLUMNS["copy_30"], name, "state")
        spec = config.task.spec(config.task.load())
        assert build(config.cell, spec, config.model).state_size == bench.STATE


def test_what_has_been_trained_is_shown_and_nothing_is_trained(tmp_path):
    settings = dataclasses.replace(atlas.PRESETS["quick"], only_trained=True)
    assert settings.runs() == {} != atlas.PRESETS["quick"].runs()
    lab = store.Lab(tmp_path, Console(quiet=True))
    with pytest.raises(NotYet):
        atlas._trained(lab.kept, settings, "bare", "rnn", "parity")


@pytest.mark.slow
@pytest.mark.parametrize("one", [atlas, optimisers])
def test_runs_end_to_end(measured, one):
    frames = measured(one.EXPERIMENT, one.PRESETS["quick"])
    final, picked = frames["final"], frames["tuning"].query("picked")
    assert (final.groupby(["form", "column", "label"]).size() == 2).all()
    assert (
        len(picked.drop_duplicates(["form", "column", "label"]))
        == final.groupby(["form", "column"]).ngroups * 2
    )
    assert not set(frames["tuning"]["seed"]) & set(final["seed"])


def rows(column, form="bare", noise=0.0, draw=None, **at):
    """Ten seeds of each cell: steps to solve (None: never), or the test metric of real data."""
    draw, spec = draw or np.random.default_rng(0), COLUMNS[column]
    stops, budget, made = spec.train["stop_when_solved"], spec.train["steps"], []
    for label, value in at.items():
        for seed in range(10):
            number = (
                None
                if value is None
                else value + noise * draw.standard_normal() + (0.01 * seed if stops else 0)
            )
            solved = stops and number is not None and number <= budget
            row = {
                "form": form,
                "column": column,
                "cell": label,
                "label": label,
                "seed": seed,
                "stops": stops,
            }
            row |= {"solved": solved, "solved_step": number if solved else np.nan, "budget_steps": budget}
            row |= {"higher_is_better": True, "test_metric": 1.0 if solved else 0.3, "baseline": 0.1}
            made.append(row | {"best_test_metric": row["test_metric"] if stops else number, "state_size": 9})
    return made


def scored(*made, **options):
    return matrix.scores(pd.DataFrame([row for of in made for row in of]), **options).set_index(
        ["label", "column"]
    )


def test_scores_say_how_much_of_the_budget_is_left_and_who_is_as_good_as_the_best():
    found = scored(rows("recall_30", gru=100, lstm=100, rnn=300, window=None))
    assert found.loc[("gru", "recall_30"), "score"] == pytest.approx(0.9, abs=0.01)
    assert found.loc[("window", "recall_30"), "score"] == 0
    assert found["alike"].tolist() == [True, True, False, False]
    assert found["text"].tolist() == ["100", "100", "300", "(0.3)"]
    real = scored(rows("pixels", gru=0.9, lstm=0.5, window=0.1))
    assert real["score"].round(2).tolist() == [1.0, 0.5, 0.0]
    assert scored(rows("pixels", gru=0.1, window=0.05))["score"].tolist() == [0.0, 0.0]  # nobody learns it


def test_noise_makes_no_cell_the_best():
    draw, apart = np.random.default_rng(0), 0
    for _ in range(40):
        found = scored(rows("recall_30", noise=50, draw=draw, gru=200, lstm=200))
        apart += not found["alike"].all()
    assert apart <= 4


def test_advice_is_the_cheapest_of_those_that_are_as_good():
    found = scored(
        rows("copy_30", gru=500, lstm=500, rnn=None, window=None),
        rows("select_64", gru=500, lstm=500, rnn=1400, window=None),
        rows("parity", gru=None, lstm=None, rnn=None, window=None),
    ).reset_index()
    told = matrix.advice(found, {"gru": 2.0, "lstm": 1.0}).set_index("need")
    capacity, tracking = told.loc[NEEDS["capacity"]], told.loc[NEEDS["tracking"]]
    assert capacity.tolist() == ["lstm", "gru", "rnn, window"]
    assert tracking["try first"] == "none of these" and len(tracking["do not do it here"].split(", ")) == 4


def test_a_need_has_the_mean_of_its_tasks_and_nothing_of_a_cell_that_lacks_one():
    found = scored(
        rows("recall_30", gru=100, lstm=500, rnn=None),
        rows("recall_100", gru=300, lstm=500),
        rows("told_100", gru=1),  # of one of three cells: left out
        rows("parity", gru=750, lstm=750, rnn=750, noise=100),
    ).reset_index()
    by = matrix.by_need(found).set_index(["label", "need"])
    assert set(by.index) == {
        ("gru", "recall"), ("lstm", "recall"), ("gru", "tracking"), ("lstm", "tracking"), ("rnn", "tracking"),
    }  # fmt: skip
    assert by.loc[("gru", "recall"), "columns"] == ["recall_30", "recall_100"]
    assert by.loc[("gru", "recall"), "score"].value == pytest.approx(0.8, abs=0.01)
    score = by.loc[("gru", "tracking"), "score"]
    assert score.low < score.value < score.high < score.low + 0.1
    assert by["good"].tolist() == [True, False, True, True, True]
    drawn = matrix_figures.by_need(by.reset_index(), {"gru": 2.0, "lstm": 1.0}, "").axes[0]
    texts = [text.get_text() for text in drawn.texts]
    assert {"0.80", "2 ms", "1 ms"} <= set(texts) and len(texts) == 2 * 5 + 2 + 1


def test_the_matrix_is_drawn_with_what_there_is():
    final = pd.DataFrame(rows("recall_30", gru=100, lstm=200) + rows("pixels", gru=0.9))
    time = pd.DataFrame({"label": ["gru", "lstm"], "ms": [1.0, 2.0]})
    tuning = final[final["seed"] == 0].assign(picked=True, trial=final["label"], learning_rate=0.01)
    frames = {"final": final, "time": time, "tuning": tuning}
    drawn = atlas.figures(frames)["atlas"].axes[0]
    texts = [" ".join(text.get_text().split()) for text in drawn.texts]
    assert {"100", "200", "0.9", "recall over a gap", NEEDS["series"]} <= set(texts)
    shown = atlas.tables(frames)
    wide = next(table for title, table in shown.items() if title.startswith("bare"))
    assert wide.iloc[1].tolist() == ["lstm", "200", "not run"]


# --- optimisers


def compared(**orders):
    """Steps to solve of four cells by optimiser."""
    names = ("rnn", "lstm", "gru", "sru")
    return {
        "final": pd.DataFrame(
            row
            for form, steps in orders.items()
            for column in ("recall_30", "recall_100")
            for row in rows(column, form, noise=5, **dict(zip(names, steps, strict=True)))
        )
    }


@pytest.mark.parametrize(
    "muon, ranks, better",
    [
        ((100, 200, 300, 400), TRUE, UNDECIDED),
        ((400, 300, 200, 100), FALSE, UNDECIDED),
        ((50, 100, 150, 200), TRUE, TRUE),
        ((500, 600, 700, 800), TRUE, FALSE),
    ],
)
def test_parts_on_both_sides_of_their_edge(muon, ranks, better):
    found = optimisers.judge(compared(adam=(100, 200, 300, 400), muon=muon))
    assert set(found) == set(optimisers.EXPERIMENT.parts)
    assert (found["ranks_muon"].verdict, found["better_muon"].verdict) == (ranks, better)
    assert found["ranks_schedule_free_adamw"].verdict == NOT_TESTED


@pytest.mark.slow
def test_cells_that_are_all_alike_have_no_ranking_that_could_be_kept():
    draw, decided = np.random.default_rng(0), 0
    for _ in range(8):
        alike = {name: 200 for name in ("rnn", "lstm", "gru", "sru")}
        made = [row for form in ("adam", "muon") for row in rows("recall_30", form, 40, draw, **alike)]
        found = optimisers.judge({"final": pd.DataFrame(made)})
        decided += found["better_muon"].verdict != UNDECIDED
        assert found["ranks_muon"].verdict != TRUE
    assert decided <= 2


# --- the default comparison, which uses what tuning found


def test_the_default_comparison_has_the_tasks_and_the_picks_of_the_committed_atlas():
    file = Path(atlas.__file__).parent / "figures" / "claims" / "atlas" / "tuning.csv"
    tried, columns = (
        pd.read_csv(file),
        {"delayed_recall": "recall_100", "word_problem": "parity", "digits": "pixels"},
    )
    for name, made in configs.sweep("compare").items():
        config = configs.freeze(made)
        task, label = tasks.TASKS.name_of(config.task), config.label
        same = bench.config(COLUMNS[columns[task]], label, "bare")
        assert (config.task, config.model, config.parameters) == (same.task, same.model, same.parameters), (
            name
        )
        assert config.train.steps <= same.train.steps and config.chrono == same.chrono
        rows = tried[(tried["column"] == columns[task]) & (tried["label"] == label)]
        if label == "rnn":  # which is tried with both activations, there with tanh
            rows = rows[~rows["trial"].str.contains("relu")]
        picked = rows[rows["picked"]]
        trial, rate = tuning.best(rows if picked.empty else picked)
        assert config.optim.learning_rate == rate, name
        options = configs.with_options(trial)[1]
        assert all(getattr(config.cell, option) == value for option, value in options.items()), (name, trial)
