"""What CuPy makes kernels of, and what it passes to them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import cupy

from rnn_xp._typing import Array

__all__ = ["address", "by_value", "contiguous", "cut", "pointers", "table", "text"]


def address(array: Array | None) -> int:
    """Return where an array begins, for a table of addresses; 0 for None."""
    return 0 if array is None else int(array.data.ptr)


def contiguous(array: Array) -> Array:
    """Return the array or None; a copy if its entries do not lie side by side."""
    return array if array is None or array.flags.c_contiguous else cupy.ascontiguousarray(array)


def pointers(args: Sequence[Any]) -> tuple[Any, ...]:
    """Return arguments with null pointers in place of None."""
    return tuple(cupy.uintp(0) if a is None else a for a in args)


def by_value(data: bytes) -> Any:
    """Return a structure as CuPy takes one by value: an array of one entry of a type of its own."""
    kind = f"V{len(data)}"
    return cupy.dtype(kind).type(data).reshape(1).view([("bytes", kind)])


def cut(items: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """Return the items in pieces of so many at most, one for each launch."""
    return [items[first : first + count] for first in range(0, len(items), count)]


def table(entries: Sequence[bytes], size: int) -> Any:
    """Return packed entries as a structure of so many bytes."""
    return by_value(b"".join(entries).ljust(size, b"\0"))


def text(*names: str) -> str:
    """Return the CUDA source in the files with these names, in order."""
    package = resources.files(__package__)
    return "\n".join(package.joinpath(name).read_text(encoding="utf-8") for name in names)
