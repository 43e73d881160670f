"""Content of a file: named arrays of NumPy. Half precision is widened, which loses nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rnn_xp.checkpoint import CheckpointError

__all__ = ["Content", "dtype_of", "flattened", "widened"]

_NUMBERS = {
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
}


def dtype_of(name: str, order: Literal["<", ">"] = "<") -> np.dtype[Any]:
    """Return the dtype in which numbers are stored; bfloat16 is stored as uint16.

    Parameters
    ----------
    name : str
        A name such as "float32" or "bfloat16", or a code of NumPy such as "<f4".
    order : {"<", ">"}
        Order of the bytes, if the name does not say.

    Returns
    -------
    dtype

    Raises
    ------
    CheckpointError
        If it is no dtype of plain numbers.

    Examples
    --------
    >>> dtype_of("bfloat16").str, dtype_of(">f4").str
    ('<u2', '>f4')
    """
    if name == "bfloat16":
        return np.dtype("uint16").newbyteorder(order)
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        dtype = np.dtype(object)
    if dtype.name not in _NUMBERS or dtype.hasobject:
        raise CheckpointError(f"has numbers of the kind {name[:40]!r}, which are not read.")
    return dtype if name[:1] in ("<", ">") else dtype.newbyteorder(order)


def widened(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return numbers in the machine's order of bytes, bfloat16 and float16 as float32.

    >>> widened(np.asarray([0x3FC0], np.uint16), "bfloat16").tolist()
    [1.5]
    """
    if name == "bfloat16":
        bits = array.astype(np.uint32) << 16
        return bits.astype("=u4").view(np.float32)
    if array.dtype.name == "float16":
        return array.astype(np.float32)
    native: NDArray[Any] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native


@dataclass(frozen=True)
class Content:
    """Content of a file of weights.

    Attributes
    ----------
    kind : str
        Kind of the file, such as "PyTorch zip file".
    arrays : dict of str to ndarray
        Arrays by their names, whose parts are joined by dots.
    config : dict, optional
        The description of the model by Keras, if the file has one.
    groups : tuple of str
        Names of the groups of an HDF5 file, also of those without arrays.
    """

    kind: str
    arrays: dict[str, NDArray[Any]]
    config: dict[str, Any] | None = field(default=None)
    groups: tuple[str, ...] = ()


def flattened(tree: Any, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Return the arrays of nested dicts and lists by their joined names.

    >>> list(flattened({"a": {"b": np.ones(1)}, "c": [np.ones(2), "text"]}))
    ['a.b', 'c.0']
    """
    if isinstance(tree, np.ndarray):
        return {prefix.rstrip("."): tree}
    flat: dict[str, NDArray[Any]] = {}
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for name, each in pairs:
            flat |= flattened(each, f"{prefix}{name}.")
    return flat
