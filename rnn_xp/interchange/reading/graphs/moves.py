"""Operators that move entries or scale them, and those on constants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.interchange.reading.graphs.values import LARGEST, Data, GraphError, Value, joined, moved

__all__ = ["OPERATORS", "Inputs"]

Inputs = list[Value | None]
_Attributes = dict[str, Any]
_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}
_INTEGERS = {6: np.int32, 7: np.int64, 9: np.bool_}


def _value(inputs: Inputs, at: int = 0) -> Value:
    if at >= len(inputs) or inputs[at] is None:
        raise GraphError(f"its input {at} is missing")
    value = inputs[at]
    if value is None:
        raise GraphError(f"its input {at} is missing")
    return value


def _constant(inputs: Inputs, at: int) -> NDArray[Any]:
    value = _value(inputs, at)
    if isinstance(value, Data):
        raise GraphError(f"its input {at} depends on the values of the graph's input")
    return value


def _optional(inputs: Inputs, at: int) -> NDArray[Any] | None:
    return _constant(inputs, at) if at < len(inputs) and inputs[at] is not None else None


def _whole(array: NDArray[Any]) -> list[int]:
    if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > 64:
        raise GraphError("it has axes or sizes that are no whole numbers")
    return [int(n) for n in array.ravel()]


def _bounded(shape: list[int]) -> list[int]:
    if any(n < 0 for n in shape) or math.prod(shape) > LARGEST:
        raise GraphError(f"it makes a value of shape {tuple(shape)}, which is not followed")
    return shape


def _axes(inputs: Inputs, attributes: _Attributes, at: int = 1) -> list[int] | None:
    given = _optional(inputs, at)
    return _whole(given) if given is not None else attributes.get("axes")


def _transpose(inputs: Inputs, attributes: _Attributes) -> Value:
    return moved(_value(inputs), lambda a: a.transpose(attributes.get("perm")))


def _reshape(inputs: Inputs, attributes: _Attributes) -> Value:
    value, shape = _value(inputs), _whole(_constant(inputs, 1))
    if not attributes.get("allowzero"):
        shape = [value.shape[at] if n == 0 else n for at, n in enumerate(shape)]
    _bounded([abs(n) for n in shape])
    return moved(value, lambda a: a.reshape(shape))


def _flatten(inputs: Inputs, attributes: _Attributes) -> Value:
    value, axis = _value(inputs), attributes.get("axis", 1)
    rows = math.prod(value.shape[:axis])
    return moved(value, lambda a: a.reshape(rows, -1))


def _squeeze(inputs: Inputs, attributes: _Attributes) -> Value:
    axes = _axes(inputs, attributes)
    where = None if axes is None else tuple(axes)
    return moved(_value(inputs), lambda a: a.squeeze(where))


def _unsqueeze(inputs: Inputs, attributes: _Attributes) -> Value:
    axes = tuple(_axes(inputs, attributes) or ())
    return moved(_value(inputs), lambda a: np.expand_dims(a, axes))


def _slice(inputs: Inputs, attributes: _Attributes) -> Value:
    value = _value(inputs)
    if len(inputs) > 1:
        starts, ends = _whole(_constant(inputs, 1)), _whole(_constant(inputs, 2))
        given, steps = _optional(inputs, 3), _optional(inputs, 4)
    else:
        starts, ends = list(attributes["starts"]), list(attributes["ends"])
        given = np.asarray(attributes["axes"]) if "axes" in attributes else None
        steps = None
    axes = list(range(len(starts))) if given is None else _whole(given)
    by = [1] * len(starts) if steps is None else _whole(steps)
    parts = [slice(None)] * len(value.shape)
    for start, end, axis, step in zip(starts, ends, axes, by, strict=True):
        size = value.shape[axis]
        first = start + size if start < 0 else start
        last = end + size if end < 0 else end
        if step < 0:
            first, last = min(max(first, 0), size - 1), min(max(last, -1), size - 1)
            parts[axis] = slice(first, None if last < 0 else last, step)
        else:
            parts[axis] = slice(min(max(first, 0), size), min(max(last, 0), size), step)
    return moved(value, lambda a: a[tuple(parts)])


def _gather(inputs: Inputs, attributes: _Attributes) -> Value:
    value, where = _value(inputs), _constant(inputs, 1)
    if where.dtype.kind not in "iu" or where.size * max(math.prod(value.shape), 1) > LARGEST:
        raise GraphError("it gathers more than is followed")
    axis = attributes.get("axis", 0)
    return moved(value, lambda a: np.take(a, where, axis=axis))


def _concat(inputs: Inputs, attributes: _Attributes) -> Value:
    values = [_value(inputs, at) for at in range(len(inputs))]
    return joined(values, attributes["axis"])


def _expand(inputs: Inputs, attributes: _Attributes) -> Value:
    value, shape = _value(inputs), _whole(_constant(inputs, 1))
    target = _bounded(list(np.broadcast_shapes(value.shape, tuple(_bounded(shape)))))
    return moved(value, lambda a: np.broadcast_to(a, target))


def _cast(inputs: Inputs, attributes: _Attributes) -> Value:
    value, kind = _value(inputs), attributes["to"]
    if isinstance(value, Data):
        if kind not in _FLOATS:
            raise GraphError("it casts values that depend on the input to whole numbers")
        return value
    target = {**_FLOATS, **_INTEGERS}.get(kind)
    if target is None:
        raise GraphError(f"it casts to the type {kind}, which is not followed")
    return value.astype(target)


def _filled(inputs: Inputs, attributes: _Attributes) -> Value:
    shape = _bounded(_whole(_constant(inputs, 0)))
    value = attributes.get("value", np.zeros(1, np.float32))
    return np.full(shape, value.reshape(-1)[0], value.dtype)


def _shape(inputs: Inputs, attributes: _Attributes) -> Value:
    shape = _value(inputs).shape[attributes.get("start", 0) : attributes.get("end")]
    return np.asarray(shape, np.int64)


def _same(inputs: Inputs, attributes: _Attributes) -> Value:
    return _value(inputs)


def _dropout(inputs: Inputs, attributes: _Attributes) -> Value:
    training = _optional(inputs, 2)
    if training is not None and training.any():
        raise GraphError("it drops values at random")
    return _value(inputs)


def _where(inputs: Inputs, attributes: _Attributes) -> Value:
    return np.where(_constant(inputs, 0).astype(bool), _constant(inputs, 1), _constant(inputs, 2))


def _comparison(inputs: Inputs, attributes: _Attributes) -> Value:
    result: NDArray[Any] = np.equal(_constant(inputs, 0), _constant(inputs, 1))
    return result


def _affine(name: str) -> Callable[[Inputs, _Attributes], Value]:
    """Return the operator Add, Sub, Mul or Div of a value and a constant."""
    plain: dict[str, Callable[[Any, Any], Any]] = {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply,
        "Div": lambda a, b: a // b if a.dtype.kind in "iu" else a / b,
    }  # fmt: skip

    def apply(inputs: Inputs, attributes: _Attributes) -> Value:
        one, two = _value(inputs, 0), _value(inputs, 1)
        if isinstance(one, Data) and isinstance(two, Data):
            raise GraphError("it combines two values that depend on the input")
        _bounded(list(np.broadcast_shapes(one.shape, two.shape)))
        if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
            result: NDArray[Any] = plain[name](one, two)
            return result
        data, constant = (one, two) if isinstance(one, Data) else (two, one)
        if not isinstance(data, Data) or isinstance(constant, Data):
            raise GraphError("it has no constant")  # which the lines above exclude
        number = constant.astype(np.float64)
        if name == "Div" and data is two:
            raise GraphError("it divides by a value that depends on the input")
        scale = {"Mul": number, "Div": 1.0 / number}.get(name, np.ones(()))
        shift = {"Add": number, "Sub": -number}.get(name, np.zeros(()))
        sign = -1.0 if name == "Sub" and data is two else 1.0
        shift = -shift if sign < 0 else shift
        index = data.entry + np.zeros(number.shape, np.int64)
        return Data(index, data.scale * scale * sign + 0.0 * shift,
                    data.offset * scale * sign + shift)  # fmt: skip

    return apply


OPERATORS: dict[str, Callable[[Inputs, _Attributes], Value]] = {
    "Identity": _same,
    "Dropout": _dropout,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Gather": _gather,
    "Concat": _concat,
    "Expand": _expand,
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "Shape": _shape,
    "Where": _where,
    "Equal": _comparison,
    **{name: _affine(name) for name in ("Add", "Sub", "Mul", "Div")},
}
"""Operators with one output, by name."""
