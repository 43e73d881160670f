"""A network as a graph: lengths, layers, what is read of their states, and the readout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnn_xp.interchange.graphs.graph import Graph
from rnn_xp.interchange.graphs.native import Run, join_native, run_native
from rnn_xp.interchange.graphs.portable import run_portable
from rnn_xp.interchange.tensors import Floats
from rnn_xp.network import Network

__all__ = ["FIELDS", "Form", "Predicted", "add_network"]

_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax"}

FIELDS = {"rnn": ("h",), "gru": ("h",), "lstm": ("h", "c")}
"""Fields of the state of each cell."""


@dataclass(frozen=True)
class Form:
    """The form of a graph.

    Attributes
    ----------
    spelling : {"native", "portable", "loop"}
    lengths : bool
        If True, the graph has the input ``lengths``.
    stateful : bool
        If True, the state is an input and an output.
    rows, steps : int or str
        N and T, or the names of sizes that are open.
    """

    spelling: str = "native"
    lengths: bool = False
    stateful: bool = False
    rows: int | str = "batch"
    steps: int | str = "time"


class Predicted(NamedTuple):
    """Values of a network: the prediction (N, O) or (T, N, O), and the fields of its state."""

    pred: str
    finals: list[str]


def add_network(
    graph: Graph, net: Network, params: Mapping[str, Floats], xs: str, form: Form
) -> Predicted:
    """Add a network.

    Parameters
    ----------
    graph : Graph
    net : Network
    params : Params
    xs : str
        Inputs (T, N, I).
    form : Form
        The inputs that it names, ``lengths``, ``initial_h`` and ``initial_c``, must be declared.

    Returns
    -------
    Predicted
    """
    native = form.spelling == "native"
    mask = _mask(graph, xs, form) if form.lengths else None
    initial = [f"initial_{f}" for f in FIELDS[net.cell]] if form.stateful else []
    if native:
        run = run_native(graph, net, params, xs, mask=mask, initial=initial)
    else:
        run = run_portable(
            graph, net, params, xs, mask=mask, initial=initial,
            rows=form.rows, steps=form.steps, loop=form.spelling == "loop",
        )  # fmt: skip
    y = graph.add("MatMul", _read(graph, net, run, mask, native), _weight(graph, params, "w_hy"))
    y = graph.add("Add", y, graph.weight(params["readout.b_y"]))
    if net.linear_lags:
        window = _window(graph, net, xs)
        y = graph.add("Add", y, graph.add("MatMul", window, _weight(graph, params, "w_xy")))
    if net.output_activation != "identity":
        axis = {"axis": -1} if net.output_activation == "softmax" else {}
        y = graph.add(_ACTIVATIONS[net.output_activation], y, **axis)
    return Predicted(y, [_final(graph, values, native) for values in run.finals[: len(initial)]])


def _weight(graph: Graph, params: Mapping[str, Floats], name: str) -> str:
    return graph.weight(params[f"readout.{name}"].T)


def _read(graph: Graph, net: Network, run: Run, mask: str | None, native: bool) -> str:
    """Add the states that the readout sees, (N, D*H), or (T, N, D*H) for many_to_many."""
    every = net.topology == "many_to_many"
    if every or net.read == "last":
        value = run.outs if every else run.last
    else:
        value = _over_time(graph, net.read, run.outs, mask)
    return join_native(graph, value, net, "TDNH" if every else "DNH") if native else value


def _over_time(graph: Graph, read: str, outs: str, mask: str | None) -> str:
    """Add the mean or maximum over the unmasked steps; an empty row gives 0."""
    if mask is None:
        reduce = {"mean": "ReduceMean", "max": "ReduceMax"}[read]
        return str(graph.add(reduce, outs, axes=[0], keepdims=0))
    zero, axis = graph.constant(0.0), graph.integers(0)
    counted = graph.cast(mask, np.float32)
    count = graph.add("ReduceSum", counted, axis, keepdims=0)  # (1, N, 1) or (N, 1)
    if read == "mean":
        total = graph.add("Where", mask, outs, zero)
        total = graph.add("ReduceSum", total, axis, keepdims=0)
        return str(graph.add("Div", total, graph.add("Max", count, graph.constant(1.0))))
    lowest = graph.add("Where", mask, outs, graph.constant(np.finfo(np.float32).min))
    largest = graph.add("ReduceMax", lowest, axes=[0], keepdims=0)
    return str(graph.add("Where", graph.add("Greater", count, zero), largest, zero))


def _mask(graph: Graph, xs: str, form: Form) -> str:
    """Add the mask (T, 1, N, 1) or (T, N, 1), True within the length of a row."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    steps = graph.add("Gather", graph.add("Shape", xs), zero)
    positions = graph.add("Range", zero, steps, one)
    axes = (1, 2, 3) if form.spelling == "native" else (1, 2)
    positions = graph.add("Unsqueeze", positions, graph.integers(*axes))
    size = graph.cast("lengths", np.int64)
    size = graph.add("Unsqueeze", size, graph.integers(1))
    return str(graph.add("Less", positions, size))


def _window(graph: Graph, net: Network, xs: str) -> str:
    """Add the last steps of xs (T, N, I), side by side: (N, L*I)."""
    start, end = graph.integers(-net.linear_lags), graph.integers(np.iinfo(np.int64).max)
    last = graph.add("Slice", xs, start, end, graph.integers(0))
    last = graph.add("Transpose", last, perm=[1, 0, 2])
    return str(graph.add("Reshape", last, graph.integers(0, net.linear_lags * net.input_size)))


def _final(graph: Graph, values: list[str], native: bool) -> str:
    """Add a field of the final state, (L*D, N, H)."""
    if not native:
        values = [graph.add("Unsqueeze", value, graph.integers(0)) for value in values]
    return values[0] if len(values) == 1 else str(graph.add("Concat", *values, axis=0))
