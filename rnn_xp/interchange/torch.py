"""PyTorch: the ``state_dict`` of ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` with an ``nn.Linear``.

::

    weight_ih_l0, weight_ih_l0_reverse, weight_ih_l1, ...     w_xh   (G*H, I), then (G*H, D*H)
    weight_hh_l0, ...                                         w_hh   (G*H, H)
    bias_ih_l0, ...                                           b_h    (G*H,)
    bias_hh_l0, ...                                           0, but for b_hn in a GRU's last block
    weight, bias of the Linear                                w_hy   (O, D*H),  b_y (O,)

Gates are in PyTorch's order here too, so no block is moved. The arrays do not contain everything:
``batch_first=True``, ``nonlinearity="relu"``, which states are read (``net.read``) and an
activation after the Linear must be specified again in PyTorch.

Biases: see `rnn_xp.interchange`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rnn_xp._typing import Array
from rnn_xp.interchange.tensors import Floats, check_expressible, host_params, join_biases, take
from rnn_xp.network import Network

__all__ = ["GATES", "Found", "from_state_dict", "infer_network", "to_state_dict"]

GATES = {"rnn": "h", "gru": "r,z,n", "lstm": "i,f,g,o"}
"""Order of the gates of each cell."""

_CELLS = {1: "rnn", 3: "gru", 4: "lstm"}


def to_state_dict(
    net: Network, params: Mapping[str, Array], *, rnn: str = "rnn", readout: str = "readout"
) -> dict[str, Floats]:
    """Name parameters as PyTorch does.

    Parameters
    ----------
    net : Network
    params : Params
        Parameters of any library.
    rnn, readout : str
        Attributes of the PyTorch module that hold the recurrent layers and the Linear.

    Returns
    -------
    dict of str to ndarray
        Keys such as ``"rnn.weight_ih_l0"``. ``{k: torch.from_numpy(v) for k, v in ...}`` turns it
        into a ``state_dict``.

    Raises
    ------
    ValueError
        If PyTorch has no such layer, or the parameters do not belong to the network.

    Examples
    --------
    >>> net = Network(cell="gru", hidden_size=4)
    >>> state = to_state_dict(net, net.init(seed=0))
    >>> list(state)[:4]
    ['rnn.weight_ih_l0', 'rnn.weight_hh_l0', 'rnn.bias_ih_l0', 'rnn.bias_hh_l0']
    >>> state["readout.weight"].shape
    (1, 4)
    """
    _check(net)
    ours, theirs = host_params(net, params), _shapes(net, rnn, readout)
    state: dict[str, Floats] = {}
    for prefix, tag in _layers(net, rnn):
        bias = ours[f"{prefix}b_h"]
        second = np.zeros_like(bias)
        if net.cell == "gru":
            second[2 * net.hidden_size :] = ours[f"{prefix}b_hn"]
        layer = (ours[f"{prefix}w_xh"], ours[f"{prefix}w_hh"], bias, second)
        state |= {tag(name): array for name, array in zip(_NAMES, layer, strict=True)}
    state[_join(readout, "weight")] = ours["readout.w_hy"]
    state[_join(readout, "bias")] = ours["readout.b_y"]
    return {name: state[name] for name in theirs}


def from_state_dict(
    net: Network, state: Mapping[str, Any], *, rnn: str = "rnn", readout: str = "readout"
) -> dict[str, Floats]:
    """Read the parameters of a network from a ``state_dict``.

    The two biases of a gate become their sum. This changes no prediction, but it changes how
    further training proceeds, see `rnn_xp.interchange`.

    Parameters
    ----------
    net : Network
        Network of the same sizes; `infer_network` makes one.
    state : mapping of str to array
        PyTorch tensors, or arrays of any other library.
    rnn, readout : str
        As for `to_state_dict`.

    Returns
    -------
    Params
        NumPy arrays with the dtype of the state; half precision becomes float32.

    Raises
    ------
    ValueError
        If a tensor is missing, unknown, not finite or of the wrong shape or dtype; it is named.

    Examples
    --------
    >>> net = Network(cell="lstm", hidden_size=4)
    >>> params = net.init(seed=0)
    >>> again = from_state_dict(net, to_state_dict(net, params))
    >>> all((again[name] == params[name]).all() for name in params)
    True
    """
    _check(net)
    theirs = take("PyTorch's state_dict", state, _shapes(net, rnn, readout))
    params: dict[str, Floats] = {}
    for prefix, tag in _layers(net, rnn):
        w_xh, w_hh, first, second = (theirs[tag(name)] for name in _NAMES)
        params |= {f"{prefix}w_xh": w_xh, f"{prefix}w_hh": w_hh}
        if net.cell == "gru":
            merged = 2 * net.hidden_size  # r and z; n's own second bias stays apart
            params[f"{prefix}b_hn"] = second[merged:].copy()
            second[merged:] = 0
        params[f"{prefix}b_h"] = join_biases(first, second)
    params["readout.w_hy"] = theirs[_join(readout, "weight")]
    params["readout.b_y"] = theirs[_join(readout, "bias")]
    return {name: params[name] for name in net.shapes}


class Found(NamedTuple):
    """Result of `infer_network`.

    Attributes
    ----------
    net : Network
    rnn, readout : str
        Names for `from_state_dict`.
    """

    net: Network
    rnn: str
    readout: str


def infer_network(state: Mapping[str, Any], **choices: Any) -> Found:
    """Infer the network to which a ``state_dict`` belongs, from names and shapes.

    Parameters
    ----------
    state : mapping of str to array
    **choices
        Arguments of `Network` that names and shapes do not show, such as activation="relu".

    Returns
    -------
    Found

    Raises
    ------
    ValueError
        If there is not exactly one recurrent module and one Linear.

    Examples
    --------
    >>> net = Network(cell="gru", num_layers=2, bidirectional=True, hidden_size=4)
    >>> state = to_state_dict(net, net.init(seed=0), rnn="gru", readout="head.0")
    >>> found = infer_network(state)
    >>> found.net == net, found.rnn, found.readout
    (True, 'gru', 'head.0')
    """
    shapes = {str(name): tuple(array.shape) for name, array in state.items()}
    recurrent = [name for name in shapes if name.rpartition(".")[2] == "weight_hh_l0"]
    linear = [name for name in shapes if name.rpartition(".")[2] == "weight"]
    for what, names in (("nn.RNN, nn.GRU or nn.LSTM", recurrent), ("nn.Linear", linear)):
        if len(names) != 1:
            raise ValueError(
                f"PyTorch's state_dict: exactly one {what} is required, found {len(names)}"
                + (f": {', '.join(sorted(names)[:4])}." if names else ".")
            )
    rnn, readout = recurrent[0].rpartition(".")[0], linear[0].rpartition(".")[0]
    rows, hidden = (*shapes[recurrent[0]], 0, 0)[:2]
    cell = _CELLS.get(rows // hidden) if hidden and rows % hidden == 0 else None
    inputs, outputs = shapes.get(_join(rnn, "weight_ih_l0"), ()), shapes[linear[0]]
    if cell is None or len(inputs) != 2 or len(outputs) != 2:
        raise ValueError(
            f"PyTorch's state_dict: {recurrent[0]} of shape {shapes[recurrent[0]]} belongs to no "
            "known cell, or weight_ih_l0 or the Linear's weight does not fit it."
        )
    layers = {
        int(match[1])
        for name in shapes
        if (match := re.fullmatch(re.escape(_join(rnn, "weight_hh_l")) + r"(\d{1,4})", name))
    }
    sizes = {
        "cell": cell,
        "input_size": inputs[1],
        "hidden_size": hidden,
        "output_size": outputs[0],
        "num_layers": max(layers) + 1,
        "bidirectional": _join(rnn, "weight_hh_l0_reverse") in shapes,
    }
    return Found(Network(**{**choices, **sizes}), rnn, readout)


_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _check(net: Network) -> None:
    check_expressible(
        net,
        "PyTorch",
        cells=GATES,
        layer_norm="nn.RNN, nn.GRU and nn.LSTM have none",
        residual="nn.RNN, nn.GRU and nn.LSTM have none",
        reset_after="nn.GRU applies the reset gate after the product only",
        linear_lags="a module of the recurrent layers and a readout has no such path",
    )


def _shapes(net: Network, rnn: str, readout: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, tag in _layers(net, rnn):
        w_xh, w_hh = net.shapes[f"{prefix}w_xh"], net.shapes[f"{prefix}w_hh"]
        layer = (w_xh, w_hh, w_hh[:1], w_hh[:1])
        shapes |= {tag(name): shape for name, shape in zip(_NAMES, layer, strict=True)}
    shapes[_join(readout, "weight")] = net.shapes["readout.w_hy"]
    shapes[_join(readout, "bias")] = net.shapes["readout.b_y"]
    return shapes


def _layers(net: Network, rnn: str) -> Any:
    """Yield the prefix of each layer and direction, and the function that makes PyTorch's names."""
    for layer, reverse in itertools.product(range(net.num_layers), range(net.directions)):
        tail = f"_l{layer}" + ("_reverse" if reverse else "")
        yield net.layers.prefix(layer, reverse), lambda name, tail=tail: _join(rnn, name + tail)


def _join(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name
