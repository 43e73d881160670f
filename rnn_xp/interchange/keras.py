"""Keras: the list that a ``Sequential`` returns from ``get_weights`` and takes in ``set_weights``.

::

    layer                 kernel (I, G*H)    recurrent_kernel (H, G*H)    bias            gates
    SimpleRNN             w_xh.T             w_hh.T                       (H,)
    GRU                   w_xh.T             w_hh.T                       (2, 3H)         z, r, h
      reset_after=False                                                   (3H,)
    LSTM                  w_xh.T             w_hh.T                       (4H,)           i, f, c, o
    Bidirectional         the three of the forward layer, then those of the backward one
    Dense                 w_hy.T (D*H, O)                                 b_y (O,)

Gates lie along the columns; in the GRU, z and r change places. The arrays do not contain
everything: ``return_sequences=True`` for all layers but the last, ``activation="relu"`` and an
activation of the Dense must be specified again in Keras. ``Bidirectional`` with its default
``merge_mode="concat"`` reads the two final states, as ``read="last"`` does here.

Biases: see `rnn_xp.interchange`. In Keras only a GRU with ``reset_after=True`` has two.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnn_xp._typing import Array
from rnn_xp.interchange.tensors import (
    Floats,
    check_expressible,
    host_params,
    join_biases,
    reorder,
    take,
)
from rnn_xp.network import Network

__all__ = ["GATES", "from_weights", "infer_network", "to_weights", "weight_names"]

GATES = {"rnn": "h", "gru": "z,r,h", "lstm": "i,f,c,o"}
"""Order of the gates of each cell; Keras' c is g here, and the h of its GRU is n."""

_ORDERS = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 1, 2, 3)}  # each its own inverse
_GATES = {"rnn": 1, "gru": 3, "lstm": 4}  # how many
_NAMES = ("kernel", "recurrent_kernel", "bias")


def to_weights(net: Network, params: Mapping[str, Array]) -> list[Floats]:
    """Arrange parameters as Keras does.

    Parameters
    ----------
    net : Network
    params : Params
        Parameters of any library.

    Returns
    -------
    list of ndarray
        The arrays for ``set_weights`` of a ``Sequential`` of the recurrent layers and a ``Dense``,
        in the order of `weight_names`.

    Raises
    ------
    ValueError
        If Keras has no such layer, or the parameters do not belong to the network.

    Examples
    --------
    >>> net = Network(cell="gru", hidden_size=4)
    >>> [w.shape for w in to_weights(net, net.init(seed=0))]
    [(1, 12), (4, 12), (2, 12), (4, 1), (1,)]
    """
    _check(net)
    ours, order = host_params(net, params), _ORDERS[net.cell]
    weights: list[Floats] = []
    for prefix in _prefixes(net):
        weights += [reorder(ours[prefix + name], order).T for name in ("w_xh", "w_hh")]
        bias = reorder(ours[f"{prefix}b_h"], order)
        if net.cell == "gru" and net.reset_after:
            second = np.zeros_like(bias)
            second[2 * net.hidden_size :] = ours[f"{prefix}b_hn"]
            bias = np.stack([bias, second])
        weights.append(bias)
    weights += [ours["readout.w_hy"].T, ours["readout.b_y"]]
    # Transposed arrays are views with another memory layout, which file writers may misread.
    return [np.ascontiguousarray(weight) for weight in weights]


def from_weights(net: Network, weights: Sequence[Any]) -> dict[str, Floats]:
    """Read the parameters of a network from the result of ``get_weights()``.

    Parameters
    ----------
    net : Network
        Network of the same sizes and, for a GRU, the same reset_after.
    weights : sequence of array
        In the order of `weight_names`. In a GRU with reset_after the two biases of r and z become
        their sum. This changes no prediction, but it changes how further training proceeds, see
        `rnn_xp.interchange`.

    Returns
    -------
    Params
        NumPy arrays with the dtype of the weights; half precision becomes float32.

    Raises
    ------
    ValueError
        If an array is missing, unexpected, not finite or of the wrong shape or dtype; it is named.

    Examples
    --------
    >>> net = Network(cell="lstm", hidden_size=4, bidirectional=True)
    >>> params = net.init(seed=0)
    >>> again = from_weights(net, to_weights(net, params))
    >>> all((again[name] == params[name]).all() for name in params)
    True
    """
    _check(net)
    shapes = _shapes(net)
    names = [*shapes, *(f"a weight after {list(shapes)[-1]}" for _ in weights[len(shapes) :])]
    theirs = take("Keras' weights", dict(zip(names, weights, strict=False)), shapes)
    order, params = _ORDERS[net.cell], {}
    for prefix in _prefixes(net):
        kernel, recurrent, bias = (theirs[prefix + name] for name in _NAMES)
        params[f"{prefix}w_xh"] = reorder(kernel.T, order)
        params[f"{prefix}w_hh"] = reorder(recurrent.T, order)
        if net.cell == "gru" and net.reset_after:
            first, second = bias
            merged = 2 * net.hidden_size  # z and r; the candidate's own second bias stays apart
            params[f"{prefix}b_hn"] = second[merged:].copy()
            second[merged:] = 0
            bias = join_biases(first, second)
        params[f"{prefix}b_h"] = reorder(bias, order)
    params |= {"readout.w_hy": theirs["readout.kernel"].T, "readout.b_y": theirs["readout.bias"]}
    return {name: np.ascontiguousarray(params[name]) for name in net.shapes}


def infer_network(weights: Sequence[Any], **choices: Any) -> Network:
    """Infer the network to which the result of ``get_weights()`` belongs, from shapes.

    Parameters
    ----------
    weights : sequence of array
        Three arrays for each direction of each layer, then kernel and bias of a Dense, as
        `from_weights` takes them.
    **choices
        Arguments of `Network` that shapes do not show, such as activation="relu".

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        If the shapes are those of no such model.

    Examples
    --------
    >>> net = Network(cell="gru", hidden_size=4, num_layers=2, bidirectional=True)
    >>> infer_network(to_weights(net, net.init(seed=0))) == net
    True
    """
    shapes = [tuple(array.shape) for array in weights]
    match shapes:
        case [(inputs, columns), (hidden, _), (*two, _), *_, (width, outputs), (_,)] if (
            hidden and columns % hidden == 0 and len(shapes) % 3 == 2
        ):
            cell = {gates: name for name, gates in _GATES.items()}.get(columns // hidden)
            count, directions = len(shapes) // 3, width // hidden
            if cell and directions in (1, 2) and count % directions == 0:
                sizes = {
                    "cell": cell, "input_size": inputs, "hidden_size": hidden,
                    "output_size": outputs, "num_layers": count // directions,
                    "bidirectional": directions == 2,
                }  # fmt: skip
                sizes |= {"reset_after": bool(two)} if cell == "gru" else {}
                net = Network(**{**choices, **sizes})
                if list(_shapes(net).values()) == shapes:
                    return net
    shown = ", ".join(map(str, shapes[:6]))
    raise ValueError(
        f"Keras' weights: arrays of the shapes {shown} are not those of SimpleRNN, GRU or LSTM "
        "layers of one size with biases, and a Dense."
    )


def weight_names(net: Network) -> list[str]:
    """Return the names of the arrays that `to_weights` returns.

    >>> weight_names(Network(hidden_size=4))[:3]
    ['layer0.kernel', 'layer0.recurrent_kernel', 'layer0.bias']
    """
    _check(net)
    return list(_shapes(net))


def _check(net: Network) -> None:
    check_expressible(
        net,
        "Keras",
        cells=GATES,
        layer_norm="SimpleRNN, GRU and LSTM have none",
        residual="a Sequential of SimpleRNN, GRU or LSTM has none",
        linear_lags="a module of the recurrent layers and a readout has no such path",
    )


def _shapes(net: Network) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix in _prefixes(net):
        w_xh, w_hh = net.shapes[f"{prefix}w_xh"], net.shapes[f"{prefix}w_hh"]
        two = (2,) if net.cell == "gru" and net.reset_after else ()
        layer = (w_xh[::-1], w_hh[::-1], (*two, w_hh[0]))
        shapes |= {prefix + name: shape for name, shape in zip(_NAMES, layer, strict=True)}
    w_hy = net.shapes["readout.w_hy"]
    return shapes | {"readout.kernel": w_hy[::-1], "readout.bias": w_hy[:1]}


def _prefixes(net: Network) -> list[str]:
    both = itertools.product(range(net.num_layers), range(net.directions))
    return [net.layers.prefix(layer, direction) for layer, direction in both]
