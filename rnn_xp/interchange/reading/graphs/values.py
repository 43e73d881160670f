"""Values in a graph: constants, or numbered entries of the input and of states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LARGEST",
    "Data",
    "Entries",
    "GraphError",
    "Origins",
    "Unit",
    "Value",
    "joined",
    "moved",
    "stacked",
]

LARGEST = 1 << 23
"""Largest number of entries of a value."""


class GraphError(ValueError):
    """A node that a network here has no part for; it is named."""


@dataclass(frozen=True, eq=False)
class Data:
    """A value that depends on the input: ``scale * entry + offset`` for numbered entries.

    Attributes
    ----------
    entry : ndarray of int64
        Number of the entry, see `Entries`, at each place of the value.
    scale, offset : ndarray of float64
        Of the same shape.
    """

    entry: NDArray[Any]
    scale: NDArray[Any]
    offset: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return self.entry.shape

    @property
    def plain(self) -> bool:
        """True if the value is its entries, neither scaled nor shifted."""
        return bool((self.scale == 1.0).all() and (self.offset == 0.0).all())

    def each(self, move: Callable[[NDArray[Any]], NDArray[Any]]) -> Data:
        """Apply a movement of entries, such as a transpose."""
        return Data(move(self.entry), move(self.scale), move(self.offset))

    def at(self, axis: int, where: Any) -> Data:
        """Take the entries at one place, or some, along an axis."""
        return self.each(lambda part: part.take(where, axis=axis))

    def reshaped(self, shape: tuple[int, ...]) -> Data:
        """Return the same entries in another shape."""
        return self.each(lambda part: part.reshape(shape))


Value: TypeAlias = NDArray[Any] | Data


@dataclass(frozen=True)
class Unit:
    """Origin of entries: the input, one direction of a layer, a read, the readout.

    Attributes
    ----------
    kind : str
        "input", "state", "cell" (of an LSTM), "mean", "max", "readout", "output" or "other".
    number : int
    shape : tuple of int
        Rows, steps (0 for none) and columns.
    facts : dict
        What is known of it, such as the weights of a layer.
    """

    kind: str
    number: int
    shape: tuple[int, int, int]
    facts: dict[str, Any] = field(default_factory=dict)


class Origins(NamedTuple):
    """Origin of each place of a value: number of the unit, row, step (-1 for none) and column."""

    unit: NDArray[np.int64]
    row: NDArray[np.int64]
    step: NDArray[np.int64]
    column: NDArray[np.int64]


class Entries:
    """All entries of a graph, each with its origin."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self._blocks: list[NDArray[np.int64]] = []  # (4, entries)
        self._count = 0

    def add(self, kind: str, rows: int, steps: int, columns: int, **facts: Any) -> Data:
        """Number the entries of a new unit; return them as (rows, steps, columns).

        Entries without a step have ``steps`` 0, and the axis has length 1.
        """
        shape = (rows, max(steps, 1), columns)
        if self._count + int(np.prod(shape)) > LARGEST:
            raise GraphError("the graph has more states than are followed.")
        row, step, column = np.indices(shape)
        step = step if steps else np.full(shape, -1)
        unit = np.full(shape, len(self.units))
        self._blocks.append(np.stack([a.ravel() for a in (unit, row, step, column)]))
        self.units.append(Unit(kind, len(self.units), (rows, steps, columns), facts))
        index = self._count + np.arange(row.size, dtype=np.int64).reshape(shape)
        self._count += row.size
        return Data(index, np.ones(shape), np.zeros(shape))

    def origins(self, data: Data) -> Origins:
        """Return the origin of each place of a value."""
        table = np.concatenate(self._blocks, axis=1)
        return Origins(*(column[data.entry] for column in table))

    def kinds(self, origins: Origins) -> set[str]:
        """Return the kinds of units that places have."""
        return {self.units[number].kind for number in np.unique(origins.unit)}


def moved(value: Value, move: Callable[[NDArray[Any]], NDArray[Any]]) -> Value:
    """Apply a movement of entries, such as a transpose, to a value."""
    return value.each(move) if isinstance(value, Data) else move(value)


def joined(values: Sequence[Value], axis: int) -> Value:
    """Concatenate values, all constant or all of entries."""
    data = [value for value in values if isinstance(value, Data)]
    constants = [value for value in values if not isinstance(value, Data)]
    if not data:
        return np.concatenate(constants, axis=axis)
    if constants:
        raise GraphError("it joins constants to values that depend on the input")
    return stacked(data, lambda parts: np.concatenate(parts, axis=axis))


def stacked(data: Sequence[Data], join: Callable[[list[NDArray[Any]]], NDArray[Any]]) -> Data:
    """Join values, each of their parts by the same function."""
    return Data(
        join([each.entry for each in data]),
        join([each.scale for each in data]),
        join([each.offset for each in data]),
    )
