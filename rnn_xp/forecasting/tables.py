"""Read numbers with their names and times from lists, arrays and tables of other libraries.

No library is imported unless one of its objects is given; times need pandas.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import readable
from rnn_xp.data.dates import is_date
from rnn_xp.forecasting.times import Times, read_times

__all__ = ["Table", "read_names", "read_table"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Numbers with their names and times.

    Attributes
    ----------
    values : ndarray (n, k)
        NaN where a value is missing.
    names : tuple or None
        Names of the columns; None for plain arrays.
    times : Times or None
        Times of the rows; None for data without times.
    single : bool
        True if there was one column without an axis of its own, as in an array (n,).
    """

    values: _Floats
    names: tuple[Any, ...] | None
    times: Times | None
    single: bool


def read_table(data: Any, what: str, *, feature: bool = False) -> Table:
    """Read one series or a table of several columns.

    Parameters
    ----------
    data : list, array (n,) or (n, k), or an object of another library
        The objects are Series and DataFrame of pandas and polars; arrays and tables of pyarrow;
        DataArray of xarray, with time as its first dimension; and TimeSeries of darts. A column of
        dates in a table of polars or pyarrow holds the times of its rows.
    what : str
        Name of the data, for messages.
    feature : bool
        True if the data are features of a series, whose times may have gaps.

    Returns
    -------
    Table

    Raises
    ------
    TypeError
        If there are other values than real numbers, or a mask that would be lost.
    ValueError
        If a name occurs twice, times are not in order, a value is infinite, or the shape is wrong.

    Examples
    --------
    >>> table = read_table([[1, 10], [2, 20]], "the series")
    >>> table.values.shape, table.names, table.times
    ((2, 2), None, None)
    """
    data = _as_pandas(readable(what, data))
    if _is_columnar(data):
        return _columns(data, what, feature)
    if hasattr(data, "to_numpy") and hasattr(getattr(data, "index", None), "nlevels"):
        times = read_times(data.index, what if feature else "")
        if hasattr(data, "columns"):
            names = read_names(data.columns, what)
            return Table(_floats(_numbers(data), what, 2), names, times, False)
        label = what if data.name is None or feature else str(data.name)
        values = _floats(data.to_numpy(), label, 1)[:, None]
        return Table(values, None if data.name is None else read_names([data.name]), times, True)
    values = np.asarray(data)
    if values.ndim == 2:
        return Table(_floats(values, what, 2), None, None, False)
    return Table(_floats(values, what, 1)[:, None], None, None, True)


def read_names(labels: Iterable[Any], what: str = "the series") -> tuple[Any, ...]:
    """Return names as given, and check that they are unique and that a file can hold them.

    Names are compared as text, because files store them as text: 1 and "1" are the same name.
    """
    names = tuple(_name(label, what) for label in labels)
    text = [str(name) for name in names]
    for name in text:
        if text.count(name) > 1:
            raise ValueError(
                f"{what}: the name {name!r} is there twice; each column needs a name of its own."
            )
    return names


def _name(label: Any, what: str) -> Any:
    if isinstance(label, tuple):
        return tuple(_name(each, what) for each in label)
    if isinstance(label, str):
        return str(label)
    if hasattr(label, "__index__"):
        return int(label)
    raise TypeError(
        f"{what}: a name must be text, a whole number or a tuple of these, got {label!r}. If the "
        "columns are times, transpose the table: time is the first axis."
    )


def _as_pandas(data: Any) -> Any:
    """Return objects of xarray and darts, which have times of their own, as pandas objects."""
    library = type(data).__module__.partition(".")[0]
    if library == "darts" and hasattr(data, "to_dataframe"):
        return data.to_dataframe()
    if library == "xarray":
        return data.to_dataframe() if hasattr(data, "data_vars") else data.to_pandas()
    return data


def _is_columnar(data: Any) -> bool:
    """Return True for tables of polars and pyarrow."""
    library = type(data).__module__.partition(".")[0]
    lazy_or_table = hasattr(data, "collect") or hasattr(data, "columns")
    return library in ("polars", "pyarrow") and lazy_or_table


def _columns(data: Any, what: str, feature: bool) -> Table:
    """Read a table whose times, if it has any, are a column."""
    if hasattr(data, "collect"):
        raise TypeError(f"{what}: the table is lazy and holds no values yet. Give its collect().")
    names = [*(data.column_names if hasattr(data, "column_names") else data.columns)]
    read_names(names, what)
    _refuse_long(names)
    columns = {name: np.asarray(data[name].to_numpy()) for name in names}
    dated = [name for name, column in columns.items() if column.dtype.kind == "M"]
    if len(dated) > 1:
        raise TypeError(f"{what}: the columns {dated[0]!r} and {dated[1]!r} both hold dates.")
    times = None
    for name in dated:
        zone = getattr(data[name], "dtype", None) or data[name].type
        zone = getattr(zone, "time_zone", None) or getattr(zone, "tz", None)
        index = importlib.import_module("pandas").DatetimeIndex(columns.pop(name))
        index = index if zone is None else index.tz_localize("UTC").tz_convert(zone)
        times = read_times(index, what if feature else "")
    for name, column in columns.items():
        _check_column(name, column)
    if not columns:
        raise ValueError(f"{what} has no column of values.")
    table = np.stack(list(columns.values()), axis=1)
    return Table(_floats(table, what, 2), tuple(columns), times, False)


def _numbers(frame: Any) -> NDArray[Any]:
    """Return the numbers of a pandas DataFrame; columns of dates or text are refused."""
    _refuse_long(frame.columns)
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if dtype.kind not in "biufc":
            _check_column(name, frame[name], f" Make it the index: frame.set_index({name!r}).")
    return np.asarray(frame.to_numpy())


def _refuse_long(names: Iterable[Any]) -> None:
    """Refuse a table whose names say that it holds one series after another."""
    if {"unique_id", "ds", "y"} <= {str(name) for name in names}:
        raise TypeError(
            "the columns 'unique_id', 'ds' and 'y' are those of a long table, but a table has one "
            "column for each series. Give rnn_xp.from_long(frame, id='unique_id', time='ds', "
            "value='y')."
        )


def _check_column(name: Any, column: Any, remedy: str = " Convert it to a type of dates.") -> None:
    """Refuse a column of dates or text."""
    if column.dtype.kind in "biufc":
        return
    first = next(iter(column), None)
    if column.dtype.kind in "Mm" or (isinstance(first, str) and is_date(first)):
        raise TypeError(f"column {name!r} holds dates, not values.{remedy}")
    if any(isinstance(value, str) for value in column):
        raise TypeError(
            f"column {name!r} holds text. A table has one column for each series; a long one "
            "becomes series with rnn_xp.from_long(frame, id=..., time=..., value=...)."
        )


def _floats(values: Any, what: str, ndim: int) -> _Floats:
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
