"""Whether SRU does the work of convolutions: what it is with constant gates, and how it learns beside them.

  python -m experiments.convolution
  python -m experiments.convolution --cells=sru,sru:highway=false,qrnn,knn --seeds=10
  python -m experiments.convolution --config.tasks=mixed_recall:gap=50

With a constant f an SRU is a causal convolution, which is checked on values and gradients. Then SRU learns
tasks beside QRNN, kernel network, TCN and a plain window of inputs: the same budgets of parameters and steps,
the same seeds and grid of learning rates, on tasks within their reach and on one beyond the window's. A seed
counts with the learning rate that was best for the other seeds. How far trained gates are from constant is
measured by the standard deviation of f over time.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import cells
import configs
from experiments.lab import experiment, identity, probes, protocol, runs, statistics
from experiments.lab.experiment import Claim, Experiment, Verdict
from experiments.lab.units import moments

CLAIMS = {
    "sru_convolution": Claim(
        "SRU does the work of convolutions as QRNN and kernel NN do, with more recurrence"
    ),
}
CONVOLUTION = "SRU, f constant: a causal convolution"
BESIDE = ("qrnn", "knn", "tcn", "window")  # what SRU has to keep up with


@dataclasses.dataclass(frozen=True)
class Settings(protocol.Settings):
    cells: tuple = ("sru", *BESIDE)
    # Within the window of 8 inputs, beyond it, and digits half a row at a time.
    tasks: tuple = (
        "mixed_recall:gap=5:symbols=4:distractors=4",
        "mixed_recall:gap=20:symbols=4:distractors=4",
        "digits:pixels_per_step=4",
    )
    seeds: int = 5
    parameters: int = 4000
    steps: int = 600
    learning_rates: tuple = (0.003, 0.01, 0.03)
    rows: int = 32  # sequences on which trained gates are looked at
    convolution_steps: int = 256

    def runs(self, ended=None):
        return {
            runs.file_name(f"work-{task}-{cell}"): _config(self, task, cell)
            for task, cell in itertools.product(self.tasks, self.cells)
        }


PRESETS = {
    "quick": Settings(
        cells=("sru", "qrnn"), tasks=("mixed_recall:gap=3",), seeds=2, parameters=1500, steps=20,
        learning_rates=(0.03,), rows=4, convolution_steps=20,
    ),
    "fast": Settings(),
    "full": Settings(
        tasks=("mixed_recall:gap=5", "mixed_recall:gap=50", "adding:length=50", "digits:pixels_per_step=1"),
        seeds=10, parameters=20_000, steps=5000, learning_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        rows=256, convolution_steps=1024,
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`identities`: largest deviations; `work`: every seed and learning rate of every cell and task, and
    which were `chosen`; `units`: mean and standard deviation over time of f of trained SRUs."""
    rows = lab.do(
        "identities",
        {"seeds": settings.seeds, "convolution_steps": settings.convolution_steps},
        lambda: identity.measured(
            CONVOLUTION, lambda key: _sru_is_convolution(key, settings.convolution_steps), settings.seeds
        ),
    )
    work, units = [], []
    models = itertools.product(settings.tasks, settings.cells)
    for (task, cell), (name, config) in zip(models, settings.runs().items(), strict=True):
        probe = (lambda result: _probe(settings, result)) if cell.split(":")[0] == "sru" else None
        both = lab.train(name, config, probe, probe and {"rows": settings.rows})
        seeds = runs.with_chosen([row for row in both if "unit" not in row], runs.higher_is_better(config))
        work.append(seeds.assign(task=task, **runs.labels(cell)))
        units += [runs.labels(cell) | {"task": task} | row for row in both if "unit" in row]
    frames = {"identities": pd.DataFrame(rows), "work": pd.concat(work, ignore_index=True)}
    return frames | ({"units": pd.DataFrame(units)} if units else {})


def _config(settings, task, cell):
    name, options = configs.with_options(task)
    return runs.config(
        cell,
        name,
        task=options,
        model={"depth": 1, "dropout": 0.0, "embedding_size": 32},
        optim={"learning_rates": settings.learning_rates},
        train={
            "steps": settings.steps, "seeds": settings.seeds, "batch_size": 32,
            "eval_every": max(1, min(25, settings.steps // 4)), "stop_when_solved": True,
        },
        parameters=settings.parameters,
    )  # fmt: skip


def _probe(settings, result) -> list[dict]:
    """The lanes of the run, and f of each unit of the chosen ones."""
    shared = runs.fields(result, "parameters", "hidden_size", "budget_steps")
    rows, run, trained = [shared | seed for seed in runs.seeds(result)], result.run, runs.trained(result)
    xs = run.config.task.eval_batch(jax.device_get(run.data), "test", 0, settings.rows).xs

    @runs.compiled
    def f_of(params, xs):
        seen = probes.embedded(run.spec, params, xs)
        return moments(run.config.cell, probes.layer_params(params), seen)["forget"]

    lanes = runs.lanes(result)
    for number, seed in lanes["seed"][lanes["chosen"]].items():
        mean, std = jax.device_get(f_of(runs.lane(trained, number), xs))
        row = {"stage": "trained", "seed": int(seed), "gate": "forget"}
        rows += [
            row | {"unit": unit, "mean": float(mean[unit]), "std": float(std[unit])}
            for unit in range(len(std))
        ]
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
    """`sru_convolution` has four parts. Structure: values and gradients of the identity agree to
    `identity.ROUNDING`. Work: SRU keeps up with QRNN and kernel network on every task (`_keeps_up`).
    Convolutions: so it does with TCN and window. Recurrence: on a task that the window does not solve, not
    even in its interval, SRU does, in all of its. Holds: all four. Does not hold here: no structure, or on no
    task does it keep up with QRNN or kernel network. Else in part, also where one of them was not there. Not
    tested here, if the control (free gates make no linear function of the input) is not FAR_OFF.
    """
    could_fail, values, gradients, evidence = identity.agreement(frames["identities"], CONVOLUTION)
    keeps, recurs, numbers = _beside(frames.get("work", pd.DataFrame()))
    evidence += _moves(frames.get("units", pd.DataFrame()))
    verdict = "holds in part"
    if {"qrnn", "knn"} <= set(keeps):
        if set(keeps) == set(BESIDE) and recurs and all(all(of.values()) for of in keeps.values()):
            verdict = "holds"
        elif not any(keeps["qrnn"].values()) and not any(keeps["knn"].values()):
            verdict = "does not hold here"
        evidence += f" Steps to solve, median over seeds [95 %], where not solved test metric: {numbers}."
    else:
        evidence += (
            " QRNN and kernel network were not trained: whether SRU does their work as well is not tested."
        )
    verdict = verdict if values and gradients else "does not hold here"
    return {"sru_convolution": Verdict(verdict if could_fail else "not tested here", evidence)}


def _keeps_up(ours, theirs) -> bool:
    """The interval of the median steps to solve does not lie wholly above the other's, nor, where not all
    seeds solve the task, that of the test metric on the worse side of the other's."""
    slower = _steps(ours).low > _steps(theirs).high
    mine, other = (statistics.median(seeds["test_metric"]) for seeds in (ours, theirs))
    worse = mine.high < other.low if ours["higher_is_better"].iloc[0] else mine.low > other.high
    return not slower and not (worse and not ours["solved"].all())


def _beside(work) -> tuple[dict, bool, str]:
    """SRU beside the others: {cell: {task: whether SRU keeps up}}; whether it solves what the window does
    not; the numbers."""
    keeps, recurs, evidence = {}, False, []
    if not len(work) or "sru" not in set(work["label"]):
        return keeps, recurs, ""
    for task, here in work[work["chosen"].astype(bool)].groupby("task", sort=False):
        by, shown = dict(list(here.groupby("label", sort=False))), []
        for label, seeds in by.items():
            steps, metric = _steps(seeds), statistics.median(seeds["test_metric"])
            solved = f"{steps:.0f}" if np.isfinite(steps.value) else f"not solved, {metric:.3f}"
            shown.append(f"{label} {solved}")
            if label in BESIDE:
                keeps.setdefault(label, {})[task] = _keeps_up(by["sru"], seeds)
        if "window" in by:
            recurs |= np.isinf(_steps(by["window"]).low) and np.isfinite(_steps(by["sru"]).high)
        evidence.append(f"{task}: {', '.join(shown)}")
    return keeps, bool(recurs), "; ".join(evidence)


def _moves(units) -> str:
    """How far trained gates are from constant."""
    text, units = "", units[units["cell"] == "sru"] if len(units) else units
    if len(units):
        moves = statistics.median(units.groupby("seed")["std"].median())
        text = f" Trained, f of the median SRU unit has a standard deviation of {moves:.2g} over time."
    return text + (
        " With constant gates the state is a causal convolution of W x with kernel (1 - f) f^k, as in a "
        "kernel network of constant decay; with its own gates it is none."
    )


def _steps(seeds) -> statistics.Estimate:
    return statistics.median_steps(seeds["solved_step"])


# --- what is shown


def tables(frames) -> dict[str, pd.DataFrame]:
    """Every task; the identity."""
    work, shown = frames.get("work", pd.DataFrame({"chosen": [], "task": []})), {}
    for task, here in work[work["chosen"].astype(bool)].groupby("task", sort=False):
        shown[f"The work of convolutions: {task}; median [95 %]"] = runs.table(here)
    return shown | identity.table(frames["identities"])


def figures(frames) -> dict:
    """None: the tables say it."""
    return {}


EXPERIMENT = Experiment(
    "Does SRU do the work of convolutions?", CLAIMS, PRESETS, measure, judge, tables, figures
)

if __name__ == "__main__":
    experiment.command(EXPERIMENT)
