"""Files that are whole or absent: atomic writes, safetensors with a digest, no pickle.

A file holds named arrays and JSON metadata. safetensors has no checksum of its own, so the one
metadata entry is ``[metadata, sha256]``, the digest covering arrays and metadata alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CheckpointError", "atomic_write", "load", "save"]

_ENTRY = "rnn_xp"


class CheckpointError(ValueError):
    """A file that cannot be trusted: unreadable, damaged, or of another kind."""


def atomic_write(path: str | Path, data: bytes) -> None:
    """Write a file so that any reader, at any moment, finds the old content or the new one.

    The data go to a temporary file in the same folder, reach the disk, and only then take the
    name. An error leaves the old file as it was and no temporary file behind.

    Parameters
    ----------
    path : path
    data : bytes

    Raises
    ------
    OSError
        Such as a full disk or a missing folder.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if hasattr(os, "O_DIRECTORY"):  # POSIX: the rename itself must reach the disk too
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save(path: str | Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata.

    Parameters
    ----------
    path : path
    arrays : mapping of str to ndarray
        Finite. Equal arrays and metadata give equal bytes.
    metadata : mapping
        Anything JSON can hold.

    Raises
    ------
    ValueError
        If a value is not finite: such a state is not worth keeping.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.safetensors"
    ...     save(path, {"w": np.ones((2, 3))}, {"epoch": 7})
    ...     arrays, metadata = load(path)
    >>> arrays["w"].shape, metadata
    ((2, 3), {'epoch': 7})
    """
    from safetensors.numpy import save as to_bytes

    for name, array in arrays.items():
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} has values that are not finite; {path} was not written.")
    # The writer takes any array for a contiguous one: transposes and slices would be scrambled.
    # order="C" does what ascontiguousarray does, but keeps shape () as it is.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    entry = json.dumps([text, _digest(contiguous, text)])
    atomic_write(path, to_bytes(contiguous, metadata={_ENTRY: entry}))


def load(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `save` wrote, and check that it is what was written.

    Parameters
    ----------
    path : path

    Returns
    -------
    arrays : dict of str to ndarray
    metadata : dict

    Raises
    ------
    CheckpointError
        Whatever is wrong with the file's content.
    OSError
        If it cannot be opened.
    """
    from safetensors import safe_open

    with open(path, "rb"):  # a missing file is an OSError, not a damaged one
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            # The file is an attribute of the library's, not iterable itself.
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
            entry = (file.metadata() or {}).get(_ENTRY)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}). It is damaged, or not a "
            "safetensors file."
        ) from error
    if entry is None:
        raise CheckpointError(f"{path} was not written by rnn_xp: it has no digest.")
    try:
        text, digest = json.loads(entry)
        if _digest(arrays, text) != digest:
            raise CheckpointError(f"{path} is damaged: its content does not fit its sha256.")
        metadata = json.loads(text)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    return arrays, metadata


def _digest(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"|{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
