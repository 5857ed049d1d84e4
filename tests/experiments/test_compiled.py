"""What is read in the text of compiled programs: of some whose figures are known, and of every strategy."""

import jax
import jax.numpy as jnp
import pandas as pd
import pytest

import commands
from experiments.lab import compiled
from experiments.speed import programs


def figures(function, *shapes):
    like = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return compiled.figures(jax.jit(function).lower(*like).compile().as_text())


def test_a_chain_and_what_stands_beside_it():
    def chain(x, w):
        for _ in range(3):
            x = jnp.tanh(x @ w)
        return x

    one, both = (figures(f, (64, 64), (64, 64)) for f in (chain, lambda x, w: (chain(x, w), chain(x.T, w))))
    assert 3 <= one.path <= 6 and one.operations == one.path
    assert both.path <= one.path + 2 and both.operations >= 2 * one.path
    assert one.megabytes >= 3 * 3 * 64 * 64 * 4e-6


def test_a_loop_counts_every_turn_and_reads_a_slice_at_a_time():
    def loop(c, w, xs):
        return jax.lax.scan(lambda c, x: (jnp.tanh(c @ w + x), c), c, xs)

    short, long = (figures(loop, (8, 16), (16, 16), (time, 8, 16)) for time in (50, 400))
    for name in ("path", "operations", "megabytes"):
        assert getattr(long, name) / getattr(short, name) == pytest.approx(8, rel=0.1)
    assert long.path >= 400 and long.operations >= long.path


def test_a_parallel_scan_has_a_short_path():
    def scan(a, b):
        return jax.lax.associative_scan(lambda x, y: (x[0] * y[0], x[1] * y[0] + y[1]), (a, b))[1]

    assert figures(scan, (1024, 8), (1024, 8)).path <= 3 * figures(scan, (16, 8), (16, 8)).path


TEXT = """HloModule x

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %y = f32[4]{0:T(8,128)S(1)} sine(%x)
  ROOT %t = (s32[], f32[4]{0}) tuple(%i, /*index=1*/%y)
}

%condition (p: (s32[], f32[4])) -> pred[] {
  %p = (s32[], f32[4]{0}) parameter(0)
  %n = s32[] constant(7)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%left (x: f32[4]) -> f32[4] {
  ROOT %x = f32[4]{0} parameter(0)
}

%right (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %a = f32[4]{0} sine(%x)
  ROOT %b = f32[4]{0} sine(%a)
}

ENTRY %main (a: (s32[], f32[4]), b: pred[]) -> f32[4] {
  %a = (s32[], f32[4]{0}) parameter(0)
  %loop = (s32[], f32[4]{0}) while(%a), condition=%condition, body=%body
  %c = f32[4]{0} get-tuple-element(%loop), index=1
  %b = pred[] parameter(1)
  %s = (f32[4]{0}, f32[4]{0}, u32[]) copy-start(%c)
  %d = f32[4]{0} copy-done(%s)
  ROOT %r = f32[4]{0} conditional(%b, %d, %d), branch_computations={%left, %right}
}
"""


def test_a_text_with_loops_branches_and_copies():
    """Seven turns of a sine and a comparison, a copy, the longer branch."""
    found = compiled.figures(TEXT)
    assert found.path == found.operations == 7 * 2 + 1 + 2
    assert found.megabytes == pytest.approx(1e-6 * (7 * (32 + 9) + 36 + 64))
    with pytest.raises(compiled.Unknown, match="loop loop does not say"):
        compiled.figures(TEXT.replace("direction=LT", "direction=NE"))
    told = TEXT.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}')
    assert compiled.figures(told).path == 3 * 2 + 3
    with pytest.raises(compiled.Unknown, match="no ENTRY"):
        compiled.figures("HloModule x")


@pytest.mark.parametrize(
    "shape, size",
    [("f32[2,3]{1,0:T(8,128)}", 24), ("bf16[5]", 10), ("pred[]", 1), ("(s32[], c64[2]{0})", 20),
     ("s4[6]", 3), ("f8e4m3fn[3]", 3), ("token[]", 0), ("u8[0]", 0)],
)  # fmt: skip
def test_bytes_of_shapes(shape, size):
    assert compiled.bytes_of(shape) == size


def test_every_strategy_of_a_cell_has_figures():
    found = programs.rows(["sru", "lstm"], [(2, 8, 4)], ["here"])
    assert {(row["cell"], row["strategy"]) for row in found} == {
        ("sru", name) for name in ("stepwise", "sequential", "associative", "chunked")
    } | {("lstm", name) for name in ("stepwise", "sequential")}
    assert all(0 < row["path"] <= row["operations"] and row["megabytes"] > 0 for row in found)
    path = {(row["cell"], row["strategy"]): row["path"] for row in found}
    assert path["sru", "associative"] < path["sru", "sequential"] < path["sru", "stepwise"]
    shown = programs.table(pd.DataFrame(found))
    assert list(shown["cell"]) == ["sru"] * 4 + ["lstm"] * 2 and "2 x 8 x 4" in shown


def test_the_command_and_what_it_refuses(tmp_path):
    done = commands.SHARED.run(
        "experiments.compiled", "--cells=mingru", "--sizes=1x4x4", f"--workdir={tmp_path}", limit=100
    )
    assert done.returncode == 0 and "1 x 4 x 4" in done.stdout and (tmp_path / "compiled.csv").exists()
    for flag, said in (("--targets=tpus", "did you mean 'tpu'"), ("--sizes=4x4", "BATCHxTIMExHIDDEN")):
        done = commands.SHARED.run("experiments.compiled", flag, f"--workdir={tmp_path}", limit=100)
        assert done.returncode and said in done.stderr.replace('"', "'")
        assert len(done.stderr.strip().splitlines()) == 1
