"""Text from a trained run, as it goes on after a prompt.

  python -m experiments.train --config=text --workdir=runs/text
  python -m experiments.sample --run=runs/text --prompt="the company " --characters=400

The parameters are those of the best validation result, of the seed and learning rate that had it.
"""

import os
from pathlib import Path

from absl import flags

from experiments import cli

flags.DEFINE_string("run", None, "Folder of a run on the task `text`.")
flags.DEFINE_string("prompt", "\n", "What stands before, in characters that the text has.")
flags.DEFINE_integer("characters", 500, "How many to draw.", lower_bound=1, upper_bound=10**6)
flags.DEFINE_float("temperature", 1.0, "Below 1: likelier ones more often. 0: always the likeliest.", 0.0)
flags.DEFINE_integer("seed", 0, "Another one draws another text.", lower_bound=0, upper_bound=2**31 - 1)
FLAGS = flags.FLAGS


def main(config: str | None, overrides: dict[str, str]) -> int:
    """Prints; returns the exit code."""
    if config is not None or overrides:
        raise ValueError("sample takes no --config: a run has its own")
    if not FLAGS.run:
        raise ValueError("--run=FOLDER is missing: the folder of a run on the task text")

    import jax
    import numpy as np

    from train.compile import executable
    from train.sample import make_sample

    run, params = trained(Path(FLAGS.run).expanduser(), FLAGS.data_dir)
    alphabet = np.asarray(run.data["alphabet"])
    prompt = encoded(FLAGS.prompt, alphabet)
    key, temperature = jax.random.key(FLAGS.seed), np.float32(FLAGS.temperature)
    program = jax.jit(make_sample(run.model, FLAGS.characters))
    drawn = executable(program, params, key, prompt, temperature, effort="once")(
        params, key, prompt, temperature
    )
    text = bytes(alphabet[np.concatenate([prompt, drawn])])
    os.write(1, text + b"\n")  # as it is: a terminal may show other characters than this process would
    return 0


def trained(folder: Path, data_dir: str | None):
    """A run on text, and the parameters of its best validation result.

    Raises:
      ValueError: there is no such run, or it is on another task.
    """
    import jax

    import configs
    from train.checkpoint import Checkpoints
    from train.lanes import make_run, state_like
    from train.step import Best

    if not (folder / "checkpoints").is_dir():
        raise ValueError(f"--run={folder} is no run's folder with checkpoints")
    built = configs.load(str(folder))
    if built.task.name != "text":
        raise ValueError(f"--run={folder} is a run on {built.task.name}; text is drawn from one on text")
    run = make_run(configs.freeze(built), data_dir, devices=jax.devices()[:1])
    like = state_like(run)
    restored = Checkpoints(folder / "checkpoints").restore(
        {"best": Best(like.params, like.learning_rate, like.solved_step)}
    )
    if restored is None or (best := restored[1]["best"]).step.max() < 0:
        raise ValueError(f"--run={folder} has no evaluation yet")
    lane = int(jax.numpy.nanargmin(jax.numpy.where(best.step < 0, jax.numpy.inf, best.metric)))
    return run, jax.tree.map(lambda x: x[lane], best.params)


def encoded(prompt: str, alphabet):
    """The places of a prompt's bytes in the alphabet, (n,) int32.

    Raises:
      ValueError: it is empty, or has one that the text has not.
    """
    import numpy as np

    if not prompt:
        raise ValueError("--prompt is empty: something has to stand before")
    for character in prompt:
        if not np.isin(list(character.encode()), alphabet).all():
            raise ValueError(f"--prompt={prompt!r}: the text has no {character!r}")
    return np.searchsorted(alphabet, np.frombuffer(prompt.encode(), np.uint8)).astype(np.int32)


if __name__ == "__main__":
    cli.run(main, __doc__)
