"""PyTorch's LSTM with the budget of ours, to tell an implementation from a protocol (pip install '.[dev]').

  python -m experiments.reference.torch_lstm
  python -m experiments.reference.torch_lstm --start=ours --steps=600 --seeds=1
  python -m experiments.reference.torch_lstm --task=ptb_chars_small

Data, steps, optimiser, schedule, clipping, dropout and parameters are those of the sweep: the same pieces in
every batch of jsb; ptb_chars as streams, with truncated backpropagation. Weights start as PyTorch's; with
--start=ours, of jsb, as ours: then only the implementation and the dropped units are other ones.
Prints the test at the end and at the best validation result, per seed.
"""

import copy
import dataclasses
import functools
import gzip
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import torch
from absl import flags

import cells
import configs
from experiments import entry
from train.config import OptimConfig, TrainConfig
from train.model import ModelConfig, build
from train.optim import schedule
from train.step import step_keys
from train.tasks import DataError
from train.tasks.datasets import VARIABLE

FLAGS = flags.FLAGS


class Budget(NamedTuple):
    """What a model is trained with."""

    parameters: int
    model: ModelConfig
    optim: OptimConfig
    train: TrainConfig


class Task(NamedTuple):
    """Where batches come from, and what they cost.

    batch(seed, step) -> xs, ys, weights, whether the state is kept from the step before; tensors.
    held_out(split) -> an iterable of the same.
    loss(outputs, ys) -> nats of each answer, shaped like weights.
    ours(hidden, seed) -> our initial weights, for `Model`; None: there are none.
    """

    inputs: int
    outputs: int
    tokens: bool
    metric: str
    unit: float  # nats times this is the metric
    batch: Callable
    held_out: Callable
    loss: Callable
    ours: Callable | None = None


class Model(torch.nn.Module):
    """Embedding, LSTM, dropout, head: as `train.model` has them."""

    def __init__(self, task: Task, hidden: int, config: ModelConfig):
        super().__init__()
        size = config.embedding_size or (hidden if task.tokens else task.inputs)
        self.embed = torch.nn.Embedding(task.inputs, size) if task.tokens else torch.nn.Identity()
        between = config.dropout if config.depth > 1 else 0.0
        self.lstm = torch.nn.LSTM(size, hidden, config.depth, batch_first=True, dropout=between)
        self.drop = torch.nn.Dropout(config.dropout)
        self.head = torch.nn.Linear(hidden, task.outputs)

    def forward(self, xs, state=None):
        ys, state = self.lstm(self.embed(xs), state)
        return self.head(self.drop(ys)), state


def parameters(task: Task, hidden: int, config: ModelConfig) -> int:
    """How many a model has."""
    with torch.device("meta"):
        return sum(p.numel() for p in Model(task, hidden, config).parameters())


def nearest_hidden(task: Task, budget: Budget) -> int:
    """The hidden size whose model comes nearest to the budget."""
    count = functools.partial(parameters, task, config=budget.model)
    above = next(hidden for hidden in range(1, 1 << 20) if count(hidden=hidden) >= budget.parameters)
    return min(max(above - 1, 1), above, key=lambda hidden: abs(count(hidden=hidden) - budget.parameters))


def jsb() -> tuple[Task, Budget]:
    """JSB chorales, with what our LSTM is trained with."""
    (run,) = map(configs.freeze, configs.sweep("jsb", ["lstm"]).values())
    data = run.task.load()
    train_batch = jax.jit(run.task.train_batch, static_argnums=3)

    def tensors(batch):
        return *(torch.from_numpy(np.array(x)) for x in (batch.xs, batch.ys, batch.weights)), False

    def batch(seed, step):
        return tensors(train_batch(data, step_keys(seed, step)[0], step, run.train.batch_size))

    @functools.cache
    def held_out(split):
        size = run.train.eval_batch_size
        parts = range(-(-run.task.eval_size(data, split) // size))
        return [tensors(run.task.eval_batch(data, split, part, size)) for part in parts]

    spec = run.task.spec(data)

    def ours(hidden, seed):
        cell = dataclasses.replace(run.cell, hidden_size=hidden)
        params = build(cell, spec, run.model).init(jax.random.fold_in(jax.random.key(seed), 0))
        return weights_of(cell, params)

    task = Task(spec.input_size, spec.output_size, False, spec.metric, 1.0, batch, held_out, frame_nll, ours)
    return task, Budget(run.parameters, run.model, run.optim, run.train)


def weights_of(cell: cells.Cell, params) -> dict[str, torch.Tensor]:
    """The weights of our model of one layer, without an embedding, as those of `Model`."""
    lstm, head = params["layers"]["0"]["forward"], params["head"]
    state = {f"lstm.{name}": x for name, x in cells.to_torch(cell, lstm).items()}
    state |= {"head.weight": head["kernel"].T, "head.bias": head["bias"]}
    return {name: torch.from_numpy(np.array(x)) for name, x in state.items()}


def frame_nll(outputs, ys):
    """Nats of each frame, over its keys."""
    costs = torch.nn.functional.binary_cross_entropy_with_logits(outputs, ys, reduction="none")
    return costs.sum(-1)


def ptb_chars(sweep: str) -> tuple[Task, Budget]:
    """Penn Treebank by character, with what our LSTM is trained with."""
    (run,) = map(configs.freeze, configs.sweep(sweep, ["lstm"]).values())
    length, rows = run.task.length, run.train.batch_size
    texts = {split: characters(split) for split in ("train", "valid", "test")}
    texts["valid"] = texts["valid"][: run.task.valid_limit or None]
    known = sorted(set(texts["train"]))
    streams = {}
    for split, text in texts.items():
        ids = torch.tensor([known.index(character) for character in text])
        each = (len(ids) - 1) // rows
        # The character after a stream's last one begins the next stream.
        streams[split] = ids[: each * rows].view(rows, each), ids[1 : each * rows + 1].view(rows, each)

    def piece(split, number):
        xs, ys = (x[:, number * length : (number + 1) * length] for x in streams[split])
        return xs, ys, torch.ones(xs.shape), number > 0

    def pieces(split):
        return -(-streams[split][0].shape[1] // length)

    task = Task(
        len(known), len(known), True, "bits_per_character", 1 / math.log(2),
        batch=lambda seed, step: piece("train", step % pieces("train")),
        held_out=lambda split: (piece(split, number) for number in range(pieces(split))),
        loss=lambda outputs, ys: torch.nn.functional.cross_entropy(outputs.mT, ys, reduction="none"),
    )  # fmt: skip
    return task, Budget(run.parameters, run.model, run.optim, run.train)


def characters(split: str, folder: str | None = None) -> str:
    """A split of Penn Treebank: lines without the spaces around them, "_" for a space.

    Raises:
      DataError: there is no file.
    """
    name = f"ptb.{split}.txt.gz"
    path = Path(folder or os.environ.get(VARIABLE, "."), "ptb", name)
    if not path.is_file():
        raise DataError(f"no {path}: {VARIABLE} has to name the folder that holds ptb/{name}")
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]
    return "".join(line.strip().replace(" ", "_") + "\n" for line in lines)


def evaluate(task: Task, model: Model, split: str) -> float:
    """The metric over a held-out split."""
    model.eval()
    total = weight = 0.0
    state = None
    with torch.no_grad():
        for xs, ys, weights, kept in task.held_out(split):
            outputs, state = model(xs, state if kept else None)
            total += float((weights * task.loss(outputs, ys)).sum())
            weight += float(weights.sum())
    model.train()
    return task.unit * total / weight


def train(task: Task, budget: Budget, rate: float, seed: int, start: str) -> None:
    """Trains one seed and prints what it gives."""
    torch.manual_seed(seed)
    hidden = nearest_hidden(task, budget)
    model = Model(task, hidden, budget.model)
    if start == "ours":
        model.load_state_dict(task.ours(hidden, seed))
    optimiser = torch.optim.Adam(model.parameters(), rate)
    rate_of = jax.jit(schedule(budget.optim, budget.train.steps, rate))
    best, best_step, best_weights, state = math.inf, 0, None, None
    started = time.monotonic()
    for step in range(budget.train.steps):
        xs, ys, weights, kept = task.batch(seed, step)
        outputs, state = model(xs, state if kept else None)
        state = tuple(x.detach() for x in state)
        loss = (weights * task.loss(outputs, ys)).sum() / weights.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), budget.optim.clip_norm or math.inf)
        optimiser.param_groups[0]["lr"] = float(rate_of(step))
        optimiser.step()
        last = step + 1 == budget.train.steps
        if last or (step + 1) % budget.train.eval_every == 0:
            valid = evaluate(task, model, "valid")
            print(f"seed {seed} {step + 1}/{budget.train.steps} valid {task.metric} {valid:.4f}", flush=True)
            if valid < best:
                best, best_step, best_weights = valid, step + 1, copy.deepcopy(model.state_dict())
    seconds, end = time.monotonic() - started, evaluate(task, model, "test")
    if best_weights is not None:
        model.load_state_dict(best_weights)
    print(
        f"seed {seed}: torch {torch.__version__} lstm, {hidden} units, initial weights: {start}, "
        f"{parameters(task, hidden, budget.model):,} parameters, learning rate {rate:g}, "
        f"{budget.train.steps} steps: test {task.metric} {end:.3f}, at best (step {best_step}) "
        f"{evaluate(task, model, 'test'):.3f}; {seconds:.0f} s"
    )


def main(words: list[str]) -> int:
    """Trains every seed; returns the exit code."""
    if words:
        raise ValueError(f"unexpected argument {words[0]!r}; flags begin with --")
    if FLAGS.task != "jsb" and FLAGS.start == "ours":
        raise ValueError("--start=ours is of --task=jsb")
    task, budget = jsb() if FLAGS.task == "jsb" else ptb_chars(FLAGS.task)
    steps, seeds = FLAGS.steps or budget.train.steps, FLAGS.seeds or budget.train.seeds
    budget = budget._replace(train=TrainConfig(**vars(budget.train) | {"steps": steps, "seeds": seeds}))
    rates = budget.optim.learning_rates or (budget.optim.learning_rate,)
    for seed in range(budget.train.seed, budget.train.seed + seeds):
        train(task, budget, FLAGS.learning_rate or max(rates), seed, FLAGS.start)
    return 0


def define_flags() -> None:
    """Of the command; not where it is imported, as others have flags of these names."""
    flags.DEFINE_enum("task", "jsb", ["jsb", "ptb_chars", "ptb_chars_small"], "What to train on.")
    flags.DEFINE_enum("start", "torch", ["torch", "ours"], "Whose initial weights.")
    flags.DEFINE_float("learning_rate", None, "Instead of the highest of the task's.", 0.0)
    flags.DEFINE_integer("steps", None, "Instead of the task's budget.", lower_bound=1)
    flags.DEFINE_integer("seeds", None, "Instead of the task's.", lower_bound=1)


if __name__ == "__main__":
    define_flags()
    entry.run(main, __doc__)
