"""Every claim of the study notes, the experiment that tests it, and what its numbers say.

  python -m experiments.claims
  python -m experiments.claims --only=gates,depth
  python -m experiments.claims --preset=full

Runs the experiments of the laboratory one after the other and writes, into --workdir: a folder for each, as
its own command does, and the verdicts, claims.md and claims.csv. The same command again goes on where it was
stopped; where code has changed meanwhile, --check says which evidence is of other code, and --confirm
whether the kept runs still begin as they did. The fast preset takes about three hours on 2 CPU cores
(--workers=2), in as many pieces as one likes.
The full preset repeats it with more cells and tasks, larger models and longer sequences; it would take days
there and has not been run: give it a GPU, many cores, or run its parts by --only on several machines.
"""

from pathlib import Path

import pandas as pd
from absl import flags
from rich.progress import track

from experiments import cli, output, screen, tables
from experiments.lab import evidence, experiment
from experiments.lab.experiment import Part, Verdict, untested
from train.files import write

flags.DEFINE_list("only", None, "Experiments to run; the others count with what they have measured before.")
FLAGS = flags.FLAGS
flags.DEFINE_boolean(
    "check", False, "Run nothing: say which code has changed since the evidence in --workdir was measured."
)
flags.DEFINE_boolean(
    "confirm",
    False,
    "Train nothing to its end: begin the kept runs in --workdir again where code has changed since, and keep "
    "those whose first evaluation comes out the same. What was measured with other code is deleted: the next "
    "command measures it again.",
)
flags.adopt_module_key_flags(experiment)


COMMITTED = Path(__file__).parent / "figures" / "claims"
# The order in which they run.
EXPERIMENTS = (
    "gradients", "horizon", "parallel", "gates", "identities", "convolution", "depth", "tracking", "newton",
    "atlas", "optimisers",
)  # fmt: skip
# The order in which the study notes have the claims; others come after them.
NOTES = (
    "rnn_gradient", "lstm_length", "lstm_cost", "gru_fast", "gru_gates", "gru_is_rnn", "sru_parallel",
    "sru_deep", "sru_convolution", "state_tracking",
)  # fmt: skip


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Runs the experiments; returns the exit code."""
    from cells.registry import nearest

    if config or overrides or FLAGS.cells or FLAGS.beside:
        raise ValueError("claims has presets only; its experiments take --config.FIELD, --cells, --beside")
    for name in FLAGS.only or ():
        if name not in EXPERIMENTS:
            raise ValueError(f"unknown experiment {name!r}; {nearest(name, EXPERIMENTS)}")
    console, names = screen.console(), FLAGS.only or EXPERIMENTS
    workdir = Path(FLAGS.workdir or f"runs/claims-{FLAGS.preset}")
    if FLAGS.confirm and (FLAGS.check or FLAGS.overwrite or FLAGS.workers):
        raise ValueError("--confirm goes with --workdir and --only, not with --check, --overwrite, --workers")
    if FLAGS.check:
        return check(Path(FLAGS.workdir or COMMITTED), names, console)
    if FLAGS.confirm:
        return confirm(workdir, names, console)
    chosen = [experiment.of(name) for name in names]
    settings = [experiment.settings_of(one, FLAGS.preset, experiment.shared_flags(one)) for one in chosen]
    several = [(one, its, workdir / one.name) for one, its in zip(chosen, settings, strict=True)]
    evidence.run_all(several, console, FLAGS.data_dir, FLAGS.overwrite, FLAGS.workers)
    found = judge(workdir)
    output.write_frame(workdir / "claims.csv", found)
    write(workdir / "claims.md", page(found))
    tables.show(console, "Claims: how many parts are what", short(found))
    screen.meanwhile(console).print(f"wrote {workdir / 'claims.md'}", soft_wrap=True)
    return 0


def check(workdir: Path, names, console) -> int:
    """Prints of each experiment whether its evidence is of today's code; returns 1 where it is not."""
    rows = []
    for name in names:
        if not (workdir / name / "environment.json").exists():
            rows.append({"experiment": name, "evidence": "none", "changed since": ""})
            continue
        found = evidence.stale(experiment.of(name), workdir / name)
        said = "does not say its code" if found is None else "stale" if found else "fresh"
        listed = ", ".join(f"{path} ({word})" for path, word in (found or {}).items())
        rows.append({"experiment": name, "evidence": said, "changed since": listed})
    tables.show(console, f"Evidence in {workdir}", pd.DataFrame(rows))
    return int(any(row["evidence"] != "fresh" for row in rows))


def confirm(workdir: Path, names, console) -> int:
    """Prints of each experiment how many of its kept runs today's code begins alike; returns 1 where some are
    different."""
    from experiments.lab import confirmed
    from train.files import locked

    rows = []
    if FLAGS.devices == 1:
        confirmed.on_one_core()
    for name in names:
        if not (workdir / name / "runs").is_dir():
            continue
        with locked(workdir / name):
            begun = confirmed.confirm(workdir / name, name, FLAGS.data_dir)
            total = len(list((workdir / name / "runs").iterdir()))
            is_shown = console.is_terminal and not FLAGS["quiet"].value
            found = list(track(begun, name, total, console=console, transient=True, disable=not is_shown))
        counts = {word: sum(one.word == word for one in found) for word in confirmed.WORDS}
        largest = max((one.difference for one in found if one.word != confirmed.DIFFERENT), default=0.0)
        rows.append({"experiment": name} | counts | {"largest difference": f"{largest:.1e}"})
        for one in found:
            if one.word == confirmed.DIFFERENT:
                console.print(
                    f"{name} {one.name}: after {one.step} steps losses are {one.difference:.1e} apart; "
                    f"delete runs/{one.name}, done/{one.name}.json and trained/{one.name}.json in "
                    f"{workdir / name}, and it is trained again",
                    soft_wrap=True,
                )
        if others := sorted({one.devices for one in found if one.word == confirmed.ELSEWHERE}):
            console.print(f"{name}: for the others add --devices={others[0]}", soft_wrap=True)
    if not rows:
        raise ValueError(f"{workdir} holds no runs; --workdir says where they are")
    tables.show(console, f"Kept runs in {workdir}, begun again", pd.DataFrame(rows))
    return int(any(row[confirmed.DIFFERENT] or row[confirmed.ELSEWHERE] for row in rows))


def judge(workdir) -> pd.DataFrame:
    """One row per part of a claim, out of the frames that the experiments left in `workdir`: `id`, `claim`,
    `part`, `rule`, `experiment`, `figure`, the fields of its Verdict: "not tested here" where none has run.
    """
    rows = {}
    for name in EXPERIMENTS:
        tested = experiment.of(name)
        try:
            verdicts = tested.judge(evidence.load(Path(workdir) / name))
        except FileNotFoundError:
            verdicts = dict.fromkeys(tested.parts, untested(f"{name} has not run"))
        for key, claim in tested.claims.items():
            figure = f"{name}/{claim.figure}.png" if claim.figure else ""
            rows[key] = [
                {
                    "id": id_,
                    "claim": claim.text,
                    "part": part.text,
                    "rule": part.rule,
                    "experiment": name,
                    "figure": figure,
                }
                | verdicts[id_]._asdict()
                for id_, part in claim.parts.items()
            ]
    order = [*(key for key in NOTES if key in rows), *(key for key in rows if key not in NOTES)]
    return pd.DataFrame(row for key in order for row in rows[key])


def short(found: pd.DataFrame) -> pd.DataFrame:
    """A line for each claim: how many of its parts have which verdict."""
    counts = (
        found.groupby(["claim", "experiment"], sort=False)["verdict"].value_counts().unstack(fill_value=0)
    )
    counts = counts.reindex(columns=list(experiment.VERDICTS), fill_value=0).reset_index()
    counts["experiment"] = "experiments." + counts["experiment"]
    order = {claim: place for place, claim in enumerate(dict.fromkeys(found["claim"]))}
    return counts.sort_values("claim", key=lambda claims: claims.map(order))


def page(found: pd.DataFrame) -> str:
    """The claims in Markdown: of each a table of its parts, the rules below."""
    text = []
    for claim, parts in found.groupby("claim", sort=False):
        one = parts.iloc[0]
        link = f", [figure]({one['figure']})" if one["figure"] else ""
        told = {row["id"]: Verdict(*row[list(Verdict._fields)]) for _, row in parts.iterrows()}
        named = {row["id"]: Part(row["part"], row["rule"]) for _, row in parts.iterrows()}
        rules = "\n".join(f"- {part.text}: {part.rule}" for part in named.values())
        text += [f"## {claim}", f"`experiments.{one['experiment']}`{link}"]
        text += [tables.markdown(evidence.verdict_table(named, told)), f"Rules:\n\n{rules}"]
    return "\n\n".join(text) + "\n"


def help_text() -> str:
    """The module's text, then the experiments and their questions."""
    rows = [f"  {name}: {experiment.of(name).question}" for name in EXPERIMENTS]
    return __doc__.strip() + "\n\nThe experiments:\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    cli.run(main, help_text())
