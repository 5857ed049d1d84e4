"""Gates: the controls, the quick preset end to end, and words that follow from the numbers."""

import numpy as np
import pandas as pd
import pytest

from experiments import gates
from experiments.lab import units


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
    return {"training": pd.DataFrame(training), "units": pd.concat(units, ignore_index=True)}


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
    found = gates.judge(made_up(**numbers))["gru_gates"]
    assert found.verdict == verdict, found


def test_cells_with_gates_are_found():
    assert {"lstm", "qrnn", "mlstm"} <= set(gates.eligible()) and "rnn" not in gates.eligible()


def test_unsolved_seeds_are_shown_and_do_not_count():
    shown = gates.tables(made_up(solved=3))
    first = next(iter(shown.values())).iloc[0]
    assert first["solved"] == "3/5" and ">300" in first["steps to solve"]
    assert units.correlations(made_up(solved=3)["units"])["seeds"].eq(3).all()
    nothing = made_up(solved=0)
    assert len(gates.tables(nothing)) == 1 and set(gates.figures(nothing)) == {"gates", "gru"}


@pytest.mark.slow
def test_runs_end_to_end(measured):
    settings = gates.PRESETS["quick"]
    frames = measured(gates.EXPERIMENT, settings)
    rows = frames["units"]
    size = settings.seeds * settings.hidden_size * len(gates.STAGES) * 2
    assert len(rows) == size and rows["mean"].between(0, 1).all() and rows["memory"].ge(0).all()
    assert rows["memory"].le(settings.gap).all() and rows["swap"].le(settings.gap).all()
