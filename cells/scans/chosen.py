"""What "auto" is on the accelerator of this machine, where it has been measured: `experiments.speed --choose`
keeps it in a file of the user's cache, by the name of the card."""

import json
import math
import os
from pathlib import Path

import jax

VARIABLE = "RECURRENT_STRATEGIES"
NEAR = 4.0  # times the measured number of steps, or a part of it, up to which a measurement counts


def place() -> Path:
    """The file."""
    import pooch

    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(pooch.os_cache("recurrent-cells")) / "strategies.json"


def keep(card: str, cell, time: int, strategy: str) -> None:
    """Notes the fastest strategy of a cell for so many steps on a card."""
    path, found = place(), read()
    found.setdefault(card, {}).setdefault(repr(cell), {})[str(time)] = strategy
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(found, indent=1))
    whole.replace(path)


def read() -> dict:
    """Card -> cell -> steps -> strategy; empty where nothing is, or nothing that can be read."""
    try:
        found = json.loads(place().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def lookup(cell, time: int, card: str | None = None) -> str | None:
    """The strategy that was fastest at the nearest number of steps; None: not measured."""
    card = card or jax.devices()[0].device_kind
    try:
        measured = {int(steps): str(strategy) for steps, strategy in read()[card][repr(cell)].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    nearest = min(measured, key=lambda steps: abs(math.log(steps / time)), default=None)
    near = nearest is not None and 1 / NEAR <= nearest / time <= NEAR
    return measured[nearest] if near else None
