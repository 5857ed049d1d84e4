"""Which code an experiment depends on, and what has changed of it."""

import shutil
import sys

import jax
import jax.numpy as jnp
import pytest

import cells
from experiments import claims
from experiments.lab import freshness
from quickly import quickly

PACKAGE = {
    "experiments/__init__.py": "",
    "experiments/screen.py": "bar = 1",
    "experiments/lab/__init__.py": "",
    "experiments/toy.py": (
        "import math\nfrom typing import TYPE_CHECKING\nimport train.step\n"
        "if TYPE_CHECKING:\n    import train.typed\n"
        "from train import unused\nfrom train.helps import add\nONE = 1\nTWO = 2\n"
        "SAID = {x: TWO for x in 'ab'}\n"
        "def measure(x):\n    'Doc.'\n    from cells import lstm\n    return more(x)  # as it is\n"
        "def more(x):\n    return add(x, ONE)\n"
        "def judge(x):\n    return unused.rule(x, TWO)\n"
    ),
    "train/__init__.py": "", "train/loop.py": "", "train/step.py": "from . import metrics",
    "train/metrics.py": "def f(x: int = 1) -> str:\n    return f'{x!r}' 'b'",
    "train/typed.py": "", "train/unused.py": "", "train/helps.py": "", "train/tasks/__init__.py": "",
    "cells/__init__.py": "from cells.lstm import LSTM\nfrom cells.gru import GRU",
    "cells/lstm.py": "from cells import parts", "cells/gru.py": "", "cells/parts.py": "",
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    for path, text in PACKAGE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(freshness, "ROOT", tmp_path)
    return tmp_path


def test_imports_of_imports_are_followed_wherever_they_stand(project):
    always = {
        "experiments/__init__.py", "experiments/toy.py", "train/__init__.py", "train/loop.py",
        "train/step.py", "train/metrics.py", "train/helps.py", "cells/parts.py", "cells/lstm.py",
    }  # fmt: skip
    assert set(freshness.code_of("toy", ["lstm:forget_bias=3"])) == always
    assert set(freshness.code_of("toy")) == always | {"cells/gru.py"}


def test_only_code_counts(project):
    """Neither comments, docstrings nor layout."""
    recorded = freshness.code_of("toy")
    path = project / "experiments" / "toy.py"
    text = path.read_text()
    path.write_text(text.replace("'Doc.'", '"""Another."""').replace("# as it is", "") + "\n# end\n")
    assert freshness.changed(recorded, "toy") == {}
    path.write_text(text.replace("return more(x)", "return -more(x)"))
    (project / "train" / "loop.py").write_text("import train.unused")
    shutil.move(project / "train" / "metrics.py", project / "train" / "measures.py")
    (project / "train" / "step.py").write_text("from train import measures")
    assert freshness.changed(recorded, "toy") == {
        "experiments/toy.py": "changed", "train/loop.py": "changed", "train/measures.py": "new",
        "train/metrics.py": "gone", "train/step.py": "changed", "train/unused.py": "new",
    }  # fmt: skip


def test_of_its_own_file_what_measure_uses_counts(project):
    recorded, path = freshness.code_of("toy"), project / "experiments" / "toy.py"
    text = path.read_text()
    for judged in ("TWO = 2", "unused.rule(x"):
        assert judged in text
        path.write_text(text.replace(judged, judged.replace("2", "3").replace("rule", "law")))
        assert freshness.changed(recorded, "toy") == {}
    for measured in ("ONE = 1", "add(x"):
        assert measured in text
        path.write_text(text.replace(measured, measured.replace("1", "3").replace("add(", "add(2 * ")))
        assert freshness.changed(recorded, "toy") == {"experiments/toy.py": "changed"}


def test_digests_are_the_same_for_every_version_of_python(project):
    """As Python 3.11 has it; CI runs other ones."""
    assert freshness.code_of("toy")["train/metrics.py"] == "78a33ac4a09b"


@pytest.mark.parametrize("name", quickly(claims.EXPERIMENTS, "horizon", "atlas", "identities"))
def test_every_experiment_depends_on_what_trains_and_on_the_cells_it_names(name):
    every, some = freshness.code_of(name), freshness.code_of(name, ["lstm"])
    assert some.items() <= every.items()
    assert {f"experiments/{name}.py", "cells/lstm.py", "cells/scans/sequential.py", "train/loop.py"} <= set(
        some
    )
    files = {cells.CELLS.cls(cell).__module__.replace(".", "/") + ".py" for cell in cells.names()}
    assert files <= set(every) and not files <= set(some)
    assert not any("plots" in path or "style" in path or "interop" in path for path in every)


def test_what_is_left_out_is_there():
    assert all(freshness._file(module) for module in freshness.ASIDE)


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ValueError, match="no experiments/nothing.py"):
        freshness.code_of("nothing")


@pytest.mark.parametrize("name", ["sru", "sru_feedback", "lstm", "s5"])
def test_a_cpu_runs_nothing_that_is_for_accelerators(name):
    """Which may change without what was measured on a CPU."""
    cell, called = cells.get(name, hidden_size=4), set()
    folders = [str(freshness.ROOT / module.replace(".", "/")) for module in freshness.ON_ACCELERATORS]

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(tuple(folders)):
            called.add(frame.f_code.co_name)

    def loss(params, xs):
        return cells.scan(cell, params, xs)[1].sum()

    params, xs = cell.init(jax.random.key(0), 3), jnp.ones((2, 5, 3))
    sys.setprofile(note)
    try:
        jax.grad(loss)(params, xs)
    finally:
        sys.setprofile(None)
    assert not called
