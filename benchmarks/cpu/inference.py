"""Predictions, by rnn_xp and by other libraries."""

from __future__ import annotations

import numpy as np

import rnn_xp as rx
from benchmarks.cpu import FLOAT32, THREADS
from benchmarks.cpu.libraries import missing, torch_module
from benchmarks.cpu.timing import Contender
from rnn_xp.kernels import make_workspace


class Forward(Contender):
    def __init__(self, case, rows, kernels):
        self.name = "rnn_xp, workspace" if kernels else "rnn_xp, portable code"
        self.net, self.params, self.x = case.net, case.weights, case.data[0][:rows]
        self.workspace = make_workspace(FLOAT32) if kernels else None

    def step(self):
        return self.net.forward(self.params, self.x, workspace=self.workspace)[0]


class Streamed(Contender):
    """A stream, whose weights are prepared, reads the windows from a state of zeros."""

    name = "rnn_xp, stream"

    def __init__(self, case, rows):
        self.stream = rx.Stream(case.net, case.weights, rows)
        self.x = case.data[0][:rows]

    def step(self):
        self.stream.reset()
        return self.stream.run(self.x)


class TorchForward(Contender):
    name = "torch, no_grad"

    def __init__(self, case, rows):
        self.torch, module = torch_module()
        self.model = module(case).eval()
        x = case.data[0][:rows].transpose(1, 0, 2)
        self.xs = self.torch.tensor(np.ascontiguousarray(x))

    def step(self):
        with self.torch.no_grad():
            return self.model(self.xs).numpy()


class Onnx(Contender):
    name = "onnxruntime"

    def __init__(self, case, rows):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            onnx_model(case), options, providers=["CPUExecutionProvider"]
        )
        self.feed = {"x": np.ascontiguousarray(case.data[0][:rows].transpose(1, 0, 2))}

    def step(self):
        return self.session.run(None, self.feed)[0]


def onnx_model(case):
    """The network in ONNX's operators, whose gates are in an order of their own."""
    from onnx import TensorProto, helper, numpy_helper

    order = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}[case.cell]

    def gates(name):
        blocks = np.split(case.weights[name], case.gates)
        return np.concatenate([blocks[k] for k in order])

    b = gates("layer0.b_h")
    recurrent = np.zeros_like(b)
    if case.cell == "gru":
        recurrent[2 * case.H :] = case.weights["layer0.b_hn"]
    constants = {
        "W": gates("layer0.w_xh")[None],
        "R": gates("layer0.w_hh")[None],
        "B": np.concatenate([b, recurrent])[None],
        "w": case.weights["readout.w_hy"],
        "b": case.weights["readout.b_y"],
        "axis": np.asarray([0]),
    }
    options = {"linear_before_reset": 1} if case.cell == "gru" else {}
    nodes = [
        helper.make_node(
            case.cell.upper(), ["x", "W", "R", "B"], ["", "h"], hidden_size=case.H, **options
        ),
        helper.make_node("Squeeze", ["h", "axis"], ["last"]),
        helper.make_node("Gemm", ["last", "w", "b"], ["pred"], transB=1),
    ]
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [case.T, None, case.I])],
        [helper.make_tensor_value_info("pred", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )  # fmt: skip
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def predictors(case, rows):
    """Contenders for so many rows, and sentences about what is left out."""
    found = [Forward(case, rows, kernels=False), Forward(case, rows, kernels=True)]
    if rows == 1:
        found.append(Streamed(case, rows))
    notes = []
    if missing("torch"):
        notes.append("torch is not installed")
    else:
        found.append(TorchForward(case, rows))
    if missing("onnxruntime") or missing("onnx"):
        notes.append("onnxruntime needs the packages onnx and onnxruntime, which are not installed")
    else:
        found.append(Onnx(case, rows))
    return found, notes
