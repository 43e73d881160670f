"""Check that all ranks were started with the same settings and data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnn_xp.distributed.comm import Comm, CommError

__all__ = ["agree", "fingerprint"]


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """Return the sha256 of NumPy arrays and their names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        host = np.asarray(array, order="C")
        digest.update(f"|{name}|{host.dtype.str}|{host.shape}|".encode())
        digest.update(host.tobytes())
    return digest.hexdigest()


def agree(comm: Comm, what: Mapping[str, Any]) -> None:
    """Check that all ranks have the same settings, versions and data, by a hash.

    Parameters
    ----------
    comm : Comm
    what : mapping
        The values to compare, in a form that JSON can hold. The texts are exchanged only if the
        hashes differ.

    Raises
    ------
    CommError
        If a rank differs from rank 0. All ranks raise it, and it names the differences on the first
        such rank.
    """
    texts = {key: json.dumps(value, sort_keys=True, default=str) for key, value in what.items()}
    text = json.dumps(texts, sort_keys=True).encode()
    digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
    digests = comm.gather(digest)
    other = next((rank for rank, row in enumerate(digests) if (row != digests[0]).any()), None)
    if other is None:
        return
    size = int(comm.gather(np.asarray([len(text)])).max())
    padded = np.frombuffer(text.ljust(size), np.uint8)
    rows = comm.gather(padded)
    first, second = (json.loads(bytes(rows[rank])) for rank in (0, other))
    keys = [key for key in sorted(first | second) if first.get(key) != second.get(key)]
    differ = "; ".join(f"{key}: {first.get(key)} and {second.get(key)}" for key in keys)
    raise CommError(
        f"ranks 0 and {other} were started differently. {differ}. Start all of them with the same "
        "command, data and packages, on one kind of CPU."
    )
