"""Measures the cells and the training loop against other libraries, in one process, in turn.

  python -m experiments.speed
  python -m experiments.speed --parts=layers --sizes=32x512x256 --cells=lstm,sru --rivals=torch
  python -m experiments.speed --preset=growth --rivals=

Prints tables and writes, into --workdir: layers.csv, training.csv, memory.csv, environment.json (machine,
versions, bounds), figures (PNG) and speed.md with all tables. Other libraries (PyTorch, Equinox, Keras) are
timed where installed: pip install 'recurrent-cells[bench]'.

--parts    layers: one layer, forward and forward with gradient; training: steps per second of the whole
           loop; memory: peak memory of a gradient
--preset   goals: three typical sizes; growth: time 128 to 16,384; grid: many sizes (takes long);
           quick: one tiny size, to see that it works
--sizes    instead of a preset: BATCHxTIMExHIDDEN, with commas between
"""

import datetime
import importlib.metadata
import json
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.progress import track

from experiments import cli

PARTS = ("layers", "training", "memory")
flags.DEFINE_list("parts", list(PARTS), "What to measure.")
flags.DEFINE_string("preset", "goals", "Sizes of the layers: goals, growth, grid or quick.")
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
    import cells
    import configs
    from experiments.lab import timing
    from experiments.speed import layers, rivals
    from train.record import environment, write_json

    if config or overrides:
        raise ValueError("the benchmark has sizes of its own and takes no --config flags")
    parts = _known("part", FLAGS.parts, PARTS)
    passes = _known("pass", FLAGS.passes, timing.PASSES)
    names = _known("cell", configs.all_cells(FLAGS.cells or ["all"]), cells.names())
    _known("strategy", FLAGS.strategies or [], [s for s in cells.scans.STRATEGIES if s != "auto"])
    _known("preset", [FLAGS.preset], layers.PRESETS)
    sizes = [_size(text) for text in FLAGS.sizes] if FLAGS.sizes else layers.PRESETS[FLAGS.preset]
    others = rivals.installed() if FLAGS.rivals is None else _known("rival", FLAGS.rivals, rivals.NAMES)
    if missing := [name for name in others if name not in rivals.installed()]:
        raise ValueError(f"not installed: {', '.join(missing)}; pip install 'recurrent-cells[bench]'")

    console = Console(highlight=False)
    absent = [name for name in rivals.NAMES if name not in rivals.installed()]
    if FLAGS.rivals is None and absent:
        console.print(f"not installed, so not measured: {', '.join(absent)}")
    workdir = Path(FLAGS.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    console.print(f"measuring the machine; results go to {workdir}", soft_wrap=True)
    bounds = timing.bounds()
    told = environment() | {"allocator": FLAGS.allocator, "bounds": bounds}
    told["rivals"] = {n: importlib.metadata.version(rivals.PACKAGES.get(n, n)) for n in others}
    write_json(workdir / "environment.json", told)
    bench = _Bench(console, workdir, bounds, told)
    if "layers" in parts:
        bench.layers(sizes, names, passes, others)
    if "training" in parts:
        bench.training(
            names if FLAGS.cells else ["rnn", "lstm", "gru", "sru"], others, FLAGS.preset == "quick"
        )
    if "memory" in parts:
        bench.memory([sizes[0]] if FLAGS.preset == "quick" or FLAGS.sizes else None, names, others)
    bench.finish()
    return 0


def _known(kind: str, asked, known) -> list[str]:
    """`asked`, if all of it is known.

    Raises:
      ValueError: the first that is not, with the nearest.
    """
    from cells.registry import nearest

    asked = [name for name in asked if name]
    for name in asked:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return asked


def _size(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"a size is BATCHxTIMExHIDDEN, such as 32x128x128, got {text!r}")
    return tuple(map(int, parts))


class _Bench:
    """Measures part by part; every table is on disk as soon as it is known."""

    def __init__(self, console, workdir, bounds, told):
        self.console, self.workdir, self.bounds, self.told = console, workdir, bounds, told
        self.pages = []

    def layers(self, sizes, names, passes, others):
        import pandas as pd

        from experiments.lab import timing
        from experiments.speed import layers, report

        rows = []
        for size in sizes:
            cases = layers.cases(size, names, FLAGS.strategies, passes, others)
            with self.console.status("") as status:

                def tell(case, status=status):
                    status.update(f"compiling {case}")

                new = timing.interleaved(cases, FLAGS.repeats, tell)
            rows += new
            self._errors(new)
            frame = report.with_bounds(pd.DataFrame(rows), self.bounds)
            frame.to_csv(self.workdir / "layers.csv", index=False)
            self.console.print(f"measured {len(new)} cases at batch, time, hidden = {size}")
        short = report.layer_tables(frame, short=True)
        for title, table in report.layer_tables(frame).items():
            self._page(title, table, short[title])
        if "gradient" in passes:
            if len(sizes) <= 4:
                self._figure("layers", report.layers_figure(frame))
            self._goals(report.layer_goals(frame))
        if fits := layers.growth(frame):
            fits = pd.DataFrame(fits)
            fits["exponent"] = fits["exponent"].map("{:.2f}".format)
            self._page("Growth: ms ~ time^exponent", fits)
            self._figure("growth", report.growth_figure(frame, passes[-1]))

    def training(self, names, others, quick):
        import pandas as pd

        from experiments.lab import timing
        from experiments.speed import report, training

        cases = training.cases(names, (1, 8), others, 8 if quick else training.HIDDEN)
        with self.console.status("") as status:
            rows = timing.interleaved(cases, FLAGS.repeats, lambda case: status.update(f"compiling {case}"))
        self._errors(rows)
        frame = report.with_bounds(pd.DataFrame(rows), self.bounds)
        frame.to_csv(self.workdir / "training.csv", index=False)
        self._page("Training: optimiser steps per second", report.training_table(frame))
        self._goals(report.training_goals(frame))
        self._figure("training", report.training_figure(frame))

    def memory(self, sizes, names, others):
        import pandas as pd

        from experiments.speed import memory, report

        rows = []
        cases = memory.cases(sizes or memory.SIZES, names, others)
        for case in track(cases, "memory", console=self.console, transient=True):
            rows.append(memory.measure(case))
            pd.DataFrame(rows).to_csv(self.workdir / "memory.csv", index=False)
        self._errors(rows)
        for title, table in report.memory_tables(pd.DataFrame(rows)).items():
            self._page(title, table)

    def _goals(self, goals):
        """What we set out to reach; it is about the sizes of the preset alone."""
        if FLAGS.preset == "goals" and not FLAGS.sizes and not goals.empty:
            self._page("Goals", goals)

    def _errors(self, rows):
        for row in rows:
            if error := row.get("error"):
                case = " ".join(str(value) for key, value in row.items() if key not in ("error", "gflop"))
                self.console.print(f"could not measure {case}: {error}")

    def _page(self, title, frame, shown=None):
        """Prints a table, or what of it fits a terminal, and keeps it for speed.md."""
        from experiments import tables

        tables.show(self.console, title, frame if shown is None else shown)
        self.pages.append(f"## {title}\n\n{tables.markdown(frame)}")

    def _figure(self, name, figure):
        figure.savefig(self.workdir / f"{name}.png", dpi=150)

    def finish(self):
        told = self.told
        versions = {name: told[name] for name in ("python", "jax", "flax")} | told["rivals"]
        head = (
            f"# Speed\n\n{datetime.date.today()}, `{told['command']}`\n\n"
            f"{told['cpu']}, {told['cores']} cores, backend {told['backend']} "
            f"({told['device_kind']} x {len(told['devices'])}), allocator {told['allocator']}; "
            f"{', '.join(f'{name} {version}' for name, version in versions.items())}; float32.\n\n"
            f"Bounds measured in the same run: matmul {self.bounds['matmul_gflops']:.0f} GFLOP/s (3000^3), "
            f"copy {self.bounds['copy_gb_per_s']:.1f} GB/s. Times are medians of {FLAGS.repeats} interleaved "
            "runs, compilation and warm-up excluded. `how`: the strategy, where not sequential, and `x2` "
            "where 2 devices share the batch; `bound`: the share of the matmul bound; `2.5x`: how many times "
            "as long as ours. "
            "`sru` and `sru_feedback` stand beside the others' LSTM.\n\n"
        )
        (self.workdir / "speed.md").write_text(head + "\n".join(self.pages))
        self.console.print(f"wrote {self.workdir / 'speed.md'}", soft_wrap=True)
        bounds = json.dumps({key: round(value, 1) for key, value in self.bounds.items()})
        self.console.print(f"bounds: {bounds}")


if __name__ == "__main__":
    cli.run(main, __doc__)
