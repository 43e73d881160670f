#!/usr/bin/env bash
# onnx 1.23.2 (ReferenceEvaluator), onnxruntime 1.32.0
#
# Expected: a scan output of Loop has one more axis than the value in each pass. T values (N, H)
# become (T, N, H), as the operator's specification says and onnxruntime does.
#
# Seen: onnx's own evaluator stacks the rows, (T*N, H). Scalars become (T, 1) instead of (T,). There
# is no error, though the graph declares the shape (T, N, H) and the checker agrees with it.
#
# Why it matters: the evaluator is what others compare their runtimes with. Where the next
# operator broadcasts or reduces, a number comes out, and it is wrong; here a mean over time.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6

"$work/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as kinds
from onnx import helper as h
from onnx.reference import ReferenceEvaluator

info = h.make_tensor_value_info
body = h.make_graph(
    [
        h.make_node("Gather", ["x", "t"], ["value"], axis=0),
        h.make_node("Identity", ["more"], ["more_out"]),
    ],
    "body",
    [info("t", kinds.INT64, []), info("more", kinds.BOOL, [])],
    [info("more_out", kinds.BOOL, []), info("value", kinds.FLOAT, [2, 3])],
)
graph = h.make_graph(
    [
        h.make_node("Loop", ["steps", "yes"], ["all"], body=body),
        h.make_node("ReduceMean", ["all"], ["mean"], axes=[0], keepdims=0),
    ],
    "loop",
    [info("x", kinds.FLOAT, [4, 2, 3])],
    [info("all", kinds.FLOAT, [4, 2, 3]), info("mean", kinds.FLOAT, [2, 3])],
    [
        onnx.numpy_helper.from_array(np.asarray(4), "steps"),
        onnx.numpy_helper.from_array(np.asarray(True), "yes"),
    ],
)
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)

x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
right, mean = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
assert np.array_equal(right, x) and np.array_equal(mean, x.mean(axis=0))
found, wrong = ReferenceEvaluator(model).run(None, {"x": x})
print("onnxruntime", right.shape, mean.shape, " onnx's evaluator", found.shape, wrong.shape)
assert found.shape == (8, 3) and wrong.shape == (3,)
assert np.array_equal(found.reshape(x.shape), x)
PY
