import dataclasses
import io
import json
import math
import typing
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments import output, results
from train.summary import RunSummary, SeedSummary, Summary


def seeds_of(*steps, **columns):
    """A frame as `load_seeds` makes it; None: not solved."""
    run = {"run": "r", "task": "t", "cell": "gru", "label": "gru", "status": "finished", "device": "cpu"}
    run |= {"metric": "accuracy", "higher_is_better": True, "threshold": 0.9, "baseline": 0.1}
    run |= {"parameters": 1200, "hidden_size": 8, "strategy": "sequential", "batch_size": 4}
    run |= {"budget_steps": 1000, "steps": 1000, "run_seconds": 10.0}
    run |= {"seconds_per_step": 0.01, "compile_seconds": 2.0, "test_metric": 0.5, "diverged_step": math.nan}
    cost = {"step": 1, "examples": 4, "tokens": 40, "seconds": 0.01}  # of a step
    rows = [
        run
        | {"seed": seed, "solved": at is not None}
        | {f"solved_{unit}": at and at * cost[unit] for unit in results.UNITS}
        for seed, at in enumerate(steps)
    ]
    frame = pd.DataFrame(rows).astype({f"solved_{unit}": float for unit in results.UNITS})
    return frame.assign(**columns)


INF = math.inf


@pytest.mark.parametrize(
    "steps, median, q25, q75",
    [
        ([400, 100, 300, 500, 200], 300, 200, 400),
        ([400, 100, None, None, 200], 400, 200, INF),  # three of five: the third, the second, the fourth
        ([400, None, None, None, 200], INF, 400, INF),
        ([100, None, None, 200], 200, 100, INF),  # exactly half solved: reported
        ([None, None, 100], INF, 100, INF),
        ([None, None], INF, INF, INF),
        ([700], 700, 700, 700),
    ],
)
def test_unsolved_seeds_count_as_slower_than_every_solved_one(steps, median, q25, q75):
    row = results.aggregate(seeds_of(*steps)).iloc[0]
    assert (row["solved_step"], row["solved_step_q25"], row["solved_step_q75"]) == (median, q25, q75)
    assert (row["solved_seconds"], row["solved_tokens"]) == (median * 0.01, median * 40)
    assert (row["solved"], row["seeds"]) == (sum(step is not None for step in steps), len(steps))


def test_times_are_shown_with_the_limit_that_censored_them():
    show = lambda *steps, **columns: results.text(results.aggregate(seeds_of(*steps, **columns))).iloc[0]  # noqa: E731
    solved = show(400, 380, 450, 390, 420)
    assert (solved["solved"], solved["steps to solve"], solved["seconds"]) == (
        "5/5", "400 (390–420)", "4.00 (3.90–4.20)"
    )  # fmt: skip
    assert show(400, 500, None)["steps to solve"] == "500 (400–>1,000)"
    assert show(None, None)["steps to solve"] == ">1,000"
    assert show(None, None)["seconds"] == ">10.0"
    stopped = show(None, 200, None, status="interrupted", steps=300, run_seconds=3.0)
    assert stopped["solved"] == "1/3 (interrupted)"
    assert stopped["steps to solve"] == ">300 (200–>300)"  # watched for 300 steps, not for the budget of 1000
    cut = show(None, 200, None, status="diverged", steps=300, diverged_step=[math.nan, math.nan, 300.0])
    assert (cut["solved"], cut["steps to solve"]) == ("1/3 (1 diverged)", ">300 (200–>300)")
    assert show(100, None, diverged_step=[math.nan, 50.0])["solved"] == "1/2 (1 diverged)"


def test_aggregate_of_the_rest():
    frame = seeds_of(1, 2, 3, 4, test_metric=[0.1, 0.2, 0.3, math.nan], diverged_step=[math.nan] * 3 + [7.0])
    other = seeds_of(5, run="s", seconds_per_step=0.03, compile_seconds=4.0, test_metric=0.4)
    row = results.aggregate(pd.concat([frame, other])).iloc[0]
    # The one that diverged is the worst; then 0.1, 0.2, 0.3, 0.4.
    quartiles = row[["test_metric_q25", "test_metric", "test_metric_q75"]].astype(float)
    assert np.allclose(quartiles, [0.1, 0.2, 0.3])
    assert row["diverged"] == 1
    assert math.isclose(row["seconds_per_step"], 0.02)  # per run, not per seed
    assert row["compile_seconds"] == 3.0


@pytest.mark.parametrize("higher_is_better, worst", [(True, -math.inf), (False, math.inf)])
def test_seeds_that_diverged_do_not_flatter_the_median(higher_is_better, worst):
    lost = dict(higher_is_better=higher_is_better, diverged_step=[math.nan, 7.0, 7.0, 7.0])
    row = results.aggregate(seeds_of(1, 2, 3, 4, test_metric=[0.9, *[math.nan] * 3], **lost))
    assert row["test_metric"].item() == worst
    assert results.text(row)["test"].item().startswith("–")
    kept = results.aggregate(seeds_of(1, 2, 3, 4, test_metric=[0.9, 0.8, 0.7, math.nan], **lost)).iloc[0]
    assert math.isclose(kept["test_metric"], 0.75 if higher_is_better else 0.85)


def test_aggregate_leaves_its_input_alone_and_takes_an_empty_one():
    frame = seeds_of(100, None)
    before = frame.copy()
    results.aggregate(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert results.aggregate(frame.iloc[:0]).empty


def test_curves_are_tidy(tmp_path, run_dir):
    run_dir(tmp_path / "b", cell="lstm", solved=[200, 300])
    run_dir(tmp_path / "deep" / "a", cell="gru", solved=[100])
    curves = results.load_curves(tmp_path)
    assert curves["label"].tolist() == ["gru"] + ["lstm"] * 5
    assert curves["seed"].tolist() == [0, 0, 0, 1, 1, 1]
    assert curves["step"].tolist() == [100, 100, 200, 100, 200, 300]
    assert set(curves["run"]) == {"b", "deep/a"}
    assert (curves["threshold"] == 0.99).all() and (curves["parameters"] == 12345).all()
    assert not curves.duplicated(["run", "seed", "step"]).any()


def test_a_diverged_seed_is_nan_and_not_dropped(tmp_path, run_dir):
    run_dir(tmp_path / "a", solved=["nan"], budget=400)
    curves = results.load_curves(tmp_path)
    assert curves["valid_metric"].isna().tolist() == [False, False, True]
    assert results.load_seeds(tmp_path)["diverged_step"].tolist() == [300]


def test_seeds_have_the_columns_of_their_run(tmp_path, run_dir):
    run_dir(tmp_path / "a", solved=[200, None], hidden_size=7)
    seeds = results.load_seeds(tmp_path)
    assert seeds["solved_step"].tolist()[0] == 200 and math.isnan(seeds["solved_step"][1])
    assert (seeds["hidden_size"] == 7).all()
    assert list(seeds.columns) == [*results.RUN, "seed", *results.SEED]


def test_a_torn_last_line_is_ignored_and_another_is_named(tmp_path, run_dir):
    file = run_dir(tmp_path / "a", solved=[300]) / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"step": 400, "se')
    assert results.load_curves(tmp_path)["step"].tolist() == [100, 200, 300]
    file.write_text('{"step": 4\n' + whole)
    with pytest.raises(ValueError, match=r"metrics\.jsonl:1: ") as error:
        results.load_curves(tmp_path)
    assert "\n" not in str(error.value)


def test_the_later_of_two_lines_for_a_step_counts(tmp_path, run_dir):
    file = run_dir(tmp_path / "a", solved=[300]) / "metrics.jsonl"
    again = json.loads(file.read_text().splitlines()[1]) | {"valid_metric": 0.5}
    with file.open("a") as lines:
        lines.write(json.dumps(again) + "\n")
    curves = results.load_curves(tmp_path)
    assert curves["step"].tolist() == [100, 200, 300]
    assert curves["valid_metric"][1] == 0.5


def test_a_killed_run_has_curves_and_no_seeds(tmp_path, run_dir):
    run_dir(tmp_path / "a", task="digits", cell="gru", solved=[300])
    (run_dir(tmp_path / "b", task="digits", cell="rnn", solved=[200]) / "summary.json").unlink()
    curves = results.load_curves(tmp_path)
    killed = curves[curves["status"] == "unfinished"]
    columns = ["task", "cell", "label", "step"]
    assert killed[columns].to_numpy().tolist() == [["digits", "rnn", "rnn", step] for step in (100, 200)]
    assert set(results.load_seeds(tmp_path)["label"]) == {"gru"}


def test_runs_under_one_label_are_told_apart_by_their_options(tmp_path, run_dir):
    run_dir(tmp_path / "a", solved=[200], config={"optimizer": {"lr": 0.1}})
    run_dir(tmp_path / "b", solved=[300], config={"optimizer": {"lr": 0.2}})
    run_dir(tmp_path / "c", cell="lstm", solved=[300], config={"optimizer": {"lr": 0.3}})
    assert set(results.load_seeds(tmp_path)["label"]) == {"gru (lr=0.1)", "gru (lr=0.2)", "lstm (lr=0.3)"}
    run_dir(tmp_path / "d", cell="lstm", solved=[300], device="gpu", config={"optimizer": {"lr": 0.3}})
    assert {"lstm (lr=0.3, device=cpu)", "lstm (lr=0.3, device=gpu)"} < set(
        results.load_curves(tmp_path)["label"]
    )


def test_the_options_in_which_runs_differ_are_columns(tmp_path, run_dir):
    """By their short names; by section and name where that is taken."""
    for i, gap in enumerate((10, 20)):
        config = {"task": {"name": "delayed_recall", "gap": gap, "size": gap, "symbols": 8}}
        config |= {"cell": {"name": "gru", "hidden_size": 64, "size": i}, "model": {"depth": 1 + i}}
        config |= {"optim": {"learning_rate": 0.1 * gap}, "train": {"steps": 100 * gap, "seeds": 1 + i}}
        run_dir(tmp_path / str(gap), solved=[200] * (1 + i), config=config)
    run_dir(tmp_path / "other", task="digits", solved=[100], config={"model": {"depth": 1}})
    seeds = results.load_seeds(tmp_path)
    for frame in (seeds, results.load_curves(tmp_path), results.aggregate(seeds)):
        rows = frame[frame["task"] == "delayed_recall"].drop_duplicates("gap").sort_values("gap")
        columns = ["gap", "depth", "task.size", "cell.size", "train.steps", "learning_rate"]
        assert rows[columns].to_numpy().tolist() == [[10, 1, 10, 0, 1000, 1.0], [20, 2, 20, 1, 2000, 2.0]]
        assert not {"symbols", "size", "name"} & set(frame.columns)
        assert frame.loc[frame["task"] == "digits", "gap"].isna().all()


def filled(record):
    """Some value of its type for every field."""
    values = {str: "x", int: 1, float: 1.0, bool: True}
    fields = dataclasses.fields(record)
    return {field.name: values[(typing.get_args(field.type) or (field.type,))[0]] for field in fields}


def test_a_run_in_one_line_says_what_the_table_says():
    run = filled(RunSummary) | {"label": "gru", "metric": "accuracy", "status": "finished"}
    seeds = [
        filled(SeedSummary) | {"seed": i, "learning_rate": rate, "test_metric": test, "diverged_step": None}
        for rate, tests in ((0.1, (0.2, 0.4, 0.8, 0.9)), (0.2, (0.1, 0.1, 0.3, 0.5)))
        for i, test in enumerate(tests)
    ]
    alone, grid = (Summary.from_dict({"run": run, "seeds": s}) for s in (seeds[:4], seeds))
    assert "test accuracy 0.600, " in results.line(alone)
    assert "test accuracy 0.600 (learning_rate=0.1), 0.200 (learning_rate=0.2), " in results.line(grid)
    for summary in (alone, grid):
        shown = results.text(results.aggregate(results.seeds_frame(summary)))["test"]
        assert all(test.split(" ")[0] in results.line(summary) for test in shown)


def test_a_summary_reads_as_the_dict_it_is_written_as():
    run = filled(RunSummary) | {"task": "t", "strategy": None, "unknown": 1}
    old = {"run": run, "seeds": [filled(SeedSummary) | {"seed": 4}]}
    summary = Summary.from_dict(old)
    assert summary["run"]["task"] == summary.run.task == "t" and summary.run.strategy is None
    assert summary["seeds"][0]["seed"] == 4 and {"a": 1} | summary.seeds[0] == {"a": 1, **summary.seeds[0]}
    assert Summary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    assert pd.DataFrame(summary["seeds"]).columns.tolist() == list(SeedSummary.names())
    with pytest.raises(KeyError):
        summary["runs"]


def test_runs_that_differ_in_their_seeds_only_are_pooled(tmp_path, run_dir):
    run_dir(tmp_path / "a", solved=[200, 300], config={"train": {"seed": 0, "seeds": 2}})
    run_dir(tmp_path / "b", solved=[400], config={"train": {"seed": 2, "seeds": 1}})
    (row,) = results.aggregate(results.load_seeds(tmp_path)).to_dict("records")
    assert (row["label"], row["seeds"], row["solved_step"]) == ("gru", 3, 300)


def test_folds_are_one_row_with_mean_and_deviation():
    folds = [seeds_of(None, None, fold=fold, run=f"r{fold}") for fold in range(3)]
    frame = pd.concat(folds, ignore_index=True).assign(best_test_metric=[0.5, 0.7, 0.8, 0.8, 0.9, 1.0])
    row = results.aggregate(frame).iloc[0]
    assert (row["folds"], row["seeds"]) == (3, 6)
    assert row["fold_mean"] == pytest.approx(2.35 / 3)  # of 0.6, 0.8, 0.95
    assert row["fold_sd"] == pytest.approx(np.std([0.6, 0.8, 0.95], ddof=1))
    aggregated = results.aggregate(frame)
    assert results.text(aggregated)["over folds"][0] == "0.783 ± 0.176 (3 folds)"
    assert "0.783 ± 0.176" in rendered(aggregated) and "(3 folds)" in rendered(aggregated)
    frame.loc[2, "best_test_metric"] = math.nan  # no score
    assert results.text(results.aggregate(frame))["over folds"][0] == "– ± – (3 folds)"


def test_folds_have_one_label_and_a_column(tmp_path, run_dir):
    for fold in (0, 1):
        run_dir(tmp_path / f"{fold}", config={"task": {"name": "t", "fold": fold}})
    frame = results.load_seeds(tmp_path)
    assert frame["label"].nunique() == 1 and set(frame["fold"]) == {0, 1}


def test_a_directory_given_twice_counts_once(tmp_path, run_dir):
    run = run_dir(tmp_path / "a", solved=[200])
    assert results.find_runs(tmp_path, run, tmp_path) == [run]


def test_directories_without_runs_are_refused(tmp_path):
    for path, word in ((tmp_path, "no runs"), (tmp_path / "none", "no such directory")):
        with pytest.raises(FileNotFoundError, match=f"^{word}.*{path.name}$"):
            results.find_runs(path)


def test_a_damaged_summary_is_named(tmp_path, run_dir):
    (run_dir(tmp_path / "a") / "summary.json").write_text('{"run": ')
    with pytest.raises(ValueError, match=r"a/summary\.json is damaged"):
        results.load_seeds(tmp_path)


def test_environments(comparison):
    frame = results.load_environments(comparison)
    assert len(frame) == 12 and set(frame["jax"]) == {"0.10.1"}
    assert "delayed_recall-gru" in set(frame["run"])


def rendered(aggregated):
    console = Console(width=80, file=io.StringIO())
    console.print(results.table(aggregated))
    return console.file.getvalue()


def test_the_table_fits_80_columns_and_loses_nothing(comparison):
    aggregated = results.aggregate(results.load_seeds(comparison))
    out = rendered(aggregated)
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out
    words = out.split()
    strings = results.text(aggregated)
    for name in ("cell", "params", "ms/step", "task"):
        assert set(strings[name]) <= set(words), name
    for name in ("solved", "steps to solve", "seconds"):
        assert {part.strip("()") for cell in strings[name] for part in cell.split()} <= set(words), name


def test_a_wide_table_folds_and_loses_nothing():
    wide = seeds_of(12_345, 23_456, None, budget_steps=100_000, parameters=12_345_678, run_seconds=98_765.0)
    wide = wide.assign(label="sru_feedback (length=12345)", task="sequential_mnist")
    aggregated = results.aggregate(wide)
    out = rendered(aggregated)
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out
    strings = results.text(aggregated).assign(test="0.500")
    wanted = "".join("".join(row) for row in strings.to_numpy()) + "".join(strings.columns.drop("task"))
    lost = Counter(wanted) - Counter(out)
    assert set(lost) <= set("() ")  # quartiles go below their median without brackets


def test_no_word_of_many_columns_is_broken():
    many = seeds_of(100, None).assign(label="sru:reset_feedback=true", learning_rate=0.01, metric="accuracy")
    many = pd.concat([many.assign(a_longer_option=i, **{"train.steps": i, "reset_after": i}) for i in (1, 2)])
    out = rendered(results.aggregate(many.assign(label=many["label"] + many["train.steps"].astype(str))))
    assert max(map(len, out.splitlines())) <= 80
    for word in "longer option train.steps params solved solve accuracy 100 >1,000 after".split():
        assert word in out.replace("–", " ").split(), word


def test_labels_are_not_markup():
    assert "[bold]gru" in rendered(results.aggregate(seeds_of(1, label="[bold]gru")))


def test_markdown_is_one_table_per_task(comparison):
    out = results.markdown(results.aggregate(results.load_seeds(comparison)))
    assert "| lstm | 12,345 | 4/5 (1 diverged) | 700 (600–800) | 7.00 (6.00–8.00) | 0.993 | 10.0 |" in out
    assert "**adding**: test mse; solved at mse ≤ 0.01; baseline 0.1667; at most 1,000 steps of 32 " in out
    assert out.count("| --- |") == 3


def test_a_column_of_several_types_is_text_in_parquet(tmp_path):
    frame = pd.DataFrame({"a": [1, "x", None], "b": [0.5, None, 1.5], "c": [True, None, False]})
    output.write_parquet(tmp_path / "a.parquet", frame)
    read = pd.read_parquet(tmp_path / "a.parquet")
    assert read["a"].dropna().tolist() == ["1", "x"]
    assert read["b"].dropna().tolist() == [0.5, 1.5] and read["c"].dropna().tolist() == [True, False]


def test_tidy_files_read_back(comparison, tmp_path):
    paths = results.write_tidy(comparison, tmp_path / "new" / "out")
    assert sorted(paths) == ["curves.csv", "curves.parquet", "seeds.csv", "seeds.parquet", "summary.csv"]
    for name, load in (("curves", results.load_curves), ("seeds", results.load_seeds)):
        pd.testing.assert_frame_equal(pd.read_parquet(paths[f"{name}.parquet"]), load(comparison))
    summary = pd.read_csv(paths["summary.csv"])
    expected = results.aggregate(results.load_seeds(comparison))
    pd.testing.assert_frame_equal(summary, expected, check_dtype=False)
    assert math.isinf(summary.query("task == 'delayed_recall' and cell == 'rnn'")["solved_step"].item())
    assert len(pd.read_csv(paths["curves.csv"])) == len(results.load_curves(comparison))
