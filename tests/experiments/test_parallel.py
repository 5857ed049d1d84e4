"""What is parallel: layers of equal size, the quick preset end to end, words that follow from the numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import cells
from experiments import parallel
from experiments.lab import layers as lab
from experiments.lab.timing import PASSES
from train.model import count


def test_layers_are_of_equal_size():
    settings = parallel.PRESETS["fast"]
    layers = [layer for layer in lab.all_layers(settings.cells, settings.width) if layer.part == "layer"]
    sizes = [count(layer.params) for layer in layers]
    assert max(sizes) / min(sizes) < 1.03
    weights = [sum(p.size for p in jax.tree.leaves(layer.params) if p.ndim > 1) for layer in layers]
    assert max(weights) / min(weights) < 1.03  # each is used once a step: the work of the matmuls
    assert {layer.label: layer.hidden_size for layer in layers}["sru associative"] == settings.width
    independent = {layer.cell for layer in layers if layer.independent}
    assert independent == {"sru", "sru_feedback", "convolution", "feed_forward"}


def test_the_convolution_is_causal_and_the_feed_forward_layer_sees_one_step():
    layers = {layer.label: layer for layer in lab.all_layers(("lstm",), 4)}
    xs = jax.random.normal(jax.random.key(0), (2, 6, 4))
    params = layers["convolution"].params | {"b": jnp.arange(4.0)}
    padded = jnp.pad(xs, ((0, 0), (lab.WINDOW - 1, 0), (0, 0)))
    want = sum(padded[:, k : k + 6] @ params["W"][k] for k in range(lab.WINDOW)) + params["b"]
    np.testing.assert_allclose(lab.convolution(params, xs), jnp.maximum(want, 0), rtol=1e-5, atol=1e-6)
    dense = layers["feed_forward"]
    np.testing.assert_allclose(
        dense.run(dense.params, xs)[:, 2:3], dense.run(dense.params, xs[:, 2:3]), rtol=1e-5
    )


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_gets_the_size_of_the_others(name):
    cell = lab._equal_size(name, {}, 24, 24 * 24 * 3)
    size = count(jax.eval_shape(lambda: cell.init(jax.random.key(0), 24)))
    assert abs(size / (24 * 24 * 3) - 1) < 0.15
    if "heads" in cell.__dataclass_fields__:
        assert lab._equal_size(name, {"heads": 3}, 24, 24 * 24 * 3).hidden_size % 3 == 0


# --- verdicts on made-up numbers

SLOW = {"sru sequential": "linear", "lstm": "linear", "rnn as wide": "linear", "convolution": "constant"}


def made_up(
    sru="logarithmic", feedback="linear", lstm="linear", ratio=1.0, serial=0.9, gates=3.0, noise=0.01
):
    """Frames whose fits and ratios are these; None leaves a cell out."""
    times, rng = [16, 64, 256, 1024], np.random.default_rng(0)
    shapes = {
        "linear": lambda t: 5 * t + 2,
        "logarithmic": lambda t: 6 * np.log2(t) + 3,
        "constant": lambda t: 3,
    }
    kinds = SLOW | {"sru associative": sru, "sru_feedback": feedback, "lstm": lstm}
    ms = {"convolution": 1.0, "sru associative": ratio, "sru sequential": 2 * ratio, "sru_feedback": 2.0}
    ms |= {"lstm": 10.0, "lstm projection": 10 * (1 - serial), "rnn as wide": 10 / gates}
    path, time = [], []
    for label in dict.fromkeys([*kinds, *ms]):
        kind, cell = kinds.get(label, "constant"), label.split()[0]
        if kind is None:
            continue
        part = {"lstm projection": "projection", "rnn as wide": "same width"}.get(label, "layer")
        for how in PASSES:
            shared = {
                "label": label,
                "cell": cell,
                "part": part,
                "pass": how,
                "hidden_size": 4,
                "parameters": 56,
            }
            for t in times:
                told = shared | {"time": t, "independent": cell.startswith("sru") or cell == "convolution"}
                path.append(told | {"operations": int(shapes[kind](t))})
                machine = {"batch": 2, "backend": "cpu", "cores": 2}
                time += [
                    shared
                    | machine
                    | {"time": t, "round": r, "ms": t * ms[label] * (1 + noise * rng.normal())}
                    for r in range(7)
                ]
    return {"path": pd.DataFrame(path), "time": pd.DataFrame(time)}


@pytest.mark.parametrize(
    "numbers, verdict",
    [
        (dict(feedback="logarithmic"), "holds"),
        (dict(feedback="linear"), "holds in part"),  # independent dimensions are not the reason
        (dict(feedback=None), "holds in part"),  # the reason is not tested
        (dict(feedback="logarithmic", ratio=3.0), "holds in part"),  # too slow
        (dict(feedback="logarithmic", ratio=1.95, noise=0.2), "holds in part"),  # the interval is too wide
        (dict(feedback="logarithmic", sru="linear"), "does not hold here"),
    ],
)
def test_verdicts_on_sru(numbers, verdict):
    assert parallel.judge(made_up(**numbers))["sru_parallel"].verdict == verdict


@pytest.mark.parametrize(
    "numbers, verdict",
    [
        (dict(), "holds"),
        (dict(serial=0.3), "holds in part"),
        (dict(gates=0.9), "holds in part"),
        (dict(serial=0.3, gates=0.9), "does not hold here"),
        (dict(lstm="logarithmic"), "does not hold here"),
        (dict(serial=0.51, gates=1.01, noise=0.3), "does not hold here"),  # not told apart from no cost
    ],
)
def test_verdicts_on_the_lstm(numbers, verdict):
    assert parallel.judge(made_up(**numbers))["lstm_cost"].verdict == verdict


def test_the_evidence_says_what_was_found():
    told = parallel.judge(made_up())["sru_parallel"].evidence
    assert "sru_feedback" in told and "linear" in told and "2 CPU cores" in told and "1,024 steps" in told


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(
        parallel.PRESETS["quick"], cells=("sru",), times=(8,), path_times=(4, 16, 64)
    )
    frames = measured(parallel.EXPERIMENT, settings)
    assert set(frames["path"]["time"]) == set(settings.path_times)
    assert (frames["time"].groupby(["label", "pass", "time"]).size() == settings.rounds).all()
    assert frames["time"]["ms"].gt(0).all()


def test_what_the_lstm_spends_its_time_on_has_a_figure():
    assert set(parallel.figures(made_up())) == {"critical_path", "time", "lstm"}
