"""Features in the columns of a CSV file: those known up to the present, and those known ahead."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data import datasets
from rnn_xp.data.datasets import Series
from rnn_xp.data.dates import following_dates

__all__ = [
    "ALSO",
    "KINDS",
    "add_feature_options",
    "below_each_other",
    "describe_features",
    "load_ahead",
    "load_features",
    "load_members",
    "refuse_pictures",
    "rows_before",
    "together",
]

KINDS = ("past", "future")

_Features = dict[str, Any]  # past and future: arrays (n, k), or None


ALSO = ", also --id NAME (of a long file) --past-features NAME ... --future-features NAME ..."
"""The options, for the title of the options of the data; one line each would be too many."""


def add_feature_options(command: argparse.ArgumentParser) -> None:
    """Add the options that name the columns."""
    add = command.add_argument
    add("--id", metavar="NAME", help=argparse.SUPPRESS)
    for kind in KINDS:
        add(f"--{kind}-features", nargs="+", metavar="NAME", help=argparse.SUPPRESS)


def load_members(args: argparse.Namespace) -> dict[str, Series] | None:
    """Read the series of a long file by name; None if the file holds one series."""
    if getattr(args, "id", None) is None:
        return None
    if args.data in datasets.names():
        raise ValueError(
            f"--id {args.id} is for a long CSV file, but {args.data} is a bundled series."
        )
    for kind in KINDS:
        if getattr(args, f"{kind}_features", None):
            raise ValueError(
                f"--{kind}-features are columns for one series, and --id {args.id} says that there "
                "are several. In Python, rnn_xp.from_long takes both."
            )
    return datasets.read_long_csv(args.data, args.id, args.column, args.missing)


def together(path: str, members: Mapping[str, Series]) -> Series:
    """Return one object for all series of a file, which names and counts them."""
    first = next(iter(members.values()))
    values = np.concatenate([each.values for each in members.values()])
    return dataclasses.replace(first, name=Path(path).stem, values=values, dates=None)


def refuse_pictures(option: str, path: Path | None, id: str) -> None:
    """Refuse pictures and pages of the series of a long file."""
    if path is not None:
        raise ValueError(
            f"{option} {path} draws one series, and --id {id} says that there are several. Leave "
            "it out."
        )


def below_each_other(tables: Sequence[tuple[str, bytes]]) -> bytes:
    """Return one CSV file of the tables of several series, with a column that names them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, (name, table) in enumerate(tables):
        header, *rows = csv.reader(io.StringIO(table.decode()))
        if not number:
            writer.writerow(["series", *header])
        writer.writerows([name, *row] for row in rows)
    return text.getvalue().encode()


def load_features(args: argparse.Namespace, series: Series) -> _Features:
    """Read the columns that the options name, or a run has, for the rows of a series.

    Raises
    ------
    ValueError
        If the data are a bundled series, rows would be dropped, a column is named twice, or it does
        not fit the series.
    """
    names = {kind: getattr(args, f"{kind}_features", None) or [] for kind in KINDS}
    every = [name for kind in KINDS for name in names[kind]]
    if not every:
        return dict.fromkeys(KINDS)
    option = next(f"--{kind}-features" for kind in KINDS if names[kind])
    if args.data in datasets.names():
        raise ValueError(
            f"{option} names columns of a CSV file, but {args.data} is a bundled series, which has "
            "one column. Leave it out, or give --data FILE.csv."
        )
    if args.missing == "drop":
        raise ValueError(
            f"{option} needs the features of every row, and --missing drop leaves rows out. Give "
            "--missing interpolate."
        )
    for name in every:
        if every.count(name) > 1 or name == series.column:
            of = "the series" if name == series.column else "two features"
            raise ValueError(f"{option} {name}: this column would be that of {of}.")
    found: _Features = {}
    for kind in KINDS:
        columns = [_column(args.data, name, args.missing, series) for name in names[kind]]
        found[kind] = np.stack(columns, axis=1) if columns else None
    return found


def _column(path: str, name: str, missing: str, series: Series) -> NDArray[np.float64]:
    values = _read(path, name, missing).values
    if len(values) != len(series.values):
        raise ValueError(
            f"the column {name} of {path} has {len(values)} rows, and that of the series "
            f"{len(series.values)}."
        )
    return values


def _read(path: str | Path, name: str, missing: str) -> Series:
    return datasets.read_csv(path, column=int(name) if name.isdecimal() else name, missing=missing)


def rows_before(features: _Features, end: int) -> _Features:
    """Return the features of the rows before the given one."""
    return {kind: None if table is None else table[:end] for kind, table in features.items()}


def load_ahead(path: Path, names: list[str], series: Series, steps: int) -> NDArray[np.float64]:
    """Read the future features of the steps to forecast.

    Rows are matched by date if the series and the file have dates, and may then be more; otherwise
    the rows of the file are those of the steps.

    Parameters
    ----------
    path : path
    names : list of str
        Columns of the file, in the order of the training.
    series : Series
        The series that forecasts continue.
    steps : int

    Returns
    -------
    array (steps, k)
    """
    columns = [_read(path, name, "error") for name in names]
    expected, dates = following_dates(series.dates, steps), columns[0].dates
    rows = list(range(steps))
    if expected is not None and dates is not None:
        places = {date: row for row, date in enumerate(dates)}
        if missing := [date for date in expected if date not in places]:
            raise ValueError(
                f"--future {path} has no row for {missing[0]}; its rows are those of {dates[0]} to "
                f"{dates[-1]}, and the last one of the series is {(series.dates or ('',))[-1]}."
            )
        rows = [places[date] for date in expected]
    elif len(columns[0].values) != steps:
        raise ValueError(
            f"--future {path} must have a row for each of {steps} steps, and has "
            f"{len(columns[0].values)}."
        )
    return np.stack([column.values[rows] for column in columns], axis=1)


def describe_features(args: argparse.Namespace) -> list[str]:
    """Return a line that names the columns; none without features."""
    parts = [
        f"{kind}: {', '.join(names)}"
        for kind in KINDS
        if (names := getattr(args, f"{kind}_features", None))
    ]
    return [f"features {' | '.join(parts)}"] if parts else []
