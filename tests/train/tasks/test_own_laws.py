"""People's own data: only what counts has a part in scales, classes and counts."""

import warnings

import numpy as np
import pytest

from batches import same
from train import tasks
from train.tasks import DataError
from train.tasks.own.splits import PARTS

XS = np.random.default_rng(0).normal(size=(30, 6, 2))
REAL = np.random.default_rng(1).random((30, 6)) < 0.7


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(path="a.npz", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = tasks.get("arrays", path=path, **options)
        data = task.load()
        task.check(data)
    return task, data


def packed(options, **arrays):
    np.savez("a.npz", **arrays)
    return loaded(**options)


# --- what counts


@pytest.mark.parametrize("way", ["mask", "weights", "skip"])
@pytest.mark.parametrize("answer", ["number_per_step", "class_per_step"])
def test_what_stands_where_nothing_counts_changes_nothing(way, answer):
    number = answer == "number_per_step"
    ys = XS[..., 0] * 3 + 5 if number else (XS[..., 0] > 0).astype(float)
    xs = np.where(REAL[..., None], XS, np.nan) if way == "skip" else XS
    more = {} if way == "skip" else {way: REAL if way == "mask" else REAL.astype(float)}
    options = {"answer": answer, "gaps": "skip" if way == "skip" else "refuse"}
    options |= {} if number else {"class_weights": "balanced"}
    found = []
    for junk in (0.0, -999.0, np.inf, np.nan):
        task, data = packed(options, xs=xs, ys=np.where(REAL, ys, junk), **more)
        assert f"{(~REAL).sum()} of 180 steps do not count" in task.describe(data)
        batch = task._batch(data["train"], np.arange(n := len(data["train"]["ys"])), np.ones(n))
        counts = np.asarray(batch.weights) > 0
        found.append([np.where(counts, np.asarray(batch.ys).reshape(counts.shape), 0), batch.weights])
        if number:
            values = np.asarray(batch.ys)[..., 0][counts]
            np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-5)
        assert len(data["read"].get("classes", [0, 0])) == 2
    assert all(same(found[0], other) for other in found[1:])


def test_targets_are_scaled_column_by_column_over_what_is_there():
    ys = XS * np.array([1, 1000.0]) + 7
    ys[REAL, 0] = np.nan
    task, data = packed({"answer": "number_per_step"}, xs=XS, ys=ys, split=np.repeat(PARTS, 10))
    kept = data["train"]["scored"] > 0
    assert f"{REAL.sum()} of 180 steps do not count" in task.describe(data)
    want = (ys[:10][kept] - np.nanmean(ys[:10], axis=(0, 1))) / np.nanstd(ys[:10], axis=(0, 1))
    np.testing.assert_allclose(data["train"]["ys"][kept], want, rtol=1e-4, atol=1e-5)
    ys[10:20, :, 1] = np.nan
    with pytest.raises(
        DataError, match="no step counts in valid: of 60 steps 0 are skipped, and nothing left"
    ):
        packed({"answer": "number_per_step"}, xs=XS, ys=ys, split=np.repeat(PARTS, 10))


@pytest.mark.parametrize("unit", [1e-300, 1e-13, 1.0, 1e300])
def test_scales_are_those_of_any_unit(unit):
    options = {"answer": "number", "valid_fraction": 0.2}
    want = packed(options, xs=XS, ys=XS[:, 0, 0])[1]
    got = packed(options, xs=XS * unit, ys=XS[:, 0, 0] * unit)[1]
    for part in PARTS:
        for key in ("xs", "ys"):
            np.testing.assert_allclose(got[part][key], want[part][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "answer, arrays",
    [
        ("class", {"xs": XS, "ys": np.arange(30) % 2, "lengths": np.where(np.arange(30) % 2, 6, 2)}),
        ("class_per_step", {"xs": XS, "ys": (XS[..., 0] > 1).astype(int), "mask": REAL}),
        ("forecast", {"xs": np.random.default_rng(2).integers(0, 3, (30, 6)), "weights": XS[..., 0] ** 2}),
    ],
)
def test_balanced_classes_have_as_much_weight_each_among_what_trains(answer, arrays):
    task, data = packed({"answer": answer, "class_weights": "balanced", "window": 2}, **arrays)
    batch = task._batch(data["train"], np.arange(n := len(data["train"]["ys"])), np.ones(n))
    each = np.bincount(np.ravel(batch.ys), np.ravel(batch.weights))
    np.testing.assert_allclose(each, each.mean(), rtol=1e-4)
    assert data["read"]["classes"].sum() == (np.asarray(batch.scored) > 0).sum()


def test_of_each_class_one_that_has_a_weight_trains():
    ys, weights = np.repeat([0, 1], 15), np.ones(30)
    weights[16:] = 0
    data = packed({"split_seed": 5}, xs=XS, ys=ys, weights=weights)[1]["train"]
    assert set(data["ys"][data["weights"] > 0]) == {0, 1}


def test_the_test_split_has_no_part_in_the_threshold():
    split = np.repeat(PARTS, 10)
    ys = XS[:, 0, 0]
    specs = []
    for y in (ys, np.where(split == "test", 9 * ys, ys)):
        task, data = packed({"answer": "number"}, xs=XS, ys=y, split=split)
        specs.append(task.spec(data))
    assert specs[0] == specs[1]


def test_pieces_without_a_step_are_left_out_and_told_apart_from_sequences():
    mask = np.ones((30, 6), bool)
    mask[:5, 2:] = False
    task, data = packed({"window": 2}, xs=XS, ys=np.arange(30) % 2, mask=mask)
    assert sum(len(data[part]["xs"]) for part in PARTS) == 90 - 10
    assert "split 22/4/4 (seed 0), in " in task.describe(data)


@pytest.mark.parametrize("ys", [{}, {"ys": np.arange(30)}])
def test_a_forecast_says_that_it_has_no_use_for_targets(ys):
    task, data = packed({"answer": "forecast"}, xs=XS, **ys)
    assert ("its ys are not used" in task.describe(data)) == bool(ys)


# --- refusals

ARRAYS = [
    ({"xs": XS, "ys": XS[:, 0, 0]}, {"answer": "number", "window": 6}, "window=6 has no effect: the longest"),
    ({"xs": XS, "ys": np.arange(30) % 2}, {"max_length": 6}, "max_length=6 has no effect: the longest"),
    ({"xs": XS, "ys": np.arange(30) % 2 * 1e30}, {}, "row 1: 1e+30 is no class"),
    ({"xs": XS, "ys": np.arange(30) % 2, "weights": np.full(30, 1e38)}, {}, "row 0: the weight is 1e+38"),
    (
        {"xs": XS, "ys": np.arange(30) % 2, "times": 1.7e9 + np.arange(180).reshape(30, 6)},
        {"times": "value", "standardize": False},
        "row 0, step 1: the time stamp 1700000001.0 is too large for float32",
    ),
    (
        {"xs": XS + np.where(np.arange(30) < 20, np.nan, 0)[:, None, None], "ys": np.arange(30) % 2,
         "split": np.repeat(PARTS, [20, 5, 5])},
        {"gaps": "indicator"},
        "'feature 0' is missing in all steps that train",
    ),
]  # fmt: skip


@pytest.mark.parametrize("arrays, options, told", ARRAYS)
def test_what_has_no_effect_or_cannot_be_right_gets_one_line(arrays, options, told):
    with pytest.raises(DataError) as error:
        packed(options, **arrays)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_one_class_each_may_have_an_axis_of_its_own():
    ys = np.arange(30) % 2
    assert same(packed({}, xs=XS, ys=ys)[1], packed({}, xs=XS, ys=ys[:, None])[1])
