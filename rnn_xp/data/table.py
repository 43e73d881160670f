"""Parse delimited text into one column of numbers and one of dates.

The layout is inferred from all rows of the file: the separator is the one that cuts most rows to
the same number of cells; a column holds numbers if at least half of its cells do; a header is a
first row with a word above numbers or dates. Anything that does not fit raises an error.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError
from rnn_xp.data.dates import Spacing, describe_gaps, find_spacing, is_date, read_dates

__all__ = ["Column", "read_column"]

_MISSING = {"", "na", "nan", "null", "."}
_POLICIES = ("error", "drop", "interpolate")


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
    if missing not in _POLICIES:
        raise ValueError(f"missing={missing!r} is not known. Valid: {', '.join(_POLICIES)}.")
    table = _parse(data, file)
    date = None if date_column is None else table.index(date_column)
    j = _only_numeric(table, date) if column is None else table.index(column)
    if j == date:
        raise ValueError(f"{file}: column {table.title(j)!r} cannot be both values and dates.")
    values = _values(table, j, allow_missing=missing != "error")
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
            stacklevel=3,
        )
    if missing == "drop":
        known = ~np.isnan(values)
        values, dates = values[known], dates and tuple(itertools.compress(dates, known))
    values.flags.writeable = False
    return Column(table.title(j), values, dates)


@dataclass(frozen=True)
class _Table:
    """The cells of a file: rows of equal width, each with the number of its last line."""

    file: str
    header: list[str] | None
    lines: list[int]
    rows: list[list[str]]

    def cells(self, column: int) -> list[str]:
        return [row[column] for row in self.rows]

    def title(self, column: int) -> str:
        return str(column) if self.header is None else self.header[column]

    def where(self, row: int, column: int) -> str:
        label = column if self.header is None else repr(self.header[column])
        return f"{self.file}: row {self.lines[row]}, column {label}"

    def choices(self, columns: Sequence[int]) -> str:
        return ", ".join(str(j) if self.header is None else repr(self.header[j]) for j in columns)

    def index(self, column: str | int) -> int:
        """Return the index of a column that is given by name or index."""
        if isinstance(column, bool) or not isinstance(column, (str, int)):
            raise TypeError(f"a column is given by its name or index, got {column!r}.")
        header = self.header or []
        if isinstance(column, str) and column in header:
            if header.count(column) > 1:
                raise ValueError(f"{self.file} has several columns {column!r}. Give an index.")
            return header.index(column)
        width = len(self.rows[0])
        if (isinstance(column, int) or column.isdecimal()) and 0 <= int(column) < width:
            return int(column)
        raise ValueError(
            f"{self.file} has no column {column!r}. Valid: {self.choices(range(width))}"
            + (", or an index from 0." if header else " (the file has no header).")
        )


def _parse(data: bytes, file: str) -> _Table:
    """Cut a file into cells and find out whether its first row is a header."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start}). "
            "Save it as UTF-8."
        ) from error
    try:
        candidates = [_split(text, mark) for mark in "\t;," if mark in text or mark == ","]
    except csv.Error as error:
        raise ValueError(f"{file} is not a CSV file: {error}.") from error
    if not candidates[0][0]:
        raise ValueError(f"{file} is empty.")
    # The delimiter that cuts most rows to the same number of cells; one column has none.
    numbered, width, _ = max(candidates, key=lambda split: split[2] if split[1] > 1 else 0)
    if width == 1:
        numbered = candidates[-1][0]
    for line, cells in numbered:
        if len(cells) != width:
            raise ValueError(
                f"{file}: row {line} has {len(cells)} cells where most rows have {width}. "
                "Quote cells that contain the separator."
            )
    lines, rows = [line for line, _ in numbered], [cells for _, cells in numbered]
    if not _has_header(rows):
        return _Table(file, None, lines, rows)
    if len(rows) == 1:
        raise ValueError(f"{file} has a header ({', '.join(rows[0])}) but no rows below it.")
    return _Table(file, rows[0], lines[1:], rows[1:])


def _split(text: str, delimiter: str) -> tuple[list[tuple[int, list[str]]], int, float]:
    """Return numbered rows, their usual number of cells, and the fraction of rows that have it."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = [(reader.line_num, [cell.strip() for cell in cells] or [""]) for cells in reader]
    filled = [k for k, (_, cells) in enumerate(rows) if cells != [""]]
    if not filled:
        return [], 0, 0.0
    rows = rows[filled[0] : filled[-1] + 1]
    width, count = Counter(len(rows[k - filled[0]][1]) for k in filled).most_common(1)[0]
    # In a file of one column an empty line is a missing value; elsewhere it is nothing.
    if width > 1:
        rows = [(line, cells) for line, cells in rows if cells != [""]]
    return rows, width, count / len(filled)


def _has_header(rows: list[list[str]]) -> bool:
    """Return True if the first row has a word where the rows below have numbers or dates."""
    first, body = rows[0], rows[1:]
    if not body:
        return all(_number(cell) is None for cell in first)
    return any(
        (_is_numeric(cells) and _number(title) is None)
        or (_is_dates(cells) and not _has_digit(title))
        for title, cells in zip(first, zip(*body, strict=True), strict=True)
    )


def _number(cell: str) -> float | None:
    """Return the value of a cell; NaN if it is missing, None if it is not a number."""
    if cell.lower() in _MISSING:
        return math.nan
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _has_digit(cell: str) -> bool:
    return re.search(r"\d", cell) is not None


def _is_numeric(cells: Sequence[str]) -> bool:
    """Return True if at least half of the cells that are not missing are numbers."""
    numbers = [_number(cell) for cell in cells]
    good = sum(number is not None and not math.isnan(number) for number in numbers)
    return good > 0 and good >= sum(number is None for number in numbers)


def _is_dates(cells: Sequence[str]) -> bool:
    """Return True if at least half of the cells that are not missing are dates, and not numbers."""
    if _is_numeric(cells):
        return False
    present = [cell for cell in cells if cell.lower() not in _MISSING]
    different = dict.fromkeys(present)
    return 2 * sum(map(is_date, different)) >= len(different) > 0


def _only_numeric(table: _Table, date_column: int | None) -> int:
    """Return the index of the one column that can hold the values."""
    others = [j for j in range(len(table.rows[0])) if j != date_column]
    numeric = [j for j in others if _is_numeric(table.cells(j))] if len(others) > 1 else others
    if not numeric:
        raise ValueError(
            f"{table.file} has no column of numbers; row {table.lines[0]} is {table.rows[0]}. "
            "Cells are separated by commas, semicolons or tabs, decimals written with a point."
        )
    if len(numeric) > 1:
        several = f"{table.file} has several columns of numbers: {table.choices(numeric)}. "
        raise ParameterError("Say which with {0}.", Argument("column")).within(several)
    return numeric[0]


def _values(table: _Table, column: int, allow_missing: bool) -> NDArray[np.float64]:
    """Return the cells of a column as numbers, NaN where one is missing."""
    values = np.empty(len(table.rows))
    for k, cell in enumerate(table.cells(column)):
        number = _number(cell)
        if number is None:
            raise ValueError(
                f"{table.where(k, column)}: {cell!r} is not a number."
                + (" Write decimals with a point, thousands unmarked." if "," in cell else "")
            )
        if math.isinf(number):
            raise ValueError(f"{table.where(k, column)}: {cell!r} is infinite.")
        if math.isnan(number) and not allow_missing:
            raise ParameterError(
                "Pass {0} to leave such rows out or {1} to fill them.",
                Argument("missing", "drop"),
                Argument("missing", "interpolate"),
            ).within(f"{table.where(k, column)} is missing ({cell!r}). ")
        values[k] = number
    return values


def _first_dates(table: _Table, value_column: int) -> int | None:
    """Return the index of the first column that reads like dates, or None."""
    others = (j for j in range(len(table.rows[0])) if j != value_column)
    return next((j for j in others if _is_dates(table.cells(j))), None)


def _dates(table: _Table, column: int | None) -> tuple[tuple[str, ...] | None, Spacing | None]:
    """Return the cells of the date column, checked to be in time order, and their spacing."""
    if column is None:
        return None, None
    cells = tuple(table.cells(column))
    for k, cell in enumerate(cells):
        if cell.lower() in _MISSING:
            raise ValueError(f"{table.where(k, column)}: the date is missing ({cell!r}).")
    try:
        dates = read_dates(cells)
    except ValueError as error:
        raise ValueError(f"{table.where(-1, column)}: {error}") from None
    if dates is None:
        if not _is_dates(cells):
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
    table: _Table,
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
