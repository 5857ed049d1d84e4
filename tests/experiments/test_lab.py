"""What the experiments of the laboratory share: kept work, statistics, settings, verdicts."""

import importlib
import json
import types

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments import claims
from experiments.lab import statistics, study
from experiments.lab.store import Lab
from train.record import WorkdirError

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
    Lab(tmp_path, QUIET, overwrite=True).do("piece", {"steps": (1, 2)}, make)
    assert len(calls) == 2


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
    config = study.cell_config(
        "gru:update_bias=1",
        "delayed_recall",
        cell={"hidden_size": 3},
        task={"gap": 2, "eval_examples": 8},
        optim={"learning_rates": (0.01, 0.02)},
        train={"steps": 2, "seeds": 2, "batch_size": 2, "eval_every": 1},
    )
    assert config.cell.update_bias == 1 and config.label == "gru:update_bias=1"
    rows = Lab(tmp_path, QUIET).train("run", config)
    assert [(row["learning_rate"], row["seed"]) for row in rows] == [
        (0.01, 0), (0.01, 1), (0.02, 0), (0.02, 1),
    ]  # fmt: skip
    assert all(row["budget_steps"] == 2 and row["parameters"] > 0 for row in rows)
    monkeypatch.setattr("experiments.lab.store.train", None)
    assert Lab(tmp_path, QUIET).train("run", config) == rows


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


# --- experiments


@pytest.fixture(params=claims.EXPERIMENTS)
def experiment(request) -> types.ModuleType:
    return importlib.import_module(f"experiments.{request.param}")


def test_every_experiment_has_presets_of_the_same_settings(experiment):
    assert set(experiment.PRESETS) == {"quick", "fast", "full"}
    assert len({type(preset) for preset in experiment.PRESETS.values()}) == 1
    assert experiment.PRESETS["fast"].seeds >= 5 if hasattr(experiment.PRESETS["fast"], "seeds") else True
    assert "python -m" in study.help_of(experiment)


def test_settings_come_from_flags_and_wrong_ones_are_refused():
    module = importlib.import_module("experiments.gradients")
    got = study.settings_of(module, "fast", {"seeds": "7", "scales": "(1.0, 3)", "cells": "gru,lstm"})
    assert got.seeds == 7 and got.scales == (1.0, 3) and got.cells == ("gru", "lstm")
    assert study.settings_of(module, "fast", {"learning_rates": "0.1,0.2"}).learning_rates == (0.1, 0.2)
    for field, value, told in (("seed", "3", "seeds"), ("steps", "many", "int"), ("lyapunov", "3", "bool")):
        with pytest.raises(ValueError, match=told):
            study.settings_of(module, "fast", {field: value})


def test_every_claim_is_judged_by_its_experiment_and_none_without_numbers(tmp_path):
    found = claims.judge(tmp_path)
    assert found["id"].tolist() == list(claims.CLAIMS)
    assert set(found["verdict"]) == {"not tested here"}
    assert "| **not tested here** |" in claims.page(found)


def test_the_committed_evidence_gives_the_committed_verdicts():
    """The table that the README shows follows from the tables that lie beside it."""
    import experiments

    folder = study.Path(experiments.__file__).parent / "figures" / "claims"
    found = claims.judge(folder)
    kept = pd.read_csv(folder / "claims.csv", keep_default_na=False)
    assert found.astype(str).to_dict("records") == kept.astype(str).to_dict("records")
    assert set(found["verdict"]) <= set(study.VERDICTS)
    for claim in found.to_dict("records"):
        assert not claim["figure"] or (folder / claim["figure"]).exists()
        told = json.loads((folder / claim["experiment"] / "environment.json").read_text())
        assert told["settings"] and told["cpu"]
