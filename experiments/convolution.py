"""Whether SRU does the work of convolutions: what it is with constant gates, and how it learns beside them.

  python -m experiments.convolution
  python -m experiments.convolution --cells=sru,sru:highway=false,qrnn,knn --seeds=10
  python -m experiments.convolution --config.beyond=50

With a constant f an SRU is a causal convolution, which is checked on values and gradients. Then SRU learns
tasks beside QRNN, kernel network, TCN and a plain window of eight inputs, of as many parameters, each tuned
(`lab/tuning.py`): a recall within the window, one beyond it, and digits half a row at a time. How far trained
gates are from constant is measured by the standard deviation of f over time, in seeds that solved the recall.
"""

import dataclasses
import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import pandas as pd

import cells
from experiments.lab import (
    experiment,
    identity,
    probes,
    protocol,
    ranking,
    rules,
    runs,
    statistics,
    survival,
    tuning,
)
from experiments.lab.experiment import FALSE, NOT_TESTED, TRUE, Claim, Experiment, Part, Verdict, untested
from experiments.lab.units import moments

CONVOLUTION = "SRU, f constant: a causal convolution"
LIMIT = 1.5  # times the steps of another cell, up to which SRU keeps up with it
WORK = {"within": "a recall within the window", "beyond": "a recall beyond the window"}
RIVALS = {"qrnn": "QRNN", "knn": "the kernel network", "tcn": "a TCN"}
KEEPS = f"the interval of SRU's restricted mean of steps over the other's lies below {LIMIT} (false: above)"
SHARE = "the interval of the share of seeds that solve it lies {} a half (false: the other side)"
CLAIMS = {
    "sru_convolution": Claim(
        "SRU does the work of convolutions as QRNN and kernel NN do, with more recurrence",
        {
            "convolution_is": Part(
                "with a constant f its state is a causal convolution",
                f"values and gradients agree to {identity.ROUNDING:g}, a control not to {identity.FAR_OFF:g}",
            ),
            **{
                f"convolution_{name}_{where}": Part(f"SRU keeps up with {rival} on {words}", KEEPS)
                for name, rival in RIVALS.items()
                for where, words in WORK.items()
            },
            "convolution_window": Part("a window does not solve what lies beyond it", SHARE.format("below")),
            "convolution_recurs": Part("SRU does", SHARE.format("above")),
            "convolution_digits": Part(
                "on digits SRU is at least as good as a TCN",
                "the interval of the probability that a seed of SRU beats one of TCN lies above a half "
                "(false: below)",
            ),
        },
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings(tuning.Settings):
    cells: tuple = ("sru", "qrnn", "knn", "tcn", "window")
    kinds: tuple = ("within", "beyond", "digits")
    within: int = 5  # fillers between a symbol and the question for it; the window sees 8 inputs
    beyond: int = 30
    symbols: int = 4
    parameters: int = 4000
    steps: int = 800
    rows: int = 32  # sequences on which trained gates are looked at
    convolution_steps: int = 256

    choices: ClassVar = {"kinds": ("within", "beyond", "digits")}

    def runs(self, ended=lambda name, config: None):
        known = protocol.Known(ended)
        for model in itertools.product(self.kinds, self.cells):
            known.follow(_trained, self, *model)
        return known.runs

    def configs(self):
        return (_config(self, *model) for model in itertools.product(self.kinds, self.cells))


PRESETS = {
    "quick": Settings(
        cells=("sru", "qrnn"), kinds=("within",), within=3, seeds=2, tuning_seeds=1, initialisations=1,
        widenings=0, learning_rates=(0.03,), parameters=1500, steps=20, rows=4, convolution_steps=20,
    ),
    "fast": Settings(),
    "full": Settings(beyond=100, parameters=10_000, steps=3000, rows=256, convolution_steps=1024),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`identities`: largest deviations; `tuning`: every trial; `work`: the seeds that count; `units`: mean
    and standard deviation over time of f of trained SRUs."""
    rows = lab.do(
        "identities",
        {"seeds": settings.seeds, "convolution_steps": settings.convolution_steps},
        lambda: identity.measured(
            CONVOLUTION, lambda key: _sru_is_convolution(key, settings.convolution_steps), settings.seeds
        ),
    )
    found = {"tuning": [], "work": [], "units": []}
    for task, cell in itertools.product(settings.kinds, settings.cells):
        for kind, of in _trained(lab.train, settings, task, cell).items():
            found[kind] += [{"task": task, **runs.labels(cell)} | row for row in of]
    return {"identities": pd.DataFrame(rows)} | {name: pd.DataFrame(of) for name, of in found.items() if of}


def _trained(train, settings, task, cell) -> dict[str, list[dict]]:
    name = f"{task}-{runs.file_name(cell)}"
    trials, final = tuning.tuned(train, name, lambda text: _config(settings, task, text), cell, settings)
    rows = train(name, final)
    told = {name: trials[0][name] for name in ("higher_is_better", "stops")}
    found = {"tuning": trials, "work": [told | row for row in rows], "units": []}
    if cell.split(":")[0] == "sru" and task != "digits":
        probe = functools.partial(_probe, settings)
        found["units"] = train(f"{name}-gates", final, probe, {"rows": settings.rows})
    return found


def _config(settings, task, cell):
    every = {"eval_every": max(1, min(25, settings.steps // 4)), "batch_size": 32, "steps": settings.steps}
    if task == "digits":
        name, options = "digits", {"pixels_per_step": 4}
    else:
        name = "mixed_recall"
        options = {"gap": getattr(settings, task), "symbols": settings.symbols}
        options |= {"distractors": settings.symbols, "eval_examples": 256}
    return runs.config(
        cell,
        name,
        task=options,
        model={"depth": 1, "dropout": 0.0, "embedding_size": 32},
        train=every | {"stop_when_solved": task != "digits"},
        parameters=settings.parameters,
        chrono="cell",
    )


def _probe(settings, result) -> list[dict]:
    """f of each unit of the seeds that solved the task."""
    rows, run, trained = [], result.run, runs.trained(result)
    xs = run.config.task.eval_batch(jax.device_get(run.data), "test", 0, settings.rows).xs

    @runs.compiled
    def f_of(params, xs):
        seen = probes.embedded(run.spec, params, xs)
        return moments(run.config.cell, probes.layer_params(params), seen)["forget"]

    for number, seed in enumerate(runs.seeds(result)):
        if seed["solved"]:
            mean, std = jax.device_get(f_of(runs.lane(trained, number), xs))
            row = {"seed": seed["seed"], "gate": "forget"}
            units = enumerate(zip(mean.tolist(), std.tolist(), strict=True))
            rows += [row | {"unit": unit, "mean": m, "std": s} for unit, (m, s) in units]
    return rows


def _sru_is_convolution(key, steps):
    """An SRU with constant f, by every strategy, against a convolution with kernel (1 - f) f^k."""
    H, keys = 16, jax.random.split(key, 5)
    cell = cells.get("sru", hidden_size=H, highway=False)
    xs, free = jax.random.normal(keys[0], (2, steps, H)), cell.init(keys[1], H)
    free = identity.held(free, {"r": 1e4})  # h = c
    held = identity.held(free, {"f": 0.0}) | {"b_f": jax.random.uniform(keys[2], (H,), minval=-3, maxval=5)}

    def convolution(p, xs):
        f = jax.nn.sigmoid(p["b_f"])
        kernel = (1 - f) * f ** jnp.arange(steps)[::-1, None]  # the oldest step first, (time, H)
        return jax.lax.conv_general_dilated(
            xs @ p["W"],
            kernel[:, None],
            window_strides=(1,),
            padding=[(steps - 1, 0)],
            dimension_numbers=("NTC", "TIO", "NTC"),
            feature_group_count=H,
        )

    shared, deviations = {name: held[name] for name in ("W", "b_f")}, {}
    wanted = identity.with_gradients(convolution, shared, xs, keys[3])
    for strategy in (s for s in cells.strategies(cell) if s != "auto"):

        def run(p, xs, strategy=strategy):
            return cells.scan(cell, held | p, xs, strategy=strategy)[1]

        got = identity.with_gradients(run, shared, xs, keys[3])
        for what in got:
            deviations[f"{what}, {strategy}", False] = identity.deviation(got[what], wanted[what])

    # Every convolution is linear. Gates that see the input make none.
    def own(xs):
        return cells.scan(cell, free, xs)[1]

    other = jax.random.normal(keys[4], xs.shape)
    deviations["its own gates: f(x + y) and f(x) + f(y)", True] = identity.deviation(
        own(xs + other), own(xs) + own(other)
    )
    return deviations


# --- the rule


def judge(frames) -> dict[str, Verdict]:
    """The parts of `sru_convolution`. "Not tested here" where a cell or a task was not there, and
    `convolution_is` where the control (free gates make no linear function of the input) is not far off."""
    could_fail, values, gradients, numbers = identity.agreement(frames["identities"], CONVOLUTION)
    is_one = TRUE if values and gradients else FALSE
    found = {"convolution_is": Verdict(is_one if could_fail else NOT_TESTED, numbers, "a convolution")}
    work = frames.get("work", pd.DataFrame({"task": [], "label": []}))
    by = dict(list(work.groupby(["task", "label"])))
    for (name, rival), where in itertools.product(RIVALS.items(), WORK):
        ours, theirs = by.get((where, "sru")), by.get((where, name))
        key = f"convolution_{name}_{where}"
        found[key] = untested("one of the two was not trained")
        if ours is not None and theirs is not None:
            found[key] = _keeps_up(ours, theirs, rival)
    for key, label, rule in (
        ("convolution_window", "window", rules.few),
        ("convolution_recurs", "sru", rules.most),
    ):
        seeds = by.get(("beyond", label))
        found[key] = untested(f"{label} was not trained on it")
        if seeds is not None:
            found[key] = rule(int(seeds["solved"].sum()), len(seeds))
    ours, theirs = by.get(("digits", "sru")), by.get(("digits", "tcn"))
    found["convolution_digits"] = untested("one of the two was not trained")
    if ours is not None and theirs is not None:
        one, other = (of["best_test_metric"] for of in (ours, theirs))
        means = f"test accuracy {one.mean():.3f} and {other.mean():.3f}"
        seeds = min(len(one), len(other))
        better = ranking.improvement(one, other)
        found["convolution_digits"] = rules.above(better, 0.5, seeds, "a half, TCN", means)
    return found


def _keeps_up(ours, theirs, rival) -> Verdict:
    """Where the other does not solve it either, there is nothing to keep up with."""
    seeds, budget = min(len(ours), len(theirs)), float(ours["budget_steps"].iloc[0])
    if 2 * theirs["solved"].sum() < len(theirs):
        return untested(f"{rival} solves it with {int(theirs['solved'].sum())} of {len(theirs)} seeds")
    ratio = survival.restricted_ratio(ours["solved_step"], theirs["solved_step"], budget)
    return rules.below(ratio, LIMIT, seeds, f"{LIMIT}, {rival}", "steps over steps")


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Every task; how far f is from constant; the identity."""
    shown = {}
    if "work" in frames:
        for task, here in frames["work"].groupby("task", sort=False):
            test = "best_test_metric" if task == "digits" else "test_metric"
            shown[f"{WORK.get(task, task)}: median over seeds [95 %]"] = runs.table(here, test)
    if "units" in frames:
        moves = frames["units"].groupby(["task", "seed"])["std"].median().groupby("task")
        text = moves.agg(lambda values: f"{statistics.median(values):.2g}").rename(
            "std of f over time, a unit"
        )
        shown["Trained SRU, seeds that solved it: how far f is from constant"] = text.reset_index()
    return shown | identity.table(frames["identities"])


def figures(frames) -> dict:
    """None: the tables say it."""
    return {}


EXPERIMENT = Experiment(
    "Does SRU do the work of convolutions?", CLAIMS, PRESETS, measure, judge, tables, figures,
    models={"task": "kinds", "label": "cells"},
)  # fmt: skip

if __name__ == "__main__":
    experiment.command(EXPERIMENT)
