"""Measures the cells and the training loop against other libraries, in one process, in turn.

  python -m experiments.speed
  python -m experiments.speed --parts=layers --sizes=32x512x256 --cells=lstm,sru --rivals=torch
  python -m experiments.speed --preset=growth --rivals=

Prints tables and writes, into --workdir: layers.csv, training.csv, memory.csv, latency.csv,
environment.json (machine, versions, bounds), figures (PNG) and speed.md with all tables. Other
libraries (PyTorch, Equinox, Keras) are timed where installed: pip install 'recurrent-cells[bench]'.

--parts    layers: one layer, forward and forward with gradient; training: steps per second of the whole
           loop; memory: peak memory of a gradient; latency: one step of a stream
--preset   goals: three typical sizes; growth: time 128 to 16,384; grid: many sizes (takes long);
           quick: one tiny size, to see that it works;
           gpu: what a new card is asked, in ten minutes; the same command goes on where it was
--choose   nothing of that: times the strategies of --cells at --sizes on this machine's accelerator, and
           keeps the fastest for strategy="auto" there
--sizes    instead of a preset: BATCHxTIMExHIDDEN, with commas between
"""

import dataclasses

from absl import flags

from experiments import cli, screen

flags.DEFINE_list("parts", ["layers", "training", "memory", "latency"], "What to measure.")
flags.DEFINE_string("preset", "goals", "Sizes of the layers: goals, growth, grid or quick; or gpu.")
flags.DEFINE_boolean(
    "choose", False, "Choose what 'auto' is on this machine's accelerator, for --cells, --sizes."
)
flags.DEFINE_integer("scale", 1, "Divides the sizes of --preset=gpu: to see that it works.", lower_bound=1)
flags.DEFINE_float("minutes", 9.0, "Of --preset=gpu: after these no further group is begun.")
flags.DEFINE_list("sizes", None, "Sizes of the layers: BATCHxTIMExHIDDEN.")
flags.DEFINE_list("cells", None, "Cells to measure (default: all).")
flags.DEFINE_list("strategies", None, "Strategies over time (default: all that a cell can use).")
flags.DEFINE_list("passes", ["forward", "gradient"], "Passes to measure.")
flags.DEFINE_list("rivals", None, "Other libraries (default: those installed; empty: none).")
flags.DEFINE_integer("repeats", 9, "Timed runs of every case.", lower_bound=1)
flags.DEFINE_string("workdir", "runs/speed", "Where everything is written.")
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Measures; returns the exit code."""
    from experiments.speed import bench

    if config or overrides:
        raise ValueError("the benchmark has sizes of its own and takes no --config flags")
    names = [field.name for field in dataclasses.fields(bench.Options)]
    bench.run(bench.Options(**{name: getattr(FLAGS, name) for name in names}), screen.console())
    return 0


if __name__ == "__main__":
    cli.run(main, cli.with_cells(__doc__))
