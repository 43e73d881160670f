"""Read one or several series from lists, arrays or pandas objects.

pandas is not imported unless one of its objects is given.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data.datasets import Series
from rnn_xp.data.dates import Spacing, describe_gaps, find_spacing, is_date, read_dates

__all__ = ["Panel", "as_panel", "as_rows", "frequency_of", "refuse_foreign"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One or several series, as float64 vectors in which NaN means missing.

    Attributes
    ----------
    kind : {"array", "series", "frame", "dict"}
        Type of the given data, in which predictions are returned.
    names : tuple of str or int
        Names of the series, as given.
    columns : tuple of ndarray (n,)
        One vector for each name; lengths may differ for a dict only.
    indices : tuple
        The pandas index of each series; None for other data.
    """

    kind: str
    names: tuple[Any, ...]
    columns: tuple[_Floats, ...]
    indices: tuple[Any, ...]

    def before(self, ends: Sequence[int]) -> Panel:
        """Return the rows of each series before the given end."""
        columns = tuple(c[:end] for c, end in zip(self.columns, ends, strict=True))
        indices = tuple(
            None if index is None else index[:end]
            for index, end in zip(self.indices, ends, strict=True)
        )
        return Panel(self.kind, self.names, columns, indices)

    def restore(self, values: Sequence[NDArray[Any]]) -> Any:
        """Return predictions (steps,) of each series in the type of the data.

        pandas objects are indexed by the dates that follow, if the index has a frequency.
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
    data : list, array (n,), pandas Series or `rnn_xp.datasets.Series`
        The values of one series; or, for several series, an array (n, S), a pandas DataFrame, or a
        mapping of names to any type of a single series.

    Returns
    -------
    Panel

    Raises
    ------
    ValueError
        If there are no values, a value is infinite, a name occurs twice, or dates are missing, not
        in time order or not unique.
    TypeError
        If the values are not real numbers, or if the object has times or a mask that would be lost.

    Examples
    --------
    >>> as_panel([1, 2, 3]).kind, as_panel({"a": [1.0], "b": [2.0, 3.0]}).names
    ('array', ('a', 'b'))
    """
    if isinstance(data, Series):
        data = data.values
    if isinstance(data, Mapping):
        return _mapping(data)
    refuse_foreign(data, "the series")
    if hasattr(data, "to_numpy") and hasattr(data, "index"):
        index = _index(data.index)
        if hasattr(data, "columns"):
            names = _labels(data.columns)
            table = _floats(_table(data), "the DataFrame", 2)
            columns = tuple(np.ascontiguousarray(column) for column in table.T)
            return Panel("frame", names, columns, (index,) * len(names))
        name = "series" if data.name is None else data.name
        return Panel("series", (name,), (_floats(data.to_numpy(), str(name), 1),), (index,))
    values = np.asarray(data)
    if values.ndim == 2:
        if values.shape[0] == 1 and values.shape[1] > 1:
            raise ValueError(
                f"the series have shape {values.shape}: time is the first axis and several series "
                "are columns, (n, S). For a single series give its row, series[0]."
            )
        table = _floats(values, "the series", 2)
        columns = tuple(np.ascontiguousarray(column) for column in table.T)
        return Panel("frame", tuple(range(table.shape[1])), columns, (None,) * table.shape[1])
    return Panel("array", ("series",), (_floats(values, "the series", 1),), (None,))


def _mapping(data: Mapping[Any, Any]) -> Panel:
    """Read several series by name."""
    if not data:
        raise ValueError("no series were given: the mapping is empty.")
    parts = {name: as_panel(each) for name, each in data.items()}
    if several := [name for name, part in parts.items() if len(part.columns) > 1]:
        raise ValueError(f"{several[0]!r} must be one series, but it has several columns.")
    names = _labels(parts)
    columns = tuple(part.columns[0] for part in parts.values())
    return Panel("dict", names, columns, tuple(part.indices[0] for part in parts.values()))


def _labels(labels: Iterable[Any]) -> tuple[Any, ...]:
    """Return the names of series as given, and check that they are unique.

    Names are compared as text, because files store them as text: 1 and "1" are the same name.
    """
    labels = tuple(int(name) if hasattr(name, "__index__") else name for name in labels)
    text = [str(name) for name in labels]
    for name in text:
        if text.count(name) > 1:
            raise ValueError(f"the name {name!r} is there twice; each series needs its own name.")
    return labels


def refuse_foreign(data: Any, what: str) -> None:
    """Refuse objects whose times or masks a conversion to plain numbers would lose.

    Raises
    ------
    TypeError
        If the object is one of these. The message names the call that converts it to a supported
        type.
    """
    kind = type(data)
    library = kind.__module__.partition(".")[0]
    if np.ma.isMaskedArray(data):
        raise TypeError(
            f"{what}: a masked array would lose its mask. Give values.filled(numpy.nan), and "
            "missing='interpolate' or missing='mask'."
        )
    remedies = {
        "darts": "to_dataframe()",
        "xarray": "to_series()",
        "polars": "to_pandas(), with its dates as the index",
        "pyarrow": "to_pandas(), with its dates as the index",
    }
    frame = hasattr(data, "columns") or library in ("darts", "xarray")
    if library in remedies and frame:
        raise TypeError(
            f"{what}: {library}.{kind.__name__} has times in a way of its own, which would be "
            f"lost. Give its {remedies[library]}."
        )


def _table(frame: Any) -> NDArray[Any]:
    """Return the numbers of a DataFrame; columns of dates or text are refused."""
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        column = frame[name]
        if dtype.kind in "Mm" or _reads_as_dates(column):
            raise TypeError(
                f"column {name!r} holds dates, not values. Make it the index: "
                f"frame.set_index({name!r})."
            )
        if dtype.kind not in "biufc" and any(isinstance(value, str) for value in column):
            raise TypeError(
                f"column {name!r} holds text. A table has one column for each series: turn a long "
                "one into columns with frame.pivot(index=..., columns=..., values=...)."
            )
    return np.asarray(frame.to_numpy())


def _reads_as_dates(column: Any) -> bool:
    first = next(iter(column), None)
    return isinstance(first, str) and is_date(first)


def as_rows(what: str, given: Any, names: Sequence[str], lengths: Sequence[int]) -> list[_Floats]:
    """Read the features (n, k) of series.

    Parameters
    ----------
    what : str
        Name of the features, for messages.
    given : array (n, k) or (n,), DataFrame, or mapping of names to any of these
        One table for all series, or a mapping with one for each series.
    names, lengths : sequence
        Name and number of rows of each series.

    Returns
    -------
    list of ndarray (n, k)
        The features of each series.

    Raises
    ------
    ValueError
        If there are too few or too many rows, a value is not finite, or k differs between series.
    """
    if isinstance(given, Mapping):
        if given.keys() != set(names):
            raise ValueError(f"{what} must have the names of the series, {', '.join(names)}.")
        parts = [given[name] for name in names]
    else:
        parts = [given] * len(names)
    tables = []
    for name, part, rows in zip(names, parts, lengths, strict=True):
        refuse_foreign(part, what)
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
    if array.dtype == object:  # such as lists with None in them, or pandas' own missing value
        flat = [np.nan if _is_missing(value) else value for value in np.ravel(array)]
        try:
            array = np.asarray(flat, dtype=float).reshape(array.shape)
        except (TypeError, ValueError):
            raise TypeError(f"{what} must hold real numbers only.") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what} must hold real numbers, got dtype {array.dtype}.")
    if array.ndim != ndim or 0 in array.shape[1:]:
        shape = "(n,)" if ndim == 1 else "(n, k)"
        raise ValueError(f"{what} must have shape {shape}, got {array.shape}.")
    array = array.astype(np.float64)
    if np.isinf(array).any():
        raise ValueError(f"{what} has a value that is infinite.")
    return array


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType"


def _index(index: Any) -> Any:
    """Return the index of a pandas object, checked to be in time order; text becomes dates."""
    pandas = _pandas()
    if index.nlevels > 1:
        raise ValueError(
            f"the index has {index.nlevels} levels. One series has one date for each row: make "
            "columns of the series, as with frame.unstack(), or a dict of series."
        )
    missing = np.flatnonzero(index.isna())
    if missing.size:
        raise ValueError(
            f"a date is missing: row {missing[0]} of the index is {index[missing[0]]}."
        )
    if any(isinstance(label, str) for label in index[:1]):
        dates = read_dates([str(label).strip() for label in index])
        if dates is None:
            raise ValueError(
                f"the index holds text ({index[0]!r}), whose order in time is unknown. Give dates "
                "such as pandas.to_datetime(index), or rows: series.reset_index(drop=True)."
            )
        index = pandas.DatetimeIndex(dates.moments, name=index.name)
    if not index.is_unique:
        raise ValueError(f"duplicate dates: {index[index.duplicated()][0]} is there twice.")
    if not index.is_monotonic_increasing:
        at = next(k for k in range(1, len(index)) if index[k] < index[k - 1])
        raise ValueError(
            f"dates are not in order: {index[at]} comes after {index[at - 1]}. Sort them first."
        )
    if gaps := describe_gaps(index, _spacing(index)):
        warnings.warn(
            f"{gaps}; the rows on both sides are taken for neighbours. Add the missing rows, for "
            "instance with series.asfreq(...), and say with missing= what to do about them.",
            stacklevel=4,
        )
    return index


def _spacing(index: Any) -> Spacing | None:
    """Return the spacing of a DatetimeIndex, despite missing dates; None for any other index."""
    if not hasattr(index, "to_pydatetime") or not hasattr(index, "tz") or frequency_of(index):
        return None
    return find_spacing(index.to_pydatetime())


def _following(index: Any, steps: int) -> Any:
    """Return the index that follows; without a frequency it counts from 1."""
    pandas = _pandas()
    if isinstance(index, pandas.PeriodIndex):
        return pandas.period_range(index[-1] + 1, periods=steps, freq=index.freq)
    if isinstance(index, pandas.DatetimeIndex):
        frequency = frequency_of(index)
        if frequency is not None:
            return pandas.date_range(index[-1], periods=steps + 1, freq=frequency)[1:]
        if (spacing := _spacing(index)) is not None:
            return pandas.DatetimeIndex(list(_after(index[-1], spacing, max(index.day), steps)))
    elif isinstance(index, pandas.TimedeltaIndex) and frequency_of(index) is not None:
        step = index[-1] - index[-2]
        return pandas.timedelta_range(index[-1] + step, periods=steps, freq=step)
    elif index.dtype.kind in "iu" and len(index) > 1:
        step = int(index[-1] - index[-2])
        return pandas.RangeIndex(index[-1] + step, index[-1] + step * (steps + 1), step)
    return pandas.RangeIndex(1, steps + 1)


def _after(moment: Any, spacing: Spacing, day: int, steps: int) -> Iterator[Any]:
    for _ in range(steps):
        moment = spacing.after(moment, day)
        yield moment


def frequency_of(index: Any) -> Any:
    """Return the frequency of a pandas index; None if its dates are not evenly spaced."""
    if getattr(index, "freq", None) is not None:
        return index.freq
    with warnings.catch_warnings():  # pandas announces another type of the answer
        warnings.simplefilter("ignore")
        return getattr(index, "inferred_freq", None)


def _pandas() -> Any:
    """Return pandas, which must have been imported if there is an index."""
    return importlib.import_module("pandas")
