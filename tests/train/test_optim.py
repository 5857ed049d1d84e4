"""Laws of the optimisers: what is averaged, what is orthogonalised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import OptimConfig
from train.optim import evaluated_at, gradient_at, optimizer
from train.resolve import resolve


def test_schedule_free_parameters_are_the_papers_average():
    """Defazio 2024, algorithm 1, with AdamW: z moves by the gradient at y, x averages z by squared rates."""
    config = OptimConfig("schedule_free_adamw", warmup_steps=3, clip_norm=0.0, weight_decay=0.1)
    rule = optimizer(config, 6, jnp.float32(0.1))
    x = z = params = np.array([3.0, -2.0])
    state, squares, weights = rule.init(jnp.asarray(params)), 0.0, 0.0
    for t in range(1, 7):
        y = 0.9 * x + 0.1 * z
        squares = 0.999 * squares + 0.001 * y**2  # the gradient of |y|^2 / 2 is y
        rate = 0.1 * min(t / 3, 1)
        z = z - rate * (y / (np.sqrt(squares / (1 - 0.999**t)) + 1e-8) + 0.1 * y)
        weights += rate**2
        x = x + rate**2 / weights * (z - x)

        at = gradient_at(config, params, state)
        np.testing.assert_allclose(at, y, rtol=1e-5)
        updates, state = rule.update(at, state, at)
        params = evaluated_at(config, at + updates, state)
        np.testing.assert_allclose(params, x, rtol=1e-5)


@pytest.mark.slow
def test_muon_orthogonalises_matrices_of_layers_and_the_rest_moves_as_by_adam(tiny, jit):
    """The first step: Adam's is the rate in every number."""
    run = tiny("qrnn", model={"block": "gated"}, optim={"optimizer": "muon"})
    _, _, model = resolve(run, {})
    rule = optimizer(run.optim, 1, 1.0)

    def update(params):
        grads = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
        return rule.update(grads, rule.init(params), params)[0]

    moved = jax.tree_util.tree_flatten_with_path(jit(update)(model.init(jax.random.key(0))))[0]
    orthogonal = set()
    for path, step in moved:
        if not np.allclose(abs(step), abs(step).mean(), rtol=1e-3):
            sizes = np.linalg.svd(step, compute_uv=False)  # of every lag
            assert sizes.min() > 0.3 * sizes.max()  # Newton and Schulz's are 0.7 to 1.2
            orthogonal.add(jax.tree_util.keystr(path[2:], simple=True, separator="."))
    kernels = {f"{name}.kernel" for name in ("enter", "gate", "leave", "up", "down")}
    assert orthogonal == kernels | {f"forward.W_{gate}" for gate in "zfo"}
