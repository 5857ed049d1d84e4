"""The longest chain of dependent operations in a program: what its time would be on a machine without end."""

from collections.abc import Callable

import jax
import numpy as np
import pandas as pd

from experiments.lab import statistics

# What only moves numbers: no operation.
MOVES = {
    *("broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "expand_dims"),
    *("dynamic_update_slice", "gather", "optimization_barrier", "pad", "reshape", "rev", "slice", "split"),
    *("squeeze", "stack", "stop_gradient", "tile", "transpose", "unstack"),
}
NEVER = -np.inf  # the length of no path


class NoCriticalPath(ValueError):
    """How long a program takes depends on its numbers."""


def critical_path(function: Callable, *args, turns: tuple[int, ...] = ()) -> int:
    """The longest chain of operations, each of which needs the last one's result, in the program of
    `function`; `args` are arrays, or their shapes.

    An operation is one primitive on whole arrays, a matmul, convolution or sum among them; moving numbers is
    none. Arrays count as wholes: where only a part of one is late, all of it is, a bound from above.

    Args:
      turns: how often its loops of unknown length turned, in the order of the program.

    Raises:
      NoCriticalPath: the program has more loops of unknown length.
    """
    program = jax.make_jaxpr(function)(*args)
    return int(max(0, _paths(program.jaxpr, _Known(turns)).max(initial=0)))


def growths(path: pd.DataFrame) -> pd.DataFrame:
    """One row per layer and pass of a frame of paths (columns label, pass, time, operations): how its path
    grows, and its length at the longest time."""
    rows = []
    for _, group in path.groupby(["label", "pass"], sort=False):
        growth = statistics.growth(group["time"], group["operations"])
        rows.append(group.sort_values("time").iloc[-1].to_dict() | {"growth": growth})
    return pd.DataFrame(rows)


class _Known(dict):
    """Paths by program, and the turns of the loops to come."""

    def __init__(self, turns):
        self.turns = list(turns)


def _paths(jaxpr, known: _Known):
    """The longest path from each input to each output, (outputs, inputs); NEVER where there is none.

    All of it is linear in the algebra of max and +, so a scan is a power of its body's matrix.
    """
    if id(jaxpr) in known:
        return known[id(jaxpr)][0]
    size = len(jaxpr.invars)
    at = {v: np.full(size, NEVER) for v in jaxpr.constvars}
    at |= dict(zip(jaxpr.invars, _identity(size), strict=True))

    def read(v):
        return np.full(size, NEVER) if hasattr(v, "val") else at[v]  # a number in the program is always there

    for eqn in jaxpr.eqns:
        ins = np.array([read(v) for v in eqn.invars]).reshape(len(eqn.invars), size)
        for v, path in zip(eqn.outvars, _times(_equation(eqn, known), ins), strict=True):
            at[v] = path if 0 not in getattr(v.aval, "shape", ()) else np.full(size, NEVER)
    found = np.array([read(v) for v in jaxpr.outvars]).reshape(len(jaxpr.outvars), size)
    known[id(jaxpr)] = found, jaxpr  # kept, so that no other gets its id
    return found


def _equation(eqn, known):
    """The matrix of one equation."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        body = _paths(params["jaxpr"].jaxpr, known)
        return _scan(body, *_inputs(params), params["length"])
    if name == "cond":
        branches = [_paths(branch.jaxpr, known) for branch in params["branches"]]
        rest = np.maximum.reduce(branches)
        return np.concatenate([np.zeros((len(rest), 1)), rest], axis=1)
    if name == "custom_linear_solve":
        lengths, solve = params["const_lengths"], params["jaxprs"].solve
        before = lengths.matvec + lengths.vecmat
        inner = _paths(getattr(solve, "jaxpr", solve), known)  # of its constants and the right-hand side
        found = np.full((len(eqn.outvars), len(eqn.invars)), NEVER)
        found[:, before : before + lengths.solve] = inner[:, : lengths.solve]
        found[:, sum(lengths) :] = inner[:, lengths.solve :]
        return found
    if name == "while":
        if not known.turns:
            raise NoCriticalPath("a loop of unknown length has no critical path")
        return _while(params, known, known.turns.pop(0))
    for inner in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if inner in params:
            return _paths(getattr(params[inner], "jaxpr", params[inner]), known)
    cost = 0 if name in MOVES else 1
    if name.startswith("cum"):  # done in parallel at best
        cost = int(np.ceil(np.log2(max(2, eqn.invars[0].aval.shape[params["axis"]]))))
    return np.full((len(eqn.outvars), len(eqn.invars)), cost)


def _while(params, known, turns):
    """A loop that turned so often: body and condition side by side in each turn, then the condition."""
    asked, body = (_paths(params[name].jaxpr, known) for name in ("cond_jaxpr", "body_jaxpr"))
    consts, num_carry = params["cond_nconsts"], len(body)
    wait = np.concatenate(
        [asked[:, :consts], np.full((1, params["body_nconsts"]), NEVER), asked[:, consts:]], 1
    )
    body = np.concatenate([np.full((num_carry, consts), NEVER), body], 1)
    turned = _scan(np.maximum(body, wait), body.shape[1] - num_carry, num_carry, turns)
    consts_too = np.concatenate([_identity(body.shape[1])[:-num_carry], turned])
    return np.maximum(turned, _times(wait, consts_too))


def _inputs(params) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many its carry."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # from jax 0.11 on
    return len(consts), len(carry)


def _scan(body, num_consts, num_carry, length):
    """The body's matrix -> the scan's; its inputs are constants, carry, sequences."""
    carry = slice(num_consts, num_consts + num_carry)
    rest = np.r_[0:num_consts, num_consts + num_carry : body.shape[1]]
    again, enter = body[:num_carry, carry], body[:num_carry, rest]
    leave, direct = body[num_carry:, carry], body[num_carry:, rest]
    often = np.maximum(again, _identity(num_carry))  # once or not at all
    found = np.full(body.shape, NEVER)
    if length == 0:
        found[:num_carry, carry] = _identity(num_carry)
        return found
    found[:num_carry, carry] = _power(again, length)
    found[:num_carry, rest] = _times(_power(often, length - 1), enter)
    found[num_carry:, carry] = _times(leave, _power(often, length - 1))
    found[num_carry:, rest] = direct
    if length > 1:
        late = _times(leave, _times(_power(often, length - 2), enter))
        found[num_carry:, rest] = np.maximum(direct, late)
    return found


def _identity(size):
    return np.where(np.eye(size, dtype=bool), 0.0, NEVER)


def _times(a, b):
    """The matrix product of max and +."""
    return (a[:, :, None] + b[None]).max(1, initial=NEVER)


def _power(a, n):
    found = _identity(len(a))
    while n:
        found, a, n = _times(found, a) if n % 2 else found, _times(a, a), n // 2
    return found
