"""The contract of a recurrent cell: what a cell file says, and what the scans ask of it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

Array = jax.Array
Params = dict[str, Array]  # a flat, plain pytree
Carry = Any  # a pytree of arrays (batch, ...), real or complex: for most cells (batch, hidden_size)
Product = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A recurrence: static options in the fields, parameters and state passed in and out.

    A cell file says three things:

    * `step`: the textbook recurrence, one time step. It is the specification.
    * `init`: the initial parameters.
    * the fast path, in three parts: `project`, all that does not depend on the state, for the whole
      sequence in one matmul; `recur`, what is left of one step; `readout`, the outputs from all the
      states, for the whole sequence again. A cell whose state obeys c_t = a_t * c_{t-1} + b_t can run
      in parallel: it says a and b in `linear`, in place of or beside `recur`. A cell whose state is more
      than that (matrices, a window of inputs) has one method in place of all three, `over_time`.

    JAX derives the gradient of `recur`. A cell may write it by hand, which is faster: `backward` and
    `weight_gradients`.

    Shapes: `x` (batch, input_size); `xs` (..., input_size); state (batch, hidden_size).
    """

    hidden_size: int

    is_linear: ClassVar[bool] = False  # runs by the solvers of linear recurrences
    parallel: ClassVar[tuple[str, ...]] = ()  # names of other ways in which `over_time` runs, the best first

    @classmethod
    def size_multiple(cls, **options) -> int:
        """What `hidden_size` must be a multiple of, with these options."""
        return options.get("heads", 1) if "heads" in cls.__dataclass_fields__ else 1

    @property
    def is_elementwise(self) -> bool:
        """Whether unit i of the next state depends on the last state's unit i alone: its Jacobian is diagonal
        (for a carry of several arrays: a small block per unit)."""
        return False

    @property
    def gradient_by_hand(self) -> bool:
        """Whether `backward` and `weight_gradients` are to be used."""
        return type(self).backward is not Cell.backward

    def __post_init__(self):
        positive = type(self.hidden_size) is int and self.hidden_size > 0
        require(self, "hidden_size", positive, "a positive int")
        for field in dataclasses.fields(self):
            if field.type is bool:
                require(self, field.name, isinstance(getattr(self, field.name), bool), "True or False")

    # --- the specification

    def init(self, key: Array, input_size: int, dtype=jnp.float32) -> Params:
        """Initial parameters.

        Args:
          key: PRNG key.
          input_size: number of input features, at least 1.
          dtype: floating dtype of the parameters.
        """
        raise NotImplementedError

    def initial_carry(self, batch_size: int, dtype=jnp.float32) -> Carry:
        """The state before the first step and after a reset: zeros, (batch_size, hidden_size)."""
        return jnp.zeros((batch_size, self.hidden_size), dtype)

    def step(self, params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        """One textbook step: x (batch, input_size) -> new carry, y (batch, hidden_size)."""
        raise NotImplementedError

    def gates(self, params: Params, carry: Carry, x: Array) -> dict[str, Array]:
        """The gates of one step, by name, each (batch, hidden_size) in (0, 1); {} for a cell without."""
        return {}

    # --- the fast path

    def project(self, params: Params, xs: Array) -> tuple[Any, Any]:
        """All that depends on the inputs alone: xs (..., input_size) -> us, rest.

        Returns:
          us: what `recur` or `linear` needs, a pytree of (..., k).
          rest: what only `readout` needs, likewise; None for nothing.
        """
        raise NotImplementedError

    def recurrent_weights(self, params: Params) -> dict[str, Array | tuple[Array, Array]]:
        """What multiplies the state, by name: a matrix, a vector (elementwise), or (either, bias)."""
        return {}

    def recur(self, w: Mapping[str, Product], carry: Carry, u: Any) -> tuple[Carry, Any]:
        """What is left of one step -> new carry, what `backward` will want of this step or ().

        `w` maps each recurrent weight's name to a function of the state. Each function is called exactly
        once: the scans use that to take the weights' gradients out of the loop over time.
        """
        raise NotImplementedError

    def linear(self, params: Params, us: Any) -> tuple[Array, Array]:
        """For linear cells: a, b of c_t = a_t * c_{t-1} + b_t, each (time, batch, hidden_size)."""
        raise NotImplementedError

    def readout(self, params: Params, rest: Any, previous: Carry, states: Carry) -> Array:
        """Outputs from the states before (`previous`) and after each step: by default the state itself."""
        return states

    def over_time(self, params: Params, carry: Carry, us: Any, rest: Any, steps: Any) -> tuple[Carry, Array]:
        """All of time at once -> the last carry, ys (time, batch, hidden_size).

        Args:
          us, rest: from `project`, (time, batch, k), real, in the dtype of the state.
          steps: a `cells.scans.whole.Steps`: which steps are real, which are resets, and tools.
        """
        raise NotImplementedError

    # --- the gradient by hand

    def backward(
        self, w: Mapping[str, Product], before: Carry, after: Carry, u: Any, saved: Any, d_after: Carry
    ) -> tuple[Carry, Any]:
        """The gradient of one `recur` -> d_before, d_u.

        Args:
          w: as in `recur`, but transposed: functions of a product's gradient, without bias.
          before, after: the carry before and after the step.
          u: what `recur` had; saved: what it kept.
          d_after: the gradient of the carry after the step.
        """
        raise NotImplementedError

    def weight_gradients(self, before: Carry, after: Carry, saved: Any, d_us: Any) -> dict[str, Any]:
        """The gradient of `recurrent_weights`, from sequences (time, batch, k) of what `backward` has."""
        raise NotImplementedError


def keys(key: Array, n: int) -> list[Array]:
    """`n` keys out of one."""
    return list(jax.random.split(key, n))


def push(pending: Array, now: Array, past: Array, dilation: int = 1) -> tuple[Array, Array]:
    """One step of a causal convolution that is kept as what it still has to add.

    Args:
      pending: (batch, lags * dilation, k), what earlier inputs add to this step and the ones after it.
      now: (batch, k), what this input adds to this step.
      past: (batch, lags * k), what it adds to the steps dilation, 2 * dilation, ... later.

    Returns:
      The sum of this step (batch, k), and what is pending after it.
    """
    later = pending.shape[1]
    if not later:
        return now, pending
    parts = jnp.stack(jnp.split(past, later // dilation, axis=-1), axis=1)
    moved = jnp.concatenate([pending[:, 1:], jnp.zeros_like(pending[:, :1])], axis=1)
    return now + pending[:, 0], moved.at[:, dilation - 1 :: dilation].add(parts.astype(moved.dtype))


def outer(xs: Array, ds: Array) -> Array:
    """The gradient of W in y_t = x_t W, from all steps in one matmul: (..., m), (..., n) -> (m, n)."""
    return jnp.matmul(xs.reshape(-1, xs.shape[-1]).T, ds.reshape(-1, ds.shape[-1]))


def total(ds: Array) -> Array:
    """The gradient of a bias, from all steps: (..., n) -> (n,)."""
    return ds.reshape(-1, ds.shape[-1]).sum(0)


def require(owner, option: str, ok: bool, wanted: str) -> None:
    """Refuses a bad option of `owner` with one line.

    Raises:
      ValueError: `ok` is false.
    """
    if not ok:
        name = type(owner).__name__
        raise ValueError(f"{name}: {option} must be {wanted}, got {getattr(owner, option)!r}")


def split(x: Array, parts: int) -> list[Array]:
    """`x` (..., parts * n) cut into `parts` arrays (..., n)."""
    return jnp.split(x, parts, axis=-1)


def stack(params: Params, *names: str) -> Array:
    """The named matrices side by side, so that one matmul does for all of them."""
    return jnp.concatenate([params[name] for name in names], axis=-1)


def dense_weights(key: Array, names: str, prefix: str, shape: tuple[int, int], initializer, dtype) -> Params:
    """One matrix `prefix_name` for each letter of `names`, each from a key of its own."""
    keys = jax.random.split(key, len(names))
    return {f"{prefix}_{name}": initializer(k, shape, dtype) for name, k in zip(names, keys, strict=True)}


def input_initializer():
    """Weights from the input: uniform with variance 1 / fan_in (LeCun 1998)."""
    return jax.nn.initializers.lecun_uniform()


# One matrix at a time, under `vmap` too: on a CPU a batch of QRs waits for threads of the pool that it
# runs in itself, and can wait for ever.
_qr = jax.custom_batching.sequential_vmap(lambda matrix: tuple(jnp.linalg.qr(matrix)))


def orthogonal(key: Array, shape: tuple[int, int], dtype) -> Array:
    """Weights from the state: a random orthogonal matrix (Saxe 2014), which keeps the state's norm."""
    # The QR takes no bfloat16; the signs make it uniform over all orthogonal matrices (Mezzadri 2007).
    q, r = _qr(jax.random.normal(key, shape, jnp.promote_types(dtype, jnp.float32)))
    return (q * jnp.sign(jnp.diagonal(r))).astype(dtype)


def chrono_bias(key: Array, hidden_size: int, longest: int, dtype) -> Array:
    """Bias of a gate that keeps the past: log U(1, longest - 1) (Tallec & Ollivier 2018, eq. 16).

    Args:
      longest: the longest dependency expected, in steps, at least 3.
    """
    return jnp.log(jax.random.uniform(key, (hidden_size,), dtype, 1.0, longest - 1.0))


def check_chrono(cell) -> None:
    """`chrono` is None (off) or the longest dependency expected, in steps."""
    ok = cell.chrono is None or (isinstance(cell.chrono, int) and cell.chrono >= 3)
    require(cell, "chrono", ok, "None or a number of steps of at least 3")


def check_heads(cell) -> None:
    """`heads` divides `hidden_size`."""
    ok = type(cell.heads) is int and cell.heads > 0 and cell.hidden_size % cell.heads == 0
    require(cell, "heads", ok, "a divisor of hidden_size")


def check_finite(cell, *names: str) -> None:
    """Each option is a finite number."""
    for name in names:
        value = getattr(cell, name)
        require(cell, name, isinstance(value, int | float) and math.isfinite(value), "a finite number")


# --- weights of the state that may be matrices or, for `diagonal` cells, vectors


def product(h: Array, weight: Array) -> Array:
    """h U for a matrix, h * u for a vector, which stands for diag(u)."""
    return h * weight if weight.ndim == 1 else h @ weight


def spread(h: Array, n: int, diagonal: bool) -> Array:
    """What n weights side by side multiply: h for matrices, n copies of it for vectors."""
    return jnp.concatenate([h] * n, axis=-1) if diagonal else h


def gather(d: Array, n: int, diagonal: bool) -> Array:
    """The transpose of `spread`."""
    return sum(split(d, n)) if diagonal else d


def weight_gradient(hs: Array, ds: Array, diagonal: bool) -> Array:
    """The gradient of weights side by side that multiplied hs, from the gradient ds of their products."""
    return total(spread(hs, ds.shape[-1] // hs.shape[-1], True) * ds) if diagonal else outer(hs, ds)


def recurrent_initializer(diagonal: bool):
    """Weights of the state of gated cells: orthogonal matrices; or vectors, uniform in +-1, as the SRU
    authors' package starts v, which is such a vector too."""
    if not diagonal:
        return orthogonal
    return lambda key, shape, dtype: jax.random.uniform(key, shape[-1:], dtype, -1.0, 1.0)


# --- layer normalisation


def normalise(x: Array) -> Array:
    """(x - mean) / sqrt(variance + 1e-5) over the last axis, in float32 or wider (Ba 2016; epsilon as in the
    authors' code)."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def preactivations(params: Params, gates: str, x: Array, h: Array, layer_norm: bool) -> dict[str, Array]:
    """W x + U h' + b of each gate; or LN(W x) + LN(U h') + b, normalised over all these gates together, with
    a gain for each number (Ba 2016, eq. 20; its two biases are one with b)."""
    p = params
    W_x, U_h = [x @ p[f"W_{k}"] for k in gates], [product(h, p[f"U_{k}"]) for k in gates]
    if layer_norm:
        W_x, U_h = (split(normalise(jnp.concatenate(a, axis=-1)), len(gates)) for a in (W_x, U_h))
        W_x = [p[f"gain_W_{k}"] * a for k, a in zip(gates, W_x, strict=True)]
        U_h = [p[f"gain_U_{k}"] * a for k, a in zip(gates, U_h, strict=True)]
    return {k: a + q + p[f"b_{k}"] for k, a, q in zip(gates, W_x, U_h, strict=True)}


def gains(names: str, hidden_size: int, dtype) -> Params:
    """Initial gains of LN(W x) and LN(U h') for each letter of `names`."""
    return {f"gain_{kind}_{name}": jnp.ones(hidden_size, dtype) for kind in "WU" for name in names}


def check_positive(owner, *names: str) -> None:
    """Each option is a positive int."""
    for name in names:
        value = getattr(owner, name)
        require(owner, name, type(value) is int and value > 0, "a positive int")


def check_choice(owner, option: str, *choices: str) -> None:
    """`option` is one of `choices`."""
    *head, last = map(repr, choices)
    require(owner, option, getattr(owner, option) in choices, f"{', '.join(head)} or {last}")


def taps(xs: Array, W: Array, b: Array, product=jnp.matmul) -> tuple[Array, Array]:
    """What each input adds to a causal convolution, in one matmul; for `push` and `Steps.causal`.

    Args:
      xs: (..., m); b: (k,).
      W: (window, m, k), W[lag] for the input `lag` steps ago.

    Returns:
      now (..., k), to its own step, with the bias; past (..., (window - 1) * k), to the steps after it.
    """
    sums = product(xs, jnp.concatenate(list(W), axis=-1))
    return sums[..., : len(b)] + b, sums[..., len(b) :]


def spread_bias(first: float, size: int, dtype) -> Array:
    """Bias of xLSTM's forget gates: evenly spaced from `first` to `first + 3` (the authors' package)."""
    return jnp.linspace(first, first + 3, size, dtype=dtype)


def small_init():
    """Weights of xLSTM from the input: normal with variance 2 / (5 fan_in) (Nguyen & Salazar 2019)."""
    return jax.nn.initializers.variance_scaling(0.4, "fan_in", "normal")
