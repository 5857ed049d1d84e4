"""The table of cells: its formulas against counts, its rules for docstrings."""

import pytest

import cells
from experiments import cells as table
from quickly import quickly


@pytest.mark.parametrize("name", quickly(cells.names(), "lstm", "sru", "lru", "mamba3", "tcn"))
def test_the_formulas_give_the_counts(name):
    usual, *square = table.parameters(name).split("; D = H: ")
    unit = cells.CELLS.cls(name).size_multiple()
    for D, H in ((3, 5 * unit), (17, 20 * unit), (9 * unit, 9 * unit)):
        formula = square[0] if square and D == H else usual
        assert table.value(formula, D, H) == table._count(name, D, H)


def test_the_row_of_a_cell_tells_its_paper_and_its_equation():
    row = table._row("gru")
    assert row["cell"] == "[`gru`](gru.py) Cho 2014"
    assert row["recurrence"].startswith("r, z = sigma(")


def test_formulas_are_those_that_one_would_write():
    assert table.parameters("rnn") == "H (D + H + 1)"
    assert table.parameters("gru") == "3 H (D + H + 1)"
    assert table.parameters("sru") == "2 H (2 D + 1); D = H: H (3 H + 2)"
    assert table.polynomial(lambda D, H: D * H - 2 * H) == "H (D - 2)"
    assert table.polynomial(lambda D, H: H**3) is None


def test_papers_and_equations_are_found_in_docstrings():
    assert table.paper('The unit (Cho 2014, "Learning (phrase) representations").') == "Cho 2014"
    assert (
        table.paper("A unit (of ours), after (Doe & Roe 1999; gates: Poe 2001).")
        == "Doe & Roe 1999; gates: Poe 2001"
    )
    assert table.paper("No paper.") == ""
    doc = """A unit with v_f = 0: words.

    f, i = sigma(x),   c = f * c' +
      i * x
    h = c

    Options: n = 2.
    """
    assert table.equation(doc) == "f, i = sigma(x), c = f * c' + i * x, h = c"
    assert table.equation("Words alone.") == ""


def test_a_readme_without_markers_is_refused():
    assert table.replaced("a\n<!-- cells -->\nold\n<!-- /cells -->\nb", "new\n") == (
        "a\n<!-- cells -->\nnew\n<!-- /cells -->\nb"
    )
    with pytest.raises(ValueError, match="no place"):
        table.replaced("a", "new")
