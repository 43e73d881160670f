"""One column of numbers and one of dates, of a table."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError
from rnn_xp.data.cells import MISSING, Table, is_dates, is_numeric, parse, values_of
from rnn_xp.data.dates import Spacing, describe_gaps, find_spacing, is_date, read_dates
from rnn_xp.data.gaps import check_policy

__all__ = ["Column", "read_column", "read_long"]


class Column(NamedTuple):
    """One column of a file.

    Attributes
    ----------
    title : str
        Header of the column, or its index if the file has no header.
    values : (n,) float64 array
        The values, finite and read-only.
    dates : tuple of n str, or None
        Dates as written in the file; None if it has none.
    """

    title: str
    values: NDArray[np.float64]
    dates: tuple[str, ...] | None


def read_column(
    data: bytes,
    file: str,
    column: str | int | None = None,
    date_column: str | int | None = None,
    missing: str = "error",
) -> Column:
    r"""Read the column of values and, if there is one, the column of dates.

    Parameters
    ----------
    data : bytes
        The uncompressed file.
    file : str
        Name of the file in error messages.
    column, date_column, missing
        As for `rnn_xp.data.datasets.read_csv`.

    Returns
    -------
    Column
        The values are finite and read-only.

    Raises
    ------
    TypeError, ValueError
        As for `rnn_xp.data.datasets.read_csv`.

    Examples
    --------
    >>> column = read_column(b"day,level\n2024-01-01,1.5\n2024-01-02,2.5\n", "tide.csv")
    >>> column.title, column.values.tolist(), column.dates
    ('level', [1.5, 2.5], ('2024-01-01', '2024-01-02'))
    """
    check_policy(missing)
    return _column(parse(data, file), column, date_column, missing)


def read_long(
    data: bytes, file: str, id: str | int, column: str | int | None, missing: str = "error"
) -> dict[str, Column]:
    """Read the series of a long file by name, see `rnn_xp.data.datasets.read_long_csv`."""
    table = parse(data, file)
    k, groups = table.index(id), dict[str, list[int]]()
    for row, name in enumerate(table.cells(k)):
        if not name.strip():
            raise ValueError(f"{table.where(row, k)}: the series has no name.")
        groups.setdefault(name.strip(), []).append(row)
    header = None if table.header is None else [*table.header[:k], *table.header[k + 1 :]]
    if column is None:
        column = table.title(_only_numeric(table, k))
    if table.index(column) == k:
        raise ValueError(f"{file}: column {table.title(k)!r} cannot be both names and values.")
    return {
        name: _column(
            Table(
                f"{file}, {name}", header, [table.lines[row] for row in rows],
                [[*table.rows[row][:k], *table.rows[row][k + 1 :]] for row in rows],
            ),
            column, None, missing,
        )
        for name, rows in groups.items()
    }  # fmt: skip


def _column(
    table: Table, column: str | int | None, date_column: str | int | None, missing: str
) -> Column:
    file = table.file
    date = None if date_column is None else table.index(date_column)
    j = _only_numeric(table, date) if column is None else table.index(column)
    if j == date:
        raise ValueError(f"{file}: column {table.title(j)!r} cannot be both values and dates.")
    values = values_of(table, j, allow_missing=missing != "error")
    if np.isnan(values).all():
        raise ValueError(f"{file}: column {table.title(j)!r} has no values.")
    dates, spacing = _dates(table, date if date is not None else _first_dates(table, j))
    gaps = "" if dates is None else describe_gaps(dates, spacing)
    if missing == "interpolate":
        values, dates = _interpolate(table, j, values, dates, spacing)
    elif gaps:
        warnings.warn(
            f"{file}: {gaps}; the rows on both sides are taken for neighbours. Add the missing "
            "rows, or fill them with missing='interpolate'.",
            stacklevel=4,
        )
    if missing == "drop":
        known = ~np.isnan(values)
        values, dates = values[known], dates and tuple(itertools.compress(dates, known))
    values.flags.writeable = False
    return Column(table.title(j), values, dates)


def _only_numeric(table: Table, date_column: int | None) -> int:
    """Return the index of the one column that can hold the values."""
    others = [j for j in range(len(table.rows[0])) if j != date_column]
    numeric = [j for j in others if is_numeric(table.cells(j))] if len(others) > 1 else others
    if not numeric:
        raise ValueError(
            f"{table.file} has no column of numbers; row {table.lines[0]} is {table.rows[0]}. "
            "Cells are separated by commas, semicolons or tabs, decimals written with a point."
        )
    if len(numeric) > 1:
        several = f"{table.file} has several columns of numbers: {table.choices(numeric)}. "
        raise ParameterError("Say which with {0}.", Argument("column")).within(several)
    return numeric[0]


def _first_dates(table: Table, value_column: int) -> int | None:
    """Return the index of the first column that reads like dates, or None."""
    others = (j for j in range(len(table.rows[0])) if j != value_column)
    return next((j for j in others if is_dates(table.cells(j))), None)


def _dates(table: Table, column: int | None) -> tuple[tuple[str, ...] | None, Spacing | None]:
    """Return the cells of the date column, checked to be in time order, and their spacing."""
    if column is None:
        return None, None
    cells = tuple(table.cells(column))
    for k, cell in enumerate(cells):
        if cell.lower() in MISSING:
            raise ValueError(f"{table.where(k, column)}: the date is missing ({cell!r}).")
    try:
        dates = read_dates(cells)
    except ValueError as error:
        raise ValueError(f"{table.where(-1, column)}: {error}") from None
    if dates is None:
        if not is_dates(cells):
            return cells, None
        for k, cell in enumerate(cells):
            if not is_date(cell):
                raise ValueError(
                    f"{table.where(k, column)}: {cell!r} is not a date, but most cells of this "
                    "column are. Remove rows that do not belong to the series, such as totals."
                )
        return cells, None  # labels, such as days without a year
    for k in range(1, len(cells)):
        early, late = dates.moments[k - 1], dates.moments[k]
        if late < early:
            raise ValueError(
                f"{table.where(k, column)}: {cells[k]} comes after {cells[k - 1]}. "
                "Sort the rows by time, oldest first, with one series per file."
            )
        if late == early:
            raise ValueError(
                f"{table.where(k, column)}: the date {cells[k]} is there twice. A file holds one "
                "series: keep the rows of one, and join dates and times of day in one column."
            )
    return cells, find_spacing(dates.moments)


def _interpolate(
    table: Table,
    column: int,
    values: NDArray[np.float64],
    dates: tuple[str, ...] | None,
    spacing: Spacing | None,
) -> tuple[NDArray[np.float64], tuple[str, ...] | None]:
    """Fill missing cells linearly, and missing rows if the dates show how many there are."""
    for k in (0, -1):
        if np.isnan(values[k]):
            raise ParameterError(
                " is missing and has a value on one side only, so it cannot be interpolated. "
                "Remove the row or pass {0}.",
                Argument("missing", "drop"),
            ).within(table.where(k, column))
    rows = np.arange(len(values))
    if dates is not None and spacing is not None and spacing.gaps:
        for gap in spacing.gaps:
            rows[gap.before + 1 :] += gap.missing
        dates = tuple(_filled(dates, spacing))
    known = ~np.isnan(values)
    return np.interp(np.arange(rows[-1] + 1), rows[known], values[known]), dates


def _filled(dates: tuple[str, ...], spacing: Spacing) -> Iterator[str]:
    """Yield all dates, including those that are missing in between."""
    missing, column = dict(spacing.gaps), read_dates(dates)
    for k, date in enumerate(dates):
        yield date
        if column is not None and k in missing:
            moment, day = column.moments[k], max(m.day for m in column.moments)
            for _ in range(missing[k]):
                moment = spacing.after(moment, day)
                yield column.write(moment)
