"""The run folder: what a training run leaves behind, each file whole or absent.

::

    config.toml          the configuration that is run
    last.safetensors     the state of the training, from time to time and at its end
    best.safetensors     (with validation) the parameters with the lowest validation loss
    model.safetensors    parameters, network, scaler and window sizes, with a digest
    history.csv          epoch, loss and, with validation, validation_loss
    metrics.json         data, split, versions, timings, scores of baselines and network
    predictions.csv      test part: date (or row), step, truth, each forecast, in original units
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

import numpy as np
import tomli_w
from numpy.typing import NDArray

from rnn_xp import checkpoint, plotting
from rnn_xp.backend import to_numpy
from rnn_xp.data.datasets import Series
from rnn_xp.forecasting import SplitSeries
from rnn_xp.forecasting.model import Model, describe_model
from rnn_xp.training.state import SCHEMA, check_schema

__all__ = [
    "RUN_FILES",
    "RunFolder",
    "column_label",
    "load_arguments",
    "new_folder_name",
]

RUN_FILES = (
    "config.toml",
    "last.safetensors",
    "best.safetensors",
    "model.safetensors",
    "history.csv",
    "metrics.json",
    "predictions.csv",
    "loss.png",
    "forecast.png",
)
"""What a run may leave behind, the pictures last."""

_SHOWN = 60  # steps in forecast.png

_Floats = NDArray[np.floating[Any]]


def new_folder_name(parent: Path, name: str) -> Path:
    """First of ``name-1``, ``name-2``, ... that does not exist in the parent folder."""
    number = 1
    while (folder := parent / f"{name}-{number}").exists():
        number += 1
    return folder


def column_label(series: Series) -> str:
    """Name the column of a series, also where the file has no header and it is but a number."""
    return f"column {series.column}" if series.column.isdecimal() else series.column


def load_arguments(folder: str | Path) -> tuple[dict[str, Any], str]:
    """Read from last.safetensors how a run was begun.

    Returns
    -------
    arguments : dict
        Of the command line.
    sha256 : str
        Of the data file.

    Raises
    ------
    FileNotFoundError
        If the folder has no such file.
    CheckpointError
        If the file is damaged, or of a training that was not begun on the command line.
    """
    path = Path(folder) / "last.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} has no last.safetensors: there is no training to go on with."
        )
    _, about = checkpoint.load(path)
    check_schema(path, about)
    arguments, sha256 = about.get("arguments"), about.get("data")
    if not (isinstance(arguments, dict) and isinstance(sha256, str)):
        raise checkpoint.CheckpointError(f"{path} is not of a run of `rnn-xp train`.")
    return arguments, sha256


class RunFolder:
    """Writes the files of a run.

    Parameters
    ----------
    path : path
    force : bool
        Whether files of an earlier run may be replaced, or the run gone on with.

    Raises
    ------
    FileExistsError
        If the folder exists and ``force`` is not given.
    """

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and (not force or not self.path.is_dir()):
            raise FileExistsError(
                f"{self.path} exists already. Give another folder with --out, or --force to "
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
        """Remove the folders made for this run that have nothing in them."""
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of an earlier run, so that none is taken for one of this run."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def write_model(self, model: Model) -> None:
        """Write model.safetensors."""
        about = {
            "schema": SCHEMA,
            "network": dataclasses.asdict(model.net),
            **describe_model(model.scaler, model.seq_length, model.horizon),
        }
        arrays = {name: to_numpy(param) for name, param in model.params.items()}
        checkpoint.save(self.path / "model.safetensors", arrays, about)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.toml: flat, without the entries that are None."""
        entries = {key: value for key, value in config.items() if value is not None}
        for value in entries.values():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"cannot write {value} to config.toml")
        self._write("config.toml", tomli_w.dumps(entries))

    def write_history(self, history: Mapping[str, Sequence[float]]) -> None:
        """Write history.csv: a row for each epoch, a column for each kind of loss."""
        rows = zip(*history.values(), strict=True)
        numbered = ([number, *row] for number, row in enumerate(rows, start=1))
        self._write_csv("history.csv", ["epoch", *history], numbered)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json."""
        text = json.dumps({"schema": SCHEMA, **metrics}, indent=2, default=_plain)
        self._write("metrics.json", text + "\n")

    def write_predictions(self, split: SplitSeries, forecasts: Mapping[str, _Floats]) -> None:
        """Write predictions.csv: a row for each test window and step ahead."""
        truth, dates = split.truth(), split.target_dates()
        rows = (
            [date, step + 1, f"{truth[i, step]:.9g}"]
            + [f"{forecast[i, step]:.9g}" for forecast in forecasts.values()]
            for i, date in enumerate(dates)
            for step in range(split.horizon)
        )
        first = "row" if split.series.dates is None else "date"
        first += "_of_step_1" if split.horizon > 1 else ""
        header = [first, "step", "truth", *forecasts]
        self._write_csv("predictions.csv", header, rows)

    def write_plots(
        self,
        history: Mapping[str, Sequence[float]],
        split: SplitSeries,
        forecasts: Mapping[str, _Floats],
    ) -> None:
        """Write loss.png and forecast.png (of the first step ahead).

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        series, label = split.series, column_label(split.series)
        shown = min(_SHOWN, len(split.y_test))
        steps = "step" if shown == 1 else f"{shown} steps"
        first_step = {name: forecast[:, 0] for name, forecast in forecasts.items()}
        axes = {
            "loss.png": plotting.loss(
                history["loss"],
                history.get("validation_loss"),
                title=f"{series.name}: {'losses' if len(history) > 1 else 'training loss'}",
            ),
            "forecast.png": plotting.forecast(
                split.target_dates(),
                split.truth()[:, 0],
                first_step,
                label=f"{label} ({series.unit})" if series.unit else label,
                title=f"{series.name}: one step ahead, last {steps} of the test part",
                last=shown,
            ),
        }
        for name, ax in axes.items():
            checkpoint.atomic_write(self.path / name, plotting.to_png(ax))

    def _write(self, name: str, text: str) -> None:
        checkpoint.atomic_write(self.path / name, text.encode())

    def _write_csv(self, name: str, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        self._write(name, text.getvalue())


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot write {type(value).__name__} to metrics.json")
