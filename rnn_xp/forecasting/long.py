"""Long tables, which hold one series below the other, as the mappings that a `Forecaster` takes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

__all__ = ["from_long"]


def from_long(
    frame: Any, id: str | Sequence[str], time: str | None, value: str | Sequence[str]
) -> dict[Any, Any]:
    """Return the series of a long table by name.

    Parameters
    ----------
    frame : DataFrame of pandas or polars, table of pyarrow, or mapping of names to columns
        One row for each series and time, in any order.
    id : str or list of str
        The column that names the series; several columns give tuples as names.
    time : str or None
        The column of times, by which the rows of each series are sorted. None takes them as they
        come, without times.
    value : str or list of str
        The column of values. A list of columns gives a table for each series instead, for
        ``past=`` and ``future=``.

    Returns
    -------
    dict
        By name a pandas Series or, for several columns, a DataFrame.

    Raises
    ------
    ValueError
        If a column is not there, or a row has no name.

    Examples
    --------
    >>> sales = {
    ...     "shop": ["a", "b", "a", "b"], "day": [1, 1, 2, 2], "sold": [3.0, 7.0, 4.0, 8.0],
    ... }
    >>> series = from_long(sales, id="shop", time="day", value="sold")
    >>> {name: values.tolist() for name, values in series.items()}
    {'a': [3.0, 4.0], 'b': [7.0, 8.0]}
    """
    pandas = importlib.import_module("pandas")
    keys = [id] if isinstance(id, str) else list(id)
    values = [value] if isinstance(value, str) else list(value)
    wanted = [*keys, *([] if time is None else [time]), *values]
    there = getattr(frame, "column_names", None) or list(
        frame.columns if hasattr(frame, "columns") else frame
    )
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(
            f"the table has no column {missing[0]!r}; it has {', '.join(map(str, there))}."
        )
    table = pandas.DataFrame({name: frame[name].to_numpy() if hasattr(frame[name], "to_numpy")
                              else frame[name] for name in wanted})  # fmt: skip
    if (unnamed := table[keys].isna().any(axis=1)).any():
        raise ValueError(f"row {int(unnamed.argmax())} has no name in {', '.join(keys)}.")
    parts: dict[Any, Any] = {}
    for name, part in table.groupby(keys[0] if len(keys) == 1 else keys, sort=False):
        if time is not None:
            part = part.set_index(time).sort_index(kind="stable")
        else:
            part = part.reset_index(drop=True)
        parts[name] = part[value if isinstance(value, str) else values]
    return parts
