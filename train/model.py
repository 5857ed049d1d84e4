"""The model around the cells: embedding or dense input, a stack of cell layers, a head (Flax nnx).

The training loop sees pure functions on a plain nested dict of arrays (`Model`). Cells stay Flax-free;
`train.layers` wraps them. Randomness comes in by explicit keys only.
"""

import dataclasses
import math
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import cells
from cells.base import require
from cells.convolution import ShortConvolution
from cells.registry import nearest
from cells.scans import valid_steps
from train import effects
from train.layers import Gated, Layer, stack_width
from train.tasks.base import Spec

INT32 = 2**31 - 1  # sizes, steps, seeds and rows are counted so on the device
BLOCKS = ("bare", "residual", "gated")
CONNECTIONS = ("none", "residual", "highway")
NORMS = ("none", "pre", "post")
DTYPES = ("float32", "bfloat16")
POOLINGS = ("task", "last", "mean", "max")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model around the cell.

    Options:
      depth: layers of cells.
      block: what a layer is. "bare": the cell, with connection and layer_norm as below. "residual":
        x + cell(norm(x)). "gated": as Griffin (De et al. 2024), Mamba (Gu & Dao 2023) and xLSTM (Beck et al.
        2024) wrap their cells, see `Gated`. With both, x is as wide as the cell, inputs go through a dense
        layer or an embedding of that size, and a norm stands before the head.
      conv_width: inputs that the short convolution of a "gated" block sees.
      mlp_expansion: hidden units of a "gated" block's MLP, in times its width; 0: no MLP, as in Mamba.
      bidirectional: a second cell in each layer reads each row from its last real step to its first.
      connection: around each "bare" layer: "none", "residual" (y + x), or "highway" (Srivastava 2015:
        t * y + (1 - t) * x with t = sigma(W x + b)). Where sizes differ, x goes through a projection.
      layer_norm: "none", "pre" (on the cells' input; the connection goes around it) or "post" (on what
        the layer gives on).
      dropout: probability of dropping an output of a layer; of a block, of what it adds to x.
      variational: one dropout mask for all steps of a sequence (Gal & Ghahramani 2016).
      embedding_size: tokens: size of the embedding, 0 for the hidden size. Features: size of a dense
        layer before the stack, 0 for none. A block has no choice.
      embedding_scale: standard deviation of the initial embedding.
      pooling: for one answer per sequence: the outputs at the "last" step, their "mean" or "max" over
        steps, or what the "task" suggests. The backward direction's last step is the row's first.
      strategy: how the cells run over time, as for `cells.scan`: "newton:window=1".
      remat: long sequences in little memory: gradients keep the states only every so many steps and
        compute the rest again; -1: every sqrt(time) steps; 0: keep everything.
      compute_dtype: "bfloat16" halves what matmuls and layers read and write; parameters, the cells'
        state, the loss and the optimiser stay float32.
    """

    depth: int = 1
    block: str = "bare"
    conv_width: int = 4
    mlp_expansion: int = 3
    bidirectional: bool = False
    connection: str = "none"
    layer_norm: str = "none"
    dropout: float = 0.0
    variational: bool = False
    embedding_size: int = 0
    embedding_scale: float = 1.0
    pooling: str = "task"
    strategy: str = "auto"
    remat: int = 0
    compute_dtype: str = "float32"

    def __post_init__(self):
        for option, least, most in (
            ("depth", 1, 1000),
            ("conv_width", 1, 1000),
            ("mlp_expansion", 0, 1000),
            ("embedding_size", 0, INT32),
            ("remat", -1, INT32),
        ):
            value = getattr(self, option)
            whole = type(value) is int and least <= value <= most
            require(self, option, whole, f"an integer, {least} to {most}")
        scale = self.embedding_scale
        require(self, "embedding_scale", isinstance(scale, int | float) and 0 < scale < math.inf, "above 0")
        for option in ("bidirectional", "variational"):
            require(self, option, isinstance(getattr(self, option), bool), "True or False")
        number = isinstance(self.dropout, int | float) and not isinstance(self.dropout, bool)
        require(self, "dropout", number and 0 <= self.dropout < 1, "in [0, 1)")
        choices = {
            "block": BLOCKS,
            "connection": CONNECTIONS,
            "layer_norm": NORMS,
            "pooling": POOLINGS,
            "compute_dtype": DTYPES,
        }
        for option, known in choices.items():
            value = getattr(self, option)
            if value not in known:
                raise ValueError(f"ModelConfig: unknown {option} {value!r}; {nearest(value, known)}")
        effects.refuse(types.SimpleNamespace(model=self), "model")
        # One text for each strategy: "newton:window=0" is "newton".
        object.__setattr__(self, "strategy", str(cells.scans.parse(self.strategy) or "auto"))


class Model(NamedTuple):
    """A model as pure functions, safe under jit, grad and vmap.

    Attributes:
      init: (key) -> params, a nested dict of float32 arrays, fully determined by the key.
      apply: (params, xs, lengths=None, key=None, mask=None, resets=None, carry=None, return_carry=False) ->
        outputs, (batch, time, output_size) or (batch, output_size) as the task asks, float32 or wider. xs as
        in `Batch`; lengths, mask and resets as in `cells.scan`. key: of `jax.random.key`, or one for each
        row, (batch,), as `row_keys` makes them of it; without one nothing is dropped. With return_carry:
        (carry, outputs), where carry, given to the next piece of the same sequences, goes on as if there had
        been no cut; None is the beginning. One answer per sequence is then that of the steps so far. Raises
        ValueError for inputs that do not fit the task, and for a carry of what reads ahead or looks at all
        steps at the end.
      hidden_states: (params, xs, lengths, key, mask, resets, as for apply) -> list of each layer's outputs,
        (batch, time, width), width hidden_size or, bidirectional, twice that; zeros at padding.
      initial_carry: (batch, dtype) -> {layer: its cell's carry}, of zeros and the like; of a gated block
        {"cell": that, "convolution": of the inputs before, (batch, conv_width - 1, hidden_size)}; and where a
        sequence has one answer "pooled", what the head saw last, (batch, width).
      parameters: how many there are.
      state_size: how many real numbers the state of one sequence has, in all layers and directions.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]
    hidden_states: Callable[..., list[jax.Array]]
    initial_carry: Callable[..., dict[str, Any]]
    parameters: int
    state_size: int


class Network(nnx.Module):
    """Embedding or dense input, the stack, with blocks a norm, the head."""

    def __init__(self, cell, spec: Spec, config: ModelConfig, over_time: Callable, rngs: nnx.Rngs):
        self.spec, self.config = spec, config
        size = input_width(cell.hidden_size, spec, config)
        if spec.inputs == "tokens":
            # By default inputs of mean 0 and variance 1: what the cells' initialisation takes them to be.
            normal = nnx.initializers.normal(config.embedding_scale)
            self.embed = nnx.Embed(spec.input_size, size, embedding_init=normal, rngs=rngs)
            self.embed.dtype = None  # the parameters', as in nnx.Linear, not the one it was built with
        elif config.embedding_size or config.block != "bare":
            self.dense = nnx.Linear(spec.input_size, size, rngs=rngs)
        self.layers = nnx.Dict()
        for number in range(config.depth):
            if config.block == "gated":
                self.layers[str(number)] = Gated(cell, config, over_time, rngs)
            else:
                self.layers[str(number)] = Layer(cell, size, plain(config), over_time, rngs)
            size = self.layers[str(number)].width
        if config.block != "bare":
            self.norm = nnx.LayerNorm(size, rngs=rngs)
        self.head = nnx.Linear(size, spec.output_size, rngs=rngs)

    def entered(self, xs):
        """What the first layer sees: embedded tokens; features, or what a dense layer makes of them."""
        if self.spec.inputs == "tokens":
            return self.embed(xs)
        return self.dense(xs) if hasattr(self, "dense") else xs

    def hidden_states(self, xs, lengths=None, key=None, mask=None, resets=None, carry=None):
        """The carry after the last step, and the states; both by layer."""
        check_inputs(self.spec, xs, lengths, mask, resets)
        keys = row_keys(key, len(xs)) if key is not None and key.ndim == 0 else key
        real = valid_steps(lengths, mask, xs.shape[1])

        def clear(xs):  # what padding holds, NaN too, must reach neither outputs nor gradients
            return xs if real is None else jnp.where(real.reshape(real.shape + (1,) * (xs.ndim - 2)), xs, 0)

        xs = self.entered(clear(xs))
        steps = {"lengths": lengths, "mask": mask, "resets": resets}
        resets_backward = backward_resets(resets, real) if self.config.bidirectional else None
        states, last = [], {}
        for number in map(str, range(self.config.depth)):
            layer_key = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, int(number))
            before = None if carry is None else carry[number]
            last[number], xs = self.layers[number](xs, steps, resets_backward, layer_key, before)
            xs = clear(xs)
            states.append(xs)
        return last, states

    def __call__(
        self, xs, lengths=None, key=None, mask=None, resets=None, carry=None, return_carry: bool = False
    ):
        pooling = self.spec.pooling if self.config.pooling == "task" else self.config.pooling
        if return_carry or carry is not None:
            self.check_pieces(carry, pooling)
        before = carry
        carry, states = self.hidden_states(xs, lengths, key, mask, resets, carry)
        if return_carry and None in carry.values():
            raise ValueError("with time over devices there is no carry from piece to piece")
        ys = self.norm(states[-1]) if hasattr(self, "norm") else states[-1]
        if not self.spec.per_step:
            real = valid_steps(lengths, mask, xs.shape[1])
            ys = pool(ys, real, pooling, self.config.bidirectional)
            if return_carry:
                if (
                    before is not None and real is not None
                ):  # a row that has ended, or pauses, stays what it was
                    ys = jnp.where(real.any(1)[:, None], ys, before["pooled"].astype(ys.dtype))
                carry["pooled"] = ys.astype(jnp.promote_types(ys.dtype, jnp.float32))
        outputs = self.head(ys)
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return (carry, outputs) if return_carry else outputs

    def check_pieces(self, carry, pooling: str) -> None:
        """Raises ValueError unless sequences in pieces give what they give as a whole."""
        if self.config.bidirectional:
            raise ValueError("a bidirectional model reads from the end: it has no carry from piece to piece")
        if not self.spec.per_step and pooling != "last":
            raise ValueError(
                f"model.pooling={pooling} looks at all steps: it has no carry from piece to piece"
            )
        layers = {str(number) for number in range(self.config.depth)}
        parts = layers if self.spec.per_step else layers | {"pooled"}
        fits = carry is None or isinstance(carry, dict) and set(carry) == parts
        if fits and carry is not None and self.config.block == "gated":
            each = [carry[number] for number in layers]
            fits = all(isinstance(of, dict) and set(of) == {"cell", "convolution"} for of in each)
        if not fits:
            kind = "" if self.config.block == "bare" else f" {self.config.block}"
            raise ValueError(f"carry must be that of {self.config.depth}{kind} layers, as apply returned it")


def plain(config: ModelConfig) -> ModelConfig:
    """What a "residual" block is in other words."""
    if config.block != "residual":
        return config
    return dataclasses.replace(config, block="bare", connection="residual", layer_norm="pre")


def input_width(hidden_size: int, spec: Spec, config: ModelConfig) -> int:
    """Number of features that the first layer sees."""
    if config.block != "bare":
        return stack_width(hidden_size, config)
    return config.embedding_size or (hidden_size if spec.inputs == "tokens" else spec.input_size)


def check_inputs(spec: Spec, xs, lengths, mask, resets) -> None:
    """Raises ValueError, one line, unless the arguments of `Model.apply` fit the task and each other."""
    tokens = spec.inputs == "tokens"
    kind = jnp.integer if tokens else jnp.floating
    shape, features = jnp.shape(xs), () if tokens else (spec.input_size,)
    if len(shape) != 2 + len(features) or shape[2:] != features or not jnp.issubdtype(xs.dtype, kind):
        wanted = "integers (batch, time)" if tokens else f"floating (batch, time, {spec.input_size})"
        raise ValueError(f"xs must be {wanted}, got {xs.dtype} {shape}")
    wanted = {"lengths": (lengths, shape[:1]), "mask": (mask, shape[:2]), "resets": (resets, shape[:2])}
    for name, (array, want) in wanted.items():
        if array is not None and jnp.shape(array) != want:
            raise ValueError(f"{name} must have shape {want}, got {jnp.shape(array)}")
    if tokens and not any(isinstance(x, jax.core.Tracer) for x in (xs, lengths, mask)):
        with jax.ensure_compile_time_eval():  # constants of a program that is being traced
            real = valid_steps(lengths, mask, xs.shape[1])
        _check_tokens(np.asarray(xs), real, spec.input_size)


def _check_tokens(xs, real, size: int) -> None:
    """Raises ValueError for an id that no embedding has: under jit -1 would silently be the last one."""
    wrong = (xs < 0) | (xs >= size)
    if real is not None:
        wrong &= np.asarray(real)
    if wrong.any():
        row, step = np.argwhere(wrong)[0]
        raise ValueError(f"xs: token {xs[row, step]} in row {row}, step {step} is not in 0..{size - 1}")


def backward_resets(resets, real):
    """Resets for reading backwards, so that no episode sees the next one; (batch, time) bool.

    `cells.scan` resets before a step in the order in which steps are taken. Backwards that is the last
    real step of an episode: the one whose next real step has a reset.
    """
    if resets is None or real is None:
        return None if resets is None else jnp.roll(resets, -1, axis=1).at[:, -1].set(False)
    time = resets.shape[1]
    # The first real step at or after each step; `time` where there is none.
    following = jax.lax.cummin(jnp.where(real, jnp.arange(time), time), axis=1, reverse=True)
    following = jnp.pad(following[:, 1:], ((0, 0), (0, 1)), constant_values=time)
    return jnp.take_along_axis(jnp.pad(resets, ((0, 0), (0, 1))), following, axis=1)


def row_keys(key, rows: int, first=0):
    """A key for each of so many rows of a batch, counted from row `first` of it: (rows,)."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(rows))


def pool(ys, real, pooling: str, bidirectional: bool):
    """(batch, time, width) -> (batch, width) over the real steps; zeros for a row that has none."""
    if real is None:  # every step is
        forward, backward = jnp.split(ys, 2, axis=-1) if bidirectional else (ys, ys[..., :0])
        last = jnp.concatenate([forward[:, -1], backward[:, 0]], axis=-1)
        return {"mean": ys.mean(1), "max": largest(ys), "last": last}[pooling]
    some = real[..., None]
    if pooling == "mean":
        return jnp.where(some, ys, 0).sum(1) / jnp.maximum(some.sum(1), 1)
    if pooling == "max":
        return jnp.where(some.any(1), largest(jnp.where(some, ys, -jnp.inf)), 0)

    def at(steps, ys):
        picked = jnp.take_along_axis(ys, steps[:, None, None], axis=1)[:, 0]
        return jnp.where(some.any(1), picked, 0)

    last = real.shape[1] - 1 - jnp.argmax(real[:, ::-1], axis=1)
    if not bidirectional:
        return at(last, ys)
    # The last step that the backward direction takes is the first one of the row.
    forward, backward = jnp.split(ys, 2, axis=-1)
    return jnp.concatenate([at(last, forward), at(jnp.argmax(real, axis=1), backward)], axis=-1)


def largest(ys):
    """The maximum over time, (batch, time, width) -> (batch, width), by its place.

    The gradient of `max` compares what may have been computed twice, with another rounding each time, and
    then finds no maximum: whole entries of the gradient were lost in programs compiled without optimisation.
    """
    return jnp.take_along_axis(ys, jnp.argmax(ys, axis=1, keepdims=True), axis=1)[:, 0]


def build(cell: cells.Cell, spec: Spec, config: ModelConfig = ModelConfig(), time_devices: int = 1) -> Model:
    """The model of a cell for a task.

    Args:
      time_devices: devices that share the steps; above 1 the model is to be applied under a `jax.shard_map`
        over an axis "time" of that size, with everything the same on all of them.

    Raises:
      ValueError: the cell cannot use the strategy.
    """
    cells.scans.resolve(cell, config.strategy)

    def over_time(cell, params, xs, **steps):
        if time_devices > 1:
            if steps.pop("carry", None) is not None:
                raise ValueError("with time over devices there is no carry from piece to piece")
            within = cells.scans.over_devices.within
            return None, within(cell, params, xs, time_devices, strategy=config.strategy, **steps)
        return cells.scan(cell, params, xs, strategy=config.strategy, remat=config.remat, **steps)

    def network(key):
        return Network(cell, spec, config, over_time, nnx.Rngs(key))

    def init(key):
        return nnx.to_pure_dict(nnx.split(network(key))[1])

    graph, shapes = nnx.split(nnx.eval_shape(lambda: network(0)))

    def low(tree):
        if config.compute_dtype == "float32":
            return tree  # as it is: float64 parameters compute in float64

        def cast(x):
            x = jnp.asarray(x)
            return x.astype(config.compute_dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

        return jax.tree.map(cast, tree)

    def apply(params, xs, *more, **named):
        return nnx.merge(graph, low(params))(low(xs), *more, **named)

    def hidden_states(params, xs, *more, **named):
        return nnx.merge(graph, low(params)).hidden_states(low(xs), *more, **named)[1]

    def initial_carry(batch, dtype=jnp.float32, cell=cell):
        def of_layer():
            state = cell.initial_carry(batch, dtype)
            if config.block != "gated":
                return state
            convolution = ShortConvolution(cell.hidden_size, config.conv_width)
            return {"cell": state, "convolution": convolution.initial_carry(batch, dtype)}

        carry = {str(number): of_layer() for number in range(config.depth)}
        if not spec.per_step:
            carry["pooled"] = jnp.zeros((batch, stack_width(cell.hidden_size, config)), dtype)
        return carry

    kept = cell
    if cell.dynamics == "attention":  # no more than there are steps
        kept = dataclasses.replace(cell, window=min(cell.window, max(spec.time, spec.eval_time)))
    state = jax.eval_shape(lambda: initial_carry(1, cell=kept))
    state = jax.tree.leaves({name: part for name, part in state.items() if name != "pooled"})
    numbers = sum(x.size * (1 + jnp.issubdtype(x.dtype, jnp.complexfloating)) for x in state)
    directions = 2 if config.bidirectional else 1
    return Model(init, apply, hidden_states, initial_carry, count(shapes), int(numbers) * directions)


def count(params) -> int:
    """Number of parameters in a pytree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
