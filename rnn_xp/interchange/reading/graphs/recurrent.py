"""The operators RNN, GRU and LSTM.

::

    operator    gates       activations           in `rnn_xp.Network`
    RNN         h           Tanh or Relu          h
    GRU         z, r, h     Sigmoid, Tanh         r, z, n; reset_after is linear_before_reset
    LSTM        i, o, f, c  Sigmoid, Tanh, Tanh   i, f, g, o
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.interchange.reading.graphs.moves import Inputs
from rnn_xp.interchange.reading.graphs.values import Data, Entries, GraphError, Value, stacked
from rnn_xp.interchange.reading.stack import Direction, two_biases
from rnn_xp.interchange.tensors import join_biases, reorder

__all__ = ["CELLS", "recurrent"]

CELLS = {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
"""Cells by operator."""

_ORDERS = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 2, 3, 1)}  # new block j is old block p[j]
_ACTIVATIONS = {
    "rnn": (("tanh",), ("relu",)),
    "gru": (("sigmoid", "tanh"),),
    "lstm": (("sigmoid", "tanh", "tanh"),),
}
_REFUSED = {
    "clip": "clips the gates (clip)",
    "activation_alpha": "has activations with parameters (activation_alpha)",
    "activation_beta": "has activations with parameters (activation_beta)",
}


def recurrent(
    operator: str, inputs: Inputs, attributes: dict[str, Any], entries: Entries
) -> list[Value]:
    """Read one operator; its directions become units of ``entries``.

    Parameters
    ----------
    operator : {"RNN", "GRU", "LSTM"}
    inputs : list of Value or None
    attributes : dict
    entries : Entries

    Returns
    -------
    list of Data
        Its outputs Y, Y_h and, for an LSTM, Y_c.

    Raises
    ------
    GraphError
        If it has an option that no cell here has.
    """
    cell = CELLS[operator]
    x = inputs[0]
    if not isinstance(x, Data):
        raise GraphError("its input is constant")
    for name, text in _REFUSED.items():
        if attributes.get(name) not in (None, 0.0, []):
            raise GraphError(f"it {text}")
    if attributes.get("input_forget"):
        raise GraphError("it couples input and forget gate (input_forget)")
    first = attributes.get("layout") == 1  # batch first
    if len(x.shape) != 3:
        raise GraphError(f"its input has {len(x.shape)} axes; 3 are required")
    xs = x.each(lambda part: part.transpose(1, 0, 2)) if first else x
    w, r, b = _weights(inputs, x.shape[2])
    directions, hidden = r.shape[0], r.shape[2]
    flips = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(
        attributes.get("direction", "forward"), []
    )
    if len(flips) != directions or attributes.get("hidden_size", hidden) != hidden:
        raise GraphError("its weights do not fit its direction and hidden_size")
    facts = _facts(cell, attributes, directions)
    _check_rest(inputs, xs.shape[0])
    columns, turned, scale, offset = _columns(xs, entries)
    outs = []
    for at, flip in enumerate(flips):
        direction, shift = _direction(cell, w[at], r[at], b[at], facts, (scale, offset))
        outs.append(
            entries.add(
                "state", xs.shape[1], xs.shape[0], hidden, cell=cell, sources=columns,
                reverse=flip != turned, direction=direction, shift=shift, **facts,
            )
        )  # fmt: skip
    return _outputs(outs, flips, turned, first, entries, cell == "lstm")


def _weights(inputs: Inputs, size: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H), whose shapes fit each other."""
    w, r, b = (inputs[at] if at < len(inputs) else None for at in (1, 2, 3))
    if not isinstance(w, np.ndarray) or not isinstance(r, np.ndarray) or isinstance(b, Data):
        raise GraphError("its weights are no constants")
    if w.ndim != 3 or r.ndim != 3 or w.shape[:2] != r.shape[:2] or w.shape[2] != size:
        raise GraphError(f"weights of shapes {w.shape} and {r.shape} do not fit {size} inputs")
    b = np.zeros((r.shape[0], 2 * r.shape[1]), r.dtype) if b is None else b
    if b.shape != (r.shape[0], 2 * r.shape[1]) or not r.shape[2]:
        raise GraphError(f"a bias of shape {b.shape} does not fit")
    return w, r, b


def _facts(cell: str, attributes: dict[str, Any], directions: int) -> dict[str, Any]:
    """Return what the operator says of the network: the activation, or the kind of a GRU."""
    gates = {"rnn": 1, "gru": 2, "lstm": 3}[cell]
    given = [str(name).lower() for name in attributes.get("activations", [])]
    each = tuple(given[:gates]) or _ACTIVATIONS[cell][0]
    if each not in _ACTIVATIONS[cell] or given not in ([], list(each) * directions):
        raise GraphError(f"it has the activations {', '.join(given)}, which no cell here has")
    if cell == "gru":
        return {"reset_after": bool(attributes.get("linear_before_reset", 0))}
    return {"activation": each[0]} if cell == "rnn" else {}


def _check_rest(inputs: Inputs, steps: int) -> None:
    """Refuse lengths, peepholes and initial states that are not zero."""
    lengths, *states, peepholes = (inputs[at] if at < len(inputs) else None for at in (4, 5, 6, 7))
    if isinstance(lengths, Data) or (lengths is not None and (lengths != steps).any()):
        raise GraphError(
            "it is given lengths of the rows (sequence_lens). Export the model without them, and "
            "give lengths= to Network.forward"
        )
    if peepholes is not None and (isinstance(peepholes, Data) or peepholes.any()):
        raise GraphError("it has peepholes (input P), which no cell here has")
    for state in states:
        if isinstance(state, np.ndarray) and state.any():
            raise GraphError("it begins with a state that is not zero (initial_h, initial_c)")


def _columns(
    xs: Data, entries: Entries
) -> tuple[list[tuple[int, int]], bool, NDArray[np.float64], NDArray[np.float64]]:
    """Return the origin of each column of the inputs, and True if they are read from the end.

    Also returned are the scale and the offset of the columns.
    """
    origins = entries.origins(xs)
    if not entries.kinds(origins) <= {"input", "state"}:
        raise GraphError("it reads neither the input nor the states of a layer")
    steps, rows, _ = xs.shape
    times = np.arange(steps).reshape(-1, 1, 1)
    turned = bool((origins.step == times[::-1]).all()) and steps > 1
    if (
        not (turned or (origins.step == times).all())
        or not (origins.row == np.arange(rows).reshape(1, -1, 1)).all()
    ):
        raise GraphError("it reads steps or rows in an order of its own")
    for part in (origins.unit, origins.column, xs.scale, xs.offset):
        if (part != part[:1, :1]).any():
            raise GraphError("it reads other values at other steps")
    pairs = zip(origins.unit[0, 0].tolist(), origins.column[0, 0].tolist(), strict=True)
    return list(pairs), turned, xs.scale[0, 0], xs.offset[0, 0]


def _direction(
    cell: str, w: NDArray[Any], r: NDArray[Any], b: NDArray[Any], facts: dict[str, Any], affine: Any
) -> tuple[Direction, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the weights in our order, and scale and offset of the inputs."""
    order, rows = _ORDERS[cell], r.shape[0]
    if rows != len(order) * r.shape[1]:
        raise GraphError(f"recurrent weights of shape {r.shape} do not fit a {cell}")
    w, r = reorder(w, order), reorder(r, order)
    first, second = reorder(b[:rows], order), reorder(b[rows:], order)
    if cell == "gru" and not facts["reset_after"]:
        return Direction(w, r, join_biases(first, second)), affine
    return two_biases(cell, w, r, first, second), affine


def _outputs(
    outs: list[Data], flips: list[bool], turned: bool, first: bool, entries: Entries, lstm: bool
) -> list[Value]:
    """Return Y, Y_h and Y_c, of the entries (rows, steps, columns) of each direction."""
    by = -1 if turned else 1
    steps = [out.each(lambda part: part.transpose(1, 0, 2)[::by]) for out in outs]
    ends = [each.at(0, 0 if flip else -1) for each, flip in zip(steps, flips, strict=True)]
    y = stacked(steps, lambda parts: np.stack(parts, axis=1))  # (T, D, N, H)
    states = [stacked(ends, np.stack)]  # (D, N, H)
    if lstm:
        rows, _, columns = outs[0].shape
        cells = [entries.add("cell", rows, 0, columns).at(1, 0) for _ in outs]
        states.append(stacked(cells, np.stack))
    if first:
        y = y.each(lambda part: part.transpose(2, 0, 1, 3))
        states = [each.each(lambda part: part.transpose(1, 0, 2)) for each in states]
    return [y, *states]
