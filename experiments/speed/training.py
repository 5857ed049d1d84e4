"""The whole loop against straightforward ones: what a competent user writes from the documentation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import configs
from experiments.lab import runs
from experiments.lab.timing import Case
from experiments.speed import layers
from experiments.speed.layers import UNLIKE

TASKS = {"delayed_recall": {"gap": 100}, "digits": {"pixels_per_step": 4}}
BATCH, HIDDEN = 32, 64
STEPS = 25  # optimiser steps of one timed run of each loop
RATE, CLIP = 3e-3, 1.0


def config(cell: str, task: str, seeds: int, hidden_size: int = HIDDEN):
    """One layer, no dropout: what the other loops have as well."""
    return configs.freeze(
        configs.make(
            cell,
            task,
            cell={"hidden_size": hidden_size},
            task=TASKS[task],
            model={"depth": 1, "dropout": 0.0, "embedding_size": 0, "pooling": "last"},
            optim={"learning_rate": RATE, "clip_norm": CLIP, "schedule": "constant", "warmup_steps": 0},
            train={
                "seeds": seeds,
                "batch_size": BATCH,
                "eval_every": STEPS,
                "steps": 1_000_000,
                "stop_when_solved": False,
            },
        )
    )


def cases(cell_names, seed_counts, rival_names, hidden_size: int = HIDDEN) -> list[Case]:
    """All loops on all tasks; `ms` is per seed and optimiser step. Other loops train one seed at a time."""
    found = []
    for task in TASKS:
        for name in cell_names:
            for seeds in seed_counts:
                labels = {"task": task, "cell": name, "library": "ours", "seeds": seeds}
                labels["gflop"] = gflop(name, task, hidden_size)
                make = _maker(ours, name, task, seeds, hidden_size)
                found.append(Case(labels, make, STEPS * seeds))
        for kind in dict.fromkeys(UNLIKE.get(name, name) for name in cell_names):
            for library, loop in (("nnx", flax_loop), ("torch", torch_loop)):
                if library in rival_names:
                    labels = {"task": task, "cell": kind, "library": library, "seeds": 1}
                    found.append(Case(labels, _maker(loop, kind, task, hidden_size), STEPS))
    return found


def gflop(cell: str, task: str, hidden_size: int) -> float:
    """The matmuls of the cell in one optimiser step of one seed, forward and backward."""
    run = config(cell, task, 1, hidden_size)
    spec = run.task.spec(run.task.load())
    features = hidden_size if spec.inputs == "tokens" else spec.input_size
    return layers.gflop(run.cell, BATCH, spec.time, "gradient", features)


def _maker(f, *args):
    return lambda: f(*args)


def ours(cell: str, task: str, seeds: int, hidden_size: int):
    """One dispatch of the program that `train.loop` runs."""
    return runs.training(config(cell, task, seeds, hidden_size))


def flax_loop(kind: str, task_name: str, hidden_size: int):
    """Flax nnx: a module, an optimiser, one jitted step per batch."""
    from flax import nnx

    task = config(kind, task_name, 1).task
    data = jax.device_put(task.load())
    spec = task.spec(data)
    cell = {"rnn": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}[kind]

    class Model(nnx.Module):
        def __init__(self, rngs):
            tokens = spec.inputs == "tokens"
            features = hidden_size if tokens else spec.input_size
            self.embed = nnx.Embed(spec.input_size, hidden_size, rngs=rngs) if tokens else None
            self.rnn = nnx.RNN(cell(features, hidden_size, rngs=rngs), rngs=rngs)
            self.head = nnx.Linear(hidden_size, spec.output_size, rngs=rngs)

        def __call__(self, xs):
            xs = self.embed(xs) if self.embed else xs
            return self.head(self.rnn(xs)[:, -1])

    model = Model(nnx.Rngs(0))
    rule = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE))
    optimizer = nnx.Optimizer(model, rule, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, xs, ys):
        def loss_of(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(xs), ys).mean()

        loss, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads)
        return loss

    batch_of = jax.jit(lambda step: task.train_batch(data, jax.random.key(0), step, BATCH))
    step = 0

    def once():
        nonlocal step
        for _ in range(STEPS):
            batch = batch_of(step)
            loss = train_step(model, optimizer, batch.xs, batch.ys)
            step += 1
        float(loss)  # logged every so often

    return once


def torch_loop(kind: str, task_name: str, hidden_size: int):
    """PyTorch on the CPU: a module, Adam, a Python loop over batches."""
    import torch

    task = config(kind, task_name, 1).task
    data = task.load()
    spec = task.spec(data)
    layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]
    tokens = spec.inputs == "tokens"

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(spec.input_size, hidden_size) if tokens else torch.nn.Identity()
            self.rnn = layer(hidden_size if tokens else spec.input_size, hidden_size, batch_first=True)
            self.head = torch.nn.Linear(hidden_size, spec.output_size)

        def forward(self, xs):
            return self.head(self.rnn(self.embed(xs))[0][:, -1])

    def recall_batch():
        symbols = torch.randint(0, task.symbols, (BATCH, 1))
        query = task.symbols + task.distractors
        fillers = torch.randint(task.symbols, query, (BATCH, task.gap))
        return torch.cat([symbols, fillers, torch.full((BATCH, 1), query)], dim=1), symbols[:, 0]

    def digits_batch(xs, ys):
        rows = torch.randint(0, len(ys), (BATCH,))
        return xs[rows], ys[rows]

    if task_name == "delayed_recall":
        batch_of = recall_batch
    else:
        rows = np.array(task.inputs(jnp.asarray(data["train"]["xs"])))
        digits = torch.from_numpy(rows), torch.from_numpy(np.array(data["train"]["ys"])).long()
        batch_of = lambda: digits_batch(*digits)  # noqa: E731
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    loss_of = torch.nn.CrossEntropyLoss()

    def once():
        for _ in range(STEPS):
            xs, ys = batch_of()
            optimizer.zero_grad()
            loss = loss_of(model(xs), ys)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
        loss.item()

    return once
