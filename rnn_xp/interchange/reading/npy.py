"""Arrays in NumPy's own form: single ones, and the series of them that Equinox writes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.content import Content, dtype_of, widened

__all__ = ["MAGIC", "array", "series"]

MAGIC = b"\x93NUMPY"
"""First bytes of an array."""


def array(data: bytes) -> NDArray[Any]:
    """Read one array, without pickles.

    Raises
    ------
    CheckpointError
        If it is damaged or not of plain numbers. The message lacks the path.
    """
    stream = io.BytesIO(data)
    read = _next(stream)
    if stream.tell() != len(data):
        raise CheckpointError("is damaged: there is something after an array.")
    return read


def series(data: bytes) -> Content:
    """Read arrays that follow each other, as ``equinox.tree_serialise_leaves`` writes them.

    They have no names but their places: "0", "1", and so on. A first line of other content, where
    users write hyperparameters, is read over.
    """
    stream = io.BytesIO(data)
    if not data.startswith(MAGIC):
        stream.readline()
    arrays: dict[str, NDArray[Any]] = {}
    while stream.tell() < len(data):
        arrays[str(len(arrays))] = _next(stream)
    return Content("Equinox file" if len(arrays) > 1 else "npy file", arrays)


def _next(stream: io.BytesIO) -> NDArray[Any]:
    left = stream.getbuffer().nbytes - stream.tell()
    try:
        version = np.lib.format.read_magic(stream)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = reader(stream, max_header_size=10_000)
    except Exception as error:  # its parser raises what Python's own raises
        raise CheckpointError(f"is damaged: it has an array without a header ({error}).") from error
    opaque = dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None
    name = "bfloat16" if opaque else dtype.str  # as NumPy writes the bfloat16 of ml_dtypes
    stored = dtype_of(name, ">" if dtype.str[0] == ">" else "<")
    count = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise CheckpointError("is damaged: it has an array of no shape.")
        count *= size
    if count * stored.itemsize > left:
        raise CheckpointError("is damaged: it has fewer numbers than its shapes say.")
    flat = np.frombuffer(stream.read(count * stored.itemsize), stored)
    return widened(np.array(flat.reshape(shape, order="F" if fortran else "C")), name)
