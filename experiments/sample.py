"""Text from a trained run, as it goes on after a prompt.

  python -m experiments.train --config=text --workdir=runs/text
  python -m experiments.sample --run=runs/text --prompt="the company " --characters=400

The parameters are those of the best validation result, of the seed and learning rate that had it.
"""

import os

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

    import train
    from train.compile import executable
    from train.sample import make_sample

    try:
        run = train.load(FLAGS.run, FLAGS.data_dir)
        params = run.params()
    except ValueError as error:
        raise ValueError(f"--run={FLAGS.run}: {error}") from None
    if run.config.task.name != "text":
        raise ValueError(
            f"--run={FLAGS.run} is a run on {run.config.task.name}; text is drawn from one on text"
        )
    prompt = encoded(run, FLAGS.prompt)
    key, temperature = jax.random.key(FLAGS.seed), np.float32(FLAGS.temperature)
    program = jax.jit(make_sample(run.model, FLAGS.characters))
    drawn = executable(program, params, key, prompt, temperature, effort="once")(
        params, key, prompt, temperature
    )
    text = bytes(ord(run.meaning.tokens[token]) for token in (*prompt, *np.asarray(drawn)))
    os.write(1, text + b"\n")  # as it is: a terminal may show other characters than this process would
    return 0


def encoded(run, prompt: str):
    """A prompt's tokens, (n,) int32.

    Raises:
      ValueError: it is empty, or has a character that the text has not.
    """
    if not prompt:
        raise ValueError("--prompt is empty: something has to stand before")
    known = set(run.meaning.tokens)
    for character in prompt:
        if not known.issuperset(run.config.task.as_tokens(character)):
            raise ValueError(f"--prompt={prompt!r}: the text has no {character!r}")
    return run.encode([prompt])[0][0]


if __name__ == "__main__":
    cli.run(main, __doc__)
