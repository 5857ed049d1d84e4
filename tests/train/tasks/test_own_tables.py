"""People's own tables: names are kept apart, steps in their exact order, nothing is dropped in silence."""

import numpy as np
import pytest

from batches import same
from train import tasks
from train.tasks import DataError

HEADER = "sequence,step,x,target"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(header=HEADER, sequence=str, step=str, x=lambda i, t: i + t, target=lambda i, t: i % 2, **options):
    """The task of a table of 20 sequences of 4 steps, and its data."""
    rows = [f"{sequence(i)},{step(t)},{x(i, t)},{target(i, t)}" for i in range(20) for t in range(4)]
    return read("\n".join([header, *rows]) + "\n", **options)


def read(text, path="a.csv", **options):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    task = tasks.get("arrays", path=path, **options)
    data = task.load()
    task.check(data)
    return task, data


def count(data, key="ys"):
    return sum(len(data[part][key]) for part in ("train", "valid", "test"))


@pytest.mark.parametrize("missing", ["", "NA", "nan", "NULL", "None", " NA"])
@pytest.mark.parametrize("names", ["01", "ab"])
def test_a_class_that_is_missing_is_none(missing, names):
    def target(i, t):
        return names[i % 2] if t == 3 else missing

    task, data = table(target=target, answer="class_per_step")
    assert len(data["read"]["classes"]) == 2 and "60 of 80 steps do not count" in task.describe(data)
    want = table(target=lambda i, t: names[i % 2])[1]
    assert same(want, table(target=target)[1])


def test_names_that_look_like_numbers_are_kept_apart():
    data = table(sequence=lambda i: {1: "01", 3: "1.0x", 4: "1"}.get(i, i))[1]
    assert count(data) == 20
    task, data = table(target=lambda i, t: ("1", "01", "2")[i % 3])
    assert len(data["read"]["classes"]) == 3
    plain = table()[1]
    assert same(plain, table(target=lambda i, t: f"{i % 2}.0" if i < 9 else i % 2)[1])
    assert same(plain, table(sequence=lambda i: f" {i}.0" if i % 2 else i)[1])


@pytest.mark.parametrize(
    "step",
    [
        lambda t: 10**22 + t,
        lambda t: 1_700_000_000_000_000_000 + 100 * t,
        lambda t: f"2024-01-31T00:00:00.00000000{t}",
        lambda t: -1.5e9 + t,
    ],
)
def test_steps_are_in_their_exact_order(step):
    options = {"standardize": False, "x": lambda i, t: t}
    data = table(step=lambda t: step(3 - t), **options)[1]
    assert data["train"]["xs"][0, :, 0].tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("first", [1_700_000_000_000_000_000, 10**22])
def test_differences_of_integer_steps_are_exact(first):
    data = table(step=lambda t: first + (0, 100, 300, 700)[t], times="difference", standardize=False)[1]
    assert data["train"]["xs"][0, :, 1].tolist() == [0, 100, 200, 400]


def test_lines_without_a_value_are_lines_and_blank_ones_are_not():
    lines = [f"{i},{i * i % 7}" for i in range(60)]
    lines[7] = "NA,NA"
    text = "x,y\n" + "\n".join(lines[:20]) + "\n\n  \n" + "\n".join(lines[20:]) + "\n\n"
    options = {"sequence": "", "step": "", "answer": "forecast", "split_by": "time"}
    with pytest.raises(DataError, match=r"^a.csv, step 7: 'x' is nan; task.gaps=indicator"):
        read(text, **options)
    task, data = read(text, gaps="indicator", **options)
    assert "1 sequence of 60 steps" in task.describe(data)


def test_targets_are_one_each_column_by_column():
    def text(a, b):
        rows = [f"{i},{t},{i + t},{a(i, t)},{b(i, t)}" for i in range(20) for t in range(4)]
        return "\n".join(["sequence,step,x,a,b", *rows])

    options = {"answer": "number", "target": "a,b"}
    whole = read(text(lambda i, t: i, lambda i, t: i * i % 7), **options)[1]
    halves = text(lambda i, t: i if t == 0 else "", lambda i, t: i * i % 7 if t == 1 else "NA")
    assert same(whole, read(halves, **options)[1])
    with pytest.raises(DataError, match="sequence 0: column 'a' is 1.0 and 9.0; one value is asked for"):
        read(text(lambda i, t: 1 if t == 0 else 9, lambda i, t: i if t == 0 else ""), **options)


def test_the_index_that_pandas_writes_is_passed_over():
    rows = [f"{i // 4},{i % 4},{i},{i // 4 % 2}" for i in range(80)]
    want = read("\n".join([HEADER, *rows]), path="A.CSV")[1]
    index = [f"{i},{row}" for i, row in enumerate(rows)]
    assert same(want, read("\n".join(["," + HEADER, *index]))[1])
    with pytest.raises(DataError, match="the first column has no name, and is not the count of pandas"):
        read("\n".join(["," + HEADER, *index[1:]]))


REFUSED = [
    ({"header": HEADER + ","}, "a.csv: column 5 has no name: is there a comma too many"),
    ({"header": "\n" + HEADER}, "a.csv: its first line is blank"),
    ({"header": HEADER + ",y"}, "a.csv, line 2: 4 fields, in the first line 5"),
    ({"header": "sequence,step,x,x"}, "two columns are called 'x'"),
    ({"target": lambda i, t: f"{i % 2},"}, "a.csv, line 2: 5 fields, in the first line 4"),
    ({"step": lambda t: 2024 if t == 0 else f"2024-02-0{t}"}, "column 'step' holds '2024-02-01'"),
    ({"step": lambda t: (0, 1, "inf", 3)[t]}, "line 4: column 'step' holds 'inf', neither a number"),
    ({"features": "x,x"}, "features must be each column once"),
    ({"target": lambda i, t: i, "features": "x,target"}, "features must be other columns than the target"),
    ({"features": "x,sequence"}, "features must be other columns than that of the sequence"),
]  # fmt: skip


@pytest.mark.parametrize("options, told", REFUSED)
def test_a_table_that_cannot_be_right_gets_one_line(options, told):
    with pytest.raises((ValueError, DataError)) as error:
        table(**options)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_files_of_tokens_and_of_features_are_not_mixed(here):
    (here / "a" / "xs").mkdir(parents=True)
    (here / "a" / "ys").mkdir()
    for i in range(20):
        np.save(here / "a" / "xs" / f"{i:02}.npy", np.arange(5) if i != 7 else np.arange(5.0))
        np.save(here / "a" / "ys" / f"{i:02}.npy", i % 2)
    with pytest.raises(DataError, match=r"^a: xs is int64 in 00.npy, and float64 in 07.npy: tokens are"):
        tasks.get("arrays", path="a").load()
    (here / "a" / "xs" / "07.npy").write_bytes(b"no array at all")
    with pytest.raises(DataError, match=r"^a/xs/07.npy cannot be read: it is no .npy"):
        tasks.get("arrays", path="a").load()
