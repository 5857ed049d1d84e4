"""Every claim of the study notes, the experiment that tests it, and what its numbers say.

  python -m experiments.claims
  python -m experiments.claims --only=gates,depth
  python -m experiments.claims --preset=full

Runs the experiments of the laboratory (gradients, horizon, gates, depth, tracking, parallel, newton) one
after the other and writes, into --workdir: a folder for each, as its own command does, and the verdicts,
claims.md and claims.csv. The same command again goes on where it was stopped. The fast preset takes about
20 minutes on 2 CPU cores. The full preset repeats it with more seeds, larger models, longer sequences and
a finer grid of learning rates; it would take days there and has not been run: give it a GPU, or run its
parts by --only on several machines.
"""

import importlib
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from absl import flags
from rich.console import Console

from experiments import cli, tables
from experiments.lab import study

flags.DEFINE_list("only", None, "Experiments to run; the others count with what they have measured before.")
FLAGS = flags.FLAGS
flags.adopt_module_key_flags(study)


class Claim(NamedTuple):
    """A claim, the module that tests it, and its figure."""

    text: str
    experiment: str
    figure: str | None = None


CLAIMS = {
    "rnn_gradient": Claim("A plain RNN's gradients vanish or explode", "gradients", "scaled"),
    "lstm_length": Claim("LSTM's gates help, but only up to some length", "horizon", "horizon"),
    "lstm_cost": Claim("LSTM's gates cost compute that cannot be parallelised", "parallel", "time"),
    "gru_fast": Claim("GRU has fewer parameters and converges fast", "horizon", "horizon"),
    "gru_gates": Claim(
        "Short-range units keep the reset gate busy, long-range units the update gate", "gates", "gates"
    ),
    "gru_is_rnn": Claim("With r = 1, z = 0 a GRU is a plain RNN", "gates"),
    "sru_parallel": Claim(
        "SRU matches convolution's parallelism, since each state dimension is independent", "parallel", "time"
    ),
    "sru_deep": Claim(
        "Highway connections and a tailored initialisation let SRU train deep", "depth", "depth"
    ),
    "sru_convolution": Claim(
        "SRU does the work of convolutions as QRNN and kernel NN do, with more recurrence", "gates"
    ),
    "state_tracking": Claim(
        "A linear recurrence with gates in (0, 1) cannot track state, a nonlinear one can", "tracking",
        "tracking",
    ),
    "newton": Claim("A nonlinear cell runs in parallel over time by Newton's method", "newton", "newton"),
}  # fmt: skip
EXPERIMENTS = tuple(dict.fromkeys(claim.experiment for claim in CLAIMS.values()))


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Runs the experiments; returns the exit code."""
    from cells.registry import nearest

    if config or overrides or FLAGS.cells:
        raise ValueError("claims has presets only; its experiments take --config.FIELD and --cells")
    for name in FLAGS.only or ():
        if name not in EXPERIMENTS:
            raise ValueError(f"unknown experiment {name!r}; {nearest(name, EXPERIMENTS)}")
    workdir = Path(FLAGS.workdir or f"runs/claims-{FLAGS.preset}")
    console = Console(highlight=False)
    chosen = FLAGS.only or EXPERIMENTS
    for number, name in enumerate(chosen, 1):
        module = importlib.import_module(f"experiments.{name}")
        settings = study.settings_of(module, FLAGS.preset, study.shared_flags(module))
        console.print(f"[{number}/{len(chosen)}]".replace("[", "\\["), end=" ")
        study.run(module, settings, workdir / name, console, FLAGS.data_dir, FLAGS.overwrite)
    found = judge(workdir)
    found.to_csv(workdir / "claims.csv", index=False)
    (workdir / "claims.md").write_text(page(found))
    short = found[["claim", "verdict", "experiment"]]
    tables.show(console, "Claims", short)
    console.print(f"wrote {workdir / 'claims.md'}", soft_wrap=True)
    return 0


def judge(workdir) -> pd.DataFrame:
    """One row per claim: `id`, `claim`, `experiment`, `figure`, `verdict`, `evidence`, out of the frames that
    the experiments left in `workdir`; "not tested here" where one has not run."""
    rows, verdicts = [], {}
    for name in EXPERIMENTS:
        try:
            frames = study.load(Path(workdir) / name)
        except FileNotFoundError:
            continue
        verdicts |= importlib.import_module(f"experiments.{name}").verdicts(frames)
    for key, claim in CLAIMS.items():
        verdict = verdicts.get(key, study.Verdict("not tested here", f"{claim.experiment} has not run."))
        figure = f"{claim.experiment}/{claim.figure}.png" if claim.figure else ""
        rows.append({"id": key, "claim": claim.text, "experiment": claim.experiment, "figure": figure})
        rows[-1] |= verdict._asdict()
    return pd.DataFrame(rows)


def page(found: pd.DataFrame) -> str:
    """The claims as a Markdown table, with links to figures."""
    figures = [f" ([figure]({figure}))" if figure else "" for figure in found["figure"]]
    return tables.markdown(
        pd.DataFrame(
            {
                "claim": found["claim"],
                "verdict": "**" + found["verdict"] + "**",
                "evidence": found["evidence"] + figures,
                "experiment": "`experiments." + found["experiment"] + "`",
            }
        )
    )


if __name__ == "__main__":
    cli.run(main, __doc__)
