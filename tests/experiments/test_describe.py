"""Every cell and task says what it is, and what each of its options does."""

import pytest

import cells
from cells.registry import options
from experiments import cli, describe
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
    told = " ".join(cli.doc_with_choices("").split())
    for name, task in tasks.TASKS.table.items():
        sentence = describe.sentence(task)
        assert f"{name} {sentence}" in told
        assert sentence[-1] in ".?" and 30 < len(sentence) < 150, sentence


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
