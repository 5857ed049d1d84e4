"""The same layers in other libraries, each as its documentation has it.

A JAX library's entry makes (params, layer): `layer(params, xs)` maps xs (batch, time, features) to ys
(batch, time, hidden_size). PyTorch's makes runs of its own.
"""

import importlib.util
import os

import jax
import jax.numpy as jnp

KINDS = ("rnn", "lstm", "gru")  # the layers that the rivals have


def linen(kind: str, hidden_size: int, xs):
    """`flax.linen.RNN`."""
    from flax import linen

    cell = {"rnn": linen.SimpleCell, "lstm": linen.OptimizedLSTMCell, "gru": linen.GRUCell}[kind]
    module = linen.RNN(cell(hidden_size))
    return module.init(jax.random.key(0), xs), module.apply


def nnx(kind: str, hidden_size: int, xs):
    """`flax.nnx.RNN`."""
    from flax import nnx

    cell = {"rnn": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}[kind]
    module = nnx.RNN(cell(xs.shape[-1], hidden_size, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    return params, lambda params, xs: nnx.merge(graph, params, rest, copy=True)(xs)


def equinox(kind: str, hidden_size: int, xs):
    """Equinox has cells; the scan over time and the vmap over the batch are those of its example."""
    import equinox

    cell = {"lstm": equinox.nn.LSTMCell, "gru": equinox.nn.GRUCell}[kind]
    params, static = equinox.partition(
        cell(xs.shape[-1], hidden_size, key=jax.random.key(0)), equinox.is_array
    )

    def layer(params, xs):
        cell = equinox.combine(params, static)
        zeros = jnp.zeros(hidden_size)

        def step(state, x):
            state = cell(x, state)
            return state, state[0] if kind == "lstm" else state

        start = (zeros, zeros) if kind == "lstm" else zeros
        return jax.vmap(lambda xs: jax.lax.scan(step, start, xs)[1])(xs)

    return params, layer


def keras(kind: str, hidden_size: int, xs):
    """Keras 3 on its JAX backend."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layers = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
    module = layers[kind](hidden_size, return_sequences=True)
    module.build(xs.shape)
    rest = [variable.value for variable in module.non_trainable_variables]
    params = [variable.value for variable in module.trainable_variables]
    return params, lambda params, xs: module.stateless_call(params, rest, xs)[0]


JAX = {"linen": linen, "nnx": nnx, "equinox": equinox, "keras": keras}


def torch(kind: str, batch: int, time: int, hidden_size: int, gradient: bool) -> list:
    """PyTorch on the CPU: a run for each setting (layout, threads)."""
    import torch

    cores = torch.get_num_threads()
    module = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]

    def make(batch_first, threads):
        layer = module(hidden_size, hidden_size, batch_first=batch_first)
        shape = (batch, time) if batch_first else (time, batch)
        xs = torch.randn(*shape, hidden_size, requires_grad=gradient)
        d_ys = torch.randn(*shape, hidden_size)

        def run():
            torch.set_num_threads(threads)
            torch_pass(layer, xs, d_ys, gradient)
            torch.set_num_threads(cores)

        return run

    return [make(first, threads) for first in (False, True) for threads in sorted({1, cores})]


def torch_pass(layer, xs, d_ys, gradient: bool) -> None:
    """A layer of PyTorch once, with its gradient or without."""
    import torch

    with torch.set_grad_enabled(gradient):
        ys = layer(xs)[0]
    if gradient:
        layer.zero_grad()
        xs.grad = None
        ys.backward(d_ys)


NAMES = ("torch", *JAX)
PACKAGES = {"linen": "flax", "nnx": "flax"}


def installed() -> list[str]:
    """The rivals that can be imported here."""
    return [name for name in NAMES if importlib.util.find_spec(PACKAGES.get(name, name))]
