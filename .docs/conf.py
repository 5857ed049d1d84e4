"""The API pages, out of the docstrings: python -m sphinx -W .docs build/docs"""

from pathlib import Path

import cells
import configs
import train

project = "recurrent-cells"
author = "The recurrent-cells developers"
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["api/*/modules.rst"]
apidoc_modules = [
    {
        "path": str(Path(package.__file__).parent),
        "destination": f"api/{package.__name__}",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
    }
    for package in (cells, configs, train)
]
autodoc_member_order = "bysource"
napoleon_custom_sections = [("Options", "params_style")]
napoleon_use_ivar = True
default_role = "code"  # `name`, as in Markdown
suppress_warnings = ["ref.python"]  # what a package hands on has two places


def escaped(app, what, name, obj, options, lines):
    """|x| is an absolute value here, no substitution."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def said_before(app, what, name, obj, skip, options):
    """What `cells.scans` hands on stands on the page of `cells`."""
    return skip or (app.env.docname == "api/cells/cells.scans" and name in cells.__all__)


def setup(app):
    app.connect("autodoc-process-docstring", escaped, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", said_before)
