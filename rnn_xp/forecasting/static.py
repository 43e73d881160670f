"""What stays the same of each series of a panel: a table of one row for each of them.

Numbers are standardised over the series; a column of text becomes a column of 0 and 1 for each of
its words. They reach the cells as features that do not change with time, so they tell series apart
that else look alike. The linear path does without: each series is scaled by itself, so what is the
same at all of its steps explains nothing in a linear model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_static"]

_Floats = NDArray[np.float64]


def read_static(table: Any, names: Sequence[Any]) -> tuple[_Floats, ...]:
    """Read a table of one row for each series.

    Parameters
    ----------
    table : DataFrame whose index holds the names of the series, mapping of names to rows, or array
        Rows are matched by name, those of an array (S,) or (S, k) by position. A row is a number,
        a text, a list of them, or a mapping of columns to them.
    names : sequence
        Names of the series.

    Returns
    -------
    tuple of ndarray (k,)
        The standardised values of each series.

    Raises
    ------
    ValueError
        If a series has no row or a row too many, a value is missing, or nothing differs.

    Examples
    --------
    >>> [row.tolist() for row in read_static({"a": [1.0, "north"], "b": [3.0, "south"]}, "ab")]
    [[-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]
    """
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        table = {name: list(row) for name, row in zip(table.index, table.to_numpy(), strict=True)}
    if isinstance(table, Mapping):
        rows = _by_name(table, names)
    else:
        rows = list(table) if isinstance(table, list | tuple) else np.asarray(table).tolist()
        if len(rows) != len(names):
            raise ValueError(
                f"static must have {len(names)} rows, one for each series, got {len(rows)}."
            )
    cells = [_cells(row) for row in rows]
    if len({len(row) for row in cells}) > 1:
        raise ValueError("static must have as many values for every series.")
    columns = [_column(k, values) for k, values in enumerate(zip(*cells, strict=True))]
    values = np.concatenate(columns, axis=1)
    spread = np.std(values, axis=0)
    if not spread.any():
        raise ValueError("static tells no series from another: its columns are constant.")
    kept = values[:, spread > 0.0]
    return tuple((kept - np.mean(kept, axis=0)) / spread[spread > 0.0])


def _by_name(table: Mapping[Any, Any], names: Sequence[Any]) -> list[Any]:
    rows = {str(name): row for name, row in table.items()}
    text = [str(name) for name in names]
    if missing := [name for name in text if name not in rows]:
        raise ValueError(f"static has no row for {missing[0]!r}; its rows are {', '.join(rows)}.")
    if unknown := [name for name in rows if name not in text]:
        raise ValueError(f"static has a row {unknown[0]!r}, but there is no such series.")
    return [rows[name] for name in text]


def _cells(row: Any) -> list[Any]:
    if isinstance(row, Mapping):
        return [row[key] for key in sorted(row)]
    return list(row) if isinstance(row, list | tuple | np.ndarray) else [row]


def _column(number: int, values: Sequence[Any]) -> _Floats:
    """Return a column of numbers, or one for each word of a column of text."""
    if any(isinstance(value, str) for value in values):
        words = sorted({str(value) for value in values})
        return np.asarray([[float(str(value) == word) for word in words] for value in values])
    try:
        column = np.asarray(values, dtype=float)[:, None]
    except (TypeError, ValueError):
        raise TypeError(f"static: column {number} must hold numbers or text.") from None
    if not np.isfinite(column).all():
        row = int(np.argmin(np.isfinite(column[:, 0])))
        raise ValueError(f"static: a value is missing or infinite, row {row} of column {number}.")
    return column
