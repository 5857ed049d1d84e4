"""Layers: every cell and strategy, forward and with its gradient, against other libraries."""

import jax

import cells
from experiments.lab import statistics
from experiments.lab.timing import Case, jax_run
from experiments.speed import rivals

PRESETS = {
    "goals": [(32, 128, 128), (32, 512, 256), (16, 2048, 128)],
    "growth": [(4, time, 64) for time in (128, 512, 2048, 8192, 16384)],
    "grid": [(b, t, h) for b in (1, 8, 32, 128) for t in (128, 1024) for h in (32, 128, 512)],
    "quick": [(8, 64, 32)],
}
UNLIKE = {"sru": "lstm", "sru_feedback": "lstm"}  # cells that rivals do not have: what stands beside them


def cases(size, cell_names, strategies, passes, rival_names, options: dict | None = None) -> list[Case]:
    """All that is timed at one (batch, time, hidden_size); the input has hidden_size features."""
    batch, time, hidden_size = size
    found = []
    for name in cell_names:
        cell = cells.get(name, hidden_size=hidden_size, **(options or {}))
        for strategy in cells.strategies(cell):
            if strategy == "auto" or (strategies and strategy not in strategies):
                continue
            for how in passes:
                for devices in _device_counts(batch):
                    labels = _labels(size, name, how, "ours", strategy, devices)
                    labels["gflop"] = gflop(cell, batch, time, how)
                    found.append(Case(labels, _ours(cell, strategy, size, how, devices)))
    for rival in rival_names:
        for kind in dict.fromkeys(UNLIKE.get(name, name) for name in cell_names):
            if kind not in rivals.KINDS or (rival, kind) == ("equinox", "rnn"):
                continue
            for how in passes:
                if rival == "torch":
                    make = _torch(kind, size, how)
                    found.append(Case(_labels(size, kind, how, rival, "", 1), make))
                    continue
                for devices in _device_counts(batch):
                    make = _rival(rival, kind, size, how, devices)
                    found.append(Case(_labels(size, kind, how, rival, "", devices), make))
    return found


def _labels(size, cell, how, library, strategy, devices) -> dict:
    names = ("batch", "time", "hidden_size", "cell", "pass", "library", "strategy", "devices")
    return dict(zip(names, (*size, cell, how, library, strategy, devices), strict=True))


def _device_counts(batch: int) -> list[int]:
    """One device, and all of them where they can share the batch."""
    n = len(jax.devices())
    return [1, n] if n > 1 and batch % n == 0 else [1]


def gflop(cell: cells.Cell, batch: int, time: int, how: str, features: int = 0) -> float:
    """The matmuls of a layer: every matrix once per step and row, three times with the gradient.

    Args:
      features: of the input; 0: hidden_size.
    """
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), features or cell.hidden_size))
    size = sum(p.size for p in shapes.values() if p.ndim > 1)
    return 2e-9 * batch * time * size * (3 if how == "gradient" else 1)


def _inputs(size):
    batch, time, hidden_size = size
    keys = jax.random.split(jax.random.key(1))
    return tuple(jax.random.normal(key, (batch, time, hidden_size)) for key in keys)


def _ours(cell, strategy, size, how, devices):
    def make():
        xs, d_ys = _inputs(size)
        params = cell.init(jax.random.key(0), cell.hidden_size)
        return jax_run(
            lambda p, xs: cells.scan(cell, p, xs, strategy=strategy)[1], params, xs, d_ys, how, devices
        )

    return make


def _rival(rival, kind, size, how, devices):
    def make():
        xs, d_ys = _inputs(size)
        params, layer = rivals.JAX[rival](kind, size[-1], xs)
        return jax_run(layer, params, xs, d_ys, how, devices)

    return make


def _torch(kind, size, how):
    return lambda: rivals.torch(kind, *size, how == "gradient")


def growth(rows) -> list[dict]:
    """The exponent p of ms ~ time^p of each case, by least squares over its larger half of lengths."""
    fits = []
    keys = ["cell", "pass", "library", "strategy", "devices", "batch", "hidden_size"]
    for key, group in rows.dropna(subset="ms").groupby(keys):
        if len(group) >= 3:
            times = sorted(group["time"])[-max(3, (len(group) + 1) // 2) :]
            fit = {"exponent": statistics.exponent(group["time"], group["ms"])}
            fits.append(dict(zip(keys, key, strict=True)) | fit | {"over": f"{times[0]} to {times[-1]}"})
    return fits
