"""Daily series that come with the package, and a reader for your own CSV files.

Both go through one parser, which refuses what it does not understand: a cell that is not a number,
is missing or is infinite is an error that names its row and column.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data.table import Column, read_column, read_long

__all__ = ["CATALOGUE", "Dataset", "Series", "load", "names", "read_csv", "read_long_csv"]


@dataclass(frozen=True)
class Dataset:
    """Description of a bundled series, available without opening its file.

    Parameters
    ----------
    name : str
        Name that `load` takes.
    title : str
        One line on the contents.
    unit : str
        Unit of the values.
    source : str
        Attribution; `DATA_LICENSES.md` has the licence.
    sha256 : str
        SHA-256 digest of the uncompressed file.
    """

    name: str
    title: str
    unit: str
    source: str
    sha256: str


@dataclass(frozen=True, eq=False, repr=False)
class Series:
    """One column of a file, in time order.

    Parameters
    ----------
    name : str
        The dataset's name, or the file's without its extension.
    values : (n,) float64 array
        Finite, read-only, in `unit`.
    dates : tuple of n str, or None
        Dates as written in the file; None if it has no column of dates.
    unit : str
        Unit of the values; empty for a file of your own.
    column : str
        Header of the column, or its 0-based index where the file has no header.
    sha256 : str
        SHA-256 digest of the uncompressed file.
    source : str
        Attribution; the file's name for a file of your own.
    """

    name: str
    values: NDArray[np.float64]
    dates: tuple[str, ...] | None
    unit: str
    column: str
    sha256: str
    source: str

    def __repr__(self) -> str:
        """Describe the series in one line, without its values."""
        span = f", {self.dates[0]} .. {self.dates[-1]}" if self.dates else ""
        unit = f" in {self.unit}" if self.unit else ""
        return f"<Series {self.name}: {len(self.values)} values{unit}{span}>"


CATALOGUE: Mapping[str, Dataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            Dataset(
                name="length_of_day",
                title="excess length of day, every day 1997-07-03 .. 2025-12-31",
                unit="ms",
                source="IERS Rapid Service/Prediction Center, U.S. Naval Observatory",
                sha256="eb1993d5420142116828a530cc10883e97684a815d88cce1e00f028dd97b4b4b",
            ),
            Dataset(
                name="wti",
                title="WTI crude oil spot price, business days 1986-01-02 .. 2019-01-03",
                unit="USD/barrel",
                source="U.S. Energy Information Administration, series DCOILWTICO via FRED",
                sha256="d81e4c0b1f9352bc40ec176f4669c44816efd2329a9642d284101e19dd99bb35",
            ),
        )
    }
)
"""The bundled series by name."""

_FOLDER = files("rnn_xp") / "data" / "bundled"


def names() -> list[str]:
    """List the bundled series.

    Returns
    -------
    list of str
        Names that `load` accepts; `CATALOGUE` describes each series.

    Examples
    --------
    >>> names()
    ['length_of_day', 'wti']
    """
    return list(CATALOGUE)


def load(name: str) -> Series:
    """Load a bundled series and check that its file is intact.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    Series
        The series with its dates, unit and attribution.

    Raises
    ------
    ValueError
        If there is no such series, or the file is not the one that was released.

    Examples
    --------
    >>> series = load("length_of_day")
    >>> series.values.shape, series.unit, series.dates[0], float(series.values[0])
    ((10409,), 'ms', '1997-07-03', 0.5826)
    """
    if name not in CATALOGUE:
        raise ValueError(f"there is no dataset {name!r}. Valid: {', '.join(CATALOGUE)}.")
    dataset = CATALOGUE[name]
    file = _FOLDER / f"{name}.csv.gz"
    data = _unzip(file.read_bytes(), file.name)
    digest = hashlib.sha256(data).hexdigest()
    if digest != dataset.sha256:
        raise ValueError(
            f"{file.name} is damaged: its text has sha256 {digest}, expected {dataset.sha256}. "
            "Install the package again."
        )
    column, values, dates = read_column(data, file.name)
    return Series(name, values, dates, dataset.unit, column, digest, dataset.source)


def read_csv(
    path: str | Path,
    column: str | int | None = None,
    date_column: str | int | None = None,
    missing: str = "error",
) -> Series:
    r"""Read one series from a CSV file of your own.

    The file is UTF-8 text, plain or gzipped, with cells separated by commas, semicolons or tabs and
    decimals written with a point. It may start with a header: a first row with words where the rows
    below have numbers or dates. A file holds one series: its dates must go forward from row to row,
    and none may occur twice. Dates may be written in ISO 8601 or in any other common form, such as
    31.12.2024, 12/31/2024, 2024-12, 2024Q4 or 31 Dec 2024.

    Parameters
    ----------
    path : str or Path
        The file.
    column : str or int, optional
        The column of values, as its header or its index from 0. It may be omitted if only one
        column holds numbers.
    date_column : str or int, optional
        The column of dates, as its header or its index. By default it is the first column of which
        at least half of the cells are dates, if there is one.
    missing : {"error", "drop", "interpolate"}
        Treatment of cells that are empty, NA, NaN, null or a single point: they are refused, their
        rows are dropped, or they are interpolated linearly between the rows before and after.
        "interpolate" also adds rows that are missing between evenly spaced dates.

    Returns
    -------
    Series
        The series; its unit is empty.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If a column is passed as something other than a name or an index.
    ValueError
        If the file is not such a CSV file; a column is not in it or the choice is not clear; or a
        cell is not a finite number. The message names the row, counting lines from 1 with the
        header, and the column.

    Warns
    -----
    UserWarning
        If rows are missing between evenly spaced dates, and ``missing`` does not fill them.
        Weekends, and holidays of up to a week, are not missing in a series of business days.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "tide.csv"
    ...     _ = path.write_text("day;level\n2024-01-01;1.5\n2024-01-02;NA\n2024-01-03;2.5\n")
    ...     series = read_csv(path, missing="interpolate")
    >>> series.values.tolist(), series.column, series.dates[1]
    ([1.5, 2.0, 2.5], 'level', '2024-01-02')
    """
    path = Path(path)
    name = path.name.removesuffix(".gz")
    for suffix in (".csv", ".tsv", ".txt"):
        name = name.removesuffix(suffix)
    data = _content(path)
    return _series(name, read_column(data, path.name, column, date_column, missing), data, path)


def read_long_csv(
    path: str | Path, id: str, column: str | None = None, missing: str = "error"
) -> dict[str, Series]:
    r"""Read the series of a long CSV file, in which one stands below the other.

    Parameters
    ----------
    path : str or Path
        The file, see `read_csv`. The rows of each series are in the order of time.
    id : str
        The column that names the series.
    column : str, optional
        The column of values; it may be omitted if only one column besides holds numbers.
    missing : {"error", "drop", "interpolate"}
        As for `read_csv`, in each series by itself.

    Returns
    -------
    dict of str to Series
        In the order of their first rows.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_csv`, or if a row has no name.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "sales.csv"
    ...     _ = path.write_text("shop,day,sold\na,2024-01-01,3\nb,2024-01-01,7\na,2024-01-02,4\n")
    ...     series = read_long_csv(path, id="shop")
    >>> {name: each.values.tolist() for name, each in series.items()}
    {'a': [3.0, 4.0], 'b': [7.0]}
    """
    path = Path(path)
    data = _content(path)
    columns = read_long(data, path.name, id, column, missing)
    return {name: _series(name, each, data, path) for name, each in columns.items()}


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    return _unzip(path.read_bytes(), path.name)


def _series(name: str, column: Column, data: bytes, path: Path) -> Series:
    title, values, dates = column
    digest = hashlib.sha256(data).hexdigest()
    return Series(name, values, dates, unit="", column=title, sha256=digest, source=path.name)


def _unzip(data: bytes, file: str) -> bytes:
    """Uncompress data that start like a gzip file; return other data unchanged."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is a damaged gzip file: {error}.") from error
