"""HDF5 files of Keras, opened in memory: no link and no array leads out of the file.

The package h5py is required (extra ``keras-files``). Links to other files, arrays that are stored
in other files and arrays larger than their file are refused by name before anything is read.
"""

from __future__ import annotations

import importlib
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import install
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.content import dtype_of, widened

__all__ = ["MAGIC", "arrays"]

MAGIC = b"\x89HDF\r\n\x1a\n"
"""First bytes of a file."""


def arrays(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any] | None, tuple[str, ...]]:
    """Return the arrays of a file, the description of its model if Keras wrote one, and its groups.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    arrays : dict of str to ndarray
    config : dict or None
    groups : tuple of str
        Names of all groups, also of those without arrays.

    Raises
    ------
    CheckpointError
        If the file is damaged or leads to other files. The message lacks the path.
    ImportError
        If h5py is not installed.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(
            f"h5py is required to read files of Keras. Install it with: {install('keras-files')}"
        ) from error
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            found: dict[str, NDArray[Any]] = {}
            groups: list[str] = []
            _collect(h5py, file, "", (found, groups), len(data), 0)
            text = file.attrs.get("model_config")
            config = None if text is None else json.loads(text)
    except CheckpointError:
        raise
    except Exception as error:  # content decides, such as RuntimeError and RecursionError
        raise CheckpointError(
            f"is a damaged HDF5 file ({type(error).__name__}: {str(error)[:200]})."
        ) from error
    if config is not None and not isinstance(config, dict):
        raise CheckpointError("is damaged: its model_config is no description of a model.")
    return found, config, tuple(groups)


def _collect(
    h5py: Any,
    group: Any,
    prefix: str,
    into: tuple[dict[str, NDArray[Any]], list[str]],
    limit: int,
    depth: int,
) -> None:
    found, groups = into
    if depth > 16 or len(found) + len(groups) > 100_000:
        raise CheckpointError("nests its groups deeper, or has more of them, than weights do.")
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise CheckpointError(
                f"has a link {prefix}{name} that leads elsewhere, which is not followed."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            groups.append(prefix + name)
            _collect(h5py, item, f"{prefix}{name}.", into, limit, depth + 1)
        elif isinstance(item, h5py.Dataset):
            array = _array(item, prefix + name, limit)
            if array is not None:
                found[prefix + name.removesuffix(":0")] = array


def _array(item: Any, name: str, limit: int) -> NDArray[Any] | None:
    """Return an array of numbers; texts are read over."""
    if item.external or item.is_virtual:
        raise CheckpointError(f"has an array {name} that lies in other files, which are not read.")
    if item.dtype.kind in "OS":
        return None
    opaque = item.dtype.kind == "V" and item.dtype.itemsize == 2  # as h5py writes bfloat16
    kind = "bfloat16" if opaque else item.dtype.str
    dtype_of(kind)  # refuses what is not of plain numbers
    if item.nbytes > 64 * limit:
        raise CheckpointError(f"has an array {name} of {item.nbytes} bytes, more than it can hold.")
    array = np.asarray(item[()])
    return widened(array.view("<u2") if opaque else array, kind)
