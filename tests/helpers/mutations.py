"""Ways to damage a file."""

from __future__ import annotations

import re


def flip(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def overwrite(rng, data, _):
    at, length = rng.randrange(len(data)), rng.choice((1, 2, 8, 64))
    new = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return data[:at] + new[: len(data) - at] + data[at + length :]


def truncate(rng, data, _):
    return data[: rng.randrange(len(data))]


def insert(rng, data, _):
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 8, 64))
    return data[:at] + rng.choice((rng.randbytes(length), data[:length], b" " * length)) + data[at:]


def delete(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 2, 8, 64)) :]


def splice(rng, data, other):
    at = rng.randrange(1, len(data))
    return data[:at] + other[at if rng.random() < 0.5 else rng.randrange(1, len(other)) :]


def edit_length(rng, data, _):
    length = int.from_bytes(data[:8], "little")
    huge = (0, 1, len(data), len(data) - 8, (1 << 63) - 1, (1 << 64) - 8, rng.getrandbits(64))
    new = rng.choice(
        (*huge, max(length + rng.randrange(-9, 9), 0), length ^ 1 << rng.randrange(64))
    )
    return new.to_bytes(8, "little") + data[8:]


def edit_header(rng, data, _):
    """Other JSON of the same length: numbers, dtypes, names, or two places exchanged."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = data[8:start]
    pattern = rng.choice(
        (rb"\d+", rb"[FIU](8|16|32|64)\b", rb"[a-z]\.", rb"[\[\]{},:]", rb"[a-z_]+")
    )
    found = list(re.finditer(pattern, header))
    one = rng.choice(found)
    same = [match for match in found if len(match[0]) == len(one[0]) and match[0] != one[0]]
    if same and rng.random() < 0.7:
        two = rng.choice(same)
        first, last = sorted((one, two), key=lambda match: match.start())
        middle = header[first.end() : last.start()]
        header = header[: first.start()] + last[0] + middle + first[0] + header[last.end() :]
    else:
        new = bytes(rng.choice(b"0123456789") for _ in one[0])
        header = header[: one.start()] + new + header[one.end() :]
    return data[:8] + header + data[start:]


KINDS = (flip, overwrite, truncate, insert, delete, splice, edit_length, edit_header)
