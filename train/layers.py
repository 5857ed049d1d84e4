"""The layers of a model, cells and what stands around them, as Flax modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

import cells
from cells.convolution import ShortConvolution

if TYPE_CHECKING:
    from train.model import ModelConfig


class Recurrent(nnx.Module):
    """One cell as a Flax module that runs over time."""

    def __init__(self, cell: cells.Cell, input_size: int, reverse: bool, over_time: Callable, rngs: nnx.Rngs):
        self.cell, self.reverse, self.over_time = cell, reverse, over_time
        params = cell.init(rngs.params(), input_size)
        self.names = tuple(params)
        for name, value in params.items():
            setattr(self, name, nnx.Param(value))

    def __call__(self, xs, **steps):
        params = {name: getattr(self, name)[...] for name in self.names}
        return self.over_time(self.cell, params, xs, reverse=self.reverse, **steps)


class Layer(nnx.Module):
    """Norm, cell (or two, one for each direction), dropout, connection, norm."""

    def __init__(self, cell, input_size: int, config: ModelConfig, over_time: Callable, rngs: nnx.Rngs):
        self.config = config
        self.width = stack_width(cell.hidden_size, config)
        self.forward = Recurrent(cell, input_size, False, over_time, rngs)
        if config.bidirectional:
            self.backward = Recurrent(cell, input_size, True, over_time, rngs)
        if config.connection != "none" and input_size != self.width:
            self.shortcut = nnx.Linear(input_size, self.width, use_bias=False, rngs=rngs)
        if config.connection == "highway":
            # t starts near 0.27: layers begin close to the identity (Srivastava 2015, section 2.2).
            bias = nnx.initializers.constant(-1.0)
            self.transform = nnx.Linear(input_size, self.width, bias_init=bias, rngs=rngs)
        if config.layer_norm != "none":
            self.norm = nnx.LayerNorm(input_size if config.layer_norm == "pre" else self.width, rngs=rngs)

    def __call__(self, xs, steps, resets_backward, key, carry=None):
        config = self.config
        inputs = self.norm(xs) if config.layer_norm == "pre" else xs
        carry, ys = self.forward(inputs, carry=carry, **steps)
        if config.bidirectional:
            _, back = self.backward(inputs, **{**steps, "resets": resets_backward})
            ys = jnp.concatenate([ys, back], axis=-1)
        if config.dropout and key is not None:
            ys = dropout(ys, config.dropout, key, config.variational)
        if config.connection != "none":
            short = self.shortcut(xs) if hasattr(self, "shortcut") else xs
            t = jax.nn.sigmoid(self.transform(xs)) if config.connection == "highway" else None
            ys = ys + short if t is None else t * ys + (1 - t) * short
        return carry, self.norm(ys) if config.layer_norm == "post" else ys


class Gated(nnx.Module):
    """x + W_o (gelu(W_g n) * cell(silu(conv(W_i n)))) with n = norm(x), then x + W_d (gelu(W_u m) * (W_v m))
    with m = norm(x).

    The residual block of Griffin (De et al. 2024, section 2), with the SiLU that Mamba and xLSTM have after
    the convolution. Norms are layer norms; they and the linear layers have biases. A bidirectional block has
    a convolution and a cell for each direction, which share W_i.
    """

    def __init__(self, cell, config: ModelConfig, over_time: Callable, rngs: nnx.Rngs):
        self.config = config
        self.width = width = stack_width(cell.hidden_size, config)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.enter = nnx.Linear(width, cell.hidden_size, rngs=rngs)
        self.gate = nnx.Linear(width, width, rngs=rngs)
        self.leave = nnx.Linear(width, width, rngs=rngs)
        for name, reverse in {"forward": False, "backward": True}.items():
            if config.bidirectional or not reverse:
                size, convolution = cell.hidden_size, ShortConvolution(cell.hidden_size, config.conv_width)
                setattr(self, f"{name}_convolution", Recurrent(convolution, size, reverse, cells.scan, rngs))
                setattr(self, name, Recurrent(cell, size, reverse, over_time, rngs))
        if config.mlp_expansion:
            hidden = config.mlp_expansion * width
            self.norm_mlp = nnx.LayerNorm(width, rngs=rngs)
            self.up = nnx.Linear(width, 2 * hidden, rngs=rngs)
            self.down = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, xs, steps, resets_backward, key, carry=None):
        def plus(xs, ys, branch):
            if self.config.dropout and key is not None:
                keys = jax.vmap(jax.random.fold_in, (0, None))(key, branch)
                ys = dropout(ys, self.config.dropout, keys, self.config.variational)
            return xs + ys

        carry = carry or {}
        normed = self.norm(xs)
        entered = self.enter(normed)
        before, ys = self.forward_convolution(entered, carry=carry.get("convolution"), **steps)
        state, ys = self.forward(jax.nn.silu(ys), carry=carry.get("cell"), **steps)
        if self.config.bidirectional:
            steps = {**steps, "resets": resets_backward}
            back = self.backward(jax.nn.silu(self.backward_convolution(entered, **steps)[1]), **steps)[1]
            ys = jnp.concatenate([ys, back], axis=-1)
        xs = plus(xs, self.leave(jax.nn.gelu(self.gate(normed)) * ys), 0)
        if self.config.mlp_expansion:
            gate, value = jnp.split(self.up(self.norm_mlp(xs)), 2, axis=-1)
            xs = plus(xs, self.down(jax.nn.gelu(gate) * value), 1)
        return None if state is None else {"cell": state, "convolution": before}, xs


def stack_width(hidden_size: int, config: ModelConfig) -> int:
    """Number of features that a layer gives on."""
    return hidden_size * (2 if config.bidirectional else 1)


def dropout(xs, rate: float, keys, variational: bool):
    """Drops entries of xs (batch, time, width), or units of a row at all steps; the mean is kept.

    Keys, (batch,), belong to rows: what is dropped of one depends neither on the others nor on the devices
    that share them; nor does a step's mask on how many steps follow it, since time leads in it.
    """
    shape = (1 if variational else xs.shape[1], xs.shape[2])
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys)
    return jnp.where(keep, xs / (1 - rate), 0)
