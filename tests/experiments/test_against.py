"""Options that were varied; a metric against one of them; who wins at which learning rate."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments import against, rates, results, varied
from experiments.lab import statistics

TASK = {"name": "delayed_recall", "gap": 10}


def options(cell="gru", task=TASK, **sections):
    return {
        "cell": {"name": cell, "hidden_size": 64},
        "task": task,
        "optim": {"learning_rate": 0.01},
    } | sections


def told(*runs):
    """(label, column names that were added) of runs, (label, config) each, after they were told apart."""
    made = [
        varied.Run(
            {"task": config["task"]["name"], "cell": config["cell"]["name"], "label": label}, flat(config)
        )
        for label, config in runs
    ]
    varied.tell_apart(made)
    return [(run.columns["label"], set(run.columns) - {"task", "cell", "label"}) for run in made]


def flat(config):
    return {f"{section}.{name}": x for section, fields in config.items() for name, x in fields.items()}


def test_labels_say_what_was_varied_and_nothing_else():
    """Not what another task's recipe, or another cell's defaults, bring along."""
    digits = {"name": "digits", "batch_size": 64}
    fast = {"optim": {"learning_rate": 0.1}}
    lstm = {"name": "lstm", "hidden_size": 64, "forget_bias": 1.0}
    assert told(
        ("gru", options()), ("gru", options(**fast)), ("lstm", options() | {"cell": lstm}),
        ("gru", options(task=digits, train={"steps": 9})),
    ) == [
        ("gru (learning_rate=0.01)", {"learning_rate"}), ("gru (learning_rate=0.1)", {"learning_rate"}),
        ("lstm (learning_rate=0.01)", {"learning_rate"}), ("gru", {"learning_rate"}),
    ]  # fmt: skip


def test_what_a_label_says_already_is_not_said_again_and_what_is_overruled_not_at_all():
    after = {"cell": {"name": "gru", "hidden_size": 64, "reset_after": True}}
    before = {"cell": {"name": "gru", "hidden_size": 64, "reset_after": False}}
    both = told(("gru", options() | before), ("gru:reset_after=true", options() | after))
    assert both == [("gru", {"reset_after"}), ("gru:reset_after=true", {"reset_after"})]
    blocks = [{"block": "bare", "embedding_size": 32}, {"block": "gated", "embedding_size": 0}]
    assert told(*(("gru", options(model=block)) for block in blocks)) == [
        ("gru (block=bare)", {"block"}), ("gru (block=gated)", {"block"}),
    ]  # fmt: skip


def test_an_option_of_two_sections_says_which_and_one_that_a_run_measures_is_a_column_too():
    runs = [
        varied.Run(
            {"task": "t", "cell": "gru", "label": label, "steps": steps},
            {"chrono": by, "cell.chrono": chrono, "train.steps": steps},
        )
        for label, by, chrono, steps in (("gru", "cell", None, 40), ("gru:chrono=5", "cell", 5, 60))
    ]
    varied.tell_apart(runs)
    assert [run.columns["label"] for run in runs] == ["gru", "gru:chrono=5"]
    assert [(run.columns["cell.chrono"], run.columns["train.steps"]) for run in runs] == [(None, 40), (5, 60)]
    assert "chrono" not in runs[0].columns


@pytest.mark.parametrize("label, names, left", [
    ("gru (gap=5, depth=2)", ["gap"], "gru (depth=2)"),
    ("gru (depth=2, gap=5)", ["task.gap"], "gru (depth=2)"),
    ("gru (gap=5)", ["gap"], "gru"),
    ("lstm:chrono=100:peepholes=true", ["chrono"], "lstm:peepholes=true"),
    ("gru:reset_after=true (length=3, rate=1)", ["reset_after", "length"], "gru (rate=1)"),
    ("gru:reset_after=true (length=30)", ["reset_after", "length"], "gru"),
    ("gru:chrono=5 (config.chrono=cell)", ["config.chrono"], "gru:chrono=5"),
    ("gru (strategy=newton:window=1, gap=5)", ["strategy"], "gru (gap=5)"),
    ("gru (max_gap=5)", ["gap"], "gru (max_gap=5)"),
    ("gru, gap of 5", ["gap"], "gru, gap of 5"),
])  # fmt: skip
def test_a_label_without_an_option(label, names, left):
    assert varied.without(label, *names) == left


def test_numbers_in_labels_are_in_their_order():
    labels = ["b (x=1)", "a (x=10)", "a (x=9)", "a (x=1e-3)", "a"]
    assert varied.in_order(labels) == ["a", "a (x=1e-3)", "a (x=9)", "a (x=10)", "b (x=1)"]


def test_the_options_to_draw_against(swept):
    assert varied.columns(swept) == ["learning_rate", "gap"] == against.options(swept)
    assert "solved_step" in against.metrics(swept) and "label" not in against.metrics(swept)


def test_a_metric_against_an_option_has_tuned_rates_and_intervals(swept):
    table = against.table(swept, "gap", "solved_step").set_index(["label", "gap"])
    assert set(table.index.get_level_values("label")) == {"gru", "lstm"}
    for cell, rate in (("gru", 0.1), ("lstm", 0.01)):
        for gap in (5, 20, 50):
            where = (swept["cell"] == cell) & (swept["gap"] == gap) & (swept["learning_rate"] == rate)
            own = swept["solved_step"][where]
            assert table.loc[(cell, gap), "solved_step"] == own.median()
            assert (table.loc[(cell, gap), "low"], table.loc[(cell, gap), "high"]) == (own.min(), own.max())
    assert set(against.table(swept, "learning_rate")["label"]) == {
        f"{cell} (gap={gap})" for cell in ("gru", "lstm") for gap in (5, 20, 50)
    }
    share = against.table(swept, "gap", "solved").iloc[0]
    assert share["solved"] == share["high"] == 1 and 0.4 < share["low"] < 0.5


def test_a_seed_that_never_got_there_is_infinite_and_drawn_at_the_edge(swept):
    rows = swept.assign(solved=swept["gap"] < 50, test_metric=swept["test_metric"].where(swept["gap"] < 50))
    table = against.table(rows, "gap", "solved_step").query("gap == 50")
    assert np.isinf(table["solved_step"]).all()
    figure = against.figure(rows, "gap", "solved_step")
    edge = [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "none"]
    assert [(line.get_marker(), list(line.get_ydata())) for line in edge] == [("^", [3000])] * 2
    assert "Hollow triangle: fewer than half" in against.note(rows, "gap", "solved_step")
    assert (against.table(rows, "gap").query("gap == 50")["test_metric"] == -math.inf).all()


def test_a_width_that_makes_the_parameters_goes_with_them(swept):
    rows = swept.query("gap == 5 and learning_rate == 0.1").drop(columns="gap")
    both = pd.concat([rows.assign(width=size, parameters=1000 * size) for size in (8, 16)])
    label = both["cell"] + " (width=" + both["width"].astype(str)
    table = against.table(both.assign(label=label + ")"), "parameters")
    assert list(zip(table["label"], table["parameters"], strict=True)) == [
        (cell, size) for cell in ("gru", "lstm") for size in (8000, 16000)
    ]
    deep = pd.concat([both.assign(depth=n, label=label + f", depth={n})") for n in (1, 2)])
    assert set(against.table(deep, "parameters")["label"]) == {
        f"{cell} (depth={n})" for cell in ("gru", "lstm") for n in (1, 2)
    }


def test_every_table_and_figure_has_the_same_median(swept):
    """Of an even number the mean of the middle two, of times what half of all seeds needed."""
    two = swept[swept["seed"] < 2].query("gap == 5 and learning_rate == 0.1")
    wanted = results.aggregate(two).set_index("cell")
    by_rate = rates.by_rate(swept[swept["seed"] < 2]).query(
        "label.str.endswith('gap=5)') & learning_rate == '0.1'"
    )
    for name in ("test_metric", "solved_step"):
        drawn = against.table(
            two.assign(width=1).pipe(lambda f: pd.concat([f, f.assign(width=2)])), "width", name
        )
        assert by_rate.set_index("cell")[name].equals(wanted[name])
        assert drawn.query("width == 1").set_index("cell")[name].equals(wanted[name])
    assert statistics.score([1.0, 2.0, 4.0, np.inf]).value == 3.0
    assert statistics.score([0.5, -np.inf]).value == -np.inf


def test_the_winner_at_each_rate_beside_the_tuned_one(swept):
    found = rates.by_rate(swept)
    winners = found[found["winner"]].set_index(["learning_rate", "label"]).index
    for gap in (20, 50):
        assert ("0.1", f"gru (gap={gap})") in winners and ("0.01", f"lstm (gap={gap})") in winners
    assert found.groupby(["learning_rate", found["label"].str[-8:]])["winner"].sum().eq(1).all()
    (table,) = rates.text(found).values()
    assert list(table.columns) == ["cell", "0.01", "0.1", "tuned"]
    assert table["tuned"].str.contains(r"\(3/3 in").all()
    assert rates.by_rate(swept.query("learning_rate == 0.1")).empty


def test_an_option_of_which_each_cell_has_its_own_value_is_drawn_only_when_asked_for(swept):
    """As the learning rates of cells that were tuned."""
    assert against.is_varied(swept, "gap") and against.is_varied(swept, "learning_rate")
    own = swept[swept["learning_rate"] == swept["cell"].map({"gru": 0.1, "lstm": 0.01})]
    own = own[own["gap"] == 5].assign(label=own["cell"])
    assert own["learning_rate"].nunique() == 2 and not against.is_varied(own, "learning_rate")
