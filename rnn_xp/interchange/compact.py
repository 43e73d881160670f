"""Smaller graphs: weights of 8 bits, and what reduced precision costs.

Half precision is an argument of `rnn_xp.interchange.onnx.to_onnx`. Dynamic quantisation is
onnxruntime's: weights are int8, and each product scales its other factor to uint8 when it runs.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
from pathlib import Path
from typing import Any

from rnn_xp.interchange.example import Example, error_of
from rnn_xp.interchange.runtimes import is_installed, run_apart

__all__ = ["measure_loss", "quantize"]


def quantize(model: Any) -> Any:
    """Return a model whose matrix products and LSTM operators have weights of 8 bits.

    Parameters
    ----------
    model : onnx.ModelProto
        A model by `to_onnx` in float32. In the native spelling, onnxruntime has such an operator
        for the LSTM alone; an RNN or GRU is quantised in another spelling.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ValueError
        If nothing can be quantised but the readout.
    ImportError
        If onnxruntime is not installed.
    """
    kinds = [node.op_type for node in model.graph.node if node.op_type in ("RNN", "GRU")]
    if kinds:
        raise ValueError(
            f"onnxruntime has no operator {kinds[0]} of 8 bits. Use the portable spelling, whose "
            "matrix products it can quantise."
        )
    try:
        tools = importlib.import_module("onnxruntime.quantization")
    except ImportError as error:
        raise ImportError(
            "onnxruntime is required to quantise. Install it with: pip install onnxruntime"
        ) from error
    onnx = importlib.import_module("onnx")
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(model.SerializeToString())
        before_disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it advises a preparation that these graphs do not need
        try:
            tools.quantize_dynamic(
                before, after, weight_type=tools.QuantType.QInt8,
                extra_options={"EnableSubgraph": True},
            )  # fmt: skip
        finally:
            logging.disable(before_disabled)
        return onnx.load(str(after))


def measure_loss(model: Any, example: Example) -> float:
    """Return the largest difference that a model in reduced precision makes.

    Parameters
    ----------
    model : onnx.ModelProto
    example : Example
        Inputs and the outputs of the library in full precision.

    Returns
    -------
    float
        Relative to the largest output, or to 1 if that is smaller.

    Raises
    ------
    RuntimeError
        If the runtime refuses the model.
    """
    runtime = "onnxruntime" if is_installed("onnxruntime") else "onnx"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        (outputs,) = run_apart(path, runtime, [example.inputs], list(example.outputs))
    return error_of(outputs, example)
