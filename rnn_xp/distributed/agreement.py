"""All ranks do the same work, or none begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnn_xp.distributed.comm import Comm, CommError

__all__ = ["agree", "fingerprint"]


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """sha256 of arrays on the host, by name."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        host = np.asarray(array, order="C")
        found.update(f"|{name}|{host.dtype.str}|{host.shape}|".encode())
        found.update(host.tobytes())
    return found.hexdigest()


def agree(comm: Comm, what: Mapping[str, Any]) -> None:
    """Check that all ranks have the same settings, versions and data, by a hash.

    Parameters
    ----------
    comm : Comm
    what : mapping
        Anything that JSON can hold. The texts are exchanged only where the hashes differ.

    Raises
    ------
    CommError
        On all ranks, naming what differs on the first rank that is not like rank 0.
    """
    texts = {key: json.dumps(value, sort_keys=True, default=str) for key, value in what.items()}
    text = json.dumps(texts, sort_keys=True).encode()
    digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
    found = comm.gather(digest)
    other = next((rank for rank, row in enumerate(found) if (row != found[0]).any()), None)
    if other is None:
        return
    size = int(comm.gather(np.asarray([len(text)])).max())
    padded = np.frombuffer(text.ljust(size), np.uint8)
    rows = comm.gather(padded)
    first, second = (json.loads(bytes(rows[rank])) for rank in (0, other))
    keys = [key for key in sorted(first | second) if first.get(key) != second.get(key)]
    differ = "; ".join(f"{key}: {first.get(key)} and {second.get(key)}" for key in keys)
    raise CommError(
        f"ranks 0 and {other} are not to do the same. {differ}. Start all of them with the same "
        "command, data and packages, on one kind of CPU."
    )
