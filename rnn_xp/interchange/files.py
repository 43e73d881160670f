"""safetensors files of weights in the layout of PyTorch or Keras.

Files written by this module are ordinary safetensors files, for any reader::

    module.load_state_dict(safetensors.torch.load_file("torch.safetensors"))      # rnn, readout
    tensors = safetensors.numpy.load_file("keras.safetensors")
    model.set_weights([tensors[name] for name in sorted(tensors)])

They also contain a digest of all content, the network and the order of the gates, so `load` needs
only the file. Files from elsewhere have no digest: `read_foreign` reads them unverified.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from rnn_xp import checkpoint
from rnn_xp._typing import Array
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange import keras, torch
from rnn_xp.interchange.reading import safetensors
from rnn_xp.interchange.tensors import Floats
from rnn_xp.network import Network

__all__ = ["LAYOUTS", "Weights", "load", "read_foreign", "save"]

LAYOUTS = {"torch": torch.GATES, "keras": keras.GATES}
"""Order of the gates, for each layout and cell."""

_SCHEMA = 1


class Weights(NamedTuple):
    """Contents of a file written by `save`: network, parameters, layout and remarks."""

    net: Network
    params: dict[str, Floats]
    layout: str
    about: dict[str, Any]


def save(
    path: str | Path,
    layout: str,
    net: Network,
    params: Mapping[str, Array],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write parameters in the layout of PyTorch or Keras.

    Parameters
    ----------
    path : path
    layout : {"torch", "keras"}
    net : Network
    params : Params
    about : mapping, optional
        Remarks for `load` to return: any JSON values.

    Raises
    ------
    ValueError
        If the layout cannot express this network; nothing is written then.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> net = Network(cell="gru", hidden_size=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "torch.safetensors"
    ...     save(path, "torch", net, net.init(seed=0))
    ...     loaded = load(path)
    >>> loaded.net == net
    True
    """
    gates = _gates(layout)
    if layout == "torch":
        tensors = torch.to_state_dict(net, params)
    else:
        names = _keras_names(net)
        tensors = dict(zip(names, keras.to_weights(net, params), strict=True))
    metadata = {
        "interchange": _SCHEMA,
        "layout": layout,
        "gates": gates[net.cell],
        "network": dataclasses.asdict(net),
        "about": dict(about or {}),
    }
    checkpoint.save(path, tensors, metadata)


def load(path: str | Path) -> Weights:
    """Read a file that `save` wrote, and verify it.

    Parameters
    ----------
    path : path

    Returns
    -------
    Weights

    Raises
    ------
    CheckpointError
        If anything is wrong with the file. A tensor that is missing, unknown, damaged or of the
        wrong shape is named, and so is an order of gates that differs from the layout's.
    OSError
        If the file cannot be opened or read.
    """
    tensors, metadata = checkpoint.load(path)
    match metadata:
        case {
            "interchange": int(schema),
            "layout": str(layout),
            "gates": str(gates),
            "network": dict(network),
            "about": dict(about),
        }:
            pass
        case _:
            raise CheckpointError(f"{path} is of rnn_xp's own kind, not of weights for others.")
    if schema != _SCHEMA:
        raise CheckpointError(f"{path} is of schema {schema}, but this version reads {_SCHEMA}.")
    try:
        net = Network(**network)
        if (expected := _gates(layout).get(net.cell)) != gates:
            raise ValueError(f"its gates are in the order {gates}, but {layout} has {expected}")
        if net.num_layers > len(tensors):
            raise ValueError(f"{net.num_layers} layers cannot have {len(tensors)} tensors")
        if layout == "torch":
            return Weights(net, torch.from_state_dict(net, tensors), layout, about)
        names = _keras_names(net)
        for wrong in tensors.keys() ^ set(names):
            raise ValueError(f"{wrong} is {'not known' if wrong in tensors else 'missing'}")
        params = keras.from_weights(net, [tensors[name] for name in names])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit its own description: {error}") from error
    return Weights(net, params, layout, about)


def read_foreign(path: str | Path, *, limit: int = 4 << 30) -> dict[str, NDArray[Any]]:
    """Read the tensors of a safetensors file that was not written here.

    Such a file has no digest: its tensors are returned unverified, and `torch.from_state_dict` or
    `keras.from_weights` checks whether they fit a network.

    Parameters
    ----------
    path : path
    limit : int
        Largest size of a file in bytes, 4 GiB by default; a larger file is not read.

    Returns
    -------
    dict of str to ndarray
        Writable arrays; bfloat16, which NumPy lacks, is widened to float32.

    Raises
    ------
    CheckpointError
        If the file is not a safetensors file, has numbers that are not read, or was written by
        `save`, so that `load` can verify it.
    OSError
        If the file cannot be opened or read.
    """
    try:
        return safetensors.arrays(checkpoint.read(path, limit))
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error.__cause__


def _gates(layout: str) -> dict[str, str]:
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is not known. Valid: {', '.join(LAYOUTS)}.")
    return LAYOUTS[layout]


def _keras_names(net: Network) -> list[str]:
    """Return names whose alphabetical order is the order of the weights."""
    return [f"{at:04}.{name}" for at, name in enumerate(keras.weight_names(net))]
