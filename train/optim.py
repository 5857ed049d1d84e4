"""The optimiser of a run, from its config: clipping, warm-up, decay, optax's update rule."""

import optax

from train.config import OptimConfig


def schedule(config: OptimConfig, steps: int, learning_rate) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant, cosine or linear decay to the last step.

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
    }[config.schedule]
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
    }[config.optimizer]()
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule) if config.clip_norm else rule
