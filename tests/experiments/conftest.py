"""Run directories that look like real ones, without training."""

import json
import math

import numpy as np
import pytest

TASKS = {
    "delayed_recall": dict(metric="accuracy", higher_is_better=True, threshold=0.99, baseline=0.125),
    "adding": dict(metric="mse", higher_is_better=False, threshold=0.01, baseline=0.1667),
    "digits": dict(metric="accuracy", higher_is_better=True, threshold=0.95, baseline=0.1),
}


def write_run(
    path, task="delayed_recall", cell="gru", solved=(400, None), *, curves=None, budget=1000, every=100, **run
):
    """Writes a run directory.

    Args:
      solved: for each seed the step that solved it, or None; "nan" for one that diverged after half time
        while the others went on.
      curves: seed -> {step: valid_metric}; made up where not given.
      run: other fields of the summary's "run".
    """
    config = run.pop("config", {})
    label = run.pop("label", cell)
    good = TASKS[task]
    rng = np.random.default_rng(len(task) + ord(cell[0]))
    lines, seeds = [], []
    for seed, at in enumerate(solved):
        solve, gone = (at if isinstance(at, int) else None), (budget // 2 + every if at == "nan" else None)
        curve = (curves or {}).get(seed) or {
            step: math.nan if step == gone else _made_up(good, step, solve, rng)
            for step in range(every, (solve or gone or budget) + 1, every)
        }
        lines += [_line(good, seed, step, value) for step, value in curve.items()]
        finite = [line for line in lines if line["seed"] == seed and math.isfinite(line["valid_metric"])]
        last = finite[-1] if finite else lines[-1]
        seeds.append(
            {
                "seed": seed,
                "solved": solve is not None,
                "solved_step": solve,
                "solved_examples": solve and solve * 32,
                "solved_tokens": solve and solve * 32 * 100,
                "solved_seconds": solve and solve * 0.01,
                "final_step": gone or lines[-1]["step"],
                **{key: last[key] for key in ("train_loss", "valid_loss", "valid_metric")},
                "test_loss": last["valid_loss"],
                "test_metric": last["valid_metric"],
                "diverged_step": gone,
            }
        )
    steps = max(seed["final_step"] for seed in seeds)
    summary = {
        "task": task,
        "cell": cell,
        "label": label,
        **good,
        "parameters": 12345,
        "hidden_size": 64,
        "state_size": 64,
    }
    summary |= {"strategy": "sequential", "budget_steps": budget, "steps": steps, "batch_size": 32}
    summary |= {"seconds_per_step": 0.01, "compile_seconds": 4.0, "run_seconds": steps * 0.01}
    summary |= {"status": "finished", "message": "", "device": "cpu", "devices": 1} | run
    environment = {"python": "3.13.0", "jax": "0.10.1", "jaxlib": "0.10.1", "flax": "0.12.1"}
    environment |= {"optax": "0.2.6", "numpy": "2.4.0", "backend": "cpu", "devices": ["TFRT_CPU_0"]}
    environment |= {"cpu": "A processor", "cores": 2, "git_commit": "0123456789abcdef", "git_dirty": False}
    environment |= {"started": "2026-11-23T10:00:00+00:00", "command": "python -m experiments.compare"}
    config = {"task": {"name": task}, "cell": {"name": cell}, "label": label} | config
    path.mkdir(parents=True)
    lines.sort(key=lambda line: (line["step"], line["seed"]))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "summary.json").write_text(json.dumps({"run": summary, "seeds": seeds}))
    (path / "config.json").write_text(json.dumps(config))
    (path / "environment.json").write_text(json.dumps(environment))
    return path


def _line(good, seed, step, value):
    line = {"step": step, "seed": seed, "examples": step * 32, "tokens": step * 3200, "seconds": step * 0.01}
    loss = value if good["metric"] == "mse" else 2 * (1 - value)
    return line | {"train_loss": loss, "valid_loss": loss, "valid_metric": value}


def _made_up(good, step, at, rng):
    """A sigmoid from the baseline to the threshold, crossed at `at`; without, noise around the baseline."""
    up, threshold, baseline = good["higher_is_better"], good["threshold"], good["baseline"]
    if at is None:
        return baseline * (1 + 0.05 * rng.normal())
    done = 1 / (1 + math.exp(-10 * (step / at - 0.6))) / (1 / (1 + math.exp(-4)))
    value = baseline + (threshold - baseline) * done * (0.97 if step < at else 1.003)
    return min(value, 1.0) if up else max(value, 1e-4)


def write_comparison(root):
    """Three tasks and five cells: rnn does not solve recall, one lstm diverges, one label is a new cell's."""
    times = {
        "delayed_recall": {
            "rnn": [None] * 5,
            "lstm": [600, 700, 600, "nan", 800],
            "gru": [400, 300, 400, 500, 400],
            "sru": [300, 300, 400, 300, None],
            "min_gru": [500, 800, None, None, None],
        },
        "adding": {"rnn": [None] * 3, "lstm": [500, 700, 600], "gru": [300, 400, 300], "sru": [300, 200]},
        "digits": {"rnn": [900, None, 1000, 800, 900], "lstm": [300] * 5, "gru": [200, 200, 300, 200, 200]},
    }
    for task, cells in times.items():
        for cell, solved in cells.items():
            write_run(root / "runs" / f"{task}-{cell}", task, cell, solved)
    return root


@pytest.fixture
def run_dir():
    return write_run


@pytest.fixture
def comparison(tmp_path):
    return write_comparison(tmp_path / "compare")


@pytest.fixture(scope="session")
def swept(tmp_path_factory):
    """Two cells, three gaps, two learning rates, three seeds, as a frame: gru likes 0.1, lstm 0.01."""
    from experiments import results

    folder = tmp_path_factory.mktemp("swept")
    for cell, best in (("gru", 0.1), ("lstm", 0.01)):
        for gap in (5, 20, 50):
            for rate in (0.01, 0.1):
                solved = [20 * gap * (1 if rate == best else 2) + 100 * seed for seed in range(3)]
                config = {"task": {"name": "delayed_recall", "gap": gap}, "optim": {"learning_rate": rate}}
                write_run(folder / f"{cell}{gap}{rate}", cell=cell, solved=solved, budget=3000, config=config)
    return results.load_seeds(folder)


def train_nothing(config, workdir, data_dir=None, watch=None):
    """A run of which the parameters stay as they were and every seed is solved: nothing is compiled but what
    initialises them."""
    from experiments.lab import runs
    from train.loop import Result

    run = runs.make_run(config, data_dir)
    fields = {"parameters": 9, "hidden_size": 3, "state_size": 3, "budget_steps": config.train.steps}
    fields |= {"baseline": 0.1, "threshold": 0.99}
    fields |= {"status": "finished", "higher_is_better": True, "run_seconds": 0.1, "compile_seconds": 0.1}
    seeds = [
        {"seed": seed, "learning_rate": rate, "solved": True, "solved_step": 10, "diverged_step": None}
        | {"valid_metric": 0.995, "best_valid_metric": 0.995, "test_metric": 0.99, "final_step": 10}
        for seed, rate in run.config.lanes
    ]
    lines = [json.dumps(seed | {"step": 10}) + "\n" for seed in seeds]
    workdir.mkdir(parents=True)
    (workdir / "metrics.jsonl").write_text("".join(lines))
    return Result({"run": fields, "seeds": seeds}, runs.initial_state(run), run)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """(experiment, settings) -> its frames, after all of it was written; nothing is trained."""
    from rich.console import Console

    from experiments.lab import evidence
    from experiments.lab.store import Lab

    def measured(one, settings):
        trained = {}

        def train(config, workdir, *rest, **named):
            trained[workdir.name] = config
            return train_nothing(config, workdir, *rest, **named)

        monkeypatch.setattr("experiments.lab.store.train", train)
        frames = evidence.run(one, settings, tmp_path, Console(quiet=True))
        # What `--workers` would have trained before.
        assert settings.runs(Lab(tmp_path, Console(quiet=True)).ended) == trained
        for name in [*(f"{frame}.csv" for frame in frames), "report.md", "environment.json"]:
            assert (tmp_path / name).stat().st_size > 0
        for name in one.figures(frames):
            assert (tmp_path / f"{name}.png").stat().st_size > 0
        assert one.judge(evidence.load(tmp_path)) == one.judge(frames)
        assert set(one.judge(frames)) == set(one.parts)
        return frames

    return measured
