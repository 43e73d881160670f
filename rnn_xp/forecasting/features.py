"""Match features with series: columns by name, rows by time.

An array has no names and no times, so it is taken by position. A table that has them must agree
with the series: its columns may come in another order, and it may have further rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.forecasting.panel import Names, Panel
from rnn_xp.forecasting.tables import Table, read_table
from rnn_xp.forecasting.times import Times

__all__ = ["read_features"]

_Floats = NDArray[np.float64]


def read_features(
    what: str, given: Any, panel: Panel, names: Names = None, ahead: int | None = None
) -> tuple[list[_Floats], Names]:
    """Read the features (n, k) of series.

    Parameters
    ----------
    what : str
        Name of the features, for messages.
    given : array (n, k) or (n,), table, or mapping of names to any of these
        One table for all series, or a mapping with one for each series.
    panel : Panel
        The series.
    names : tuple, optional
        Names of the columns in `fit`, in whose order columns are returned.
    ahead : int, optional
        If given, the features are those of so many steps after the series.

    Returns
    -------
    list of ndarray (n, k)
        The features of each series.
    names : tuple or None
        Names of the columns; None if none are known.

    Raises
    ------
    ValueError
        If there are too few or too many rows, a name or a time does not fit, a value is not finite,
        or k differs between series.
    """
    tables = []
    parts = _parts(what, given, panel.names)
    for name, part, column, times in zip(
        panel.names, parts, panel.columns, panel.times, strict=True
    ):
        table = read_table(part, what, feature=True)
        values = _by_time(what, name, table, times, ahead, len(column))
        if table.names is not None and names is not None:
            values = values[:, _order(what, table.names, names)]
        names = table.names if names is None else names
        if not np.isfinite(values).all():
            raise ValueError(f"{what} must be finite: a missing value is only for the series.")
        tables.append(values)
    if len({table.shape[1] for table in tables}) > 1:
        raise ValueError(f"{what} must have the same columns for all series.")
    return tables, names


def _parts(what: str, given: Any, names: Sequence[Any]) -> list[Any]:
    if not isinstance(given, Mapping) or hasattr(given, "data_vars"):  # xarray's is a table
        return [given] * len(names)
    if given.keys() != set(names):
        text = ", ".join(map(str, names))
        raise ValueError(f"{what} must have the names of the series, {text}.")
    return [given[name] for name in names]


def _order(what: str, names: Sequence[Any], wanted: Sequence[Any]) -> list[int]:
    """Return the place of every wanted column."""
    text, wanted = [str(name) for name in names], [str(name) for name in wanted]
    if missing := [name for name in wanted if name not in text]:
        raise ValueError(
            f"{what} lacks the column {missing[0]!r}: the columns that fit was given are "
            f"{', '.join(wanted)}, and these are {', '.join(text)}."
        )
    if unknown := [name for name in text if name not in wanted]:
        raise ValueError(
            f"{what} has a column {unknown[0]!r} that fit was not given; its columns were "
            f"{', '.join(wanted)}."
        )
    return [text.index(name) for name in wanted]


def _by_time(
    what: str, name: Any, table: Table, times: Times | None, ahead: int | None, length: int
) -> _Floats:
    """Return the rows of a table that belong to a series, or to the steps after it."""
    rows = length if ahead is None else ahead
    expected = None
    if table.times is not None and times is not None:
        expected = times.index if ahead is None else times.following(ahead)
    if table.times is not None and expected is not None:
        came = table.times.index
        at: NDArray[np.intp] = came.get_indexer(expected)
        if (at >= 0).all():
            matched: _Floats = table.values[at]
            return matched
        row = int(np.argmin(at >= 0))
        raise ValueError(
            f"{what} has no row for {expected[row]}, which {'row' if ahead is None else 'step'} "
            f"{row + (ahead is not None)} of {name!r} needs: its rows are those of {came[0]} to "
            f"{came[-1]}. Give the times of the series as the index, or a plain array, whose rows "
            "are taken by position."
        )
    if len(table.values) != rows:
        raise ValueError(f"{what} must have {rows} rows for {name!r}, got {len(table.values)}.")
    if table.times is not None and times is not None and not _comes_after(table.times, times):
        raise ValueError(
            f"{what} must be of times after {times.index[-1]}, the last of {name!r}, but its first "
            f"row is of {table.times.index[0]}."
        )
    return table.values


def _comes_after(later: Times, times: Times) -> bool:
    """Return True unless the first time is known not to come after the last one of a series."""
    try:
        return bool(later.index[0] > times.index[-1])
    except TypeError:  # such as a number and a date
        return False
