"""What "auto" is on the accelerator of this machine, where it has been measured: `experiments.speed --choose`
keeps it in a file of the user's cache, by the name of the card."""

import json
import math
import os
from pathlib import Path

import jax

VARIABLE = "RECURRENT_STRATEGIES"
NEAR = 4.0  # times the measured steps, or rows, up to which a measurement counts


def place() -> Path:
    """The file."""
    import pooch

    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(pooch.os_cache("recurrent-cells")) / "strategies.json"


def keep(card: str, cell, batch: int, time: int, strategy: str) -> None:
    """Notes the fastest strategy of a cell for such a batch on a card, with this version of JAX."""
    path, found = place(), read()
    sizes = found.setdefault(card, {}).setdefault(repr(cell), {})
    sizes[f"{batch}x{time}"] = {"strategy": strategy, "jax": jax.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(found, indent=1))
    whole.replace(path)


def read() -> dict:
    """Card -> cell -> "batchxtime" -> strategy and version; empty where nothing is that can be read."""
    try:
        found = json.loads(place().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def lookup(cell, time: int, batch: int | None = None, card: str | None = None) -> str | None:
    """The strategy that was fastest at the nearest size, with this version of JAX; None: not measured."""
    card, found = card or jax.devices()[0].device_kind, {}
    try:
        for size, entry in read()[card][repr(cell)].items():
            rows, steps = map(int, size.split("x"))
            ratios = steps / time, rows / (batch or rows)
            if entry["jax"] == jax.__version__ and all(1 / NEAR <= ratio <= NEAR for ratio in ratios):
                found[str(entry["strategy"])] = sum(abs(math.log(ratio)) for ratio in ratios)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return min(found, key=lambda name: found[name], default=None)
