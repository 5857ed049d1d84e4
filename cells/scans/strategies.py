"""The ways to run a cell over time, as values: each knows which cells it can run, and says why not.

cells.scan(cell, params, xs, strategy="newton:window=1")
cells.scan(cell, params, xs, strategy=cells.Newton(window=1))
"""

import abc
import ast
import dataclasses
import functools
import warnings
from typing import ClassVar

import jax
from jax.export import is_symbolic_dim

from cells import base
from cells.registry import Registry, nearest
from cells.scans import chosen


@dataclasses.dataclass(frozen=True)
class Strategy(abc.ABC):
    """A way to run a cell over time; `name` is what flags and records call it."""

    name: ClassVar[str]
    fixed_time: ClassVar[bool] = False  # whether the number of steps must be known when it is compiled

    @abc.abstractmethod
    def refuses(self, cell: base.Cell) -> str | None:
        """Why it cannot run `cell`; None: it can."""

    @classmethod
    def is_here(cls) -> bool:
        """Whether this machine, with this version of JAX, can run it."""
        return True

    def __str__(self):
        """The text that `parse` makes it of: the name, and the options that are not at their defaults."""
        fields = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        options = (f":{field.name}={value}" for field, value in fields if value != field.default)
        return self.name + "".join(options)


@dataclasses.dataclass(frozen=True)
class Stepwise(Strategy):
    """The textbook step, one time after the other: every cell, the specification itself."""

    name = "stepwise"

    def refuses(self, cell):
        return None


@dataclasses.dataclass(frozen=True)
class Sequential(Strategy):
    """What needs no state is taken out of the loop over time; what is left goes one step after the other."""

    name = "sequential"

    def refuses(self, cell):
        if isinstance(cell, base.Nonlinear | base.Linear) or "sequential" in _forms(cell):
            return None
        return "nothing is taken out of its step"


@dataclasses.dataclass(frozen=True)
class _ByChunks(Strategy):
    """Options:
    chunk: steps in a chunk.
    """

    chunk: int = 64

    def __post_init__(self):
        base.check_positive(self, "chunk")


@dataclasses.dataclass(frozen=True)
class _LinearOnly(Strategy):
    def refuses(self, cell):
        if isinstance(cell, base.Linear) or self.name in _forms(cell):
            return None
        return (
            "its next state is no linear function of its last one (c = a * c' + b), "
            "so steps cannot be combined before they are known"
        )


@dataclasses.dataclass(frozen=True)
class Associative(_LinearOnly):
    """Linear recurrences by an associative scan over all of time."""

    name = "associative"
    fixed_time = True


@dataclasses.dataclass(frozen=True)
class Chunked(_ByChunks, _LinearOnly):
    """Linear recurrences by associative scans inside chunks, one chunk after the other."""

    name = "chunked"


@dataclasses.dataclass(frozen=True)
class _OwnForm(Strategy):
    def refuses(self, cell):
        return None if self.name in _forms(cell) else "that is not a form it has"


@dataclasses.dataclass(frozen=True)
class Chunkwise(_ByChunks, _OwnForm):
    """Matrix memories: matmuls inside a chunk, the recurrence between chunks."""

    name = "chunkwise"


@dataclasses.dataclass(frozen=True)
class Parallel(_OwnForm):
    """Cells without recurrence: convolutions, or attention, over all of time."""

    name = "parallel"


@dataclasses.dataclass(frozen=True)
class Newton(Strategy):
    """Nonlinear cells in parallel over time, by Newton's method on windows of steps: `cells.scans.newton`.

    Options:
      window: steps that go one after the other inside a window; 0: sqrt(time); 1: DEER.
      jacobian: "dense": all of it, exact, of (numbers in the state)^2 per row of a batch and window;
        "diagonal": how each unit moves itself, cheap; exact where the cell `is_elementwise`, else an
        approximation that takes more iterations; "auto": the exact one, of a cell with heads a block for
        each, where blocks are small, else the diagonal.
      iterations: after so many without convergence the cell runs sequentially instead, with a warning; 0:
        as many as there are windows, up to 256. So many suffice: each makes one more window exact.
      tolerance: largest move of a start at convergence, over the largest state; 0: by precision, 1e-6 or,
        in float64, 1e-12.
      damping: factor 1 - damping on approximate Jacobians, in [0, 1). It grows by itself while iterations
        make things worse.
    """

    name = "newton"
    fixed_time = True
    window: int = 0
    jacobian: str = "auto"
    iterations: int = 0
    tolerance: float = 0.0
    damping: float = 0.0

    def __post_init__(self):
        for option in ("window", "iterations"):
            value = getattr(self, option)
            base.require(self, option, type(value) is int and value >= 0, "an integer, 0 or more")
        base.check_choice(self, "jacobian", "auto", "dense", "diagonal")
        for option in ("tolerance", "damping"):
            value = getattr(self, option)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            base.require(self, option, number and 0 <= value < 1, "in [0, 1)")

    def refuses(self, cell):
        if isinstance(cell, base.Linear):
            return "its next state is linear in its last one, which 'associative' solves without iterations"
        return None if isinstance(cell, base.Nonlinear) else "that is not a form it has"


class _ForAccelerators(Strategy):
    """Where there is no such thing it is what "auto" is, and that is said once."""

    @classmethod
    @abc.abstractmethod
    def missing(cls, backend: str) -> str | None:
        """Why there is none for a backend; None: there is."""

    @classmethod
    def is_here(cls):
        return cls.missing(jax.default_backend()) is None

    def found(self, backend: str | None) -> "Strategy | None":
        """The strategy for a backend; None: there is none."""
        if (why := self.missing(backend or jax.default_backend())) is not None:
            _say_once(f"strategy {self.name!r} is what 'auto' would be: {why}")
            return None
        return self


@dataclasses.dataclass(frozen=True)
class Cudnn(_ForAccelerators):
    """A plain LSTM by cuDNN, on NVIDIA's GPUs; float32, no resets."""

    name = "cudnn"
    fixed_time = True

    @classmethod
    def missing(cls, backend):
        from cells.scans import cudnn

        return cudnn.available(backend)

    def refuses(self, cell):
        plain = hasattr(cell, "packed") and cell.plain is None and cell.block == cell.hidden_size
        return None if plain else "cuDNN has plain LSTMs only"


@dataclasses.dataclass(frozen=True)
class Kernel(_ForAccelerators):
    """Time inside a kernel, one pass over memory, on a GPU or a TPU: `cells.scans.kernels`. Elsewhere, and
    with an older jax than 0.11, what "auto" is; a state in float64 goes by a `lax.scan`.

    Options:
      target: "auto": what there is; "gpu" or "tpu": the program of that one, wherever it is made.
      chunk: steps that are copied at once; 0: as the target likes it.
      depth: chunks that are under way together (GPU).
      segments: parts of time that run side by side, where the state is linear in the last one, with one more
        reading of what it depends on; 0: as many as fill the chip where there are few channels.
      interpret: runs the program of a named target on a CPU, slowly: to see that it is right.

    Under `jax.shard_map` it needs check_vma=False.
    """

    name = "kernel"
    fixed_time = True
    target: str = "auto"
    chunk: int = 0
    depth: int = 4
    segments: int = 0
    interpret: bool = False

    def __post_init__(self):
        base.check_choice(self, "target", "auto", "gpu", "tpu")
        base.check_positive(self, "depth")
        for option in ("chunk", "segments"):
            value = getattr(self, option)
            base.require(self, option, type(value) is int and value >= 0, "an integer, 0 or more")
        base.require(self, "interpret", isinstance(self.interpret, bool), "True or False")
        named = self.target != "auto" or not self.interpret
        base.require(self, "interpret", named, "False where no target is named")

    @classmethod
    def missing(cls, backend):
        from cells.scans import kernels

        return kernels.available(backend)

    def refuses(self, cell):
        from cells.scans import kernels

        if isinstance(cell, base.Linear) or kernels.fusible(cell):
            return None
        return "a number of its next state depends on more than the same unit's"

    def found(self, backend):
        if self.target != "auto":
            return self
        backend = backend or jax.default_backend()
        return super().found(backend) and dataclasses.replace(self, target=backend)


@functools.cache
def _say_once(line: str) -> None:
    warnings.warn(line, RuntimeWarning, stacklevel=2)


_ALL = (Stepwise, Sequential, Associative, Chunked, Chunkwise, Parallel, Newton, Kernel, Cudnn)
REGISTRY = Registry("strategy", {kind.name: kind for kind in _ALL})
STRATEGIES = (*REGISTRY.names(), "auto")
# What a name stands for where the cell has not the thing itself: names of older versions.
INSTEAD = {"sequential": Stepwise(), "chunked": Chunkwise()}
# On an accelerator a step of a scan costs at least the launch of a kernel: from so many steps on the depth
# O(log T) of an associative scan should win. On an H100 it took a 31st of the time at (batch, time, hidden) =
# (16, 1024, 512), forward and backward; fewer steps have not been measured.
ACCELERATED_FROM = 16
# Steps in a chunk of matrix memories on a CPU: 16 took 0.53 to 0.83 times as long as 64 (mamba2, deltanet,
# mlstm, mamba3 at (batch, time, hidden) from (32, 104, 30) to (8, 1024, 128), forward and backward, 2 cores,
# 2026-11-27). 64 is for units that multiply matrices.
CPU_CHUNK = 16


def _forms(cell: base.Cell) -> tuple[str, ...]:
    return cell.forms if isinstance(cell, base.Sequence) else ()


def strategies(cell: base.Cell) -> list[str]:
    """The names of the strategies that `cell` can use on this machine, the usual ones first."""
    kinds = (kind for kind in (*_ALL[1:], Stepwise) if kind.is_here())
    names = [kind.name for kind in kinds if kind().refuses(cell) is None]
    return [*names, "auto"]


def parse(strategy: str | Strategy) -> Strategy | None:
    """The value of a text, "newton:window=1"; None for "auto".

    Raises:
      ValueError: unknown strategy or option, with the nearest, or a value that it refuses.
    """
    if isinstance(strategy, Strategy):
        return strategy
    name, *given = strategy.split(":") if isinstance(strategy, str) else [strategy]
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; {nearest(name, STRATEGIES)}")
    options = {}
    for option in given:
        field, equals, value = option.partition("=")
        if not equals or field in options:
            raise ValueError(f"strategy {strategy!r}: write each option once, as name=value, got {option!r}")
        try:
            options[field] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[field] = value
    if name == "auto":
        if options:
            raise ValueError(f"strategy 'auto' has no option {next(iter(options))!r}")
        return None
    return REGISTRY.get(name, **options)


def choose(
    cell: base.Cell, strategy, backend: str | None = None, time: int = 1000, batch: int | None = None
) -> Strategy:
    """The strategy that will run: `auto` becomes a value, every other one is checked.

    On an accelerator `auto` is what `experiments.speed --choose` has found there, see `cells.scans.chosen`.
    Without that, for linear cells it is sequential on a CPU and associative elsewhere. `python -m
    experiments.speed --cells=sru`, 2 cores, forward and backward, 2026-11-23: from (batch, time, hidden) =
    (1, 128, 32) to (8, 16384, 32) and (16, 2048, 128) "associative" took 0.98 to 1.8 times as long, "chunked"
    1.07 to 2.1: on a CPU the passes over memory count, and the scan makes the fewest.

    Where `time` is symbolic (`jax.export`), `auto` is what needs not know it: one step after the other for
    linear cells and attention, for the others what it is else.

    Raises:
      ValueError: unknown strategy or option, or one that the cell, or a symbolic time, cannot use, with the
        reason.
    """
    wanted, later = parse(strategy), is_symbolic_dim(time)
    on_cpu = (backend or jax.default_backend()) == "cpu"
    if wanted is None and not later and not on_cpu and backend in (None, jax.default_backend()):
        wanted = _measured(cell, time, batch)
    if wanted is None:
        if isinstance(cell, base.Sequence) and cell.forms and cell.forms[0] != "sequential":
            own = REGISTRY.get(cell.forms[0])
            if isinstance(own, Chunkwise) and on_cpu:
                own = Chunkwise(CPU_CHUNK)
            return Stepwise() if later and cell.fixed_time else own
        quick = later or on_cpu or time < ACCELERATED_FROM
        wanted = Associative() if not quick and Associative().refuses(cell) is None else Sequential()
    reason = wanted.refuses(cell)
    if reason is None and isinstance(wanted, _ForAccelerators):
        wanted = wanted.found(backend) or choose(cell, "auto", backend, time, batch)
    if reason is None:
        if later and (wanted.fixed_time or cell.fixed_time and not isinstance(wanted, Stepwise)):
            raise ValueError(
                f"strategy {str(wanted)!r} needs a known number of steps, not {time}: use 'auto'"
            )
        return wanted
    instead = INSTEAD.get(wanted.name)
    if wanted == type(wanted)() and instead and instead.refuses(cell) is None:
        return instead
    raise ValueError(
        f"{type(cell).__name__} cannot use strategy {str(wanted)!r}: {reason}; "
        f"it can use: {', '.join(strategies(cell))}"
    )


def _measured(cell: base.Cell, time: int, batch: int | None) -> Strategy | None:
    """What `experiments.speed --choose` found here; None: nothing that this version can still run."""
    try:
        found = parse(chosen.lookup(cell, time, batch) or "auto")
    except ValueError:
        return None
    return found if found is not None and found.is_here() and found.refuses(cell) is None else None


def resolve(
    cell: base.Cell,
    strategy: str | Strategy = "auto",
    backend: str | None = None,
    time: int = 1000,
    batch: int = 32,
) -> str:
    """The name, with options, of what `strategy` means for a cell, a backend and a size: see `choose`."""
    return str(choose(cell, strategy, backend, time, batch))
