"""A Keras model of a network, with its weights: ``to_model(net, params).save("model.keras")``.

Unlike `rnn_xp.interchange.keras`, which arranges arrays, this needs Keras and one of its backends.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnn_xp._typing import Array
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import keras
from rnn_xp.interchange.tensors import check_expressible, host_params
from rnn_xp.network import Network

__all__ = ["to_model"]

_LAYERS = {"rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}


def to_model(
    net: Network,
    params: Mapping[str, Array],
    *,
    scaler: Scaler | None = None,
    steps: int | None = None,
) -> Any:
    """Build a Keras model that predicts as the network does.

    Parameters
    ----------
    net : Network
        A network that `rnn_xp.interchange.keras` can express, or one with a linear path beside it.
    params : Params
        Parameters of any library; float64 is cast to float32, with a warning.
    scaler : Scaler, optional
        Scaler to include in the model: input and prediction are then in original units.
    steps : int, optional
        Number of steps T of an input; required by a linear path, otherwise open by default.

    Returns
    -------
    keras.Model
        ``model.save("model.keras")`` makes a file that ``keras.saving.load_model`` opens.

    Raises
    ------
    ValueError
        If Keras has no such layer, or an argument does not fit.
    ImportError
        If Keras or its backend is not installed.
    """
    check_expressible(net, "Keras", cells=_LAYERS)
    plain = dataclasses.replace(net, linear_lags=0)
    if net.linear_lags and (steps is None or steps < net.linear_lags):
        raise ValueError(
            f"Keras needs steps >= linear_lags={net.linear_lags} for the linear path, got {steps}."
        )
    host = host_params(net, params)
    if any(array.dtype == np.float64 for array in host.values()):
        warnings.warn("Keras: float64 parameters are cast to float32.", UserWarning, stacklevel=2)
        host = {name: array.astype(np.float32) for name, array in host.items()}
    linear = host.pop("readout.w_xy", None)
    weights = dict(zip(keras.weight_names(plain), keras.to_weights(plain, host), strict=True))
    layers = _load()
    x = seen = layers.Input((steps, net.input_size), name="x")
    if scaler is not None:
        variance = np.square(scaler.scale).tolist()
        seen = layers.layers.Normalization(mean=list(scaler.offset), variance=variance)(x)
    h, filled = _recurrent(layers.layers, net, seen)
    readout = layers.layers.Dense(net.output_size, name="readout")
    y = readout(h)
    filled["readout"] = readout
    if linear is not None:
        first = (steps or 0) - net.linear_lags
        window = layers.layers.Flatten()(layers.layers.Cropping1D((first, 0))(seen))
        path = layers.layers.Dense(net.output_size, use_bias=False, name="linear")
        y = layers.layers.Add()([y, path(window)])
        path.set_weights([np.ascontiguousarray(linear.T)])
    if net.output_activation != "identity":
        y = layers.layers.Activation(net.output_activation)(y)
    if scaler is not None:
        y = layers.layers.Rescaling(scaler.scale[0], scaler.offset[0])(y)
    for name, layer in filled.items():
        layer.set_weights([array for key, array in weights.items() if key.startswith(f"{name}.")])
    return layers.Model(x, y, name="rnn_xp")


def _recurrent(layers: Any, net: Network, x: Any) -> tuple[Any, dict[str, Any]]:
    """Apply the recurrent layers; return what the readout sees, and the layers by name."""
    options: dict[str, Any] = {"reset_after": net.reset_after} if net.cell == "gru" else {}
    if net.cell == "rnn":
        options["activation"] = net.activation
    every = net.topology == "many_to_many" or net.read != "last"
    made: dict[str, Any] = {}
    for at in range(net.num_layers):
        name = f"layer{at}"
        layer = getattr(layers, _LAYERS[net.cell])(
            net.hidden_size, return_sequences=every or at < net.num_layers - 1, name=name, **options
        )
        made[name] = layers.Bidirectional(layer, name=name) if net.bidirectional else layer
        x = made[name](x)
    if net.topology == "many_to_one" and net.read != "last":
        pooling = {"mean": "GlobalAveragePooling1D", "max": "GlobalMaxPooling1D"}[net.read]
        x = getattr(layers, pooling)()(x)
    return x, made


def _load() -> Any:
    try:
        return importlib.import_module("keras")
    except ImportError as error:
        raise ImportError(
            "Keras and one of its backends are required. Install them with: pip install keras jax, "
            "and set KERAS_BACKEND=jax."
        ) from error
