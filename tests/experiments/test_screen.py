"""What a person sees while a command works: on terminals of any width, in files, and with --quiet."""

import io
import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from rich.console import Console

from experiments import screen
from experiments.engines import Event
from experiments.engines.board import Board
from experiments.screen import ProgressBar
from train.loop import Progress

BEFORE = Progress(0, 30_000, math.nan, math.nan, "bits_per_character", 0, 16, math.nan, 12.3)
AFTER = BEFORE._replace(step=10_000, loss=1.2345e-5, metric=12.345, solved=15, steps_per_second=1234.5)
CODES = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
TITLE = "[15/16] delayed_recall-gru:reset_after=true:layer_norm=true-learning_rate=0.001"


def terminal(width):
    return Console(width=width, force_terminal=True, file=io.StringIO())


def seen(console, renderable):
    with console.capture() as captured:
        console.print(renderable)
    return CODES.sub("", captured.get()).splitlines()


@pytest.fixture
def now(monkeypatch):
    """The time, which passes where a test says so."""
    at = [0.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: at[0])
    return at


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bar_percent_and_time_to_go_are_always_there(width, now):
    console = terminal(width)
    bar = ProgressBar(console, TITLE)
    now[0] = 7.4

    def look():
        first, *rest = seen(console, bar._bar.get_renderable())
        assert len(first) <= width and first.startswith("[15/16] delayed_recall-gru")
        drawn, percent, eta = re.search(r" (━[━╸╺]+) +(\d+) % eta (\S+)$", first).groups()
        assert len(drawn) >= 6
        return int(percent), eta, " ".join(" ".join(rest).split())

    assert look() == (0, "-:--", "compiling, 0:07")
    bar(BEFORE)
    assert look() == (0, "-:--", "training")
    now[0] += 1800
    bar(AFTER)
    assert look() == (
        33,
        "1:00:00",
        "step 10,000/30,000, 1,234/s: train loss 1.23e-05, validation bits_per_character 12.3, 15/16 solved",
    )
    now[0] += 60
    assert look()[1] == "59:00"  # it goes on between evaluations


def test_elsewhere_a_line_is_whole_and_comes_now_and_then(now):
    file = io.StringIO()
    console = Console(file=file, width=80)
    with ProgressBar(console, TITLE) as bar:
        bar(BEFORE)
        now[0] = 20.0
        for step in (10, 20, 30):  # of which the second comes too soon
            bar(AFTER._replace(step=step))
            now[0] += 10
    lines = file.getvalue().splitlines()
    assert [re.search(r"step (\d+)/", line)[1] for line in lines] == ["10", "30"]
    assert all(line.startswith(TITLE) and re.search(r"eta [\d:]+$", line) for line in lines)
    with ProgressBar(console, TITLE) as bar:  # over in a second, once it is compiled
        now[0] += 60
        bar(BEFORE)
        now[0] += 1
        bar(AFTER._replace(step=BEFORE.steps - 1))
    assert file.getvalue().splitlines() == lines


def test_a_sweep_shows_how_far_it_is(now):
    console = terminal(80)
    board = Board(runs=4, finished=1)
    board.take(Event("delayed_recall-" + "gru-" * 30, "progress", step=300, steps=1500))
    now[0] += 60
    first, run = seen(console, board.table())
    assert first == "1 of 4 runs done (1 before), 0 failed, 1 running, 1:00, eta 14:00"
    assert len(run) <= 80 and re.fullmatch(r"delayed_recall-gru.*… ━+.* +20% 300/1,500", run)


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_leaves_out_how_it_goes(quiet, monkeypatch):
    monkeypatch.setattr(flags.FLAGS["quiet"], "value", quiet)
    console = terminal(80)
    assert seen(screen.meanwhile(console), "so far") == ([] if quiet else ["so far"])
    assert seen(console, "found") == ["found"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80])
def test_in_a_real_terminal(width):
    """What a training run sends to a terminal, and how wide that is."""
    flags = ["--config=gru", "--config.task.gap=2", "--config.train.steps=40", "--config.train.eval_every=10"]
    flags += ["--config.train.stop_when_solved=false", "--config.cell.hidden_size=4"]
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *flags],
        cwd=Path(__file__).parents[2], env=os.environ | {"COLUMNS": str(width), "TERM": "xterm"},
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    told = b""
    try:
        while said := os.read(main, 4096):
            told += said
    except OSError:
        pass  # it has ended
    os.close(main)
    assert process.wait() == 0
    lines = re.split(r"[\r\n]+", CODES.sub("", told.decode()))
    assert lines[0] == "nothing of this run will be kept; --workdir=FOLDER keeps it"
    assert max(map(len, lines)) <= width
    bars = [line for line in lines if line.startswith("gru on delayed_recall ━")]
    assert bars and all(re.search(r"\d+ % eta (-:--|\d+:\d\d)$", bar) for bar in bars)
    assert any("compiling" in line for line in lines) and any("train loss" in line for line in lines)
    assert "None" not in told.decode()
