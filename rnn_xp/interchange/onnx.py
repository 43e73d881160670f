"""ONNX: a network as a graph that predicts, in several spellings.

::

    x (batch, time, I) -> scale -> Transpose -> layers -> ... -> read -> readout -> pred

The **native** spelling has ONNX's operators RNN, GRU and LSTM, see
`rnn_xp.interchange.graphs.native`: the smallest file, and the fastest in onnxruntime. The
**portable** spelling consists of elementary operators, see `rnn_xp.interchange.graphs.portable`,
in a Scan over the steps, or in a Loop for runtimes that lack Scan (**loop**). It is right in
runtimes that ignore ``sequence_lens``, ``activations`` or ``linear_before_reset``
without a word, `rnn_xp.interchange.consumers` lists them. Batch and time remain symbolic unless
sizes are given. Opset 17 and IR version 8 suit runtimes from 2022 on.

An export needs the package onnx (extra ``onnx``); any runtime runs the graph.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnn_xp._checks import choice, flag, whole
from rnn_xp._typing import Array
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange.graphs.graph import Graph
from rnn_xp.interchange.graphs.native import OPERATORS
from rnn_xp.interchange.graphs.network import FIELDS, Form, add_network
from rnn_xp.interchange.tensors import Floats, check_expressible, host_params
from rnn_xp.network import Network

__all__ = ["HALVES", "SPELLINGS", "check_network", "single", "to_onnx"]

SPELLINGS = ("native", "portable", "loop")
"""Ways to write the layers of a network."""

HALVES = {"float32": False, "float16": True}
"""Precisions of weights, and True for half precision."""


def to_onnx(
    net: Network,
    params: Mapping[str, Array],
    *,
    scaler: Scaler | None = None,
    lengths: bool = False,
    spelling: str = "native",
    stateful: bool = False,
    rows: int | None = None,
    steps: int | None = None,
    dtype: str = "float32",
    about: Mapping[str, Any] | None = None,
) -> Any:
    """Export a network for inference.

    Parameters
    ----------
    net : Network
        A network with a cell "rnn", "gru" or "lstm", many_to_one or many_to_many. Layer
        normalisation requires the portable spelling. Dropout acts in training only and does not
        appear in the graph.
    params : Params
        Parameters of any library; float64 is cast to float32, with a warning.
    scaler : Scaler, optional
        Scaler to include in the graph: ``x`` and ``pred`` are then in original units; float32
        rounds them to 6e-8 of their size.
    lengths : bool
        If True, the graph has a second input, the number of steps of each row. Its predictions
        equal those of `Network.forward`, padding included. In the native spelling several runtimes
        ignore it silently.
    spelling : {"native", "portable", "loop"}
        Operators RNN, GRU and LSTM, or elementary ones in a Scan or a Loop over the steps.
    stateful : bool
        If True, the graph has the inputs ``initial_h`` and, for an LSTM, ``initial_c``, and the
        outputs ``final_h`` and ``final_c``, each (layers * directions, batch, H): a stream is
        predicted in pieces of any number of steps, each from the state after the one before.
    rows, steps : int, optional
        Sizes of batch and time, if they are to be fixed. Elementary operators are then written
        step by step, for runtimes that have neither Scan nor Loop; the graph grows with the steps.
    dtype : {"float32", "float16"}
        Precision in which the weights are stored. Inputs, outputs and all arithmetic are float32:
        half precision halves the file, in every runtime.
    about : mapping, optional
        Additional metadata.

    Returns
    -------
    onnx.ModelProto
        ``SerializeToString()`` makes the file. Inputs are ``x`` (batch, time, I) float32 and, on
        request, ``lengths`` (batch,) int32; the output is ``pred`` (batch, O) or (batch, time, O).
        The metadata contain network, scaler and lengths as JSON under the key ``rnn_xp``.

    Raises
    ------
    ValueError
        If a graph cannot express the network, or an argument does not fit it.
    ImportError
        If onnx is not installed.

    Notes
    -----
    In the native spelling, ``activation="relu"`` runs in onnxruntime; onnx's ReferenceEvaluator
    refuses such an RNN.

    References
    ----------
    .. [1] ONNX operator schemas, https://onnx.ai/onnx/operators/ (RNN-14, GRU-14, LSTM-14,
           Scan-16).
    """
    half = choice("dtype", dtype, HALVES)
    choice("spelling", spelling, dict.fromkeys(SPELLINGS))
    form = Form(
        spelling, flag("lengths", lengths), flag("stateful", stateful),
        "batch" if rows is None else whole("rows", rows),
        "time" if steps is None else whole("steps", steps),
    )  # fmt: skip
    check_network(net, spelling)
    if lengths and net.linear_lags:
        raise ValueError("lengths are not supported with linear_lags, neither here nor in ONNX.")
    if scaler is not None and len(scaler.offset) != net.input_size:
        raise ValueError(
            f"the scaler has {len(scaler.offset)} columns, but input_size is {net.input_size}."
        )
    if isinstance(form.steps, int) and form.steps < net.linear_lags:
        raise ValueError(f"steps must be at least linear_lags={net.linear_lags}, got {form.steps}.")
    host = single(net, params)
    graph = Graph(half)
    _build(graph, net, host, scaler, form)
    facts: dict[str, Any] = {
        "network": dataclasses.asdict(net),
        "scaler": None if scaler is None else dataclasses.asdict(scaler),
        "lengths": lengths,
    }
    chosen = {**dataclasses.asdict(form), "dtype": dtype}
    usual = {**dataclasses.asdict(Form()), "dtype": "float32"}
    facts |= {name: value for name, value in chosen.items() if value != usual[name]}
    return graph.model({**facts, **(about or {})})


def check_network(net: Network, spelling: str) -> None:
    """Refuse a network that a spelling cannot express, with a `ValueError` that names the reason.

    Parameters
    ----------
    net : Network
    spelling : str
    """
    lacks = {"layer_norm": "its RNN, GRU and LSTM operators have none"}
    if spelling != "native":
        lacks = {}
    elif net.layer_norm:
        lacks["layer_norm"] += "; the portable spelling has it"
    check_expressible(net, "ONNX", cells=OPERATORS, **lacks)
    if net.topology == "one_to_many":
        raise ValueError(
            "ONNX cannot express topology='one_to_many' with its RNN, GRU and LSTM operators: they "
            "need an input at every step. Export a many_to_many network that is given them."
        )


def single(net: Network, params: Mapping[str, Array]) -> dict[str, Floats]:
    """Return checked parameters on the host in float32; float64 is cast, with a warning."""
    host = host_params(net, params)
    if any(array.dtype == np.float64 for array in host.values()):
        warnings.warn("ONNX: float64 parameters are cast to float32.", UserWarning, stacklevel=3)
        host = {name: array.astype(np.float32) for name, array in host.items()}
    return host


def _build(
    graph: Graph, net: Network, params: Mapping[str, Floats], scaler: Scaler | None, form: Form
) -> None:
    """Add the inputs, the network between two changes of units, and the outputs."""
    x = graph.input("x", (form.rows, form.steps, net.input_size))
    if form.lengths:
        graph.input("lengths", (form.rows,), np.int32)
    shape = (net.num_layers * net.directions, form.rows, net.hidden_size)
    fields = FIELDS[net.cell] if form.stateful else ()
    for field in fields:
        graph.input(f"initial_{field}", shape)
    if scaler is not None:
        x = graph.add("Sub", x, graph.constant(scaler.offset))
        x = graph.add("Div", x, graph.constant(scaler.scale))
    xs = graph.add("Transpose", x, perm=[1, 0, 2])
    y, finals = add_network(graph, net, params, xs, form)
    if net.topology == "many_to_many":
        y = graph.add("Transpose", y, perm=[1, 0, 2])
    if scaler is not None:  # a prediction is of column 0, see Scaler.inverse_target
        y = graph.add("Mul", y, graph.constant(scaler.scale[0]))
        y = graph.add("Add", y, graph.constant(scaler.offset[0]))
    lead = (form.rows,) if net.topology == "many_to_one" else (form.rows, form.steps)
    graph.output("pred", y, (*lead, net.output_size))
    for field, value in zip(fields, finals, strict=True):
        graph.output(f"final_{field}", value, shape)
