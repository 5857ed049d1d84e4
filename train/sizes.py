"""The size of the state that gives a whole model a wanted number of parameters."""

import functools

import cells
from train.model import ModelConfig, build, input_width
from train.tasks.base import Spec


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

    if size_of(1) > parameters:
        raise ValueError(
            f"a budget of {parameters} parameters is too small: {cell_name} with hidden_size={unit} "
            f"has {size_of(1)}"
        )
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
