"""One door for the models of others: the content of a file says how it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rnn_xp import checkpoint
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.data.scalers import Scaler, parse_scaler
from rnn_xp.interchange import files
from rnn_xp.interchange.reading import (
    graph,
    hdf5,
    keras,
    listed,
    msgpack,
    npy,
    pickled,
    safetensors,
    zipped,
)
from rnn_xp.interchange.reading import names as named
from rnn_xp.interchange.reading.content import Content, flattened
from rnn_xp.interchange.reading.stack import assemble
from rnn_xp.interchange.tensors import Floats
from rnn_xp.network import Network

__all__ = ["Loaded", "load"]

# First bytes of files that are not read, and what to do.
_OTHERS = {
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"BZh": "a bzip2 file; unpack it first",
    b"\xfd7zXZ": "an xz file; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstandard file; unpack it first",
    b"GGUF": "a GGUF file; save the weights as safetensors or npz",
    b"PAR1": "a Parquet file, a table and no model",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture",
    b"\x7fELF": "a program",
    b"<": "a text in XML or HTML",
    b"{": "a text in JSON",
}


@dataclass(frozen=True)
class Loaded:
    """Result of `load`; unpacks as ``net, params, assumed``.

    Attributes
    ----------
    net : Network
    params : dict of str to ndarray
    assumed : dict of str to str
        What neither the file nor the caller said, by name, such as ``{"activation": "tanh"}``.
    scaler : Scaler or None
        Scaler of the inputs and of the prediction, if the file has one or the caller gave it.
    kind : str
        Kind of the file, in words.
    about : dict
        Remarks in a file that `rnn_xp.interchange.files` wrote.
    """

    net: Network
    params: dict[str, Floats]
    assumed: dict[str, str]
    scaler: Scaler | None
    kind: str
    about: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.net, self.params, self.assumed))


def load(
    path: str | Path,
    *,
    rnn: str | None = None,
    readout: str | None = None,
    names: Mapping[str, str] | None = None,
    topology: str | None = None,
    activation: str | None = None,
    read: str | None = None,
    output_activation: str | None = None,
    scaler: Scaler | str | None = None,
    limit: int = 4 << 30,
) -> Loaded:
    """Read a network that was trained elsewhere.

    The kind of the file is recognised by its content: weights that `rnn_xp.interchange.files`
    wrote; a state_dict of PyTorch, a Lightning checkpoint (zip file or older pickle); safetensors
    and npz files with the names of PyTorch, Flax, Equinox, MLX or Paddle; .keras, .weights.h5 and
    .h5 of Keras; msgpack of Flax; .eqx of Equinox; .pdparams of Paddle; ONNX graphs. Nothing in a
    file is executed.

    Parameters
    ----------
    path : path
    rnn : str, optional
        Names of the recurrent modules in the file, from the input on, such as "lstm" or
        "enc.0, enc.1"; two directions of a layer are joined by a plus, "forward + backward".
        Needed if the file has several that are not numbered.
    readout : str, optional
        Name of the module of the readout. With ``rnn`` and ``readout`` both given, other arrays
        are ignored, and ``assumed`` lists them.
    names : mapping of str to str, optional
        New names of arrays by their names in the file, for files with names of their own.
    topology, activation, read, output_activation : str, optional
        Arguments of `rnn_xp.Network` that arrays do not show.
    scaler : Scaler or str, optional
        Scaler with which the network was trained; "standard:20:3" is (value - 20) / 3, with commas
        between columns, as in "standard:20,1.5:3,0.1".
    limit : int
        Largest size of the file, unpacked, in bytes; 4 GiB by default.

    Returns
    -------
    Loaded
        It unpacks as ``net, params, assumed``.

    Raises
    ------
    CheckpointError
        If the file is damaged, or of a kind or with a model that is not read; what it is, or the
        part that has no place in a network here, is named.
    ImportError
        If the kind needs a package that is not installed.
    OSError
        If the file cannot be opened or read.
    ValueError, TypeError
        If an argument is not one of those above.

    Notes
    -----
    Two biases of a gate become their sum. This changes no prediction, but it changes how further
    training proceeds, see `rnn_xp.interchange`. A graph of ONNX is accepted only if the network
    predicts the same as the graph on random data.

    Only zip files (PyTorch, Keras, npz) have checksums, and files of `rnn_xp.interchange.files` a
    digest. In files of other kinds a damaged number is read as it is.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> net = rx.Network(cell="gru", hidden_size=4)
    >>> state = rx.interchange.torch.to_state_dict(net, net.init(seed=0), rnn="core")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "weights.npz"
    ...     np.savez(path, **state)
    ...     again, params, assumed = load(path)
    >>> again == net, assumed["read"]
    (True, 'last')
    """
    hints: dict[str, Any] = {
        "topology": topology, "activation": activation, "read": read,
        "output_activation": output_activation,
    }  # fmt: skip
    hints = {name: hint for name, hint in hints.items() if hint is not None}
    Network(hidden_size=1, **hints)  # refuses what no file could make right
    scaler = _scaler(scaler)
    if Path(path).is_dir():
        raise CheckpointError(f"{path}: {_folder(Path(path))}")
    try:
        data = checkpoint.read(path, limit)
        loaded = _own(path, data, hints, named=bool(rnn or readout or names))
        if loaded is None:
            loaded = _foreign(Path(path), data, limit, hints, _Words(rnn, readout, names or {}))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file or folder {path}.") from error
    except (ValueError, RecursionError, MemoryError) as error:
        text = str(error) or type(error).__name__
        raise CheckpointError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    return _with_scaler(path, loaded, scaler)


def _scaler(scaler: object) -> Scaler | None:
    """Return a scaler that a caller gives, or writes."""
    if scaler is None or isinstance(scaler, Scaler):
        return scaler
    if not isinstance(scaler, str):
        raise TypeError(
            "scaler must be a rnn_xp.data.scalers.Scaler or a text KIND:OFFSET:SCALE such as "
            f"'standard:20:3', got {scaler!r}."
        )
    try:
        return parse_scaler(scaler)
    except ValueError as error:
        raise ValueError(f"scaler={error}") from error


class _Words(NamedTuple):
    """What a caller says of names in the file."""

    rnn: str | None
    readout: str | None
    names: Mapping[str, str]


def _own(path: str | Path, data: bytes, hints: dict[str, Any], *, named: bool) -> Loaded | None:
    """Read a file with a digest; return None if it is of another kind."""
    if not safetensors.looks_like(data) or b'"rnn_xp"' not in data[: 1 << 20]:
        return None
    net, params, layout, about = files.load(path)
    if named:
        raise ValueError("rnn=, readout= and names= are for files of others.")
    for name, hint in hints.items():
        if (written := getattr(net, name)) != hint:
            raise ValueError(f"{name}={hint!r} contradicts the file, which says {written!r}.")
    scaler = about.get("scaler")
    return Loaded(
        net, params, {}, None if scaler is None else Scaler(**scaler),
        f"rnn_xp's file in the layout of {layout}", about,
    )  # fmt: skip


def _foreign(path: Path, data: bytes, limit: int, hints: dict[str, Any], words: _Words) -> Loaded:
    if graph.looks_like(data):
        if words.rnn or words.readout or words.names:
            raise ValueError("is a graph of ONNX: rnn=, readout= and names= are for named arrays.")
        stack, verify = graph.understand(
            data, lambda name: checkpoint.read(path.parent / name, limit)
        )
        net, params, assumed = assemble(stack, hints)
        verify(net, params)
        return Loaded(net, params, assumed, stack.scaler, "ONNX graph")
    content = _content(data, limit)
    arrays = content.arrays
    for old, new in words.names.items():
        if old not in arrays:
            raise ValueError(f"has no array {old!r}; it has {', '.join(sorted(arrays)[:8])}.")
        if new in arrays and new not in words.names:
            raise ValueError(f"has an array {new!r} already, beside {old!r}.")
    arrays = {words.names.get(name, name): array for name, array in arrays.items()}
    if content.config is not None:
        if words.rnn or words.readout or words.names:
            raise ValueError("describes its model: rnn=, readout= and names= are for other files.")
        stack = keras.understand(content.config, arrays)
    else:
        notes: dict[str, str] = {}
        if content.groups:
            chosen = words.rnn is not None and words.readout is not None
            notes = listed.check(content.groups, content.arrays, hints, chosen=chosen)
        stack = named.understand(arrays, words.rnn, words.readout)
        both = [each["ignored"] for each in (stack.notes, notes) if "ignored" in each]
        stack.notes |= notes | ({"ignored": ", ".join(both)} if both else {})
    return Loaded(*assemble(stack, hints), stack.scaler, content.kind)


def _content(data: bytes, limit: int) -> Content:
    """Recognise the kind of a file, and read its arrays."""
    if data.startswith(b"PK\x03\x04"):
        return zipped.read(data, limit)
    if data.startswith(hdf5.MAGIC):
        return Content("Keras HDF5 file", *hdf5.arrays(data))
    if data.startswith(npy.MAGIC) or data[:20_000].find(b"\n" + npy.MAGIC) >= 0:
        content = npy.series(data)
        if any(name.isdigit() for name in content.arrays):
            return dataclasses.replace(content, arrays=named.of_places(content.arrays))
        return content
    if data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05":
        tree = pickled.read_plain(data)
        return Content("pickle of arrays", flattened(pickled.weights(tree)))
    if safetensors.looks_like(data):
        return Content("safetensors file", safetensors.arrays(data))
    for start, what in _OTHERS.items():
        if data.startswith(start):
            raise CheckpointError(f"is {what}.")
    if data[4:8] == b"TFL3":
        raise CheckpointError("is a TensorFlow Lite model; import the Keras model it came from.")
    if data[257:262] == b"ustar":
        raise CheckpointError("is a tar archive; unpack it, or save the state_dict again.")
    if msgpack.looks_like(data):
        return msgpack.read(data)
    raise CheckpointError(
        "is of no kind that is read: PyTorch (.pt, .pth, .ckpt), safetensors, npz, Keras (.keras, "
        ".h5), msgpack of Flax, .eqx of Equinox, .pdparams of Paddle, ONNX. It is empty, cut short "
        "or of another kind."
    )


def _folder(path: Path) -> str:
    listed = {each.name for each in path.iterdir()}
    if listed & {"_METADATA", "manifest.ocdbt", "_CHECKPOINT_METADATA"}:
        return (
            "is a checkpoint of Orbax. Restore it in Flax and write it as msgpack: "
            "flax.serialization.to_bytes(params)."
        )
    if "saved_model.pb" in listed:
        return "is a SavedModel of TensorFlow. Save the model as .keras instead."
    return "is a folder; a file is required."


def _with_scaler(path: str | Path, loaded: Loaded, scaler: Scaler | None) -> Loaded:
    if scaler is None and loaded.scaler is None:
        return dataclasses.replace(loaded, assumed={**loaded.assumed, "scaler": "none"})
    if scaler is None:
        return loaded
    if loaded.scaler not in (None, scaler):
        raise CheckpointError(f"{path}: the file has a scaler, {loaded.scaler}. Leave scaler= out.")
    if len(scaler.offset) != loaded.net.input_size:
        raise ValueError(
            f"the scaler has {len(scaler.offset)} columns, but {path} has "
            f"{loaded.net.input_size} inputs."
        )
    return dataclasses.replace(loaded, scaler=scaler)
