"""Loggers: every evaluation once, over resumptions too; whatever they do, training goes on."""

import json
import textwrap

import pytest

from train import sinks
from train.files import WorkdirError
from train.record import FILES
from train.summary import Evaluation

ASKED = {"task": {"name": "adding"}, "cell": {"name": "gru"}, "label": "mine", "train": {"steps": 40}}
FAKE = """
import json, pathlib

def init(**given):
    pathlib.Path(LOG).open("a").write(json.dumps(given) + "\\n")
    return Run()

class Run:
    def log(self, values, step):
        pathlib.Path(LOG).open("a").write(json.dumps([step, values]) + "\\n")

    def finish(self):
        pathlib.Path(LOG).open("a").write('"finished"\\n')
"""


def row(step, seed=0, value=0.5, rate=0.01):
    return Evaluation(seed, rate, step, 4 * step, 40 * step, 1.0, value, value, value)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """(kind, text of the module) -> what it was told so far."""

    def fake(kind, text=FAKE):
        log, package = tmp_path / "told", tmp_path / "packages"
        package.mkdir(exist_ok=True)
        (package / f"{kind}.py").write_text(f"LOG = {str(log)!r}\n" + textwrap.dedent(text))
        monkeypatch.syspath_prepend(package)
        monkeypatch.delitem(sinks.importlib.sys.modules, kind, raising=False)
        return lambda: [json.loads(line) for line in log.read_text().splitlines()]

    yield fake
    for kind in sinks.LOGGERS:
        sinks.importlib.sys.modules.pop(kind, None)


def send(kind, folder, before, rows, grid=False):
    said = []
    logger = sinks.Logger(kind, folder, ASKED, grid, before, said.append)
    for one in rows:
        logger.append(one)
    logger.close()
    return said


def test_every_evaluation_is_sent_once_though_a_run_goes_on_from_before(tmp_path, fake):
    told = fake("wandb")
    rows = [[row(step, seed) for seed in (0, 1)] for step in (10, 20, 30, 40)]
    assert not send("wandb", tmp_path, [], rows[:3])
    assert not send("wandb", tmp_path, rows[0] + rows[1], rows[2:])  # from the checkpoint at 20
    first, *sent = told()
    assert first["config"] == ASKED and first["resume"] == "allow" and first["id"] in first["name"]
    assert [line for line in sent if isinstance(line, dict)] == [first]  # the same run
    assert [line[0] for line in sent if isinstance(line, list)] == [10, 20, 30, 40]
    assert set(sent[0][1]) == {f"{curve}/seed_{seed}" for curve in sinks.CURVES for seed in (0, 1)}
    assert sent.count("finished") == 2 and sinks.SENT in FILES


def test_one_that_begins_later_gets_what_there_was(tmp_path, fake):
    told = fake("trackio")
    send(
        "trackio",
        tmp_path,
        [row(10, rate=0.1), row(10, rate=0.2)],
        [[row(20, value=float("nan"))]],
        grid=True,
    )
    first, before, now, _ = told()
    assert "id" not in first
    assert set(before[1]) >= {
        "valid_metric/seed_0_learning_rate_0.1",
        "valid_metric/seed_0_learning_rate_0.2",
    }
    assert now == [20, {}]  # what is no number is not sent


@pytest.mark.parametrize("text, word", [
    ("def init(**given): raise SystemExit('no\\nkey')", "SystemExit: no key"),
    ("raise OSError('broken')", "OSError: broken"),
    ("import time\ndef init(**given): time.sleep(9)", "did not end within"),
])  # fmt: skip
def test_one_that_fails_or_hangs_is_one_line(tmp_path, fake, monkeypatch, text, word):
    fake("wandb", text)
    monkeypatch.setattr(sinks, "PATIENCE", 0.2)
    (line,) = send("wandb", tmp_path, [], [[row(10)], [row(20)]])
    assert word in line and "\n" not in line


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        WorkdirError, match=r"train.logger='wandb' needs .* 'recurrent-cells\[wandb\]'"
    ) as refusal:
        sinks.Logger("wandb", tmp_path, ASKED, False, [], print)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_trackio_stores_every_evaluation_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    rows = [[row(step)] for step in (10, 20, 30)]
    assert not send("trackio", tmp_path, [], rows[:2])
    assert not send("trackio", tmp_path, rows[0], rows[1:])
    (name,) = SQLiteStorage.get_runs(sinks.PROJECT)
    logs = SQLiteStorage.get_logs(sinks.PROJECT, name)
    assert [log["step"] for log in logs] == [10, 20, 30]
    assert all(log["valid_metric/seed_0"] == 0.5 for log in logs)
