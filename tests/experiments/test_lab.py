"""What the experiments of the laboratory share: kept work, statistics, settings, verdicts."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import experiments
from experiments import claims
from experiments.lab import evidence, experiment, runs, statistics
from experiments.lab.store import Lab
from train.files import WorkdirError
from train.loop import train

QUIET = Console(quiet=True)


# --- kept work


def test_work_is_done_once_and_read_again(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return [{"seed": 0, "value": float("inf")}, {"seed": 1, "value": (1, 2)}]

    first = Lab(tmp_path, QUIET).do("piece", {"steps": (1, 2)}, make)
    again = Lab(tmp_path, QUIET).do("piece", {"steps": (1, 2)}, make)
    assert first == again == [{"seed": 0, "value": float("inf")}, {"seed": 1, "value": [1, 2]}]
    assert len(calls) == 1
    for name in ("thesis.tex", "done/mine.txt"):
        (tmp_path / name).write_text("mine")
    damaged = tmp_path / "runs" / "a"
    damaged.mkdir(parents=True)
    for name in ("config.json", "resolved.json", "metrics.jsonl"):
        (damaged / name).write_text("{")
    Lab(tmp_path, QUIET, overwrite=True).do("piece", {"steps": (1, 2)}, make)
    assert len(calls) == 2
    assert (tmp_path / "thesis.tex").read_text() == (tmp_path / "done" / "mine.txt").read_text() == "mine"
    assert [path.name for path in damaged.iterdir()] == [".lock"]


def test_work_with_other_settings_or_a_damaged_file_is_refused_in_one_line(tmp_path):
    lab = Lab(tmp_path, QUIET)
    lab.do("piece", {"config": {"steps": 1}}, lambda: [])
    with pytest.raises(WorkdirError, match="config.steps: 1 there, 2 now"):
        lab.do("piece", {"config": {"steps": 2}}, lambda: [])
    (tmp_path / "done" / "piece.json").write_text('{"settings"')
    with pytest.raises(WorkdirError, match="damaged"):
        lab.do("piece", {"config": {"steps": 1}}, lambda: [])


def test_a_piece_that_fails_leaves_nothing_behind(tmp_path):
    def broken():
        raise RuntimeError

    lab = Lab(tmp_path, QUIET)
    with pytest.raises(RuntimeError):
        lab.do("piece", {}, broken)
    assert lab.do("piece", {}, lambda: [{"ok": True}]) == [{"ok": True}]


def test_a_trained_piece_has_a_row_per_seed_and_rate_and_is_not_trained_again(tmp_path, monkeypatch):
    config = runs.config(
        "rnn:activation=relu", "delayed_recall", cell={"hidden_size": 3},
        task={"gap": 2, "eval_examples": 8}, optim={"learning_rates": (0.01, 0.02)},
        train={"steps": 2, "seeds": 2, "batch_size": 2, "eval_every": 1},
    )  # fmt: skip
    assert config.cell.activation == "relu" and config.label == "rnn:activation=relu"

    def probe(result):
        lanes = runs.lanes(result)
        assert lanes["chosen"].sum() == 2 and lanes["higher_is_better"].all()
        assert [(row.seed, row.learning_rate) for row in lanes.itertuples()] == result.run.config.lanes
        before, after = runs.initial(result), runs.trained(result)
        assert jax.tree.map(jnp.shape, before) == jax.tree.map(jnp.shape, after)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), runs.lane(before, 0), runs.lane(after, 0))
        assert max(jax.tree.leaves(moved)) > 0
        assert runs.fields(result, "budget_steps", "baseline")["budget_steps"] == 2
        return runs.seeds(result)

    rows = Lab(tmp_path, QUIET).train("run", config, probe)
    assert [(row["learning_rate"], row["seed"]) for row in rows] == [
        (0.01, 0), (0.01, 1), (0.02, 0), (0.02, 1),
    ]  # fmt: skip
    monkeypatch.setattr("experiments.lab.store.train", None)
    assert Lab(tmp_path, QUIET).train("run", config, probe) == rows


@pytest.mark.slow
def test_models_trained_by_processes_give_the_same_rows(tmp_path):
    """The gaps of a search follow from those before; a second time there is nothing to train."""
    one = experiment.of("horizon")
    settings = one.protocol["quick"]
    alone = evidence.run(one, settings, tmp_path / "alone", QUIET)
    for _ in range(2):
        several = evidence.run(one, settings, tmp_path / "several", QUIET, workers=2)
        for name in alone:
            here, there = (frames[name].drop(columns="solved_seconds") for frames in (alone, several))
            pd.testing.assert_frame_equal(here, there, rtol=1e-4)


@pytest.mark.parametrize("where", ["done", pytest.param("runs", marks=pytest.mark.slow)])
def test_processes_train_nothing_where_another_experiment_is(tmp_path, where):
    """Neither beside what has been measured, nor beside a run that only has been trained."""
    one = experiment.of("gates")
    settings = dataclasses.replace(one.protocol["quick"], steps=2, cells=("gru", "lstm"))
    (name, config), (other, _) = settings.runs().items()
    lab = Lab(tmp_path, QUIET)
    if where == "done":
        lab.do(name, {"config": config.to_dict(), "rows": 4}, lambda: [])
    else:
        train(config, lab.folder(name))
    lab.close()
    again = dataclasses.replace(settings, steps=3)
    with pytest.raises(WorkdirError, match="2 there, 3 now"):
        evidence.run(one, again, tmp_path, QUIET, workers=2)
    assert not lab.folder(other).exists()


# --- statistics


def test_medians_are_values_of_seeds_and_know_infinity():
    odd = statistics.median([3.0, 1.0, np.inf, 2.0, np.inf])
    assert odd.value == 3.0 and odd.low >= 1.0 and odd.high == np.inf
    assert statistics.median([1.0, 2.0, np.inf, np.inf]).value == 2.0  # half of the seeds are enough
    assert statistics.median([np.inf, np.inf, 1.0]) == statistics.Estimate(np.inf, 1.0, np.inf)
    assert statistics.median([5.0] * 4) == statistics.Estimate(5.0, 5.0, 5.0)
    assert f"{statistics.median([np.inf] * 3)}" == "inf [inf, inf]"


def test_the_interval_of_a_median_covers_the_true_one():
    """Percentile bootstrap of 15 values: about 95 % of the intervals, and never as few as 80 %."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        found = statistics.median(rng.normal(7.0, 1.0, 15))
        covered += found.low <= 7.0 <= found.high
    assert 48 < covered


def test_a_share_has_an_interval_at_its_ends():
    none, half = statistics.share(0, 5), statistics.share(5, 10)
    assert none.value == 0 and none.low == 0 and 0.3 < none.high < 0.6
    assert half.value == 0.5 and 0.2 < half.low < 0.3 and 0.7 < half.high < 0.8


def test_correlation_resamples_seeds_and_not_units():
    """Units of a seed that are copies of each other give no more certainty than one unit."""
    rng = np.random.default_rng(0)
    one = pd.DataFrame({"seed": range(12), "x": rng.normal(size=12)})
    one["y"] = one["x"] + rng.normal(size=12)
    copies = pd.concat([one] * 20)
    few, many = (statistics.rank_correlation(frame, "x", "y") for frame in (one, copies))
    assert few.value == pytest.approx(many.value, abs=0.01)
    assert many.high - many.low > 0.8 * (few.high - few.low)
    assert statistics.rank_correlation(one.assign(x=1.0), "x", "y").value == 0


def test_slope_leaves_out_what_is_not_there():
    x = np.arange(10)
    y = np.where(x > 6, -np.inf, 2.0 * x + 1)
    assert statistics.slope(x, y) == pytest.approx(2.0)
    assert np.isnan(statistics.slope(x[:2], y[:2]))


def _grid(table, **columns):
    rows = [
        {"seed": seed, "learning_rate": rate, "solved": np.isfinite(step), "solved_step": step}
        for (rate, seed), step in table.items()
    ]
    return pd.DataFrame(rows).assign(valid_metric=0.5, higher_is_better=True, **columns)


def test_no_seed_chooses_its_own_learning_rate():
    """Seed 0 is lucky with the rate that fails for the others, and does not get it."""
    never = np.inf
    rows = _grid(
        {
            (0.1, 0): 1.0, (0.1, 1): never, (0.1, 2): never,
            (0.2, 0): 9.0, (0.2, 1): 8.0, (0.2, 2): 7.0,
        }
    )  # fmt: skip
    chosen = statistics.tuned(rows)
    assert chosen.sort_values("seed")["solved_step"].tolist() == [9.0, 8.0, 7.0]
    assert statistics.tuned(rows[rows["learning_rate"] == 0.1])["solved"].tolist() == [True, False, False]


def test_among_rates_that_never_solve_the_better_metric_is_chosen():
    rows = _grid({(0.1, s): np.inf for s in range(3)} | {(0.2, s): np.inf for s in range(3)})
    rows["valid_metric"] = rows["learning_rate"]
    assert set(statistics.tuned(rows)["learning_rate"]) == {0.2}
    assert set(statistics.tuned(rows.assign(higher_is_better=False))["learning_rate"]) == {0.1}
    diverged = rows.assign(valid_metric=[np.nan if rate == 0.2 else 0.1 for rate in rows["learning_rate"]])
    assert set(statistics.tuned(diverged)["learning_rate"]) == {0.1}


def test_growth_tells_constant_logarithmic_and_linear_apart():
    times = np.array([16, 64, 256, 1024])
    assert statistics.growth(times, [5, 5, 5, 5]) == "constant"
    assert statistics.growth(times, 7 * np.log2(times) + 3) == "logarithmic"
    assert statistics.growth(times, 7 * times + 300) == "linear"


def test_an_exponent_is_that_of_the_longer_half():
    times = np.array([1, 2, 4, 8, 16, 32])
    assert statistics.exponent(times, np.where(times < 8, 1.0, times**1.5)) == pytest.approx(1.5)
    assert np.isnan(statistics.exponent(times[:2], [1.0, 2.0]))


def test_what_was_not_reached_is_shown_as_censored():
    assert statistics.censored(statistics.Estimate(175.0, 150.0, np.inf), ">400") == "175 [150, >400]"
    assert statistics.censored(statistics.Estimate(*[np.inf] * 3), "≥16x", "{:g}x") == "≥16x [≥16x, ≥16x]"
    assert statistics.median_steps([10.0, None, None]).value == np.inf


# --- experiments


@pytest.fixture(params=claims.EXPERIMENTS)
def one(request) -> experiment.Experiment:
    return experiment.of(request.param)


def test_every_experiment_has_presets_of_the_same_settings(one):
    assert set(one.protocol) == {"quick", "fast", "full"}
    assert len({type(preset) for preset in one.protocol.values()}) == 1
    assert getattr(one.protocol["fast"], "seeds", 5) >= 5
    text = experiment.help_of(one)
    assert f"python -m experiments.{one.name}" in text
    assert all(f"--config.{field.name}: " in text for field in dataclasses.fields(one.protocol["fast"]))


def test_an_experiment_is_one_short_file_that_reads_in_order(one):
    text = Path(one.module.__file__).read_text()
    assert len(text.splitlines()) <= 360
    parts = [
        "CLAIMS = ",
        "class Settings",
        "PRESETS = ",
        "def measure(",
        "def judge(",
        "def tables(",
        "def figures(",
    ]
    places = [text.index(part) for part in [*parts, "EXPERIMENT = "]]
    assert places == sorted(places)
    assert one.question.endswith("?") and len(one.question) < 100


def test_every_claim_is_named_and_judged_in_the_docstring_of_the_rule(one):
    for key in one.claims:
        assert f"`{key}`" in one.judge.__doc__


def test_the_labels_of_every_preset_are_different_models(one):
    for preset in one.protocol:
        experiment.settings_of(one, preset, {})


def test_settings_come_from_flags_and_wrong_ones_are_refused():
    gradients = experiment.of("gradients")

    def got(**overrides):
        return experiment.settings_of(gradients, "fast", overrides)

    settings = got(seeds="7", scales="(1.0, 3)", cells="gru,lstm")
    assert settings.seeds == 7 and settings.scales == (1.0, 3) and settings.cells == ("gru", "lstm")
    assert got(learning_rates="0.1,0.2").learning_rates == (0.1, 0.2)
    for field, value, wanted in (("seed", "3", "seeds"), ("steps", "many", "int")):
        with pytest.raises(ValueError, match=wanted):
            got(**{field: value})


def test_a_setting_of_another_experiment_is_refused_with_its_name():
    with pytest.raises(ValueError, match="gates has no setting 'rnn_steps'; experiments.identities has it"):
        experiment.settings_of(experiment.of("gates"), "fast", {"rnn_steps": "3"})


@pytest.mark.parametrize("cells", ["gru,gru", "gru,gru:reset_after=false", "lstm,lstm:peepholes=false"])
def test_two_labels_for_one_model_are_refused(cells):
    with pytest.raises(ValueError, match=cells.split(",")[0]):
        experiment.settings_of(experiment.of("horizon"), "fast", {"cells": cells})


def test_every_part_of_a_claim_is_judged_by_its_experiment_and_none_without_numbers(tmp_path):
    found = claims.judge(tmp_path)
    every = [key for name in claims.EXPERIMENTS for key in experiment.of(name).parts]
    assert sorted(found["id"]) == sorted(every) and len(set(every)) == len(every)
    assert set(found["verdict"]) == {experiment.NOT_TESTED}
    page = claims.page(found)
    for name in claims.EXPERIMENTS:
        for claim in experiment.of(name).claims.values():
            assert claim.parts and f"## {claim.text}\n" in page
            assert all(part.rule and f"- {part.text}: {part.rule}" in page for part in claim.parts.values())
    notes = [experiment.of(name).claims for name in claims.EXPERIMENTS]
    texts = {key: claim.text for of in notes for key, claim in of.items()}
    order = list(dict.fromkeys(found["claim"]))
    assert order[: len(claims.NOTES)] == [texts[key] for key in claims.NOTES]


FOLDER = Path(experiments.__file__).parent / "figures" / "claims"


def test_the_committed_evidence_gives_the_committed_verdicts(one):
    """What claims.csv and report.md say follows from the tables that lie beside them."""
    from experiments.tables import markdown

    kept = pd.read_csv(FOLDER / "claims.csv", keep_default_na=False).set_index("id")
    if not (FOLDER / one.name).exists():  # it has not run at a size that decides something
        assert set(kept.loc[list(one.parts), "verdict"]) <= {experiment.NOT_TESTED}
        return
    frames = evidence.load(FOLDER / one.name)
    report = (FOLDER / one.name / "report.md").read_text()
    record = json.loads((FOLDER / one.name / "environment.json").read_text())
    assert record["settings"] and record["cpu"] and evidence.caption(record) in report
    for title, table in one.tables(frames).items():
        assert title in report and markdown(table) in report
    found = one.judge(frames)
    assert set(found) == set(one.parts)
    for claim in one.claims.values():
        assert markdown(evidence.verdict_table(claim.parts, found)) in report
        figure = f"{one.name}/{claim.figure}.png" if claim.figure else ""
        assert not figure or (FOLDER / figure).exists()
        for key, part in claim.parts.items():
            assert found[key].verdict in experiment.VERDICTS
            shared = [claim.text, part.text, part.rule, one.name, figure]
            assert kept.loc[key].tolist() == [*shared, *found[key]]


def test_claims_are_those_of_the_experiments_that_have_run(tmp_path):
    shutil.copytree(FOLDER / "identities", tmp_path / "identities")
    verdicts = claims.judge(tmp_path).set_index("id")["verdict"]
    ours = list(experiment.of("identities").parts)
    assert set(verdicts[ours]) != {experiment.NOT_TESTED}
    assert set(verdicts.drop(ours)) == {experiment.NOT_TESTED}
    kept = pd.read_csv(FOLDER / "claims.csv", keep_default_na=False)
    assert kept["id"].tolist() == claims.judge(tmp_path)["id"].tolist()
    assert claims.page(kept) == (FOLDER / "claims.md").read_text()
