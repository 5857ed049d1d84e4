"""What simpler things a cell becomes when its gates are held constant: values and gradients against theirs.

  python -m experiments.identities
  python -m experiments.identities --seeds=20 --config.rnn_steps=5000

With r = 1, z = 0 a GRU is an RNN; with f = 1, i = 0 the cell of an LSTM is a store. Both are algebra: what
is checked is that the code obeys it, in float32, over long sequences, as far as rounding goes. Beside each
stands a control, a gate not quite held, which has to be far off: else the comparison could not have failed.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pandas as pd

import cells
from experiments.lab import experiment, identity, probes, protocol
from experiments.lab.experiment import Claim, Experiment, Verdict

CLAIMS = {
    "gru_is_rnn": Claim(
        "With r = 1, z = 0 a GRU is a plain RNN",
        identity.parts("gru_is_rnn", "those of an RNN with its candidate's weights", "a GRU with z = 0.01"),
    )
}
RNN = "GRU, r = 1, z = 0: an RNN"
STORE = "LSTM, f = 1, i = 0: c stays"


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    seeds: int = 10
    rnn_steps: int = 1000
    hold_steps: int = 10_000


PRESETS = {
    "quick": Settings(seeds=1, rnn_steps=30, hold_steps=50),
    "fast": Settings(),
    "full": Settings(seeds=50),
}


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`identities`: deviations by check, what is compared, and seed; `control`: whether it is one."""
    return {
        "identities": pd.DataFrame(
            lab.do("identities", dataclasses.asdict(settings), lambda: _rows(settings))
        )
    }


def _rows(settings) -> list[dict]:
    checks = (
        (RNN, lambda key: _gru_is_rnn(key, False, settings.rnn_steps)),
        (RNN, lambda key: _gru_is_rnn(key, True, settings.rnn_steps)),
        (STORE, lambda key: _lstm_holds(key, settings.hold_steps)),
    )
    return [row for name, check in checks for row in identity.measured(name, check, settings.seeds)]


def _gru_is_rnn(key, reset_after, steps):
    """A GRU with gates held, and with z = 0.01 for a control, against an RNN of its candidate's weights."""
    H, keys = 16, jax.random.split(key, 3)
    gru = cells.get("gru", hidden_size=H, reset_after=reset_after)
    rnn = cells.get("rnn", hidden_size=H)
    xs, free = jax.random.normal(keys[0], (2, steps, H)), gru.init(keys[1], H)
    shared = {"W": free["W_n"], "U": free["U_n"], "b": jax.random.normal(keys[2], (H,))}

    def as_gru(shared, z):
        held = identity.held(free, {"r": 1e4, "z": z})  # in float32 sigmoid(1e4) is 1 and sigmoid(-1e4) is 0
        return held | {f"{name}_n": value for name, value in shared.items()}

    runs = {"scan": lambda cell, params, xs: cells.scan(cell, params, xs)[1]}
    if not reset_after:
        runs["textbook step"] = lambda cell, params, xs: probes.trace(cell, params, xs).ys
    variant, deviations = "gru:reset_after=true" if reset_after else "gru", {}
    for path, run in runs.items():
        wanted = identity.with_gradients(lambda p, xs, run=run: run(rnn, p, xs), shared, xs, keys[2])
        for z, control in ((-1e4, False), (math.log(0.01 / 0.99), True)):  # z = 0, and z = 0.01
            got = identity.with_gradients(
                lambda p, xs, run=run, z=z: run(gru, as_gru(p, z), xs), shared, xs, keys[2]
            )
            for what in got:
                deviations[f"{variant}, {what}, {path}", control] = identity.deviation(
                    got[what], wanted[what]
                )
    return deviations


def _lstm_holds(key, steps):
    """c of an LSTM at every step, with f = 1, and with f = 0.999 for a control, against c at the start."""
    H, keys = 16, jax.random.split(key, 3)
    cell = cells.get("lstm", hidden_size=H)
    xs, free = jax.random.normal(keys[0], (steps, 1, H)), cell.init(keys[1], H)
    start = cell.initial_carry(1)._replace(c=jax.random.normal(keys[2], (1, H)))
    deviations = {}
    for bias, control in ((1e4, False), (7.0, True)):  # f = 1, and f = 0.999
        params = identity.held(free, {"f": bias, "i": -1e4})

        def step(carry, x, params=params):
            carry, _ = cell.step(params, carry, x)
            return carry, carry.c

        cs = jax.lax.scan(step, start, xs)[1]
        deviations["c at every step", control] = identity.deviation(cs, jnp.broadcast_to(start.c, cs.shape))
    return deviations


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """The parts of `gru_is_rnn`, by `identity.verdicts`."""
    return identity.verdicts(frames["identities"], RNN, "gru_is_rnn")


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """The worst deviations."""
    return identity.table(frames["identities"])


def figures(frames) -> dict:
    """None: a number says it."""
    return {}


EXPERIMENT = Experiment(
    "What simpler things does a cell become when its gates are held constant?",
    CLAIMS, PRESETS, measure, judge, tables, figures,
)  # fmt: skip

if __name__ == "__main__":
    experiment.command(EXPERIMENT)
