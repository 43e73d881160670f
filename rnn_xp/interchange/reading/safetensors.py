"""safetensors files of any writer, with the dtypes that NumPy lacks."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading.content import dtype_of, widened

__all__ = ["arrays", "looks_like"]

_OURS = re.compile(r"\d+ [0-9a-f]{64} \{")  # a digest, under whatever name
_CODES = {"F": "float", "I": "int", "U": "uint", "B": "bfloat"}


def looks_like(data: bytes) -> bool:
    """Tell if a file begins as a safetensors file: a length, then JSON of this length."""
    length = int.from_bytes(data[:8], "little")
    return len(data) > 9 and data[8:9] == b"{" and length <= len(data) - 8


def arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file; bfloat16 becomes float32.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    CheckpointError
        If the file is damaged, was written by rnn_xp, or has numbers of another kind. The message
        lacks the path.
    """
    from safetensors import deserialize

    try:
        tensors = deserialize(data)  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        remarks = header.get("__metadata__") or {}
        known = "rnn_xp" in remarks or any(map(_OURS.match, remarks.values()))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the reader is native code, whose panics are no Exceptions
        raise CheckpointError(
            f"cannot be read as a safetensors file ({type(error).__name__}: {error})."
        ) from error
    if known:
        raise CheckpointError("was written by rnn_xp: read it as such, with its digest.")
    read: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors:
        code = tensor["dtype"]
        kind = "bool" if code == "BOOL" else _CODES.get(code[:1], "") + code[1:].lstrip("F")
        flat = np.frombuffer(tensor["data"], dtype_of(kind))
        array = np.array(flat.reshape(tensor["shape"]))
        read[name] = widened(array, kind) if kind == "bfloat16" else array
    return read
