"""Whether one program is another: the largest deviation of values and gradients, beside that of a control.

A check is a function key -> {(what, is a control): deviation}. A control is a program that is nearly the same
and has to be FAR_OFF, so that the comparison could have failed.
"""

import jax
import jax.numpy as jnp
import pandas as pd

from experiments.lab import runs
from experiments.lab.experiment import TRUE, Part, Verdict, untested
from experiments.lab.rules import TURNED, agrees

ROUNDING = 1e-5  # of the largest entry: about 100 roundings of float32
FAR_OFF = 1e-2


def measured(name: str, check, seeds: int) -> list[dict]:
    """One row per deviation and seed."""
    keys = jnp.stack([jax.random.key(seed) for seed in range(seeds)])
    deviations = jax.device_get(runs.compiled(lambda keys: jax.lax.map(check, keys))(keys))
    return [
        {"check": name, "what": what, "control": control, "seed": seed, "deviation": float(value)}
        for (what, control), values in deviations.items()
        for seed, value in enumerate(values)
    ]


def deviation(got, wanted):
    """The largest deviation of two pytrees, leaf by leaf over the largest entry of the second's leaf."""
    leaves = zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    return jnp.stack([jnp.abs(g - w).max() / jnp.abs(w).max() for g, w in leaves]).max()


def held(params, gates: dict[str, float], units=True):
    """Gates without weights, so that their bias alone says what they are: of all units, or of those where
    `units` is true, (hidden_size,)."""
    params = dict(params)
    for gate, bias in gates.items():
        for name in {f"{kind}_{gate}" for kind in "WUvp"} & set(params):
            params[name] = jnp.where(units, 0, params[name])
        params[f"b_{gate}"] = jnp.where(units, bias, params[f"b_{gate}"])
    return params


def with_gradients(run, params, xs, key):
    """Outputs, and the gradients of a random linear function of them."""
    ys, pullback = jax.vjp(run, params, xs)
    return {"values": ys, "gradients": pullback(jax.random.normal(key, ys.shape))}


def agreement(identities: pd.DataFrame, check: str) -> tuple[bool, bool, bool, str]:
    """Whether it could have failed; whether values and gradients agree to ROUNDING; the numbers."""
    rows = identities[identities["check"] == check]
    control = rows["control"].astype(bool)
    same, near = rows[~control], rows[control]["deviation"].min()
    gradients = same["what"].str.contains("gradients")
    worst = [same["deviation"][which].max() for which in (~gradients, gradients)]
    numbers = (
        f"Largest deviation over {rows['seed'].nunique()} seeds, relative to the largest entry: values "
        f"{worst[0]:.1e}, gradients {worst[1]:.1e}; control {near:.1e}."
    )
    return near >= FAR_OFF, *(value <= ROUNDING for value in worst), numbers


def parts(key: str, same: str, other: str) -> dict[str, Part]:
    """Those of an identity: KEY_values, KEY_gradients, KEY_control.

    Args:
      same: what it is the same as. other: the control.
    """
    rule = (
        f"the largest deviation over all seeds and ways to run it, over the largest entry, is at most "
        f"{ROUNDING:g} (rounding): true; at least {FAR_OFF:g}: false; between: undecided; without a control "
        "that is far off: not tested"
    )
    control = f"the smallest deviation is at least {FAR_OFF:g}: true; at most {ROUNDING:g}: false"
    return {
        f"{key}_values": Part(f"its values are {same}", rule),
        f"{key}_gradients": Part(f"its gradients are {same}", rule),
        f"{key}_control": Part(f"{other} is not: the comparison could have failed", control),
    }


def verdicts(identities: pd.DataFrame, check: str, key: str) -> dict[str, Verdict]:
    """Those of `parts`."""
    rows = identities[identities["check"] == check]
    control, seeds = rows["control"].astype(bool), rows["seed"].nunique()
    gradients = rows["what"].str.contains("gradients")
    far = agrees(rows["deviation"][control].min(), ROUNDING, FAR_OFF, seeds)
    found = {"control": far._replace(verdict=TURNED.get(far.verdict, far.verdict))}
    for name, which in (("values", ~gradients & ~control), ("gradients", gradients & ~control)):
        found[name] = untested("no control that is far off")
        if found["control"].verdict == TRUE:
            found[name] = agrees(rows["deviation"][which].max(), ROUNDING, FAR_OFF, seeds)
    return {f"{key}_{name}": verdict for name, verdict in found.items()}


def table(identities: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The worst deviation of each check, by title."""
    rows = []
    for (check, what), group in identities.groupby(["check", "what"], sort=False):
        control = group["control"].astype(bool)
        row = {"identity": check, "of": what, "gates held": _worst(group["deviation"][~control], max)}
        rows.append(row | {"gates not quite held": _worst(group["deviation"][control], min)})
    title = "Gates held constant: largest deviation over the largest entry, worst of "
    return {f"{title}{identities['seed'].nunique()} seeds, float32": pd.DataFrame(rows)}


def _worst(values, of) -> str:
    return f"{of(values):.1e}" if len(values) else ""
