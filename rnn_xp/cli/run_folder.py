"""The run folder: the files of a training, each of which is complete or absent.

::

    config.toml          the configuration that is run
    last.safetensors     the state of the training, from time to time and at its end
    best.safetensors     (with validation) the parameters with the lowest validation loss
    model.safetensors    the Forecaster, as `rnn_xp.Forecaster.load` reads it; after a refit, with
                         the parameters that were trained on all windows
    history.csv          epoch, loss and, with validation, validation_loss
    metrics.json         data, split, versions, timings, scores of baselines and network
    predictions.csv      test part: date (or row), step, truth, each forecast, interval, in units
    report.html          all of it to read and to send: scores, pictures (with matplotlib), settings
    loss.png             (with matplotlib)
    forecast.png         (with matplotlib)
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from rnn_xp import checkpoint
from rnn_xp.data import datasets
from rnn_xp.data.datasets import Series
from rnn_xp.forecasting import Backtest, plotting
from rnn_xp.forecasting.backtest import Judged
from rnn_xp.training.files import SCHEMA, check_schema

__all__ = [
    "RUN_FILES",
    "RunFolder",
    "column_label",
    "load_arguments",
    "new_folder_name",
    "read_metrics",
    "recorded_data",
]

RUN_FILES = (
    "config.toml",
    "last.safetensors",
    "best.safetensors",
    "model.safetensors",
    "history.csv",
    "metrics.json",
    "predictions.csv",
    "report.html",
    "loss.png",
    "forecast.png",
)
"""Files of a run, the pictures last."""

_SHOWN = 60  # steps in forecast.png
_REPAIR = "The model is a file of its own: remove this one to go on without its scores."


def new_folder_name(parent: Path, name: str) -> Path:
    """Return the first of ``name-1``, ``name-2``, ... that does not exist in the parent folder."""
    number = 1
    while (folder := parent / f"{name}-{number}").exists():
        number += 1
    return folder


def column_label(series: Series) -> str:
    """Return a label for the column of a series, such as "column 0" in a file without a header."""
    return f"column {series.column}" if series.column.isdecimal() else series.column


def recorded_data(run: Path, name: str) -> str:
    """Return where the data are that a run names, from whatever folder the command is called.

    Parameters
    ----------
    run : path
        Folder of the run.
    name : str
        A bundled series, or a path that is relative to the folder where training was started.
        That is mostly a folder above the run.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the file is neither in a folder above the run nor in the current one.
    """
    if name in datasets.names():
        return name
    for folder in run.resolve().parents:
        if (folder / name).is_file():
            return name if folder == Path.cwd() else str(folder / name)
    if Path(name).is_file():
        return name
    raise ValueError(
        f"{run} was trained on {name!r}, which is neither in this folder nor in one above the run. "
        "Say with --data where it is."
    )


def read_metrics(run: Path) -> dict[str, Any]:
    """Return the content of metrics.json, or an empty dict if the run has no such file."""
    path = run / "metrics.json"
    if not path.exists():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}. {_REPAIR}") from error
    wanted = {"data", "backend", "epochs", "seconds", "rnn_xp", "scores", "verdict"}
    if not isinstance(metrics, dict) or not wanted <= metrics.keys():
        raise ValueError(f"{path} is damaged: it lacks what `rnn-xp train` writes. {_REPAIR}")
    return metrics


def load_arguments(folder: str | Path) -> tuple[dict[str, Any], str, int]:
    """Read the arguments with which a run was started from last.safetensors.

    Returns
    -------
    arguments : dict
        Arguments of the command line.
    sha256 : str
        Digest of the data file.
    epoch : int
        Number of epochs after which the state was saved.

    Raises
    ------
    FileNotFoundError
        If the folder has no such file.
    CheckpointError
        If the file is damaged, or its training was not started on the command line.
    """
    path = Path(folder) / "last.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} has no last.safetensors: there is no training to resume."
        )
    _, about = checkpoint.load(path)
    check_schema(path, about)
    arguments, sha256, training = (about.get(key) for key in ("arguments", "data", "training"))
    if not (
        isinstance(arguments, dict)
        and isinstance(sha256, str)
        and isinstance(training, dict)
        and isinstance(epoch := training.get("epoch"), int)
    ):
        raise checkpoint.CheckpointError(f"{path} is not of a run of `rnn-xp train`.")
    return arguments, sha256, epoch


class RunFolder:
    """Writes the files of a run.

    Parameters
    ----------
    path : path
    force : bool
        If True, files of an earlier run may be replaced, or the run may be resumed.

    Raises
    ------
    FileExistsError
        If the folder exists and ``force`` is not given.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(
                f"{self.path} is a file, and a run needs a folder. Give another with --out."
            )
        if self.path.exists() and not force:
            raise FileExistsError(
                f"{self.path} already exists. Give another folder with --out, or --force to "
                "replace the files of the run in it."
            )

    def __enter__(self) -> RunFolder:
        # Now and not after the training: a folder that cannot be made or used should cost no time.
        self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            checkpoint.sweep(self.path)  # what a run that was killed in the midst of a write left
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            self._remove_empty()
            raise OSError(
                f"cannot write into the folder {self.path}: {error.strerror}. "
                "Give another with --out."
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._remove_empty()

    def _remove_empty(self) -> None:
        """Remove empty folders that were made for this run."""
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of an earlier run, so that none is mistaken for a file of this run."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.toml, flat and without entries that are None."""
        entries = {key: value for key, value in config.items() if value is not None}
        for value in entries.values():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"cannot write {value} to config.toml")
        self._write("config.toml", tomli_w.dumps(entries))

    def write_history(self, histories: Sequence[Mapping[str, Sequence[float]]]) -> None:
        """Write history.csv, with a row for each epoch and a column for each kind of loss.

        Parameters
        ----------
        histories : sequence of mappings
            The history of each network; with several networks, the first column numbers them from
            0.
        """
        several = len(histories) > 1
        rows = [
            [*([network] if several else []), epoch, *losses]
            for network, history in enumerate(histories)
            for epoch, losses in enumerate(zip(*history.values(), strict=True), start=1)
        ]
        header = [*(["network"] if several else []), "epoch", *histories[0]]
        self._write_csv("history.csv", header, rows)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json."""
        text = json.dumps({"schema": SCHEMA, **metrics}, indent=2, default=_plain)
        self._write("metrics.json", text + "\n")

    def write_predictions(self, series: Mapping[str, Series], judged: Backtest) -> None:
        """Write predictions.csv, with a row for each series, forecast and step ahead.

        Parameters
        ----------
        series : mapping of str to Series
            By name; a single one needs no column of names.
        judged : Backtest
            The forecasts to write, of the series in this order.
        """
        name, several = judged.scores[-1].name, len(series) > 1
        shared = [b for b in judged.series[0].baselines
                  if all(b in part.baselines for part in judged.series)]  # fmt: skip
        titles, rows = ["truth", *shared, name], []
        if judged.series[0].low is not None:
            titles += ["low", "high"]
        for part, (label, each) in zip(judged.series, series.items(), strict=True):
            arrays = [part.truth, *(part.baselines[b] for b in shared), part.forecast]
            arrays += [bound for bound in (part.low, part.high) if bound is not None]
            rows += [
                [*[label] * several, date, step + 1, *(f"{a[i, step]:.9g}" for a in arrays)]
                for i, date in enumerate(_dates_of(each, part))
                for step in range(part.truth.shape[1])
            ]
        first = "row" if next(iter(series.values())).dates is None else "date"
        first += "_of_step_1" if judged.series[0].truth.shape[1] > 1 else ""
        header = [*["series"] * several, first, "step", *titles]
        self._write_csv("predictions.csv", header, rows)

    def write_report(self, page: str) -> None:
        """Write report.html."""
        self._write("report.html", page)

    def write_plots(
        self, history: Mapping[str, Sequence[float]], series: Series, judged: Backtest
    ) -> None:
        """Write loss.png and forecast.png.

        Parameters
        ----------
        history : mapping
            The history of the first network.
        series : Series
        judged : Backtest

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        (part,), label = judged.series, column_label(series)
        # Far from the others, the mean would flatten the picture; drift is all but persistence.
        drawn = [name for name in part.baselines if name not in ("drift", "mean")]
        axes = {
            "loss.png": plotting.loss(
                history["loss"],
                history.get("validation_loss"),
                title=f"{series.name}: {'losses' if len(history) > 1 else 'training loss'}",
            ),
            "forecast.png": plotting.backtest(
                judged,
                dates=series.dates,
                label=f"{label} ({series.unit})" if series.unit else label,
                title=series.name,
                last=_SHOWN,
                baselines=drawn,
            ),
        }
        for file, ax in axes.items():
            checkpoint.atomic_write(self.path / file, plotting.to_png(ax))

    def _write(self, name: str, text: str) -> None:
        checkpoint.atomic_write(self.path / name, text.encode())

    def _write_csv(self, name: str, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        self._write(name, text.getvalue())


def _dates_of(series: Series, part: Judged) -> list[str]:
    """Return the date of each forecast's first step, or its row in a series without dates."""
    return [series.dates[row] if series.dates else str(row) for row in part.origins]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot write {type(value).__name__} to metrics.json")
