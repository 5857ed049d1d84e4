"""The notebooks run from top to bottom, and what lies in the repository is what such a run leaves."""

import base64
import io
import re
from pathlib import Path

import pytest

pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

import notebooks  # noqa: E402 (tests/tools)

ROOT = Path(__file__).parents[2]
EVIDENCE = "claims"  # shows what is committed, piece by piece: longer than a lesson
PICTURES = {
    "claims": 8,
    "gates": 5,
    "own_csv": 4,
    "read_a_sweep": 3,
    "rnn_gradients": 5,
    "sru": 5,
    "strategies": 2,
}
KILOBYTES = 500

every_one = pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _outputs(notebook):
    return [output for cell in _code(notebook) for output in cell.outputs]


def _texts(notebook):
    """All that a person reads: cells, and outputs that are no pictures."""
    yield from (cell.source for cell in notebook.cells)
    for output in _outputs(notebook):
        yield output.get("text", "")
        yield from (str(data) for kind, data in output.get("data", {}).items() if kind != "image/png")


def _pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in _outputs(notebook))


def _noise(notebook):
    """Errors, warnings and what went to standard error."""
    wrong = [output for output in _outputs(notebook) if output.output_type == "error"]
    wrong += [output for output in _outputs(notebook) if output.get("name") == "stderr"]
    return wrong + [text for text in _texts(notebook) if re.search(r"Traceback|\w+Warning\b", text)]


def test_every_notebook_is_known():
    assert {path.stem for path in notebooks.PATHS} == set(PICTURES)


@every_one
def test_it_is_committed_as_a_run_left_it(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3" and "language_info" not in notebook.metadata
    assert [cell.execution_count for cell in _code(notebook)] == [*range(1, len(_code(notebook)) + 1)]
    assert not _noise(notebook)
    assert _pictures(notebook) >= PICTURES[path.stem]
    places = re.compile(r"(?<![\w.])/(tmp|work|root|home|Users|private|mnt)\b")
    assert not [text for text in _texts(notebook) if places.search(text)]
    assert path.stat().st_size <= 1000 * KILOBYTES


@every_one
def test_it_says_at_the_start_what_one_learns_and_how_long_it_takes(path):
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert re.search(r"What you learn: .*\d+\s+seconds", first.source, re.S)
    assert path.stem == EVIDENCE or 6 <= len(_code(notebook)) <= 12


def test_the_readme_names_every_notebook():
    readme = (ROOT / "experiments" / "README.md").read_text()
    assert set(re.findall(r"notebooks/(\w+)\.ipynb", readme)) == set(PICTURES)


@pytest.mark.slow
@every_one
def test_it_runs_from_top_to_bottom_in_a_clone(path, monkeypatch):
    monkeypatch.delenv("RECURRENT_CLAIMS", raising=False)
    notebook = notebooks.execute(path)
    assert not _noise(notebook)
    assert _pictures(notebook) >= PICTURES[path.stem]


@pytest.mark.parametrize("name", ["horizon"])
def test_a_cell_keeps_its_colour_in_a_picture_of_few_colours(name):
    image, colors = pytest.importorskip("PIL.Image"), pytest.importorskip("matplotlib.colors")
    from experiments.lab import style

    notebook = nbformat.read(notebooks.FOLDER / "claims.ipynb", as_version=4)
    (shown,) = [cell for cell in _code(notebook) if f'look("{name}")' in cell.source]
    drawn = [output.data["image/png"] for output in shown.outputs if "image/png" in output.get("data", {})]
    assert drawn
    for data in drawn:
        picture = image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        found = [colour for count, colour in picture.getcolors(2**20) if count > 50]
        for cell in ("rnn", "lstm", "gru", "sru", "sru_feedback"):
            own = [255 * part for part in colors.to_rgb(style.known()[cell][0])]
            assert min(max(abs(a - b) for a, b in zip(own, c, strict=True)) for c in found) < 6, cell


@pytest.mark.slow
def test_the_claims_are_those_of_the_committed_evidence():
    from experiments import claims

    notebook = nbformat.read(notebooks.FOLDER / "claims.ipynb", as_version=4)
    text, source = "".join(_texts(notebook)), "".join(cell.source for cell in notebook.cells)
    for part in claims.judge(ROOT / "experiments" / "figures" / "claims").to_dict("records"):
        assert part["claim"] in text
        shown = f'verdict("{part["experiment"]}")' in source  # not all have a section
        assert not shown or all(part[name].replace("|", "\\|") in text for name in ("part", "number", "note"))


def test_a_mistyped_notebook_is_refused_in_a_line():
    with pytest.raises(SystemExit, match="no notebook 'gatse'; there are"):
        notebooks.main(["gatse"])
