"""A trained network with its scaler and window sizes, as `rnn-xp train` leaves it in a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp import checkpoint
from rnn_xp._typing import Params
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.data.scalers import Scaler
from rnn_xp.network import Network
from rnn_xp.training.files import check_schema

__all__ = ["Model", "describe_model", "load_model"]

_Floats = NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network with what is needed to use it.

    Attributes
    ----------
    net : Network
    params : Params
    scaler : Scaler
    seq_length, horizon : int
    """

    net: Network
    params: Params
    scaler: Scaler
    seq_length: int
    horizon: int

    def predict(self, x: Any, backend: Backend) -> _Floats:
        """Forecast from scaled windows (N, T, I): (N, horizon) on the host, in original units."""
        pred = self.net.predict(self.params, backend.asarray(x))
        return self.scaler.inverse_target(to_numpy(pred))


def describe_model(scaler: Scaler, seq_length: int, horizon: int) -> dict[str, Any]:
    """Metadata that make a model of a network's parameters in a file."""
    return {
        "scaler": dataclasses.asdict(scaler),
        "seq_length": seq_length,
        "horizon": horizon,
    }


def load_model(path: str | Path, backend: Backend) -> Model:
    """Load the model of a run onto a backend, wherever it was trained.

    Parameters
    ----------
    path : path
        A run folder, whose model.safetensors is read, or any of the folder's safetensors files.
    backend : Backend

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        If the file is damaged or of another kind.
    """
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    arrays, about = checkpoint.load(path)
    check_schema(path, about)
    try:
        net, scaler = Network(**about["network"]), Scaler(**about["scaler"])
        seq_length, horizon = int(about["seq_length"]), int(about["horizon"])
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(
            f"{path} describes no network of this version: {error}."
        ) from error
    if "training" in about:  # beside the parameters there is what the training needs
        arrays = {name: array for name, array in arrays.items() if name in net.shapes}
    if {name: array.shape for name, array in arrays.items()} != net.shapes:
        raise checkpoint.CheckpointError(f"{path}: names or shapes do not match its network.")
    params = {name: backend.asarray(arrays[name]) for name in net.shapes}
    return Model(net, params, scaler, seq_length, horizon)
