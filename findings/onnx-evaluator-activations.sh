#!/usr/bin/env bash
# onnx 1.23.2 (ReferenceEvaluator), onnxruntime 1.32.0
#
# Expected: the evaluator that ships with the standard honours the `activations` of a recurrent
# operator, or refuses those it lacks. For RNN it does refuse, "Relu" for one.
#
# Seen: for GRU and LSTM the attribute is not looked at. Whatever it names, sigmoid and tanh are
# computed, without a word. onnxruntime computes what is written: the HardSigmoid gates of the
# early Keras, relu cells. The two differ by 0.07 to 0.9 here.
#
# Why it matters: the evaluator is the cheap oracle in tests of exporters and importers. It passes
# a graph whose activations were lost and fails one that is right.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
rng = np.random.default_rng(0)
x = rng.normal(size=(5, 3, 2)).astype("float32")


def outputs(op, activations):
    g = GATES[op] * 4
    draw = np.random.default_rng(1)
    shapes = {"W": (1, g, 2), "R": (1, g, 4), "B": (1, 2 * g)}
    weights = [numpy_helper.from_array(draw.normal(size=s).astype("float32"), n)
               for n, s in shapes.items()]
    node = helper.make_node(op, ["x", *shapes], ["y"], hidden_size=4, activations=activations)
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [value("x", TensorProto.FLOAT, x.shape)],
                              [value("y", TensorProto.FLOAT, (5, 1, 3, 4))], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0], lambda: ReferenceEvaluator(model).run(None, {"x": x})[0]


cases = {
    "GRU": [["Sigmoid", "Tanh"], ["HardSigmoid", "Tanh"], ["Sigmoid", "Relu"]],
    "LSTM": [["Sigmoid", "Tanh", "Tanh"], ["HardSigmoid", "Tanh", "Tanh"],
             ["Sigmoid", "Relu", "Tanh"]],
}
for op, choices in cases.items():
    standard = outputs(op, choices[0])[1]()
    for activations in choices:
        runtime, evaluate = outputs(op, activations)
        assert np.array_equal(evaluate(), standard), "the evaluator looks at activations now"
        difference = float(np.abs(runtime - standard).max())
        assert (difference < 1e-5) == (activations == choices[0]), difference
        print(op, activations, f"evaluator against onnxruntime: {difference:.2g}")

try:
    outputs("RNN", ["Relu"])[1]()
except RuntimeError as error:
    assert "Relu" in str(error)
    print("RNN ['Relu'] refused by the evaluator")
else:
    raise AssertionError("the evaluator runs a relu RNN now")
PY
