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


# --- options


def require(owner, option: str, ok: bool, wanted: str) -> None:
    """Refuses a bad option of `owner` with one line.

    Raises:
      ValueError: `ok` is false.
    """
    if not ok:
        name = type(owner).__name__
        raise ValueError(f"{name}: {option} must be {wanted}, got {getattr(owner, option)!r}")


def check_finite(cell, *names: str) -> None:
    """Each option is a finite number."""
    for name in names:
        value = getattr(cell, name)
        require(cell, name, isinstance(value, int | float) and math.isfinite(value), "a finite number")


def check_positive(owner, *names: str) -> None:
    """Each option is a positive int."""
    for name in names:
        value = getattr(owner, name)
        require(owner, name, type(value) is int and value > 0, "a positive int")


def check_choice(owner, option: str, *choices: str) -> None:
    """`option` is one of `choices`."""
    *head, last = map(repr, choices)
    require(owner, option, getattr(owner, option) in choices, f"{', '.join(head)} or {last}")


def check_chrono(cell) -> None:
    """`chrono` is None (off) or the longest dependency expected, in steps."""
    ok = cell.chrono is None or (isinstance(cell.chrono, int) and cell.chrono >= 3)
    require(cell, "chrono", ok, "None or a number of steps of at least 3")


def check_heads(cell) -> None:
    """`heads` divides `hidden_size`."""
    ok = type(cell.heads) is int and cell.heads > 0 and cell.hidden_size % cell.heads == 0
    require(cell, "heads", ok, "a divisor of hidden_size")
