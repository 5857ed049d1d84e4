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

import os
from pathlib import Path

from absl import flags

from experiments import cli, output, screen, tables

flags.DEFINE_list("cells", ["rnn", "lstm", "gru", "sru", "sru_feedback"], "Cells; all: every one.")
flags.DEFINE_list("sizes", ["8x128x128", "8x1024x128"], "Sizes: BATCHxTIMExHIDDEN.")
flags.DEFINE_list("targets", ["here"], "For what: here, tpu.")
flags.DEFINE_string("workdir", "runs/compiled", "Where everything is written.")
flags.adopt_module_key_flags(cli)
FLAGS = flags.FLAGS


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Compiles; returns the exit code."""
    import jax
    import pandas as pd

    import configs
    from experiments.speed import programs
    from experiments.speed.bench import size_of
    from train.environment import environment
    from train.files import write_json

    if config or overrides:
        raise ValueError("it has sizes of its own and takes no --config flags")
    if "tpu" in FLAGS.targets:
        for name, value in programs.LIBTPU.items():
            os.environ.setdefault(name, value)
        if not os.path.exists("/dev/accel0"):
            jax.config.update("jax_platforms", "cpu")  # libtpu would look for a TPU
        jax.config.update("jax_enable_compilation_cache", False)  # which has no way with a TPU's programs
    console, workdir, sizes = screen.console(), Path(FLAGS.workdir), [size_of(text) for text in FLAGS.sizes]
    with screen.meanwhile(console).status("") as status:
        names = configs.all_cells(FLAGS.cells)
        found = programs.rows(names, sizes, FLAGS.targets, lambda what: status.update(f"compiling {what}"))
    frame = pd.DataFrame(found)
    workdir.mkdir(parents=True, exist_ok=True)
    output.write_frame(workdir / "compiled.csv", frame)
    write_json(workdir / "environment.json", environment())
    tables.show(console, "Operations one after the other, of all; read and written", programs.table(frame))
    screen.meanwhile(console).print(f"wrote {workdir / 'compiled.csv'}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    cli.run(main, cli.with_cells(__doc__))
