"""Exported programs, of all cells, answer as `Model.apply` in a process that has jax and nothing of ours."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import cells
from compiling import jit
from models import cell_of, inputs_of, normal_params, spec_of
from train import exported
from train.model import ModelConfig, build
from train.tasks.meaning import Meaning, Scale, scaled, unscaled

SIZES = {
    "small": (3, 1),
    "large": (2, 70),
}  # batch, time: less than a chunk or a window, and more than a chunk
CONFIGS = [
    {"depth": 2, "bidirectional": True},
    {"block": "gated", "bidirectional": True, "conv_width": 3},
    {"block": "residual"},
    {"connection": "highway", "layer_norm": "post", "pooling": "mean"},
    {"layer_norm": "pre", "pooling": "max", "strategy": "stepwise", "remat": 2},
]
ALONE = """
import os, sys
import jax, numpy as np
assert not {"cells", "train", "flax"} & set(sys.modules)
for name in sorted(os.listdir(".")):
    if not name.endswith(".bin"):
        continue
    program = jax.export.deserialize(open(name, "rb").read())
    with np.load(name[:-4] + ".npz") as given:
        for size in {sizes}:
            arguments = [given[size + part] for part in ("xs", "lengths") if size + part in given]
            np.save(name[:-4] + size + ".npy", program.call(*arguments))
""".replace("{sizes}", repr(list(SIZES)))


def model_of(number, name):
    """Cells take turns at inputs, answers and what stands around them."""
    spec = spec_of(("tokens", "features")[number % 2], per_step=number % 3 == 0)
    config = ModelConfig(**CONFIGS[number % len(CONFIGS)])
    cell = cell_of(name)
    model = build(cell, spec, config)
    return cell, config, spec, model, jax.tree.map(np.float32, normal_params(model))


def given_to(spec, size, lengths):
    batch, time = SIZES[size]
    xs = inputs_of(spec, batch, time)
    xs = xs.astype(np.int32 if xs.dtype.kind == "i" else np.float32)
    return [xs, np.linspace(0, time, batch).astype(np.int32)] if lengths else [xs]


def run_alone(folder):
    """A process without the path to this package."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", ALONE], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def check(names, folder):
    want = {}
    for name, lengths in names:
        cell, config, spec, model, params = model_of(cells.names().index(name), name)
        label = f"{name}{lengths:d}"
        program = exported.export(cell, config, spec, params, lengths=lengths)
        (folder / f"{label}.bin").write_bytes(program.serialize())
        given = {size: given_to(spec, size, lengths) for size in SIZES}
        arrays = {
            size + part: x for size in SIZES for part, x in zip(("xs", "lengths"), given[size], strict=False)
        }
        np.savez(folder / label, **arrays)
        want |= {label + size: np.asarray(jit(model.apply)(params, *given[size])) for size in SIZES}
    run_alone(folder)
    for name, outputs in want.items():
        np.testing.assert_allclose(
            np.load(folder / f"{name}.npy"), outputs, rtol=2e-5, atol=2e-5, err_msg=name
        )


def test_a_process_with_jax_alone_runs_them(tmp_path):
    check([("mlstm", True)], tmp_path)


@pytest.mark.slow
def test_a_process_with_jax_alone_runs_every_cell(tmp_path):
    check([(name, lengths) for name in cells.names() for lengths in (False, True)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sru", "qrnn"])
def test_the_chunks_of_accelerators_are_the_same(name):
    cell, config, spec, model, params = model_of(0, name)
    chunked = build(cell, spec, ModelConfig(**CONFIGS[0], strategy="chunked:chunk=8"))
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, time"), np.int32)
    program = jax.export.export(jit(lambda xs: chunked.apply(params, xs)))(shape)
    for size in SIZES:
        (xs,) = given_to(spec, size, False)
        np.testing.assert_allclose(program.call(xs), jit(model.apply)(params, xs), rtol=2e-5, atol=2e-5)
    assert exported.export(cell, config, spec, params, platforms=["cuda"]).platforms == ("cuda",)


def test_a_program_reads_and_answers_in_a_persons_units():
    scales = (Scale(10.0, 0.5, 2.0), Scale(1.0, -3.0, 0.5))
    meaning = Meaning(
        features=("speed", "load"), scales=scales, gaps="indicator", target_scales=scales, targets=("a", "b")
    )
    spec = spec_of(input_size=4)
    cell = cell_of("rnn")
    model = build(cell, spec, ModelConfig())
    params = jax.tree.map(np.float32, normal_params(model))
    program = exported.export(cell, ModelConfig(), spec, params, meaning)
    xs = np.float32(np.random.default_rng(0).normal(size=(2, 3, 2)))
    xs[0, 1, 0] = np.nan
    want = jit(model.apply)(params, meaning.inputs(xs)[0])
    np.testing.assert_allclose(program.call(xs), unscaled(scales, np.asarray(want)), rtol=1e-5, atol=1e-5)
    assert np.isfinite(scaled(scales, program.call(xs))).all()


def test_what_must_know_the_number_of_steps_is_refused_in_one_line():
    xs = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch, time"), 3), np.float32)
    for name, options, told in [
        ("sru", {"strategy": "associative"}, "'associative' needs a known number of steps, not time"),
        ("gru", {"strategy": "newton"}, "'newton' needs a known number of steps"),
        ("attention", {"strategy": "parallel"}, "'parallel' needs a known number of steps"),
        ("gru", {"remat": 3}, "remat=3 needs a known number of steps"),
    ]:
        cell = cell_of(name)
        params = cell.init(jax.random.key(0), 3)
        with pytest.raises(ValueError, match=told):
            jax.eval_shape(lambda xs, c=cell, p=params, o=options: cells.scan(c, p, xs, **o), xs)
