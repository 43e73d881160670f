"""What an update in a CUDA graph reads and writes beside its arithmetic, each in one launch."""

from __future__ import annotations

import functools
import itertools
import math
import struct
from collections.abc import Sequence
from importlib import resources
from typing import Any

import cupy

from rnn_xp._typing import Array
from rnn_xp.kernels.cuda.arguments import address, by_value, contiguous, pointers

__all__ = ["OPTIONS", "copy", "joined", "record", "source"]

_LINE, _LINES = struct.Struct("2P3q"), 88  # of a table, which is an argument and may have 4 KB
_THREADS, _SPAN = 256, 1024  # of ``update.cu``

OPTIONS = (
    "-std=c++17", f"-DLINES={_LINES}", f"-DPLAN_LINE_TABLE={_LINES * _LINE.size}",
    f"-DPLAN_SPAN={_SPAN}", f"-DPLAN_THREADS={_THREADS}",
)  # fmt: skip
"""Options for the compiler."""


def source() -> str:
    """Return the CUDA source."""
    return resources.files("rnn_xp.kernels.cuda").joinpath("update.cu").read_text(encoding="utf-8")


def copy(pairs: Sequence[tuple[Array, Array]], at: Array | None = None) -> None:
    """Copy contiguous arrays, whose entries have 4 bytes or a multiple of it.

    Parameters
    ----------
    pairs : sequence of (from, to)
    at : Array (1,) of int32, optional
        Number of a row, the beginning of which is copied from every array ``from``. By default all
        of ``from`` is.
    """
    for first in range(0, len(pairs), _LINES):
        some, table, blocks = pairs[first : first + _LINES], [], 0
        for from_, to in some:
            words, pitch = (
                to.nbytes // 4,
                from_.nbytes // 4 // from_.shape[0] if at is not None else 0,
            )
            table.append(_LINE.pack(address(from_), address(to), words, pitch, blocks))
            blocks += -(-words // _SPAN)
        given = by_value(b"".join(table).ljust(_LINES * _LINE.size, b"\0"))
        _kernel("copy")((blocks,), (_THREADS,), pointers((given, cupy.int32(len(some)), at)))


def joined(arrays: Sequence[Array]) -> Array:
    """Return arrays of one dtype as one vector.

    CuPy copies each of up to eight, and of more their addresses first, from the host, as no graph
    can (``_concatenate_single_kernel`` of CuPy 14).
    """
    arrays = [contiguous(array) for array in arrays]
    ends = [0, *itertools.accumulate(math.prod(array.shape) for array in arrays)]
    vector = cupy.empty(ends[-1], dtype=arrays[0].dtype)
    spans = itertools.pairwise(ends)
    copy([(a, vector[first:last]) for a, (first, last) in zip(arrays, spans, strict=True)])
    return vector


def record(value: Array, total: Array, values: Array, totals: Array, at: Array) -> None:
    """Write a loss and its total weight under the number ``at``, and add one to it."""
    _kernel("record")((1,), (1,), (value, total, values, totals, at))


@functools.cache
def _kernel(name: str) -> Any:
    return cupy.RawModule(code=source(), options=OPTIONS).get_function(name)
