"""A walk through the nodes of a graph, at small sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.interchange.reading.graphs import heads, moves
from rnn_xp.interchange.reading.graphs.recurrent import CELLS, recurrent
from rnn_xp.interchange.reading.graphs.values import LARGEST, Data, Entries, GraphError, Value

__all__ = ["Sizes", "Walked", "input_sizes", "walk"]

_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}
_MOST_NODES = 20_000


class Sizes(NamedTuple):
    """The graph's input: its name, sizes and dtype.

    Attributes
    ----------
    name : str
    axes : tuple of int
        Sizes of the three axes, where open ones have small sizes.
    open : tuple of bool
        True for axes that the graph leaves open.
    dtype : type
    """

    name: str
    axes: tuple[int, int, int]
    open: tuple[bool, bool, bool]
    dtype: Any


class Walked(NamedTuple):
    """Result of `walk`: the numbered entries, the outputs, and inputs that are states."""

    entries: Entries
    outputs: dict[str, Value]
    states: dict[str, tuple[int, ...]]


def input_sizes(graph: Any, batch_first: bool, small: tuple[int, int]) -> Sizes:
    """Return the sizes of the first input that is no constant.

    Where the graph leaves rows and steps open they are those of ``small``.
    """
    constants = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]
    if not inputs:
        raise GraphError("the graph has no input.")
    tensor = inputs[0].type.tensor_type
    dims = list(tensor.shape.dim)
    if len(dims) != 3 or tensor.elem_type not in _FLOATS:
        raise GraphError(
            f"its input {inputs[0].name} has {len(dims)} axes of type {tensor.elem_type}; three "
            "axes of floating point numbers are required: rows, steps, columns."
        )
    defaults = small if batch_first else small[::-1]
    axes = [dim.dim_value or default for dim, default in zip(dims, (*defaults, 0), strict=True)]
    if not axes[2] or any(n < 0 for n in axes) or math.prod(axes) > LARGEST:
        raise GraphError(f"its input {inputs[0].name} has the sizes {axes}, which are too many.")
    opened = tuple(not dim.dim_value for dim in dims)
    return Sizes(inputs[0].name, tuple(axes), opened, _FLOATS[tensor.elem_type])  # type: ignore[arg-type]


def walk(
    graph: Any, to_array: Callable[[Any], Any], attributes: Any, sizes: Sizes, batch_first: bool
) -> Walked:
    """Follow all values of a graph from its input to its outputs.

    Parameters
    ----------
    graph : onnx.GraphProto
    to_array, attributes : callable
        ``onnx.numpy_helper.to_array``, and the attributes of a node as a dict.
    sizes : Sizes
    batch_first : bool
        If True, the first axis of the input is the rows, else the steps.

    Returns
    -------
    Walked

    Raises
    ------
    GraphError
        If a node has no place in a network here; it is named.
    """
    rows, steps = sizes.axes[:2] if batch_first else sizes.axes[1::-1]
    entries = Entries()
    x = entries.add("input", rows, steps, sizes.axes[2])
    values: dict[str, Value] = {each.name: to_array(each) for each in graph.initializer}
    values[sizes.name] = x if batch_first else x.each(lambda part: part.transpose(1, 0, 2))
    states: dict[str, tuple[int, ...]] = {}
    for extra in graph.input:
        if extra.name not in values:
            if extra.type.tensor_type.elem_type not in _FLOATS:
                raise GraphError(
                    f"the graph takes {extra.name}, which are whole numbers such as the lengths of "
                    "the rows. Export the model without them, and give lengths= to Network.forward."
                )
            shape = tuple(dim.dim_value or rows for dim in extra.type.tensor_type.shape.dim)
            if math.prod(shape) > LARGEST:
                raise GraphError(f"its input {extra.name} has the shape {shape}.")
            states[extra.name] = shape
            flat = entries.add("other", 1, 0, math.prod(shape), name=extra.name)
            values[extra.name] = flat.reshaped(shape)
    if len(graph.node) > _MOST_NODES:
        raise GraphError(f"the graph has {len(graph.node)} nodes, more than are followed.")
    _refuse_loops(graph)
    for node in graph.node:
        for name, value in zip(node.output, _run(node, attributes(node), values, entries),
                               strict=False):  # fmt: skip
            if name in values:
                raise GraphError(f"two nodes make the value {name}.")
            values[name] = value
    outputs = {}
    for each in graph.output:
        if each.name not in values:
            raise GraphError(f"no node makes the output {each.name}.")
        outputs[each.name] = values[each.name]
    return Walked(entries, outputs, states)


def _refuse_loops(graph: Any) -> None:
    """Refuse graphs in the graph before the nodes that only serve them."""
    for node in graph.node:
        if node.op_type in ("Loop", "Scan", "If"):
            label = f"the node {node.name or ', '.join(node.output)} ({node.op_type})"
            raise GraphError(
                f"{label} is a loop or branch of its own: cells are read where they are ONNX's "
                "operators RNN, GRU and LSTM."
            )


def _run(
    node: Any, attributes: dict[str, Any], values: dict[str, Value], entries: Entries
) -> list[Value]:
    operator = node.op_type
    label = f"the node {node.name or ', '.join(node.output)} ({operator})"
    if node.domain not in ("", "ai.onnx"):
        raise GraphError(f"{label} is of the domain {node.domain}; ONNX's own operators are read.")
    try:
        if operator == "Constant":
            return [_constant(attributes)]
        for name in node.input:
            if name and name not in values:
                raise GraphError(f"its input {name} has no value; its order or names are wrong")
        inputs = [values[name] if name else None for name in node.input]
        with np.errstate(all="ignore"):  # what is not finite is refused with the parameters
            if operator in CELLS:
                return recurrent(operator, inputs, attributes, entries)
            if operator in heads.OPERATORS and any(isinstance(v, Data) for v in inputs):
                return [heads.OPERATORS[operator](operator, inputs, attributes, entries)]
            if operator in moves.OPERATORS:
                return [moves.OPERATORS[operator](inputs, attributes)]
            if operator == "Split":
                return _split(inputs, attributes, len(node.output))
    except GraphError as error:
        raise GraphError(f"{label} has no place in a network here: {error}.") from error
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise GraphError(f"{label} is not valid: {error}.") from error
    about = {
        "LayerNormalization": "a layer normalisation, which is no readout",
        "BatchNormalization": "a batch normalisation, which is no readout",
        "Relu": "a relu outside an RNN: a network here has one linear readout",
    }.get(operator, "an operator that no network here has")
    raise GraphError(f"{label} is {about}.")


def _constant(attributes: dict[str, Any]) -> NDArray[Any]:
    if len(attributes) != 1:
        raise GraphError("it has no value")
    (name, value), *_ = attributes.items()
    if name not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise GraphError(f"it has a value of the kind {name}")
    if name == "value":
        return np.asarray(value)
    return np.asarray(value, np.float32 if "float" in name else np.int64)


def _split(inputs: moves.Inputs, attributes: dict[str, Any], count: int) -> list[Value]:
    """Cut a value along an axis: into equal parts, or into those of the given sizes."""
    value, axis = inputs[0], attributes.get("axis", 0)
    given = attributes.get("split") if len(inputs) < 2 else inputs[1]
    if value is None or isinstance(given, Data):
        raise GraphError("its input is missing")
    size = value.shape[axis]
    parts = [-(-size // count)] * (count - 1) if given is None else [int(n) for n in given][:-1]
    ends = np.cumsum(parts)
    if isinstance(value, Data):
        places = np.split(np.arange(size), ends)
        return [value.at(axis, where) for where in places]
    return list(np.split(value, ends, axis=axis))
