"""Labelled sequences in files: a folder for each class, a long table, or aeon's ``.ts``.

- A folder whose folders are classes, with one CSV file for each sequence: a row for each step, a
  column for each feature. Files in the folder itself are sequences without a label.
- A CSV file with a row for each step of each sequence: the columns ``id``, which names the
  sequence, ``time`` and ``label``, and one for each feature.
- A ``.ts`` file, see `rnn_xp.data.ts`.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError
from rnn_xp.data.cells import Table, is_numeric, number_in, parse, values_of
from rnn_xp.data.dates import read_dates
from rnn_xp.data.gaps import check_policy, filled
from rnn_xp.data.ts import read_ts

__all__ = ["Labelled", "read_labelled"]


class Labelled(NamedTuple):
    """Sequences with their labels.

    Attributes
    ----------
    name : str
        Name of the file or folder, without an extension.
    names : tuple of n str
        The names of the sequences.
    sequences : tuple of n arrays (T_i, F)
        Finite float64.
    labels : tuple of n str, or None
        None if the data have no labels.
    features : tuple of F str
    sha256 : str
        Digest of all files.
    """

    name: str
    names: tuple[str, ...]
    sequences: tuple[NDArray[np.float64], ...]
    labels: tuple[str, ...] | None
    features: tuple[str, ...]
    sha256: str


def read_labelled(
    path: str | Path,
    *,
    id_column: str | None = None,
    time_column: str | None = None,
    label_column: str | None = None,
    missing: str = "error",
) -> Labelled:
    r"""Read sequences and their labels.

    Parameters
    ----------
    path : path
        A folder, a table, or a file whose name ends in ``.ts``.
    id_column, time_column, label_column : str, optional
        Columns of a table; "id", "time" and "label" by default. Without times, rows are in order;
        without labels, sequences have none. ``time_column`` also holds for the files of a folder.
    missing : {"error", "drop", "interpolate"}
        What happens to missing values: an error, steps that have one are left out, or they are
        interpolated linearly between the steps around them.

    Returns
    -------
    Labelled

    Raises
    ------
    ValueError
        If anything cannot be read; the message names the file and the row or line.
    OSError
        If a file cannot be opened.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "steps.csv"
    ...     _ = path.write_text("id,time,speed,label\na,1,0.5,up\na,2,0.7,up\nb,1,0.4,down\n")
    ...     data = read_labelled(path)
    >>> [row.tolist() for row in data.sequences], data.labels
    ([[[0.5], [0.7]], [[0.4]]], ('up', 'down'))
    """
    check_policy(missing)
    path = Path(path)
    columns = {"id_column": id_column, "label_column": label_column}
    if path.is_dir():
        _refuse("a folder of files, whose names are the sequences", columns)
        return _read_folder(path, time_column, missing)
    if not path.exists():
        raise ValueError(f"there is no file or folder {str(path)!r}.")
    if path.suffix.lower() == ".ts":
        _refuse("a .ts file, which has no columns", columns | {"time_column": time_column})
        data = path.read_bytes()
        names, sequences, labels, features = read_ts(data, path.name, missing)
        digest = hashlib.sha256(data).hexdigest()
        return Labelled(path.stem, names, sequences, labels, features, digest)
    return _read_table(path, columns, time_column, missing)


def _refuse(what: str, columns: dict[str, str | None]) -> None:
    for name, column in columns.items():
        if column is not None:
            raise ParameterError(
                f"{{0}} is for a table, but this is {what}.", Argument(name, column)
            )


def _read_table(
    path: Path, columns: dict[str, str | None], time_column: str | None, missing: str
) -> Labelled:
    data = path.read_bytes()
    table = parse(data, path.name)
    if table.header is None:
        raise ValueError(
            f"{path.name}: row {table.lines[0]} has no names of columns. Write id, time, label and "
            "the names of the features above the first row."
        )
    key = _column(table, "id_column", columns["id_column"], "id")
    if key is None:
        raise ParameterError(
            "{0:name} says which column names the sequence of a row.", Argument("id_column")
        ).within(f"{path.name} has no column 'id', only {', '.join(table.header)}. ")
    label = _column(table, "label_column", columns["label_column"], "label")
    time = _column(table, "time_column", time_column, "time")
    features = [j for j in range(len(table.header)) if j not in (key, label, time)]
    if not features:
        raise ValueError(f"{path.name} has no column of features, only {', '.join(table.header)}.")
    values = _features(table, features, missing)
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(table.cells(key)):
        if not name:
            raise ValueError(f"{table.where(row, key)}: the name of the sequence is missing.")
        groups.setdefault(name, []).append(row)
    labels = None
    if label is not None:
        labels = tuple(_label(table, label, rows) for rows in groups.values())
    if time is not None:
        _check_order(table, time, groups)
    sequences = tuple(
        filled(values[rows], missing, functools.partial(_row, table, rows))
        for rows in groups.values()
    )
    return Labelled(
        path.stem, tuple(groups), sequences, labels, tuple(map(table.title, features)),
        hashlib.sha256(data).hexdigest(),
    )  # fmt: skip


def _column(table: Table, option: str, given: str | None, usual: str) -> int | None:
    """Return the index of a column; None if it was not named and the usual one is not there."""
    if given is not None:
        try:
            return table.index(given)
        except ValueError as error:
            raise ParameterError("{0} cannot be read.", Argument(option, given)).within(
                f"{error} "
            ) from error
    return table.index(usual) if usual in (table.header or ()) else None


def _features(table: Table, columns: Sequence[int], missing: str) -> NDArray[np.float64]:
    allowed = missing != "error"
    return np.stack([values_of(table, j, allow_missing=allowed) for j in columns], axis=1)


def _label(table: Table, column: int, rows: list[int]) -> str:
    """Return the label of the rows of a sequence, which must have the same one."""
    cells = table.cells(column)
    for row in rows:
        if not cells[row]:
            raise ValueError(
                f"{table.where(row, column)}: the label is missing. Each row has the label of its "
                "sequence."
            )
        if cells[row] != cells[rows[0]]:
            raise ValueError(
                f"{table.where(row, column)}: the label is {cells[row]!r}, but that of the same "
                f"sequence in row {table.lines[rows[0]]} is {cells[rows[0]]!r}. A sequence has one "
                "label; for a label of each step there is rnn_xp.SequenceLabeler."
            )
    return cells[rows[0]]


def _check_order(table: Table, column: int, groups: dict[str, list[int]]) -> None:
    """Check that the times of each sequence go forward."""
    cells = table.cells(column)
    read: Callable[[str], Any] = number_in if is_numeric(cells) else _moment
    times = [read(cell) for cell in cells]
    for row, moment in enumerate(times):
        if moment is None or moment != moment:
            raise ValueError(
                f"{table.where(row, column)}: {cells[row]!r} is neither a number nor a date such "
                "as 2024-12-31, or not what the other rows have."
            )
    for name, rows in groups.items():
        for before, row in itertools.pairwise(rows):
            if not times[row] > times[before]:
                raise ValueError(
                    f"{table.where(row, column)}: {cells[row]} does not come after {cells[before]} "
                    f"of row {table.lines[before]}, of the same sequence {name!r}. Sort the rows "
                    "of each sequence by time."
                )


def _moment(cell: str) -> Any:
    dates = read_dates([cell])
    return None if dates is None else dates.moments[0]


def _read_folder(folder: Path, time_column: str | None, missing: str) -> Labelled:
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path))
    loose = sorted(path for path in folder.glob("*.csv") if not _hidden(path))
    if classes and loose:
        raise ValueError(
            f"{folder} has both folders, which are classes, and files such as {loose[0].name}, "
            "which have none. Move the files into the folders of their classes."
        )
    files = loose
    for each in classes:
        found = sorted(path for path in each.glob("*.csv") if not _hidden(path))
        if not found:
            raise ValueError(
                f"{each} has no .csv file, but a folder in {folder} is a class, with one file for "
                "each sequence. Remove it, or put its files there."
            )
        files = [*files, *found]
    if not files:
        raise ValueError(
            f"{folder} has no .csv file: a folder of sequences has a folder for each class, with "
            "one CSV file for each sequence."
        )
    digest, sequences, features = hashlib.sha256(), [], None
    for path in files:
        name, data = str(path.relative_to(folder)), path.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
        table = parse(data, name)
        time = _column(table, "time_column", time_column, "time")
        columns = [j for j in range(len(table.rows[0])) if j != time]
        if not columns:
            raise ValueError(f"{name} has no column of features, only times.")
        titles = tuple(map(table.title, columns))
        features = titles if features is None else features
        if titles != features:
            raise ValueError(
                f"{name} has the columns {', '.join(titles)}, but "
                f"{files[0].relative_to(folder)} has {', '.join(features)}. All files must have "
                "the same features, in the same order."
            )
        values, rows = _features(table, columns, missing), list(range(len(table.rows)))
        if time is not None:
            _check_order(table, time, {name: rows})
        sequences.append(filled(values, missing, functools.partial(_row, table, rows)))
    names = tuple(str(path.relative_to(folder)) for path in files)
    labels = tuple(path.parent.name for path in files) if classes else None
    return Labelled(
        folder.resolve().name, names, tuple(sequences), labels, features or (), digest.hexdigest()
    )


def _row(table: Table, rows: list[int], step: int) -> str:
    """Return the name of a step of a sequence in messages."""
    return f"{table.file}: row {table.lines[rows[step]]}"


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")
