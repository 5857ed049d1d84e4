"""People's own data: the same, however it is stored; what cannot be right is refused with one line."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

import configs
from batches import same
from train import metrics, tasks
from train.resolve import check
from train.tasks import DataError
from train.tasks.own.splits import PARTS

HEADER = "sequence,step,x,y,target\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(n=20, time=4, target=lambda i, step: "ab"[i % 2]):
    """A table of n sequences, without its header."""
    return "".join(
        f"{i},{step},{i + step},{i * step},{target(i, step)}\n" for i in range(n) for step in range(time)
    )


def table(folder, text, **options):
    """The task of a table, and its data."""
    (folder / "a.csv").write_text(text)
    return loaded(path="a.csv", **options)


def packed(folder, options, **arrays):
    """The task of arrays, and its data."""
    np.savez(folder / "a.npz", **arrays)
    return loaded(path="a.npz", **options)


def loaded(name="arrays", **options):
    task = tasks.get(name, **options)
    data = task.load()
    task.check(data)
    return task, data


def padded_rows(seed=0, n=40, time=6):
    """xs, ys and lengths of rows of 1 to `time` steps."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, time + 1, n)
    xs = rng.normal(size=(n, time, 2)).round(3)
    xs[np.arange(time) >= lengths[:, None]] = 0
    return {"xs": xs, "ys": np.array(["a", "b"])[np.arange(n) % 2], "lengths": lengths}


# --- the same, however it is stored


def test_a_table_and_arrays_and_folders_of_the_same_sequences_are_the_same_data(here):
    rows = padded_rows()
    xs, ys, lengths = rows.values()
    places = [(i, step) for i, length in enumerate(lengths) for step in range(length)]
    order = np.random.default_rng(1).permutation(len(places))
    text = [f"{i:02},{step},{xs[i, step, 0]},{xs[i, step, 1]},{ys[i]}" for i, step in np.array(places)[order]]
    np.savez(here / "a.npz", **rows)
    (here / "a.csv").write_text(HEADER + "\n".join(text))
    (here / "dense").mkdir()
    for key, array in rows.items():
        np.save(here / "dense" / f"{key}.npy", array)
    for i, length in enumerate(lengths):
        for key, array in {"xs": xs[i, :length], "ys": ys[i]}.items():
            (here / "ragged" / key).mkdir(parents=True, exist_ok=True)
            np.save(here / "ragged" / key / f"{i:02}.npy", array)
        (here / "classes" / ys[i]).mkdir(parents=True, exist_ok=True)
        np.save(here / "classes" / ys[i] / f"{i:02}.npy", xs[i, :length])
    found = [loaded(path=path)[1] for path in ("a.npz", "a.csv", "dense", "ragged")]
    assert all(same(found[0], other) for other in found[1:])
    by_class = loaded(path="classes")[1]  # in another order
    assert sum(len(by_class[part]["ys"]) for part in PARTS) == len(ys)
    forecasts = [loaded(path=p, answer="forecast", **o)[1] for p, o in (
        ("a.npz", {}), ("a.csv", {"features": "x,y"}), ("ragged", {})
    )]  # fmt: skip
    assert [bool(data["read"].pop("unused")) for data in forecasts] == [True, False, True]
    assert all(same(forecasts[0], other) for other in forecasts[1:])


@pytest.mark.parametrize("way", ["prefixes", "folders", "array"])
def test_a_given_split_stands_and_what_it_lacks_comes_from_training(here, way):
    rows = padded_rows()
    split = np.array(["train", "test"])[(np.arange(40) >= 30).astype(int)]
    parts = {part: {key: array[split == part] for key, array in rows.items()} for part in ("train", "test")}
    if way == "prefixes":
        arrays = {f"{part}_{key}": array for part, of in parts.items() for key, array in of.items()}
        np.savez(here / "a.npz", **arrays)
    elif way == "array":
        np.savez(here / "a.npz", **rows, split=split)
    for part, (key, array) in ((p, item) for p, of in parts.items() for item in of.items()):
        (here / "a" / part).mkdir(parents=True, exist_ok=True)
        np.save(here / "a" / part / f"{key}.npy", array)
    task, data = loaded(path="a" if way == "folders" else "a.npz")
    assert [len(data[part]["ys"]) for part in PARTS] == [26, 4, 10]
    assert np.array_equal(data["test"]["ys"], np.arange(40)[30:] % 2)
    assert "split 26/4/10 (seed 0)" in task.describe(data)


# --- splits and pieces


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_are_drawn_once_share_no_row_and_have_all_classes(here, seed):
    xs, ys = np.arange(60).reshape(30, 2, 1) + 0.5, np.repeat([5, 7, 9], [20, 8, 2])
    task, data = packed(here, {"split_seed": seed, "standardize": False}, xs=xs, ys=ys)
    seen = [set(data[part]["xs"][:, 0, 0].tolist()) for part in PARTS]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(seen, 2))
    assert set.union(*seen) == set(xs[:, 0, 0]) and list(map(len, seen)) == [22, 4, 4]
    assert same(data, task.load()) and set(data["train"]["ys"]) == {0, 1, 2}
    assert (data["test"]["ys"] == 0).sum() in (2, 3)
    assert (
        same(data["test"], packed(here, {"split_seed": 3, "standardize": False}, xs=xs, ys=ys)[1]["test"])
        is False
    )


@pytest.mark.parametrize("answer, horizon", [("number_per_step", 1), ("forecast", 1), ("forecast", 3)])
def test_no_piece_reads_or_answers_what_is_of_another_split(here, answer, horizon):
    xs = np.arange(100.0).reshape(1, 100, 1)
    arrays = {"xs": xs, **({} if answer == "forecast" else {"ys": -xs})}
    options = {"answer": answer, "split_by": "time", "window": 7, "standardize": False}
    _, data = packed(here, options | {"horizon": horizon}, **arrays)
    ahead = horizon if answer == "forecast" else 0
    for part, (first, end) in zip(PARTS, ((0, 70), (70, 85), (85, 100)), strict=True):
        real = np.arange(7) < data[part]["lengths"][:, None]
        read, asked = (data[part][key][..., 0][real] for key in ("xs", "ys"))
        assert np.array_equal(read, np.arange(first, end - ahead))
        assert np.array_equal(asked, read + ahead if answer == "forecast" else -read)


def test_pieces_of_a_sequence_have_its_answer_and_its_split(here):
    rows = padded_rows()
    _, cut = packed(here, {"window": 2}, **rows)
    _, whole = packed(here, {}, **rows)
    for part in PARTS:
        assert cut[part]["xs"].shape[1] == 2
        assert cut[part]["lengths"].sum() == whole[part]["lengths"].sum()
    task, short = packed(here, {"max_length": 2}, **rows)
    assert short["train"]["lengths"].max() == 2 and "were cut to 2 steps" in task.describe(short)


# --- inputs


def test_scales_are_those_of_the_steps_that_train(here):
    rows = padded_rows()
    split = np.repeat(PARTS, [20, 10, 10])
    rows["ys"] = np.arange(40.0)
    _, data = packed(here, {"answer": "number"}, split=split, **rows)
    real = np.arange(6) < data["train"]["lengths"][:, None]
    for values in (data["train"]["xs"][real], data["train"]["ys"]):
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(values.std(0), 1, atol=1e-6)
    rows["xs"][20:] *= 9
    _, other = packed(here, {"answer": "number"}, split=split, **rows)
    assert same(data["train"], other["train"]) and not same(data["test"], other["test"])
    rows["xs"][..., 0] = 0.1  # constant
    constant = packed(here, {"answer": "number"}, split=split, **rows)[1]["train"]["xs"][..., 0]
    np.testing.assert_allclose(constant, 0, atol=1e-6)


def test_gaps_become_an_indicator_or_the_step_is_as_if_it_were_not_there(here):
    rows = padded_rows() | {"ys": np.arange(240.0).reshape(40, 6), "split": np.repeat(PARTS, [20, 10, 10])}
    rows["xs"][2, 0, 1] = np.nan  # row 2 trains
    rows["lengths"][2] = 3
    options = {"answer": "number_per_step"}
    _, shown = packed(here, options | {"gaps": "indicator"}, **rows)
    x = shown["train"]["xs"]
    assert x.shape[-1] == 4 and x[..., 2:].sum() == x[2, 0, 3] == 1 and x[2, 0, 1] == 0 != x[2, 0, 0]
    task, skipped = packed(here, options | {"gaps": "skip"}, **rows)
    assert (~skipped["train"]["mask"]).sum(1)[2] == 4 and not skipped["train"]["mask"][
        2, 0
    ]  # 3 after the end
    batch = task._batch(skipped["train"], np.arange(3), np.ones(3))
    assert batch.weights[2].tolist() == batch.scored[2].tolist() == [0, 1, 1, 0, 0, 0]
    task, ahead = packed(here, {"answer": "forecast", "gaps": "skip"}, **rows)
    batch = task._batch(ahead["train"], np.arange(3), np.ones(3))
    assert batch.scored[2].tolist() == [0, 1, 0, 0, 0]  # its first target is there, but is not asked for


def test_time_stamps_are_a_feature(here):
    rows = padded_rows()
    times = np.cumsum(np.random.default_rng(0).random((40, 6)), 1)
    options = {"standardize": False}
    _, value = packed(here, options | {"times": "value"}, times=times, **rows)
    _, step = packed(here, options | {"times": "difference"}, times=times, **rows)
    real = np.arange(6) < value["train"]["lengths"][:, None]
    want = np.diff(value["train"]["xs"][..., 2], prepend=value["train"]["xs"][:, :1, 2]) * real
    np.testing.assert_allclose(step["train"]["xs"][..., 2] * real, want, atol=1e-6)
    assert step["train"]["xs"][:, 0, 2].max() == 0


# --- targets


@pytest.mark.parametrize("horizon", [1, 2])
def test_a_forecast_asks_for_the_inputs_that_come(here, horizon):
    rows = padded_rows()
    task, data = packed(
        here, {"answer": "forecast", "horizon": horizon}, xs=rows["xs"], lengths=rows["lengths"]
    )
    for part in PARTS:
        for x, y, length in zip(*(data[part][key] for key in ("xs", "ys", "lengths")), strict=True):
            assert np.array_equal(y[: max(0, length - horizon)], x[horizon:length])
            assert length >= 1 and not x[length:].any()
    spec = task.spec(data)
    assert spec.looks_ahead and spec.per_step and spec.output_size == 2
    backwards = configs.freeze(configs.make("rnn", "arrays", model={"bidirectional": True}))
    with pytest.raises(ValueError, match="bidirectional would read the targets"):
        check(backwards, spec)
    check(backwards, dataclasses.replace(spec, looks_ahead=False))


def test_tokens_are_forecast_as_classes(here):
    xs = np.random.default_rng(0).integers(0, 7, (30, 5))
    xs[0, 0] = 6
    task, data = packed(here, {"answer": "forecast", "metric": "perplexity"}, xs=xs)
    spec = task.spec(data)
    assert (spec.inputs, spec.input_size, spec.output_size, spec.loss) == ("tokens", 7, 7, "cross_entropy")
    assert np.array_equal(data["test"]["xs"][:, 1:], data["test"]["ys"][:, :-1])
    assert 5 < spec.baseline < 9 and spec.threshold == pytest.approx((spec.baseline + 1) / 2)


@pytest.mark.slow
def test_what_has_no_weight_changes_no_loss(here):
    ys = np.random.default_rng(1).integers(0, 3, (40, 6)).astype(float)
    ys[:, 0], ys[:, 1] = 9, np.nan
    weights = np.ones((40, 6))
    weights[:, 2] = 0
    rows = padded_rows() | {"ys": ys, "weights": weights}
    options = {"answer": "class_per_step", "ignore_label": 9, "class_weights": "1,2,0.5"}
    task, data = packed(here, options, **rows)
    spec, batch = task.spec(data), task.eval_batch(data, "test", 0, 6)
    real = np.arange(6) < batch.lengths[:, None]
    assert not batch.weights[:, :3].any() and np.array_equal(batch.scored[:, 3:], real[:, 3:])
    want = np.where(real, np.array([1, 2, 0.5])[batch.ys], 0)[:, 3:]
    np.testing.assert_allclose(batch.weights[:, 3:], want)
    outputs = jax.random.normal(jax.random.key(0), (6, 6, 3))
    other = batch._replace(ys=batch.ys.at[:, :3].set(77))
    assert metrics.loss(spec, outputs, batch) == metrics.loss(spec, outputs, other)
    counts = data["read"]["classes"]
    _, balanced = packed(here, options | {"class_weights": "balanced"}, **rows)
    each = [balanced["train"]["weights"][(balanced["train"]["ys"] == c)].max() for c in range(3)]
    np.testing.assert_allclose(each * counts, counts.sum() / 3, rtol=1e-5)


@pytest.mark.parametrize(
    "options, ys, want",
    [
        ({}, [1.0, 1.0, 1.0, 3.0], (1, "mse", 2.0)),  # the mean of training is 1, with deviation 0
        ({"metric": "mae", "loss": "huber"}, [1.0, 1.0, 1.0, 3.0], (1, "mae", 1.0)),
        ({"loss": "gaussian_nll"}, [1.0, 1.0, 1.0, 3.0], (2, "mse", 2.0)),
        ({"loss": "binary_cross_entropy"}, [0.0, 1.0, 0.0, 1.0], (1, "frame_nll", np.log(2))),
    ],
)  # fmt: skip
def test_the_baseline_is_the_best_answer_of_training_on_the_validation_split(here, options, ys, want):
    ys, split = (
        np.array(ys)[[0, 1, 2, 3, 0, 1]],
        np.array(["train", "train", "valid", "valid", "test", "test"]),
    )
    arrays = {"xs": np.ones((6, 2, 1)), "ys": ys, "split": split}
    task, data = packed(here, {"answer": "number"} | options, **arrays)
    spec = task.spec(data)
    assert (spec.output_size, spec.metric) == want[:2]
    assert spec.baseline == pytest.approx(want[2]) and spec.threshold == pytest.approx(want[2] / 2)
    assert packed(here, {"answer": "number", "threshold": 0.3}, **arrays)[0].spec(data).threshold == 0.3


# --- refusals

GOOD = lines()
TABLES = [
    ("", {}, "a.csv is empty"),
    (HEADER, {}, "a.csv: a line of column names, and nothing below it"),
    ((HEADER + GOOD).replace(",", ";"), {}, "a.csv: columns are separated by semicolons"),
    (HEADER.replace("target", "taget") + GOOD, {}, "which task.target names; did you mean 'taget'?"),
    (HEADER + GOOD, {"sequence": "id"}, "a.csv: no column 'id', which task.sequence names"),
    (HEADER + GOOD, {"features": "x,z"}, "a.csv: no column 'z', which task.features names"),
    (HEADER.replace("y", "x") + GOOD, {}, "a.csv: two columns are called 'x'"),
    (HEADER + GOOD + "3,2,9,9,b\n", {}, "line 82: step 2 of sequence 3 a second time (first in line 16)"),
    (HEADER + GOOD.replace("3,2,5,6", "3,2,five,6"), {}, "a.csv, line 16: column 'x' holds 'five'"),
    (HEADER + GOOD.replace("3,2,5,6", "3,2,,6"), {}, "a.csv, sequence 3, step 2: 'x' is nan; task.gaps="),
    (HEADER + GOOD.replace("3,2,5,6", "3,2,5,6,7"), {}, "a.csv, line 16: 6 fields, in the first line 5"),
    (HEADER + GOOD.replace("\n", ",1\n"), {}, "a.csv, line 2: 6 fields, in the first line 5"),
    (HEADER + GOOD.replace("3,2,5,6,b", "3,2,5,6,a"), {}, "sequence 3: column 'target' is 'b' and 'a'"),
    (HEADER + lines(target=lambda i, t: i % 2 if i else ""), {}, "a.csv, sequence 0: its target is missing"),
    (HEADER + GOOD + ",1,2,3,a\n", {}, "a.csv, line 82: column 'sequence' is empty"),
    (HEADER + GOOD.replace("3,2,5", "3,two,5"), {}, "a.csv, line 16: column 'step' holds 'two'"),
    (HEADER + lines(target=lambda i, t: "a"), {}, "a.csv: two classes or more are needed to train, got a"),
    (HEADER + lines(target=lambda i, t: i % 2 / 2), {}, "sequence 1: 0.5 is no class; is it answer=number?"),
    (HEADER + GOOD, {"answer": "number"}, "a.csv, line 2: column 'target' holds 'a', which is no number"),
    (HEADER + lines(n=1), {}, "a.csv has one sequence, which cannot be split"),
    (HEADER + lines(n=3), {}, "a.csv has 3 examples, too few to hold out 1 for test and 1 for valid"),
    (HEADER + lines(time=1), {"answer": "forecast", "features": "x"}, "a.csv: nothing is left for train"),
    (HEADER + GOOD, {"class_weights": "1,2,3"}, "class_weights has 3 numbers, and there are 2 classes"),
    (HEADER + GOOD, {"ignore_label": 4}, "ignore_label: no label of a.csv is 4"),
    (HEADER + GOOD, {"step": "", "times": "value"}, "times=value has no effect: a.csv has no time stamps"),
    (HEADER.replace("x", "split") + lines(time=1), {}, "unknown split '0'; choices: train, valid, test"),
]  # fmt: skip


@pytest.mark.parametrize("text, options, told", TABLES)
def test_a_bad_table_is_refused_with_one_line_that_names_the_place(here, text, options, told):
    with pytest.raises(DataError) as error:
        table(here, text, **options)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", [HEADER + GOOD, "\ufeff" + HEADER + "\n" + GOOD + "\n\n"])
def test_a_byte_order_mark_and_blank_lines_are_passed_over(here, text):
    task, data = table(here, text)
    line = "arrays: a.csv: 20 sequences of 4 steps, 2 features, 2 classes; split 14/3/3 (seed 0)"
    assert task.describe(data) == line


def test_labels_may_be_floats_dates_steps_and_targets_stand_once(here):
    plain = table(here, HEADER + lines(target=lambda i, t: i % 2))[1]
    assert same(plain, table(here, HEADER + lines(target=lambda i, t: f"{i % 2}.0"))[1])
    assert same(plain, table(here, HEADER + lines(target=lambda i, t: i % 2 if t == 3 else ""))[1])
    dated = lines(target=lambda i, t: i % 2).splitlines(True)
    dated = [f"{i},2024-01-0{int(t) + 1},{rest}" for i, t, rest in (line.split(",", 2) for line in dated)]
    assert same(plain, table(here, HEADER + "".join(dated))[1])
    quoted = table(here, HEADER + lines(target=lambda i, t: '"no, never"' if i % 2 else "a"))[1]
    assert same(plain, quoted | {"read": plain["read"]})


XS, YS = np.random.default_rng(0).random((20, 5, 2)), np.arange(20) % 2
ARRAYS = [
    ({"xs": XS, "ys": YS, "lenghts": YS}, {}, "a.npz: unknown array 'lenghts'; did you mean 'lengths'?"),
    ({"xs": np.array([np.ones(2), np.ones(3)], object), "ys": YS[:2]}, {}, "a.npz, xs holds Python objects"),
    ({"xs": XS[0, :, 0], "ys": YS}, {}, "xs must be (rows, time) or (rows, time, features), got (5,)"),
    ({"xs": XS, "ys": YS[:9]}, {}, "a.npz: 20 rows in xs, and ys has shape (9,)"),
    ({"xs": XS}, {}, "a.npz: no targets (ys) in it, and answer=class"),
    ({"xs": XS, "ys": YS}, {"answer": "class_per_step"}, "ys must be (20, 5) or (20, 5, k), got (20,)"),
    ({"xs": XS, "ys": YS, "lengths": YS + 5}, {}, "a.npz, row 1: the length 6 is not in 0..5"),
    ({"xs": XS, "ys": YS, "train_xs": XS}, {}, "xs and train_xs: one is of all rows, the other of a split"),
    ({"xs": XS, "ys": YS, "weights": YS - 1.0}, {}, "a.npz, row 0: the weight is -1.0, and not in 0..1e+30"),
    ({"xs": XS, "ys": YS}, {"target": "y"}, "arrays: target=y has no effect: a.npz is no .csv"),
    ({"xs": YS[:, None] - 1, "ys": YS}, {}, "a.npz, row 0, step 0: -1 is no token"),
    ({"xs": YS[:, None], "ys": YS}, {"gaps": "skip"}, "gaps=skip has no effect: the inputs are tokens"),
    ({"xs": XS, "ys": YS * 3}, {"answer": "number", "loss": "binary_cross_entropy"}, "[3.] is not in 0..1"),
    ({"xs": XS, "ys": YS, "split": np.array(PARTS)[YS]}, {}, "two classes or more are needed"),
    (
        {"xs": XS, "ys": np.r_[YS[:19], 2], "split": np.array(PARTS)[np.r_[YS[:19] * 0, 2]]},
        {},
        "a.npz, row 19 is held out, and its class 2 is not among those that train: 0, 1",
    ),
    ({"xs": XS, "ys": YS, "split": np.array(PARTS)[np.arange(20) % 3]}, {"test_fraction": 0.1}, "no effect"),
]  # fmt: skip


@pytest.mark.parametrize("arrays, options, told", ARRAYS)
def test_bad_arrays_are_refused_with_one_line_that_names_the_place(here, arrays, options, told):
    with pytest.raises(DataError) as error:
        packed(here, options, **arrays)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, path, told",
    [
        ("arrays", "", "path is empty: name a .npz, a .csv or a folder"),
        ("arrays", "a.cvs", "no such file or folder: a.cvs; did you mean 'a.csv'?"),
        ("arrays", "no/a.csv", "no such file or folder: no/a.csv (from "),
        ("arrays", "broken.npz", "broken.npz is no .npz of arrays"),
        ("arrays", "texts", "texts/neg: no .npy file in this folder of a class"),
        ("documents", "a.csv", "a.csv is no folder"),
        ("documents", "texts", "texts/neg: no .txt file in this folder of a class"),
        ("documents", "latin", "is not UTF-8: invalid continuation byte at byte 3; level=bytes?"),
    ],
)
def test_a_wrong_path_gets_one_line(here, name, path, told):
    (here / "a.csv").write_text(HEADER + GOOD)
    (here / "broken.npz").write_bytes(b"PK\x03\x04")
    (here / "texts" / "neg").mkdir(parents=True)
    for i in range(24):
        place = here / "latin" / "ab"[i % 2] / f"{i}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes("caf\xe9 noir".encode("latin-1"))
    with pytest.raises(DataError) as error:
        loaded(name, path=path)
    assert told in str(error.value) and "\n" not in str(error.value)
