"""What comes after the layers: reads over time, the readout, and its activation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.interchange.reading.graphs.moves import Inputs
from rnn_xp.interchange.reading.graphs.values import Data, Entries, GraphError, Origins, Value

__all__ = ["OPERATORS"]

_ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Softmax": "softmax"}


def _linear(operator: str, inputs: Inputs, attributes: dict[str, Any], entries: Entries) -> Value:
    """Read the readout: Gemm, or MatMul with constant weights on its right."""
    x, w = inputs[0], inputs[1]
    if isinstance(x, np.ndarray) and isinstance(w, np.ndarray):
        raise GraphError("it multiplies constants, which is not followed")
    if not isinstance(x, Data) or not isinstance(w, np.ndarray):
        raise GraphError("it multiplies by a value that depends on the input")
    if operator == "Gemm":
        if attributes.get("transA"):
            raise GraphError("it transposes its input (transA)")
        w = (w.T if attributes.get("transB") else w) * attributes.get("alpha", 1.0)
    if w.ndim != 2 or len(x.shape) < 2 or x.shape[-1] != len(w) or not w.size:
        raise GraphError(f"its weights have shape {w.shape}, which is none of a readout")
    origins = entries.origins(x)
    kinds = entries.kinds(origins)
    if kinds <= {"readout", "output"}:
        raise GraphError("it is a second linear layer after the states; a network has one readout")
    if not (kinds == {"state"} or kinds <= {"mean", "max"}):
        raise GraphError(
            "it multiplies something else than states: the input before the recurrent layers, or a "
            "layer that is unrolled, as PyTorch writes nn.RNN unless dynamo=False"
        )
    rows, steps, read = _positions(origins, entries)
    _same_everywhere(origins, x)
    lead = x.shape[:-1]
    columns = list(zip(*(part.reshape(-1, len(w))[0].tolist() for part in
                         (origins.unit, origins.column)), strict=True))  # fmt: skip
    flat = [part.reshape(-1, len(w))[0] for part in (x.scale, x.offset)]
    pred = entries.add(
        "readout", int(rows.max()) + 1, int(steps.max()) + 1, w.shape[1], sources=columns,
        weights=w.T * flat[0], bias=flat[1].dot(w.astype(np.float64)), read=read,
        dtype=w.dtype,
    )  # fmt: skip
    if len(rows) != pred.entry.size // w.shape[1]:
        raise GraphError("it reads a part of the steps or rows")
    data = pred.each(lambda part: part[rows, np.maximum(steps, 0)].reshape(*lead, w.shape[1]))
    bias = inputs[2] if operator == "Gemm" and len(inputs) > 2 else None
    if isinstance(bias, Data):
        raise GraphError("its bias depends on the input")
    if bias is None:
        return data
    shift = np.broadcast_to(bias * attributes.get("beta", 1.0), data.shape)
    return Data(data.entry, data.scale, data.offset + shift)


def _positions(
    origins: Origins, entries: Entries
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Return row and step of each place where the readout is applied, and what it reads.

    A step of -1 stands for one prediction for each row.
    """
    width = origins.row.shape[-1]
    row, step, unit = (
        part.reshape(-1, width) for part in (origins.row, origins.step, origins.unit)
    )
    if (row != row[:, :1]).any():
        raise GraphError("it mixes rows")
    rows = row[:, 0]
    kinds = entries.kinds(origins)
    if kinds <= {"mean", "max"}:
        if len(kinds) > 1:
            raise GraphError("it reads means and maxima at once")
        return rows, step[:, 0], kinds.pop()
    steps = entries.units[int(unit[0, 0])].shape[1]
    reverse = np.asarray([each.facts.get("reverse", False) for each in entries.units])
    ends = np.where(reverse[unit], 0, steps - 1)
    if (step == ends).all() and len(set(rows.tolist())) == len(rows):
        return rows, np.full(len(rows), -1), "last"
    if (step == step[:, :1]).all():
        pairs = set(zip(rows.tolist(), step[:, 0].tolist(), strict=True))
        if len(pairs) == len(rows) == (int(rows.max()) + 1) * steps:
            return rows, step[:, 0], "every"
    where = sorted({int(s) for s in step[:, 0]})
    both = reverse[unit].any() and not reverse[unit].all()
    raise GraphError(
        "it reads the reverse direction where that one has seen one step only, as y[:, -1] of two "
        "directions does; a network here reads both final states"
        if both and (step == steps - 1).all()
        else f"it reads the step(s) {', '.join(map(str, where[:4]))} of {steps}; a network here "
        "reads the last, all, or their mean or maximum"
    )


def _same_everywhere(origins: Origins, x: Data) -> None:
    for part in (origins.unit, origins.column, x.scale, x.offset):
        flat = part.reshape(-1, part.shape[-1])
        if (flat != flat[:1]).any():
            raise GraphError("it reads other values at other steps")


def _reduce(operator: str, inputs: Inputs, attributes: dict[str, Any], entries: Entries) -> Value:
    """Read the mean or the maximum over all steps."""
    x = inputs[0]
    given = inputs[1] if len(inputs) > 1 else None
    axes = attributes.get("axes") if given is None else np.asarray(given).ravel().tolist()
    if not isinstance(x, Data) or not x.plain or not axes or len(axes) != 1:
        raise GraphError("it reduces something else than the states over their steps")
    axis = int(axes[0]) % len(x.shape)
    origins = entries.origins(x.each(lambda part: np.moveaxis(part, axis, -1)))
    steps = origins.step.shape[-1]
    if (
        entries.kinds(origins) != {"state"}
        or (np.sort(origins.step, axis=-1) != np.arange(steps)).any()
        or any((p != p[..., :1]).any() for p in (origins.unit, origins.row, origins.column))
        or steps != entries.units[int(origins.unit.flat[0])].shape[1]
    ):
        raise GraphError("it reduces something else than the states over all steps")
    kind = {"ReduceMean": "mean", "ReduceMax": "max"}[operator]
    unit, row, column = (part[..., 0] for part in (origins.unit, origins.row, origins.column))
    index = np.zeros(unit.shape, np.int64)
    for number in np.unique(unit).tolist():
        source = entries.units[number]
        read = entries.add(kind, int(row.max()) + 1, 0, source.shape[2], of=number)
        index = np.where(unit == number, read.entry[row, 0, np.minimum(column, read.shape[2] - 1)],
                         index)  # fmt: skip
    if attributes.get("keepdims", 1):
        index = np.expand_dims(index, axis)
    return Data(index, np.ones(index.shape), np.zeros(index.shape))


def _activation(
    operator: str, inputs: Inputs, attributes: dict[str, Any], entries: Entries
) -> Value:
    """Read the activation of the readout."""
    x = inputs[0]
    if not isinstance(x, Data):
        raise GraphError("its input is constant")
    origins = entries.origins(x)
    if entries.kinds(origins) != {"readout"}:
        raise GraphError("it acts on something else than the readout")
    number = int(origins.unit.flat[0])
    source = entries.units[number]
    rows, steps, columns = source.shape
    if operator == "Softmax":
        axis = int(attributes.get("axis", -1)) % len(x.shape)
        across = np.moveaxis(origins.column, axis, -1)
        if x.shape[axis] != columns or (across != np.arange(columns)).any():
            raise GraphError("it is a softmax over something else than the outputs")
    output = entries.add(
        "output", rows, steps, columns, of=number, activation=_ACTIVATIONS[operator],
        scale=_by_column(x.scale, origins, columns), offset=_by_column(x.offset, origins, columns),
    )  # fmt: skip
    index = output.entry[origins.row, np.maximum(origins.step, 0), origins.column]
    return Data(index, np.ones(index.shape), np.zeros(index.shape))


def _by_column(part: NDArray[Any], origins: Origins, columns: int) -> NDArray[np.float64]:
    """Return a number for each column, which must be the same at all rows and steps."""
    values = np.zeros(columns)
    values[origins.column.ravel()] = part.ravel()
    if (values[origins.column] != part).any():
        raise GraphError("it scales rows or steps differently")
    return values


OPERATORS = {
    "Gemm": _linear, "MatMul": _linear, "ReduceMean": _reduce, "ReduceMax": _reduce,
    **dict.fromkeys(_ACTIVATIONS, _activation),
}  # fmt: skip
"""Operators on states and on predictions, by name."""
