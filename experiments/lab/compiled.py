"""A compiled program, read from its text (HLO): what is left to do after fusion, how much of it one after the
other, and the bytes that it reads and writes."""

import functools
import math
import re
from typing import NamedTuple

import ml_dtypes  # noqa: F401, so that NumPy knows bfloat16
import numpy as np

# What costs nothing, or is the other half of something that has been counted.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"),
    *("copy-done", "async-done", "async-update", "slice-done", "optimization-barrier"),
}
CALLED = re.compile(r"(?:calls|to_apply|body|condition|called_computations)=\{?%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]")
TYPES = {"pred": "bool", "s": "int", "u": "uint", "f": "float", "bf": "bfloat", "c": "complex"}


class Figures(NamedTuple):
    """Of a compiled program.

    Attributes:
      path: operations (fusions, matmuls, kernels, copies) of which each needs the last one's result. A loop's
        is that of a turn, times its turns: arrays count as wholes, a bound from above.
      operations: all that run.
      megabytes: read and written by them, each array as a whole, but for slices that are taken or put inside
        a fusion.
    """

    path: int
    operations: int
    megabytes: float


class Unknown(ValueError):
    """The text of a program has something that is not known here."""


def figures(text: str) -> Figures:
    """Of `compiled.as_text()`.

    Raises:
      Unknown: a loop does not say how often it turns, or there is no program in the text.
    """
    program = _Program(text)
    path, operations, size = program.of(program.entry)
    return Figures(path, operations, size / 1e6)


class _Operation(NamedTuple):
    name: str
    shape: str
    kind: str
    inputs: list[str]
    rest: str
    is_root: bool


class _Program:
    def __init__(self, text: str):
        self.computations, self.entry = {}, None
        self.of = functools.cache(self._of)
        for line in text.splitlines():
            if head := HEAD.match(line):
                lines = self.computations[head[2]] = []
                self.entry = head[2] if head[1] else self.entry
            elif self.computations and (found := LINE.match(line)):
                lines.append(_operation(found))
        if self.entry is None:
            raise Unknown("no ENTRY in the text of the program")

    def _of(self, name: str) -> tuple[int, int, float]:
        """Path, operations and bytes of a computation."""
        ends, shapes, operations, size = {}, {}, 0, 0.0
        for one in self.computations[name]:
            shapes[one.name] = one.shape
            path, more, moved = self._cost(one, shapes)
            ends[one.name] = path + max((ends.get(other, 0) for other in one.inputs), default=0)
            operations, size = operations + more, size + moved
        return max(ends.values(), default=0), operations, size

    def _cost(self, one: _Operation, shapes: dict[str, str]) -> tuple[int, int, float]:
        if one.kind in FREE:
            return 0, 0, 0.0
        if one.kind == "while":
            parts, turns = [self.of(name) for name in CALLED.findall(one.rest)], self._turns(one)
            return tuple(turns * sum(of) for of in zip(*parts, strict=True))
        if one.kind == "conditional":
            names = [name.strip().lstrip("%") for name in BRANCHES.search(one.rest)[1].split(",")]
            return tuple(map(max, zip(*map(self.of, names), strict=True)))
        if one.kind in ("call", "async-start"):
            return self.of(CALLED.search(one.rest)[1])
        inputs = [bytes_of(shapes[name]) if name in shapes else 0 for name in one.inputs]
        output = bytes_of(one.shape)
        if one.kind == "fusion":
            output, inputs = self._fused(CALLED.search(one.rest)[1], output, inputs)
        elif one.kind.endswith("-start"):  # of a copy: both ends are in its shape
            return 1, 1, output
        elif one.kind == "dynamic-slice":
            inputs = [output]
        elif one.kind == "dynamic-update-slice":
            output, inputs = 0, [2 * inputs[1]]
        return 1, 1, output + sum(inputs)

    def _turns(self, loop: _Operation) -> int:
        """As the compiler says, or the constant below which its condition has the count stay."""
        if told := TURNS.search(loop.rest):
            return int(told[1])
        lines = self.computations[re.search(r"condition=%?([\w.\-]+)", loop.rest)[1]]
        constants = {one.name: one.rest for one in lines if one.kind == "constant"}
        last = next(one for one in lines if one.is_root)
        limits = [constants[name].split(")")[0] for name in last.inputs if name in constants]
        if last.kind != "compare" or "direction=LT" not in last.rest or len(limits) != 1:
            raise Unknown(f"loop {loop.name} does not say how often it turns")
        return int(limits[0])

    def _fused(self, name: str, output: float, inputs: list[float]) -> tuple[float, list[float]]:
        """Of what is only sliced the slices are read, of what is only put into, what is put is written."""
        lines = self.computations[name]
        shapes = {one.name: one.shape for one in lines}
        for one in lines:
            if one.kind != "parameter":
                continue
            at, users = int(one.rest.split(")")[0]), _users(lines, one.name)
            if users and all(user.kind == "dynamic-slice" and user.inputs[0] == one.name for user in users):
                inputs[at] = sum(bytes_of(user.shape) for user in users)
            elif users and all(_is_put_into(user, one.name) for user in users):
                put = sum(bytes_of(shapes[user.inputs[1]]) for user in users)
                output += put - sum(bytes_of(user.shape) for user in users)
                inputs[at] = 0
        return max(output, 0), inputs


def _users(lines, name: str) -> list[_Operation]:
    """Through what only renames it."""
    found = []
    for one in lines:
        if name in one.inputs:
            found += _users(lines, one.name) if one.kind == "bitcast" else [one]
    return found


def _is_put_into(user: _Operation, name: str) -> bool:
    return user.kind == "dynamic-update-slice" and user.inputs[0] == name


def _operation(found: re.Match) -> _Operation:
    text = re.sub(r"/\*.*?\*/", "", found[3])
    shape, rest = _first(text)
    kind, _, rest = rest.partition("(")
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    return _Operation(
        found[2], shape, kind.strip(), re.findall(r"%([\w.\-]+)", rest[:end]), rest, bool(found[1])
    )


def _first(text: str) -> tuple[str, str]:
    """A shape, which may be a tuple of them, and what follows."""
    depth = 0
    for at, letter in enumerate(text):
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(letter, 0)
        if letter == " " and not depth:
            return text[:at], text[at + 1 :]
    return text, ""


def bytes_of(shape: str) -> float:
    """Of an array, or of all in a tuple."""
    size = 0.0
    for name, dims in ARRAY.findall(shape):
        size += _width(name) * math.prod(int(dim) for dim in dims.split(",") if dim)
    return size


@functools.cache
def _width(name: str) -> float:
    if name in ("token", "opaque"):
        return 0.0
    kind, bits = re.match(r"([a-z]+)(\d*)", name).groups()
    if name.startswith("f8"):
        return 1.0
    return np.dtype(TYPES.get(kind, kind) + bits).itemsize if bits not in ("2", "4") else int(bits) / 8
