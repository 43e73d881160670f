"""Reading of data: lists, arrays, pandas objects, one series or several.

pandas is not imported unless something of it was given.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data.datasets import Series

__all__ = ["Panel", "as_panel", "as_rows", "frequency_of"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One series or several, as vectors of float64 in which NaN means missing.

    Attributes
    ----------
    kind : {"array", "series", "frame", "dict"}
        Type of the data, in which predictions are returned.
    names : tuple of str
    columns : tuple of ndarray (n,)
        One vector for each name; only those of a dict may differ in length.
    indices : tuple
        The pandas index of each series, or None.
    """

    kind: str
    names: tuple[str, ...]
    columns: tuple[_Floats, ...]
    indices: tuple[Any, ...]

    def before(self, ends: Sequence[int]) -> Panel:
        """Return the rows of each series before its end."""
        columns = tuple(c[:end] for c, end in zip(self.columns, ends, strict=True))
        indices = tuple(
            None if index is None else index[:end]
            for index, end in zip(self.indices, ends, strict=True)
        )
        return Panel(self.kind, self.names, columns, indices)

    def restore(self, values: Sequence[NDArray[Any]]) -> Any:
        """Return predictions (steps,) of each series in the type of the data.

        pandas objects get the dates that follow, where the index has a frequency.
        """
        if self.kind == "array":
            return values[0]
        pieces = [
            value
            if index is None
            else _pandas().Series(value, index=_following(index, len(value)), name=name)
            for name, index, value in zip(self.names, self.indices, values, strict=True)
        ]
        if self.kind == "series":
            return pieces[0]
        if self.kind == "frame" and self.indices[0] is None:  # a plain array (n, S)
            return np.stack(pieces, axis=1)
        together = dict(zip(self.names, pieces, strict=True))
        return together if self.kind == "dict" else _pandas().DataFrame(together)


def as_panel(data: Any) -> Panel:
    """Read series of any supported type.

    Parameters
    ----------
    data : list, array (n,), pandas Series or `rnn_xp.datasets.Series`; or several series: array
        (n, S), pandas DataFrame, or mapping of names to any of the former

    Returns
    -------
    Panel

    Raises
    ------
    ValueError
        If there is nothing, a value is infinite, or dates are not in order or not unique.
    TypeError
        If the values are not real numbers.

    Examples
    --------
    >>> as_panel([1, 2, 3]).kind, as_panel({"a": [1.0], "b": [2.0, 3.0]}).names
    ('array', ('a', 'b'))
    """
    if isinstance(data, Series):
        data = data.values
    if isinstance(data, Mapping):
        if not data:
            raise ValueError("no series were given: the mapping is empty.")
        parts = {str(name): as_panel(each) for name, each in data.items()}
        if several := [name for name, part in parts.items() if len(part.columns) > 1]:
            raise ValueError(f"{several[0]!r} must be one series, but it has several columns.")
        return Panel(
            "dict",
            tuple(parts),
            tuple(part.columns[0] for part in parts.values()),
            tuple(part.indices[0] for part in parts.values()),
        )
    if hasattr(data, "to_numpy") and hasattr(data, "index"):
        _check_index(data.index)
        if hasattr(data, "columns"):
            names = tuple(map(str, data.columns))
            table = _floats(data.to_numpy(), "the DataFrame", 2)
            columns = tuple(np.ascontiguousarray(column) for column in table.T)
            return Panel("frame", names, columns, (data.index,) * len(names))
        name = "series" if data.name is None else str(data.name)
        return Panel("series", (name,), (_floats(data.to_numpy(), name, 1),), (data.index,))
    values = np.asarray(data)
    if values.ndim == 2:
        table = _floats(values, "the series", 2)
        names = tuple(str(number) for number in range(table.shape[1]))
        columns = tuple(np.ascontiguousarray(column) for column in table.T)
        return Panel("frame", names, columns, (None,) * len(names))
    return Panel("array", ("series",), (_floats(values, "the series", 1),), (None,))


def as_rows(what: str, given: Any, names: Sequence[str], lengths: Sequence[int]) -> list[_Floats]:
    """Read features (n, k) that go along with series.

    Parameters
    ----------
    what : str
        Name of the features, for messages.
    given : array (n, k) or (n,), or DataFrame, for all series; or mapping of names to those
    names, lengths : of the series

    Returns
    -------
    list of ndarray (n, k)
        For each series.

    Raises
    ------
    ValueError
        If rows are missing or too many, a value is not finite, or k differs.
    """
    if isinstance(given, Mapping):
        if given.keys() != set(names):
            raise ValueError(f"{what} must have the names of the series, {', '.join(names)}.")
        parts = [given[name] for name in names]
    else:
        parts = [given] * len(names)
    tables = []
    for name, part, rows in zip(names, parts, lengths, strict=True):
        values = part.to_numpy() if hasattr(part, "to_numpy") else np.asarray(part)
        table = _floats(values[:, None] if values.ndim == 1 else values, what, 2)
        if len(table) != rows:
            raise ValueError(f"{what} must have {rows} rows for {name!r}, got {len(table)}.")
        if not np.isfinite(table).all():
            raise ValueError(f"{what} must be finite: a missing value is only for the series.")
        tables.append(table)
    if len({table.shape[1] for table in tables}) > 1:
        raise ValueError(f"{what} must have the same columns for all series.")
    return tables


def _floats(values: NDArray[Any], what: str, ndim: int) -> _Floats:
    array = np.asarray(values)
    if array.dtype == object:  # such as lists with None in them
        array = np.asarray([[np.nan if v is None else v for v in np.ravel(array)]], dtype=float)
        array = array.reshape(np.shape(values))
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what} must hold real numbers, got dtype {array.dtype}.")
    if array.ndim != ndim or 0 in array.shape[1:]:
        shape = "(n,)" if ndim == 1 else "(n, k)"
        raise ValueError(f"{what} must have shape {shape}, got {array.shape}.")
    array = array.astype(np.float64)
    if np.isinf(array).any():
        raise ValueError(f"{what} has a value that is infinite.")
    return array


def _check_index(index: Any) -> None:
    if not index.is_unique:
        raise ValueError(f"duplicate dates: {index[index.duplicated()][0]} is there twice.")
    if not index.is_monotonic_increasing:
        at = next(k for k in range(1, len(index)) if index[k] < index[k - 1])
        raise ValueError(
            f"dates are not in order: {index[at]} comes after {index[at - 1]}. Sort them first."
        )


def _following(index: Any, steps: int) -> Any:
    """Return the index that follows; counted from 1 where there is no frequency."""
    pandas = _pandas()
    if isinstance(index, pandas.PeriodIndex):
        return pandas.period_range(index[-1] + 1, periods=steps, freq=index.freq)
    if isinstance(index, pandas.DatetimeIndex):
        frequency = frequency_of(index)
        if frequency is not None:
            return pandas.date_range(index[-1], periods=steps + 1, freq=frequency)[1:]
    elif index.dtype.kind in "iu" and len(index) > 1:
        step = int(index[-1] - index[-2])
        return pandas.RangeIndex(index[-1] + step, index[-1] + step * (steps + 1), step)
    return pandas.RangeIndex(1, steps + 1)


def frequency_of(index: Any) -> Any:
    """Return the frequency of a pandas index; None if its dates are not evenly spaced."""
    if getattr(index, "freq", None) is not None:
        return index.freq
    with warnings.catch_warnings():  # pandas announces another type of the answer
        warnings.simplefilter("ignore")
        return getattr(index, "inferred_freq", None)


def _pandas() -> Any:
    """Return pandas, which the owner of an index has imported already."""
    return importlib.import_module("pandas")
