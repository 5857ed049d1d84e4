"""A trained run is read without being changed, and answers as it did when it was trained."""

import functools
import hashlib
import shutil

import jax
import numpy as np
import pytest

import train
from commands import SHARED
from tiny_runs import Killed, config, kill_after, lines
from train import exchange
from train.loop import train as run_training
from train.step import Best

TABLE = "sequence,step,speed,load,target\n" + "".join(
    f"{i},{t},{100 + 7 * i + t},{i % 3 + t},{'good' if i % 2 else 'bad'}\n"
    for i in range(40)
    for t in range(5)
)
OWN = {"name": "arrays", "path": "machines.csv"}
SHORT = {"steps": 30, "seeds": 2, "batch_size": 8, "eval_every": 10}


def bytes_of(folder):
    return {
        str(path): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A run with two seeds and two learning rates, and what it ended with."""
    folder = tmp_path_factory.mktemp("runs") / "delayed_recall" / "gru"
    asked = config("gru", optim={"learning_rates": (0.02, 0.002)})
    return folder, run_training(asked, folder)


@pytest.fixture(scope="module")
def trained(grid):
    return train.load(grid[0])


@pytest.fixture
def of_table(tmp_path, monkeypatch):
    """Trains on machines.csv, which is gone when the run is loaded."""
    monkeypatch.chdir(tmp_path)

    def of_table(text, **task):
        path = tmp_path / "machines.csv"
        path.write_text(text)
        asked = config("gru", "arrays", task=OWN | task, train=SHORT, cell={"hidden_size": 8})
        data = asked.task.load()
        result = run_training(asked, tmp_path / "run")
        path.unlink()
        return train.load(tmp_path / "run"), asked.task.eval_batch(data, "test", 0, 8), data, result

    return of_table


def batch_of(run, split="test", rows=16):
    task = run.config.task
    return task.eval_batch(task.load(), split, 0, rows)


@pytest.mark.slow
def test_the_folder_stays_byte_for_byte_what_it_was(grid):
    folder, _ = grid
    before = bytes_of(folder)
    run = train.load(folder)
    batch = batch_of(run, rows=2)
    run.predict(batch.xs)
    run.trace(batch.xs)
    run.plot_gates(batch.xs, row=1)
    run.curves(), run.params(), repr(run)
    assert bytes_of(folder) == before


def test_parameters_are_those_of_the_seed_rate_and_time_that_are_asked_for(grid, trained):
    _, result = grid
    lanes = trained.config.lanes
    assert len(lanes) == 4 and trained.steps == 40
    for lane, (seed, rate) in enumerate(lanes):
        own = jax.tree.map(lambda x, lane=lane: x[lane], result.state.params)
        assert jax.tree.all(jax.tree.map(np.array_equal, own, trained.params(seed, rate, at="last")))
    every = trained.params("all", 0.02, at="last")
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a[:2], b), result.state.params, every))
    best = max(result.summary.seeds, key=lambda row: row.best_valid_metric)
    assert trained.lane() == (best.seed, best.learning_rate)
    assert trained.lane(learning_rate=0.002)[1] == 0.002
    assert isinstance(trained._lanes.best, Best)


def test_predictions_have_the_tested_metric_at_the_best_and_at_the_last_step(grid, trained):
    batch = batch_of(trained, rows=64)
    for row in grid[1].summary.seeds:
        for at, want in (("best", row.best_test_metric), ("last", row.test_metric)):
            found = trained.predict(batch.xs, seed=row.seed, learning_rate=row.learning_rate, at=at)
            assert found.outputs.dtype == np.float32 and found.probabilities.shape == (64, 4)
            assert (found.classes == batch.ys).mean() == pytest.approx(want)
    every = trained.predict(batch.xs, seed="all", learning_rate=0.02)
    one = trained.predict(batch.xs, seed=1, learning_rate=0.02)
    np.testing.assert_allclose(every.outputs[1], one.outputs, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(one), one.outputs)


@pytest.mark.slow
def test_many_rows_go_in_pieces_of_one_shape(trained):
    size = trained.config.train.eval_batch_size
    xs = np.resize(np.asarray(batch_of(trained).xs), (size + 3, 5))
    lengths = np.arange(len(xs)) % 5 + 1
    whole = trained.predict(xs, lengths).outputs
    assert len(whole) == size + 3
    np.testing.assert_allclose(whole[-3:], trained.predict(xs[-3:], lengths[-3:]).outputs, atol=1e-6)


@pytest.mark.parametrize("seed", [None, "all"])
def test_in_pieces_and_step_by_step_the_answers_are_those_of_one_pass(trained, seed):
    xs = np.asarray(batch_of(trained).xs)
    want, carry, state = trained.predict(xs, seed=seed, learning_rate=0.02).outputs, None, None
    for first, last in ((0, 1), (1, 4), (4, 5)):
        found, carry = trained.predict(
            xs[:, first:last], carry=carry, return_carry=True, seed=seed, learning_rate=0.02
        )
    np.testing.assert_allclose(found.outputs, want, atol=1e-6)
    if seed is None:
        state = trained.initial_carry(len(xs))
        for step in range(5):
            state, outputs = trained.step(state, xs[:, step], learning_rate=0.02)
        np.testing.assert_allclose(outputs, want, atol=1e-6)


def test_curves_are_a_table_of_the_evaluations(trained):
    curves = trained.curves()
    assert len(curves) == len(lines(trained.folder)) > 8 and curves["step"].max() == 40
    row = trained.summary.seeds[1]
    own = curves[(curves["seed"] == row.seed) & (curves["learning_rate"] == row.learning_rate)]
    assert own["valid_metric"].iloc[-1] == row.valid_metric


def test_your_own_table_is_read_in_its_units_and_classes_have_names(of_table):
    run, batch, _, result = of_table(TABLE)
    assert run.meaning.features == ("speed", "load")
    rows = [line.split(",") for line in TABLE.splitlines()[1:]]
    raw = np.array([[float(speed), float(load)] for _, _, speed, load, _ in rows]).reshape(40, 5, 2)
    found = run.predict(raw)
    assert set(found.labels) <= {"good", "bad"} and found.names == ("bad", "good")
    scaled, _ = run.inputs(raw)
    tested = np.asarray(batch.xs)[np.asarray(batch.scored) > 0]
    in_test = [row for row in range(40) for x in tested if np.array_equal(scaled[row], x)]
    want = np.array([line[4] for line in rows]).reshape(40, 5)[in_test, 0]
    row = next(row for row in result.summary.seeds if (row.seed, row.learning_rate) == run.lane())
    assert np.mean(found.labels[in_test] == want) == pytest.approx(row.best_test_metric)
    carry = run.initial_carry(40)
    for step in range(5):
        carry, outputs = run.step(carry, raw[:, step])
    np.testing.assert_allclose(outputs, found.outputs, atol=1e-5)
    raw[2, 1, 0] = np.nan
    with pytest.raises(ValueError, match="'speed' of row 2, step 1 is nan"):
        run.predict(raw)
    assert run.predict(raw, lengths=[1] * 40).classes.shape == (40,)  # it may stand in padding
    with pytest.raises(ValueError, match="row 0, step 0 is no finite number that float32 has"):
        run.predict(np.full((1, 2, 2), 1e300))


@pytest.mark.slow
def test_numbers_are_answered_in_the_units_of_the_targets(of_table):
    text = TABLE.replace("good", "1070.5").replace("bad", "1030.5")
    run, batch, data, _ = of_table(text, answer="number", gaps="indicator", loss="gaussian_nll")
    assert run.meaning.targets == () and data["meaning"] == run.meaning
    raw = np.full((1, 5, 2), [110.0, 1.0])
    found = run.predict(raw)
    assert 1000 < found.outputs.item() < 1100 and found.deviations.item() > 1
    assert found.outputs.shape == found.deviations.shape == (1, 1) and found.classes is None
    carry = run.initial_carry(1)
    for step in range(5):
        carry, outputs = run.step(carry, raw[:, step])
    np.testing.assert_allclose(outputs[:, :1], found.outputs, rtol=1e-5)
    by_loss = run.trace(raw, ys=[[1050.0]]).gradients, run.trace(raw, ys=[[1060.0]]).gradients
    assert np.isfinite(by_loss[0]).all() and not np.allclose(*by_loss)
    raw[0, 2] = np.nan
    xs, mask = run.inputs(raw)
    assert mask is None and xs.shape == (1, 5, 4) and (xs[0, 2] == [0, 0, 1, 1]).all()
    model = run.model.apply(run.params(), np.asarray(batch.xs))
    assert np.abs(np.asarray(model)[:, 0]).max() < 5  # of deviations


def test_a_damaged_checkpoint_is_passed_over_and_stays(grid, tmp_path):
    folder = shutil.copytree(grid[0], tmp_path / "run")
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(b"x" + path.read_bytes()[1:])
    before = bytes_of(folder)
    with pytest.warns(UserWarning, match="the checkpoint of step 40 is damaged"):
        assert train.load(folder).steps == 30
    assert bytes_of(folder) == before


def test_a_run_that_was_killed_can_be_read(tmp_path):
    with pytest.raises(Killed):
        run_training(config("sru"), tmp_path / "run", watch=kill_after(30))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"seed": 0, "st')  # torn
    run = train.load(tmp_path / "run")
    assert run.summary is None and run.steps >= 10 and len(run.curves()) > 2
    assert run.predict(batch_of(run).xs).classes.shape == (16,)


def test_older_runs_without_model_json_read_their_data(grid, tmp_path):
    folder = shutil.copytree(grid[0], tmp_path / "run")
    (folder / "model.json").unlink()
    run = train.load(folder)
    assert run.spec == train.load(grid[0]).spec


def test_a_row_that_has_ended_keeps_its_answer_while_others_go_on(trained):
    xs, lengths = np.asarray(batch_of(trained, rows=2).xs), np.array([2, 5])
    want, carry = trained.predict(xs, lengths).outputs, None
    for first, last in ((0, 3), (3, 5)):
        left = np.clip(lengths - first, 0, last - first)
        found, carry = trained.predict(xs[:, first:last], left, carry=carry, return_carry=True)
    np.testing.assert_allclose(found.outputs, want, atol=1e-6)


def test_what_cannot_be_read_or_answered_is_one_line(grid, trained, tmp_path):
    folder = shutil.copytree(grid[0], tmp_path / "run")
    xs = np.asarray(batch_of(trained).xs)

    def refused(act, *parts):
        with pytest.raises(ValueError) as error:
            act()
        assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)

    refused(lambda: train.load(tmp_path / "none"), "does not exist")
    refused(lambda: train.load(grid[0].parents[1]), "holds several runs; load one", str(grid[0]))
    refused(lambda: trained.params(7), "no seed 7; there are 0 to 1")
    refused(lambda: trained.params(learning_rate=0.5), "no learning_rate 0.5; there are [0.002, 0.02]")
    refused(lambda: trained.params(at="first"), "at must be 'best' or 'last'")
    refused(lambda: trained.predict(xs[:, :0]), "a step or more")
    refused(lambda: trained.predict(xs.astype(float)), "xs must be integers (batch, time)")
    refused(lambda: trained.predict(xs - 50), "token", "is not in 0..6")
    refused(lambda: trained.predict(xs, lengths=[9] * 16), "lengths must be in 0..5")
    refused(lambda: trained.predict(xs, lengths=[2]), "lengths must be integers of shape (16,)")
    refused(lambda: trained.predict(xs, carry={}), "carry must be that of 16 row(s)")
    refused(lambda: trained.predict(xs, carry="x"), "carry must be that of 16 row(s)")
    refused(lambda: trained.predict(xs, mask=xs / 2), "mask must be True and False")
    refused(lambda: trained.predict(xs, lengths=["a"] * 16), "lengths must be numbers")
    refused(lambda: trained.predict([[1, 2], [3]]), "xs is no array")
    refused(lambda: trained.predict(np.ma.masked_less(xs, 2)), "masked array: fill it")
    refused(lambda: trained.predict(xs, learning_rate="0.02"), "must be numbers, got")
    refused(lambda: trained.trace(xs, seed="all"), "seed='all': this is of one seed")
    refused(lambda: trained.trace(xs, ys=[9] * 16), "ys must be in 0..3, got 9 to 9")
    refused(lambda: trained.trace(xs, ys=[0.5] * 16), "ys must be classes, by number,")
    start = trained.initial_carry(16)
    refused(lambda: trained.step(start, xs), "x must be one step, (batch,), got (16, 5)")
    refused(lambda: trained.step(start, xs[:, 0] - 9), "token", "is not in 0..6")
    refused(lambda: trained.step(start, xs[:3, 0]), "carry must be that of 3 row(s)")
    refused(lambda: train.load(3), "a run's folder is a path, got 3")
    refused(lambda: trained.encode("abc"), "encode takes a list of texts")
    refused(lambda: trained.plot_gates(xs, row=16), "row=16: xs has (16, 5)")
    refused(lambda: trained.plot_gates(xs, layer=1), "layer=1")
    refused(lambda: trained.encode(["a"]), "reads no text")
    metrics = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(metrics.replace('"step": 10', '"step": 11', 1))
    refused(lambda: train.load(folder).curves(), "is not what the run wrote")
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace('"time": 5', '"time": 6'))
    refused(lambda: train.load(folder), "model.json is damaged")
    shutil.rmtree(folder / "checkpoints")
    (folder / "model.json").write_text(text)
    refused(lambda: train.load(folder), "has no checkpoint yet")


def test_weights_go_to_other_libraries(trained):
    config = trained.config
    weights = trained.to_keras(seed=1, at="last")
    again = exchange.from_keras(config.cell, config.model, weights)
    jax.tree.map(np.testing.assert_array_equal, again, trained.params(seed=1, at="last"))
    for convert in (trained.to_torch, trained.to_flax_nnx, trained.to_flax_linen):
        with pytest.raises(ValueError, match="layer 0: GRU in .* set reset_after=True"):
            convert()
    with pytest.raises(ValueError, match="weights are of one seed"):
        trained.to_keras(seed="all")


@pytest.mark.slow
def test_it_is_exported_to_one_file(grid, trained, tmp_path):
    xs = np.int32([[1, 0, 2, 3], [3, 2, 1, 0]])
    program = jax.export.deserialize(trained.export(seed=1, lengths=True).serialize())
    want = trained.predict(xs, np.int32([4, 2]), seed=1)
    np.testing.assert_allclose(program.call(xs, np.int32([4, 2])), want.outputs, rtol=1e-5, atol=1e-5)

    before = bytes_of(grid[0])
    run = functools.partial(
        SHARED.run, "experiments.export", f"--run={grid[0]}", "--out=model.bin", cwd=tmp_path
    )
    done = run()
    assert done.returncode == 0, done.stderr
    assert "xs: int32 (batch, time), tokens 0 to" in done.stdout and "call(xs)" in done.stdout
    blob = (tmp_path / "model.bin").read_bytes()
    np.testing.assert_allclose(
        jax.export.deserialize(blob).call(xs), trained.predict(xs).outputs, rtol=1e-5, atol=1e-5
    )
    assert run().returncode == 0  # its own
    (tmp_path / "model.bin").write_bytes(b"another's")
    refused = run()
    assert refused.returncode == 2 and "was not written by this command" in refused.stderr
    assert (tmp_path / "model.bin").read_bytes() == b"another's" and len(list(tmp_path.iterdir())) == 1
    assert run("--overwrite").returncode == 0 and (tmp_path / "model.bin").read_bytes() == blob
    assert bytes_of(grid[0]) == before
