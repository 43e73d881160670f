"""Zip files: PyTorch's, Keras' and NumPy's. Every member is compared with its checksum."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange.reading import hdf5, npy, pickled
from rnn_xp.interchange.reading.content import Content, flattened

__all__ = ["read"]

_Member = Callable[[str], bytes]


def read(data: bytes, limit: int) -> Content:
    """Read a zip file, whose members say of which kind it is.

    Parameters
    ----------
    data : bytes
    limit : int
        Largest size of all members together, unpacked, in bytes.

    Returns
    -------
    Content

    Raises
    ------
    CheckpointError
        If it is damaged, or of a kind that is not read, which is named. The message lacks the path.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(names) > len(set(names)):
                raise CheckpointError("is damaged: it has two members of one name.")
            if (size := sum(info.file_size for info in infos)) > limit:
                raise CheckpointError(f"unpacks to {size} bytes, over the limit of {limit}.")
            return _read(set(names), archive.read)
    except CheckpointError:
        raise
    except (
        *(zipfile.BadZipFile, zlib.error, ValueError, LookupError, EOFError, OSError),
        *(RuntimeError, MemoryError),  # of a method of compression that is not known, for one
    ) as error:
        raise CheckpointError(f"is a damaged zip file ({error}).") from error


def _read(names: set[str], member: _Member) -> Content:
    first = {name.partition("/")[0] for name in names}
    root = min(first) if len(first) == 1 else ""
    if f"{root}/data.pkl" in names:
        if f"{root}/constants.pkl" in names or any(n.startswith(f"{root}/code/") for n in names):
            raise CheckpointError(
                "is a TorchScript archive, a program. Save the state_dict of the module instead: "
                "torch.save(torch.jit.load(path).state_dict(), new_path)."
            )
        return _torch(root, names, member)
    if {"config.json", "model.weights.h5"} <= names:
        return _keras(member)
    if names and all(name.endswith(".npy") for name in names):
        arrays = {name.removesuffix(".npy"): npy.array(member(name)) for name in sorted(names)}
        return Content("npz file", arrays)
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise CheckpointError(
            "is a program of torch.export (.pt2). Save the state_dict of the module instead: "
            "torch.save(module.state_dict(), path)."
        )
    shown = ", ".join(sorted(names)[:3]) or "nothing"
    raise CheckpointError(
        f"is a zip file of {shown}, but those of PyTorch, Keras and NumPy are read."
    )


def _torch(root: str, names: set[str], member: _Member) -> Content:
    order = member(f"{root}/byteorder").strip() if f"{root}/byteorder" in names else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError("is damaged: it has no order of bytes.")
    tree = pickled.read_zip(
        member(f"{root}/data.pkl"), lambda key: member(f"{root}/data/{key}"), order == b"big"
    )
    return Content("PyTorch zip file", flattened(pickled.weights(tree)))


def _keras(member: _Member) -> Content:
    config = _json(member("config.json"))
    if not isinstance(config, dict):
        raise CheckpointError("is damaged: its config.json is no description of a model.")
    return Content("Keras file", hdf5.arrays(member("model.weights.h5"))[0], config)


def _json(text: bytes) -> Any:
    decoded = text.decode("utf-8")
    if len(re.findall(r"[\[{]", decoded)) > 100_000:
        raise CheckpointError("has a config.json that describes no model of this size.")
    return json.loads(decoded)
