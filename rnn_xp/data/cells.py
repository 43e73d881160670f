"""Cells of delimited text: the separator, the header, and numbers, each error with its row.

The layout is inferred from all rows of the file: the separator is the one that cuts most rows to
the same number of cells; a column holds numbers if at least half of its cells do; a header is a
first row with a word above numbers or dates. Anything that does not fit raises an error.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError
from rnn_xp.data.dates import is_date

__all__ = ["MISSING", "Table", "is_dates", "is_numeric", "number_in", "parse", "values_of"]

MISSING = frozenset({"", "na", "nan", "null", "."})
"""Cells that stand for a missing value, in lower case."""


@dataclass(frozen=True)
class Table:
    """The cells of a file: rows of equal width, each with the number of its last line."""

    file: str
    header: list[str] | None
    lines: list[int]
    rows: list[list[str]]

    def cells(self, column: int) -> list[str]:
        """Return the cells of a column."""
        return [row[column] for row in self.rows]

    def title(self, column: int) -> str:
        """Return the header of a column, or its index."""
        return str(column) if self.header is None else self.header[column]

    def where(self, row: int, column: int) -> str:
        """Return the name of a cell in messages."""
        label = column if self.header is None else repr(self.header[column])
        return f"{self.file}: row {self.lines[row]}, column {label}"

    def choices(self, columns: Sequence[int]) -> str:
        """Return the names of columns in messages."""
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


def parse(data: bytes, file: str) -> Table:
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
        return Table(file, None, lines, rows)
    if len(rows) == 1:
        raise ValueError(f"{file} has a header ({', '.join(rows[0])}) but no rows below it.")
    return Table(file, rows[0], lines[1:], rows[1:])


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
        return all(number_in(cell) is None for cell in first)
    return any(
        (is_numeric(cells) and number_in(title) is None)
        or (is_dates(cells) and not _has_digit(title))
        for title, cells in zip(first, zip(*body, strict=True), strict=True)
    )


def number_in(cell: str) -> float | None:
    """Return the value of a cell; NaN if it is missing, None if it is not a number."""
    if cell.lower() in MISSING:
        return math.nan
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _has_digit(cell: str) -> bool:
    return re.search(r"\d", cell) is not None


def is_numeric(cells: Sequence[str]) -> bool:
    """Return True if at least half of the cells that are not missing are numbers."""
    numbers = [number_in(cell) for cell in cells]
    good = sum(number is not None and not math.isnan(number) for number in numbers)
    return good > 0 and good >= sum(number is None for number in numbers)


def is_dates(cells: Sequence[str]) -> bool:
    """Return True if at least half of the cells that are not missing are dates, and not numbers."""
    if is_numeric(cells):
        return False
    present = [cell for cell in cells if cell.lower() not in MISSING]
    different = dict.fromkeys(present)
    return 2 * sum(map(is_date, different)) >= len(different) > 0


def values_of(table: Table, column: int, allow_missing: bool) -> NDArray[np.float64]:
    """Return the cells of a column as numbers, NaN where one is missing."""
    values = np.empty(len(table.rows))
    for k, cell in enumerate(table.cells(column)):
        number = number_in(cell)
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
