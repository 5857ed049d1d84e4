"""Other values of an option, as a user would type them: what the laws of options try."""

import re

import configs


def others(owner: type, option: str, value, **fields) -> list[str]:
    """Texts of values that are not `value`; some may be refused.

    Args:
      owner: the dataclass that has the option; fields: the others that it needs.
    """
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, str):
        return [word for word in words(owner, option, fields) if word != value]
    if isinstance(value, tuple):
        return ["0.1,0.2"]
    if value is None:
        return ["7", "4"]
    numbers = [value + 1, 2 * value, value - 1, 500]
    if isinstance(value, float):
        numbers = [0.99 * value, value / 2, 0.05, *numbers]
    return [str(number) for number in numbers if number != value]


def words(owner, option, fields) -> list[str]:
    """The words in the line that refuses a wrong one: the choices are among them."""
    try:
        owner(**fields | {option: "?"})
    except ValueError as refusal:
        return re.findall(r"[\w:=]+", str(refusal).split("choices:")[-1])
    return ["?"]


def accepted(config, path: str, texts: list[str]):
    """The configs in which a user gave one field one of these values, of those that are not refused."""
    for text in texts:
        try:
            changed = configs.apply(config, {path: text})
            configs.freeze(changed)
        except ValueError as refusal:
            assert "\n" not in str(refusal)
        else:
            yield changed
