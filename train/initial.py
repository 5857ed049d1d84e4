"""A run that begins with the weights of another one."""

from typing import Any

import jax
import numpy as np

from cells import CELLS
from train.config import RunConfig
from train.model import Model
from train.tasks.meaning import Meaning


def of_run(config: RunConfig, model: Model, meaning: Meaning) -> tuple[Any, tuple[str, ...]]:
    """The parameters that `config.init` gives a model, None where an array has none there; and lines that
    tell what fits and what does not.

    The layers have to fit, all of them; what is around them, such as the head of another task, begins anew
    where it does not, or where its tokens or classes mean something else.

    Raises:
      ValueError: there is no such run, it is of another cell, or its layers do not fit.
    """
    from train.trained import load

    name = f"config.init={config.init}"
    try:
        run = load(config.init)
        there = run.params()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    ours, theirs = (CELLS.name_of(cell) for cell in (config.cell, run.config.cell))
    if ours != theirs:
        raise ValueError(f"{name} is a run of {theirs}, and not of {ours}")
    meant = run.meaning
    if meant.features != meaning.features:
        raise ValueError(
            f"{name}: its features are {', '.join(meant.features) or 'without names'}, "
            f"here {', '.join(meaning.features) or 'without names'}"
        )
    other = {"embed"} if meant.tokens != meaning.tokens else set()
    if (meant.classes, meant.targets) != (meaning.classes, meaning.targets):
        other |= {"head"}
    there = {part: arrays for part, arrays in there.items() if part not in other}
    found = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_flatten_with_path(there)[0]}
    wanted = jax.eval_shape(model.init, jax.random.key(0))
    paths, structure = jax.tree_util.tree_flatten_with_path(wanted)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    shapes = [array.shape for _, array in paths]
    fits = [name in found and found[name].shape == shape for name, shape in zip(names, shapes, strict=True)]
    not_fitting = []
    for path, shape, fit in zip(names, shapes, fits, strict=True):
        if not fit and _dotted(path).split(".")[0] not in other:
            has = found[path].shape if path in found else "nothing"
            not_fitting.append(f"{_dotted(path)} {has} there, {shape} here")
    left = [
        f"{_dotted(path)} {x.shape} there, nothing here" for path, x in found.items() if path not in names
    ]
    bad = [line for line in (*not_fitting, *left) if line.startswith("layers.")]
    if bad:
        more = f", and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(f"{name}: its layers do not fit: {'; '.join(bad[:3])}{more}")
    seed, rate = run.lane()
    lines = [
        f"{sum(fits)} of {len(fits)} arrays begin as in {config.init} (the best validation result, of seed "
        f"{seed} at learning rate {rate:g})"
    ]
    if not_fitting or left:
        lines.append(f"these begin anew: {'; '.join((*not_fitting, *left))}")
    if other:
        means = f"its tokens or answers mean something else here; {', '.join(sorted(other))} begins anew"
        lines.append(means)
    if (meant.scales, meant.target_scales) != (meaning.scales, meaning.target_scales):
        lines.append("its features or targets were scaled otherwise, by its own data")
    if lines_of_options := _options(config.cell, run.config.cell):
        lines.append(f"the cell's options differ: {lines_of_options}")
    taken = [found[name] if fit else None for name, fit in zip(names, fits, strict=True)]
    return structure.unflatten(taken), tuple(lines)


def overlaid(params, given):
    """Parameters of all lanes, with what is given in place of their own."""

    def one(own, other):
        return own if other is None else np.broadcast_to(np.asarray(other, own.dtype), own.shape)

    return jax.tree.map(one, params, given, is_leaf=lambda x: x is None)


def _dotted(path: str) -> str:
    return path.replace("']['", ".").strip("[']")


def _options(ours, theirs) -> str:
    """Options in which two cells differ, but for their size, and the length that initial values follow."""
    but = ("hidden_size", *ours.length_options)
    names = [name for name in ours.__dataclass_fields__ if name not in but]
    return ", ".join(
        f"{name} {getattr(theirs, name)!r} there, {getattr(ours, name)!r} here"
        for name in names
        if getattr(theirs, name, None) != getattr(ours, name)
    )
