"""msgpack as Flax writes it: nested maps whose arrays are of extension type 1.

The format is of one page: a first byte says the type, and often the length. Flax cuts arrays of
more than a gigabyte into chunks, which are refused by name.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.content import Content, dtype_of, flattened, widened

__all__ = ["looks_like", "read"]

_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_LENGTHS = {  # type byte: size of the length that follows
    "bytes": {0xC4: 1, 0xC5: 2, 0xC6: 4},
    "text": {0xD9: 1, 0xDA: 2, 0xDB: 4},
    "list": {0xDC: 2, 0xDD: 4},
    "map": {0xDE: 2, 0xDF: 4},
    "extension": {0xC7: 1, 0xC8: 2, 0xC9: 4},
}
_DEEPEST = 16


def looks_like(data: bytes) -> bool:
    """Tell if a file begins as a map of msgpack that is not empty."""
    return len(data) > 2 and (0x81 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF))


def read(data: bytes) -> Content:
    """Read a file that ``flax.serialization.to_bytes`` made.

    Raises
    ------
    CheckpointError
        If it is damaged or not of arrays. The message lacks the path.
    """
    try:
        tree, end = _value(data, 0, 0)
    except (ValueError, IndexError, struct.error, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"is damaged: it does not parse as msgpack ({error}).") from error
    if end != len(data):
        raise CheckpointError("is damaged: there is something after its msgpack.")
    return Content("Flax msgpack file", flattened(tree))


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Return the value that begins at an offset, and the offset after it."""
    if depth > _DEEPEST:
        raise CheckpointError("nests its content deeper than weights do.")
    first = data[at]
    at += 1
    if first <= 0x7F or first >= 0xE0:
        return (first if first <= 0x7F else first - 256), at
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    if first in _NUMBERS:
        form = _NUMBERS[first]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if first <= 0xBF:
        kind = "map" if first <= 0x8F else "list" if first <= 0x9F else "text"
        length = first & (0x1F if kind == "text" else 0x0F)
    elif 0xD4 <= first <= 0xD8:
        kind, length = "extension", 1 << (first - 0xD4)
    else:
        kind = next((name for name, sizes in _LENGTHS.items() if first in sizes), "")
        if not kind:
            raise ValueError(f"there is no type {first:#x}")
        width = _LENGTHS[kind][first]
        length, at = int.from_bytes(_take(data, at, width), "big"), at + width
    if kind in ("map", "list"):
        return _items(data, at, depth, length, kind)
    code = _take(data, at, 1)[0] if kind == "extension" else 0
    at += kind == "extension"
    content = _take(data, at, length)
    value = content.decode() if kind == "text" else content
    return (_extension(code, content, depth) if kind == "extension" else value), at + length


def _items(data: bytes, at: int, depth: int, length: int, kind: str) -> tuple[Any, int]:
    items: list[Any] = []
    for _ in range(2 * length if kind == "map" else length):  # each takes a byte at least
        value, at = _value(data, at, depth + 1)
        items.append(value)
    if kind == "list":
        return items, at
    if not all(isinstance(key, str | int) for key in items[::2]):
        raise ValueError("a map has keys that are no names")
    tree = {str(key): value for key, value in zip(items[::2], items[1::2], strict=True)}
    if len(tree) < length:
        raise ValueError("a key is there twice")
    if "__msgpack_chunked_array__" in tree:
        raise CheckpointError("has an array in chunks, of more than a gigabyte, which is not read.")
    return tree, at


def _take(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise ValueError("it is cut short")
    return data[at : at + length]


def _extension(code: int, content: bytes, depth: int) -> NDArray[Any] | None:
    """Return an array of Flax; its other extensions, scalars and complex numbers, are read over."""
    if code != 1:
        return None
    (shape, name, numbers), end = _value(content, 0, depth + 1)
    if end != len(content) or not isinstance(numbers, bytes):
        raise ValueError("an array has no numbers")
    return widened(np.array(np.frombuffer(numbers, dtype_of(name)).reshape(shape)), name)
