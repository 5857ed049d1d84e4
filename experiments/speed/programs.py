"""Programs of layers, compiled for a device that need not be here, and read: nothing is run."""

import importlib.util

import jax
import jax.numpy as jnp
import pandas as pd
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import cells
from cells.registry import nearest
from cells.scans import Kernel
from experiments.lab import compiled, timing

TARGETS = ("here", "tpu")
CHIP = "v5e:2x2"  # of which one is taken
# libtpu is to compile, not to look for a TPU and for its neighbours: variables of the environment.
LIBTPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
}  # fmt: skip


def rows(names, sizes, targets, tell=lambda what: None) -> list[dict]:
    """A row per target, size, cell and strategy: `compiled.Figures`, and megabytes of temporaries.

    Raises:
      ValueError: an unknown target, with the nearest, or one whose compiler is not here.
    """
    found = []
    for target in targets:
        place = _place(target)
        for size in sizes:
            for name in names:
                cell = cells.get(name, hidden_size=size[2])
                for strategy in _strategies(cell, target):
                    tell(f"{name} {strategy} at {size} for {target}")
                    labels = dict(zip(("batch", "time", "hidden_size"), size, strict=True))
                    labels |= {"target": target, "cell": name, "strategy": strategy.split(":")[0]}
                    found.append(labels | _compiled(cell, strategy, size, place))
    return found


def _place(target: str):
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; {nearest(target, TARGETS)}")
    if target == "here":
        return SingleDeviceSharding(jax.devices()[0])
    if not importlib.util.find_spec("libtpu"):
        raise ValueError("--targets=tpu needs libtpu, which compiles for TPUs: pip install libtpu")
    return SingleDeviceSharding(topologies.get_topology_desc(platform="tpu", topology_name=CHIP).devices[0])


def _strategies(cell, target: str) -> list[str]:
    """By name; those that turn as often as their numbers say have no path."""
    names = [name for name in cells.strategies(cell) if name not in ("auto", "newton", "kernel", "cudnn")]
    if target == "here":
        return names
    return [*names, "kernel:target=tpu"] if Kernel().refuses(cell) is None else names


def _compiled(cell, strategy: str, size: tuple[int, int, int], place) -> dict:
    batch, time, features = size
    made = jax.eval_shape(lambda key: cell.init(key, features), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((batch, time, features), jnp.float32)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), (made, xs, xs))

    def layer(params, xs):
        return cells.scan(cell, params, xs, strategy=strategy)[1]

    program, args = timing.program_of(layer, *like, "gradient", devices=1)
    platform = next(iter(place.device_set)).platform
    program = program.trace(*args).lower(lowering_platforms=(platform,)).compile()
    memory = program.memory_analysis()
    temporaries = {} if memory is None else {"temporary_mb": memory.temp_size_in_bytes / 1e6}
    return compiled.figures(program.as_text())._asdict() | temporaries


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """A line per cell and strategy, a column per size."""
    figures = zip(frame["path"], frame["operations"], frame["megabytes"], strict=True)
    sizes = zip(frame["batch"], frame["time"], frame["hidden_size"], strict=True)
    shown = frame.assign(
        size=[f"{batch} x {time} x {hidden}" for batch, time, hidden in sizes],
        text=[f"{path:,} of {operations:,}; {megabytes:,.0f} MB" for path, operations, megabytes in figures],
    )
    keys = ["target", "cell", "strategy"]
    return (
        shown.pivot_table("text", keys, "size", "first", sort=False).reset_index().rename_axis(columns=None)
    )
