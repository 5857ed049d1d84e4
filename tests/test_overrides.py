"""One way to read an override, for a ConfigDict and for a frozen dataclass."""

import dataclasses

import ml_collections
import pytest

from configs import overrides


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = 10
    rate: float = 0.5
    title: str = "a"
    quick: bool = False
    cells: tuple = ("gru", "lstm")
    gaps: tuple = (1, 2)
    rates: tuple = (0.1,)
    longest: int | None = None


GOOD = [
    ("steps", "20", 20),
    ("steps", 20, 20),
    ("rate", "1", 1.0),
    ("rate", "1e-3", 0.001),
    ("title", "5", "5"),
    ("title", "none", "none"),
    ("quick", "TRUE", True),
    ("quick", False, False),
    ("gaps", "10,20", (10, 20)),
    ("gaps", "[10, 20]", (10, 20)),
    ("gaps", "10", (10,)),
    ("gaps", "()", ()),
    ("rates", "0.1,1", (0.1, 1)),
    ("rates", (0.2,), (0.2,)),
    ("longest", "7", 7),
]
WORDS = [("cells", "gru", ("gru",)), ("cells", "gru,lstm:chrono=3", ("gru", "lstm:chrono=3"))]
BAD = [
    ("steps", "2.5", "config.steps must be int, got 2.5"),
    ("steps", "many", "config.steps must be int, got 'many'"),
    ("steps", "true", "config.steps must be int, got True"),
    ("rate", "fast", "config.rate must be float, got 'fast'"),
    ("rate", "true", "config.rate must be float, got True"),
    ("quick", "1", "config.quick must be bool, got 1"),
    ("stepz", "1", "config has no field 'stepz'; did you mean 'steps'?"),
]
BAD_ITEMS = [
    ("gaps", "1,x", "config.gaps must be tuple of ints"),
    ("gaps", "1,2.5", "config.gaps must be tuple of ints"),
    ("rates", "0.1,true", "config.rates must be tuple of floats"),
    ("steps", "none", "config.steps must be int, got None"),
]


def config_dict():
    return ml_collections.ConfigDict(dataclasses.asdict(Settings(longest=0)))


@pytest.mark.parametrize("field, text, value", GOOD)
def test_a_value_is_read_by_the_type_of_its_field_alike(field, text, value):
    config = config_dict()
    overrides.set_field(config, field, text)
    settings = overrides.replaced(Settings(), {field: text})
    for got in (config[field], getattr(settings, field)):
        assert got == value and type(got) is type(value)


@pytest.mark.parametrize("field, text, value", WORDS)
def test_words_need_no_quotes_where_there_are_words(field, text, value):
    assert getattr(overrides.replaced(Settings(), {field: text}), field) == value


@pytest.mark.parametrize("field, text, line", BAD)
def test_a_bad_value_is_one_line_alike(field, text, line):
    for refuse in (
        lambda: overrides.set_field(config_dict(), field, text),
        lambda: overrides.replaced(Settings(), {field: text}),
    ):
        with pytest.raises(ValueError) as refusal:
            refuse()
        assert str(refusal.value).startswith(line) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("field, text, line", BAD_ITEMS)
def test_a_frozen_dataclass_says_of_its_tuples_what_they_hold(field, text, line):
    with pytest.raises(ValueError) as refusal:
        overrides.replaced(Settings(), {field: text})
    assert str(refusal.value).startswith(line)


def test_what_is_not_set_stays():
    assert overrides.replaced(Settings(), {}) == Settings()
    assert overrides.replaced(Settings(), {"steps": "3"}) == Settings(steps=3)
