"""The table of cells, out of their files: equation, paper, size of the state, parameters, strategies.

  python -m experiments.cells
  python -m experiments.cells --write

Prints a Markdown table; --write puts it into cells/README.md, between the markers <!-- cells --> and
<!-- /cells -->. Nothing in it is written by hand: the paper is the first bracket of the module's docstring
that holds a year, the equation the first paragraph of the class's docstring that begins with "symbols = ",
and the sizes are polynomials that give the counts at several sizes exactly.
"""

import inspect
import itertools
import math
import re
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from absl import flags

import cells
from experiments import entry, tables
from train import files

README = Path(cells.__file__).with_name("README.md")
MARKERS = "<!-- cells -->\n", "<!-- /cells -->"
MONOMIALS = ((1, 1), (2, 0), (1, 0), (0, 1), (0, 0))  # powers of (H, D), as they are written


def table() -> pd.DataFrame:
    """One row of strings per registered cell."""
    return pd.DataFrame(_row(name) for name in cells.names())


def _row(name: str) -> dict:
    cls = cells.CELLS.cls(name)
    module = inspect.getmodule(cls)
    cell = cells.get(name, hidden_size=cls.size_multiple())
    link = f"[`{name}`]({Path(module.__file__).name})"
    return {
        "cell": " ".join(filter(None, (link, paper(module.__doc__ or "")))),
        "recurrence": equation(cls.__doc__ or ""),
        "state": polynomial(lambda D, H: _state(name, H)) or "",
        "parameters, input D, hidden H": parameters(name),
        "strategies": ", ".join(s for s in cells.strategies(cell) if s != "auto"),
    }


def paper(doc: str) -> str:
    """Authors and year: what the first bracket with a year says before the title."""
    found = re.search(r'\(([^()"]*\b\d{4}\b[^()"]*)[")]', " ".join(doc.split()))
    return found[1].rstrip(", ") if found else ""


def equation(doc: str) -> str:
    """The first paragraph that begins with "symbol, symbol = "; lines become one."""
    for paragraph in inspect.cleandoc(doc).split("\n\n"):
        if re.match(r"\w+(, \w+)* = ", paragraph):
            lines = [line.strip().rstrip(",;") for line in paragraph.splitlines()]
            joined = lines[0]
            for line in lines[1:]:  # a line that begins with an equation ends the one before
                joined += (", " if re.match(r"\w+(, \w+)* = ", line) else " ") + line
            return re.sub(r" {2,}", " ", joined)
    return ""


def _count(name: str, D: int, H: int) -> int:
    cell = cells.get(name, hidden_size=H)
    return sum(p.size for p in jax.eval_shape(lambda: cell.init(jax.random.key(0), D)).values())


def _state(name: str, H: int) -> int:
    """Real numbers in the carry of one sequence."""
    carry = jax.eval_shape(lambda: cells.get(name, hidden_size=H).initial_carry(1))
    return sum(c.size * (2 if np.iscomplexobj(c) else 1) for c in jax.tree.leaves(carry))


def parameters(name: str) -> str:
    """As a formula, and that of D = H where it is another one."""
    usual = polynomial(lambda D, H: _count(name, D, H), name)
    if not usual:
        return f"{_count(name, 32, 64):,} (D 32, H 64)"
    square = polynomial(lambda D, H: _count(name, H, H), name)
    same = [_count(name, H, H) for H in _sizes(name)] == [value(usual, H, H) for H in _sizes(name)]
    return usual if same else f"{usual}; D = H: {square}"


def _sizes(name: str | None) -> list[int]:
    unit = cells.CELLS.cls(name).size_multiple() if name else 1
    return [unit * k for k in (4, 7, 12, 15)]


def polynomial(count, name: str | None = None) -> str | None:
    """count(D, H) as a polynomial with integer coefficients, factored; None if it is none."""
    Hs = _sizes(name)
    Ds = [11, 29, 64, 5]
    points = [(D, H) for D, H in itertools.product(Ds, Hs) if D != H]
    rows = np.array([[H**h * D**d for h, d in MONOMIALS] for D, H in points], float)
    counts = np.array([count(D, H) for D, H in points])
    coefficients = np.rint(np.linalg.lstsq(rows, counts.astype(float), rcond=None)[0]).astype(int)
    if not np.array_equal(rows.astype(int) @ coefficients, counts):
        return None
    return _factored({m: int(c) for m, c in zip(MONOMIALS, coefficients, strict=True) if c})


def _factored(terms: dict) -> str:
    if not terms:
        return "0"
    common = math.gcd(*terms.values())
    powers = tuple(min(m[i] for m in terms) for i in range(2))
    inner = {tuple(m[i] - powers[i] for i in range(2)): c // common for m, c in terms.items()}
    outside = _monomial(powers, common)
    if len(inner) == 1:
        return outside or "1"
    # As in "D + H + 1": alphabetical, the constant last.
    inside = " + ".join(
        _monomial(m, c) or "1" for m, c in sorted(inner.items(), key=lambda item: (-sum(item[0]), item[0]))
    ).replace("+ -", "- ")
    return f"{outside} ({inside})" if outside else inside


def _monomial(powers: tuple, coefficient: int) -> str:
    (h, d), names = powers, []
    names += ["D"] * d + (["H²"] if h == 2 else ["H"] * h)
    return " ".join(([str(coefficient)] if coefficient != 1 else []) + names)


def value(formula: str, D: int, H: int) -> Fraction:
    """What a formula of `polynomial` is worth."""
    text = re.sub(r"(?<=[\w²)]) (?=[\w(])", "*", formula.replace("²", "^2")).replace("^", "**")
    return Fraction(eval(text, {"__builtins__": {}}, {"D": D, "H": H}))  # noqa: S307


def replaced(text: str, inserted: str) -> str:
    """A README with the table between its markers.

    Raises:
      ValueError: it has no markers.
    """
    begin, end = MARKERS
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"cells/README.md has no place for the table, {begin.strip()} and {end}")
    return f"{before}{begin}{inserted}{end}{after}"


def main(words: list[str]) -> int:
    """Prints the table; returns the exit code."""
    if words:
        entry.fail(f"unexpected argument {words[0]!r}; flags begin with --")
    inserted = tables.markdown(table())
    print(inserted, end="")
    if flags.FLAGS.write:
        files.write(README, replaced(README.read_text(), inserted))
    return 0


if __name__ == "__main__":
    flags.DEFINE_boolean("write", False, "Also write it into README.md.")
    entry.run(main, __doc__)
