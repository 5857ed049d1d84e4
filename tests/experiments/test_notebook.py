from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "experiments" / "notebooks" / "compare.ipynb"
CLAIMS = NOTEBOOK.with_name("claims.ipynb")


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.parametrize("path", [NOTEBOOK, CLAIMS], ids=lambda path: path.stem)
def test_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize(
    "folder",
    [pytest.param(ROOT, id="root", marks=pytest.mark.slow), pytest.param(NOTEBOOK.parent, id="its folder")],
)
def test_runs_from_a_clone(notebook, comparison, monkeypatch, folder):
    monkeypatch.setenv("RECURRENT_RESULTS", str(comparison))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    assert [sorted({"image/png", "text/markdown", "text/html"} & set(data)) for data in shown] == [
        ["text/markdown"], ["image/png"], ["image/png"], ["image/png"], ["text/html"],
    ]  # fmt: skip
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert printed.startswith("12 runs, ")
    assert "| lstm | 12,345 | 4/5 (1 diverged) |" in shown[0]["text/markdown"]


@pytest.mark.slow
def test_the_claims_are_shown_from_the_committed_evidence(monkeypatch):
    notebook = nbformat.read(CLAIMS, as_version=4)
    monkeypatch.delenv("RECURRENT_CLAIMS", raising=False)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type in ("execute_result", "display_data")]
    assert sum("image/png" in data for data in shown) >= 8
    text = "".join(data.get("text/markdown", "") for data in shown)
    assert "holds" in text and "Settings: " in text
