"""Runs of several processes: the numbers of one, and one clear line for whoever has lost another."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import commands
from experiments import supervise
from tiny_runs import lines, without_times
from train import hosts
from train.files import WorkdirError

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
ROOT = Path(__file__).parents[2]
COMMANDS = commands.SHARED
TINY = [
    "--config=gru",
    "--config.cell.hidden_size=8",
    "--config.parameters=0",
    "--config.task.gap=3",
    "--config.task.eval_examples=64",
    "--config.train.batch_size=8",
    "--config.train.eval_every=10",
    "--config.train.seeds=1",
    "--config.train.stop_when_solved=false",
    "--config.train.checkpoint_seconds=0.2",
]
SHARED_ROWS = ["--config.train.batch_devices=2"]  # by one process, too, whose rows are too few to be shared
TIME_OVER_DEVICES = ["--config.cell.name=sru", "--config.train.time_devices=2"]


class Pair(NamedTuple):
    """Two processes of one run."""

    processes: list
    outputs: list[Path]

    def inner(self, which: int) -> int:
        """The process that trains, which the one that was started watches."""
        pid = self.processes[which].pid
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.05)
        raise TimeoutError

    def ended(self) -> list[tuple[int, str]]:
        """Exit code and standard error of each."""
        codes = [process.wait(timeout=120) for process in self.processes]
        return list(zip(codes, [path.read_text() for path in self.outputs], strict=True))


@contextlib.contextmanager
def pair(folder, *flags, patience=100, asked=((), ())):
    """The two processes of a run in `folder`, each with flags of its own as well."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = [*TINY, *flags, f"--workdir={folder}", f"--coordinator=127.0.0.1:{port}", "--processes=2"]
    outputs = [folder.with_name(f"{folder.name}-{i}.txt") for i in (0, 1)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    processes = []
    for i in (0, 1):
        command = [sys.executable, "-m", "experiments.train", *shared, f"--process={i}", *asked[i]]
        with outputs[i].open("w") as errors:
            processes.append(
                subprocess.Popen(
                    [*command, f"--patience={patience}"], cwd=folder.parent, env=environment,
                    stdout=subprocess.DEVNULL, stderr=errors,
                )
            )  # fmt: skip
    try:
        yield Pair(processes, outputs)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)  # kills what it watches, too
            process.wait()


def wait_for_checkpoint(folder, after=0):
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        names = [path.name for path in folder.glob("checkpoints/*")]
        if any(name.isdigit() and int(name) > after for name in names):
            return
        time.sleep(0.05)
    raise TimeoutError


def alone(folder, *flags, devices=2):
    """The same run by one process."""
    done = COMMANDS.run("experiments.train", *TINY, *flags, f"--workdir={folder}", f"--devices={devices}")
    assert done.returncode == 0, done.stderr
    return without_times(lines(folder))


def test_what_cplusplus_says_when_it_aborts_is_withheld_even_amid_a_line(capsys):
    fatal = "F1127 07:32:27.653119   24863 client.h:80] Terminating process\n"
    said = ["a line\n", "W1127 07:04:42.390130   17832 cuda.cc:289] another\n", "error: why" + fatal, "\n"]
    said += ["*** Check failure stack trace: ***\n", "    @  0x7f some::Place()\n", "error: late\n"]
    withheld = []
    supervise._relay([line.encode() for line in said], withheld)
    assert capsys.readouterr().err == "".join(said[:2]) + "error: why\nerror: late\n"
    assert len(withheld) == 4 and withheld[0].decode() == fatal


def test_so_is_what_it_says_of_the_others(capsys):
    said = ["E1127 07:04:42.390130   17832 coordination_service_agent.cc:289] Polled an error\n"]
    said += [":UNAVAILABLE:Stream removed\n", "=== Source Location Trace: ===\n", "error: gone\n", "\n"]
    supervise._relay([line.encode() for line in said], [])
    assert capsys.readouterr().err == "error: gone\n"


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_two_devices(tmp_path):
    flags = [*SHARED_ROWS, "--config.train.steps=30"]
    with pair(tmp_path / "two", *flags) as both:
        assert both.ended() == [(0, ""), (0, "")]
    assert without_times(lines(tmp_path / "two")) == alone(tmp_path / "one", *flags)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other_and_the_run_goes_on_with_the_same_numbers(tmp_path):
    """To the bit, as two devices of one process do; that one process finishes it shows that nothing is
    missing from what the first of the two wrote."""
    flags = [*SHARED_ROWS, "--config.train.steps=400"]
    with pair(tmp_path / "two", *flags, patience=60) as both:
        wait_for_checkpoint(tmp_path / "two")
        os.kill(both.inner(1), signal.SIGKILL)
        (first, why), (second, _) = both.ended()
    assert (first, second) == (1, 128 + signal.SIGKILL)
    # Killed while the two connect for a program's first message, it is missed by the watcher alone.
    told = ("error: another process of this run is gone", "error: no progress for 60 s")
    assert why.count("\n") == 1 and why.startswith(told), why
    before = lines(tmp_path / "two")
    assert len(before) < 40
    assert alone(tmp_path / "two", *flags) == alone(tmp_path / "one", *flags)
    assert lines(tmp_path / "two")[:1] == before[:1]  # with its seconds: not trained again


@pytest.mark.slow
@pytest.mark.parametrize("flags", [SHARED_ROWS, TIME_OVER_DEVICES, ["--config.train.seeds=3"]], ids=" ".join)
def test_two_processes_that_are_stopped_give_the_numbers_of_two_devices_and_go_on(flags, tmp_path):
    """A signal to either stops both, with a checkpoint, and both go on from there."""
    flags = [*flags, "--config.train.steps=3000"]
    for which, number in ((1, signal.SIGTERM), (0, signal.SIGHUP)):
        with pair(tmp_path / "two", *flags) as both:
            wait_for_checkpoint(tmp_path / "two", 0 if which else 1000)
            both.processes[which].send_signal(number)
            assert [code for code, _ in both.ended()] == [128 + number] * 2
    with pair(tmp_path / "two", *flags) as both:
        assert both.ended() == [(0, ""), (0, "")]
    assert without_times(lines(tmp_path / "two")) == alone(tmp_path / "one", *flags)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_one_that_is_stuck_ends_both(stopped, tmp_path):
    with pair(tmp_path / "run", "--config.train.steps=100000", patience=20) as both:
        wait_for_checkpoint(tmp_path / "run")
        os.kill(both.inner(stopped), signal.SIGSTOP)
        for code, why in both.ended():
            assert code == 1
            assert why.count("\n") == 1 and why.startswith("error: no progress for 20 s"), why


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_one_whose_watcher_is_gone_keeps_a_checkpoint_and_both_end(lost, tmp_path):
    with pair(tmp_path / "run", "--config.train.steps=100000") as both:
        wait_for_checkpoint(tmp_path / "run")
        both.processes[lost].kill()
        assert both.ended()[1 - lost][0] == 128 + signal.SIGTERM
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_the_first_one_gone_ends_the_other(tmp_path):
    with pair(tmp_path / "run", "--config.train.steps=100000") as both:
        wait_for_checkpoint(tmp_path / "run")
        os.kill(both.inner(0), signal.SIGKILL)
        code, why = both.ended()[1]
    assert code == 1
    assert why.count("\n") == 1 and why.startswith("error: another process of this run is gone"), why


@pytest.mark.slow
def test_processes_that_were_asked_for_different_runs_do_not_train(tmp_path):
    other = ["--config.optim.learning_rate=0.5"]
    with pair(tmp_path / "run", "--config.train.steps=100", asked=((), other)) as both:
        (_, gone), (_, why) = both.ended()
    assert "optim.learning_rate 0.003 there, 0.5 now" in why and why.count("\n") == 1, why
    assert gone.startswith("error: another process") and gone.count("\n") == 1, gone


@pytest.mark.slow
def test_a_signal_that_comes_twice_keeps_a_checkpoint(tmp_path):
    """From a scheduler that signals all processes of a job, and from who watches."""
    flags = ["--config.train.steps=100000", "--config.train.checkpoint_seconds=1000"]
    with pair(tmp_path / "run", *flags) as both:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.05)
        inner = [both.inner(i) for i in (0, 1)]
        for pid in inner:
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.002)
        for process in both.processes:
            process.send_signal(signal.SIGTERM)
        assert [code for code, _ in both.ended()] == [128 + signal.SIGTERM] * 2
    assert list((tmp_path / "run").glob("checkpoints/*")) and (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
def test_nothing_is_overwritten_where_processes_disagree(tmp_path):
    alone(tmp_path / "run", "--config.train.steps=20")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    steps = (["--config.train.steps=60"], ["--config.train.steps=70"])
    with pair(tmp_path / "run", "--overwrite", asked=steps) as both:
        assert [code for code, _ in both.ended()] == [1, 1]
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}


@pytest.mark.slow
def test_processes_need_as_many_devices(tmp_path):
    with pair(tmp_path / "run", asked=(["--devices=1"], ["--devices=2"])) as both:
        for code, why in both.ended():
            assert code in (1, 2) and why.count("\n") == 1, why
        assert any("need as many devices" in why for _, why in both.ended())


def test_errors_of_this_project_are_not_those_of_a_lost_process(monkeypatch):
    monkeypatch.setattr(hosts, "several", lambda: True)
    for error in (WorkdirError("/runs/peer holds another run"), ValueError("no NCCL here")):
        with pytest.raises(type(error), match=str(error)), hosts.one_clear_error():
            raise error
    with pytest.raises(hosts.PeerError, match=r"is gone.*\(Connection closed by peer\)"):
        with hosts.one_clear_error():
            raise ValueError("UNKNOWN: Gloo AllGather failed: [x/pair.cc:547] Connection closed by peer")


@pytest.mark.slow
def test_a_process_without_work_is_refused(tmp_path):
    with pair(tmp_path / "run", "--config.train.batch_size=7") as both:
        ended = both.ended()
    assert any(code == 2 and "none for process 1" in why for code, why in ended), ended
    assert all(code and why.count("\n") == 1 for code, why in ended), ended


@pytest.mark.slow
def test_processes_that_do_not_meet_say_so(tmp_path):
    with pair(tmp_path / "run", patience=5, asked=((), ["--show_config"])) as both:
        code, why = both.ended()[0]
    assert code == 1 and "did not meet at 127.0.0.1" in why and why.count("\n") == 1, why
