"""Layers spelled by ONNX's own operators RNN, GRU and LSTM.

::

    operator    W (D, G*H, I)    R (D, G*H, H)    B (D, 2*G*H)              gates
    RNN         w_xh             w_hh             b_h, 0
    GRU         w_xh             w_hh             b_h, then 0, 0, b_hn      z, r, h
    LSTM        w_xh             w_hh             b_h, 0                    i, o, f, c

The operators' own batch-first layout is avoided, because onnxruntime refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnn_xp.interchange.graphs.graph import Graph
from rnn_xp.interchange.tensors import Floats, reorder
from rnn_xp.network import Network

__all__ = ["OPERATORS", "Run", "join_native", "run_native"]

OPERATORS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
_ORDERS = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}  # new block j is old block p[j]
_FORWARD_ONLY = np.asarray([1.0, 0.0]).reshape(2, 1, 1)


class Run(NamedTuple):
    """Values of a stack of layers.

    Attributes
    ----------
    outs : str
        Outputs of the top layer: (T, D, N, H) in the native spelling, (T, N, D*H) in the portable.
    last : str
        Those that ``read="last"`` sees: (D, N, H) or (N, D*H).
    finals : list of list of str
        The fields of the state; for each the final values of layer after layer, (D, N, H) or, in
        the portable spelling, of each layer and direction, (N, H).
    """

    outs: str
    last: str
    finals: list[list[str]]


def run_native(
    graph: Graph,
    net: Network,
    params: Mapping[str, Floats],
    xs: str,
    *,
    mask: str | None,
    initial: Sequence[str],
) -> Run:
    """Add the stack of layers.

    Parameters
    ----------
    graph : Graph
    net : Network
    params : Params
    xs : str
        Inputs (T, N, I).
    mask : str, optional
        (T, 1, N, 1), True within the length of a row. The graph then has the input ``lengths``.
    initial : sequence of str
        The fields of the initial state, each (L*D, N, H); empty for zeros.

    Returns
    -------
    Run
    """
    attributes: dict[str, Any] = {"hidden_size": net.hidden_size}
    if net.bidirectional:
        attributes["direction"] = "bidirectional"
    if net.activation == "relu":
        attributes["activations"] = ["Relu"] * net.directions
    if net.cell == "gru":  # 0, which stands for reset-before, is the operator's default
        attributes["linear_before_reset"] = int(net.reset_after)
    outs = last = ""
    finals: list[list[str]] = [[] for _ in initial]
    lengths = "" if mask is None else "lengths"
    for layer in range(net.num_layers):
        if layer:
            xs = join_native(graph, outs, net, "TDNH")
        below, below_last = outs, last
        weights = [graph.weight(array) for array in _stack(net, params, layer)]
        before = [_of_layer(graph, field, net, layer) for field in initial]
        given = [xs, *weights, *([lengths] if lengths or before else []), *before]
        outs, *fields = graph.add(
            OPERATORS[net.cell], *given, outputs=3 if net.cell == "lstm" else 2, **attributes
        )
        if before and mask is not None:
            # The operators end in zeros where there was no step, which keeps the state.
            steps = graph.add("Unsqueeze", "lengths", graph.integers(1))
            some = graph.add("Greater", steps, graph.constant(0, np.int32))
            fields = [
                graph.add("Where", some, new, old) for new, old in zip(fields, before, strict=True)
            ]
        last = fields[0]
        for values, field in zip(finals, fields, strict=False):
            values.append(field)
        if mask is not None and net.topology == "many_to_many":
            # The operator returns zeros in the padding, where the state shall be carried on:
            # the last state or, in the reverse direction, the one before the first step.
            outs = graph.add("Where", mask, outs, _carried(graph, net, last, before))
        if net.residual and layer:
            outs, last = graph.add("Add", outs, below), graph.add("Add", last, below_last)
    return Run(outs, last, finals)


def _carried(graph: Graph, net: Network, last: str, before: Sequence[str]) -> str:
    if not before:
        forward = graph.constant(_FORWARD_ONLY[: net.directions])
        return str(graph.add("Mul", last, forward))
    if net.directions == 1:
        return last
    return str(graph.add("Where", graph.constant(_FORWARD_ONLY > 0, np.bool_), last, before[0]))


def _of_layer(graph: Graph, field: str, net: Network, layer: int) -> str:
    """Add the part (D, N, H) of a layer in a field of the initial state."""
    ends = (layer * net.directions, (layer + 1) * net.directions, 0)
    return str(graph.add("Slice", field, *(graph.integers(end) for end in ends)))


def join_native(graph: Graph, value: str, net: Network, axes: str) -> str:
    """Join the directions: (T, D, N, H) to (T, N, D*H), or (D, N, H) to (N, D*H)."""
    at = axes.index("D")
    if net.directions == 1:
        return str(graph.add("Squeeze", value, graph.integers(at)))
    perm = [*range(at), at + 1, at, at + 2]
    value = graph.add("Transpose", value, perm=perm)
    shape = [0] * (at + 1) + [net.directions * net.hidden_size]  # 0: as it was
    return str(graph.add("Reshape", value, graph.integers(*shape)))


def _stack(net: Network, params: Mapping[str, Floats], layer: int) -> tuple[Floats, ...]:
    """Return the weights of a layer in the operator's form: W, R and B, directions first."""
    order, parts = _ORDERS[net.cell], []
    for direction in range(net.directions):
        prefix = net.layers.prefix(layer, direction)
        bias = params[f"{prefix}b_h"]
        second = np.zeros_like(bias)
        if net.cell == "gru" and net.reset_after:
            second[2 * net.hidden_size :] = params[f"{prefix}b_hn"]
        both = np.concatenate([reorder(bias, order), reorder(second, order)])
        kernels = (reorder(params[prefix + name], order) for name in ("w_xh", "w_hh"))
        parts.append((*kernels, both))
    return tuple(np.stack(arrays) for arrays in zip(*parts, strict=True))
