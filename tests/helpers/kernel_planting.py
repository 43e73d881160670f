"""One mistake at a time in the kernels of NumPy or numba: a second copy of the package, changed."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import pytest
from kernel_options import ONE_TO_MANY, OPTIONS, STACKS, compare, enlarge
from kernel_problems import CELLS
from problems import TOPOLOGIES, Problem

import rnn_xp

ORDER = {  # as they import each other
    "numpy": (
        "norm", "pieces", "feedback", "layer", "back", "rnn", "gru", "gru_before", "lstm", "",
    ),
    "numba": (
        "product", "lanes", "turns", "feedback", "layer", "norm", "rnn", "gru", "gru_before",
        "lstm", "",
    ),
}  # fmt: skip
ROWS = {"numpy": 40, "numba": 9}  # in NumPy's kernels for several pieces of columns


def plant(monkeypatch, where, old, new):
    """Put a package of kernels with one change into place; ``where`` is such as numpy.layer."""
    kind, _, module = where.partition(".")
    package = f"rnn_xp.kernels.{kind}"
    folder = Path(rnn_xp.__file__).parent / "kernels" / kind
    importlib.import_module(package)
    # What is imported by the module stays as it is, and its machine code need not be made again.
    for name in ORDER[kind][ORDER[kind].index(module) :]:
        full = f"{package}.{name}" if name else package
        path = folder / f"{name or '__init__'}.py"
        source = path.read_text(encoding="utf-8")
        if name == module:
            assert source.count(old) >= 1, f"{old!r} is not in {where} any more"
            source = source.replace(old, new, 1)
        changed = types.ModuleType(full)
        changed.__file__, changed.__package__ = str(path), package
        changed.__path__ = [str(folder)] if not name else []
        changed.__name__ = f"{full}_changed"  # machine code is linked by names
        for known_as in (full, changed.__name__):
            monkeypatch.setitem(sys.modules, known_as, changed)
        if name:
            monkeypatch.setattr(importlib.import_module(package), name, changed, raising=False)
        exec(compile(source, f"<{full}, changed>", "exec"), changed.__dict__)


def check(
    kind, option, cell="rnn-tanh", stack="one layer", topology="many-to-many", output="identity"
):
    """Compare a pass of one kind of kernels with the portable code.

    ``option`` may end in ", large", for large outputs, and ``cell`` begin with a form of the sizes.
    """
    options, with_ = (OPTIONS | ONE_TO_MANY)[option.removesuffix(", large")]
    if "dropout" in STACKS[stack]:
        with_ = (*with_, "rng")
    # More columns than a block of a triangle, and rows for more than a chunk of steps.
    *form, cell = cell.split()
    sizes = {"wide": {"hidden": 37, "scale": 0.2}, "tall": {"rows": 30}, "many": {"rows": 90}}.get(
        "".join(form), {}
    )
    settings = {**CELLS[cell], **TOPOLOGIES[topology], **options, **STACKS[stack]}
    small = {"rows": ROWS[kind], "steps": 6, "scale": 0.5, "output_activation": output}

    def build():
        problem = Problem(with_=with_, **{**small, **sizes}, **settings)
        if option.endswith(", large"):
            enlarge(problem)
        return problem

    compare(kind, build)


def fed_back(option, output="identity", cell="rnn-tanh"):
    """Arguments of `check`."""
    return option, cell, "one layer", "one-to-many-feedback", output


def named(rows):
    """Parameters of a test, one for each mistake."""
    return [pytest.param(row, id=f"{row[0]}: {row[1]} -> {row[2]}"[:90]) for row in rows]
