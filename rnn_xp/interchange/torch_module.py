"""A PyTorch module of a network as source code, and the ``state_dict`` that belongs to it.

The code is complete and short, made to be read, pasted and changed. It needs PyTorch alone; nothing
here does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rnn_xp._typing import Array
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import torch
from rnn_xp.interchange.tensors import Floats, check_expressible, host_params
from rnn_xp.network import Network

__all__ = ["module_code", "module_state"]

_CLASSES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
_ACTIVATIONS = {
    "sigmoid": "torch.sigmoid(y)", "tanh": "torch.tanh(y)", "softmax": "torch.softmax(y, dim=-1)",
}  # fmt: skip

_CODE = '''"""A network trained with rnn_xp, as a module of PyTorch: $network.

    net = load()                      # weights: $weights
    with torch.no_grad():
        pred = net(x)                 # x (batch, time, $inputs) -> $result, $units
"""

from pathlib import Path

import torch
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.$layer
        self.readout = nn.Linear($states, $outputs)
$more
    def forward(self, x):
$body        return y


def load(path=Path(__file__).with_name("$weights")):
    from safetensors.torch import load_file

    net = Network()
    weights = load_file(path)
    net.to(weights["readout.weight"].dtype).load_state_dict(weights)
    return net.eval()
'''


def module_code(
    net: Network, *, scaler: Scaler | None = None, weights: str = "torch.safetensors"
) -> str:
    """Return the source of a module that predicts as the network does.

    Parameters
    ----------
    net : Network
        A network that `rnn_xp.interchange.torch` can express, or one with a linear path beside it.
    scaler : Scaler, optional
        Scaler to write into the code: input and prediction are then in original units.
    weights : str
        Name of the file of weights, which its ``load()`` looks for beside the code.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If PyTorch has no such layer.

    Examples
    --------
    >>> lines = module_code(Network(cell="gru", hidden_size=4)).splitlines()
    >>> [line.strip() for line in lines if "self." in line]  # doctest: +NORMALIZE_WHITESPACE
    ['self.rnn = nn.GRU(1, 4, batch_first=True)', 'self.readout = nn.Linear(4, 1)',
     'hs, _ = self.rnn(x)', 'y = self.readout(h)']
    """
    _check(net)
    layer = [f"{net.input_size}, {net.hidden_size}"]
    layer += [f"num_layers={net.num_layers}"] if net.num_layers > 1 else []
    layer += ["bidirectional=True"] if net.bidirectional else []
    layer += ['nonlinearity="relu"'] if net.activation == "relu" else []
    many = net.topology == "many_to_many"
    values = {
        "network": f"{_CLASSES[net.cell]}, {net.num_layers} x {net.hidden_size} units",
        "weights": weights,
        "inputs": net.input_size,
        "result": f"(batch, {'time, ' if many else ''}{net.output_size})",
        "units": "scaled" if scaler is None else "in the units of the data",
        "layer": f"{_CLASSES[net.cell]}({', '.join(layer)}, batch_first=True)",
        "states": net.directions * net.hidden_size,
        "outputs": net.output_size,
        "more": "",
        "body": "".join(f"        {line}\n" for line in _body(net, scaler)),
    }
    if net.linear_lags:
        width = net.linear_lags * net.input_size
        values["more"] = (
            f"        self.linear = nn.Linear({width}, {net.output_size}, bias=False)\n"
        )
    code = _CODE
    for name, value in values.items():
        code = code.replace(f"${name}", str(value))
    return code


def module_state(net: Network, params: Mapping[str, Array]) -> dict[str, Floats]:
    """Return the ``state_dict`` for the module of `module_code`, as NumPy arrays.

    Parameters
    ----------
    net : Network
    params : Params
        Parameters of any library.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If PyTorch has no such layer, or the parameters do not belong to the network.
    """
    _check(net)
    host = host_params(net, params)
    linear = host.pop("readout.w_xy", None)
    state = torch.to_state_dict(dataclasses.replace(net, linear_lags=0), host)
    return state if linear is None else {**state, "linear.weight": linear}


def _body(net: Network, scaler: Scaler | None) -> list[str]:
    """Return the lines of ``forward``."""
    lines = []
    if scaler is not None:
        lines += [
            f"x = (x - x.new_tensor({list(scaler.offset)})) / x.new_tensor({list(scaler.scale)})"
        ]
    if net.topology == "many_to_many":
        lines += ["h, _ = self.rnn(x)"]
    elif net.read == "mean":
        lines += ["hs, _ = self.rnn(x)", "h = hs.mean(dim=1)"]
    elif net.read == "max":
        lines += ["hs, _ = self.rnn(x)", "h = hs.amax(dim=1)"]
    elif net.bidirectional:
        state = "(state, _)" if net.cell == "lstm" else "state"
        lines += [f"_, {state} = self.rnn(x)", "h = torch.cat([state[-2], state[-1]], dim=1)"]
    else:
        lines += ["hs, _ = self.rnn(x)", "h = hs[:, -1]"]
    lines += ["y = self.readout(h)"]
    if net.linear_lags:
        lines += [f"y = y + self.linear(x[:, -{net.linear_lags}:].flatten(1))"]
    if net.output_activation != "identity":
        lines += [f"y = {_ACTIVATIONS[net.output_activation]}"]
    if scaler is not None:
        lines += [f"y = y * {scaler.scale[0]!r} + {scaler.offset[0]!r}"]
    return lines


def _check(net: Network) -> None:
    check_expressible(
        net, "PyTorch", cells=_CLASSES,
        layer_norm="nn.RNN, nn.GRU and nn.LSTM have none",
        residual="nn.RNN, nn.GRU and nn.LSTM have none",
        reset_after="nn.GRU applies the reset gate after the product only",
    )  # fmt: skip
    if net.topology == "one_to_many":
        raise ValueError(
            "PyTorch cannot express topology='one_to_many': its layers need an input at every "
            "step. Export a many_to_many network that is given them."
        )
