"""What is forgotten when gates of some units are held still, while all else of a trained cell goes on."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lab import identity, probes, runs, units
from experiments.lab.units import RANGES

# Of gates, the letter of their weights: W_z, U_z, b_z of an update gate.
LETTERS = {"update": "z", "reset": "r", "forget": "f", "input": "i", "output": "o"}
SHUT = 30.0  # a bias: in float32 sigmoid(30) is 1, sigmoid(-30) 1e-13
HELD_AT = ("0", "1", "mean")


def gates_of(cell, features: int = 2) -> dict[str, str]:
    """The letters of its gates that a bias alone can hold still in one unit, by name; of many cells none.

    Layer normalisation of what a gate sees, for one, is of all units together.
    """
    if not _has_gates(cell):
        return {}
    params = cell.init(jax.random.key(0), features)
    found = {gate: letter for gate, letter in LETTERS.items() if f"b_{letter}" in params}
    first = jnp.arange(cell.hidden_size) == 0
    still = identity.held(params, dict.fromkeys(found.values(), 1.0), first)
    carry = jax.tree.map(lambda c: c + 1, cell.initial_carry(2))
    gates = cell.gates(still, carry, jax.random.normal(jax.random.key(1), (2, features)))

    def is_held(gate):
        value = gates.get(gate)
        fits = value is not None and value.shape == (2, cell.hidden_size)
        return fits and bool(jnp.allclose(value[:, 0], jax.nn.sigmoid(1.0)))

    return {gate: letter for gate, letter in found.items() if is_held(gate)}


def _has_gates(cell) -> bool:
    """Whether it has gates to look at."""

    def gates():
        params = cell.init(jax.random.key(0), 1)
        return cell.gates(params, cell.initial_carry(1), jnp.zeros((1, 1)))

    return bool(jax.eval_shape(gates))


def drawn(range_: np.ndarray, draws: int, seed: int) -> dict[str, np.ndarray]:
    """As many long units as short ones, all of those that are fewer, drawn so many times: by range, (draws,
    hidden_size) bool; nothing where there are none of a range."""
    rng, number = np.random.default_rng(seed), min((range_ == name).sum() for name in RANGES)
    found = {}
    for name in RANGES[: 2 * bool(number)]:
        found[name] = np.zeros((draws, len(range_)), bool)
        for row in found[name]:
            row[rng.choice(np.flatnonzero(range_ == name), number, replace=False)] = True
    return found


def holding(score: Callable, letters: dict[str, str]) -> Callable:
    """(cell's parameters, units (sets, hidden_size), means of the gates by name) -> `score` of the parameters
    where a gate of these units is held at each of HELD_AT: by gate, (sets, 3, ...)."""

    def held(params, units, means):
        def of(gate):
            middle = jnp.clip(means[gate], 1e-6, 1 - 1e-6)
            middle = jnp.log(middle) - jnp.log1p(-middle)
            ends = jnp.full_like(middle, SHUT)
            biases = jnp.stack([-ends, ends, middle])

            def one(units):
                return jax.lax.map(
                    lambda bias: score(identity.held(params, {letters[gate]: bias}, units)), biases
                )

            return jax.lax.map(one, units)

        return {gate: of(gate) for gate in letters}

    return held


def looked_into(result, short: float, probed: int, tested: int, draws: int) -> list[dict]:
    """Of every seed of a run on `mixed_recall` that solved it, a row for each unit and gate ("unit"), and for
    each gate, what it is held at, and in units of which range ("held").

    Args:
      short: steps below which a memory time is short; above half of the gap it is long.
      probed: sequences by which memory times and gates are measured.
      tested: sequences by which accuracy is.
      draws: of the units that are held, see `drawn`.
    """
    config, spec, model = result.run.config, result.run.spec, result.run.model
    task, letters = config.task, gates_of(config.cell)
    tokens = task.eval_batch({}, "test", 0, probed).xs[:, :-1]  # what units do until they are asked
    others = probes.other_tokens(jax.random.key(0), tokens, task.symbols, task.distractors)
    batch = task.eval_batch({}, "test", 1, tested)

    @runs.compiled
    def look(params):
        own = probes.layer_params(params)
        xs, replaced = (probes.embedded(spec, params, t) for t in (tokens, others))
        memory = probes.unit_memory(config.cell, own, xs, of="state", lag="median")
        swap = probes.swap_memory(config.cell, own, xs, replaced, lag="median")
        return units.moments(config.cell, own, xs), memory, swap

    @runs.compiled
    def hold(params, masks, means):
        def accuracy(own):  # of long ago, of just now
            outputs = model.apply(params | {"layers": {"0": {"forward": own}}}, batch.xs)
            hits = outputs.argmax(-1) == batch.ys
            return jnp.stack([hits[:, -1].mean(), hits[:, task.lag + 1 : -1].mean()])

        own = probes.layer_params(params)
        return accuracy(own), holding(accuracy, letters)(own, masks, means)

    rows, stages = [], (runs.initial(result), runs.trained(result))
    for lane, run in enumerate(runs.seeds(result)):
        if not run["solved"]:
            continue
        before, after = (runs.lane(stage, lane) for stage in stages)
        (old, _, _), (gates, memory, swap) = jax.device_get((look(before), look(after)))
        range_ = units.ranges(memory, swap, task.gap / 2, short)
        for gate, i in itertools.product(letters, range(len(range_))):
            row = {"kind": "unit", "seed": run["seed"], "unit": i, "gate": gate, "range": str(range_[i])}
            row |= {"memory": float(memory[i]), "swap": float(swap[i])}
            for suffix, of in (("", gates), ("_before", old)):
                mean, std = (round(float(values[i]), 4) for values in of[gate])
                row |= {f"mean{suffix}": mean, f"std{suffix}": std}
            rows.append(row)
        masks = drawn(range_, draws, run["seed"])
        if not masks:
            continue
        means = {gate: gates[gate][0] for gate in letters}
        whole, held = jax.device_get(hold(after, np.concatenate(list(masks.values())), means))
        for gate, accuracy in held.items():
            lost = whole - accuracy.reshape(2, draws, len(HELD_AT), 2).mean(1)
            rows += [
                {"kind": "held", "seed": run["seed"], "gate": gate, "to": to, "range": of}
                | {"units": int(masks[of][0].sum())}
                | {"long_lost": float(lost[i, j, 0]), "short_lost": float(lost[i, j, 1])}
                for i, of in enumerate(masks)
                for j, to in enumerate(HELD_AT)
            ]
    return rows
