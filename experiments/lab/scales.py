"""The axis of a metric: as it is, on a log axis, or its error where an accuracy saturates."""

from typing import NamedTuple

import numpy as np
from matplotlib import ticker

SATURATED = 0.9  # an accuracy from which on differences are those of the error
ZERO = 1e-9


class Scale(NamedTuple):
    """How values of a metric are drawn.

    Args:
      name: what the axis shows.
      lower: whether less of it is better.
      log: on a log axis.
      error: 1 - value in its place.
      floor: where zero is drawn on a log axis; 0: there is none.
    """

    name: str
    lower: bool
    log: bool = False
    error: bool = False
    floor: float = 0.0

    def __call__(self, values):
        """Values of the metric as they are drawn."""
        shown = 1 - np.asarray(values, float) if self.error else np.asarray(values, float)
        return np.where(shown > ZERO, shown, self.floor or np.nan) if self.log else shown

    def set(self, ax, prefix: str = "", few: bool = False) -> None:
        """Makes it the y axis of a panel, with a name that says which way is better; `few`: a small one."""
        better = "lower" if self.lower else "higher"
        short = f"{prefix}{self.name.split(',')[0]}"
        ax.set_ylabel(short if few else f"{prefix}{self.name}\n({better} is better)")
        if few:
            ax.tick_params(labelsize=8)
            ax.xaxis.label.set_size(9)
            ax.yaxis.label.set_size(9)
        if not self.log:
            ax.yaxis.set_major_locator(ticker.MaxNLocator(4 if few else 6, steps=[1, 2, 2.5, 5, 10]))
            return
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ticks = [t for t in _ticks(low, high, few) if t > 2.2 * self.floor]
        labels = [f"{tick:g}" for tick in ticks]
        if self.floor:
            ticks, labels = [self.floor, *ticks], ["0", *labels]
        ax.set_yticks(ticks, labels)
        ax.yaxis.set_minor_locator(ticker.NullLocator())
        ax.set_ylim(low, high)


def _ticks(low: float, high: float, few: bool) -> list[float]:
    """Round numbers between two, more of a decade where there are few decades."""
    decades = np.log10(high / low)
    parts = (1,) if decades > (1.8 if few else 2.8) else (1, 3) if decades > 1.2 else (1, 2, 5)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [t for power in powers for part in parts if low <= (t := round(part * 10.0**power, 12)) <= high]


def scale(metric: str, higher_is_better: bool, ends, values) -> Scale:
    """The scale of a metric.

    Args:
      metric: its name.
      ends: the last median of each line.
      values: all that is drawn, numbers that are not finite left aside.
    """
    values, ends = (np.asarray(list(x), float) for x in (values, ends))
    values, ends = values[np.isfinite(values)], ends[np.isfinite(ends)]
    share = metric.endswith("accuracy") and higher_is_better and len(ends) and values.max() <= 1
    if share and ends.max() >= SATURATED:
        errors = 1 - values
        return Scale(f"error, 1 − {metric}", True, True, True, _floor(errors))
    if any(word in metric for word in ("mse", "loss")) and (values > ZERO).any() and (values >= 0).all():
        return Scale(metric, True, True, floor=_floor(values))
    return Scale(metric, not higher_is_better)


def _floor(values: np.ndarray) -> float:
    """A bit below the smallest value above 0, where there are zeros."""
    above = values[values > ZERO]
    return 0.0 if len(above) == len(values) else float(above.min() / 2) if len(above) else 0.5
