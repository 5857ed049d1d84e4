"""The READMEs' examples do what they say, and their tables are those of the committed evidence."""

import re
from pathlib import Path

import jax.numpy as jnp
import pandas as pd
import pytest

import cells
import configs
from experiments import cells as table_of_cells
from experiments import claims, results, tables
from experiments.reference import beside, published

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("[a-z]*/README.md"))]
FIGURES = ROOT / "experiments" / "figures"


def python_block(page, start):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    return next(block for block in blocks if block.startswith(start))


def test_the_first_page_is_short():
    assert len(README.read_text().splitlines()) <= 130


def test_every_folder_has_its_page():
    assert {page.parent.name for page in PAGES} >= {"cells", "train", "experiments"}


def test_the_first_example_runs():
    namespace = {"xs": jnp.ones((2, 4, 8))}
    exec(python_block(README, "import cells, jax"), namespace)  # noqa: S102
    assert namespace["ys"].shape == (2, 4, 64)


def test_the_config_example_is_a_config():
    namespace = {}
    exec(python_block(ROOT / "train" / "README.md", "import configs"), namespace)  # noqa: S102
    run = configs.freeze(namespace["get_config"]())
    assert (run.task.length, run.model.depth, run.train.seeds) == (400, 2, 8)


def test_the_table_of_cells_is_up_to_date():
    """Row by row: a cell that is new to the registry is no fault of the page, a row that is wrong is."""
    rows = tables.markdown(table_of_cells.table()).splitlines()
    text = table_of_cells.README.read_text()
    table = text.partition(table_of_cells.MARKERS[0])[2].partition(table_of_cells.MARKERS[1])[0].splitlines()
    assert len(table) > 2 and set(table) <= set(rows), "run python -m experiments.cells --write"


def test_the_table_of_claims_is_that_of_the_committed_evidence():
    found = claims.judge(FIGURES / "claims")
    assert len(found)
    for claim in found.to_dict("records"):
        row = f"| {claim['claim']} | **{claim['verdict']}** | `experiments.{claim['experiment']}` |"
        assert row in README.read_text(), f"not in the README: {row}"


def test_the_tables_of_results_are_those_of_the_committed_runs():
    summary = pd.read_csv(FIGURES / "summary.csv")
    page = (ROOT / "experiments" / "README.md").read_text()
    text = results.text(summary)
    for row in text.drop(columns="task").to_numpy():
        assert f"| {' | '.join(row)} |" in page
    for row in text[["task", "cell", "params", "solved", "steps to solve", "test"]].to_numpy():
        assert f"| {' | '.join(row)} |" in README.read_text()
    for _, rows in summary.groupby("task"):
        assert results.caption(rows) in page


def test_the_table_beside_published_results_is_that_of_the_committed_runs():
    result = published.result("jsb")
    page, show = (ROOT / "experiments" / "README.md").read_text(), beside.number
    for row in beside.rows(result, beside.committed(result)).to_dict("records"):
        numbers = [show(row["published"]), show(row["ours"]), show(row["difference"], "+", row["published"])]
        assert f"| {row['cell']} | {' | '.join(numbers)} | {row['parameters']:,.0f} |" in page


def test_the_table_of_speed_is_that_of_the_committed_measurement():
    """Milliseconds of our layers at batch 32, time 512, hidden 256, forward and backward."""
    (folder,) = FIGURES.glob("speed-*")
    layers = pd.read_csv(folder / "layers.csv")
    chosen = layers[(layers["time"] == 512) & (layers["library"] == "ours") & (layers["pass"] == "gradient")]
    page = (ROOT / "experiments" / "README.md").read_text()
    for cell, ms in chosen.groupby("cell")["ms"].min().items():
        assert cell == "sru_feedback" or f"| `{cell}` | {ms:.0f} |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_folder_and_file_that_is_linked_exists(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    links = re.findall(r"\]\(((?!http)[^)#]+)[^)]*\)", text)
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_registered_cell_has_its_file_in_the_table():
    """Of ours; the name in the table is the registry's."""
    text = table_of_cells.README.read_text()
    assert all(name in cells.names() for name in re.findall(r"^\| \[`(\w+)`\]", text, re.M))
