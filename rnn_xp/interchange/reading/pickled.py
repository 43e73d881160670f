"""Pickles of arrays: what ``torch.save`` writes, and Paddle's ``.pdparams``.

A pickle is a program. `machine` runs the part of it that builds dicts and tensors, on stand-ins,
so that a file cannot execute anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.content import dtype_of
from rnn_xp.interchange.reading.machine import Name, Storage, finished, run

__all__ = ["read_plain", "read_zip", "weights"]

_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before 1.6
_STORAGES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool",
}  # fmt: skip


def read_zip(data: bytes, member: Callable[[str], bytes], big_endian: bool) -> Any:
    """Read the object that ``torch.save`` wrote.

    Parameters
    ----------
    data : bytes
        The member data.pkl.
    member : callable
        Returns the bytes of a storage, by its key.
    big_endian : bool

    Returns
    -------
    dict, list, ndarray, ...

    Raises
    ------
    CheckpointError
        If the pickle asks for more than tensors. The message lacks the path.
    """

    def storage(identity: Any) -> Storage:
        match identity:
            case ("storage", Name(text), str(key), _, int(size)):
                return Storage(_storage_dtype(text), size, lambda: member(key))
        raise CheckpointError("refers to a tensor in a way that PyTorch does not.")

    return finished(run(data, storage, ">" if big_endian else "<")[0])


def read_plain(data: bytes) -> Any:
    """Read a pickle that is a file of its own: of Paddle, or of PyTorch before 1.6.

    Raises
    ------
    CheckpointError
        If it asks for more than tensors. The message lacks the path.
    """
    value, end = run(data, _no_storage, "<")
    if value != _MAGIC:
        return finished(value)
    for _ in range(2):  # the version of the protocol, then facts about the machine
        _, end = _skip(data, end)
    sizes: dict[str, Storage] = {}
    where: dict[str, int] = {}

    def storage(identity: Any) -> Storage:
        match identity:
            case ("storage", Name(text), str(key), _, int(size), None):
                kind = _storage_dtype(text)
                length = size * dtype_of(kind).itemsize
                sizes[key] = Storage(kind, size, lambda: data[where[key] : where[key] + length])
                return sizes[key]
        raise CheckpointError("has tensors that are views of storages: save its state_dict again.")

    value, end = run(data, storage, "<", end)
    keys, end = _skip(data, end)
    for key in keys if isinstance(keys, list) else []:
        if key not in sizes:
            raise CheckpointError("lists tensors that it does not have.")
        where[key] = end + 8  # after the number of entries
        end = where[key] + sizes[key].size * dtype_of(sizes[key].dtype).itemsize
    if sizes.keys() != where.keys() or end != len(data):
        raise CheckpointError("does not have as many bytes as its tensors need.")
    return finished(value)


def weights(tree: Any) -> dict[str, Any]:
    """Return the dict of weights in what a training saved.

    Parameters
    ----------
    tree : object
        A state_dict, or a dict that has one at a key such as "state_dict" or "model".

    Returns
    -------
    dict

    Raises
    ------
    CheckpointError
        If there is no dict of weights, or several that differ; their keys are named.

    Examples
    --------
    >>> list(weights({"epoch": 3, "model": {"fc.weight": np.ones((1, 2))}}))
    ['fc.weight']
    """
    found: dict[str, dict[str, Any]] = {}
    pending: list[tuple[str, Any, int]] = [("", tree, 0)]
    while pending:
        name, each, depth = pending.pop()
        if not isinstance(each, dict) or depth > 3:
            continue
        arrays = {key: a for key, a in each.items() if isinstance(a, np.ndarray)}
        if any(re.search(r"(^|[._])(weight|kernel|W[xh])", key) for key in arrays):
            found[name] = arrays
        else:
            pending += [(f"{name}.{key}".strip("."), a, depth + 1) for key, a in each.items()]
    if not found:
        raise CheckpointError("has no state_dict: no dict of tensors with names such as weight.")
    if len(found) > 1:
        raise CheckpointError(
            f"has {len(found)} dicts of weights, {', '.join(sorted(found))}. Save the one that is "
            "wanted alone."
        )
    return next(iter(found.values()))


def _skip(data: bytes, start: int) -> tuple[Any, int]:
    return run(data, _no_storage, "<", start)


def _no_storage(identity: Any) -> Storage:
    raise CheckpointError("refers to tensors outside the pickle.")


def _storage_dtype(name: str) -> str:
    kind = name.removeprefix("torch ").removesuffix("Storage")
    if kind not in _STORAGES:
        raise CheckpointError(f"has tensors of {name.replace(' ', '.')}, which are not read.")
    return _STORAGES[kind]
