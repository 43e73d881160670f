"""What CuPy passes to a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy

from rnn_xp._typing import Array

__all__ = ["address", "by_value", "contiguous", "pointers"]


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
