"""One command for a new card: what its memory and its matmuls allow, and what layers make of that.

Measured group by group, interleaved; a group that is done is kept in the workdir, so that the same command
goes on. What was to be reached is in `card_report`, written before anything ran.
"""

import functools
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pandas as pd

import cells
from experiments.lab import timing
from experiments.lab.timing import Case
from experiments.speed import dispatch, rivals
from experiments.speed.dispatch import Many
from train.files import digest

GRADIENT = ("gradient",)


class Size(NamedTuple):
    """Of a layer; the input is as wide as the state."""

    batch: int
    time: int
    hidden_size: int


class Group(NamedTuple):
    """Cases that are timed in turn."""

    name: str
    cases: list[Case]


def groups(scale: int = 1) -> Iterator[Group]:
    """All groups, the goals' first.

    Args:
      scale: divides times, sizes and batches: 1 on a card, more to see that it works.
    """

    def size(batch, time, hidden_size):
        return Size(max(1, batch // scale), max(4, time // scale), max(4, hidden_size // scale))

    yield Group("bandwidth", list(_bandwidth(size(32, 2048, 1024))))
    if pipelines := list(_pipelines(size(32, 2048, 1024))):
        yield Group("pipeline", pipelines)
    slow = ("sequential", "chunked", "newton")
    for at in (size(16, 1024, 512), size(16, 4096, 512)):
        layers = [*_ours(at, ("sru",), skip=slow), *_ours(at, ("lstm",), skip=("newton",))]
        yield Group(f"width {at.time} x {at.hidden_size}", [*layers, *_others(at, "lstm"), _convolution(at)])
    for steps in (1024, 16_384, 65_536, 1_000_000):
        at = size(1, steps, 256)
        yield Group(f"steps {at.time}", list(_ours(at, ("sru",), skip=slow, passes=GRADIENT)))
    for hidden_size in (512, 1024, 2048):
        at = size(64, 256, hidden_size)
        layers = _ours(at, ("lstm", "gru"), skip=("newton",), passes=GRADIENT)
        yield Group(f"hidden {at.hidden_size}", [*layers, *_others(at, "lstm", "gru")])
    at = size(128, 128, 256)
    for share in (0.0, 0.01, 0.1):
        layers = _ours(at, ("lstm", "gru"), resets=share, skip=("newton",), passes=GRADIENT)
        linear = _ours(at, ("sru",), resets=share, skip=slow, passes=GRADIENT)
        yield Group(f"resets {share:.0%}", [*layers, *linear])
    at = size(1, 4096, 32)  # what Newton's method is for
    yield Group("narrow", list(_ours(at, ("lstm", "gru", "rnn"), passes=GRADIENT)))
    for batch, steps in ((1, 2048), (32, 128), (32, 2048), (256, 128)):
        for hidden_size in (128, 512, 2048):
            at = size(batch, steps, hidden_size)
            for dtype in ("float32", "bfloat16"):
                layers = _ours(at, ("sru", "sru_feedback"), dtype=dtype, skip=slow, passes=GRADIENT)
                yield Group(f"grid {batch} x {at.time} x {at.hidden_size} {dtype}", list(layers))


def _labels(at: Size, layer, strategy, which, library="ours", dtype="float32", resets=0.0) -> dict:
    return at._asdict() | {
        "layer": layer, "strategy": strategy, "pass": which, "library": library, "dtype": dtype,
        "resets": resets,
    }  # fmt: skip


@functools.lru_cache(maxsize=2)
def _inputs(at: Size, dtype="float32"):
    @jax.jit
    def draw(key):
        return tuple(jax.random.normal(key, tuple(at), jnp.dtype(dtype)) for key in jax.random.split(key))

    return draw(jax.random.key(1))


def _params(cell, at: Size, dtype="float32"):
    init = functools.partial(cell.init, input_size=at.hidden_size, dtype=jnp.dtype(dtype))
    return jax.jit(init)(jax.random.key(0))


def _layer(at, labels, make) -> Case:
    """make() -> params, layer."""

    def run():
        xs, d_ys = _inputs(at, labels["dtype"])
        params, layer = make()
        program, args = timing.program_of(layer, params, xs, d_ys, labels["pass"], devices=1)
        return Many(lambda: program(*args))

    return Case(labels, run)


def _ours(at: Size, names, dtype="float32", resets=0.0, skip=(), passes=timing.PASSES) -> Iterator[Case]:
    for name in names:
        cell = cells.get(name, hidden_size=at.hidden_size)
        for strategy in cells.strategies(cell):
            unfit = strategy == "cudnn" and (resets or dtype != "float32")
            if strategy in ("auto", "stepwise", *skip) or unfit:
                continue

            def make(cell=cell, strategy=strategy):
                flags = {}
                if resets:
                    key = jax.random.key(2)
                    flags["resets"] = jax.random.bernoulli(key, resets, (at.batch, at.time))
                return _params(cell, at, dtype), lambda params, xs: cells.scan(
                    cell, params, xs, strategy=strategy, **flags
                )[1]

            for which in passes:
                yield _layer(at, _labels(at, name, strategy, which, "ours", dtype, resets), make)


def _others(at: Size, *kinds: str) -> Iterator[Case]:
    """Layers of Flax, and of PyTorch on its GPU, where it is installed and has one."""
    xs = jax.ShapeDtypeStruct(tuple(at), jnp.float32)
    for kind in kinds:

        def make(kind=kind):
            return rivals.linen(kind, at.hidden_size, jnp.zeros(xs.shape))

        yield _layer(at, _labels(at, kind, "", "gradient", "linen"), make)
        if importlib.util.find_spec("torch"):
            for which in timing.PASSES:
                labels = _labels(at, kind, "", which, "torch")
                yield Case(labels, lambda kind=kind, which=which: _torch(kind, at, which == "gradient"))


def _torch(kind, at: Size, gradient: bool) -> Many:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("this PyTorch has no GPU")
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](at.hidden_size, at.hidden_size).cuda()
    shape = (at.time, at.batch, at.hidden_size)
    xs = torch.randn(*shape, device="cuda", requires_grad=gradient)
    d_ys = torch.randn(*shape, device="cuda")

    return Many(lambda: rivals.torch_pass(layer, xs, d_ys, gradient), wait=lambda _: torch.cuda.synchronize())


def _convolution(at: Size, width: int = 3) -> Case:
    """A causal convolution as wide as the layer, of three taps: what SRU is to be as fast as."""

    def make():
        shape = (width, at.hidden_size, at.hidden_size)
        weight = jax.random.normal(jax.random.key(0), shape) / (width * at.hidden_size) ** 0.5

        def layer(weight, xs):
            return jax.lax.conv_general_dilated(
                xs, weight, (1,), [(width - 1, 0)], dimension_numbers=("NWC", "WIO", "NWC")
            )

        return weight, layer

    return _layer(at, _labels(at, "convolution", "", "gradient", "jax"), make)


def _bandwidth(at: Size) -> Iterator[Case]:
    """Recurrences alone, of what is in memory; `gigabytes` are read and written at least.

    c = a c' + b reads a and b and writes c. SRU's step reads three projections and x and writes y; with its
    gradient it also writes the states, and reads all of these and y's gradient and writes those of what it
    read.
    """
    from cells.scans import linear, strategies

    cell = cells.get("sru", hidden_size=at.hidden_size)
    array = 4e-9 * at.batch * at.time * at.hidden_size
    for name in strategies(cell):
        if name in ("auto", "stepwise"):
            continue

        def make(name=name):
            a, b = (jnp.swapaxes(x, 0, 1) for x in _inputs(at))
            a, solver = jax.nn.sigmoid(a), linear.solver(cells.scans.parse(cells.scans.resolve(cell, name)))
            program = jax.jit(lambda a, b: solver(a, b, False))
            return Many(lambda: program(a, b))

        labels = _labels(at, "c = a c' + b", name, "forward")
        yield Case(labels | {"gigabytes": 3 * array}, make)
    yield from _steps_of_sru(at, "kernel")


def _pipelines(at: Size) -> Iterator[Case]:
    """SRU's kernels by the steps that are copied at once, and by the copies under way together."""
    for chunk, depth in itertools.product((4, 8, 16, 32), (2, 4)):
        yield from _steps_of_sru(at, f"kernel:chunk={chunk}:depth={depth}")


def _steps_of_sru(at: Size, strategy: str) -> Iterator[Case]:
    from cells.scans import kernels, strategies

    cell = cells.get("sru", hidden_size=at.hidden_size)
    if "kernel" not in strategies(cell):
        return
    way = kernels.way(cells.scans.parse(cells.scans.resolve(cell, strategy)))
    for which, arrays in (("forward", 5), ("gradient", 16)):

        def make(which=which):
            xs, d_ys = (jnp.swapaxes(x, 0, 1) for x in _inputs(at))
            params = _params(cell, at)
            projected = jax.jit(cell.project)(params, xs)
            carry = cell.initial_carry(at.batch)

            def layer(params, projected):
                return kernels.run(cell, params, carry, *projected, carry, None, None, False, way)[1]

            program, args = timing.program_of(layer, params, projected, d_ys, which, devices=1)
            return Many(lambda: program(*args))

        gigabytes = arrays * 4e-9 * at.batch * at.time * at.hidden_size
        yield Case(_labels(at, "SRU's step", strategy, which) | {"gigabytes": gigabytes}, make)


def measure(lab, repeats: int, tell: Callable[[str], None], scale: int = 1, minutes: float = 9.0):
    """Rows of all groups; whether all of them have been measured.

    Args:
      lab: a `store.Lab` that keeps them.
      tell: is told what is being compiled.
      minutes: after which no further group is begun.
    """
    rows, until, whole = [], time.monotonic() + 60 * minutes, True
    here = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "repeats": repeats,
        "scale": scale,
    }
    code = _code()  # what other code has measured is measured again
    for group in groups(scale):
        settings = here | {"cases": [case.labels for case in group.cases]}
        name = f"{group.name.replace(' ', '-').replace('%', '')}-{code}"
        if time.monotonic() > until and not (lab.workdir / "done" / f"{name}.json").exists():
            whole = False
            continue

        def make(group=group):
            measured = dispatch.interleaved(group.cases, repeats, tell)
            _inputs.cache_clear()
            for row in measured:
                if "error" in row:
                    lab.console.print(f"{group.name}, {row['layer']} {row['strategy']}: {row['error']}")
            lab.console.print(f"measured {group.name}: {len(measured)} cases")
            return [row | {"group": group.name} for row in measured]

        rows += lab.do(name, settings, make)
    return pd.DataFrame(rows), whole


def _code() -> str:
    """A digest of the cells' files."""
    folder = Path(cells.__file__).parent
    files = sorted(folder.rglob("*.py"))
    return digest({path.relative_to(folder).as_posix(): path.read_text() for path in files})[:8]
