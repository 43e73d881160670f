"""Graphs of ONNX as exporters write them, built by hand around one network."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ORDERS = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}
OPERATORS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}


class Graph:
    """Nodes, constants and inputs, with a name for each value."""

    def __init__(self, axes=("batch", "time", 3)):
        self.nodes, self.constants, self.inputs = [], [], []
        self.input("x", axes)

    def input(self, name, axes):
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes)))

    def constant(self, value, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def whole(self, *values):
        return self.constant(list(values), np.int64)

    def add(self, operator, *inputs, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def recurrent(self, net, params, xs, layer=0, directions=None, more=(), **attributes):
        """Add a layer, or one direction of it; return its outputs."""
        chosen = range(net.directions) if directions is None else directions
        order, parts = ORDERS[net.cell], []
        for direction in chosen:
            prefix = net.layers.prefix(layer, direction)
            first, second = params[f"{prefix}b_h"], np.zeros_like(params[f"{prefix}b_h"])
            if net.cell == "gru" and net.reset_after:
                second[2 * net.hidden_size :] = params[f"{prefix}b_hn"]
            arrays = (params[f"{prefix}w_xh"], params[f"{prefix}w_hh"], first, second)
            w, r, b, c = (blocks(array, order) for array in arrays)
            parts.append((w, r, np.concatenate([b, c])))
        weights = [self.constant(np.stack(arrays)) for arrays in zip(*parts, strict=True)]
        if len(parts) == 2:
            attributes.setdefault("direction", "bidirectional")
        if net.cell == "gru":
            attributes["linear_before_reset"] = int(net.reset_after)
        if net.activation == "relu":
            attributes["activations"] = ["Relu"] * len(parts)
        return self.add(
            OPERATORS[net.cell], xs, *weights, *more, outputs=3 if net.cell == "lstm" else 2,
            hidden_size=net.hidden_size, **attributes,
        )  # fmt: skip

    def readout(self, params, h):
        w, b = (self.constant(params[f"readout.{name}"]) for name in ("w_hy", "b_y"))
        return self.add("Gemm", h, w, b, transB=1)

    def bytes(self, *outputs, shape=("batch", "out"), **more):
        named = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, named, self.constants)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8, **more)
        return model.SerializeToString()


def blocks(array, order):
    parts = np.split(array, len(order))
    return np.concatenate([parts[j] for j in order])


def save(path, data):
    path.write_bytes(data)
    return onnx.load_model_from_string(data)
