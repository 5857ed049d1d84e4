"""What an experiment leaves in its workdir: measured (or gone on with), written, read again and shown."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from experiments import output, screen, tables
from experiments.lab.experiment import OF_CELLS, Frames, Part, Verdict, shown
from train import files

if TYPE_CHECKING:
    from experiments.lab.beside import Evidence


def run(
    experiment,
    settings,
    workdir: Path,
    console: Console,
    data_dir: str | None = None,
    overwrite: bool = False,
    workers: int = 0,
    others: "Evidence | None" = None,
) -> Frames:
    """Measures (or goes on measuring), then writes and prints all that follows from it.

    Into `workdir`: a CSV per frame, a PNG per figure, report.md, environment.json, and `done/`, the pieces
    of work; `load` reads the frames again.
    """
    return run_all([(experiment, settings, workdir)], console, data_dir, overwrite, workers, others)[0]


def run_all(
    several: list[tuple],
    console: Console,
    data_dir: str | None = None,
    overwrite: bool = False,
    workers: int = 0,
    others: "Evidence | None" = None,
) -> list[Frames]:
    """`run`, of one experiment after the other: (experiment, settings, workdir) each.

    Args:
      workers: 0, or how many processes first train the models of all of them.
      others: what is joined, `beside.read`; the settings are its `missing`.
    """
    from experiments.lab.store import Lab

    meanwhile = screen.meanwhile(console)
    with contextlib.ExitStack() as stack:
        labs = [
            stack.enter_context(
                contextlib.closing(Lab(workdir, meanwhile, data_dir, overwrite, code_of(one, its)))
            )
            for one, its, workdir in several
        ]
        if workers:
            from experiments.lab import workers as processes

            named = {one.name: (lab, its) for (one, its, _), lab in zip(several, labs, strict=True)}
            folder = several[0][2]
            log = (folder.parent if len(several) > 1 else folder) / "workers.log"
            processes.train(named, workers, log, meanwhile, data_dir)
        frames = []
        for number, ((one, its, workdir), lab) in enumerate(zip(several, labs, strict=True), 1):
            if len(several) > 1:
                meanwhile.print(f"[{number}/{len(several)}]", end=" ")
            frames.append(_run(one, its, workdir, console, lab, others))
        return frames


def _run(experiment, settings, workdir, console, lab, others) -> Frames:
    from experiments.lab import beside, confirmed
    from train.environment import environment

    lab.console.print(f"{experiment.name}: results go to {workdir}", soft_wrap=True)
    start = time.monotonic()
    asked = others.settings if others else settings
    record = environment() | {"settings": dataclasses.asdict(asked), "labels": labels_of(asked)}
    frames = experiment.measure(settings, lab)
    took = time.monotonic() - start
    record |= {"seconds_of_this_call": took, "code": lab.used}
    if lab.confirmed:
        record["confirmed"] = confirmed.summary(lab.confirmed)
    if others:
        frames, record = beside.joined(others, frames, record)
    for name, frame in frames.items():
        output.write_frame(workdir / f"{name}.csv", frame, float_format="%.8g")
    files.write_json(workdir / "environment.json", record)
    report(experiment, frames, workdir, console, record)
    lab.console.print(f"{experiment.name}: {took:.0f} s; wrote {workdir / 'report.md'}", soft_wrap=True)
    return frames


def labels_of(settings) -> list[str]:
    """The registered cells and tasks that its runs are of, or that it names."""
    from experiments.lab import store

    found = {label.split(":")[0] for name in OF_CELLS for label in getattr(settings, name, ())}
    for config in settings.configs():
        found |= set(store.labels_of(config))
    return sorted(found)


def code_of(experiment, settings) -> dict[str, str]:
    """Files that its numbers depend on, with digests of their code."""
    from experiments.lab import freshness

    return freshness.code_of(experiment.name, labels_of(settings))


def stale(experiment, workdir) -> dict[str, str] | None:
    """Files whose code is another one than that of the evidence in `workdir`, and cells that would be tuned
    otherwise today, with what is the matter; None: it does not say its code."""
    from experiments.lab import freshness, trials

    record = json.loads((Path(workdir) / "environment.json").read_text())
    if not record.get("code"):
        return None
    otherwise = trials.others(workdir, record.get("settings", {}))
    code = freshness.changed(record["code"], experiment.name, record["labels"])
    return code | dict.fromkeys(otherwise, "tuned otherwise")


def load(workdir) -> Frames:
    """The frames of an experiment that has run.

    Raises:
      FileNotFoundError: there are none.
    """
    frames = {path.stem: _read(path) for path in sorted(Path(workdir).glob("*.csv"))}
    if not frames:
        raise FileNotFoundError(f"no tables (CSV) in {workdir}")
    return frames


def _read(path: Path) -> pd.DataFrame:
    with contextlib.suppress(pd.errors.EmptyDataError):  # nothing was found to write
        return pd.read_csv(path)
    return pd.DataFrame()


def report(experiment, frames: Frames, workdir: Path, console: Console, record: dict) -> None:
    """Tables, figures and verdicts, on screen and in report.md."""
    parts = [f"# {experiment.name.replace('_', ' ').capitalize()}", caption(record)]
    for title, table in experiment.tables(frames).items():
        tables.show(console, title, table)
        parts += [f"## {title}", tables.markdown(table)]
    for name, figure in experiment.figures(frames).items():
        output.write_figure(workdir / f"{name}.png", figure, dpi=150)
        parts.append(f"![{name}]({name}.png)")
    verdicts = experiment.judge(frames)
    for claim in experiment.claims.values():
        table = verdict_table(claim.parts, verdicts)
        tables.show(console, claim.text, table)
        rules = [f"- {part.text}: {part.rule}" for part in claim.parts.values()]
        parts += [f"## {claim.text}", tables.markdown(table), "The rules:\n\n" + "\n".join(rules)]
    files.write(workdir / "report.md", "\n\n".join(parts) + "\n")


def verdict_table(parts: dict[str, Part], verdicts: dict[str, Verdict]) -> pd.DataFrame:
    """A line for each part of a claim."""
    rows = []
    for key, part in parts.items():
        verdict, number, against, seeds, note = verdicts[key]
        number = "; ".join(text for text in (number, note) if text)
        rows.append({"part": part.text, "verdict": verdict, "number": number, "against": against})
        rows[-1]["seeds"] = str(seeds or "")
    return pd.DataFrame(rows)


def caption(record: dict) -> str:
    """Where, when and with what settings."""
    settings = ", ".join(f"{name} {shown(value)}" for name, value in record["settings"].items())
    commit = (record["git_commit"] or "unknown")[:10] + (" with changes" if record["git_dirty"] else "")
    return (
        f"`{record['command']}`, {record['started'][:10]}, commit {commit}; {record['cpu']}, "
        f"{record['cores']} cores, {record['backend']}; Python {record['python']}, jax {record['jax']}."
        f"{''.join(map(_joined, record.get('beside', [])))}\n\nSettings: {settings}."
    )


def _joined(other: dict) -> str:
    commit, date = (other["git_commit"] or "unknown")[:10], other["started"][:10]
    return (
        f"\n\nBeside it, what it has not trained itself: `{other['command']}`, {date}, commit {commit}; "
        f"{other['cpu']}, {other['cores']} cores; Python {other['python']}, jax {other['jax']}."
    )
