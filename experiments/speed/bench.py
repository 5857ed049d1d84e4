"""The parts of the benchmark, one after the other; every table is on disk as soon as it is known."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
from pathlib import Path

import jax
import pandas as pd
from rich.console import Console
from rich.progress import track

import cells
import configs
from cells.registry import nearest
from experiments import output, screen, tables
from experiments.lab import timing
from experiments.speed import latency, layers, memory, report, rivals, training
from train.environment import environment
from train.files import write, write_json

PARTS = ("layers", "training", "memory", "latency")


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command's flags say; None: all, or the preset's."""

    parts: tuple | list = PARTS
    preset: str = "goals"
    sizes: list | None = None
    cells: list | None = None
    strategies: list | None = None
    passes: tuple | list = timing.PASSES
    rivals: list | None = None
    repeats: int = 9
    workdir: str = "runs/speed"
    allocator: str = "kept"
    choose: bool = False
    scale: int = 1  # of preset gpu: divides its sizes
    minutes: float = 9.0  # of preset gpu: after which no further group is begun


def run(options: Options, console: Console) -> None:
    """Measures, and writes all of it into the workdir.

    Raises:
      ValueError: an option that is not known, with the nearest.
    """
    parts = _known("part", options.parts, PARTS)
    passes = _known("pass", options.passes, timing.PASSES)
    names = _known("cell", configs.all_cells(options.cells or ["all"]), cells.names())
    _known("strategy", options.strategies or [], [s for s in cells.scans.STRATEGIES if s != "auto"])
    _known("preset", [options.preset], [*layers.PRESETS, "gpu"])
    if options.choose or options.preset == "gpu":
        _refuse_others(options)
    elif (options.scale, options.minutes) != (Options.scale, Options.minutes):
        raise ValueError("--scale and --minutes are for --preset=gpu")
    if options.choose:
        _choose(options, names, console)
        return
    if options.preset == "gpu":
        _card(options, console)
        return
    sizes = [size_of(text) for text in options.sizes] if options.sizes else layers.PRESETS[options.preset]
    others = rivals.installed() if options.rivals is None else _known("rival", options.rivals, rivals.NAMES)
    if missing := [name for name in others if name not in rivals.installed()]:
        raise ValueError(f"not installed: {', '.join(missing)}; pip install 'recurrent-cells[bench]'")

    absent = [name for name in rivals.NAMES if name not in rivals.installed()]
    if options.rivals is None and absent:
        console.print(f"not installed, so not measured: {', '.join(absent)}")
    workdir = Path(options.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    screen.meanwhile(console).print(f"measuring the machine; results go to {workdir}", soft_wrap=True)
    bounds = timing.bounds()
    record = environment() | {"allocator": options.allocator, "bounds": bounds}
    record["rivals"] = {n: importlib.metadata.version(rivals.PACKAGES.get(n, n)) for n in others}
    write_json(workdir / "environment.json", record)
    bench = Bench(options, console, bounds, record)
    if "layers" in parts:
        bench.layers(sizes, names, passes, others)
    if "training" in parts:
        bench.training(
            names if options.cells else ["rnn", "lstm", "gru", "sru"], others, options.preset == "quick"
        )
    if "memory" in parts:
        bench.memory([sizes[0]] if options.preset == "quick" or options.sizes else None, names, others)
    if "latency" in parts:
        bench.latency(names, others, ((1, 8),) if options.preset == "quick" else latency.SIZES)
    bench.finish()


def _refuse_others(options: Options) -> None:
    """What the short ways do not look at."""
    of, takes = ("--choose", ("cells", "sizes")) if options.choose else ("--preset=gpu", ())
    names = ["parts", "sizes", "cells", "strategies", "passes", "rivals"]
    names += ["preset", "scale", "minutes"] if options.choose else []
    for name in (name for name in names if name not in takes):
        default, given = Options.__dataclass_fields__[name].default, getattr(options, name)
        default, given = (list(x) if isinstance(x, tuple | list) else x for x in (default, given))
        if given != default:
            raise ValueError(f"{of} takes no --{name}")


def _choose(options: Options, names: list[str], console: Console) -> None:
    from cells.scans import chosen
    from experiments.speed import choose

    sizes = [size_of(text) for text in options.sizes or ("32x128x128", "32x512x256")]
    with screen.meanwhile(console).status("") as status:
        rows = choose.choose(sizes, names, options.repeats, lambda case: status.update(f"compiling {case}"))
    tables.show(console, "Strategies, forward and backward", choose.table(rows))
    console.print(f"kept in {chosen.place()}: 'auto' is that from now on", soft_wrap=True)


def _card(options: Options, console: Console) -> None:
    """`--preset=gpu`: all that a new card is asked."""
    from experiments.lab.store import Lab
    from experiments.speed import accelerator, card_report, dispatch

    workdir, meanwhile = Path(options.workdir), screen.meanwhile(console)
    with contextlib.closing(Lab(workdir, meanwhile)) as lab, meanwhile.status("") as status:
        start = environment() | {"device": jax.devices()[0].device_kind}
        start["xla_flags"] = os.environ.get("XLA_FLAGS", "")
        size = max(1, 8192 // options.scale)
        sizes = {"size": size, "numbers": max(1, 2**28 // options.scale)}
        bounds = lab.do("bounds", {"device": start["device"]} | sizes, lambda: [dispatch.bounds(**sizes)])[0]
        rows, whole = accelerator.measure(
            lab,
            options.repeats,
            lambda what: status.update(f"measuring {what}"),
            options.scale,
            options.minutes,
        )
    output.write_frame(workdir / "accelerator.csv", rows)
    write_json(workdir / "environment.json", start | {"bounds": bounds})
    pages, goals = [], card_report.goals(rows, bounds["copy_gb_per_s"])
    for title, frame in (("Layers, medians in ms", card_report.table(rows)), ("Goals", goals)):
        if len(frame):
            tables.show(console, title, frame)
            pages.append(f"## {title}\n\n{tables.markdown(frame)}")
    head = (
        f"# {start['device']}\n\n{datetime.date.today()}, `{start['command']}`, jax {start['jax']}; bounds "
        f"of the same run: copy {bounds['copy_gb_per_s']:.0f} GB/s, matmul {bounds['matmul_gflops']:.0f} "
        f"GFLOP/s (float32, {size}^3).\n\n"
    )
    if "ms" in rows and (rows["pass"] == "gradient").any():
        output.write_figure(workdir / "layers.png", card_report.figure(rows), dpi=150)
        pages.append("![Times of layers, forward and backward](layers.png)")
    write(workdir / "speed.md", head + "\n\n".join(pages) + "\n")
    rest = "" if whole else "; time is up: the same command goes on"
    console.print(f"wrote {workdir / 'speed.md'}{rest}", soft_wrap=True)


def _known(kind: str, asked, known) -> list[str]:
    """`asked`, if all of it is known.

    Raises:
      ValueError: the first that is not, with the nearest.
    """
    asked = [name for name in asked if name]
    for name in asked:
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; {nearest(name, known)}")
    return asked


def size_of(text: str) -> tuple[int, int, int]:
    """Batch, time and hidden size of "32x128x128".

    Raises:
      ValueError: another text.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"a size is BATCHxTIMExHIDDEN, such as 32x128x128, got {text!r}")
    return tuple(map(int, parts))


class Bench:
    """Measures part by part; every table is on disk as soon as it is known."""

    def __init__(self, options, console, bounds, record):
        self.options, self.console, self.bounds, self.record = options, console, bounds, record
        self.meanwhile = screen.meanwhile(console)
        self.workdir = Path(options.workdir)
        self.pages = []

    def layers(self, sizes, names, passes, others):

        rows = []
        for size in sizes:
            cases = layers.cases(size, names, self.options.strategies, passes, others)
            with self.meanwhile.status("") as status:

                def tell(case, status=status):
                    status.update(f"compiling {case}")

                new = timing.interleaved(cases, self.options.repeats, tell)
            rows += new
            self._errors(new)
            frame = report.with_bounds(pd.DataFrame(rows), self.bounds)
            output.write_frame(self.workdir / "layers.csv", frame)
            self.meanwhile.print(f"measured {len(new)} cases at batch, time, hidden = {size}")
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

        cases = training.cases(names, (1, 8), others, 8 if quick else training.HIDDEN)
        with self.meanwhile.status("") as status:
            rows = timing.interleaved(
                cases, self.options.repeats, lambda case: status.update(f"compiling {case}")
            )
        self._errors(rows)
        frame = report.with_bounds(pd.DataFrame(rows), self.bounds)
        output.write_frame(self.workdir / "training.csv", frame)
        self._page("Training: optimiser steps per second", report.training_table(frame))
        self._goals(report.training_goals(frame))
        self._figure("training", report.training_figure(frame))

    def memory(self, sizes, names, others):

        rows = []
        cases = memory.cases(sizes or memory.SIZES, names, others)
        for case in track(cases, "memory", console=self.meanwhile, transient=True):
            rows.append(memory.measure(case))
            output.write_frame(self.workdir / "memory.csv", pd.DataFrame(rows))
        self._errors(rows)
        for title, table in report.memory_tables(pd.DataFrame(rows)).items():
            self._page(title, table)

    def latency(self, names, others, sizes):

        cases = latency.cases([name for name in names if name != "attention"], others, sizes)
        with self.console.status("") as status:
            rows = timing.interleaved(
                cases, self.options.repeats, lambda case: status.update(f"compiling {case}")
            )
        self._errors(rows)
        output.write_frame(self.workdir / "latency.csv", pd.DataFrame(rows))
        self._page("Latency: one step of a stream, ms", report.latency_table(pd.DataFrame(rows)))

    def _goals(self, goals):
        """What we set out to reach; it is about the sizes of the preset alone."""
        if self.options.preset == "goals" and not self.options.sizes and not goals.empty:
            self._page("Goals", goals)

    def _errors(self, rows):
        for row in rows:
            if error := row.get("error"):
                case = " ".join(str(value) for key, value in row.items() if key not in ("error", "gflop"))
                self.console.print(f"could not measure {case}: {error}")

    def _page(self, title, frame, shown=None):
        """Prints a table, or what of it fits a terminal, and keeps it for speed.md."""
        tables.show(self.console, title, frame if shown is None else shown)
        self.pages.append(f"## {title}\n\n{tables.markdown(frame)}")

    def _figure(self, name, figure):
        output.write_figure(self.workdir / f"{name}.png", figure, dpi=150)

    def finish(self):
        record = self.record
        versions = {name: record[name] for name in ("python", "jax", "flax")} | record["rivals"]
        head = (
            f"# Speed\n\n{datetime.date.today()}, `{record['command']}`\n\n"
            f"{record['cpu']}, {record['cores']} cores, backend {record['backend']} "
            f"({record['device_kind']} x {len(record['devices'])}), allocator {record['allocator']}; "
            f"{', '.join(f'{name} {version}' for name, version in versions.items())}; float32.\n\n"
            f"Bounds measured in the same run: matmul {self.bounds['matmul_gflops']:.0f} GFLOP/s (3000^3), "
            f"copy {self.bounds['copy_gb_per_s']:.1f} GB/s. Times are medians of {self.options.repeats} "
            "interleaved runs, compilation and warm-up excluded. `how`: the strategy, where not sequential, "
            "and `x2` where 2 devices share the batch; `bound`: the share of the matmul bound; `2.5x`: how "
            "many times as long as ours. "
            "`sru` and `sru_feedback` stand beside the others' LSTM.\n\n"
        )
        write(self.workdir / "speed.md", head + "\n".join(self.pages))
        self.meanwhile.print(f"wrote {self.workdir / 'speed.md'}", soft_wrap=True)
        bounds = json.dumps({key: round(value, 1) for key, value in self.bounds.items()})
        self.console.print(f"bounds: {bounds}")
