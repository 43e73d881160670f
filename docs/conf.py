"""Sphinx: `make docs` makes HTML of these pages and of the docstrings, offline, without a warning.

Nothing is suppressed. Two things are made to fit instead, by the functions at the end.
"""

import re
import shutil
from pathlib import Path

import rnn_xp

project = "rnn_xp"
author = "The rnn_xp authors"
version = release = rnn_xp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# What was measured lies beside the benchmarks; the HTML has a copy of it.
RESULTS = Path(__file__).parent / "results"
shutil.copytree(RESULTS.parents[1] / "benchmarks" / "results", RESULTS, dirs_exist_ok=True)

# The live page of walk.md, made from the reference workload.
EXTRA = Path(__file__).parent / "_build" / "extra"


def write_walk(path):
    """Write the page on which one watches backpropagation through time."""
    series = rnn_xp.datasets.load("length_of_day").values[:8327]
    x, y = rnn_xp.make_windows((series - series.mean()) / series.std(), seq_length=10)
    net = rnn_xp.Network(hidden_size=50)
    params = net.init(seed=0, backend=rnn_xp.get_backend("numpy", dtype="float64"))
    path.parent.mkdir(parents=True, exist_ok=True)
    rnn_xp.explain.walk(net, params, x, y, title="length_of_day").save(path)


write_walk(EXTRA / "bptt_walk.html")
html_extra_path = [str(EXTRA)]
html_theme = "furo"
html_title = f"rnn_xp {version}"
html_copy_source = html_show_sourcelink = False

# Blocks without a language are formulas, tables and output.
highlight_language = "none"

# `name` in a docstring is a link where the name is on these pages, and otherwise code.
default_role = "py:obj"
smartquotes = False  # quotes in docstrings are those of code
# Types stand in the docstrings, where they also say shapes.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True  # a NamedTuple documents its fields once


def link_to_no_source(app, docname, source):
    """Pages link to source files for readers on a code host; here such a link is its text."""
    source[0] = re.sub(r"\]\((?:\.\./)+benchmarks/results/", "](/results/", source[0])
    source[0] = re.sub(
        r"\[([^\]]+)\]\((?:\.\./)+(?:rnn_xp|scripts|tests)\b[^)]*\)", r"\1", source[0]
    )


def number_references(app, what, name, obj, options, lines):
    """Every docstring counts its references from 1, and here many stand on one page."""
    for i, line in enumerate(lines):
        line = re.sub(r"^( *\.\. )\[(\d+)\]", rf"\1[#{name}-\2]", line)
        lines[i] = re.sub(r"\[(\d+)\]_", rf"[#{name}-\1]_", line)


def setup(app):
    """Let Sphinx call these."""
    app.connect("source-read", link_to_no_source)
    app.connect("autodoc-process-docstring", number_references)
