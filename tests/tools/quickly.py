"""Which of many alike run without `-m slow`."""

import pytest


def quickly(names, *chosen):
    """Parameters of which all but the chosen ones are slow."""
    return [pytest.param(name, marks=[] if name in chosen else pytest.mark.slow) for name in names]
