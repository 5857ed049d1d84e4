"""A picture of one sequence going through a trained model."""

import numpy as np

from train.tasks.meaning import scaled
from train.trace import Trace

MOST_TOKENS = 40  # that are written out


def plot_gates(run, traced: Trace, xs: np.ndarray, time: int, layer: int = 0):
    """See `TrainedRun.plot_gates`.

    Args:
      run: whose `spec` and `meaning` say what the inputs are.
      traced: of one sequence.
      xs: (time, ...), as a person gives them; of these `time` are real.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    if not 0 <= layer < len(traced.layers):
        raise ValueError(f"layer={layer}: the model has {len(traced.layers)}, from 0")
    cells = {"": traced.layers[layer]}
    if traced.backward:
        cells = {"forward ": cells[""], "backward ": traced.backward[layer]}
    panels = {}
    for direction, cell in cells.items():
        for name, gate in cell.gates.items():
            panels[f"{direction}{name} gate"] = (gate[0, :time], (0, 1), "viridis")
        most = float(np.abs(cell.outputs[0, :time]).max()) or 1.0
        panels[f"{direction}outputs"] = (cell.outputs[0, :time], (-most, most), "RdBu_r")
    heights = [1.1] + [1.5] * len(panels) + [1.1]
    figure = Figure(figsize=(8, 0.9 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    _inputs(axes[0], run, xs[:time])
    for axis, (name, (values, limits, colours)) in zip(axes[1:-1], panels.items(), strict=True):
        values = values.reshape(time, -1)
        order = np.argsort(values.mean(axis=0))  # units alike lie side by side
        image = axis.imshow(
            values[:, order].T,
            aspect="auto",
            origin="lower",
            cmap=colours,
            vmin=limits[0],
            vmax=limits[1],
            interpolation="nearest",
            extent=(-0.5, time - 0.5, -0.5, values.shape[1] - 0.5),
        )
        figure.colorbar(image, ax=axis, pad=0.01, aspect=12)
        axis.set_ylabel(name.replace(" gate", "\ngate").replace("ward ", "ward\n") + "\n(unit)", fontsize=8)
    norms = np.linalg.norm(np.asarray(traced.gradients[0, :time], float), axis=-1)
    axes[-1].semilogy(np.arange(time), np.where(norms > 0, norms, np.nan), color="black", lw=1)
    axes[-1].yaxis.set_minor_formatter(NullFormatter())  # else labels overprint where a decade is wide
    if len(axes[-1].yaxis.get_majorticklocs()) < 2 or _decades(norms) < 1.2:
        axes[-1].yaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False))
        axes[-1].yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=4))
    axes[-1].set_ylabel("|d answer /\nd input|", fontsize=8)
    axes[-1].set_xlabel("step")
    axes[-1].set_xlim(-0.5, time - 0.5)
    name = run.config.label or type(run.config.cell).__name__
    which = f", layer {layer} (of 0 to {len(traced.layers) - 1})" if len(traced.layers) > 1 else ""
    figure.suptitle(f"{name} on {run.config.task.name}{which}; units in order of their mean", fontsize=10)
    for axis in axes:
        axis.tick_params(labelsize=8)
    return figure


def _decades(norms: np.ndarray) -> float:
    positive = norms[norms > 0]
    return float(np.log10(positive.max() / positive.min())) if len(positive) else 0.0


def _inputs(axis, run, xs: np.ndarray) -> None:
    steps, names = np.arange(len(xs)), run.meaning.tokens
    if run.spec.inputs == "features":
        xs, features, scales = np.asarray(xs, float), run.meaning.features, run.meaning.scales
        if scales and xs.shape[1] > 1:  # each in its own units would flatten the others
            xs = scaled(scales, xs)
        for number in range(min(xs.shape[1], 8)):
            label = features[number] if features else None
            axis.plot(steps, xs[:, number], lw=1, marker="." if len(xs) < 60 else None, ms=3, label=label)
        if features and len(features) <= 8:
            axis.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=8, frameon=False)
        more = f" (8 of {xs.shape[1]})" if xs.shape[1] > 8 else ""
        unit = "\n(deviations)" if scales and xs.shape[1] > 1 else ""
        axis.set_ylabel(f"input{more}{unit}", fontsize=8)
        return
    axis.plot(steps, xs, ".", ms=4, color="black")
    axis.set_ylabel("token", fontsize=8)
    if names and len(xs) <= MOST_TOKENS:
        for step, token in zip(steps, xs, strict=True):
            word = repr(names[token])[1:-1] if len(names[token]) == 1 else names[token]
            axis.annotate(word, (step, 0.5), xycoords=("data", "axes fraction"), rotation=90, fontsize=7,
                          ha="center", va="center")  # fmt: skip
        axis.lines[0].set_visible(False)
        axis.set_yticks([])
