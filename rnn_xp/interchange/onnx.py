"""ONNX: a network as a graph that predicts, with the native operators RNN, GRU and LSTM.

::

    x (batch, time, I) -> scale -> Transpose -> RNN | GRU | LSTM -> ... -> read -> readout -> pred

    operator    W (D, G*H, I)    R (D, G*H, H)    B (D, 2*G*H)              gates
    RNN         w_xh             w_hh             b_h, 0
    GRU         w_xh             w_hh             b_h, then 0, 0, b_hn      z, r, h
    LSTM        w_xh             w_hh             b_h, 0                    i, o, f, c

Batch and time remain symbolic: the graph runs for any N and T. Everything is float32, the only
dtype for which onnxruntime has kernels of these operators. Opset 17 and IR version 8 suit runtimes
from 2022 on. The operators' own batch-first layout is avoided, because onnxruntime refuses it.

An export needs the package onnx (extra ``onnx``); any runtime runs the graph.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnn_xp._checks import install
from rnn_xp._typing import Array
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange.tensors import Floats, check_expressible, host_params, reorder
from rnn_xp.network import Network

__all__ = ["IR_VERSION", "OPSET", "to_onnx"]

OPSET, IR_VERSION = 17, 8

_OPERATORS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
_ORDERS = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}  # new block j is old block p[j]
_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax"}


def to_onnx(
    net: Network,
    params: Mapping[str, Array],
    *,
    scaler: Scaler | None = None,
    lengths: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Any:
    """Export a network for inference.

    Parameters
    ----------
    net : Network
        A network with a cell "rnn", "gru" or "lstm", many_to_one or many_to_many, without layer
        normalisation. Dropout acts in training only and does not appear in the graph.
    params : Params
        Parameters of any library; float64 is cast to float32, with a warning.
    scaler : Scaler, optional
        Scaler to include in the graph: ``x`` and ``pred`` are then in original units; float32
        rounds them to 6e-8 of their size.
    lengths : bool
        If True, the graph has a second input, the number of steps of each row. Its predictions
        equal those of `Network.forward`, padding included. onnx's ReferenceEvaluator silently
        ignores lengths.
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
    ``activation="relu"`` runs in onnxruntime; onnx's ReferenceEvaluator refuses such an RNN.

    References
    ----------
    .. [1] ONNX operator schemas, https://onnx.ai/onnx/operators/ (RNN-14, GRU-14, LSTM-14).
    """
    check_expressible(
        net,
        "ONNX",
        cells=_OPERATORS,
        layer_norm="its RNN, GRU and LSTM operators have none",
    )
    if net.topology == "one_to_many":
        raise ValueError(
            "ONNX cannot express topology='one_to_many' with its RNN, GRU and LSTM operators: they "
            "need an input at every step. Export a many_to_many network that is given them."
        )
    if lengths and net.linear_lags:
        raise ValueError("lengths are not supported with linear_lags, neither here nor in ONNX.")
    if scaler is not None and len(scaler.offset) != net.input_size:
        raise ValueError(
            f"the scaler has {len(scaler.offset)} columns, but input_size is {net.input_size}."
        )
    host = host_params(net, params)
    if any(array.dtype == np.float64 for array in host.values()):
        warnings.warn("ONNX: float64 parameters are cast to float32.", UserWarning, stacklevel=2)
        host = {name: array.astype(np.float32) for name, array in host.items()}
    graph = _Graph()
    graph.build(net, host, scaler, lengths)
    facts = {
        "network": dataclasses.asdict(net),
        "scaler": None if scaler is None else dataclasses.asdict(scaler),
        "lengths": lengths,
        **(about or {}),
    }
    return graph.model(net, lengths, facts)


class _Graph:
    """A graph under construction: its nodes and constants; values are referred to by name."""

    def __init__(self) -> None:
        try:
            self.onnx = importlib.import_module("onnx")
        except ImportError as error:
            raise ImportError(
                f"onnx is required to export. Install it with: {install('onnx')}"
            ) from error
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype)).reshape(np.shape(value))
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def build(
        self, net: Network, params: dict[str, Floats], scaler: Scaler | None, lengths: bool
    ) -> None:
        x = "x"
        if scaler is not None:
            x = self.add("Sub", x, self.constant(scaler.offset))
            x = self.add("Div", x, self.constant(scaler.scale))
        xs = self.add("Transpose", x, perm=[1, 0, 2])
        mask = self._mask(xs) if lengths else None
        outs, last = self._layers(net, params, xs, lengths, mask)
        if net.topology == "many_to_many":
            h = self._join(outs, net, "TDNH")
        elif net.read == "last":
            h = self._join(last, net, "DNH")
        else:
            h = self._join(self._read(net.read, outs, mask), net, "DNH")
        y = self.add("MatMul", h, self.constant(params["readout.w_hy"].T))
        y = self.add("Add", y, self.constant(params["readout.b_y"]))
        if net.linear_lags:
            window = self._window(net, xs)
            linear = self.add("MatMul", window, self.constant(params["readout.w_xy"].T))
            y = self.add("Add", y, linear)
        if net.output_activation != "identity":
            axis = {"axis": -1} if net.output_activation == "softmax" else {}
            y = self.add(_ACTIVATIONS[net.output_activation], y, **axis)
        if net.topology == "many_to_many":
            y = self.add("Transpose", y, perm=[1, 0, 2])
        if scaler is not None:  # a prediction is of column 0, see Scaler.inverse_target
            y = self.add("Mul", y, self.constant(scaler.scale[0]))
            y = self.add("Add", y, self.constant(scaler.offset[0]))
        self.nodes[-1].output[0] = "pred"

    def _layers(
        self, net: Network, params: dict[str, Floats], xs: str, lengths: bool, mask: str | None
    ) -> tuple[str, str]:
        """Add the stack of layers; return its outputs (T, D, N, H) and its last ones (D, N, H)."""
        attributes: dict[str, Any] = {"hidden_size": net.hidden_size}
        if net.bidirectional:
            attributes["direction"] = "bidirectional"
        if net.activation == "relu":
            attributes["activations"] = ["Relu"] * net.directions
        if net.cell == "gru":  # 0, which stands for reset-before, is the operator's default
            attributes["linear_before_reset"] = int(net.reset_after)
        outs = last = ""
        for layer in range(net.num_layers):
            if layer:
                xs = self._join(outs, net, "TDNH")
            below, below_last = outs, last
            weights = [self.constant(array) for array in _stack(net, params, layer)]
            outs, last, *_ = self.add(
                _OPERATORS[net.cell],
                *(xs, *weights, *(["lengths"] if lengths else [])),
                outputs=3 if net.cell == "lstm" else 2,
                **attributes,
            )
            if mask is not None and net.topology == "many_to_many":
                # The operator returns zeros in the padding, where the state shall be carried on:
                # the last state or, in the reverse direction, the one before the first step.
                carried = self.add("Mul", last, self.constant(_FORWARD_ONLY[: net.directions]))
                outs = self.add("Where", mask, outs, carried)
            if net.residual and layer:
                outs, last = self.add("Add", outs, below), self.add("Add", last, below_last)
        return outs, last

    def _window(self, net: Network, xs: str) -> str:
        """Add the last steps of xs (T, N, I), side by side: (N, L*I)."""
        start, end = (
            self.constant([at], np.int64) for at in (-net.linear_lags, np.iinfo(np.int64).max)
        )
        last = self.add("Slice", xs, start, end, self.constant([0], np.int64))
        last = self.add("Transpose", last, perm=[1, 0, 2])
        shape = self.constant([0, net.linear_lags * net.input_size], np.int64)
        return str(self.add("Reshape", last, shape))

    def _join(self, value: str, net: Network, axes: str) -> str:
        """Join the directions: (T, D, N, H) to (T, N, D*H), or (D, N, H) to (N, D*H)."""
        at = axes.index("D")
        if net.directions == 1:
            return str(self.add("Squeeze", value, self.constant([at], np.int64)))
        perm = [*range(at), at + 1, at, at + 2]
        value = self.add("Transpose", value, perm=perm)
        shape = [0] * (at + 1) + [net.directions * net.hidden_size]  # 0: as it was
        return str(self.add("Reshape", value, self.constant(shape, np.int64)))

    def _mask(self, xs: str) -> str:
        """Add the mask (T, 1, N, 1), True if a step lies within the length of its row."""
        zero, one = self.constant(0, np.int64), self.constant(1, np.int64)
        steps = self.add("Gather", self.add("Shape", xs), zero)
        positions = self.add("Range", zero, steps, one)
        positions = self.add("Unsqueeze", positions, self.constant([1, 2, 3], np.int64))
        size = self.add("Cast", "lengths", to=self.onnx.TensorProto.INT64)
        size = self.add("Unsqueeze", size, self.constant([1], np.int64))
        return str(self.add("Less", positions, size))

    def _read(self, read: str, outs: str, mask: str | None) -> str:
        """Add the mean or maximum over the unmasked steps, (D, N, H); an empty row gives 0."""
        if mask is None:
            reduce = {"mean": "ReduceMean", "max": "ReduceMax"}[read]
            return str(self.add(reduce, outs, axes=[0], keepdims=0))
        zero, axis = self.constant(0.0), self.constant([0], np.int64)
        counted = self.add("Cast", mask, to=self.onnx.TensorProto.FLOAT)
        count = self.add("ReduceSum", counted, axis, keepdims=0)  # (1, N, 1)
        if read == "mean":
            total = self.add("Where", mask, outs, zero)
            total = self.add("ReduceSum", total, axis, keepdims=0)
            return str(self.add("Div", total, self.add("Max", count, self.constant(1.0))))
        lowest = self.add("Where", mask, outs, self.constant(np.finfo(np.float32).min))
        largest = self.add("ReduceMax", lowest, axes=[0], keepdims=0)
        return str(self.add("Where", self.add("Greater", count, zero), largest, zero))

    def model(self, net: Network, lengths: bool, facts: Mapping[str, Any]) -> Any:
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        inputs = [
            helper.make_tensor_value_info("x", kinds.FLOAT, ["batch", "time", net.input_size])
        ]
        if lengths:
            inputs.append(helper.make_tensor_value_info("lengths", kinds.INT32, ["batch"]))
        lead = ["batch"] if net.topology == "many_to_one" else ["batch", "time"]
        pred = helper.make_tensor_value_info("pred", kinds.FLOAT, [*lead, net.output_size])
        graph = helper.make_graph(self.nodes, "rnn_xp", inputs, [pred], self.constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="rnn_xp",
        )
        helper.set_model_props(model, {"rnn_xp": json.dumps(facts, sort_keys=True)})
        self.onnx.checker.check_model(model, full_check=True)
        return model


_FORWARD_ONLY = np.asarray([1.0, 0.0]).reshape(2, 1, 1)


def _stack(net: Network, params: dict[str, Floats], layer: int) -> tuple[Floats, ...]:
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
