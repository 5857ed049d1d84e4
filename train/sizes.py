"""The size of the state that gives a whole model a wanted number of parameters."""

import dataclasses
import functools

import cells
from train.model import ModelConfig, build, input_width
from train.tasks.base import Spec


def check_budget(cell: cells.Cell, spec: Spec, config: ModelConfig, parameters: int) -> None:
    """Refuses a budget that the smallest model of a cell is above.

    Raises:
      ValueError: it is.
    """
    options = dataclasses.asdict(cell)
    name, unit = cells.CELLS.name_of(cell), _unit(cell)
    options["hidden_size"] = unit
    # The length of sequences changes no parameter.
    least = _parameters(cells.get(name, **options), dataclasses.replace(spec, time=1), config)
    _require_fit(name, unit, least, parameters)


def _unit(cell: cells.Cell) -> int:
    options = dataclasses.asdict(cell)
    options.pop("hidden_size")
    return type(cell).size_multiple(**options)


@functools.lru_cache(256)
def _parameters(cell, spec, config) -> int:
    return build(cell, spec, config).parameters


def _require_fit(name, unit, least, parameters):
    if least > parameters:
        raise ValueError(
            f"a budget of {parameters} parameters is too small: {name} with hidden_size={unit} has {least}"
        )


def matched_hidden_size(
    cell_name: str, cell_options: dict, spec: Spec, config: ModelConfig, parameters: int
) -> int:
    """The hidden size whose whole model comes nearest to a budget of parameters; of two, the smaller. Only
    multiples of the cell's `size_multiple` count.

    Args:
      cell_options: all options but hidden_size.
      parameters: the budget.

    Raises:
      ValueError: the smallest size is over the budget already.
    """

    unit = cells.CELLS.cls(cell_name).size_multiple(**cell_options)

    @functools.cache
    def size_of(multiple):
        cell = cells.get(cell_name, hidden_size=unit * multiple, **cell_options)
        return build(cell, spec, config).parameters

    _require_fit(cell_name, unit, size_of(1), parameters)
    # Where a layer's output is as wide as its input, projections fall away (SRU's fourth, the shortcut)
    # and the count dips. All other counts rise with the size: those are bisected, the dips compared.
    width = input_width(0, spec, config)
    dips = {int(size) for size in (width / unit, width / unit / 2) if size >= 1 and size == int(size)}

    def fits(multiple):
        while multiple in dips:
            multiple += 1
        return size_of(multiple) <= parameters

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    # Up to two dips may follow each other before the next size that counts as usual.
    candidates = {low, high, high + 1, high + 2, *dips} - {0}
    return unit * min(sorted(candidates), key=lambda multiple: abs(size_of(multiple) - parameters))
