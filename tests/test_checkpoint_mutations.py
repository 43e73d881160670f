"""Damaged files, by the thousand: an error each time, never other content, never much memory.

`make crash-test` tries 100,000; `--mutations N` any number.
"""

from __future__ import annotations

import collections
import random
import re
import sys
import tracemalloc

import numpy as np
import pytest

from rnn_xp import checkpoint

try:
    import resource
except ImportError:  # Windows
    resource = None

PARTS = 4  # so that two cores share them
BOUND = 6  # times the file's size, of memory


def checkpoint_file(path, seed):
    """A file as of a training: a float32 network, its optimiser in float64, its history."""
    rng, arrays = np.random.default_rng(seed), {}
    for name, shape in {"rnn.0.w_x": (24, 3), "rnn.0.w_h": (24, 8), "rnn.0.b": (24,)}.items():
        arrays[name] = rng.standard_normal(shape).astype(np.float32)
        arrays[f"optimizer.m.{name}"] = rng.standard_normal(shape)
        arrays[f"optimizer.v.{name}"] = rng.standard_normal(shape) ** 2
    arrays["optimizer.t"] = np.asarray(60 + seed)
    arrays["mask"] = rng.random(11) < 0.5
    arrays["history.loss"] = rng.random(60)
    history = [{"epoch": n, "loss": float(value)} for n, value in enumerate(rng.random(20))]
    about = {"schema": 1, "network": {"cell": "gru", "sizes": [3, 8]}, "note": "größer\n\0"}
    checkpoint.save(path, arrays, {**about, "history": history, "seconds": 1.5, "best": None})
    return path.read_bytes()


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


def same(found, content):
    """Whether two contents are the same to the last bit."""
    return found[1] == content[1] and {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in found[0].items()
    } == {name: (array.dtype, array.shape, array.tobytes()) for name, array in content[0].items()}


@pytest.mark.parametrize("part", range(PARTS))
def test_mutations(tmp_path, pytestconfig, part):
    number = -(-pytestconfig.getoption("mutations", default=4000) // PARTS)
    rng, path = random.Random(part), tmp_path / "f"
    data, other = checkpoint_file(path, 1), checkpoint_file(tmp_path / "other", 2)
    contents = {
        bytes_: checkpoint.load(tmp_path / n) for bytes_, n in ((data, "f"), (other, "other"))
    }
    rejected, accepted = collections.Counter(), collections.Counter()
    resident = resource and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        for n in range(number):
            kind = KINDS[n % len(KINDS)]
            mutant = kind(rng, data, other)
            path.write_bytes(mutant)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            try:
                found = checkpoint.load(path)
            except checkpoint.CheckpointError:
                rejected[kind] += 1
            else:
                accepted[kind] += mutant != data
                assert same(found, contents.get(mutant, contents[data])), (kind.__name__, n)
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < BOUND * len(data), (kind.__name__, n)
    finally:
        tracemalloc.stop()
    if resource:  # in KiB or, on macOS, bytes: also what native code takes, bounded
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
        assert grown * (1 if sys.platform == "darwin" else 1024) < 64 << 20
    assert all(rejected[kind] > 0.8 * (number // len(KINDS)) for kind in KINDS)
    print(
        f"{number} mutations: {rejected.total()} rejected, "
        f"{accepted.total()} read as what was written, 0 otherwise"
    )


def test_a_loader_without_digests_would_be_found_out(tmp_path, monkeypatch, pytestconfig):
    """Plain safetensors accepts other content, which `same` and the mutations notice."""
    import safetensors
    import safetensors.numpy

    rng, silent = random.Random(0), 0
    data = checkpoint_file(tmp_path / "f", 1)
    content = safetensors.numpy.load(data), {}
    for _ in range(200):
        try:
            found = safetensors.numpy.load(flip(rng, data, b"")), {}
        except safetensors.SafetensorError:
            continue
        silent += not same(found, content)
    assert silent > 50
