"""Damaged files, by the thousand: an error each time, never other content, never much memory.

`make crash-test` tries 100,000; `--mutations N` any number.
"""

from __future__ import annotations

import collections
import random
import sys
import tracemalloc

import numpy as np
import pytest
from mutations import KINDS, flip

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


def same(found, content):
    """Whether two contents are the same to the last bit."""
    return found[1] == content[1] and {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in found[0].items()
    } == {name: (array.dtype, array.shape, array.tobytes()) for name, array in content[0].items()}


@pytest.mark.parametrize("part", range(PARTS))
def test_mutations(tmp_path, pytestconfig, part):
    number = -(-pytestconfig.getoption("mutations") // PARTS)
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
