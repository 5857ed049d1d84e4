"""The contract of a recurrent cell, and its kinds: what a cell file says, and what the scans ask of it."""

import abc
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
Style = tuple[str, Any, str]  # colour, line and marker of a cell in every figure, as matplotlib takes them


class _ByOptions(abc.ABCMeta):
    """The class of a cell builds the variant that its options name: `GRU(8, reset_after=True)` is a subclass
    of GRU, and `dataclasses.replace` finds the way back."""

    def __call__(cls, *args, **options):
        cell = super().__call__(*args, **options)
        variant = cell.variant()
        return cell if variant is cls else super(_ByOptions, variant).__call__(*args, **options)


@dataclasses.dataclass(frozen=True)
class Cell(metaclass=_ByOptions):
    """A recurrence: static options in the fields, parameters and state passed in and out.

    `init`, the initial parameters, and `step`, the textbook recurrence, are enough: such a cell runs under
    every flag of `cells.scan`, one step after the other. `step` is the specification of all that is faster.

    Kinds of cell say more, and run faster for it:

    * `Nonlinear`: all that needs no state in one matmul, and what is left of a step;
      `HandDifferentiated`: its gradient as well;
    * `Linear`: the coefficients of c_t = a_t * c_{t-1} + b_t, which run in parallel over time;
    * `Sequence`: all of time at once, in a form of its own.

    Shapes: `x` (batch, input_size); `xs` (..., input_size); state (batch, hidden_size).

    Options:
      hidden_size: units: width of the state and of the outputs.
    """

    hidden_size: int

    # Options by which `for_length` tells the cell how long its task is, or which that overrules.
    length_options: ClassVar[tuple[str, ...]] = ()
    # What the mathematics is: "nonlinear"; "linear", in the last state, by real factors that the inputs give;
    # "rotation", by complex factors; "reflection", by matrices I - beta k k^T; "window", only so many last
    # inputs count; "attention", the state grows with each of them.
    dynamics: ClassVar[str] = "nonlinear"
    style: ClassVar[Style | None] = None  # None: figures choose one
    # Options of two more initialisations that are worth a trial each, where the cell is tuned.
    knobs: ClassVar[tuple[dict[str, Any], ...]] = ()
    # Whether its own form must know the number of steps when it is compiled.
    fixed_time: ClassVar[bool] = False
    plain: ClassVar[type | None] = None  # of a variant: the class whose options make it

    def __post_init__(self):
        positive = type(self.hidden_size) is int and 0 < self.hidden_size < 2**31
        require(self, "hidden_size", positive, f"a positive int below {2**31}")
        for field in dataclasses.fields(self):
            if field.type is bool:
                require(self, field.name, isinstance(getattr(self, field.name), bool), "True or False")

    @abc.abstractmethod
    def init(self, key: Array, input_size: int, dtype=jnp.float32) -> Params:
        """Initial parameters.

        Args:
          key: PRNG key.
          input_size: number of input features, at least 1.
          dtype: floating dtype of the parameters.
        """

    def initial_carry(self, batch_size: int, dtype=jnp.float32) -> Carry:
        """The state before the first step and after a reset: zeros, (batch_size, hidden_size)."""
        return jnp.zeros((batch_size, self.hidden_size), dtype)

    @abc.abstractmethod
    def step(self, params: Params, carry: Carry, x: Array) -> tuple[Carry, Array]:
        """One textbook step: x (batch, input_size) -> new carry, y (batch, hidden_size)."""

    def gates(self, params: Params, carry: Carry, x: Array) -> dict[str, Array]:
        """The gates of one step, by name, each (batch, hidden_size) in (0, 1); {} for a cell without."""
        return {}

    def for_length(self, steps: int) -> "Cell":
        """The cell for a task whose longest dependency is known, in steps. A cell of which an option of
        `length_options` is not at its default, or that has none, stays as it is; so it does below 3 steps."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        untouched = all(getattr(self, name) == defaults[name] for name in self.length_options)
        return dataclasses.replace(self, **self._length(steps)) if untouched and steps >= 3 else self

    def _length(self, steps: int) -> dict[str, Any]:
        """The options of `length_options` for so many steps, at least 3."""
        return {}

    def variant(self) -> type["Cell"]:
        """The class that these options make of the cell."""
        return type(self)

    @classmethod
    def size_multiple(cls, **options) -> int:
        """What `hidden_size` must be a multiple of, with these options."""
        return options.get("heads", 1) if "heads" in cls.__dataclass_fields__ else 1


class Projected(Cell):
    """What the kinds below share: the part of a cell that needs no state."""

    @abc.abstractmethod
    def project(self, params: Params, xs: Array) -> tuple[Any, Any]:
        """All that depends on the inputs alone, in one matmul: xs (..., input_size) -> us, rest.

        Returns:
          us: what the recurrence needs, a pytree of (..., k).
          rest: what only `readout` (of a `Sequence`: the end of `over_time`) needs; None for nothing.
        """


class Stateful(Projected):
    """Cells whose outputs follow from their states."""

    def readout(self, params: Params, rest: Any, previous: Carry, states: Carry) -> Array:
        """Outputs from the states before (`previous`) and after each step: by default the state itself."""
        return states


class Nonlinear(Stateful):
    """A step less its projections. JAX derives the gradient; the weights' are taken out of the loop."""

    is_elementwise: ClassVar[bool] = False
    """Whether unit i of the next state depends on the last state's unit i alone: its Jacobian is diagonal
    (for a carry of several arrays: a small block per unit)."""

    @property
    def block(self) -> int:
        """Units that see each other's last state stand side by side, so many in a block."""
        return 1 if self.is_elementwise else self.hidden_size

    gradient_by_hand: ClassVar[bool] = False

    def recurrent_weights(self, params: Params) -> dict[str, Array | tuple[Array, Array]]:
        """What multiplies the state, by name: a matrix, a vector (elementwise), blocks (heads, d, d), or (one
        of these, bias). Several matrices may stand side by side, several vectors or blocks one after the
        other."""
        return {}

    @abc.abstractmethod
    def recur(self, w: Mapping[str, Product], carry: Carry, u: Any) -> tuple[Carry, Any]:
        """What is left of one step -> new carry, what `backward` will want of this step or ().

        `w` maps each recurrent weight's name to a function of the state. Each function is called exactly
        once: the scans use that to take the weights' gradients out of the loop over time.
        """


class HandDifferentiated(Nonlinear):
    """The gradient written by hand, which is faster."""

    gradient_by_hand = True

    @abc.abstractmethod
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

    @abc.abstractmethod
    def products(self, before: Carry, after: Carry, saved: Any, d_us: Any) -> dict[str, tuple[Array, Array]]:
        """Of each of `recurrent_weights`: what it multiplied, and the gradient of the product. All are
        sequences (time, batch, k) of what `backward` has; the weights' gradients are one matmul of them."""


class Linear(Stateful):
    """A state that obeys c_t = a_t * c_{t-1} + b_t."""

    dynamics = "linear"

    @abc.abstractmethod
    def coefficients(self, params: Params, us: Any) -> tuple[Array, Array]:
        """a and b, each (time, batch, hidden_size)."""


class Sequence(Projected):
    """All of time at once: the state is more than one linear recurrence, a matrix, a cascade, a window."""

    @property
    @abc.abstractmethod
    def forms(self) -> tuple[str, ...]:
        """Names of the strategies in which `over_time` runs, the best on a CPU first."""

    @abc.abstractmethod
    def over_time(self, params: Params, carry: Carry, us: Any, rest: Any, steps: Any) -> tuple[Carry, Array]:
        """All of time at once -> the last carry, ys (time, batch, hidden_size).

        Args:
          us, rest: from `project`, (time, batch, k), real, in the dtype of the state.
          steps: a `cells.scans.sequence.Steps`: which steps are real, which are resets, and tools.
        """


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


def check_chrono(cell, overruled: str = "") -> None:
    """`chrono` is None (off) or the longest dependency expected, in steps; it is in place of the option
    `overruled`, which is then at its default."""
    ok = cell.chrono is None or (isinstance(cell.chrono, int) and cell.chrono >= 3)
    require(cell, "chrono", ok, "None or a number of steps of at least 3")
    if cell.chrono is not None and overruled:
        default = type(cell).__dataclass_fields__[overruled].default
        set_by_chrono = getattr(cell, overruled) == default
        require(
            cell, overruled, set_by_chrono, f"left at {default:g} where chrono, which overrules it, is set"
        )


def check_time_steps(cell) -> None:
    """0 < `dt_min` <= `dt_max`, both finite."""
    check_finite(cell, "dt_min", "dt_max")
    require(cell, "dt_min", 0 < cell.dt_min <= cell.dt_max, "above 0 and at most dt_max")


def check_heads(cell) -> None:
    """`heads` divides `hidden_size`, and is 1 where units are `diagonal`, each a head."""
    ok = type(cell.heads) is int and cell.heads > 0 and cell.hidden_size % cell.heads == 0
    require(cell, "heads", ok, "a divisor of hidden_size")
    alone = getattr(cell, "diagonal", False)
    require(cell, "heads", not alone or cell.heads == 1, "1 with diagonal: each unit is a head then")
