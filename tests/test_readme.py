"""The README's examples do what it says."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import cells
import configs
from experiments import cells as table_of_cells
from experiments import tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def python_block(start):
    return next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.S) if block.startswith(start)
    )


def test_the_new_cell_runs_as_its_step_says():
    namespace = {}
    exec(python_block("# cells/mgu.py"), namespace)  # noqa: S102
    cell = namespace["MGU"](hidden_size=5)
    params = cell.init(jax.random.key(0), 3)
    xs = jax.random.normal(jax.random.key(1), (2, 7, 3))
    carry, ys = cells.scan(cell, params, xs)
    h = cell.initial_carry(2)
    for t in range(7):
        h, y = cell.step(params, h, xs[:, t])
        np.testing.assert_allclose(ys[:, t], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(carry, h, rtol=1e-5, atol=1e-6)


def test_the_first_example_runs():
    namespace = {"xs": jnp.ones((2, 4, 8))}
    exec(python_block("import cells, jax"), namespace)  # noqa: S102
    assert namespace["ys"].shape == (2, 4, 64)


def test_the_config_example_is_a_config():
    namespace = {}
    exec(python_block("import configs"), namespace)  # noqa: S102
    run = configs.freeze(namespace["get_config"]())
    assert (run.task.length, run.model.depth, run.train.seeds) == (400, 2, 8)


def test_the_table_of_cells_is_up_to_date():
    wanted = table_of_cells.replaced(README, tables.markdown(table_of_cells.table()))
    assert wanted == README, "run python -m experiments.cells --write"


def test_the_table_of_claims_is_that_of_the_committed_evidence():
    found = pd.read_csv(ROOT / "experiments" / "figures" / "claims" / "claims.csv")
    for claim in found.to_dict("records"):
        row = f"| {claim['claim']} | **{claim['verdict']}** | `experiments.{claim['experiment']}` |"
        assert row in README, f"not in the README: {row}"


def test_the_table_of_speed_is_that_of_the_committed_measurement():
    """Milliseconds of our layers at batch 32, time 512, hidden 256, forward and backward."""
    (folder,) = (ROOT / "experiments" / "figures").glob("speed-*")
    layers = pd.read_csv(folder / "layers.csv")
    chosen = layers[(layers["time"] == 512) & (layers["library"] == "ours") & (layers["pass"] == "gradient")]
    for cell, ms in chosen.groupby("cell")["ms"].min().items():
        assert cell == "sru_feedback" or f"| `{cell}` | {ms:.0f} |" in README


def test_every_folder_and_file_that_is_linked_exists():
    text = re.sub(r"```.*?```", "", README, flags=re.S)
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    assert links and not [link for link in links if not (ROOT / link).exists()]
