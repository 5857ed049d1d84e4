"""Which code an experiment was measured with, and what of it has changed since: found in the files, so that
nothing is run.

The run of a config depends on what trains it, cells/ and train/ (`of_runs`): which configs there are is found
anew whenever an experiment is measured, kept runs and all, and a run that has another one is refused.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import experiments

ROOT = Path(experiments.__file__).parents[1]  # of a clone, or where it is installed
PACKAGES = ("cells", "configs", "experiments", "train")
# What is left out, with all below it: it prints, draws, judges, or runs processes.
ASIDE = (
    "cells.interop", "configs.grids", "configs.sweeps", "experiments.against", "experiments.claims",
    "experiments.cli", "experiments.describe", "experiments.engines", "experiments.entry",
    "experiments.lab.convergence_figures", "experiments.lab.evidence", "experiments.lab.experiment",
    "experiments.lab.forgetting", "experiments.lab.freshness", "experiments.lab.gain_figures",
    "experiments.lab.gains", "experiments.lab.layer_figures", "experiments.lab.matrix",
    "experiments.lab.matrix_figures", "experiments.lab.panels", "experiments.lab.ranking",
    "experiments.lab.rules", "experiments.lab.scales", "experiments.lab.stacks", "experiments.lab.store",
    "experiments.lab.style", "experiments.lab.survival", "experiments.lab.trials",
    "experiments.lab.workers", "experiments.loading", "experiments.output", "experiments.page",
    "experiments.plots", "experiments.report", "experiments.results", "experiments.screen",
    "experiments.tables", "experiments.varied", "train.environment", "train.exchange", "train.exported",
    "train.plot_gates", "train.sinks", "train.trained",
)  # fmt: skip
# Of a class: what tuning tries, which `trials.others` looks at, and how its lines are drawn.
NOT_RUN = ("knobs", "style")
# What runs on accelerators alone, where no evidence has been measured: a CPU never calls it.
ON_ACCELERATORS = ("cells.scans.chosen", "cells.scans.cudnn", "cells.scans.kernels")


def code_of(name: str, labels: Iterable[str] | None = None) -> dict[str, str]:
    """Path, relative to the project, -> digest of its code, for every file of the project that what
    experiments/NAME.py measures depends on: imports of imports, wherever they stand.

    A digest knows nothing of comments, docstrings and layout, and is the same for every version of Python. Of
    the experiment's own file only what `measure` uses counts: not its claims, rules, tables and figures.

    Args:
      name: of an experiment.
      labels: cells and tasks it was run with, "lstm:forget_bias=3": of the registered ones, only these count
        and those that its file names. None: all.
    """
    top = f"experiments.{name}"
    own = _file(top)
    if own is None:
        raise ValueError(f"there is no experiments/{name}.py")
    skipped, measured = set(), _used_by("measure", own.read_text())
    if labels is not None:
        skipped = _others({label.split(":")[0] for label in [*labels, *_texts(own.read_text())]})
    found, left = {}, [top, "train.loop"]  # which `store.Lab` trains with
    while left:
        module = left.pop()
        path = _file(module)
        if path is None or module in found or module in skipped or _aside(module):
            continue
        found[module] = path
        tree = measured if module == top else _bare(path.read_text())
        left += _imports(tree, module if path.stem == "__init__" else module.rpartition(".")[0])
        left.append(module.rpartition(".")[0])  # its package
    digests = {
        path.relative_to(ROOT).as_posix(): _digest(measured if module == top else _bare(path.read_text()))
        for module, path in found.items()
        if module not in _registered()  # those are lists of the others
    }
    return dict(sorted(digests.items()))


def of_runs(code: dict[str, str]) -> dict[str, str]:
    """What of `code_of` trains."""
    return {path: digest for path, digest in code.items() if path.split("/")[0] in ("cells", "train")}


def of_labels(code: dict[str, str], labels: Iterable[str]) -> dict[str, str]:
    """`code_of` without the registered cells and tasks that are not in `labels`."""
    others = {f"{module.replace('.', '/')}.py" for module in _others(set(labels))}
    return {path: digest for path, digest in code.items() if path not in others}


def changed(recorded: dict[str, str], name: str, labels: Iterable[str] | None = None) -> dict[str, str]:
    """Path -> "changed", "gone" or "new", of what differs from `code_of` with the same arguments today.

    A registered cell or task that what was recorded does not have has no part in it: none was run.
    """
    now, words = code_of(name, labels), {}
    recorded = {path: digest for path, digest in recorded.items() if not _aside(_module(path))}
    unused = {f"{module.replace('.', '/')}.py" for module in _others(set())} - recorded.keys()
    for path in sorted({*recorded, *now} - unused):
        if recorded.get(path) != now.get(path):
            words[path] = "gone" if path not in now else "new" if path not in recorded else "changed"
    return words


def _registered() -> dict[str, dict[str, str]]:
    """Package of a registry -> the module of each of its names."""
    import cells
    from train import tasks

    tables = {"cells": cells.CELLS.table, "train.tasks": tasks.TASKS.table}
    return {package: {key: cls.__module__ for key, cls in table.items()} for package, table in tables.items()}


def _others(used: set[str]) -> set[str]:
    """Modules of registered cells and tasks without the `used` ones."""
    tables = _registered().values()
    kept = {module for table in tables for key, module in table.items() if key in used}
    return {module for table in tables for module in table.values()} - kept


def _aside(module: str) -> bool:
    aside = ASIDE + ON_ACCELERATORS
    return any(module == other or module.startswith(other + ".") for other in aside)


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _file(module: str) -> Path | None:
    """That of a module of the project."""
    base = ROOT.joinpath(*module.split("."))
    if module.split(".")[0] not in PACKAGES:
        return None
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _used_by(name: str, text: str) -> ast.Module:
    """Of a file's statements those that a function of it needs, and those that define no name."""
    tree = _bare(text)
    left, kept = [name], []
    bound = [(node, _bound(node)) for node in tree.body if not _is_main(node)]
    kept += [node for node, names in bound if not names]
    left += [used for node in kept for used in _names(node)]
    seen = set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        for node, names in bound:
            if name in names:
                kept.append(node)
                left += _names(node)
    ids = set(map(id, kept))
    return ast.Module([node for node in tree.body if id(node) in ids], [])


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in _names(node.test)


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _bound(node: ast.AST) -> set[str]:
    """The names that a statement of a file defines for the others."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.ImportFrom):  # `import x` may be for what it does
        return {alias.asname or alias.name for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", ast.Pass())]
    return {x.id for target in targets for x in ast.walk(target) if isinstance(x, ast.Name)}


@functools.cache
def _imports(tree: ast.Module, package: str) -> list[str]:
    """The modules that a file of a package may import; some of these names are no modules."""
    names = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The tree and all statements in it, but those that only a type checker sees."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in (vars(tree.test).get(x) for x in ("id", "attr")):
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _statements(child)


@functools.cache
def _texts(text: str) -> set[str]:
    """The strings in a file."""
    return {
        n.value for n in ast.walk(_bare(text)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


@functools.cache
def _digest(tree: ast.Module) -> str:
    return hashlib.sha256(_written(tree).encode()).hexdigest()[:12]


@functools.cache
def _bare(text: str) -> ast.Module:
    """A file's code without docstrings, and NOT_RUN."""
    tree = ast.parse(text)
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef):
            node.body = [line for line in node.body if not _bound(line) & set(NOT_RUN)]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
    return tree


def _written(node) -> str:
    """`ast.dump` without empty fields, which differ between versions of Python."""
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = (f"{name}={_written(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
    return f"{type(node).__name__}({','.join(fields)})"
