"""A trained model as one program (`jax.export`), its parameters inside: for any batch, any number of steps,
and processes that have jax but not this package.

    blob = exported.export(cell, config, spec, params).serialize()
    jax.export.deserialize(blob).call(xs)

Cells run by the strategy that "auto" is where the number of steps is not known: see `cells.scans.strategies`.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

import cells
from train import metrics
from train.model import Model, ModelConfig, build
from train.tasks.base import Spec
from train.tasks.meaning import Meaning

NAME = "recurrent_cells_model"  # of the program: a file that says it was written here
PLATFORMS = ("cpu", "cuda", "tpu", "rocm")
AS_IT_IS = Meaning()


def export(
    cell: cells.Cell,
    config: ModelConfig,
    spec: Spec,
    params,
    meaning: Meaning = AS_IT_IS,
    lengths: bool = False,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> jax.export.Exported:
    """The program.

    Args:
      params: of `Model.init`, or of `TrainedRun.params`.
      meaning: where inputs or answers have units, the program's are in these.
      lengths: whether it takes the lengths of the rows, (batch,) int32, as a second argument.
      platforms: on which it runs. Without "cpu" linear cells run in chunks of steps, each in parallel.

    Returns:
      call(xs) or call(xs, lengths) -> what `Model.apply` gives: xs int32 (batch, time) or float32 (batch,
      time, features), outputs float32 (batch, outputs) or (batch, time, outputs).

    Raises:
      ValueError: an unknown platform, or none.
    """
    platforms = [platforms] if isinstance(platforms, str) else platforms
    check_platforms(platforms)
    in_chunks = "cpu" not in platforms and "chunked" in cells.strategies(cell)
    config = dataclasses.replace(config, strategy="chunked" if in_chunks else "auto", remat=0)
    model = build(cell, spec, config)
    params = jax.tree.map(jnp.asarray, params)

    def program(xs, lengths=None):
        return in_units(model, spec, meaning, params, xs, lengths)

    program.__name__ = NAME
    batch, time = jax.export.symbolic_shape("batch, time")
    arguments = [jax.ShapeDtypeStruct((batch, time, *inputs(spec, meaning)[0]), inputs(spec, meaning)[1])]
    if lengths:
        arguments.append(jax.ShapeDtypeStruct((batch,), jnp.int32))
    return jax.export.export(jax.jit(program), platforms=list(platforms))(*arguments)


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises ValueError for one that jax does not export to, or for none."""
    platforms = [platforms] if isinstance(platforms, str) else platforms
    for name in platforms:
        if name not in PLATFORMS:
            raise ValueError(f"unknown platform {name!r}; choices: {', '.join(PLATFORMS)}")
    if not platforms:
        raise ValueError(f"no platform; choices: {', '.join(PLATFORMS)}")


def inputs(spec: Spec, meaning: Meaning) -> tuple[tuple[int, ...], type]:
    """What of xs comes after (batch, time), and its dtype."""
    if spec.inputs == "tokens":
        return (), jnp.int32
    return (len(meaning.features) or spec.input_size,), jnp.float32


def in_units(model: Model, spec: Spec, meaning: Meaning, params, xs, lengths):
    """`Model.apply` where inputs and answers are in a person's units: `Meaning.inputs`, traced."""
    mask = None
    if meaning.scales or meaning.gaps not in ("", "refuse"):
        missing = ~jnp.isfinite(xs)
        if meaning.scales:
            size, mean, factor = np.asarray(meaning.scales, float).T
            xs = (xs - np.float32(mean * size)) * np.float32(factor / size)
        if meaning.gaps in ("indicator", "skip"):
            xs = jnp.where(missing, 0, xs)
        if meaning.gaps == "indicator":
            own = len(meaning.features) - meaning.timed
            parts = [xs[..., :own], missing[..., :own].astype(xs.dtype), xs[..., own:]]
            xs = jnp.concatenate(parts, axis=-1)
        if meaning.gaps == "skip":
            mask = ~missing.any(axis=-1)
    outputs = model.apply(params, xs, lengths, mask=mask)
    if not meaning.target_scales:
        return outputs
    size, mean, factor = np.asarray(meaning.target_scales, float).T
    numbers, logs = outputs, None
    if spec.loss == "gaussian_nll":  # logarithms of variances
        numbers, logs = jnp.split(outputs, 2, axis=-1)
        logs = logs + np.float32(2 * np.log(size / factor))
    numbers = numbers * np.float32(size / factor) + np.float32(mean * size)
    return numbers if logs is None else jnp.concatenate([numbers, logs], axis=-1)


def describe(spec: Spec, meaning: Meaning, lengths: bool) -> list[str]:
    """Lines for a person: what the program takes and gives."""

    def listed(names):
        return ", ".join(names[:12]) + (f", ... ({len(names)})" if len(names) > 12 else "")

    if spec.inputs == "tokens":
        lines = [f"xs: int32 (batch, time), tokens 0 to {spec.input_size - 1}"]
        told = meaning.tokens
        lines += [f"  {listed([repr(token) for token in told])}"] if told else []
    else:
        lines = [f"xs: float32 (batch, time, {inputs(spec, meaning)[0][0]})"]
        lines += [f"  in their units: {listed(meaning.features)}"] if meaning.features else []
    if lengths:
        lines.append("lengths: int32 (batch,), the real steps of each row")
    classes = spec.loss in metrics.CLASS_LOSSES
    what = {
        "binary_cross_entropy": "logits of independent events",
        "gaussian_nll": "means, then log variances",
    }
    what = f"logits of {spec.output_size} classes" if classes else what.get(spec.loss, "numbers")
    names = meaning.classes if classes else meaning.targets
    shape = f"(batch, time, {spec.output_size})" if spec.per_step else f"(batch, {spec.output_size})"
    return [*lines, f"outputs: float32 {shape}, {what}" + (f": {listed(names)}" if names else "")]
