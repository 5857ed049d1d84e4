"""Every cell and task says what it is, and what each of its options does."""

import ast
import re
from pathlib import Path

import pytest

import cells
from cells.registry import options
from experiments import cli, describe, entry
from train import tasks

TABLE = cells.CELLS.table | tasks.TASKS.table


def test_a_name_is_that_of_a_cell_or_of_a_task():
    assert len(TABLE) == len(cells.names()) + len(tasks.names())


@pytest.mark.parametrize("name", TABLE)
def test_every_option_is_described(name):
    cls = TABLE[name]
    said = describe.options(cls)
    assert list(said) == list(options(cls)) and all(len(text) > 3 for text in said.values())
    shown = describe.text(name)
    for option, field in options(cls).items():
        assert f"  {option}:" in shown or f"  {option}={field.default}:" in shown
    assert max(map(len, shown.splitlines())) <= 110


def test_a_task_says_what_it_asks_in_a_sentence_that_help_prints():
    told = " ".join(cli.with_choices("").split())
    for name, task in tasks.TASKS.table.items():
        sentence = describe.sentence(task)
        assert f"{name} {sentence}" in told
        assert sentence[-1] in ".?" and 30 < len(sentence) < 150, sentence


@pytest.mark.parametrize("name", cells.names())
def test_no_formula_is_cut(name):
    sentence = describe.sentence(TABLE[name])
    assert len(sentence) <= 160 and sentence.count("(") == sentence.count(")")
    assert sentence.count("|") % 2 == 0 and not sentence.endswith((":", ",", "..."))


def test_help_has_a_line_for_every_option():
    listed = cli.with_choices("")
    for lines in re.split(r"\n(?=  \w)", listed):
        name = lines.split()[0]
        if name in TABLE:
            known = [
                option for option in options(TABLE[name]) if option != "hidden_size"
            ]  # said once, for all
            assert re.findall(r"^    (\w+)=", lines, re.MULTILINE) == known
    assert listed.count("hidden_size  ") == 1
    assert all(f"\n  {name} " in listed for name in TABLE)


@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_a_terminal(width):
    doc = ast.get_docstring(ast.parse((Path(cli.__file__).parent / "train.py").read_text()))
    assert max(map(len, entry._in_lines(cli.with_choices(doc), width))) <= width
    assert " ".join(entry._in_lines(doc, width)).split() == doc.split()


def test_an_entry_is_read_with_all_its_names_and_lines():
    class Base:
        """One.

        Options:
          a, b: said of
            both: here.
          c: of the base.

        Not an option: this.
        """

    class Own(Base):
        """Two.

        Options: those above, and
          c: its own.
        """

    assert describe.entries(Own) == {"c": "its own.", "a": "said of both: here.", "b": "said of both: here."}
