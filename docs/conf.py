"""Sphinx's settings for the documentation's site (`make docs`)."""

import os
from pathlib import Path

import kdjax

# Notebooks are run while the site is built, on a processor. Compiling is most of what they take, so
# little is optimised, and what one build compiled the next one reads.
BUILD = Path(__file__).parents[1] / "build"
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", FLAGS)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(BUILD / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

project = "kdjax"
author = "The kdjax authors"
copyright = author
release = kdjax.__version__
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
templates_path = []

# Pages link to headings as GitHub names them.
myst_heading_anchors = 4
myst_enable_extensions = []
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
nb_merge_streams = True

# In docstrings a word between single backticks is code, and types are in the signatures.
default_role = "literal"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
autosummary_generate = True

html_theme = "sphinx_book_theme"
html_title = "kdjax"
html_theme_options = {
    "show_navbar_depth": 1,
    "use_download_button": True,
    "use_fullscreen_button": False,
}

COLON = "\ue000"
"""Stands for a colon while napoleon reads, which takes what is before one for a type."""


def hide_colons(app, what, name, obj, options, lines):
    """Keep napoleon from finding types in the docstrings of attributes, which have none."""
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", COLON) for line in lines]


def to_restructured_text(app, what, name, obj, options, lines):
    """Show tables of docstrings as they are typed, and bars elsewhere as bars."""
    converted = []
    in_table = False
    for line in lines:
        is_row = line.lstrip().startswith("|")
        if is_row and not in_table:
            converted += ["::", ""]
        elif in_table and not is_row:
            converted.append("")
        shown = line.replace(COLON, ":")
        converted.append(f"   {shown}" if is_row else shown.replace("|", "\\|"))
        in_table = is_row
    lines[:] = converted


def setup(app):
    """Connect the two around napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", to_restructured_text, priority=600)
