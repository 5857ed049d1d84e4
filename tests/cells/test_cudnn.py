"""The LSTM of cuDNN, which is not here: its weights and rows, with JAX's own reference in its place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from cells import scans
from cells.scans import chosen, cudnn


@pytest.fixture
def reference(monkeypatch):
    """`rnn.lstm_ref`, and its derivative, for the two calls; its rows must have a step at least."""
    from jax.experimental import rnn

    def lstm(lengths, options, xs, h, c, weights):
        parts = rnn.unpack_lstm_weights(weights, *options[:3], options[4])
        return rnn.lstm_ref(xs, h, c, *parts, lengths, *options)

    def forward(*inputs):
        *inputs, lengths, features, size, layers, dropout, bidirectional, precision = inputs
        assert (precision is None) == (jax.config.jax_default_matmul_precision is None)
        options = features, size, layers, dropout, bidirectional
        return lstm(lengths, options, *inputs), (*inputs, lengths)

    def backward(*arguments):
        *options, precision, (*inputs, lengths), gradients = arguments
        return *jax.vjp(functools.partial(lstm, lengths, options), *inputs)[1](gradients), None

    monkeypatch.setattr(rnn, "lstm_fwd", forward)
    monkeypatch.setattr(rnn, "lstm_bwd", backward)
    monkeypatch.setattr(cudnn, "available", lambda backend: None)


def problem(features=3, size=4, batch=3, time=6):
    cell = cells.get("lstm", hidden_size=size)
    keys = jax.random.split(jax.random.key(0), 4)
    params = cell.init(keys[0], features)
    params |= {name: p + 0.1 for name, p in params.items() if name[0] == "b"}
    xs = jax.random.normal(keys[1], (batch, time, features))
    carry = jax.tree.map(lambda c: jax.random.normal(keys[2], c.shape), cell.initial_carry(batch))
    return cell, params, xs, carry


@pytest.mark.parametrize("flags", ["", "lengths", "mask", "lengths mask reverse", "reverse"])
def test_it_is_the_lstm(reference, flags):
    """Values and gradients; a row of no steps keeps its state."""
    cell, params, xs, carry = problem()
    options = {"lengths": jnp.array([6, 0, 2]), "reverse": True}
    options["mask"] = jax.random.bernoulli(jax.random.key(5), 0.6, xs.shape[:2])
    options = {name: value for name, value in options.items() if name in flags.split()}

    def loss(strategy, params, xs, carry):
        last, ys = cells.scan(cell, params, xs, carry, strategy=strategy, **options)
        return jnp.sin(ys).sum() + jnp.cos(last.c).sum() + jnp.sin(last.h).sum(), (last, ys)

    got, want = (
        jax.jit(jax.value_and_grad(lambda *args, s=s: loss(s, *args), (0, 1, 2), has_aux=True))(
            params, xs, carry
        )
        for s in ("cudnn", "sequential")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_seeds_go_one_after_the_other(reference):
    cell, _, xs, _ = problem()
    several = jax.vmap(lambda key: cell.init(key, 3))(jax.random.split(jax.random.key(0), 2))

    def gradient(strategy):
        def loss(params, xs):
            return jnp.sin(cells.scan(cell, params, xs, strategy=strategy)[1]).sum()

        return jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (0, None)))(several, xs)

    got, want = gradient("cudnn"), gradient("sequential")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_higher_derivatives_are_the_cells_own(reference):
    cell, params, xs, carry = problem()
    ones = jax.tree.map(jnp.ones_like, params)

    def all_of(strategy):
        def loss(params):
            last, ys = cells.scan(cell, params, xs, carry, strategy=strategy, lengths=jnp.array([6, 0, 2]))
            return jnp.sin(ys).sum() + last.c.sum()

        gradient = jax.grad(loss)
        return jax.jvp(loss, (params,), (ones,)), jax.jvp(gradient, (params,), (ones,))

    got, want = jax.jit(all_of, static_argnums=0)("cudnn"), jax.jit(all_of, static_argnums=0)("sequential")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


def test_what_it_does_not_do_is_refused(reference):
    cell, params, xs, _ = problem()
    with pytest.raises(ValueError, match="'cudnn' takes float32 and no resets, got float32 and resets"):
        cells.scan(cell, params, xs, strategy="cudnn", resets=jnp.zeros(xs.shape[:2], bool))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, xs))
    with pytest.raises(ValueError, match="takes float32 and no resets, got bfloat16"):
        cells.scan(cell, *half, strategy="cudnn")
    for name in cells.names():
        plain = scans.Cudnn().refuses(cells.get(name, hidden_size=4)) is None
        assert plain == (name == "lstm")
    for options in ({"peepholes": True}, {"layer_norm": True}, {"coupled": True}, {"heads": 2}):
        assert scans.Cudnn().refuses(cells.get("lstm", hidden_size=4, **options))


@pytest.mark.skipif(cudnn.available(jax.default_backend()) is not None, reason="there is no cuDNN here")
@pytest.mark.parametrize("flags", ["", "lengths", "mask reverse"])
def test_on_a_card_it_is_the_lstm(flags):
    """cuDNN itself."""
    cell, params, xs, carry = problem(5, 32, 4, 70)
    options = {"lengths": jnp.array([70, 0, 2, 31]), "reverse": True}
    options["mask"] = jax.random.bernoulli(jax.random.key(5), 0.6, xs.shape[:2])
    options = {name: value for name, value in options.items() if name in flags.split()}

    def loss(strategy, params, xs, carry):
        last, ys = cells.scan(cell, params, xs, carry, strategy=strategy, **options)
        return jnp.sin(ys).sum() + jnp.cos(last.c).sum() + jnp.sin(last.h).sum(), (last, ys)

    with jax.default_matmul_precision("highest"):
        got, want = (
            jax.jit(jax.value_and_grad(functools.partial(loss, name), (0, 1, 2), has_aux=True))(
                params, xs, carry
            )
            for name in ("cudnn", "sequential")
        )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4 * (1 + np.abs(b).max()))


def test_auto_on_an_accelerator_is_what_was_measured_there(reference, monkeypatch, tmp_path):
    """For steps near those that were; where that cannot do what is asked, it is "sequential"."""
    cell, params, xs, _ = problem()
    monkeypatch.setenv(chosen.VARIABLE, str(tmp_path / "kept" / "strategies.json"))
    card = jax.devices()[0].device_kind
    assert chosen.lookup(cell, 6) is None
    for batch, time, strategy in (
        (3, 4, "cudnn"), (3, 64, "newton"), (3, 10**4, "no such thing"), (64, 64, "sequential"),
    ):  # fmt: skip
        chosen.keep(card, cell, batch, time, strategy)
    assert scans.resolve(cell, time=6) == "sequential"  # on a CPU nothing changes
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = {time: scans.resolve(cell, time=time, batch=4) for time in (6, 100, 600, 10**4)}
    assert found == {6: "cudnn", 100: "newton", 600: "sequential", 10**4: "sequential"}
    assert scans.resolve(cell, time=64, batch=50) == "sequential"
    assert scans.resolve(cells.get("lstm", hidden_size=5), time=6) == "sequential"  # another cell
    resets = jnp.zeros(xs.shape[:2], bool)
    _, ys = cells.scan(cell, params, xs, resets=resets)
    np.testing.assert_array_equal(ys, cells.scan(cell, params, xs, resets=resets, strategy="sequential")[1])
    (tmp_path / "kept" / "strategies.json").write_text("{")
    assert chosen.lookup(cell, 6) is None
