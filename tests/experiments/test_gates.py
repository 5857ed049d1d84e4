"""Gates: the second measure of memory, the controls, and words that follow from the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import cells
from experiments import gates
from experiments.lab import probes, study


def test_other_tokens_are_others_of_the_same_kind():
    tokens = jnp.array([[0, 3, 4, 5, 6], [1, 6, 5, 4, 3], [2, 3, 3, 3, 3]] * 50)
    others = np.asarray(gates.other_tokens(jax.random.key(0), tokens, 3, 4))
    assert (others != tokens).all()
    assert set(others[:, 0]) == {0, 1, 2} and set(np.unique(others[:, 1:])) == {3, 4, 5, 6}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "sru", "knn", "lru", "mlstm", "mamba2", "tcn", "window"])
def test_swap_memory_weighs_distances_by_what_a_replaced_step_changes(name):
    cell = cells.get(name, hidden_size=3)
    params = cell.init(jax.random.key(0), 2)
    xs, others = (jax.random.normal(jax.random.key(seed), (4, 5, 2)) for seed in (1, 2))

    def at_end(xs):
        carry = cell.initial_carry(len(xs))
        for t in range(xs.shape[1]):
            carry, _ = cell.step(params, carry, xs[:, t])
        return probes.unit_states(cell, carry)

    sizes = [np.abs(at_end(xs.at[:, t].set(others[:, t])) - at_end(xs)).mean((0, 2)) for t in range(5)]
    want = sum((4 - t) * size for t, size in enumerate(sizes)) / sum(sizes)
    np.testing.assert_allclose(gates.swap_memory(cell, params, xs, others), want, rtol=1e-4)


def test_cells_without_gates_are_refused():
    with pytest.raises(ValueError, match="rnn has no gates"):
        gates._config("rnn", gates.PRESETS["quick"])


# --- verdicts on made-up numbers


def made_up(update=1, reset=-1, switching=-1, untrained=0.0, solved=5, cell="gru", noise=0.3, swap=1):
    """Units whose gates follow their memory with these signs, 0 for not at all, before training to the part
    `untrained`; of `solved` of 5 seeds."""
    rng, units = np.random.default_rng(0), []
    for seed in range(5):
        for stage, strength in (("untrained", untrained), ("spread", 1), ("trained", 1)):
            log = rng.normal(size=30)

            def follows(sign, log=log, strength=strength):
                mixed = strength * sign * log + noise * rng.normal(size=30)
                return mixed if sign * strength else rng.normal(size=30)

            squash = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
            told = {"cell": cell, "label": cell, "stage": stage, "seed": seed, "solved": seed < solved}
            told |= {"unit": np.arange(30), "memory": np.exp(log)}
            told["swap"] = np.exp(log if swap else rng.normal(size=30))
            # 1 - r follows with the sign of `reset`.
            r, std = 1 - squash(follows(reset)), squash(follows(switching))
            units.append(pd.DataFrame(told | {"gate": "reset", "mean": r, "std": std}))
            units.append(pd.DataFrame(told | {"gate": "update", "mean": squash(follows(update)), "std": std}))
    training = [
        {
            "cell": cell, "label": cell, "seed": seed, "learning_rate": 0.01, "solved": seed < solved,
            "solved_step": 100.0 if seed < solved else None, "valid_metric": 1.0, "test_metric": 0.99,
            "parameters": 100, "budget_steps": 300, "rates": "0.01 0.03", "gap": 10,
        }
        for seed in range(5)
    ]  # fmt: skip
    return {"training": pd.DataFrame(training), "units": pd.concat(units, ignore_index=True)} | identities()


def identities(values=1e-7, gradients=1e-6, control=0.1):
    rows = []
    for check in gates.CHECKS.values():
        told = {"check": check, "seed": 0}
        rows.append(told | {"what": "values, scan", "control": False, "deviation": values})
        rows.append(told | {"what": "gradients, scan", "control": False, "deviation": gradients})
        rows.append(told | {"what": "values, scan", "control": True, "deviation": control})
    return {"identities": pd.DataFrame(rows)}


@pytest.mark.parametrize(
    "numbers, verdict",
    [
        (dict(), "holds"),
        (dict(switching=0), "holds in part"),
        (dict(reset=1, switching=1), "holds in part"),  # the update gate alone
        (dict(update=0, switching=0), "holds in part"),
        (dict(untrained=1.0), "holds in part"),  # it was there before training
        (dict(update=-1, reset=1, switching=1), "does not hold here"),
        (dict(update=0, reset=0, switching=0), "does not hold here"),
        (dict(noise=10.0), "does not hold here"),  # too weak
        (dict(swap=0), "does not hold here"),  # only by one measure of memory
        (dict(solved=2), "not tested here"),
        (dict(cell="lstm"), "not tested here"),
    ],
)
def test_verdicts_on_the_gru(numbers, verdict):
    found = gates.verdicts(made_up(**numbers))["gru_gates"]
    assert found.verdict == verdict, found


@pytest.mark.parametrize(
    "numbers, rnn, convolution",
    [
        (dict(), "holds", "holds in part"),
        (dict(gradients=1e-3), "holds in part", "does not hold here"),
        (dict(values=1e-3), "does not hold here", "does not hold here"),
        (dict(control=1e-6), "not tested here", "not tested here"),
    ],
)
def test_verdicts_on_identities(numbers, rnn, convolution):
    found = gates.verdicts(made_up() | identities(**numbers))
    assert found["gru_is_rnn"].verdict == rnn
    assert found["sru_convolution"].verdict == convolution
    assert "were not trained" in found["sru_convolution"].evidence


def worked(test=None, **steps):
    """`work` on two tasks, 5 seeds: steps to solve by cell, None for not solved, the same on both."""
    rows = [
        {
            "task": task, "cell": cell, "label": cell, "seed": seed, "learning_rate": 0.01, "chosen": True,
            "solved": at is not None, "solved_step": at and at + seed, "higher_is_better": True,
            "test_metric": (1.0 if at else (test or {}).get(cell, 0.5)) + 0.001 * seed, "parameters": 100,
            "budget_steps": 300,
        }
        for task in ("near", "far")
        for cell, at in steps.items()
        for seed in range(5)
    ]  # fmt: skip
    return {"work": pd.DataFrame(rows)}


ALIKE = {"sru": 100, "qrnn": 100, "knn": 100, "tcn": 100, "window": None}


@pytest.mark.parametrize(
    "work, verdict",
    [
        (worked(**ALIKE), "holds"),
        (worked(**ALIKE | {"qrnn": 50}), "holds in part"),
        (worked(**ALIKE | {"tcn": 50}), "holds in part"),
        (worked(**ALIKE | {"window": 100}), "holds in part"),  # nothing that takes a recurrence
        (worked(**ALIKE | {"qrnn": 50, "knn": 50}), "does not hold here"),
        (worked(**ALIKE | {"sru": None}), "does not hold here"),
        (worked({"sru": 0.7}, **dict.fromkeys(ALIKE)), "holds in part"),  # nobody solves it
        (worked({"qrnn": 0.7, "knn": 0.7}, **dict.fromkeys(ALIKE)), "does not hold here"),
        (worked(sru=100, qrnn=100), "holds in part"),  # no kernel network
    ],
)
def test_verdicts_on_the_work_of_convolutions(work, verdict):
    frames = made_up() | identities() | work
    assert gates.verdicts(frames)["sru_convolution"].verdict == verdict
    assert any("work of convolutions" in title for title in gates.tables(frames))
    frames = made_up() | identities(values=1e-3) | work
    assert gates.verdicts(frames)["sru_convolution"].verdict == "does not hold here"


def test_cells_with_gates_are_found():
    assert {"lstm", "qrnn", "mlstm"} <= set(gates.eligible()) and "rnn" not in gates.eligible()


def test_unsolved_seeds_are_shown_and_do_not_count():
    shown = gates.tables(made_up(solved=3))
    first = next(iter(shown.values())).iloc[0]
    assert first["solved"] == "3/5" and ">300" in first["steps to solve"]
    assert gates.correlations(made_up(solved=3)["units"])["seeds"].eq(3).all()
    nothing = made_up(solved=0)
    assert len(gates.tables(nothing)) == 2 and set(gates.figures(nothing)) == {"gates", "gru"}


def test_identities_hold_on_the_cells_and_controls_do_not():
    rows = pd.DataFrame(gates._identities(gates.PRESETS["quick"]))
    assert set(rows["check"]) == set(gates.CHECKS.values())
    control = rows["control"]
    assert (rows[~control]["deviation"] <= gates.ROUNDING).all()
    assert (rows[control]["deviation"] >= gates.FAR_OFF).all()
    assert (rows[(rows["check"] == gates.CHECKS["store"]) & ~control]["deviation"] == 0).all()


def test_the_quick_preset_runs_and_is_not_measured_twice(tmp_path, monkeypatch):
    settings, console = gates.PRESETS["quick"], Console(quiet=True)
    # The test above has made these.
    made = identities()["identities"].to_dict("records")
    monkeypatch.setattr(gates, "_identities", lambda settings: made)
    frames = study.run(gates, settings, tmp_path, console)
    units = frames["units"]
    size = settings.seeds * settings.hidden_size * len(gates.STAGES) * 2
    assert len(units) == size and units["mean"].between(0, 1).all() and units["memory"].ge(0).all()
    assert units["memory"].le(settings.gap).all() and units["swap"].le(settings.gap).all()
    for name in ("gates.png", "gru.png", "report.md", "units.csv", "identities.csv"):
        assert (tmp_path / name).stat().st_size > 0
    assert "gru_is_rnn" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(gates, "_probe", None)
    again = study.run(gates, settings, tmp_path, console)
    assert again["units"].equals(units)
    pd.testing.assert_frame_equal(study.load(tmp_path)["units"], units, rtol=1e-7)
