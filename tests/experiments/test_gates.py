"""Gates: the quick preset end to end, the rules on made-up numbers and on noise, gates that are held."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import cells
import configs
from experiments import gates
from experiments.lab import evidence, holding, identity, probes, units
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, UNDECIDED
from quickly import quickly


def test_cells_without_gates_that_can_be_held_are_refused():
    assert not any(holding.gates_of(probes.default(name)) for name in ("rnn", "mamba2"))
    with pytest.raises(ValueError, match="rnn has no gates that can be held still"):
        gates._config(gates.PRESETS["quick"], 10, "rnn")
    for text, held in (("lstm:layer_norm=true", set()), ("lstm:coupled=true", {"forget", "output"})):
        name, options = configs.with_options(text)
        assert set(holding.gates_of(cells.get(name, hidden_size=4, **options))) == held


@pytest.mark.parametrize("text", quickly(["gru", "lstm:peepholes=true", "sru_feedback"], "gru"))
def test_a_gate_is_held_in_these_units_and_in_no_others(text):
    name, options = configs.with_options(text)
    cell = cells.get(name, hidden_size=4, **options)
    params = jax.tree.map(lambda p: p + 0.1, cell.init(jax.random.key(0), 3))
    xs, units_ = jax.random.normal(jax.random.key(1), (2, 6, 3)), jnp.arange(4) < 2
    before = probes.trace(cell, params, xs).gates
    for gate, letter in holding.gates_of(cell).items():
        held = probes.trace(cell, identity.held(params, {letter: -1.0}, units_), xs).gates
        np.testing.assert_allclose(held[gate][..., :2], jax.nn.sigmoid(-1.0), rtol=1e-6)
        np.testing.assert_allclose(held[gate][:, 0, 2:], before[gate][:, 0, 2:], rtol=1e-6)
        assert np.ptp(held[gate][..., 2:]) > 0.01


def test_units_are_long_or_short_by_both_memories_and_as_many_of_each_are_drawn():
    memory, swap = [9, 9, 1, 1, 0, 4, 1], [8, 1, 1, 0, 1, 4, 9]
    found = units.ranges(memory, swap, long=5, short=2)
    assert found.tolist() == ["long", "neither", "short", "short", "short", "neither", "neither"]
    drawn = holding.drawn(found, draws=20, seed=0)
    assert all((mask.sum(1) == 1).all() for mask in drawn.values())
    assert drawn["long"].any(0).tolist() == (found == "long").tolist()
    assert drawn["short"].any(0).tolist() == (found == "short").tolist()
    assert holding.drawn(found[1:], 20, 0) == {}


# --- verdicts on made-up numbers


def made(long=1.0, before=0.0, cost=0.3, seeds=10, solved=None, gaps=(10, 20), draw=None):
    """Units of all cells, whose gates tell long from short by `long` deviations on each side, and gates that
    cost so much more accuracy where the claim says so."""
    draw, solved = draw or np.random.default_rng(0), seeds if solved is None else solved

    def product(**columns):
        return pd.DataFrame(itertools.product(*columns.values()), columns=columns.keys())

    def of_cells(rows):
        return rows.assign(label=rows["cell"])

    each = {"cell": ("gru", "lstm", "sru"), "gap": gaps}
    training = of_cells(product(**each, seed=range(seeds)))
    training = training.assign(solved=training["seed"] < solved, solved_step=50.0, learning_rate=0.01)
    training = training.assign(trial=training["cell"], budget_steps=300, inside=True)
    each["seed"] = range(solved)
    rows = of_cells(product(**each, gate=("update", "reset", "forget"), unit=range(60)))
    rows["range"] = np.array(["long", "short", "neither"])[rows["unit"] % 3]
    sign = np.array([1, -1, 0])[rows["unit"] % 3]
    for suffix, apart in (("", long), ("_before", before)):
        rows[f"mean{suffix}"] = draw.normal(sign * apart)
        rows[f"std{suffix}"] = draw.normal(-sign * apart)
    held = of_cells(
        product(**each, gate=("update", "reset", "forget"), to=holding.HELD_AT, range=units.RANGES)
    )
    for answers in units.RANGES:
        held[f"{answers}_lost"] = draw.normal(cost * (held["range"] == answers), 0.05)
    return {"tuning": training, "training": training, "units": rows, "held": held}


def verdicts(**numbers):
    found = gates.judge(made(**numbers))
    assert set(found) == set(gates.EXPERIMENT.parts)
    return {key: verdict.verdict for key, verdict in found.items()}


@pytest.mark.parametrize(
    "numbers, seen, learned, tried",
    [
        (dict(), TRUE, TRUE, TRUE),
        (dict(long=-1.0), FALSE, FALSE, TRUE),
        (dict(long=-0.1, before=1.0), FALSE, FALSE, TRUE),
        (dict(before=1.0), TRUE, UNDECIDED, TRUE),
        (dict(before=2.0), TRUE, FALSE, TRUE),
        (dict(cost=-0.3), TRUE, TRUE, FALSE),
        (dict(cost=0.0), TRUE, TRUE, UNDECIDED),
        (dict(solved=9), NOT_TESTED, NOT_TESTED, NOT_TESTED),
        (dict(seeds=9), NOT_TESTED, NOT_TESTED, NOT_TESTED),
    ],
)
def test_each_part_on_both_sides_of_its_edge(numbers, seen, learned, tried):
    found = verdicts(**numbers)
    assert {found[key] for key in gates.SEEN} == {seen}
    assert found[gates.LEARNED] == learned
    assert {found[key] for key in gates.TRIED} == {tried}


def test_seeds_without_units_of_both_kinds_are_named():
    frames = made(gaps=(10,), seeds=12)
    alike = frames["units"]["seed"].lt(2) & frames["units"]["range"].eq("long")
    frames["units"].loc[alike, "range"] = "neither"
    found = gates.judge(frames)["gates_update"]
    assert (found.verdict, found.seeds) == (TRUE, 10)
    assert found.note == "gap 10: solved by 12 of 12 seeds, 10 have units of both kinds"


def test_gaps_that_disagree_decide_nothing_and_one_without_seeds_does_not_count():
    near, far = made(gaps=(10,)), made(gaps=(20,), long=-1.0, cost=-0.3)
    both = {name: pd.concat([near[name], far[name]]) for name in near}
    assert {found.verdict for found in gates.judge(both).values()} == {UNDECIDED}
    far = made(gaps=(20,), solved=0)
    both = {name: pd.concat([near[name], far[name]]) for name in near}
    assert {found.verdict for found in gates.judge(both).values()} == {TRUE}
    assert "gap 20: solved by 0 of 10 seeds" in gates.judge(both)["gates_update"].note


def test_noise_at_the_edge_decides_nothing():
    """Numbers of one gap whose true values are the edges."""
    draw, wrong, rounds = np.random.default_rng(0), 0, 12
    for _ in range(rounds):
        # P(X > Y) of two normal values that are 0.3583 deviations apart is the edge.
        found = verdicts(long=0.3583 / 2, before=0.3583 / 2, cost=0.0, gaps=(10,), draw=draw)
        wrong += sum(verdict != UNDECIDED for verdict in found.values())
    assert wrong <= 0.08 * rounds * len(gates.EXPERIMENT.parts)


def test_without_evidence_nothing_is_tested_and_all_is_shown():
    unsolved = made(solved=0)
    others = {name: rows[rows["cell"] == "sru"] for name, rows in made(gaps=(10,)).items()}
    for frames, figures in ((unsolved, set()), (others, {"held"})):
        assert gates.judge(frames)["gates_update"].verdict == NOT_TESTED
        assert set(gates.figures(frames)) == figures
    assert gates.judge(others)["gates_sru_holds"].verdict == TRUE
    shown = gates.tables(unsolved)
    assert next(iter(shown.values()))["solved"].eq("0/10").all()


@pytest.mark.slow
def test_runs_end_to_end(measured, tmp_path):
    settings = gates.PRESETS["quick"]
    frames = measured(gates.EXPERIMENT, settings)
    rows = frames["units"]
    assert len(rows) == settings.seeds * settings.hidden_size * 2 and rows["mean"].between(0, 1).all()
    assert rows["memory"].le(settings.gaps[0]).all() and rows["swap"].le(settings.gaps[0]).all()
    assert len(frames["training"]) == settings.seeds
    assert set(evidence.load(tmp_path)) == {"tuning", "training", "units", "held"}
