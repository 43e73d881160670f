"""A graph of ONNX under construction; values are referred to by name."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from rnn_xp._checks import install

__all__ = ["IR_VERSION", "OPSET", "Graph", "Sizes"]

OPSET, IR_VERSION = 17, 8

Sizes: TypeAlias = Sequence[int | str]  # of a value; a name stands for a size that is open


class Graph:
    """Nodes, constants, inputs and outputs.

    Parameters
    ----------
    half : bool
        If True, weights are stored in float16. All arithmetic is in float32 all the same:
        runtimes differ in what they have for float16, and some end the process.
    prefix : str
        Beginning of all names, which must differ between a graph and those inside its nodes.

    Raises
    ------
    ImportError
        If onnx is not installed.
    """

    def __init__(self, half: bool = False, prefix: str = "") -> None:
        try:
            self.onnx = importlib.import_module("onnx")
        except ImportError as error:
            raise ImportError(
                f"onnx is required to export. Install it with: {install('onnx')}"
            ) from error
        self.half, self.prefix = half, prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def weight(self, value: Any) -> str:
        """Add a constant that may be stored in float16."""
        if not self.half:
            return self.constant(value)
        if not np.max(np.abs(value), initial=0.0) <= np.finfo(np.float16).max:
            raise ValueError(
                f"float16 ends at 65504, but a weight is {np.max(np.abs(value)):g}. Use float32."
            )
        return self.cast(self.constant(value, np.float16), np.float32)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant."""
        name = f"{self.prefix}c{len(self.constants)}"
        array = np.asarray(value, dtype=dtype)
        array = np.ascontiguousarray(array).reshape(np.shape(value))
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        """Add a vector of int64, such as axes or a shape."""
        return self.constant(values, np.int64)

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of several."""
        names = [f"{self.prefix}v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def cast(self, value: str, dtype: Any) -> str:
        """Add a conversion to another dtype."""
        return str(self.add("Cast", value, to=self._kind(dtype)))

    def input(self, name: str, sizes: Sizes, dtype: Any = np.float32) -> str:
        """Declare an input."""
        self.inputs.append(self._info(name, sizes, dtype))
        return name

    def output(self, name: str, value: str, sizes: Sizes, dtype: Any = np.float32) -> str:
        """Declare that a value is an output, and return the name that it now has."""
        known = [output.name for output in self.outputs]
        self.outputs.append(self._info(name, sizes, dtype))
        if self.nodes and list(self.nodes[-1].output) == [value] and value not in known:
            self.nodes[-1].output[0] = name
        else:
            self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name]))
        return name

    def inside(self) -> Graph:
        """Return an empty graph for an attribute of the next node."""
        return Graph(self.half, f"{self.prefix}n{len(self.nodes)}.")

    def proto(self, name: str) -> Any:
        """Return the finished graph."""
        return self.onnx.helper.make_graph(
            self.nodes, name, self.inputs, self.outputs, self.constants
        )

    def model(self, facts: Mapping[str, Any]) -> Any:
        """Return the finished model, with facts as its metadata, after it was checked."""
        helper = self.onnx.helper
        model = helper.make_model(
            self.proto("rnn_xp"),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="rnn_xp",
        )
        helper.set_model_props(model, {"rnn_xp": json.dumps(facts, sort_keys=True)})
        self.onnx.checker.check_model(model, full_check=True)
        return model

    def _info(self, name: str, sizes: Sizes, dtype: Any) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, self._kind(dtype), list(sizes))

    def _kind(self, dtype: Any) -> int:
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
