"""The benchmark measures what it says; how fast anything is, no test asks."""

import contextlib
import io
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import cells
from cells.scans import chosen
from experiments.lab import runs, timing
from experiments.lab.store import Lab
from experiments.speed import (
    accelerator,
    bench,
    card_report,
    choose,
    dispatch,
    layers,
    report,
    rivals,
    training,
)
from train.model import count

SIZE = (4, 6, 3)


def test_cases_are_timed_in_turn_and_one_that_fails_costs_only_itself():
    order = []

    def case(name, units=1):
        return timing.Case({"cell": name}, lambda: lambda: order.append(name), units)

    def broken():
        raise RuntimeError("no such thing\nmore")

    rows = timing.interleaved([case("a"), timing.Case({"cell": "x"}, broken), case("b", 2)], repeats=3)
    assert order[:4] == ["a", "a", "b", "b"]  # first run, warm-up
    assert order[4:] == ["a", "b"] * 3
    assert [row["cell"] for row in rows] == ["a", "x", "b"]
    assert rows[1]["error"] == "RuntimeError: no such thing" and "ms" not in rows[1]
    assert rows[0]["ms"] > 0 and rows[0]["ms_q25"] <= rows[0]["ms"] <= rows[0]["ms_q75"]


def test_the_fastest_of_several_settings_counts():
    import time

    counts = [0, 0]

    def run(i, seconds):
        counts[i] += 1
        time.sleep(seconds)

    slow_and_fast = [lambda: run(0, 0.05), lambda: run(1, 0.0)]
    timing.interleaved([timing.Case({}, lambda: slow_and_fast)], repeats=5)
    assert counts == [3, 3 + 2 + 5]


def test_flops_are_those_of_the_matmuls():
    batch, time, D = 4, 6, 8
    for name, matrices in {"rnn": 2, "lstm": 8, "gru": 6, "sru": 3}.items():
        cell = cells.get(name, hidden_size=D)
        assert layers.gflop(cell, batch, time, "forward") == pytest.approx(
            2e-9 * batch * time * matrices * D * D
        )
        assert layers.gflop(cell, batch, time, "gradient") == 3 * layers.gflop(cell, batch, time, "forward")


def test_a_layer_shared_by_devices_is_the_layer_on_one():
    if len(jax.devices()) < 2:
        pytest.skip("one device")
    cell = cells.get("gru", hidden_size=3)
    xs, d_ys = layers._inputs(SIZE)
    params = cell.init(jax.random.key(0), 3)
    got, want = (
        program(*args)
        for program, args in (
            timing.program_of(lambda p, xs: cells.scan(cell, p, xs)[1], params, xs, d_ys, "gradient", n)
            for n in (1, 2)
        )
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


@pytest.mark.parametrize("rival", list(rivals.JAX))
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "lstm" else pytest.mark.slow) for kind in rivals.KINDS]
)
@pytest.mark.slow
def test_a_rivals_layer_is_a_recurrence_with_gradients(rival, kind):
    if rival not in rivals.installed() or (rival, kind) == ("equinox", "rnn"):
        pytest.skip("not there")
    xs, d_ys = layers._inputs(SIZE)
    params, layer = rivals.JAX[rival](kind, SIZE[-1], xs)
    program, args = timing.program_of(layer, params, xs, d_ys, "gradient", 1)
    ys, d_params, d_xs = program(*args)
    assert ys.shape == d_xs.shape == xs.shape
    late = layer(params, xs.at[:, 3:].add(1.0))
    np.testing.assert_allclose(late[:, :3], ys[:, :3], rtol=1e-5)
    early = layer(params, xs.at[:, 0].add(1.0))
    assert jnp.abs(early[:, -1] - ys[:, -1]).max() > 1e-5
    size = sum(p.size for p in jax.tree.leaves(d_params))
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[kind]
    assert gates * 18 <= size <= gates * (18 + 6)  # matrices, at most two biases
    assert all(jnp.abs(d).sum() > 0 for d in jax.tree.leaves(d_params))


def test_torch_runs_forward_and_backward():
    pytest.importorskip("torch")
    for kind in rivals.KINDS:
        for gradient in (False, True):
            for run in rivals.torch(kind, *SIZE, gradient):
                run()


@pytest.mark.parametrize("task", training.TASKS)
def test_our_loop_trains_the_whole_model_that_the_other_loops_train(task):
    """An embedding where the inputs are tokens, the layer, a linear readout; nothing left out."""
    spec, params = runs.shapes(training.config("gru", task, 1, hidden_size=5))
    ours, width = count(params), 5
    tokens = spec.inputs == "tokens"
    features = width if tokens else spec.input_size
    embedding = spec.input_size * width if tokens else 0
    layer = 3 * width * (features + width + 1)
    assert ours == embedding + layer + (width + 1) * spec.output_size


def _row(library, cell, ms, strategy="sequential", devices=1, gflop=1.0, size=(32, 512, 256)):
    return layers._labels(size, cell, "gradient", library, strategy, devices) | {"ms": ms, "gflop": gflop}


def test_goals_compare_the_best_settings_of_each_side():
    frame = report.with_bounds(
        pd.DataFrame(
            [
                _row("ours", "gru", 50.0),
                _row("ours", "gru", 20.0, devices=2),
                _row("torch", "gru", 40.0, ""),
                _row("linen", "gru", 90.0, ""),
                _row("nnx", "gru", 30.0, ""),
                _row("ours", "sru", 10.0, "associative"),
                _row("torch", "lstm", 30.0, ""),
            ]
        ),
        {"matmul_gflops": 100.0},
    )
    goals = report.layer_goals(frame).set_index(["cell", "goal"])
    assert goals.loc[("gru", "times PyTorch's gru"), ["measured", "met"]].tolist() == ["2.00", "yes"]
    assert goals.loc[("gru", "times Flax's layer"), ["measured", "met"]].tolist() == ["1.50", "NO"]
    assert goals.loc[("gru", "share of its bound"), ["measured", "met"]].tolist() == ["0.50", "NO"]
    assert goals.loc[("sru", "times PyTorch's lstm"), ["measured", "met"]].tolist() == ["3.00", "NO"]
    assert goals.loc[("sru", "times its bound"), ["measured", "met"]].tolist() == ["1.00", "yes"]
    (table,) = report.layer_tables(frame, short=True).values()
    gru, sru = table.set_index("cell").loc["gru"], table.set_index("cell").loc["sru"]
    assert gru["how"].strip() == "x2" and gru["PyTorch"] == "2.00x" and gru["Flax nnx"] == "1.50x"
    assert sru["PyTorch"] == "3.00x" and sru["Flax nnx"] == "–"


def test_steps_per_second_count_all_seeds():
    rows = [
        {
            "task": "digits",
            "cell": "sru",
            "library": "ours",
            "seeds": 8,
            "ms": 0.5,
            "compile_s": 1.0,
            "fraction": 0.25,
        },
        {"task": "digits", "cell": "lstm", "library": "nnx", "seeds": 1, "ms": 2.0, "compile_s": 1.0},
    ]
    (row,) = report.training_table(pd.DataFrame(rows)).to_dict("records")
    assert row["this"] == "2,000" and row["Flax nnx"] == "500 (4.0x)" and row["bound"] == "25%"
    (goal,) = report.training_goals(pd.DataFrame(rows)).to_dict("records")
    assert (goal["wanted"], goal["measured"], goal["met"]) == ("≥ 5", "4.00", "NO")


def test_the_growth_is_fitted_over_the_longer_sequences():
    times = [128, 256, 512, 1024, 2048]
    rows = [_row("ours", "rnn", max(50.0, 1e-4 * t**2), size=(4, t, 64)) for t in times]
    (fit,) = layers.growth(pd.DataFrame(rows))
    assert fit["over"] == "512 to 2048"
    assert 1.3 < fit["exponent"] < 2.0
    rows = [_row("ours", "rnn", 3.0 * t, size=(4, t, 64)) for t in times]
    assert layers.growth(pd.DataFrame(rows))[0]["exponent"] == pytest.approx(1.0)


def measured(tmp_path, **options):
    """What the benchmark prints on a terminal of 80 letters."""
    console = Console(file=io.StringIO(), width=80)
    bench.run(bench.Options(**{"preset": "quick", "rivals": [], "workdir": str(tmp_path)} | options), console)
    return console.file.getvalue()


@pytest.mark.slow
def test_tables_figures_and_what_they_were_made_on_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "bounds", lambda: {"matmul_gflops": 10.0, "copy_gb_per_s": 1.0})
    text = measured(tmp_path, parts=["layers"], sizes=["2x8x4"], cells=["rnn", "sru"], repeats=1)
    frame = pd.read_csv(tmp_path / "layers.csv")
    for name, rows in frame.groupby("cell"):
        every = set(cells.strategies(cells.get(name, hidden_size=4))) - {"auto"}
        assert set(rows["strategy"]) == every
    assert (frame["ms"] > 0).all()
    assert (tmp_path / "layers.png").exists() and (tmp_path / "environment.json").exists()
    assert "Goals" not in text  # they are about other sizes
    assert "matmul" in (tmp_path / "speed.md").read_text()
    assert all(len(line) <= 80 for line in text.splitlines() if str(tmp_path) not in line)


def test_a_step_of_a_stream_is_timed_and_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "bounds", lambda: {"matmul_gflops": 10.0, "copy_gb_per_s": 1.0})
    text = measured(tmp_path, parts=["latency"], cells=["sru", "attention"], repeats=1)
    frame = pd.read_csv(tmp_path / "latency.csv")
    assert list(frame["cell"]) == ["sru"] and (frame["ms"] > 0).all()  # attention's state has no end
    assert "Latency: one step of a stream, ms" in text and "sru" in text


def test_bounds_are_what_the_machine_does():
    assert all(value > 0 for value in timing.bounds(repeats=1, size=64).values())


@pytest.mark.parametrize(
    "option, wanted",
    [
        ({"cells": ["ltsm"]}, "lstm"),
        ({"sizes": ["32x12"]}, "BATCHxTIMExHIDDEN"),
        ({"parts": ["layer"]}, "layers"),
    ],
)
def test_bad_options_are_refused(option, wanted, tmp_path):
    with pytest.raises(ValueError, match=wanted):
        measured(tmp_path, **option)
    assert not list(tmp_path.iterdir())


# --- a new card


CARD = accelerator.Size(4, 8, 4)


@pytest.fixture
def one_group(monkeypatch):
    cases = [
        *accelerator._ours(CARD, ("sru",)),
        accelerator._convolution(CARD),
        *accelerator._bandwidth(CARD),
    ]
    monkeypatch.setattr(accelerator, "groups", lambda scale: [accelerator.Group("width 8 x 4", cases)])
    monkeypatch.setattr(dispatch, "bounds", lambda **sizes: {"matmul_gflops": 10.0, "copy_gb_per_s": 1.0})


def test_what_is_short_is_started_often(monkeypatch):
    """And a case that fails does not cost the others."""
    monkeypatch.setattr(dispatch, "LEAST_MS", 20.0)
    started, waited = [], []

    def make():
        return dispatch.Many(lambda: started.append(time.sleep(1e-3)), waited.append)

    def broken():
        raise RuntimeError("out of memory")

    first, bad = dispatch.interleaved([timing.Case({"a": 1}, make), timing.Case({"a": 2}, broken)], repeats=3)
    assert bad["error"] == "RuntimeError: out of memory" and "ms" not in bad and first["compile_s"] > 0
    assert len(started) > 2 * len(waited) and first["ms"] >= 1.0
    assert all(value > 0 for value in dispatch.bounds(repeats=1, size=64, numbers=64).values())


def test_a_card_is_measured_group_by_group_and_goes_on(one_group, monkeypatch, tmp_path):
    options = bench.Options(preset="gpu", repeats=1, workdir=str(tmp_path))
    console = Console(file=io.StringIO(), width=150)
    bench.run(options, console)
    rows = pd.read_csv(tmp_path / "accelerator.csv")
    assert {"sequential", "associative"} <= set(rows["strategy"].dropna()) and (rows["ms"] > 0).all()
    page = (tmp_path / "speed.md").read_text()
    assert "| times a causal convolution | ≤ 1.3 |" in page and "width 8 x 4" in page
    assert (tmp_path / "layers.png").stat().st_size > 10_000
    monkeypatch.setattr(dispatch, "interleaved", None)
    bench.run(options, console)  # nothing is measured twice
    monkeypatch.setattr(accelerator, "groups", lambda scale: [accelerator.Group("later", [])])
    with contextlib.closing(Lab(tmp_path / "other", Console(quiet=True))) as lab:
        assert accelerator.measure(lab, 1, print, minutes=-1)[1] is False


def test_goals_of_a_card_on_both_sides_of_their_edges():
    base = CARD._asdict() | {"library": "ours", "pass": "gradient", "dtype": "float32", "resets": 0.0}

    def row(group, layer, strategy, ms, **more):
        return base | {"group": group, "layer": layer, "strategy": strategy, "ms": ms} | more

    def met(rows):
        found = card_report.goals(pd.DataFrame(rows), copy_gb_per_s=100.0)
        assert not found.duplicated(["of", "cell", "goal"]).any()
        return found["met"].tolist()

    for good, word in ((True, "yes"), (False, "NO")):
        one, other = (1.0, 1.4) if good else (1.4, 1.0)
        rows = [row("bandwidth", "c", "kernel", 10.0, gigabytes=0.9 if good else 0.7)]
        rows += [row("width 1 x 2", "sru", "kernel", one), row("width 1 x 2", "convolution", "", 1.0)]
        rows += [row("width 1 x 2", "lstm", "cudnn", 10.5)]
        rows += [row("hidden 512", "gru", "sequential", one)]
        rows += [row("hidden 512", "gru", "", other, library="torch")]
        rows += [row("hidden 512", "lstm", "sequential", one), row("hidden 512", "lstm", "cudnn", other)]
        power = 1.0 if good else 1.3
        rows += [row(f"steps {t}", "sru", "kernel", t**power, time=t) for t in (10, 100, 1000)]
        found = met(rows)
        assert found == [word] * 6
    assert card_report.goals(pd.DataFrame(columns=[*base, "group"]), 100.0).empty


def test_the_fastest_strategy_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(chosen.VARIABLE, str(tmp_path / "strategies.json"))
    rows = choose.choose([SIZE], ["sru", "mamba2"], 1, card="a card")
    cell = cells.get("sru", hidden_size=SIZE[2])
    kept = chosen.lookup(cell, SIZE[1], SIZE[0], "a card")
    best = rows[rows["cell"] == "sru"].sort_values("ms").iloc[0]
    assert kept == best["strategy"] and chosen.lookup(cell, SIZE[1], SIZE[0], "another") is None
    assert choose.table(rows)["auto"].tolist() == [kept, "chunkwise"]
    with pytest.raises(ValueError, match="--choose is for accelerators"):
        bench.run(bench.Options(choose=True, cells=["sru"]), Console(quiet=True))
    for options in ({"choose": True, "preset": "growth"}, {"choose": True, "scale": 4}, {"minutes": 4.0}):
        with pytest.raises(ValueError, match="takes no --|--scale and --minutes are for --preset=gpu"):
            bench.run(bench.Options(**options), Console(quiet=True))


@pytest.mark.parametrize(
    "option, value", [("cells", ["sru"]), ("parts", ["layers"]), ("passes", ["forward"])]
)
def test_the_preset_for_cards_takes_no_choice(option, value):
    with pytest.raises(ValueError, match=f"--preset=gpu takes no --{option}"):
        bench.run(bench.Options(preset="gpu", **{option: value}), Console(quiet=True))
