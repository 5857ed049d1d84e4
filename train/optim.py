"""The optimiser of a run, from its config: clipping, warm-up, decay, optax's update rule."""

from typing import Any

import jax
import optax

from train.config import OptimConfig


def schedule(config: OptimConfig, steps: int, learning_rate) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant, cosine or linear decay to the last step; of
    "schedule_free_adamw" constant.

    Args:
      steps: budget of optimiser steps.
      learning_rate: the highest one; may be traced, so that another value needs no recompilation.
    """
    decay_steps = max(steps - config.warmup_steps, 1)
    final = learning_rate * config.final_fraction
    after = {
        "constant": lambda step: learning_rate,
        "linear": optax.linear_schedule(learning_rate, final, decay_steps),
        # optax.cosine_decay_schedule refuses a traced learning rate, hence the factor.
        "cosine": lambda step: (
            learning_rate * optax.cosine_decay_schedule(1.0, decay_steps, config.final_fraction)(step)
        ),
    }["constant" if config.schedule_free else config.schedule]
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, learning_rate, config.warmup_steps)
    # Step 0 would have learning rate 0 and change nothing: the ramp starts one step in.
    return lambda step: optax.join_schedules([warmup, after], [config.warmup_steps])(step + 1)


def optimizer(config: OptimConfig, steps: int, learning_rate) -> optax.GradientTransformation:
    """The gradient transformation; arguments as for `schedule`."""
    rate = schedule(config, steps, learning_rate)
    rule = {
        "adam": lambda: optax.adam(rate),
        "adamw": lambda: optax.adamw(rate, weight_decay=config.weight_decay),
        "rmsprop": lambda: optax.rmsprop(rate),
        "sgd": lambda: optax.sgd(rate, momentum=config.momentum or None),
        "muon": lambda: optax.contrib.muon(
            rate,
            weight_decay=config.weight_decay,
            adam_weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=0.2,  # steps as long as AdamW's, so its learning rates serve (Liu 2025, sec. 2.2)
        ),
        "schedule_free_adamw": lambda: _schedule_free_adamw(rate, config.weight_decay),
    }[config.optimizer]()
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule) if config.clip_norm else rule


def _matrices(params):
    """What muon orthogonalises: the matrices of the layers, each of several (heads, lags) by itself. None for
    embedding, head, biases, norms and depthwise convolutions."""

    def axes(path, x):
        part, name = (path[at].key for at in (0, -1))
        is_matrix = part == "layers" and (name == "kernel" or name[0].isupper()) and x.ndim > 1
        return optax.contrib.MuonDimensionNumbers(-2, -1) if is_matrix else None

    return jax.tree_util.tree_map_with_path(axes, params)


def _schedule_free_adamw(rate: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """`optax.contrib.schedule_free_adamw` with a warm-up of ours."""
    base = optax.chain(
        optax.scale_by_rms(decay=0.999, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
    )
    # It counts from 1, the base from 0.
    return optax.contrib.schedule_free(base, lambda count: rate(count - 1))


def gradient_at(config: OptimConfig, params, opt_state) -> Any:
    """The parameters whose gradient a step takes, of those that are evaluated: the same, but of
    "schedule_free_adamw" between these, an average, and the last ones (Defazio 2024, eq. 3)."""
    if not config.schedule_free:
        return params
    state = _schedule_free_state(opt_state)
    return jax.tree.map(lambda x, z: state.b1 * x + (1 - state.b1) * z, params, state.z)


def evaluated_at(config: OptimConfig, params, opt_state) -> Any:
    """The inverse of `gradient_at`."""
    if not config.schedule_free:
        return params
    return optax.contrib.schedule_free_eval_params(_schedule_free_state(opt_state), params)


def _schedule_free_state(opt_state):
    return opt_state if hasattr(opt_state, "z") else opt_state[-1]  # after clipping
