"""One step at a time: how long a loop in real time waits for `TrainedRun.step`, and for PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np

import cells
from experiments.lab.timing import Case
from experiments.speed.layers import UNLIKE
from train.model import build
from train.tasks.base import Spec
from train.trained import one_step

STEPS = 100  # of one timed run, each waited for
FEATURES, OUTPUTS = 8, 4
SIZES = ((1, 64), (1, 256))  # batch, hidden_size
SPEC = Spec(
    inputs="features", input_size=FEATURES, output_size=OUTPUTS, per_step=True, pooling="last",
    loss="cross_entropy", metric="accuracy", threshold=1.0, baseline=0.0, time=STEPS,
)  # fmt: skip


def cases(names, rivals, sizes=SIZES) -> list[Case]:
    """A model of one layer and a head; `ms` is of one step, from input on the host to output on the host."""
    found = []
    for batch, hidden_size in sizes:
        for name in names:
            size = hidden_size - hidden_size % cells.CELLS.cls(name).size_multiple()
            labels = {"batch": batch, "hidden_size": size, "cell": name, "library": "ours"}
            found.append(Case(labels, _maker(ours, name, batch, size), STEPS))
        for kind in dict.fromkeys(UNLIKE.get(name, name) for name in names):
            if "torch" in rivals and kind in ("rnn", "lstm", "gru"):
                labels = {"batch": batch, "hidden_size": hidden_size, "cell": kind, "library": "torch"}
                found.append(Case(labels, _maker(torch_loop, kind, batch, hidden_size), STEPS))
    return found


def _maker(loop, *args):
    return lambda: loop(*args)


def inputs(batch: int) -> np.ndarray:
    """(STEPS, batch, FEATURES) float32."""
    return np.random.default_rng(0).normal(size=(STEPS, batch, FEATURES)).astype(np.float32)


def ours(name: str, batch: int, hidden_size: int):
    """The loop that a user writes."""
    model = build(cells.get(name, hidden_size=hidden_size), SPEC)
    params, step, xs = model.init(jax.random.key(0)), jax.jit(one_step(model, SPEC)), inputs(batch)
    start = model.initial_carry(batch, jnp.float32)

    def run():
        carry = start
        for x in xs:
            carry, outputs = step(params, x, carry)
            np.asarray(outputs)

    return run


def torch_loop(kind: str, batch: int, hidden_size: int):
    """The same of PyTorch."""
    import torch

    layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](FEATURES, hidden_size)
    head, xs = torch.nn.Linear(hidden_size, OUTPUTS), inputs(batch)

    @torch.inference_mode()
    def run():
        carry = None
        for x in xs:
            ys, carry = layer(torch.from_numpy(x)[None], carry)
            head(ys[0]).numpy()

    return run
