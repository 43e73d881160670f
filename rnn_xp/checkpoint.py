"""Files that are complete or absent: atomic writes, safetensors with a digest, no pickle.

A file holds named arrays and JSON metadata. The safetensors format has no checksum, so its only
metadata entry is ``"FORMAT SHA256 TEXT"``. The text, of which the sha256 is taken, is JSON: the
metadata, and a manifest with the dtype, shape and sha256 of every array.

The package safetensors writes the files, but this module reads them. The package's reader is native
code whose panics are not Exceptions, and it opens the file itself, so the content that is checked
could differ from the content that is used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if sys.platform != "win32":
    import fcntl

__all__ = ["CheckpointError", "ForeignFileError", "atomic_write", "load", "read", "save", "sweep"]

_FORMAT = "2"
_HEADER_LIMIT = 4 << 20  # 15,000 arrays; parsed JSON takes up to sixty times its length
_DTYPES = {  # by the format's codes, such as F32
    f"{code[0].upper()}{8 * int(code[1])}": np.dtype(f"<{code}")
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
} | {"BOOL": np.dtype(bool)}
_CODES = {dtype.name: code for code, dtype in _DTYPES.items()}

_TEMPORARY = re.compile(r".+\.tmp\.[0-9]+\.[0-9a-f]{16}", re.DOTALL)
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CREATE = _FLAGS | os.O_WRONLY | os.O_CREAT | os.O_EXCL
_OPEN = _FLAGS | getattr(os, "O_NONBLOCK", 0)  # not to wait for the writer of a FIFO
_Content = tuple[dict[str, NDArray[Any]], dict[str, Any]]


class CheckpointError(ValueError):
    """A file that cannot be trusted: unreadable, damaged, or of another kind."""


class ForeignFileError(CheckpointError):
    """A safetensors file without a digest, which another program wrote."""


def atomic_write(path: str | Path, data: bytes) -> None:
    """Write a file so that any reader, at any moment, finds the old content or the new one.

    The data are written to a temporary file in the same folder and flushed to the disk; only then
    is the file renamed. An earlier error leaves the old file unchanged, and no temporary file; a
    killed process leaves a temporary file, which `sweep` removes. The file has the permissions of
    any new file. If the path is a symbolic link, the file that it points to is replaced.

    Parameters
    ----------
    path : path
    data : bytes

    Raises
    ------
    OSError
        If the disk is full, the folder is missing, or the target is not a regular file.
    """
    target = os.path.realpath(path)
    with contextlib.suppress(FileNotFoundError):
        # Not /dev/null, nor a link that leads to itself: a rename would put a file in its place.
        if not stat.S_ISREG(os.lstat(target).st_mode):
            raise OSError(errno.EINVAL, "not a regular file, cannot be replaced", str(path))
    with _in_the_name_of(path):
        _replace(target, data)


@contextlib.contextmanager
def _in_the_name_of(path: str | Path) -> Iterator[None]:
    """Raise errors of the system with the name of the file, and not that of a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _replace(target: str, data: bytes) -> None:
    file, temporary = _create_beside(target)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
            if os.name != "nt":  # while the file is open, and so locked: no sweep comes in between
                os.replace(temporary, target)
        finally:
            os.close(file)
        if os.name == "nt":  # Windows, where an open file can be neither renamed nor removed
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if hasattr(os, "O_DIRECTORY"):  # POSIX: the rename itself must reach the disk too
        folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(folder: str | Path) -> None:
    """Remove the temporary files that killed writers left in a folder.

    This removes regular files named ``NAME.tmp.PID.TOKEN``, with a token of 16 hexadecimal digits,
    whose writer is no longer alive: a live writer holds a lock (flock) on the file, which the
    system releases when the process ends. Process ids would not be reliable, because they are
    reused and differ between containers. If the file system has no locks, and on Windows, nothing
    is removed.

    Parameters
    ----------
    folder : path

    Raises
    ------
    OSError
        If the folder cannot be listed. Files that cannot be removed are ignored.
    """
    if sys.platform == "win32":
        return
    for path in [Path(folder, name) for name in os.listdir(folder) if _TEMPORARY.fullmatch(name)]:
        with contextlib.suppress(OSError):
            file = os.open(path, _OPEN | os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if its writer lives
                if stat.S_ISREG(os.fstat(file).st_mode):
                    os.unlink(path)
            finally:
                os.close(file)


def save(path: str | Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata.

    Parameters
    ----------
    path : path
    arrays : mapping of str to ndarray
        Finite numbers or bools, in any layout. Equal arrays and metadata give equal bytes.
    metadata : mapping
        Anything JSON can hold.

    Raises
    ------
    TypeError
        If an array has a dtype that the file cannot hold, such as complex or object.
    ValueError
        If a value is not finite, because such a state is not worth keeping; if a name is not UTF-8
        text; or if names and metadata exceed 4 MiB.

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

    plain = {name: _plain(name, array, path) for name, array in arrays.items()}
    manifest = {
        name: [_CODES[array.dtype.name], array.shape, hashlib.sha256(array.data).hexdigest()]
        for name, array in plain.items()
    }
    content = {"manifest": manifest, "metadata": dict(metadata)}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    entry = f"{_FORMAT} {hashlib.sha256(text.encode()).hexdigest()} {text}"
    data = to_bytes(plain, metadata={"rnn_xp": entry})
    if (length := int.from_bytes(data[:8], "little")) > _HEADER_LIMIT:
        what = f"names and metadata take {length} bytes, over {_HEADER_LIMIT}"
        raise ValueError(f"{what}; {path} was not written. Keep what is long in an array.")
    atomic_write(path, data)


def load(path: str | Path, *, limit: int = 4 << 30) -> _Content:
    """Read a file that `save` wrote, and verify that it is undamaged.

    Whatever the file contains, memory is bounded by about three times its size plus sixty times the
    size of its header, which is at most 4 MiB.

    Parameters
    ----------
    path : path
    limit : int
        Largest size in bytes, 4 GiB by default; a larger file is refused before it is read.

    Returns
    -------
    arrays : dict of str to ndarray
        The arrays, which are writable.
    metadata : dict

    Raises
    ------
    CheckpointError
        If anything is wrong with the file: it is not a regular file, too large or of another
        format, or an array, which is named, is missing, unknown, of another shape or dtype, damaged
        or not finite.
    OSError
        If it cannot be opened or read.
    """
    try:
        return _decode(read(path, limit))
    except CheckpointError as error:
        raise type(error)(f"{path} {error}") from None
    except FileNotFoundError as error:
        folder = Path(path).parent
        reason = f"there is no file or folder {path}"
        if Path(path).name == "model.safetensors" and folder.is_dir():
            reason = f"{folder} is not a run: it has no model.safetensors"
        raise FileNotFoundError(f"{reason}.") from error
    except OSError:
        raise
    except Exception as error:  # such as RecursionError and MemoryError: content decides
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}).") from error


def read(path: str | Path, limit: int = 4 << 30) -> bytes:
    """Read a regular file, once, so that nobody can change the content after it is checked.

    Raises
    ------
    CheckpointError
        If it is not a regular file, or larger than the limit. The message lacks the path.
    OSError
        If it cannot be opened or read.
    """
    file = os.open(path, _OPEN | os.O_RDONLY)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("is not a regular file.")
        if status.st_size > limit:
            raise CheckpointError(f"has {status.st_size} bytes, over the limit of {limit}.")
        with open(file, "rb", closefd=False) as stream:
            return stream.read(status.st_size)
    finally:
        os.close(file)


def _create_beside(target: str) -> tuple[int, str]:
    """Create a temporary file, locked while it is open; return its descriptor and path."""
    while True:
        temporary = f"{target}.tmp.{os.getpid()}.{secrets.token_hex(8)}"
        file = os.open(temporary, _CREATE, 0o666)
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # no locks here, and so no sweep either
                fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file, temporary
        os.close(file)  # a sweep came between creation and lock: once more


def _plain(name: Any, array: Any, path: str | Path) -> NDArray[Any]:
    """Return an array that is contiguous and little-endian, as the writer assumes."""
    if not isinstance(name, str) or name == "__metadata__" or re.search("[\ud800-\udfff]", name):
        raise ValueError(f"{name!r} cannot name an array; {path} was not written.")
    # order="C" does what ascontiguousarray does, but keeps shape () as it is.
    plain = np.asarray(array, order="C")
    if plain.dtype.name not in _CODES:
        kinds = "float16 to float64, integers and bools"
        raise TypeError(f"{name} is {plain.dtype}, but {path} can hold {kinds} only: convert it.")
    if not np.isfinite(plain).all():
        raise ValueError(f"{name} has values that are not finite; {path} was not written.")
    return plain.astype(plain.dtype.newbyteorder("<"), copy=False)


def _decode(data: bytes) -> _Content:
    length = int.from_bytes(data[:8], "little")
    if 8 + length > len(data):
        raise CheckpointError("cannot be read: it is cut short, or not a safetensors file.")
    if length > _HEADER_LIMIT:
        raise CheckpointError(f"has a header of {length} bytes, over {_HEADER_LIMIT}.")
    start = 8 + length
    header = _parse(data[8:start].decode())
    match header:
        case {"__metadata__": {"rnn_xp": str(entry)}}:
            del header["__metadata__"]
        case _:
            raise ForeignFileError("was not written by rnn_xp: it has no digest.")
    manifest, metadata = _open_entry(entry)
    arrays: dict[str, NDArray[Any]] = {}
    rest = memoryview(data)[start:]
    for name, code, shape, digest, length in _compare(header, manifest, len(rest)):
        values, rest = rest[:length], rest[length:]
        if hashlib.sha256(values).hexdigest() != digest:
            raise CheckpointError(f"is damaged: {name!r} does not fit its sha256.")
        if code == "BOOL" and values.tobytes().strip(b"\0\1"):
            raise CheckpointError(f"is damaged: {name!r} has bools that are neither 0 nor 1.")
        array = np.ndarray(shape, _DTYPES[code], values)
        arrays[name] = np.array(array, dtype=array.dtype.newbyteorder("="))  # aligned, writable
        if not np.isfinite(array).all():
            raise CheckpointError(f"has values that are not finite in {name!r}.")
    return arrays, metadata


def _open_entry(entry: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the metadata entry, and split it into the manifest and the metadata."""
    number, _, rest = entry.partition(" ")
    if number != _FORMAT:
        raise CheckpointError(f"is of format {number[:9]!r}, but this version reads {_FORMAT!r}.")
    digest, _, text = rest.partition(" ")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise CheckpointError("is damaged: its metadata do not fit their sha256.")
    match _parse(text):
        case {"manifest": dict(manifest), "metadata": dict(metadata)}:
            return manifest, metadata
        case _:
            raise CheckpointError("is damaged: it has no manifest.")


def _compare(
    header: dict[str, Any], manifest: dict[str, Any], size: int
) -> list[tuple[str, str, list[int], str, int]]:
    """Return name, dtype code, shape, digest and length of each array in the manifest.

    The arrays must follow each other without overlap: if bytes could be read twice, a small file
    could fill the memory.
    """
    if lost := sorted(manifest.keys() - header.keys()):
        raise CheckpointError(f"lacks the array {lost[0]!r}, which was written.")
    if strange := sorted(header.keys() - manifest.keys()):
        raise CheckpointError(f"has an array {strange[0]!r}, which was not written.")
    for name, written in manifest.items():
        match written:
            case [str(code), [*shape], str()] if code in _DTYPES and _is_shape(shape):
                described = [header[name]["dtype"], header[name]["shape"]]
            case _:
                raise CheckpointError(f"is damaged: its manifest does not describe {name!r}.")
        if described != [code, shape]:
            raise CheckpointError(f"has {name!r} as {described}, but {[code, shape]} was written.")
    arrays, begin = [], 0
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        code, shape, digest = manifest[name]
        length = _DTYPES[code].itemsize * math.prod(shape)
        if header[name]["data_offsets"] != [begin, begin + length]:
            raise CheckpointError(f"is damaged: {name!r} does not lie where it should.")
        arrays.append((name, code, shape, digest, length))
        begin += length
    if begin != size:
        raise CheckpointError(f"has {size} bytes of arrays, but {begin} were written.")
    return arrays


def _is_shape(shape: list[Any]) -> bool:
    return len(shape) <= 64 and all(type(n) is int and 0 <= n < 1 << 63 for n in shape)


def _parse(text: str) -> Any:
    """Parse JSON strictly: no repeated keys, no numbers that are not finite."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(unique := dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return unique


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text} is not a finite number")
