"""Laws of what trains together: lanes, devices that share a batch, padded lengths, programs used again."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cells
from quickly import quickly
from train import metrics, tasks
from train.compile import executable
from train.lanes import evaluate, held_out, initial_state, layout, make_run
from train.loop import train
from train.model import build

MAP = {"seed_batching": "map"}


@functools.cache
def dispatched(config, devices=1):
    """The run on so many devices, and its lanes' state after one dispatch of steps."""
    run = make_run(config, devices=jax.devices()[:devices])
    state, first = initial_state(run), jnp.int32(0)
    state, _ = executable(run.programs.train, state, run.data, first)(state, run.data, first)
    return run, jax.tree.map(lambda x: np.asarray(x)[: len(run.config.lanes)], state)


def assert_close(got, want, tolerance=0.0):
    chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)


# --- a grid of learning rates


@pytest.mark.parametrize(
    "rule",
    [
        "adam",
        pytest.param("muon", marks=pytest.mark.slow),
        pytest.param("schedule_free_adamw", marks=pytest.mark.slow),
    ],
)
def test_each_rate_of_a_grid_trains_as_it_does_alone_bit_for_bit(tiny, rule):
    """Where lanes run one after the other; and it is told by seed and rate."""
    rates, options = (0.03, 0.002), MAP | {"seed": 5, "steps": 10}
    config = tiny(optim={"learning_rates": rates, "optimizer": rule}, train=options)
    grid = train(config)
    told = [(row["seed"], row["learning_rate"]) for row in grid.summary["seeds"]]
    assert told == config.lanes == [(5, 0.03), (6, 0.03), (5, 0.002), (6, 0.002)]
    for i, rate in enumerate(rates):
        _, alone = dispatched(tiny(optim={"learning_rate": rate, "optimizer": rule}, train=options))
        lanes = jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], grid.state)
        assert_close((lanes.params, lanes.opt_state), (alone.params, alone.opt_state))
    assert all(np.any(x[:2] != x[2:]) for x in jax.tree.leaves(grid.state.params))


def test_a_step_writes_over_the_state_it_was_given(tiny):
    run = make_run(tiny(train=MAP | {"steps": 10}), devices=jax.devices()[:1])
    state, first = initial_state(run), jnp.int32(0)
    executable(run.programs.train, state, run.data, first)(state, run.data, first)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))


# --- devices

SHARED = {"seeds": 3, "eval_batch_size": 16}


@pytest.mark.slow
@pytest.mark.two_devices
def test_lanes_over_devices_train_as_on_one(tiny):
    """Three lanes on two devices: one is filled up with a repetition, which leaves no trace."""
    config = tiny(train=SHARED | {"batch_devices": 1})
    assert_close(*(dispatched(config, devices)[1] for devices in (2, 1)), 1e-5)


@pytest.mark.two_devices
@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_a_batch_shared_by_devices_trains_and_scores_as_on_one(tiny, dropout):
    """What is dropped belongs to rows of the batch, not to devices."""

    def results(devices):
        options = {"train": SHARED | {"batch_devices": devices}, "model": {"dropout": dropout}}
        run, trained = dispatched(tiny(**options), devices)
        assert dict(run.mesh.shape) == {"lanes": 1, "batch": devices, "time": 1}
        return trained, evaluate(run, jax.tree.map(jnp.asarray, trained), held_out(run, "valid"), 10)

    assert_close(results(2), results(1), 1e-5)


@pytest.mark.two_devices
def test_the_state_that_goes_on_is_shared_as_the_rows_are(tiny):
    def trained(devices):
        options = SHARED | {"batch_devices": devices, "segment": 5}
        return dispatched(tiny("lstm", "copy_memory", task={"length": 3}, train=options), devices)[1]

    assert_close(trained(2), trained(1), 1e-4)
    assert all(x.any() for x in jax.tree.leaves(trained(1).carry))


@pytest.mark.slow
@pytest.mark.two_devices
@pytest.mark.parametrize(
    "batching, block",
    [
        ("vmap", "bare"),
        *(pytest.param(*more, marks=pytest.mark.slow) for more in [("map", "bare"), ("vmap", "gated")]),
    ],
)
def test_steps_shared_by_devices_train_and_score_as_on_one(tiny, batching, block):
    """Of both directions of a stack of linear cells; five steps, which two devices do not share evenly."""

    def results(devices):
        options = SHARED | {"batch_devices": 1, "time_devices": devices, "seed_batching": batching}
        model = {"depth": 2, "block": block, "bidirectional": True, "dropout": 0.2}
        run, trained = dispatched(tiny("sru", train=options, model=model), devices)
        assert dict(run.mesh.shape) == {"lanes": 1, "batch": 1, "time": devices}
        return trained, evaluate(run, jax.tree.map(jnp.asarray, trained), held_out(run, "valid"), 10)

    assert_close(results(2), results(1), 1e-5)


@pytest.mark.parametrize(
    "cell, train, model, told",
    [
        ("gru", {"time_devices": 2}, {}, "needs a linear cell, such as sru; GRU is none"),
        ("sru", {"time_devices": 2}, {"remat": -1}, "and config.model.remat=-1 exclude each other"),
        ("sru", {"time_devices": 5}, {}, "must be at most the 4 device"),
    ],
)
def test_steps_that_cannot_be_shared_are_refused_with_one_line(tiny, cell, train, model, told):
    with pytest.raises(ValueError, match="train.time_devices") as refusal:
        layout(tiny(cell, train=train, model=model), jax.devices()[:1] * 4)
    assert told in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.two_devices
@pytest.mark.parametrize(
    "seeds, hidden_size, batch_size, lanes, rows",
    [(2, 512, 8, 2, 1), (3, 512, 8, 2, 1), (1, 512, 8, 1, 2), (1, 512, 7, 1, 1), (1, 8, 8, 1, 1)],
    ids=["lanes-first", "more-lanes", "the-batch", "odd-batch", "small-batch"],
)
def test_devices_go_to_lanes_then_to_large_batches(tiny, seeds, hidden_size, batch_size, lanes, rows):
    config = tiny(cell={"hidden_size": hidden_size}, train={"seeds": seeds, "batch_size": batch_size})
    assert dict(layout(config, jax.devices()).shape) == {"lanes": lanes, "batch": rows, "time": 1}


@pytest.mark.parametrize("share, devices", [(3, 4), (2, 1)], ids=["no-divisor", "too-many"])
def test_a_share_that_does_not_fit_is_refused_with_one_line(tiny, share, devices):
    with pytest.raises(ValueError, match=f"train.batch_devices = {share} must divide .* = 8 and") as refusal:
        layout(tiny(train={"batch_devices": share, "batch_size": 8}), jax.devices()[:1] * devices)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_on_two_devices(on_two_devices):
    on_two_devices(__file__)


# --- padded lengths


@pytest.mark.parametrize(
    "name",
    quickly(tasks.STRETCHABLE, "copy_memory"),
)
def test_a_padded_batch_has_the_loss_and_the_gradient_of_its_real_part(name, jit):
    stretch = tasks.TASKS.cls(name).stretch
    few = {"pairs": 1} if name == "associative_recall" else {}
    task = tasks.get(name, **few | {stretch: 4, f"max_{stretch}": 9})
    data = task.load()
    spec, real = task.spec(data), int(task.real_length(**data))
    assert real < spec.time
    model = build(cells.get("gru", hidden_size=4), spec)

    def cut(x):
        return x[:, :real] if x.ndim > 1 and x.shape[1] == spec.time else x

    @jit
    def both(data, key):
        def loss(params, batch):
            outputs = model.apply(params, batch.xs, batch.lengths)
            return metrics.loss(spec, outputs, batch), metrics.score(spec, outputs, batch)

        padded, params = task.static().train_batch(data, key, 0, 4), model.init(key)
        batches = padded, jax.tree.map(cut, padded._replace(lengths=None))
        return padded.lengths, [jax.value_and_grad(loss, has_aux=True)(params, batch) for batch in batches]

    lengths, results = both(data, jax.random.key(1))
    assert (lengths == real).all()
    assert_close(*results, 1e-5)


PADDED = {"gap": 3, "max_gap": 6, "distractors": 1}


@pytest.mark.slow
def test_a_padded_task_trains_as_the_unpadded_one(tiny):
    """With one filler, which makes their examples the same, whatever is drawn."""
    configs = (tiny(task=PADDED | {"max_gap": longest}, train={"steps": 10}) for longest in (6, 0))
    assert_close(*(dispatched(dataclasses.replace(config, chrono="cell"))[1] for config in configs), 1e-5)


@pytest.mark.slow
def test_a_run_is_evaluated_at_a_length_of_its_own(tiny):
    config = tiny(task=PADDED | {"eval_gap": 9}, train={"steps": 10})
    result = train(config)
    spec = result.run.spec
    assert (spec.time, spec.eval_time) == (8, 11)
    row = result.summary.seeds[0]
    longer = tiny(task={"gap": 9, "distractors": 1}).task
    params = jax.tree.map(lambda x: x[0], result.state.params)
    batch = longer.eval_batch({}, "test", 0, longer.eval_examples)
    total, weight = metrics.score(spec, result.run.model.apply(params, batch.xs), batch)
    assert row.test_metric == pytest.approx(float(total / weight))


# --- programs used again


def test_runs_that_differ_only_in_values_compile_nothing(tiny, compilations):
    """And one that differs in a shape does."""

    def run(**changes):
        sections = {"task": PADDED, "train": {"steps": 10}}
        config = tiny(
            **sections | {name: sections.get(name, {}) | fields for name, fields in changes.items()}
        )
        before = len(compilations)
        train(dataclasses.replace(config, chrono="cell"))
        return len(compilations) - before

    run()
    assert run(train={"seed": 7}) == 0
    assert run(train={"on_nan": "drop", "checkpoint_seconds": 9.0}) == 0
    assert run(optim={"learning_rate": 0.5}) == 0
    assert run(optim={"learning_rates": (0.1, 0.2)}, train={"seeds": 1}) == 0
    assert run(task={"gap": 6}) == 0
    assert run(cell={"hidden_size": 7}) > 0
