"""What gates do: the activity of every unit's gates against how far back the unit remembers.

  python -m experiments.gates
  python -m experiments.gates --cells=gru,gru:reset_after=true --seeds=10
  python -m experiments.gates --cells=gru:chrono=12,lstm:chrono=12

Trains gated cells on `mixed_recall`, which needs memory of one step and of many, and measures for each unit
the mean and the standard deviation over time of its gates, and the memory time of its state (c of LSTM and
SRU, h of GRU), in two ways that do not look at gates: by gradients (`probes.unit_memory`) and by replacing
one token (`swap_memory`). Two controls: the same units before training, and before training with biases
spread as by chrono initialisation.

In Cho et al. 2014 units of short memory have "reset gates that are frequently active", units of long memory
"update gates that are mostly active". Here, as there, a large update gate z keeps the past, and a reset
gate r multiplies it: to reset is r near 0. What a busy reset gate is can be read in two ways, and both are
measured: the mean of 1 - r (it resets much), and the standard deviation of r over time (it switches much).

It also measures how exactly gates held constant make simpler things of the cells: r = 1, z = 0 of a GRU an
RNN; f = 1, i = 0 of an LSTM a store; a constant f of an SRU a causal convolution. And it lets SRU do the work
of convolutions beside QRNN, kernel network, TCN and a plain window: the same budgets of parameters and steps,
the same seeds and grid of learning rates, on tasks within their reach and on one beyond the window's.
"""

import dataclasses
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import cells
import configs
from experiments import plots
from experiments.lab import probes, statistics, study
from experiments.lab.study import Verdict
from train import metrics

STAGES = {
    "untrained": "before training",
    "spread": "before training,\nbiases spread",
    "trained": "after training",
}
MEMORIES = {"memory": "by gradients", "swap": "by replacing a token"}
MODERATE = 0.3  # a smaller correlation is not called one, however narrow its interval
ROUNDING = 1e-5  # of the largest entry: about 100 roundings of float32
SHORT = 0.1  # steps of memory: below, figures are linear
FAR_OFF = 1e-2  # where a control has to be, for an identity to mean something
CHECKS = {
    "rnn": "GRU, r = 1, z = 0: an RNN",
    "store": "LSTM, f = 1, i = 0: c stays",
    "convolution": "SRU, f constant: a causal convolution",
}
# What Cho et al. 2014 say of a GRU: gate, statistic, sign of its correlation with memory, in words.
READINGS = {
    "update": ("update", "mean", 1, "mean of z"),
    "reset": ("reset", "off", -1, "mean of 1 - r"),
    "switching": ("reset", "std", -1, "std of r over time"),
}
BESIDE = ("qrnn", "knn", "tcn", "window")  # what SRU has to keep up with
OUTCOMES = ("not supported", "supported, not shown to be learned", "supported and learned")


@dataclasses.dataclass(frozen=True)
class Settings:
    cells: tuple = ("gru", "lstm", "sru", "sru_feedback")
    seeds: int = 5
    hidden_size: int = 32
    gap: int = 10  # steps of the long dependency, less one
    lag: int = 1  # of the short one
    symbols: int = 4  # and as many distractors
    steps: int = 600
    learning_rates: tuple = (0.003, 0.01, 0.03, 0.1, 0.3)
    rows: int = 32  # sequences that are probed
    identity_seeds: int = 5
    rnn_steps: int = 1000
    hold_steps: int = 10_000
    convolution_steps: int = 256
    rivals: tuple = ("sru", "qrnn", "knn", "tcn", "window")  # that do the same work
    # Within the window of 8 inputs, beyond it, and digits half a row at a time.
    work: tuple = (
        "mixed_recall:gap=5:symbols=4:distractors=4",
        "mixed_recall:gap=20:symbols=4:distractors=4",
        "digits:pixels_per_step=4",
    )
    work_parameters: int = 4000
    work_steps: int = 600
    work_rates: tuple = (0.003, 0.01, 0.03)


PRESETS = {
    "quick": Settings(
        cells=("gru",), seeds=2, hidden_size=8, gap=2, symbols=2, steps=150, learning_rates=(0.03,), rows=4,
        identity_seeds=1, rnn_steps=30, hold_steps=50, convolution_steps=20, rivals=("sru", "qrnn"),
        work=("mixed_recall:gap=3",), work_parameters=1500, work_steps=20, work_rates=(0.03,),
    ),
    "fast": Settings(),
    "full": Settings(
        seeds=10, hidden_size=64, gap=20, steps=10_000, rows=256, identity_seeds=10, convolution_steps=1024,
        learning_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3), work_parameters=20_000, work_steps=5000,
        work=("mixed_recall:gap=5", "mixed_recall:gap=50", "adding:length=50", "digits:pixels_per_step=1"),
    ),
}  # fmt: skip


def measure(settings: Settings, lab) -> dict[str, pd.DataFrame]:
    """`training`: the run of each seed, at the learning rate that was best for the others; `units`: one row
    for each unit, gate and stage; `identities`: largest deviations; `work`: every seed and learning rate of
    the cells that do the work of convolutions, and which were `chosen`."""
    training, units = [], []
    for cell in settings.cells:
        config = _config(cell, settings)
        rows = lab.train(
            f"train-{cell.replace(':', '_')}",
            config,
            lambda result: _probe(settings, result),
            {"rows": settings.rows},
        )
        for kind, kept in (("run", training), ("unit", units)):
            kept += [{"cell": cell.split(":")[0], "label": cell} | row for row in rows if row["kind"] == kind]
    frames = {"training": pd.DataFrame(training), "units": pd.DataFrame(units)}
    frames = {name: frame.drop(columns="kind") for name, frame in frames.items()}
    told = {
        name: getattr(settings, name)
        for name in ("identity_seeds", "rnn_steps", "hold_steps", "convolution_steps")
    }
    rows = lab.do("identities", told, lambda: _identities(settings))
    return frames | {"identities": pd.DataFrame(rows), "work": _work(settings, lab)}


def eligible() -> list[str]:
    """The cells that have gates."""
    return [name for name in cells.names() if _has_gates(cells.get(name, hidden_size=_unit(name)))]


def _unit(name: str) -> int:
    return cells.CELLS.cls(name).size_multiple()


def _has_gates(cell) -> bool:
    params = cell.init(jax.random.key(0), 1)
    return bool(jax.eval_shape(lambda: cell.gates(params, cell.initial_carry(1), jnp.zeros((1, 1)))))


def _work(settings, lab) -> pd.DataFrame:
    frames = []
    for task in settings.work:
        name, options = configs.with_options(task)
        for cell in settings.rivals:
            config = study.cell_config(
                cell,
                name,
                task=options,
                model={"depth": 1, "dropout": 0.0, "embedding_size": 32},
                optim={"learning_rates": settings.work_rates},
                train={
                    "steps": settings.work_steps, "seeds": settings.seeds, "batch_size": 32,
                    "eval_every": max(1, min(25, settings.work_steps // 4)), "on_nan": "drop",
                    "stop_when_solved": True,
                },
                parameters=settings.work_parameters,
                chrono="cell",
            )  # fmt: skip
            rows = pd.DataFrame(lab.train(f"work-{task}-{cell}".replace(":", "_"), config))
            higher = metrics.higher_is_better(config.task.spec(config.task.load()))
            rows = rows.astype({"solved_step": float}).assign(task=task, higher_is_better=higher)
            chosen = statistics.tuned(rows).set_index(["seed", "learning_rate"]).index
            rows["chosen"] = rows.set_index(["seed", "learning_rate"]).index.isin(chosen)
            frames.append(rows.assign(cell=cell.split(":")[0], label=cell))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _config(cell, settings):
    """Gates start where the cell has them by default: chrono initialisation would give the units different
    time scales before they learn any. All seeds and rates train equally long."""
    config = study.cell_config(
        cell,
        "mixed_recall",
        cell={"hidden_size": settings.hidden_size},
        task={
            "gap": settings.gap,
            "lag": settings.lag,
            "symbols": settings.symbols,
            "distractors": settings.symbols,
        },
        optim={"learning_rates": settings.learning_rates},
        train={
            "steps": settings.steps,
            "seeds": settings.seeds,
            "eval_every": 50,
            "on_nan": "drop",
            "stop_when_solved": False,
        },
        chrono="cell",
    )
    if not _has_gates(config.cell):
        raise ValueError(f"{cell} has no gates")
    return config


def _probe(settings, result) -> list[dict]:
    from train import lanes
    from train.compile import executable

    config, spec = result.run.config, result.run.spec
    run_info = result.summary["run"]
    runs = pd.DataFrame(result.summary["seeds"]).assign(higher_is_better=run_info["higher_is_better"])
    # Solved, and still so at the end, when the gates are looked at.
    runs["solved"] &= runs["valid_metric"].astype(float) >= spec.threshold
    runs["solved_step"] = runs["solved_step"].astype(float).where(runs["solved"])
    runs = statistics.tuned(runs)
    initial = lanes.initial_state(lanes.make_run(config)).params
    index = {lane: i for i, lane in enumerate(config.lanes)}
    batch = config.task.eval_batch({}, "test", 0, settings.rows)
    tokens = batch.xs[:, :-1]  # without the query: what units do while they wait for it
    others = other_tokens(jax.random.key(0), tokens, config.task.symbols, config.task.distractors)

    @jax.jit
    def look(params):
        cell_params = probes.layer_params(params)
        xs, replaced = (probes.embedded(spec, params, t) for t in (tokens, others))
        gates = probes.trace(config.cell, cell_params, xs).gates
        activity = {name: (g.mean((0, 1)), g.std(1).mean(0)) for name, g in gates.items()}
        memory = probes.unit_memory(config.cell, cell_params, xs, of="state")
        return activity, memory, swap_memory(config.cell, cell_params, xs, replaced)

    rows, compiled = [], None
    for run in runs.to_dict("records"):
        lane = index[run["seed"], run["learning_rate"]]
        before, after = (jax.tree.map(lambda p, i=lane: p[i], p) for p in (initial, result.state.params))
        stages = {"untrained": before, "trained": after}
        if getattr(config.cell, "chrono", 0) is None:
            stages["spread"] = _spread(config.cell, before, run["seed"], spec.time)
        kept = ("seed", "learning_rate", "solved", "solved_step", "valid_metric", "test_metric")
        rows.append(
            {"kind": "run", "parameters": run_info["parameters"], "budget_steps": config.train.steps}
            | {"rates": " ".join(f"{rate:g}" for rate in settings.learning_rates), "gap": settings.gap}
            | {name: getattr(run[name], "item", lambda v=run[name]: v)() for name in kept}
        )
        for stage in [s for s in STAGES if s in stages]:
            compiled = compiled or executable(look, stages[stage], fast=False)
            activity, memory, swap = jax.device_get(compiled(stages[stage]))
            shared = {"kind": "unit", "stage": stage, "seed": run["seed"], "solved": bool(run["solved"])}
            for gate, (mean, std) in activity.items():
                rows += [
                    shared
                    | {"unit": i, "gate": gate, "mean": float(mean[i]), "std": float(std[i])}
                    | {"memory": float(memory[i]), "swap": float(swap[i])}
                    for i in range(len(memory))
                ]
    return rows


def _spread(cell, params, seed, time):
    """A model's parameters with the cell's biases from chrono initialisation."""
    layer = probes.layer_params(params)
    fresh = dataclasses.replace(cell, chrono=time).init(jax.random.key(seed), 1)
    biases = {name: value for name, value in fresh.items() if name.startswith("b_")}
    return params | {"layers": {"0": {"forward": layer | biases}}}


def other_tokens(key, tokens, symbols: int, distractors: int):
    """At each place another token of the same kind: (batch, time) of symbols, then distractors."""
    first, size = jnp.where(tokens < symbols, 0, symbols), jnp.where(tokens < symbols, symbols, distractors)
    shift = 1 + jax.random.randint(key, tokens.shape, 0, size - 1)
    return first + (tokens - first + shift) % size


def swap_memory(cell: cells.Cell, params, xs, others):
    """How far back each unit's state looks, in steps: (hidden_size,).

    The mean of k weighted by |change of c_T[unit]| where x_{T-k} alone is replaced by that of `others`.
    Unlike a gradient it also sees what a saturated unit holds.

    Args:
      xs, others: (batch, time, features).
    """
    batch, time, features = xs.shape
    at = jnp.eye(time, dtype=bool)[:, None, :, None]
    swapped = jnp.where(at, others, xs).reshape(time * batch, time, features)

    def at_end(xs):
        return probes.unit_states(cell, cells.scan(cell, params, xs)[0])

    after = at_end(swapped).reshape(time, batch, cell.hidden_size, -1)
    size = jnp.abs(after - at_end(xs)).mean((1, 3))
    lags = jnp.arange(time)[::-1]
    return (size * lags[:, None]).sum(0) / jnp.maximum(size.sum(0), jnp.finfo(xs.dtype).tiny)


# --- identities: each check is one program, key -> {(what, is a control): deviation}


def _identities(settings) -> list[dict]:
    from train.compile import executable

    keys = jnp.stack([jax.random.key(seed) for seed in range(settings.identity_seeds)])
    checks = [
        (CHECKS["rnn"], lambda key: _gru_is_rnn(key, False, settings.rnn_steps)),
        (CHECKS["rnn"], lambda key: _gru_is_rnn(key, True, settings.rnn_steps)),
        (CHECKS["store"], lambda key: _lstm_holds(key, settings.hold_steps)),
        (CHECKS["convolution"], lambda key: _sru_is_convolution(key, settings.convolution_steps)),
    ]
    rows = []
    for name, check in checks:
        program = jax.jit(lambda keys, check=check: jax.lax.map(check, keys))
        found = jax.device_get(executable(program, keys, fast=False)(keys))
        for (what, control), deviations in found.items():
            told = {"check": name, "what": what, "control": control}
            rows += [told | {"seed": i, "deviation": float(d)} for i, d in enumerate(deviations)]
    return rows


def _deviation(got, wanted):
    """The largest deviation of two pytrees, leaf by leaf over the largest entry of the second's leaf."""
    leaves = zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    return jnp.stack([jnp.abs(g - w).max() / jnp.abs(w).max() for g, w in leaves]).max()


def _held(params, gates: dict[str, float]):
    """Gates without weights, so that their bias alone says what they are."""
    params = dict(params)
    for gate, bias in gates.items():
        for name in {f"W_{gate}", f"U_{gate}"} & set(params):
            params[name] = jnp.zeros_like(params[name])
        params[f"b_{gate}"] = jnp.full_like(params[f"b_{gate}"], bias)
    return params


def _with_gradients(run, params, xs, key):
    """Outputs, and the gradients of a random linear function of them."""
    ys, pullback = jax.vjp(run, params, xs)
    return {"values": ys, "gradients": pullback(jax.random.normal(key, ys.shape))}


def _gru_is_rnn(key, reset_after, steps):
    H, keys = 16, jax.random.split(key, 3)
    gru = cells.get("gru", hidden_size=H, reset_after=reset_after)
    rnn = cells.get("rnn", hidden_size=H)
    xs, free = jax.random.normal(keys[0], (2, steps, H)), gru.init(keys[1], H)
    shared = {"W": free["W_n"], "U": free["U_n"], "b": jax.random.normal(keys[2], (H,))}

    def as_gru(shared, z):
        held = _held(free, {"r": 1e4, "z": z})  # in float32 sigmoid(1e4) is 1 and sigmoid(-1e4) is 0
        return held | {f"{name}_n": value for name, value in shared.items()}

    runs = {"scan": lambda cell, params, xs: cells.scan(cell, params, xs)[1]}
    if not reset_after:
        runs["textbook step"] = lambda cell, params, xs: probes.trace(cell, params, xs).ys
    variant, found = "gru:reset_after=true" if reset_after else "gru", {}
    for path, run in runs.items():
        wanted = _with_gradients(lambda p, xs, run=run: run(rnn, p, xs), shared, xs, keys[2])
        for z, control in ((-1e4, False), (math.log(0.01 / 0.99), True)):  # z = 0, and z = 0.01
            got = _with_gradients(lambda p, xs, run=run, z=z: run(gru, as_gru(p, z), xs), shared, xs, keys[2])
            for what in got:
                found[f"{variant}, {what}, {path}", control] = _deviation(got[what], wanted[what])
    return found


def _lstm_holds(key, steps):
    H, keys = 16, jax.random.split(key, 3)
    cell = cells.get("lstm", hidden_size=H)
    xs, free = jax.random.normal(keys[0], (steps, 1, H)), cell.init(keys[1], H)
    start = cell.initial_carry(1)._replace(c=jax.random.normal(keys[2], (1, H)))
    found = {}
    for bias, control in ((1e4, False), (7.0, True)):  # f = 1, and f = 0.999
        params = _held(free, {"f": bias, "i": -1e4})

        def step(carry, x, params=params):
            carry, _ = cell.step(params, carry, x)
            return carry, carry.c

        cs = jax.lax.scan(step, start, xs)[1]
        found["c at every step", control] = _deviation(cs, jnp.broadcast_to(start.c, cs.shape))
    return found


def _sru_is_convolution(key, steps):
    H, keys = 16, jax.random.split(key, 5)
    cell = cells.get("sru", hidden_size=H, highway=False)
    xs, free = jax.random.normal(keys[0], (2, steps, H)), cell.init(keys[1], H)
    free = _held(free, {"r": 1e4})  # h = c
    held = _held(free, {"f": 0.0}) | {"b_f": jax.random.uniform(keys[2], (H,), minval=-3, maxval=5)}

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

    shared, found = {name: held[name] for name in ("W", "b_f")}, {}
    wanted = _with_gradients(convolution, shared, xs, keys[3])
    for strategy in (s for s in cells.strategies(cell) if s != "auto"):

        def run(p, xs, strategy=strategy):
            return cells.scan(cell, held | p, xs, strategy=strategy)[1]

        got = _with_gradients(run, shared, xs, keys[3])
        for what in got:
            found[f"{what}, {strategy}", False] = _deviation(got[what], wanted[what])

    # Every convolution is linear. Gates that see the input make none.
    def own(xs):
        return cells.scan(cell, free, xs)[1]

    other = jax.random.normal(keys[4], xs.shape)
    found["its own gates: f(x + y) and f(x) + f(y)", True] = _deviation(own(xs + other), own(xs) + own(other))
    return found


# --- what follows from the numbers


def activity(units: pd.DataFrame, gate: str, statistic: str) -> pd.DataFrame:
    """The units of a gate, with its `activity`: "mean", "std" (over time), or "off" (1 - mean)."""
    rows = units[units["gate"] == gate]
    return rows.assign(activity=1 - rows["mean"] if statistic == "off" else rows[statistic])


def correlations(units: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell, gate, statistic and memory: an Estimate for each stage and of trained minus
    untrained (`gained`), and in how many of the `seeds` the trained one has the sign of the whole (`agree`).
    Only of seeds that solved the task."""
    rows = []
    units = units[units["solved"].astype(bool)]
    for (label, gate), group in units.groupby(["label", "gate"], sort=False):
        for statistic in ("mean", "std", *(["off"] if gate == "reset" else [])):
            stages = dict(list(activity(group, gate, statistic).groupby("stage")))
            for memory in MEMORIES:
                row = {"label": label, "gate": gate, "statistic": statistic, "memory": memory}
                for stage, frame in stages.items():
                    row[stage] = statistics.rank_correlation(frame, "activity", memory)
                trained, untrained = stages["trained"], stages["untrained"]
                row["gained"] = statistics.rank_difference(trained, untrained, "activity", memory)
                each = [
                    statistics.rank_correlation(seed, "activity", memory).value
                    for _, seed in trained.groupby("seed")
                ]
                row |= {"agree": sum(np.sign(each) == np.sign(row["trained"].value)), "seeds": len(each)}
                rows.append(row)
    return pd.DataFrame(rows)


def tables(frames) -> dict[str, pd.DataFrame]:
    """Training, correlations, identities."""
    training, identities = frames["training"], frames["identities"]
    first, learnt = training.iloc[0], []
    for label, group in training.groupby("label", sort=False):
        steps = statistics.median(group["solved_step"].astype(float).fillna(np.inf))
        learnt.append(
            {
                "cell": label,
                "parameters": int(group["parameters"].iloc[0]),
                "solved": f"{int(group['solved'].sum())}/{len(group)}",
                "steps to solve": _censored(steps, first["budget_steps"]),
                "test accuracy": f"{statistics.median(group['test_metric']):.3f}",
                "rates chosen": " ".join(f"{rate:g}" for rate in group["learning_rate"]),
            }
        )
    shown = {
        f"Training on mixed recall, long dependency {int(first['gap']) + 1} steps, {first['budget_steps']:g} "
        f"steps at each rate of {first['rates']}; a seed's rate is what is best for the others; median "
        "[95 %]": pd.DataFrame(learnt)
    }
    found = correlations(frames["units"])
    found = found[found["statistic"] != "off"] if len(found) else found
    if len(found):
        rows = []
        for (label, gate, statistic), group in found.groupby(["label", "gate", "statistic"], sort=False):
            by = group.set_index("memory").to_dict("index")
            row = {"cell": label, "gate": gate, "of": "mean" if statistic == "mean" else "std over time"}
            row |= {stage: _rho(by["memory"].get(stage)) for stage in STAGES}
            row |= {"trained, by swap": _rho(by["swap"]["trained"])}
            row["same sign in"] = f"{by['memory']['agree']}/{by['memory']['seeds']} seeds"
            rows.append(row)
        title = "Spearman's rho of gate and memory time over units of solved seeds [95 %, seeds resampled]"
        shown[title] = pd.DataFrame(rows)
    rows = []
    for (check, what), group in identities.groupby(["check", "what"], sort=False):
        control = group["control"].astype(bool)
        rows.append(
            {
                "identity": check,
                "of": what,
                "gates held": _worst(group["deviation"][~control], max),
                "gates not quite held": _worst(group["deviation"][control], min),
            }
        )
    if len(frames.get("work", ())):
        shown |= _work_tables(frames["work"])
    seeds = identities["seed"].nunique()
    title = f"Gates held constant: largest deviation over the largest entry, worst of {seeds} seeds, float32"
    return shown | {title: pd.DataFrame(rows)}


def _work_tables(work) -> dict[str, pd.DataFrame]:
    shown = {}
    for task, here in work[work["chosen"].astype(bool)].groupby("task", sort=False):
        rows = [
            {
                "cell": label,
                "parameters": int(seeds["parameters"].iloc[0]),
                "solved": f"{int(seeds['solved'].sum())}/{len(seeds)}",
                "steps to solve": _censored(_steps(seeds), seeds["budget_steps"].iloc[0]),
                "test": f"{statistics.median(seeds['test_metric']):.3f}",
                "rates chosen": " ".join(f"{rate:g}" for rate in seeds["learning_rate"]),
            }
            for label, seeds in here.groupby("label", sort=False)
        ]
        shown[f"The work of convolutions: {task}; median [95 %]"] = pd.DataFrame(rows)
    return shown


def _steps(seeds) -> statistics.Estimate:
    """Steps to solve, the median over seeds."""
    return statistics.median(seeds["solved_step"].astype(float).fillna(np.inf))


def _censored(steps, budget) -> str:
    return f"{steps:.0f}".replace("inf", f">{budget:g}")


def _rho(estimate) -> str:
    return f"{estimate:+.2f}" if isinstance(estimate, statistics.Estimate) else ""


def _worst(values, of) -> str:
    return f"{of(values):.1e}" if len(values) else ""


def figures(frames) -> dict[str, Figure]:
    """`gates`: memory against the mean of each gate, for every cell; `gru`: the claim's three readings, by
    stage. A dot is a unit."""
    units = frames["units"]
    gates = {label: list(group["gate"].unique()) for label, group in units.groupby("label", sort=False)}
    panels = [[(label, gate, "mean", "trained") for gate in named] for label, named in gates.items()]
    made = {"gates": _scatter(units, panels, behind="untrained")}
    gru = _gru(units)
    if gru:
        stages = [stage for stage in STAGES if stage in set(units["stage"])]
        lines = [[(gru, gate, of, stage) for gate, of, *_ in READINGS.values()] for stage in stages]
        made["gru"] = _scatter(units, lines)
    return made


def _gru(units) -> str | None:
    """The first GRU there is."""
    found = units[units["cell"] == "gru"]["label"]
    return found.iloc[0] if len(found) else None


def _scatter(units, lines, behind=None) -> Figure:
    """Lines of panels (label, gate, statistic, stage); `behind`: a stage in grey below."""
    look, found = plots.styles(units), correlations(units)
    columns = max(map(len, lines))
    figure = Figure(figsize=(3.1 * columns + 0.6, 2.5 * len(lines) + 0.9), layout="constrained")
    sharex = True if behind else "col"
    axes = figure.subplots(len(lines), columns, sharey=True, sharex=sharex, squeeze=False)
    names = {"mean": "mean over time", "std": "std over time", "off": "mean of 1 - gate"}
    dot = {"ls": "none", "ms": 4, "mew": 0.7}
    for line, panels in zip(axes, lines, strict=True):
        for ax in line[len(panels) :]:
            ax.set_visible(False)
        for ax, (label, gate, statistic, stage) in zip(line, panels, strict=False):
            of = activity(units[units["label"] == label], gate, statistic)
            style = {"marker": look[label]["marker"], "mec": look[label]["color"], **dot}
            if behind:
                old = of[of["stage"] == behind]
                ax.plot(old["activity"], old["memory"], color="#BBBBBB", **dot | {"marker": ".", "ms": 3})
            for solved, fill in ((True, look[label]["color"]), (False, "none")):
                rows = of[(of["stage"] == stage) & (of["solved"].astype(bool) == solved)]
                ax.plot(rows["activity"], rows["memory"], mfc=fill, alpha=0.75, **style)
            title = f"{label}: {gate}"
            if len(found):
                named = {"label": label, "gate": gate, "statistic": statistic, "memory": "memory"}
                row = found[(found[list(named)] == pd.Series(named)).all(axis=1)].iloc[0]
                title += f", $\\rho$ = {row[stage]:+.2f}"
            ax.set_title(title, loc="left", fontsize=9)
            ax.set_xlabel(f"{gate} gate, {names[statistic]}", fontsize=9)
            ax.set_yscale("symlog", linthresh=SHORT, linscale=0.3)  # a few see little but the present
            ax.yaxis.set_major_formatter("{x:g}")
            ax.grid(alpha=0.25)
            ax.tick_params(labelsize=8, labelbottom=True)
            ax.spines[["top", "right"]].set_visible(False)
        stage = "" if behind else f"{STAGES[panels[0][-1]]}\n"
        line[0].set_ylabel(f"{stage}memory time, steps", fontsize=9)
    units = units[units["label"].isin({panel[0] for line in lines for panel in line})]
    low, high = units["memory"].min(), units["memory"].max()
    axes[0, 0].set_ylim(0 if low < SHORT else low / 1.3, 1.3 * high)
    seeds, size = units["seed"].nunique(), units["unit"].nunique()
    trained = {True: "a unit, seed solved the task", False: "a unit, seed did not"}
    handles = [
        plots._handle(text, color=plots.MUTED, marker="o", mfc=plots.MUTED if solved else "none", **dot)
        for solved, text in trained.items()
        if solved in set(units["solved"].astype(bool))
    ]
    if behind:
        style = dot | {"marker": ".", "ms": 5, "color": "#BBBBBB"}
        handles.append(plots._handle("a unit before training", **style))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8,
        title=f"{seeds} seeds of {size} units each. Memory time: mean distance, weighted by gradient.\n"
        "$\\rho$: Spearman's, over units of the seeds that solved the task; 95 % by resampling seeds.",
        title_fontproperties={"size": 8},
    )  # fmt: skip
    return figure


def verdicts(frames) -> dict[str, Verdict]:
    """`gru_gates`: each of READINGS is supported if the trained units' correlation has the claimed sign, is
    MODERATE or larger, and its interval excludes 0, for both ways to measure memory; it is learned if the
    interval of trained minus untrained lies on the claimed side of 0, likewise. Holds: all three are
    supported and learned. Does not hold here: none is supported. Else in part. Not tested here: no GRU, fewer
    than 3 seeds, or fewer than half, solved the task.

    `gru_is_rnn`: holds if all values and gradients agree to ROUNDING; in part if the values alone do; else it
    does not hold here.

    `sru_convolution` has four parts. Structure: values and gradients of the identity agree to ROUNDING. Work:
    SRU keeps up with QRNN and kernel network on every task, that is, the interval of its median steps to
    solve does not lie wholly above the other's, nor, where not all of its seeds solve the task, that of its
    test metric on the worse side of the other's. Convolutions: so it does with TCN and window. Recurrence: on
    a task that the window does not solve, not even in its interval, SRU does, in all of its. Holds: all four.
    Does not hold here: no structure, or on no task does it keep up with QRNN or kernel network. Else in part,
    also where one of them was not there.

    Both identities: not tested here, if a control (a gate not quite held; for SRU, that free gates make no
    linear function of the input) is not FAR_OFF, so that the comparison could not have failed.
    """
    return {
        "gru_gates": _gru_gates(frames),
        "gru_is_rnn": _gru_as_rnn(frames["identities"]),
        "sru_convolution": _sru_convolution(frames),
    }


def _gru_gates(frames) -> Verdict:
    label = _gru(frames["units"])
    if label is None:
        return Verdict("not tested here", "no GRU among the cells")
    seeds = frames["training"][frames["training"]["label"] == label]
    solved = f"{int(seeds['solved'].sum())} of {len(seeds)} seeds solved the task"
    if seeds["solved"].sum() < max(3, len(seeds) / 2):
        return Verdict("not tested here", f"{solved}, too few")
    found = correlations(frames["units"])
    found = found[found["label"] == label].set_index(["gate", "statistic", "memory"])
    told, supported, learned = [], 0, 0
    for gate, statistic, sign, words in READINGS.values():
        rows = [found.loc[gate, statistic, memory] for memory in MEMORIES]
        ok = all(_beyond(row["trained"], sign) and abs(row["trained"].value) >= MODERATE for row in rows)
        gained = ok and all(_beyond(row["gained"], sign) for row in rows)
        supported, learned = supported + ok, learned + gained
        by_gradient, by_swap = rows
        told.append(
            f"{words} (claimed {'+' if sign > 0 else '-'}): {_rho(by_gradient['trained'])}, by swap "
            f"{_rho(by_swap['trained'])}, untrained {_rho(by_gradient['untrained'])}, with spread biases "
            f"{_rho(by_gradient.get('spread')) or 'not measured'}: {OUTCOMES[ok + gained]}"
        )
    verdict = "holds" if learned == len(READINGS) else "holds in part" if supported else "does not hold here"
    told = f"{solved}; {_range(frames, label)}. Correlation with memory time: " + "; ".join(told)
    literal = found.loc["reset", "mean", "memory"]["trained"]
    return Verdict(verdict, f"{told}. If a busy reset gate is one with a large r: {literal:+.2f}.")


def _range(frames, label) -> str:
    """How memory times of a GRU's units differ, before and after, and the gates of the long ones."""
    units = frames["units"]
    units = units[(units["label"] == label) & units["solved"].astype(bool)]
    low, high = (units.groupby("stage")["memory"].quantile(q) for q in (0.1, 0.9))
    before, after = (f"{low[stage]:.1f} to {high[stage]:.1f}" for stage in ("untrained", "trained"))
    gap = frames["training"]["gap"].iloc[0]
    long = units["memory"] > gap / 2
    count = units[long & (units["gate"] == "update")].groupby("stage").size()
    told = f"memory times (10 to 90 %) go from {before} steps to {after}; more than {gap / 2:g} steps have "
    told += f"{count.get('untrained', 0)} units before training and {count.get('trained', 0)} after"
    trained = units[units["stage"] == "trained"].groupby([long, "gate"])["mean"].mean()
    if len(trained) == 4:
        told += (
            f" (z {trained[True, 'update']:.2f}, r {trained[True, 'reset']:.2f}; the others z "
            f"{trained[False, 'update']:.2f}, r {trained[False, 'reset']:.2f})"
        )
    return told


def _beyond(estimate, sign) -> bool:
    """The interval excludes 0 on the side of `sign`."""
    return (estimate.low if sign > 0 else -estimate.high) > 0


def _identity(identities, check) -> tuple[bool, bool, bool, str]:
    """Whether it could have failed; whether values and gradients agree; the numbers."""
    rows = identities[identities["check"] == check]
    control = rows["control"].astype(bool)
    held, near = rows[~control], rows[control]["deviation"].min()
    gradients = held["what"].str.contains("gradients")
    worst = [held["deviation"][which].max() for which in (~gradients, gradients)]
    told = (
        f"Largest deviation over {rows['seed'].nunique()} seeds, relative to the largest entry: values "
        f"{worst[0]:.1e}, gradients {worst[1]:.1e}"
    )
    return near >= FAR_OFF, *(deviation <= ROUNDING for deviation in worst), f"{told}; control {near:.1e}."


def _gru_as_rnn(identities) -> Verdict:
    could_fail, values, gradients, told = _identity(identities, CHECKS["rnn"])
    told += (
        " This is algebra, checked on the code. With gates that far closed, their own weights get no "
        "gradient: a GRU can be a plain RNN, but training would not lead it away from there."
    )
    verdict = "holds" if values and gradients else "holds in part" if values else "does not hold here"
    return Verdict(verdict if could_fail else "not tested here", told)


def _sru_convolution(frames) -> Verdict:
    could_fail, values, gradients, told = _identity(frames["identities"], CHECKS["convolution"])
    units = frames["units"]
    trained = units[(units["cell"] == "sru") & (units["gate"] == "forget") & (units["stage"] == "trained")]
    if len(trained):
        moves = statistics.median(trained.groupby("seed")["std"].median())
        told += f" Trained, f of the median SRU unit has a standard deviation of {moves:.2g} over time."
    told += (
        " With constant gates the state is a causal convolution of W x with kernel (1 - f) f^k, as in a "
        "kernel network of constant decay; with its own gates it is none."
    )
    structure, verdict = values and gradients, "holds in part"
    keeps, recurs, shown = _beside(frames.get("work", pd.DataFrame()))
    if {"qrnn", "knn"} <= set(keeps):
        others = set(keeps) == set(BESIDE)
        if others and recurs and all(all(of.values()) for of in keeps.values()):
            verdict = "holds"
        elif not any(keeps["qrnn"].values()) and not any(keeps["knn"].values()):
            verdict = "does not hold here"
        told += f" Steps to solve, median over seeds [95 %], where not solved test metric: {shown}."
    else:
        told += (
            " QRNN and kernel network were not trained: whether SRU does their work as well is not tested."
        )
    verdict = verdict if structure else "does not hold here"
    return Verdict(verdict if could_fail else "not tested here", told)


def _beside(work) -> tuple[dict, bool, str]:
    """SRU beside the others: {cell: {task: whether SRU keeps up}}; whether it solves what the window does
    not; the numbers."""
    keeps, recurs, said = {}, False, []
    if not len(work) or "sru" not in set(work["label"]):
        return keeps, recurs, ""
    for task, here in work[work["chosen"].astype(bool)].groupby("task", sort=False):
        by = dict(list(here.groupby("label", sort=False)))
        told = []
        for label, seeds in by.items():
            steps, metric = _steps(seeds), statistics.median(seeds["test_metric"])
            text = f"{steps:.0f}" if np.isfinite(steps.value) else f"not solved, {metric:.3f}"
            told.append(f"{label} {text}")
            if label in BESIDE:
                keeps.setdefault(label, {})[task] = _keeps_up(by["sru"], seeds)
        if "window" in by:
            recurs |= np.isinf(_steps(by["window"]).low) and np.isfinite(_steps(by["sru"]).high)
        said.append(f"{task}: {', '.join(told)}")
    return keeps, bool(recurs), "; ".join(said)


def _keeps_up(ours, theirs) -> bool:
    slower = _steps(ours).low > _steps(theirs).high
    mine, other = (statistics.median(seeds["test_metric"]) for seeds in (ours, theirs))
    worse = mine.high < other.low if ours["higher_is_better"].iloc[0] else mine.low > other.high
    return not slower and not (worse and not ours["solved"].all())


if __name__ == "__main__":
    study.command(sys.modules[__name__])
