"""Peak memory of one gradient, each case in a process of its own.

`temp_mib`: what XLA plans for the program beside its arguments and results. `peak_mib`: how much the
resident memory of the process rises at most while the gradient is computed once, with the C library's own
allocator (Linux only).
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax

import cells
from experiments.lab import timing
from experiments.speed import layers, rivals

ROOT = Path(__file__).parents[2]
SIZES = [(32, 512, 256), (4, 16384, 64)]
MIB = 2**20


def cases(sizes, cell_names, rival_names) -> list[dict]:
    """Every cell and strategy, the same with `remat`, and the rivals."""
    found = []
    for size in sizes:
        for name in cell_names:
            for strategy in cells.strategies(cells.get(name, hidden_size=size[-1])):
                if strategy != "auto":
                    case = dict(size=size, cell=name, library="ours", strategy=strategy)
                    found += [
                        case | {"remat": remat} for remat in ((0, -1) if strategy == "sequential" else (0,))
                    ]
        for rival in rival_names:
            for kind in dict.fromkeys(layers.UNLIKE.get(name, name) for name in cell_names):
                if kind in rivals.KINDS and (rival, kind) != ("equinox", "rnn"):
                    found.append(dict(size=size, cell=kind, library=rival, strategy="", remat=0))
    return found


def measure(case: dict) -> dict:
    """The row of a case, measured by a fresh process."""
    batch, time, hidden_size = case["size"]
    row = {"batch": batch, "time": time, "hidden_size": hidden_size, **case}
    del row["size"]
    command = [sys.executable, "-m", "experiments.speed.memory", json.dumps(case)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = [f"exit code {done.returncode}", *done.stderr.strip().splitlines()]
        told = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)] or lines
        return row | {"error": told[-1][:150]}
    return row | json.loads(done.stdout.splitlines()[-1])


def child(case: dict) -> dict:
    """Runs a case once: what it planned for and how far the memory of this process rose."""
    size, planned = tuple(case["size"]), {}
    if case["library"] == "torch":
        run = rivals.torch(case["cell"], *size, gradient=True)[-1]
    else:
        xs, d_ys = layers._inputs(size)
        if case["library"] == "ours":
            cell = cells.get(case["cell"], hidden_size=size[-1])
            params = cell.init(jax.random.key(0), size[-1])

            def layer(params, xs):
                return cells.scan(cell, params, xs, strategy=case["strategy"], remat=case["remat"])[1]
        else:
            params, layer = rivals.JAX[case["library"]](case["cell"], size[-1], xs)
        program, args = timing.program_of(layer, params, xs, d_ys, "gradient", 1)
        compiled = program.lower(*args).compile()
        planned = {"temp_mib": compiled.memory_analysis().temp_size_in_bytes / MIB}
        run = lambda: jax.block_until_ready(compiled(*args))  # noqa: E731
    status = Path("/proc/self/status")
    if not status.exists():
        return planned
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _kib(status, "VmRSS")
    run()
    return planned | {"peak_mib": (_kib(status, "VmHWM") - before) / 1024}


def _kib(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


if __name__ == "__main__":
    print(json.dumps(child(json.loads(sys.argv[1]))))
