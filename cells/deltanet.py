"""Gated DeltaNet and DeltaProduct: the delta rule on a matrix state (Yang 2025; products: Siems 2025)."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, silu, softplus

from cells import base, parts


@dataclasses.dataclass(frozen=True)
class DeltaNet(base.Sequence):
    """S = alpha S' (I - beta k k^T) + beta v k^T,   h = (S q) * silu(z)

    q, k, v = silu(W x), q and k over their norms; z = W x; beta = sigma(W x), alpha = exp(-A softplus(W_dt x
    + b_dt)), A > 0, per head: Yang, Kautz & Hatamizadeh 2025, "Gated delta networks: improving Mamba2 with
    delta rule", section 3. The carry S is (batch, heads, hidden_size / heads, state_size). "chunkwise"
    solves for what the steps of a chunk write (section 3 too, after Yang 2024, "Parallelizing linear
    transformers with the delta rule over sequence length").

    Options:
      heads: a divisor of hidden_size, that of v and z.
      state_size: width of q and k in each head.
      products: steps of the delta rule a token, each with its k, v, beta, after one decay (Siems 2025,
        "DeltaProduct"). A chunk has as many times more rows.
      negative_eigenvalues: beta = 2 sigma(W x), so that S' is multiplied by 1 - beta in (-1, 1) along k
        (Grazzi 2025, `parts.negative`); off as in Gated DeltaNet, DeltaProduct's authors have it on.
      decay: False: alpha = 1, DeltaNet.

    The convolutions, norm and projection of the block are left out, and with the norm the factor 1 /
    sqrt(state_size) of q. In the authors' package, fla, projections start with variance near 1 / (32 d),
    here 1 / d.
    """

    heads: int = 1
    state_size: int = 16
    products: int = 1
    negative_eigenvalues: bool = False
    decay: bool = True

    forms = ("chunkwise",)
    dynamics = "reflection"
    knobs = ({"heads": 2}, {"heads": 4})
    style = ("#CC6677", parts.MIXED, "+")

    def __post_init__(self):
        super().__post_init__()
        base.check_heads(self)
        base.check_positive(self, "state_size", "products")

    def init(self, key, input_size, dtype=jnp.float32):
        key_q, key_W, key_k, key_v, key_beta, key_dt, key_A, key_b = jax.random.split(key, 8)
        init, heads, H = parts.input_initializer(), self.heads, self.hidden_size
        keys, n = heads * self.state_size, self.products
        params = {
            "W_q": init(key_q, (input_size, keys), dtype),
            "W_k": init(key_k, (input_size, n * keys), dtype),
            "W_v": init(key_v, (input_size, n * H), dtype),
            "W_z": init(key_W, (input_size, H), dtype),
            "W_beta": init(key_beta, (input_size, n * heads), dtype),
        }
        if not self.decay:
            return params
        # dt log-uniform in [0.001, 0.1], A uniform in (0, 16], as the authors start them.
        wide = jnp.promote_types(dtype, jnp.float32)
        dt = parts.time_steps(key_b, (heads,), 0.001, 0.1, wide)
        return params | {
            "W_dt": init(key_dt, (input_size, heads), dtype),
            "b_dt": parts.before_softplus(dt).astype(dtype),
            "A_log": jnp.log(16 * (1 - jax.random.uniform(key_A, (heads,), wide))).astype(dtype),
        }

    def initial_carry(self, batch_size, dtype=jnp.float32):
        shape = (batch_size, self.heads, self.hidden_size // self.heads, self.state_size)
        return jnp.zeros(shape, dtype)

    def gates(self, params, carry, x):
        *_, beta, log_alpha = self._terms(params, self.project(params, x)[0])
        units, most = self.hidden_size // self.heads, 2 if self.negative_eigenvalues else 1
        names = [f"write_{j + 1}" if self.products > 1 else "write" for j in range(self.products)]
        gates = {name: beta[..., j, :] / most for j, name in enumerate(names)}
        if self.decay:
            gates = {"forget": jnp.exp(log_alpha)} | gates
        return {name: jnp.repeat(gate, units, axis=-1) for name, gate in gates.items()}

    def step(self, params, carry, x):
        us, z = self.project(params, x)
        q, k, v, beta, log_alpha = self._terms(params, us)
        S = jnp.exp(log_alpha)[..., None, None] * carry
        for j in range(self.products):  # what k recalls is replaced by v, as far as beta says
            k_j, v_j, beta_j = k[:, j], v[:, j], beta[:, j, :, None]
            S += (beta_j * (v_j - jnp.einsum("bhpn,bhn->bhp", S, k_j)))[..., None] * k_j[..., None, :]
        return S, jnp.einsum("bhpn,bhn->bhp", S, q).reshape(z.shape) * silu(z)

    def project(self, params, xs):
        H, n, keys = self.hidden_size, self.products, self.heads * self.state_size
        names = ("q", "k", "v", "beta", "z", *(["dt"] if self.decay else []))
        u = xs @ parts.stack(params, *(f"W_{name}" for name in names))
        sizes = (keys, n * keys, n * H, n * self.heads, H, self.heads if self.decay else 0)
        q, k, v, beta, z, dt = parts.cut(u, *sizes)
        return (q, k, v, beta, dt + params["b_dt"] if self.decay else dt), z

    def _terms(self, params, us):
        """q (..., heads, state_size), k, v, beta (..., products, heads[, width]), log alpha (..., heads)."""
        q, k, v, beta, dt = (u.astype(jnp.promote_types(u.dtype, jnp.float32)) for u in us)
        q = q.reshape(*q.shape[:-1], self.heads, -1)
        k, v, beta = (u.reshape(*u.shape[:-1], self.products, self.heads, -1) for u in (k, v, beta))
        beta = (2 if self.negative_eigenvalues else 1) * sigmoid(beta[..., 0])
        log_alpha = jnp.zeros(q.shape[:-1], q.dtype)
        if self.decay:
            log_alpha = -softplus(dt) * jnp.exp(params["A_log"].astype(dt.dtype))
        return _unit(silu(q)), _unit(silu(k)), silu(v), beta, log_alpha

    def over_time(self, params, carry, us, rest, steps):
        carry, h = steps.by_chunks(self._chunk, carry, self._terms(params, us))
        return carry, h.reshape(rest.shape) * silu(rest)

    def _chunk(self, S, us, chunk):
        q, k, v, beta, log_alpha = us  # (steps, batch, [products,] heads, ...)
        beta = jnp.where(chunk.valid[..., None], beta, 0)
        weights, kept, _ = chunk.decays(jnp.where(chunk.valid, log_alpha, 0))
        # (batch, heads, rows, ...), a row for each product of each step
        rows = (*S.shape[:2], -1)
        k, v, beta = (
            jnp.moveaxis(u, (1, 3), (0, 1)).reshape(*rows, u.shape[-1]) for u in (k, v, beta[..., None])
        )
        q, weights = jnp.moveaxis(q, 0, 2), jnp.exp(jnp.moveaxis(weights, (2, 3), (0, 1)))
        kept = jnp.exp(jnp.moveaxis(kept, 0, 2))[..., None]
        weights = jnp.repeat(weights, self.products, axis=3)  # at each step, of what each row wrote
        earlier = jnp.repeat(weights, self.products, axis=2)
        # What row i writes is u_i = beta_i (v_i - what it recalls, of S and of what earlier rows wrote).
        overlaps = jnp.tril(beta * earlier * (k @ jnp.swapaxes(k, 2, 3)), -1)
        recalled = jnp.repeat(kept, self.products, axis=2) * (k @ jnp.swapaxes(S, 2, 3))
        u = _inverse(overlaps) @ (beta * (v - recalled))
        h = kept * (q @ jnp.swapaxes(S, 2, 3)) + (weights * (q @ jnp.swapaxes(k, 2, 3))) @ u
        S = kept[:, :, -1:] * S + jnp.swapaxes(u, 2, 3) @ (weights[:, :, -1, :, None] * k)
        return S, jnp.moveaxis(h, 2, 0)


def _unit(x):
    """x over its norm; zero stays zero (epsilon as in the authors' package)."""
    return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + 1e-6)


@jax.custom_jvp
def _inverse(L):
    """(I + L)^-1 of strictly lower L (..., n, n), by matmuls, of blocks of 1, 2, 4, ... rows on the diagonal.

    Not `solve_triangular`, which on a CPU may wait for ever under `vmap`, as `parts.orthogonal` says of QR.
    """
    n = L.shape[-1]
    levels = (n - 1).bit_length()
    L = jnp.pad(L, [(0, 0)] * (L.ndim - 2) + [(0, 2**levels - n)] * 2)
    inverses = jnp.ones((*L.shape[:-2], 2**levels, 1, 1), L.dtype)
    for size in (2**level for level in range(levels)):
        pairs = L.reshape(*L.shape[:-2], *(2**levels // (2 * size), 2 * size) * 2)
        pairs = jnp.moveaxis(jnp.diagonal(pairs, axis1=-4, axis2=-2), -1, -3)
        first, second = inverses[..., ::2, :, :], inverses[..., 1::2, :, :]
        below = -second @ pairs[..., size:, :size] @ first
        inverses = jnp.block([[first, jnp.zeros_like(first)], [below, second]])
    return inverses[..., 0, :n, :n]


@_inverse.defjvp
def _derivative(primals, tangents):
    inverse = _inverse(*primals)
    return inverse, -inverse @ tangents[0] @ inverse
