"""What compilers make of a layer: operations one after the other, all operations, bytes, memory.

  python -m experiments.compiled
  python -m experiments.compiled --cells=lstm,sru --sizes=8x128x128,8x1024x128
  python -m experiments.compiled --targets=here,tpu --workdir=runs/compiled

Every strategy of every cell is compiled with its gradient, and the compiled program is read
(`lab/compiled.py`). Nothing is run, so that a target needs no device of it. An operation is what is left
after fusion: a kernel of ours is one, though it goes through time inside. Prints a table and writes
compiled.csv and environment.json.

--targets  here: the device of this machine; tpu: one TPU v5e, by libtpu (pip install libtpu), with the
           kernels for TPUs. Programs for GPUs can only be compiled where there is one
--sizes    BATCHxTIMExHIDDEN, with commas between; the input is as wide as the state
"""

import importlib.util
import os
from pathlib import Path

from absl import flags

from experiments import cli, output, screen, tables

TARGETS = ("here", "tpu")
CHIP = "v5e:2x2"  # of which one is taken
# It is to compile, not to look for a TPU and for its neighbours.
LIBTPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
}  # fmt: skip

flags.DEFINE_list("cells", ["rnn", "lstm", "gru", "sru", "sru_feedback"], "Cells; all: every one.")
flags.DEFINE_list("sizes", ["8x128x128", "8x1024x128"], "Sizes: BATCHxTIMExHIDDEN.")
flags.DEFINE_list("targets", ["here"], "For what: here, tpu.")
flags.DEFINE_string("workdir", "runs/compiled", "Where everything is written.")
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS


def rows(names, sizes, targets, tell=lambda what: None) -> list[dict]:
    """A row per target, size, cell and strategy: `compiled.Figures`, and megabytes of temporaries.

    Raises:
      ValueError: an unknown target, with the nearest, or one whose compiler is not here.
    """
    import cells

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
    import jax
    from jax.sharding import SingleDeviceSharding

    from cells.registry import nearest

    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; {nearest(target, TARGETS)}")
    if target == "here":
        return SingleDeviceSharding(jax.devices()[0])
    if not importlib.util.find_spec("libtpu"):
        raise ValueError("--targets=tpu needs libtpu, which compiles for TPUs: pip install libtpu")
    from jax.experimental import topologies

    return SingleDeviceSharding(topologies.get_topology_desc(platform="tpu", topology_name=CHIP).devices[0])


def _strategies(cell, target: str) -> list[str]:
    """By name; those that turn as often as their numbers say have no path."""
    import cells
    from cells.scans import Kernel

    names = [name for name in cells.strategies(cell) if name not in ("auto", "newton", "kernel", "cudnn")]
    if target == "here":
        return names
    return [*names, "kernel:target=tpu"] if Kernel().refuses(cell) is None else names


def _compiled(cell, strategy: str, size: tuple[int, int, int], place) -> dict:
    import jax
    import jax.numpy as jnp

    import cells
    from experiments.lab import compiled

    batch, time, features = size
    made = jax.eval_shape(lambda key: cell.init(key, features), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((batch, time, features), jnp.float32)
    args = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for x in (*jax.tree.leaves(made), xs, xs)]
    tree = jax.tree.structure((made, xs, xs))

    def gradient(*leaves):
        params, xs, d_ys = jax.tree.unflatten(tree, leaves)
        ys, pullback = jax.vjp(lambda *args: cells.scan(cell, *args, strategy=strategy)[1], params, xs)
        return ys, pullback(d_ys)

    platform = next(iter(place.device_set)).platform
    program = jax.jit(gradient).trace(*args).lower(lowering_platforms=(platform,)).compile()
    memory = program.memory_analysis()
    temporaries = {} if memory is None else {"temporary_mb": memory.temp_size_in_bytes / 1e6}
    return compiled.figures(program.as_text())._asdict() | temporaries


def table(frame):
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


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Compiles; returns the exit code."""
    import jax
    import pandas as pd

    import configs
    from experiments.speed.bench import size_of
    from train.environment import environment
    from train.files import write_json

    if config or overrides:
        raise ValueError("it has sizes of its own and takes no --config flags")
    if "tpu" in FLAGS.targets:
        for name, value in LIBTPU.items():
            os.environ.setdefault(name, value)
        if not os.path.exists("/dev/accel0"):
            jax.config.update("jax_platforms", "cpu")  # libtpu would look for a TPU
        jax.config.update("jax_enable_compilation_cache", False)  # which has no way with a TPU's programs
    console, workdir, sizes = screen.console(), Path(FLAGS.workdir), [size_of(text) for text in FLAGS.sizes]
    with screen.meanwhile(console).status("") as status:
        names = configs.all_cells(FLAGS.cells)
        found = rows(names, sizes, FLAGS.targets, lambda what: status.update(f"compiling {what}"))
    frame = pd.DataFrame(found)
    workdir.mkdir(parents=True, exist_ok=True)
    output.write_frame(workdir / "compiled.csv", frame)
    write_json(workdir / "environment.json", environment())
    tables.show(console, "Operations one after the other, of all; read and written", table(frame))
    screen.meanwhile(console).print(f"wrote {workdir / 'compiled.csv'}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    cli.run(main, cli.with_cells(__doc__))
