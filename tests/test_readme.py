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
from experiments.speed import programs, report
from experiments.speed.layers import UNLIKE

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted(ROOT.glob("[a-z]*/README.md"))]
FIGURES = ROOT / "experiments" / "figures"


def python_block(page, start):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    return next(block for block in blocks if block.startswith(start))


def test_the_first_page_is_short():
    assert len(README.read_text().splitlines()) <= 120


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


def claims_table():
    """The verdicts that today's rules make out of the committed frames."""
    shown = claims.short(claims.judge(FIGURES / "claims"))
    shown["experiment"] = "`" + shown["experiment"] + "`"
    return tables.markdown(shown)


def short_results():
    found = pd.read_csv(FIGURES / "summary.csv")
    shown = results.text(found).assign(cell=found["label"])
    return tables.markdown(shown[["task", "cell", "params", "solved", "steps to solve", "test"]])


def jsb():
    result, show = published.result("jsb"), beside.number
    shown = [
        {
            "cell": row["cell"],
            "published": show(row["published"]),
            "ours": show(row["ours"]),
            "ours - published": show(row["difference"], "+", row["published"]),
            "parameters": f"{row['parameters']:,.0f}",
        }
        for row in beside.rows(result, beside.committed(result)).to_dict("records")
    ]
    return tables.markdown(pd.DataFrame(shown))


def speed():
    """Layers at batch 32, time 512, hidden 256, forward and backward: the best settings of each library."""
    (folder,) = FIGURES.glob("speed-*")
    layers = pd.read_csv(folder / "layers.csv")
    best = report.best(layers[(layers["time"] == 512) & (layers["pass"] == "gradient")])
    ms, shown = best.set_index(["library", "cell"])["ms"], []
    share = best[best["library"] == "ours"].set_index("cell")["fraction"]
    for cell in ("rnn", "lstm", "gru", "sru"):
        ours, other = ms["ours", cell], UNLIKE.get(cell, cell)
        row = {
            "cell": f"`{cell}`",
            "this": f"{ours:,.0f}",
            "share of matmul bound": f"{100 * share[cell]:.0f} %",
        }
        for library in ("torch", "linen", "nnx", "equinox", "keras"):
            what = "" if cell == other else ", its LSTM" if library == "torch" else ", LSTM"
            theirs = ms.get((library, other))
            row[report.SHOWN[library]] = f"{theirs:,.0f} ({theirs / ours:.1f}x{what})" if theirs else "–"
        shown.append(row)
    return tables.markdown(pd.DataFrame(shown).rename(columns={"Keras": "Keras on JAX"}))


def gpu():
    folder = FIGURES / "gpu-2026-11-27"
    layers = pd.read_csv(folder / "layers.csv").fillna({"strategy": ""})
    ms = layers[layers["pass"] == "gradient"].set_index(["library", "cell", "strategy", "time"])["ms"]
    names = {"sequential": ", step by step", "associative": ", associative", "chunkwise": ", chunkwise"}
    rows = [(cell, "sequential") for cell in ("rnn", "lstm", "gru")]
    rows += [("sru", "associative"), ("sru", "sequential"), ("mamba2", "chunkwise")]
    shown = []
    for cell, how in rows:
        row = {"cell": f"`{cell}`" + (names[how] if cell in ("sru", "mamba2") else "")}
        times = {
            "32 x 512, hidden 256": ("ours", cell, how, 512),
            "Flax linen": ("linen", cell, "", 512),
            "Flax nnx": ("nnx", cell, "", 512),
            "8 x 4,096, hidden 256": ("ours", cell, how, 4096),
        }
        shown.append(row | {k: f"{ms[v]:#.3g}".rstrip(".") if v in ms else "–" for k, v in times.items()})
    return tables.markdown(pd.DataFrame(shown))


def compiled():
    """For a TPU; without the textbook step."""
    (folder,) = FIGURES.glob("compiled-*")
    found = pd.read_csv(folder / "compiled.csv")
    shown = programs.table(found[(found["target"] == "tpu") & (found["strategy"] != "stepwise")])
    shown["cell"] = "`" + shown["cell"] + "`, " + shown.pop("strategy")
    return tables.markdown(shown.drop(columns="target"))


# Tables between the markers <!-- NAME --> and <!-- /NAME -->, made of committed CSVs.
MADE = {
    ("README.md", "results"): short_results,
    ("experiments/README.md", "claims"): claims_table,
    ("experiments/README.md", "results"): lambda: results.markdown(pd.read_csv(FIGURES / "summary.csv")),
    ("experiments/README.md", "jsb"): jsb,
    ("experiments/README.md", "speed"): speed,
    ("experiments/README.md", "gpu"): gpu,
    ("experiments/README.md", "compiled"): compiled,
}
BY_HAND = ("| notebook |",)  # how tables begin that no CSV stands behind


def marked(page):
    """The text between markers, by name."""
    return dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", (ROOT / page).read_text(), re.S))


@pytest.mark.parametrize("page, name", MADE)
def test_a_marked_table_is_that_of_the_committed_csv(page, name):
    def rows(text):
        return [re.sub("---:", "---", line) for line in text.splitlines() if line.strip()]

    assert rows(marked(page)[name]) == rows(MADE[page, name]())


@pytest.mark.parametrize("page", ["README.md", "experiments/README.md"])
def test_every_table_is_marked_or_known_to_be_written_by_hand(page):
    assert set(marked(page)) == {name for where, name in MADE if where == page}
    rest = re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", "", (ROOT / page).read_text(), flags=re.S)
    heads = re.findall(r"^(\|.*\|)\n\| ?:?---", rest, re.M)
    assert [head for head in heads if not head.startswith(BY_HAND)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_folder_and_file_that_is_linked_exists(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    links = re.findall(r"\]\(((?!http)[^)#]+)[^)]*\)", text)
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_registered_cell_has_its_file_in_the_table():
    """Of ours; the name in the table is the registry's."""
    text = table_of_cells.README.read_text()
    assert all(name in cells.names() for name in re.findall(r"^\| \[`(\w+)`\]", text, re.M))
