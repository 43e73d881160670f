"""One mistake at a time in the kernels of NumPy or numba: a second copy of the package, changed."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import rnn_xp

ORDER = {  # as they import each other
    "numpy": (
        "norm",
        "pieces",
        "feedback",
        "layer",
        "back",
        "rnn",
        "gru",
        "gru_before",
        "lstm",
        "",
    ),
    "numba": (
        "product",
        "lanes",
        "turns",
        "feedback",
        "layer",
        "norm",
        "rnn",
        "gru",
        "gru_before",
        "lstm",
        "",
    ),
}


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
