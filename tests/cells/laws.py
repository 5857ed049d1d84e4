"""What the laws of a scan are stated with: drawn problems, the plain loop, and programs compiled once.

Nearly all of a test's time is compilation. So there is one shape per cell and way to run it, its program is
kept for the whole process, and all else that a law needs (flags, cuts, junk, other rows) is data: a law sees
many examples at a few milliseconds each.
"""

import dataclasses
import functools
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import cells
from cells import base, parts, scans
from compiling import jit

BATCH, TIME, FEATURES, HIDDEN = 4, 5, 2, 3


@dataclasses.dataclass(frozen=True)
class StepAlone(base.Cell):
    """f = sigma(W_f x + U_f h' + b_f),  h = f * h' + (1 - f) * tanh(W_n x) / (1 + count'),  y = h * f

    A cell that says nothing but `init` and `step`, with a carry of two arrays."""

    def init(self, key, input_size, dtype=jnp.float32):
        W = parts.dense_weights(
            key, "fn", "W", (input_size, self.hidden_size), parts.input_initializer(), dtype
        )
        U = parts.orthogonal(key, (self.hidden_size, self.hidden_size), dtype)
        return W | {"U_f": U, "b_f": jnp.zeros(self.hidden_size, dtype)}

    def initial_carry(self, batch_size, dtype=jnp.float32):
        zeros = super().initial_carry(batch_size, dtype)
        return {"h": zeros, "count": zeros[:, :1]}

    def step(self, params, carry, x):
        p, h_ = params, carry["h"]
        f = jax.nn.sigmoid(x @ p["W_f"] + h_ @ p["U_f"] + p["b_f"])
        h = f * h_ + (1 - f) * jnp.tanh(x @ p["W_n"]) / (1 + carry["count"])
        return {"h": h, "count": carry["count"] + 1}, h * f


def listed():
    """The cells in the table of cells/README.md: a new one has joined the registry, not yet the table."""
    page = Path(cells.__file__).with_name("README.md").read_text()
    return set(re.findall(r"^\| \[`(\w+)`\]", page, re.M))


# --- problems


class Problem(NamedTuple):
    """The arguments of a run."""

    params: dict
    xs: np.ndarray
    carry: object
    lengths: np.ndarray
    mask: np.ndarray
    resets: np.ndarray

    @property
    def valid(self):
        return self.mask & (np.arange(self.xs.shape[1]) < self.lengths[:, None])

    @property
    def bare(self):
        """Without flags."""
        flags = np.full_like(self.lengths, self.xs.shape[1]), self.mask | True, self.resets & False
        return Problem(*self[:3], *flags)


class Result(NamedTuple):
    ys: np.ndarray
    carry: object
    gradients: tuple  # with respect to params, xs, carry


@functools.cache
def _shapes(cell, batch, features):
    params = jax.eval_shape(functools.partial(cell.init, input_size=features), jax.random.key(0))
    return params, jax.eval_shape(lambda: cell.initial_carry(batch))


def problem(cell, shape=(BATCH, TIME, FEATURES), seed=0, flags=True, dtype=np.float64):
    batch, time, features = shape
    rng = np.random.default_rng(seed)

    def normal(tree):  # not `cell.init`, whose zeros would hide mistakes
        def make(x):
            x_ = 0.7 * rng.normal(size=x.shape)
            if jnp.issubdtype(x.dtype, jnp.complexfloating):
                return (x_ + 0.7j * rng.normal(size=x.shape)).astype(jnp.result_type(dtype, jnp.complex64))
            return x_.astype(dtype)

        return jax.tree.map(make, tree)

    params, carry = map(normal, _shapes(cell, batch, features))
    xs = rng.normal(size=shape).astype(dtype)
    lengths, mask, resets = np.full(batch, time), np.ones((batch, time), bool), np.zeros((batch, time), bool)
    if flags:
        lengths = np.resize([time, 0, max(time - 1, 1), time], batch)
        mask, resets = rng.random((batch, time)) < 0.75, rng.random((batch, time)) < 0.3
    return Problem(params, xs, carry, lengths, mask, resets)


class Draw(NamedTuple):
    """A problem in short. Flags are a word per row, "x" where set."""

    seed: int
    scale: float  # of the inputs
    lengths: tuple
    skipped: tuple
    resets: tuple

    def problem(self, cell):
        p = problem(cell, seed=self.seed)
        skipped, resets = (np.array([list(row) for row in flags]) == "x" for flags in self[3:])
        return Problem(p.params, p.xs * self.scale, p.carry, np.array(self.lengths), ~skipped, resets)


seeds = st.integers(0, 9999)
directions = st.sampled_from([False, True])  # of time
cuts = st.integers(0, TIME)


@st.composite
def _draws(draw):
    bits = st.integers(0, 2 ** (BATCH * TIME) - 1)

    def words():  # a quarter of all flags
        word = format(draw(bits) & draw(bits), f"0{BATCH * TIME}b").replace("0", ".").replace("1", "x")
        return tuple(word[row * TIME :][:TIME] for row in range(BATCH))

    lengths = draw(st.tuples(*[st.just(TIME) | cuts] * BATCH))
    return Draw(draw(seeds), draw(st.sampled_from([1.0, 0.1, 2.0])), lengths, words(), words())


draws = _draws()


def taken(reverse):
    """When each step is taken."""
    return np.arange(TIME)[::-1] if reverse else np.arange(TIME)


def initial(cell, batch=BATCH):
    return jax.tree.map(np.asarray, cell.initial_carry(batch, jnp.float64))


# --- runs


def strategy_of(name):
    """Strategies that go chunk by chunk need several chunks for these short sequences."""
    return {"chunked": scans.Chunked(2), "chunkwise": scans.Chunkwise(2)}.get(name, name)


def loop(cell, params, xs, carry, lengths, mask, resets):
    """What a scan is: the textbook step, one time after the other."""
    valid = mask & (jnp.arange(xs.shape[1]) < lengths[:, None])
    xs = jnp.where(valid[..., None], xs, 0)
    fresh = cell.initial_carry(len(xs), xs.dtype)

    def where(condition, new, old):
        def pick(a, b):
            return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return jax.tree.map(pick, new, old)

    def one(carry, now):
        x, valid, reset = now
        after, y = cell.step(params, where(reset, fresh, carry), x)
        return where(valid, after, carry), jnp.where(valid[:, None], y, 0)

    times = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (xs, valid, resets))
    carry, ys = jax.lax.scan(one, carry, times)
    return carry, jnp.swapaxes(ys, 0, 1)


def scalar(tree, np=jnp):
    """A loss that tells rows and units apart, but not times, so that a run may be moved along."""
    leaves = [
        part for x in jax.tree.leaves(tree) for part in ([x.real, x.imag] if np.iscomplexobj(x) else [x])
    ]
    row_unit = [np.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)) + np.arange(x.shape[-1]) for x in leaves]
    return sum(np.sum(np.sin(x + i)) for x, i in zip(leaves, row_unit, strict=True))


@functools.cache
def runner(cell, strategy, reverse=False, remat=0):
    """Compiled `Problem -> Result` of a strategy, or of the plain "loop"; one for all tests."""
    if strategy == "loop" and reverse:
        return functools.partial(_reversed_loop, runner(cell, "loop"))
    if strategy == "loop":
        run = functools.partial(loop, cell)
    else:
        run = functools.partial(
            cells.scan, cell, reverse=reverse, strategy=strategy_of(strategy), remat=remat
        )

    @jit
    def result(*problem):
        def loss(*args):
            carry, ys = run(*args, *problem[3:])
            return scalar((carry, ys)), (carry, ys)

        gradients, (carry, ys) = jax.grad(loss, (0, 1, 2), has_aux=True)(*problem[:3])
        return Result(ys, carry, gradients)

    return lambda problem: jax.tree.map(np.asarray, result(*problem))


def _reversed_loop(forward, p):
    """The loop over everything turned around, padding too."""
    full = np.full_like(p.lengths, p.xs.shape[1])
    flipped = {name: getattr(p, name)[:, ::-1] for name in ("xs", "resets")}
    r = forward(p._replace(**flipped, mask=p.valid[:, ::-1], lengths=full))
    d_params, d_xs, d_carry = r.gradients
    return Result(r.ys[:, ::-1], r.carry, (d_params, d_xs[:, ::-1], d_carry))


@functools.cache
def values(cell, strategy, reverse=False):
    """Compiled `cells.scan`."""
    return jit(functools.partial(cells.scan, cell, reverse=reverse, strategy=strategy_of(strategy)))


@functools.cache
def derivatives(cell, strategy):
    """Compiled: params, xs, carry; tangents -> derivatives along them of the loss; gradients; of those."""

    @jit
    def derive(args, tangents):
        def loss(*args):
            return scalar(cells.scan(cell, *args, strategy=strategy_of(strategy)))

        _, change = jax.jvp(loss, args, tangents)
        return change, *jax.jvp(jax.grad(loss, (0, 1, 2)), args, tangents)

    return derive


@functools.cache
def mapped_gradient(cell, strategy):
    """Compiled: the gradient of losses under `jax.checkpoint`, mapped over seeds and batches of inputs."""

    @jit
    def gradient(params, *data):
        @jax.checkpoint
        def loss(*args):
            return scalar(cells.scan(cell, *args, strategy=strategy_of(strategy)))

        over_inputs = jax.vmap(loss, (None, 0, 0, 0, 0, 0))
        over_both = jax.vmap(over_inputs, (0, None, None, None, None, None))
        return jax.grad(lambda params: over_both(params, *data).sum())(params)

    return gradient


# --- comparisons


def same(got, want, tolerance=1e-9, what=""):
    """Two pytrees are equal to a tolerance, absolute and relative to each array's largest number; 0: bit for
    bit."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, g), w in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        wide = np.complex128 if np.iscomplexobj(w) else np.float64
        g, w = np.asarray(g, wide), np.asarray(w, wide)
        size = np.abs(w).max(initial=1.0)
        limit = tolerance * (size if np.isfinite(size) else 1.0)
        if g.shape == w.shape and np.all(np.abs(g - w) <= limit):
            continue  # a quick look before NumPy's, which explains
        where = f"{what}{jax.tree_util.keystr(path)}"
        np.testing.assert_allclose(g, w, rtol=0, atol=limit, err_msg=where)


def dot(gradients, tangents):
    """What a loss with these gradients changes by along these tangents."""
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(tangents), strict=True)
    return sum(np.sum(np.real(g * t)) for g, t in pairs)


def steep(tree):
    """Whether numbers are too large for differences to tell: next to a pole, as of a quotient by a state."""
    return max(np.abs(x).max(initial=0) for x in jax.tree.leaves(tree)) > 1e4


def difference(f, p, tangents, step=2e-6):
    """The directional derivative of f(problem), by central differences of fourth order."""

    def moved(steps):
        return f(Problem(*jax.tree.map(lambda x, t: x + steps * step * t, p[:3], tangents), *p[3:]))

    def derivative(down2, down, up, up2):
        return (8 * (up - down) - (up2 - down2)) / (12 * step)

    return jax.tree.map(derivative, *map(moved, (-2, -1, 1, 2)))
