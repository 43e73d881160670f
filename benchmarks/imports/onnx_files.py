"""Graphs of ONNX: of PyTorch's two exporters, and of tf2onnx through Keras 2 and Keras 3."""

import logging
import os
import warnings

import numpy as np
import torch

from benchmarks.imports.cases import Cases
from benchmarks.imports.torch_files import Model, predicted

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
PRODUCTS = [(kind, n, d) for kind in ("RNN", "GRU", "LSTM") for n in (1, 2) for d in (1, 2)]


def make(folder):
    """Write the files."""
    _of_torch(folder)
    _of_tf2onnx(folder)


def _of_torch(folder):
    for dynamo in (False, True):
        cases = Cases(folder, "onnx-torch-dynamo" if dynamo else "onnx-torch")
        for kind, layers, directions in PRODUCTS:
            for every in (False, True):
                torch.manual_seed(0)
                model = Model(kind, layers, directions, every).eval()
                path = cases.path(".onnx")
                options = {"dynamic_axes": {"x": {0: "batch", 1: "time"}}, "input_names": ["x"]}
                if dynamo:
                    names = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
                    options = {"dynamic_shapes": (names,), "verbose": False}
                torch.onnx.export(model, (torch.randn(2, 6, 3),), path, dynamo=dynamo, **options)
                about = f"{kind} {layers}x{directions}, {'every step' if every else 'last'}"
                if dynamo and kind == "RNN":
                    cases.add(about, path, refused="a layer that is unrolled")
                else:
                    cases.add(about, path, *predicted(model))
        cases.write()


def _of_tf2onnx(folder):
    try:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf
        import tf2onnx
        import tf_keras
        from tf_keras import layers
    except ImportError:
        return
    cases, rng = Cases(folder, "onnx-tf2onnx"), np.random.default_rng(0)
    x = rng.standard_normal((5, 7, 3)).astype("float32")
    names = {"RNN": layers.SimpleRNN, "GRU": layers.GRU, "LSTM": layers.LSTM}
    for kind, count, directions in PRODUCTS:
        stack = [names[kind](4, return_sequences=at < count - 1) for at in range(count)]
        stack = [layers.Bidirectional(each) for each in stack] if directions == 2 else stack
        model = tf_keras.Sequential([layers.Input((None, 3)), *stack, layers.Dense(2)])
        model.set_weights([w + 0.2 * rng.standard_normal(w.shape) for w in model.get_weights()])
        path = cases.path(".onnx")
        signature = [tf.TensorSpec((None, None, 3), tf.float32, name="x")]
        tf2onnx.convert.from_keras(model, signature, opset=15, output_path=path)
        operators = {node.op_type for node in __import__("onnx").load(path).graph.node}
        about = f"{kind} {count}x{directions}, last"
        if "Loop" in operators:
            cases.add(about, path, refused="a loop or branch of its own")
        else:
            cases.add(about, path, x, model(x).numpy())
    cases.write()
