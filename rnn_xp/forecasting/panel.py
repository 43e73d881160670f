"""One or several series, with their names and times."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data.datasets import Series
from rnn_xp.forecasting.static import read_static
from rnn_xp.forecasting.tables import read_names, read_table
from rnn_xp.forecasting.times import Times

__all__ = ["Names", "Panel", "as_panel"]

_Floats = NDArray[np.float64]

Names: TypeAlias = tuple[Any, ...] | None
"""Names of the columns of features; None if they have none."""


@dataclass(frozen=True)
class Panel:
    """One or several series, as float64 vectors in which NaN means missing.

    Attributes
    ----------
    kind : {"array", "series", "frame", "dict"}
        Type of the given data, in which predictions are returned.
    names : tuple of str, int, or tuple of these
        Names of the series, as given.
    columns : tuple of ndarray (n,)
        One vector for each name; lengths may differ for a dict only.
    times : tuple of Times or None
        The times of each series; None for data without times.
    features : tuple of two Names
        Names of the past and of the future features that belong to the series.
    static : tuple of ndarray (k,)
        What does not change with time, of each series, see `rnn_xp.forecasting.static`.
    """

    kind: str
    names: tuple[Any, ...]
    columns: tuple[_Floats, ...]
    times: tuple[Times | None, ...]
    features: tuple[Names, Names] = (None, None)
    static: tuple[_Floats, ...] = ()

    @property
    def statics(self) -> int:
        """Number of values that do not change with time; the last past features hold them."""
        return len(self.static[0]) if self.static else 0

    def described(self, static: Any) -> Panel:
        """Return the same series with what does not change of each, see `read_static`."""
        if static is None:
            return self
        return dataclasses.replace(self, static=read_static(static, self.names))

    def before(self, ends: Sequence[int]) -> Panel:
        """Return the rows of each series before the given end."""
        columns = tuple(c[:end] for c, end in zip(self.columns, ends, strict=True))
        times = tuple(
            None if times is None else times.before(end)
            for times, end in zip(self.times, ends, strict=True)
        )
        return dataclasses.replace(self, columns=columns, times=times)

    def in_order_of(self, names: Sequence[Any]) -> Panel:
        """Return the same series in the order of other names.

        If no series has one of these names, they are other series, and their order is kept.

        Raises
        ------
        ValueError
            If only some of the names are those of these series.
        """
        common = set(self.names) & set(names)
        if not common:
            return self
        if common != set(self.names) or common != set(names):
            raise ValueError(
                f"the series must have the names that fit was given, {', '.join(map(str, names))}; "
                f"got {', '.join(map(str, self.names))}."
            )
        order = [self.names.index(name) for name in names]
        columns = tuple(self.columns[k] for k in order)
        times = tuple(self.times[k] for k in order)
        static = tuple(self.static[k] for k in order) if self.static else ()
        return dataclasses.replace(
            self, names=tuple(names), columns=columns, times=times, static=static
        )

    def check_begins_with(self, seen: Panel, rows: Sequence[int]) -> None:
        """Check that these series begin with the rows of other ones, as far as times tell.

        Raises
        ------
        ValueError
            If the last of those rows is of another time here.
        """
        for name, times, earlier, count in zip(
            self.names, self.times, seen.times, rows, strict=True
        ):
            if times is None or earlier is None or len(times.index) < count:
                continue
            last = int(times.index.get_indexer(earlier.index[-1:])[0])
            known = len(earlier.index)  # 1 if they come from a file, which may hold later ones
            if last < count - 1 or (known >= count and last != known - 1):
                raise ValueError(
                    f"the complete series is required, the {count} values of {name!r} that the "
                    f"forecaster knows and the values after them. These end with "
                    f"{earlier.index[-1]}, but row {count - 1} is of {times.index[count - 1]}."
                )

    def restore(self, values: Sequence[NDArray[Any]]) -> Any:
        """Return predictions (steps,) of each series in the type of the data.

        Data with times give pandas objects, indexed by the times that follow if these are known.
        """
        if self.kind == "array":
            return values[0]
        pieces = [
            value
            if times is None
            else _pandas().Series(value, index=times.counted(len(value)), name=name)
            for name, times, value in zip(self.names, self.times, values, strict=True)
        ]
        if self.kind == "series":
            return pieces[0]
        if self.kind == "frame" and self.times[0] is None:  # a plain array (n, S)
            return np.stack(pieces, axis=1)
        together = dict(zip(self.names, pieces, strict=True))
        return together if self.kind == "dict" else _pandas().DataFrame(together)


def as_panel(data: Any) -> Panel:
    """Read series of any supported type.

    Parameters
    ----------
    data : list, array, `rnn_xp.datasets.Series`, object of another library, or mapping
        One series, or a table with one series in each column, see
        `rnn_xp.forecasting.tables.read_table`; or a mapping of names to single series.

    Returns
    -------
    Panel

    Raises
    ------
    ValueError
        If there are no values, a value is infinite, a name occurs twice, or dates are missing, not
        in time order or not unique.
    TypeError
        If the values are not real numbers, or if the object has a mask that would be lost.

    Examples
    --------
    >>> as_panel([1, 2, 3]).kind, as_panel({"a": [1.0], "b": [2.0, 3.0]}).names
    ('array', ('a', 'b'))
    """
    if isinstance(data, Series):
        data = data.values
    if isinstance(data, Mapping) and not hasattr(data, "data_vars"):  # xarray's is a table
        return _mapping(data)
    _check_list(data)
    table = read_table(data, "the series")
    if table.names is None and table.values.shape[0] == 1 < table.values.shape[1]:
        raise ValueError(
            f"the series have shape {table.values.shape}: time is the first axis and several "
            "series are columns, (n, S). For a single series give its row, series[0]."
        )
    columns = tuple(np.ascontiguousarray(column) for column in table.values.T)
    names = ("series",) if table.single else tuple(range(len(columns)))
    names = names if table.names is None else table.names
    if table.single:
        return Panel("array" if table.times is None else "series", names, columns, (table.times,))
    kind = "dict" if table.times is None and table.names is not None else "frame"
    return Panel(kind, names, columns, (table.times,) * len(columns))


def _mapping(data: Mapping[Any, Any]) -> Panel:
    """Read several series by name."""
    if not data:
        raise ValueError("no series were given: the mapping is empty.")
    parts = {name: as_panel(each) for name, each in data.items()}
    if several := [name for name, part in parts.items() if len(part.columns) > 1]:
        raise ValueError(f"{several[0]!r} must be one series, but it has several columns.")
    columns = tuple(part.columns[0] for part in parts.values())
    times = tuple(part.times[0] for part in parts.values())
    return Panel("dict", read_names(parts), columns, times)


def _check_list(data: Any) -> None:
    """Refuse a list of series, which would be read as a list of rows."""
    if not isinstance(data, list | tuple):
        return
    parts = (each.values if isinstance(each, Series) else each for each in data)
    lengths = [
        len(each)
        for each in parts
        if isinstance(each, list | tuple) or (hasattr(each, "dtype") and np.ndim(each) == 1)
    ]
    if len(set(lengths)) > 1 or (lengths and len(lengths) < lengths[0]):
        raise ValueError(
            f"a list of {len(lengths)} series, the first with {lengths[0]} values: a list holds "
            "rows, one for each time. Give several series as a dict of names and series, or as "
            "columns with numpy.stack(series, axis=1)."
        )


def _pandas() -> Any:
    """Return pandas, which must have been imported if there are times."""
    return importlib.import_module("pandas")
