"""Text from a trained model, one token after the other."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from train.model import Model


def make_sample(model: Model, steps: int) -> Callable:
    """(params, key, prompt (n,) int32, temperature) -> (steps,) int32, what goes on after the prompt.

    A token is drawn from softmax(logits / temperature), in float32; at temperature 0 it is the likeliest.
    The state goes along: no token is read twice.
    """

    def draw(key, outputs, temperature):
        logits = outputs[0, -1]
        drawn = jax.random.categorical(key, logits / jnp.where(temperature > 0, temperature, 1))
        return jnp.where(temperature > 0, drawn, jnp.argmax(logits)).astype(jnp.int32)

    def sample(params, key, prompt, temperature):
        def step(before, key):
            carry, token = before
            carry, outputs = model.apply(params, token[None, None], carry=carry, return_carry=True)
            return (carry, draw(key, outputs, temperature)), token

        keys = jax.random.split(key, steps)
        carry, outputs = model.apply(params, prompt[None], return_carry=True)
        first = draw(keys[0], outputs, temperature)
        (_, last), tokens = jax.lax.scan(step, (carry, first), keys[1:])
        return jnp.append(tokens, last)

    return sample
