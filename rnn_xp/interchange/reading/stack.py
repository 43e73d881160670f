"""A recurrent model in any file: layers, each of one or two directions, and a readout.

`assemble` makes the network and its parameters of it, and lists what nobody said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange.tensors import Floats, join_biases, take
from rnn_xp.network import Network

__all__ = ["CELLS", "DEFAULTS", "Direction", "Stack", "assemble", "cell_of", "two_biases"]

CELLS = {1: "rnn", 3: "gru", 4: "lstm"}
"""Cells by their number of gates."""

DEFAULTS = {
    "topology": "many_to_one",
    "activation": "tanh",
    "read": "last",
    "output_activation": "identity",
}
"""What is assumed if neither the file nor the caller says it."""


class Direction(NamedTuple):
    """Weights of one direction of a layer, gates in the order of `rnn_xp.Network`.

    Attributes
    ----------
    w_xh, w_hh : ndarray (G*H, I), (G*H, H)
    b_h : ndarray (G*H,)
    b_hn : ndarray (H,), optional
        Second bias of the candidate of a reset-after GRU.
    """

    w_xh: Floats
    w_hh: Floats
    b_h: Floats
    b_hn: Floats | None = None


@dataclass
class Stack:
    """A model: layers from the input on, and a readout.

    Attributes
    ----------
    cell : str
    layers : list of tuple of Direction
    names : list of str
        Names of the layers in the file.
    w_hy, b_y : ndarray (O, D*H), (O,)
    says : dict of str to object
        Arguments of `Network` that the file says.
    notes : dict of str to str
        Assumptions of the reader, by what they are about.
    scaler : Scaler, optional
        Scaler that the file has.
    """

    cell: str
    layers: list[tuple[Direction, ...]]
    names: list[str]
    w_hy: Floats
    b_y: Floats
    says: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    scaler: Scaler | None = None


def cell_of(name: str, rows: int, hidden: int) -> str:
    """Return the cell whose recurrent weights have so many rows.

    Raises
    ------
    ValueError
        If there is none; the layer is named.

    Examples
    --------
    >>> cell_of("lstm", 12, 3)
    'lstm'
    """
    cell = CELLS.get(rows // hidden) if hidden and rows % hidden == 0 else None
    if cell is None:
        raise ValueError(
            f"{name}: recurrent weights of shape ({rows}, {hidden}) belong to no known cell; 1, 3 "
            "or 4 times as many rows as columns are those of an RNN, GRU or LSTM."
        )
    return cell


def two_biases(
    cell: str, w_xh: Floats, w_hh: Floats, first: Floats | None, second: Floats | None
) -> Direction:
    """Join two biases of each gate, see `rnn_xp.interchange`; a missing one is zero.

    >>> w = np.zeros((3, 1))
    >>> two_biases("gru", w, w, np.asarray([1.0, 2.0, 3.0]), np.asarray([1.0, 1.0, 5.0]))[2:]
    (array([2., 3., 3.]), array([5.]))
    """
    rows, hidden = w_hh.shape
    zero = np.zeros(rows, w_hh.dtype)
    first, second = (zero if bias is None else bias for bias in (first, second))
    if first.shape != (rows,) or second.shape != (rows,):
        raise ValueError(f"biases of shapes {first.shape}, {second.shape} do not fit {rows} rows.")
    if cell != "gru":
        return Direction(w_xh, w_hh, join_biases(first, second))
    merged = 2 * hidden  # r and z; the candidate's own second bias stays apart
    rest = second.copy()
    rest[merged:] = 0
    return Direction(w_xh, w_hh, join_biases(first, rest), second[merged:].copy())


def assemble(
    stack: Stack, hints: dict[str, Any]
) -> tuple[Network, dict[str, Floats], dict[str, str]]:
    """Make the network and its parameters.

    Parameters
    ----------
    stack : Stack
    hints : dict of str to object
        What the caller says, by the names of `DEFAULTS`; None where they leave it open.

    Returns
    -------
    net : Network
    params : dict of str to ndarray
    assumed : dict of str to str

    Raises
    ------
    ValueError
        If layers have different sizes, numbers are not finite, or a hint contradicts the file.
    """
    hidden = stack.layers[0][0].w_hh.shape[-1]
    for name, layer in zip(stack.names, stack.layers, strict=True):
        if len(layer) != len(stack.layers[0]):
            raise ValueError(f"{name} has {len(layer)} direction(s), but {stack.names[0]} has not.")
        if (other := layer[0].w_hh.shape[-1]) != hidden:
            raise ValueError(
                f"{name} has {other} hidden units and {stack.names[0]} has {hidden}, but all "
                "layers of a network here have the same number."
            )
    choices, notes = _choices(stack, hints), dict(stack.notes)
    net = Network(
        cell=stack.cell,
        input_size=stack.layers[0][0].w_xh.shape[-1],
        hidden_size=hidden,
        output_size=len(stack.w_hy),
        num_layers=len(stack.layers),
        bidirectional=len(stack.layers[0]) == 2,
        **choices,
    )
    arrays: dict[str, Any] = {"readout.w_hy": stack.w_hy, "readout.b_y": stack.b_y}
    for at, layer in enumerate(stack.layers):
        for reverse, direction in enumerate(layer):
            prefix = net.layers.prefix(at, reverse)
            fields = direction._asdict().items()
            arrays |= {prefix + name: array for name, array in fields if array is not None}
    for name in DEFAULTS:
        relevant = name != "activation" or net.cell == "rnn"
        relevant &= name != "read" or net.topology == "many_to_one"
        if relevant and name not in stack.says and hints.get(name) is None:
            notes[name] = DEFAULTS[name]
    params = take("its weights", arrays, net.shapes)
    return net, {name: params[name] for name in net.shapes}, notes


def _choices(stack: Stack, hints: dict[str, Any]) -> dict[str, Any]:
    choices = dict(stack.says)
    for name in DEFAULTS:
        hint = hints.get(name)
        if hint is not None and stack.says.get(name, hint) != hint:
            raise ValueError(
                f"{name}={hint!r} contradicts the file, which says {stack.says[name]!r}. "
                "Leave it out."
            )
        if hint is not None:
            choices[name] = hint
    if stack.cell != "rnn" and choices.get("activation") == "tanh":
        del choices["activation"]  # which is fixed in a GRU or an LSTM
    return choices
