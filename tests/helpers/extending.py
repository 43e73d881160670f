"""The examples of docs/guide/extending.md, and its minGRU as a cell that tests can use."""

from __future__ import annotations

import contextlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from rnn_xp.cells import CELLS

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "extending.md"
SECTIONS = {
    section.partition("\n")[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
}
"""Blocks of Python code, by section."""


def execute(source: str, name: str = "extending") -> types.ModuleType:
    """Make a module of source code; its classes find it by its name."""
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, f"{PAGE.name}: {name}", "exec"), module.__dict__)
    return module


CELL_SOURCE = SECTIONS["A cell"][0]
MinGRUCell = execute(CELL_SOURCE, "mingru").MinGRUCell
Focal = execute(SECTIONS["A loss"][0], "focal").Focal


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Make the name "mingru" known for a while, as the page does."""
    CELLS["mingru"] = MinGRUCell
    try:
        yield
    finally:
        del CELLS["mingru"]
