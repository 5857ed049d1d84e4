"""What a cell is told of the longest dependency of its task, by the options that it has for it.

Cells with the option `chrono` take the length itself (chrono initialisation, Tallec & Ollivier 2018): the
gates of the units start at time scales uniform in 2..longest. For the others TOLD has the nearest that their
options allow; a cell that is in neither starts as it is:

    rnn, window          have nothing that keeps the past for a set time
    mamba2               starts at its paper's spread of time scales, to 1000 steps, and has no option for it
"""

import dataclasses
import math

import cells


def _middle(longest):
    """All units at the middle of chrono's time scales."""
    return {"forget_bias": math.log(longest / 2)}


def _ring(longest):
    """|lambda| for time scales from longest / 4 to longest, as Orvieto 2023 raises it for long sequences."""
    return {"r_min": max(0.0, 1 - 4 / longest), "r_max": 1 - 1 / longest}


def _decay(longest):
    """The same range of time scales; gates start at 1/2, so that the state kept with r = 1 is its square."""
    return {"a_min": max(0.25, 1 - 4 / longest) ** 2, "a_max": max(0.5, 1 - 1 / longest) ** 2}


def _field(kernel, longest):
    """Levels until the convolutions see that far (Bai 2018, section 3.2)."""
    levels = math.ceil(math.log2((longest - 1) / (2 * (kernel - 1)) + 1))
    return {"levels": min(20, max(1, levels))}


TOLD = {
    "qrnn": lambda cell, longest: _middle(longest),
    "knn": lambda cell, longest: _middle(longest),
    "slstm": lambda cell, longest: _middle(longest),
    "mlstm": lambda cell, longest: _middle(longest),
    "lru": lambda cell, longest: _ring(longest),
    "rglru": lambda cell, longest: _decay(longest),
    "tcn": lambda cell, longest: _field(cell.kernel, longest),
}


LENGTH_OPTIONS = {
    "qrnn": ("forget_bias",),
    "knn": ("forget_bias",),
    "slstm": ("forget_bias",),
    "mlstm": ("forget_bias",),
    "lru": ("r_min", "r_max"),
    "rglru": ("a_min", "a_max"),
    "tcn": ("levels",),
}


def length_options(cell: type) -> tuple[str, ...]:
    """The options that `for_length` sets, or that what it sets overrules."""
    if "chrono" in cell.__dataclass_fields__:
        overruled = [name for name in ("forget_bias", "update_bias") if name in cell.__dataclass_fields__]
        return ("chrono", *overruled)
    name = next((name for name, known in cells.CELLS.table.items() if known is cell), "")
    return LENGTH_OPTIONS.get(name, ())


def for_length(cell: cells.Cell, steps: int) -> cells.Cell:
    """The cell, told the longest dependency in steps. An option that is not at its default keeps it as it is.

    Args:
      steps: below 3 there is nothing to tell.
    """
    names = length_options(type(cell))
    defaults = {field.name: field.default for field in dataclasses.fields(cell)}
    if steps < 3 or any(getattr(cell, name) != defaults[name] for name in names):
        return cell
    options = {"chrono": steps} if "chrono" in names else {}
    options = options or TOLD.get(cells.CELLS.name_of(cell), lambda *_: {})(cell, steps)
    return dataclasses.replace(cell, **options)
