"""What is parallel: layers of equal size, the quick preset end to end, words that follow from the numbers."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import cells
from experiments import parallel
from experiments.lab import layer_figures, layers
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED
from experiments.lab.timing import PASSES
from train.model import count


@pytest.mark.slow
def test_layers_are_of_equal_size():
    settings = parallel.PRESETS["fast"]
    every = [layer for layer in layers.all_layers(settings.cells, settings.width) if layer.part == "layer"]
    labels = [layer.label for layer in every]
    assert len(set(labels)) == len(labels) and {"lstm", "lstm newton", "sru chunked"} <= set(labels)
    sizes = [count(layer.params) for layer in every]
    assert max(sizes) / min(sizes) < 1.03
    weights = [sum(p.size for p in jax.tree.leaves(layer.params) if p.ndim > 1) for layer in every]
    assert max(weights) / min(weights) < 1.04  # each is used once a step: the work of the matmuls
    assert {layer.label: layer.hidden_size for layer in every}["sru associative"] == settings.width
    independent = {layer.label.split()[0] for layer in every if layer.independent}
    diagonal = {"gru:diagonal=true", "lstm:diagonal=true"}
    assert independent == {"sru", "sru_feedback", "convolution", "feed_forward"} | diagonal


def test_the_convolution_is_causal_and_the_feed_forward_layer_sees_one_step():
    every = {layer.label: layer for layer in layers.all_layers(("lstm",), 4)}
    xs = jax.random.normal(jax.random.key(0), (2, 6, 4))
    params = every["convolution"].params | {"b": jnp.arange(4.0)}
    padded = jnp.pad(xs, ((0, 0), (layers.WINDOW - 1, 0), (0, 0)))
    want = sum(padded[:, k : k + 6] @ params["W"][k] for k in range(layers.WINDOW)) + params["b"]
    np.testing.assert_allclose(layers.convolution(params, xs), jnp.maximum(want, 0), rtol=1e-5, atol=1e-6)
    dense = every["feed_forward"]
    np.testing.assert_allclose(
        dense.run(dense.params, xs)[:, 2:3], dense.run(dense.params, xs[:, 2:3]), rtol=1e-5
    )


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_gets_the_size_of_the_others(name):
    cell = layers._equal_size(name, {}, 24, 24 * 24 * 3)
    size = count(jax.eval_shape(lambda: cell.init(jax.random.key(0), 24)))
    assert abs(size / (24 * 24 * 3) - 1) < 0.15
    if "heads" in cell.__dataclass_fields__:
        assert layers._equal_size(name, {"heads": 3}, 24, 24 * 24 * 3).hidden_size % 3 == 0


# --- verdicts on made-up numbers

GROWTHS = {
    "sru sequential": "linear", "sru associative": "logarithmic", "sru_feedback": "linear", "lstm": "linear",
    "rnn": "linear", "convolution": "constant", "lstm newton": None, "lstm projection": "constant",
}  # fmt: skip
SHAPES = {
    "linear": lambda t: 5 * t + 2,
    "logarithmic": lambda t: 6 * np.log2(t) + 3,
    "constant": lambda t: 3,
}


def paths_of(**growths):
    """A frame of paths that grow so; None leaves a label out. Underscores twice for a blank."""
    growths = GROWTHS | {label.replace("__", " "): growth for label, growth in growths.items()}
    rows = []
    for (label, growth), which in itertools.product(growths.items(), PASSES):
        cell = label.split()[0]
        row = {"label": label, "cell": cell, "part": "layer", "pass": which, "hidden_size": 4}
        row |= {"parameters": 56, "independent": cell.startswith("sru") or cell == "convolution"}
        row["part"] = "projection" if label == "lstm projection" else "layer"
        for t in (16, 64, 256, 1024) if growth else ():
            rows.append(row | {"time": t, "operations": int(SHAPES[growth](t))})
    return pd.DataFrame(rows)


def times_of(
    sru=0.5, newton=2.0, serial=0.9, units=3.0, size=2.0, noise=0.01, rounds=12, backend="cpu", seed=0
):
    """A frame of times with these ratios."""
    ms = {"convolution": 1.0, "sru associative": sru, "sru sequential": sru * 1.001, "lstm": 10.0}
    ms |= {"lstm newton": 10 * newton, "lstm projection": 10 * (1 - serial), "rnn as wide": 10 / units}
    ms |= {"rnn": 10 / size}
    keys = list(itertools.product(ms, PASSES, (16, 64), range(rounds)))
    frame = pd.DataFrame(keys, columns=["label", "pass", "time", "round"])
    drawn = np.exp(noise * np.random.default_rng(seed).normal(size=len(frame)))
    parts = {"lstm projection": "projection", "rnn as wide": "same width"}
    return frame.assign(
        ms=frame["time"] * frame["label"].map(ms) * drawn,
        cell=frame["label"].str.split().str[0],
        part=frame["label"].map(parts).fillna("layer"),
        **{"hidden_size": 4, "batch": 2, "backend": backend, "cores": 2},
    )


def chains_of(newton=0.1, noise=0.0, seeds=10, error=1e-6, seed=0):
    shares = newton * np.exp(noise * np.random.default_rng(seed).normal(size=seeds))
    frame = pd.DataFrame({"seed": range(seeds), "time": 64, "iterations": 3, "newton": 1e4 * shares})
    return frame.assign(fallback=False, stepwise=1e4, error=error)


def made_up(paths=None, times=None, chains=None):
    frames = {"path": paths_of(**(paths or {})), "time": times_of(**(times or {}))}
    return frames | {"newton": chains_of(**(chains or {}))}


@pytest.mark.parametrize(
    "part, growths, verdict",
    [
        ("lstm_path", dict(), TRUE),
        ("lstm_path", dict(lstm="logarithmic"), FALSE),
        ("lstm_path", dict(lstm=None), NOT_TESTED),
        ("sru_path", dict(), TRUE),
        ("sru_path", dict(sru__associative="constant"), TRUE),
        ("sru_path", dict(sru__associative="linear"), FALSE),
        ("sru_path", dict(sru__associative=None, sru__sequential=None), NOT_TESTED),
        ("sru_others", dict(), TRUE),
        ("sru_others", dict(mingru__associative="logarithmic"), FALSE),
        ("sru_others", dict(lstm=None, rnn=None, sru_feedback=None), NOT_TESTED),
        ("sru_reason", dict(), FALSE),
        ("sru_reason", dict(sru_feedback="logarithmic"), TRUE),
        ("sru_reason", dict(sru_feedback=None), NOT_TESTED),
        ("sru_reason", dict(sru__associative="linear"), NOT_TESTED),  # nothing to explain
    ],
)
def test_what_is_counted_decides(part, growths, verdict):
    assert parallel.judge(made_up(paths=growths))[part].verdict == verdict


@pytest.mark.parametrize(
    "chains, verdict",
    [
        (dict(newton=0.9), FALSE),
        (dict(newton=1.1), TRUE),
        (dict(newton=0.95, noise=0.5), UNDECIDED),
        (dict(seeds=3), NOT_TESTED),
        (dict(error=0.1), NOT_TESTED),
    ],
)
def test_whether_newtons_method_needs_fewer_operations(chains, verdict):
    found = parallel.judge(made_up(chains=chains))["lstm_newton"]
    assert found.verdict == verdict and ("3 iterations" in found.number + found.note)
    frames = made_up()
    del frames["newton"]
    assert parallel.judge(frames)["lstm_newton"].verdict == NOT_TESTED


RATIOS = {
    "sru_time": ("sru", FALSE), "lstm_newton_time": ("newton", TRUE), "lstm_serial": ("serial", TRUE),
    "lstm_units": ("units", TRUE), "lstm_size": ("size", TRUE),
}  # fmt: skip


def edge_of(name):
    return parallel.SHARE if name == "serial" else 1


def test_times_decide_on_both_sides_of_their_edge():
    for factor, opposite in ((1.1, False), (0.9, True)):
        found = parallel.judge(made_up(times={name: factor * edge_of(name) for name, _ in RATIOS.values()}))
        for part, (_, more) in RATIOS.items():
            assert (found[part].verdict == more) != opposite and found[part].verdict != UNDECIDED
    few = parallel.judge(made_up(times=dict(rounds=5)))
    assert {few[part].verdict for part in RATIOS} == {NOT_TESTED}


def test_times_decide_nothing_in_noise():
    at_the_edge, draws = {name: edge_of(name) for name, _ in RATIOS.values()}, 40
    found = [parallel._times_judged(times_of(**at_the_edge, noise=0.2, seed=seed)) for seed in range(draws)]
    for part in RATIOS:
        decided = sum(verdicts[part].verdict != UNDECIDED for verdicts in found)
        assert decided <= 6  # 2 are to be expected


def test_a_gpu_has_parts_of_its_own():
    cpu, gpu = (parallel.judge(made_up(times=dict(backend=backend))) for backend in ("cpu", "gpu"))
    for part in ("sru_time", "lstm_newton_time"):
        assert cpu[part].verdict == gpu[f"{part}_gpu"].verdict != NOT_TESTED
        assert cpu[f"{part}_gpu"].verdict == gpu[part].verdict == NOT_TESTED
        assert "experiments.parallel" in cpu[f"{part}_gpu"].note


def test_no_round_chooses_its_own_strategy():
    """Of two that are equally fast the faster one of each round would look faster than both."""
    time = times_of(sru=1.0, noise=0.3, rounds=100)
    chosen = layer_figures.ratios(time)["sru"]
    assert all(abs(estimate.value - 1) < 0.12 for estimate in chosen)  # else 0.84


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = dataclasses.replace(
        parallel.PRESETS["quick"], cells=("sru",), times=(8,), path_times=(4, 16, 64)
    )
    frames = measured(parallel.EXPERIMENT, settings)
    assert set(frames["path"]["time"]) == set(settings.path_times)
    assert (frames["time"].groupby(["label", "pass", "time"]).size() == settings.rounds).all()
    assert frames["time"]["ms"].gt(0).all()


def test_figures_are_of_what_was_measured():
    assert set(parallel.figures(made_up())) == {"critical_path", "time", "lstm"}
