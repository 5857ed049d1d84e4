"""A run's directory: nothing lost, nothing believed that is not what was written, one writer at a time."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import chex
import jax
import pytest

from experiments import results
from tiny_runs import Killed, config, kill_after, lines, without_times
from train.checkpoint import CheckpointError, Checkpoints
from train.environment import environment
from train.files import WorkdirError, lock, write, write_json
from train.loop import train
from train.record import finished, read_summary

WHOLE = {"train": {"stop_when_solved": "false"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed: its folder and result."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(config(**WHOLE), folder)


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory):
    """The folder of one that was killed at its end, after its last checkpoint was written."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        train(config(**WHOLE), folder, watch=kill_after(40))
    return folder


@pytest.fixture
def killed(killed_run, tmp_path):
    return shutil.copytree(killed_run, tmp_path / "killed")


@pytest.fixture
def ended(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "ended")


def goes_on(folder, whole, **sections):
    """What the run says when it goes on; its numbers are those of the run that nothing disturbed."""
    said = []
    result = train(config(**(WHOLE | sections)), folder, say=said.append)
    chex.assert_trees_all_equal(whole[1].state, result.state)
    assert without_times(lines(folder)) == without_times(lines(whole[0]))
    assert all(len(line.splitlines()) == 1 for line in said)
    return said


def test_another_run_is_not_mixed_into_a_directory(tmp_path):
    train(config(), tmp_path)
    with pytest.raises(WorkdirError, match=r"train.seed 0 there, 3 now"):
        train(config(train={"seed": 3}), tmp_path)
    summary = train(config(train={"seed": 3}), tmp_path, overwrite=True).summary
    assert summary.run.status == "finished"
    assert json.loads((tmp_path / "config.json").read_text())["train"]["seed"] == 3


def test_overwriting_removes_the_run_and_nothing_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_text("mine too")
    train(config(), tmp_path, overwrite=True)
    (tmp_path / "checkpoints" / "99").mkdir()
    (tmp_path / "config.json").write_text("{")
    train(config(train={"seed": 3}), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    assert (tmp_path / "figures" / "a.png").read_text() == "mine too"
    assert not (tmp_path / "checkpoints" / "99").exists()
    assert json.loads((tmp_path / "config.json").read_text())["train"]["seed"] == 3


@pytest.mark.parametrize("content", ['{"compilerOptions": {}}', "[1]", "not json"])
def test_another_programs_config_is_not_overwritten(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WorkdirError, match="holds config.json, but no run: nothing is overwritten"):
        train(config(), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize("name, file", [("checkpoints", "model.pt"), ("metrics.jsonl", None)])
def test_what_only_has_the_name_of_a_runs_is_not_overwritten(tmp_path, name, file):
    mine = tmp_path / name / file if file else tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text('{"loss": 3}')
    with pytest.raises(WorkdirError, match="but no run: nothing is overwritten"):
        train(config(), tmp_path, overwrite=True)
    assert mine.read_text() == '{"loss": 3}'


def damage(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")


def checkpoints_of(folder):
    return sorted((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_goes_on(killed, whole):
    before, last = checkpoints_of(killed)
    damage(last)
    (said,) = goes_on(killed, whole)
    assert f"step {last.name} is damaged" in said and f"the one of step {before.name}" in said
    assert [path.name for path in (killed / "set-aside").iterdir()] == [f"1-checkpoints-{last.name}"]


def test_where_no_checkpoint_can_be_read_none_is_made_up(killed):
    for checkpoint in checkpoints_of(killed):
        damage(checkpoint)
    with pytest.raises(CheckpointError, match="can be read") as refusal:
        train(config(**WHOLE), killed)
    assert "\n" not in str(refusal.value)
    assert len(checkpoints_of(killed)) == 2


def flipped(file, rng):
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


@pytest.mark.slow
def test_a_flipped_bit_is_not_believed(killed_run, whole, tmp_path):
    """One bit of any file of the newest checkpoint: what is restored is what was saved, of it or the one
    before."""
    rng, step = random.Random(0), checkpoints_of(killed_run)[-1].name
    files = [file.relative_to(killed_run) for file in (killed_run / "checkpoints" / step).rglob("*")]
    files = [file for file in files if (killed_run / file).is_file() and (killed_run / file).stat().st_size]
    assert len(files) > 8
    saved = {}
    with contextlib.closing(Checkpoints(killed_run / "checkpoints")) as there:
        for at in checkpoints_of(killed_run):
            saved[int(at.name)] = raw(there, int(at.name), whole[1].state)
    for number, file in enumerate(files):
        folder = shutil.copytree(killed_run, tmp_path / str(number))
        flipped(folder / file, rng)
        with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
            at, arrays, progress = checkpoints.restore({"state": whole[1].state})
        chex.assert_trees_all_equal((arrays["state"], progress), saved[at])
        shutil.rmtree(folder)


def raw(checkpoints, step, like):
    """State and progress of one checkpoint."""
    content = checkpoints._content(step)
    return checkpoints._arrays(step, content, "state", like), content["progress"]


@pytest.mark.parametrize("change", ["renamed", "of another run"])
def test_a_checkpoint_says_which_step_and_which_run_it_is_of(killed, whole, change):
    last = checkpoints_of(killed)[-1]
    if change == "renamed":
        last.rename(last.with_name("39"))
        (said,) = goes_on(killed, whole)
        assert "step 39 is damaged" in said
        return
    for name in ("config.json", "resolved.json"):
        (killed / name).unlink()
    for other in ({"optim": {"learning_rate": "0.03"}}, {"cell": {"hidden_size": "9"}}):
        with pytest.raises(WorkdirError, match="holds another run"):
            train(config(**(WHOLE | other)), killed)
    with pytest.raises(WorkdirError, match="train.seeds 2 there, 3 now"):
        train(config(train=WHOLE["train"] | {"seeds": "3"}), killed)
    assert goes_on(killed, whole) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"step": 10', '"step": 1\0', 1),
        lambda text: text.replace("0.", "1.", 1),
        lambda text: "{}\n3\n" + text,
        lambda text: "".join(text.splitlines(keepends=True)[1:]),
        lambda text: "",
        None,
    ],
    ids=["garbled", "a digit", "no rows", "a row less", "emptied", "deleted"],
)
@pytest.mark.parametrize("kind", ["ended", "killed"])
def test_metrics_that_cannot_be_trusted_are_set_aside_and_written_again(request, whole, kind, damage):
    folder = request.getfixturevalue(kind)
    file = folder / "metrics.jsonl"
    rotten = damage and damage(file.read_text())
    if rotten is None:
        file.unlink()
    else:
        file.write_text(rotten)
    (said,) = goes_on(folder, whole)
    assert "metrics.jsonl" in said
    kept = [path.read_text() for path in folder.glob("set-aside/*metrics.jsonl")]
    assert kept == ([rotten] if rotten else [])


def test_what_the_run_writes_again_is_not_set_aside(killed, whole):
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"seed": 0, "st')
    assert goes_on(killed, whole) == []


@pytest.mark.parametrize("name", ["summary.json", "config.json"])
def test_a_number_changed_in_a_file_is_noticed(ended, name):
    path = ended / name
    text = path.read_text()
    path.write_text(text.replace("0.02", "0.03", 1).replace('"parameters": ', '"parameters": 1', 1))
    assert path.read_text() != text
    if name == "summary.json":
        with pytest.raises(ValueError, match="summary.json is damaged"):
            read_summary(ended)
        assert finished(ended) is None
        train(config(**WHOLE), ended)
        assert finished(ended) is not None
    else:
        with pytest.raises(WorkdirError, match="holds another run"):
            train(config(**WHOLE), ended)


def test_a_finished_run_whose_last_checkpoint_rots_is_trained_to_its_end_again(ended, whole):
    damage(checkpoints_of(ended)[-1])
    (said,) = goes_on(ended, whole)
    assert "is damaged" in said


@pytest.mark.parametrize("older", ["no digests", "no learning rate in a config", "a field more"])
def test_older_runs(killed, whole, older):
    if older == "no digests":
        with contextlib.closing(Checkpoints(killed / "checkpoints")) as checkpoints:
            step = int(checkpoints_of(killed)[-1].name)
            state, progress = raw(checkpoints, step, whole[1].state)
            progress.pop("metrics")
            progress.pop("data")
            shutil.rmtree(killed / "checkpoints")
            kept = Checkpoints(killed / "checkpoints")
            args = kept._ocp.args
            items = args.Composite(state=args.StandardSave(state), progress=args.JsonSave(progress))
            kept._manager.save(step, args=items)
            kept.close()
        assert goes_on(killed, whole) == []
        return
    saved = json.loads((killed / "config.json").read_text())
    if older == "a field more":
        saved["train"]["warp"] = 3
        (killed / "config.json").write_text(json.dumps(saved))
        with pytest.raises(WorkdirError, match="train.warp 3 there, None now"):
            train(config(**WHOLE), killed)
        return
    del saved["optim"]["final_fraction"], saved["train"]["tensorboard"]  # as their defaults
    (killed / "config.json").write_text(json.dumps(saved))
    assert goes_on(killed, whole) == []


def test_how_often_a_checkpoint_is_written_is_no_part_of_what_a_run_is(killed, whole):
    assert goes_on(killed, whole, train=WHOLE["train"] | {"checkpoint_seconds": "7.0"}) == []


def test_a_second_writer_is_refused_until_the_first_has_died(tmp_path, killed, whole):
    held = lock(killed)
    for overwrite in (False, True):
        with pytest.raises(WorkdirError, match="is in use by another process") as refusal:
            train(config(**WHOLE), killed, overwrite=overwrite)
        assert "\n" not in str(refusal.value)
    held.release()
    program = f"import os, signal; from train.files import lock; held = lock({str(killed)!r}); "
    program += "signal.raise_signal(signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    assert goes_on(killed, whole) == []


def test_a_run_that_has_ended_is_read_while_another_process_has_it(ended):
    held = lock(ended)
    assert train(config(**WHOLE), ended).summary.run.status == "finished"
    held.release()


def test_a_stop_after_the_last_step_finishes_the_run(tmp_path, whole):
    def stop(progress):
        if progress.step == 40:
            signal.raise_signal(signal.SIGINT)

    result = train(config(**WHOLE), tmp_path, watch=stop)
    assert (result.summary.run.status, result.exit_code, result.signal) == ("finished", 0, signal.SIGINT)
    assert result.summary.run.message == ""
    assert finished(tmp_path) is not None


def test_the_summary_of_an_interrupted_run_goes_when_it_goes_on(tmp_path):
    """Else its digest of the metrics would not be that of the metrics there are."""

    def stop(progress):
        if progress.step == 20:
            signal.raise_signal(signal.SIGINT)

    assert train(config(**WHOLE), tmp_path, watch=stop).summary.run.status == "interrupted"
    with pytest.raises(Killed):
        train(config(**WHOLE), tmp_path, watch=kill_after(30))
    assert not (tmp_path / "summary.json").exists()
    assert len(results.load_curves(tmp_path)) == 6


def test_a_run_that_diverged_has_diverged_when_it_is_asked_for_again(tmp_path):
    rule = {"optimizer": "sgd", "clip_norm": "0.0", "warmup_steps": "0"}
    lanes = {"optim": rule | {"learning_rates": (0.01, 1e38)}, "train": {"seeds": "1"}}
    first = train(config(**lanes), tmp_path)
    assert first.summary.run.status == "diverged"
    before = lines(tmp_path)
    again = train(config(**lanes), tmp_path)
    assert (again.summary.run.status, again.exit_code) == ("diverged", 1)
    assert again.summary.run.message == first.summary.run.message
    assert lines(tmp_path) == before


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As nohup asks."""
    old, seen = signal.signal(signal.SIGHUP, signal.SIG_IGN), []
    try:
        train(config(), watch=lambda progress: seen.append(signal.getsignal(signal.SIGHUP)))
    finally:
        signal.signal(signal.SIGHUP, old)
    assert set(seen) == {signal.SIG_IGN}


def test_a_finished_run_gets_back_the_configs_that_somebody_took_away(ended):
    wanted = {name: (ended / name).read_text() for name in ("config.json", "resolved.json")}
    for name in wanted:
        (ended / name).unlink()
    train(config(**WHOLE), ended)
    assert {name: (ended / name).read_text() for name in wanted} == wanted


def test_json_has_no_nan(tmp_path):
    rule = {"optimizer": "sgd", "learning_rate": "1e30", "clip_norm": "0.0", "warmup_steps": "0"}
    run = config("rnn", optim=rule, cell={"activation": "relu"}, train={"on_nan": "drop"})
    result = train(run, tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    for file in tmp_path.rglob("*.json*"):
        for text in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(text, parse_constant=refuse)
    assert [seed.diverged_step for seed in read_summary(tmp_path)[0].seeds] == [
        seed.diverged_step for seed in result.summary.seeds
    ]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"a": 1})
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_the_commit_is_that_of_this_code_or_none(tmp_path, monkeypatch):
    """Installed inside somebody's repository, theirs is not ours."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q", tmp_path], check=True)
    subprocess.run([*git, "-C", tmp_path, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr("train.environment.__file__", str(tmp_path / "environment.py"))
    (tmp_path / "environment.py").write_text("")
    found = environment()
    assert found["git_commit"] is None and found["git_dirty"] is None


def test_checkpoints_return_what_was_saved(tmp_path):
    arrays = {"state": {"a": jax.numpy.arange(3)}, "best": (jax.numpy.float32(2.5),)}
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.restore(arrays) is None
    checkpoints.save(3, arrays, {"seconds": 1.5})
    checkpoints.close()
    step, restored, progress = Checkpoints(tmp_path / "c").restore(arrays)
    assert (step, progress) == (3, {"seconds": 1.5})
    chex.assert_trees_all_equal(arrays, restored)


def test_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nmore lines")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(OSError, match="No space left") as refusal:
        checkpoints.save(1, {"state": jax.numpy.arange(3)}, {})
    assert refusal.value.errno == errno.ENOSPC
    monkeypatch.setattr(
        checkpoints._manager, "save", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a\nb"))
    )
    with pytest.raises(CheckpointError, match="cannot write a checkpoint .*: a$"):
        checkpoints.save(1, {"state": jax.numpy.arange(3)}, {})
