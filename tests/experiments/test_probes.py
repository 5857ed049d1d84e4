"""The probes against brute force: Jacobians of the whole, where the probes go step by step."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
import configs
from compiling import jit
from experiments.lab import probes
from train import metrics
from train.model import build

BATCH, TIME, FEATURES, HIDDEN = 2, 5, 3, 3
SMALL = {"attention": {"window": 4}}  # the Jacobian of the default's state is too large
each = pytest.mark.parametrize("name", cells.names())
# A carry of each kind: one array, several, what is pending, complex numbers, a matrix memory.
KINDS = ["rnn", "lstm", "qrnn", "lru", "mlstm", "window"]
some = pytest.mark.parametrize("name", KINDS)
few = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("lstm", "lru") else pytest.mark.slow) for name in KINDS]
)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def case(name, features=FEATURES):
    """A cell, its parameters (no zeros, which would hide mistakes) and inputs."""
    cell, rng = cells.get(name, hidden_size=HIDDEN, **SMALL.get(name, {})), np.random.default_rng(len(name))
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), features))
    params = jax.tree.map(lambda p: jnp.asarray(0.7 * rng.normal(size=p.shape)), shapes)
    return cell, params, jnp.asarray(rng.normal(size=(BATCH, TIME, features)))


def carries(cell, params, xs):
    """The carry before and after each step, and the outputs: one textbook step after the other."""
    found, ys = [cell.initial_carry(len(xs), xs.dtype)], []
    for t in range(xs.shape[1]):
        carry, y = cell.step(params, found[-1], xs[:, t])
        found.append(carry)
        ys.append(y)
    return found, jnp.stack(ys, 1)


def flat(carry):
    """(batch, S), real; of complex numbers the real parts, then the imaginary ones."""
    leaves = jax.tree.leaves(carry)
    parts = [p for c in leaves for p in ([c.real, c.imag] if jnp.iscomplexobj(c) else [c])]
    return jnp.concatenate([part.reshape(len(part), -1) for part in parts], axis=-1)


def unflat(state, like):
    """The inverse, of one row: (S,) -> a carry of batch 1 that looks like `like`."""
    leaves, found = jax.tree.leaves(like), []
    for leaf in leaves:
        parts, state = jnp.split(state, [leaf.size * (2 if jnp.iscomplexobj(leaf) else 1)])
        parts = parts.reshape(-1, *leaf.shape)
        found.append(parts[0] + 1j * parts[1] if jnp.iscomplexobj(leaf) else parts[0])
    return jax.tree.unflatten(jax.tree.structure(like), found)


def norm(jacobian):
    return np.linalg.norm(np.asarray(jacobian).reshape(jacobian.shape[0], -1))


@some
def test_a_trace_is_what_the_steps_do(name):
    cell, params, xs = case(name)
    before, ys = jit(lambda xs: carries(cell, params, xs))(xs)
    got = jit(lambda xs: probes.trace(cell, params, xs))(xs)
    np.testing.assert_allclose(got.ys, ys, rtol=1e-12)
    for t, carry in enumerate(before):
        np.testing.assert_allclose(got.states[:, t], flat(carry), rtol=1e-12)
    want = jit(lambda before: [cell.gates(params, before[t], xs[:, t]) for t in range(TIME)])(before)
    for t in range(TIME):
        chex.assert_trees_all_close(
            {name: gate[:, t] for name, gate in got.gates.items()}, want[t], rtol=1e-12
        )


@few
def test_state_gains_are_norms_of_the_jacobian_of_all_steps(name):
    cell, params, xs = case(name)
    start = jax.tree.map(lambda c: c[:1], cell.initial_carry(1, xs.dtype))
    states = jit(lambda xs: probes.trace(cell, params, xs).states)(xs)
    gains = jit(lambda xs: probes.state_gains(cell, params, xs))(xs)
    assert gains.shape == (BATCH, TIME + 1) and not gains[:, 0].any()

    def jacobians(states, xs):
        """d s_T / d s_{T-k} of one row, k = 1..TIME."""

        def rest(state, k):
            carry = unflat(state, start)
            for t in range(TIME - k, TIME):
                carry, _ = cell.step(params, carry, xs[t][None])
            return flat(carry)[0]

        return [jax.jacobian(rest)(states[TIME - k], k) for k in range(1, TIME + 1)]

    for k, jacobian in enumerate(jit(jax.vmap(jacobians))(states, xs), 1):
        want = [np.log10(norm(row) / np.sqrt(len(row))) for row in jacobian]
        np.testing.assert_allclose(gains[:, k], want, atol=1e-9)


def test_gains_of_large_states_are_close(monkeypatch):
    cell, params, xs = case("lstm")
    want = jit(lambda xs: probes.state_gains(cell, params, xs))(xs)
    monkeypatch.setattr(probes, "DIRECTIONS", 5)  # of 6
    got = jit(lambda xs: probes.state_gains(cell, params, xs))(xs)
    np.testing.assert_allclose(got[:, 1:], want[:, 1:], atol=0.5)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "sru", "knn", "lru"])
def test_lyapunov_exponents_are_those_of_the_product_of_jacobians(name):
    cell, params, xs = case(name)
    step, start = probes.flat_step(cell, params)
    move = jit(lambda state, x: (jax.jacobian(lambda s: step(s, x)[0])(state), step(state, x)[0]))
    exponents = []
    for row in xs:
        state, product = start.astype(xs.dtype), np.eye(start.size)
        for x in row:
            jacobian, state = move(state, x)
            product = np.asarray(jacobian) @ product
        exponents.append(np.log(np.abs(np.diagonal(np.linalg.qr(product)[1]))) / TIME)
    want = np.sort(np.mean(exponents, axis=0))[::-1]
    np.testing.assert_allclose(
        jit(lambda xs: probes.lyapunov_spectrum(cell, params, xs))(xs), want, rtol=1e-4
    )


def kept_by_units(cell, carry):
    """(hidden_size, numbers) of one row, case by case."""
    first, H = jax.tree.leaves(carry)[0][0], cell.hidden_size
    if jnp.iscomplexobj(first):
        return jnp.stack([first.real, first.imag], axis=1)
    if isinstance(cell, tuple(cells.CELLS.cls(name) for name in ("mlstm", "mamba2", "deltanet"))):
        return first.reshape(H, -1)
    return first.T if first.ndim == 2 else first[:, None]


@some
@pytest.mark.parametrize("of", [pytest.param("output", marks=pytest.mark.slow), "state"])
def test_unit_memory_weighs_distances_by_the_jacobian(name, of):
    cell, params, xs = case(name)

    def at_end(xs):
        carry, ys = carries(cell, params, xs[None])
        return ys[0, -1][:, None] if of == "output" else kept_by_units(cell, carry[-1])

    jacobians = np.asarray(jit(jax.vmap(jax.jacobian(at_end)))(xs))
    sizes = np.sqrt((jacobians**2).sum((2, 4))).mean(0)
    want = (sizes * np.arange(TIME)[::-1]).sum(1) / sizes.sum(1)
    got = jit(lambda xs: probes.unit_memory(cell, params, xs, of=of))(xs)
    np.testing.assert_allclose(got, want, rtol=1e-9)


@some
def test_kinds_are_what_the_jacobian_says(name):
    kind = probes.kind(name)
    cell, params, xs = case(name)
    step, start = probes.flat_step(cell, params)
    states = np.random.default_rng(0).uniform(0.1, 1, (2, start.size))
    jacobians = jit(jax.vmap(jax.jacobian(lambda s, x: step(s, x)[0])))
    one, other, later = jacobians(states[[0, 1, 0]], xs[0, jnp.array([0, 0, 1])])
    if kind in ("window", "attention"):  # whatever was there is gone
        assert not np.linalg.matrix_power(np.asarray(one), start.size).any()
    # Linear but for exp(-m), for gates that see what is pending, and for x' B', of which both are kept.
    elif name not in ("mlstm", "qrnn", "mamba3"):
        np.testing.assert_equal(np.allclose(one, other, atol=1e-12), kind != "nonlinear")
        factors = np.linalg.eigvals(one)
        if kind == "linear":
            assert not factors.imag.any() and (factors.real > -1e-9).all() and (factors.real < 1).all()
        if kind == "rotation":
            assert np.abs(factors.imag).max() > 0.1
        if kind != "nonlinear":
            assert np.allclose(one @ later, later @ one, atol=1e-12) == (kind != "reflection")


def test_a_unit_of_constant_decay_remembers_as_long_as_its_decay_says():
    cell = cells.get("sru", hidden_size=1, highway=False)
    params = cell.init(jax.random.key(0), 1, jnp.float64)
    f = 0.6
    params |= {"W_f": jnp.zeros((1, 1)), "b_f": jnp.log(jnp.array([f / (1 - f)]))}
    xs = jax.random.normal(jax.random.key(1), (1, 200, 1), jnp.float64)
    got = jit(lambda xs: probes.unit_memory(cell, params, xs, of="state"))(xs)
    np.testing.assert_allclose(got, f / (1 - f), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, options",
    [("mixed_recall", {"gap": 3}), pytest.param("adding", {"length": 4}, marks=pytest.mark.slow)],
)
def test_input_gradients_are_those_of_the_whole_model(task, options):
    config = configs.freeze(configs.make("gru", task, cell={"hidden_size": HIDDEN}, task=options))
    spec = config.task.spec({})
    batch = config.task.train_batch({}, jax.random.key(0), 0, BATCH)
    params = jit(build(config.cell, spec, config.model).init)(jax.random.key(1))
    of = lambda params: probes.input_gradients(config.cell, spec, config.model, params, batch)  # noqa: E731
    loss, norms = jit(of)(params)
    assert norms.shape == (BATCH, spec.time)
    if spec.inputs == "tokens":
        # Every token of every row gets an embedding of its own.
        params["embed"] = {"embedding": params["embed"]["embedding"][batch.xs].reshape(BATCH * spec.time, -1)}
        batch = batch._replace(xs=jnp.arange(BATCH * spec.time).reshape(batch.xs.shape))
        spec = dataclasses.replace(spec, input_size=BATCH * spec.time)
        model = build(config.cell, spec, config.model)

        def total(embedding):
            outputs = model.apply(params | {"embed": {"embedding": embedding}}, batch.xs)
            return metrics.loss_sum(spec, outputs, batch)[0]

        gradients = jit(jax.grad(total))(params["embed"]["embedding"]).reshape(BATCH, spec.time, -1)
    else:
        # Through a dense layer, of which a small change of its output is one of the bias at that step.
        rest = {name: p for name, p in params.items() if name != "dense"}
        model = probes.after_embedding(config.cell, spec, config.model, config.model.embedding_size)

        def total(xs):
            return metrics.loss_sum(spec, model.apply(rest, xs), batch)[0]

        inside = batch.xs @ params["dense"]["kernel"] + params["dense"]["bias"]
        gradients = jit(jax.grad(total))(inside)
        whole = metrics.loss_sum(spec, build(config.cell, spec, config.model).apply(params, batch.xs), batch)[
            0
        ]
        np.testing.assert_allclose(total(inside), whole, rtol=1e-6)
    np.testing.assert_allclose(norms, np.linalg.norm(gradients, axis=-1), rtol=1e-4, atol=1e-9)
    if spec.inputs == "tokens":
        np.testing.assert_allclose(loss, total(params["embed"]["embedding"]) / BATCH, rtol=1e-5)


def test_other_tokens_are_others_of_the_same_kind():
    tokens = jnp.array([[0, 3, 4, 5, 6], [1, 6, 5, 4, 3], [2, 3, 3, 3, 3]] * 50)
    others = np.asarray(probes.other_tokens(jax.random.key(0), tokens, 3, 4))
    assert (others != tokens).all()
    assert set(others[:, 0]) == {0, 1, 2} and set(np.unique(others[:, 1:])) == {3, 4, 5, 6}


@pytest.mark.parametrize("name", ["lstm", "lru", "mlstm", "window"])
def test_swap_memory_weighs_distances_by_what_a_replaced_step_changes(name):
    cell, params, xs = case(name)
    others = xs[::-1] + 1

    @jit
    def at_end(xs):
        return probes.unit_states(cell, carries(cell, params, xs)[0][-1])

    swapped = [at_end(xs.at[:, t].set(others[:, t])) for t in range(TIME)]
    sizes = [np.abs(states - at_end(xs)).mean((0, 2)) for states in swapped]
    want = sum((TIME - 1 - t) * size for t, size in enumerate(sizes)) / sum(sizes)
    got = jit(lambda xs, others: probes.swap_memory(cell, params, xs, others))(xs, others)
    np.testing.assert_allclose(got, want, rtol=1e-7)
