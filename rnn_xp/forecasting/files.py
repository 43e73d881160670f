"""A fitted `Forecaster` in a file: settings, networks, scalers, errors, and the last windows."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp import checkpoint
from rnn_xp.backend import Backend, get_backend, to_numpy
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.data.scalers import Scaler
from rnn_xp.forecasting.design import Design
from rnn_xp.forecasting.panel import Panel, frequency_of
from rnn_xp.forecasting.predictor import Predictor
from rnn_xp.network import Network

__all__ = ["load_into", "save_to"]

_SCHEMA = 1
_NOT_SAVED = ("optimizer", "backend")
_PARTS = ("levels", "z", "past", "future", "known")


def save_to(path: str | Path, forecaster: Any) -> None:
    """Write what `load_into` needs; the file is whole or is not there."""
    predictor, panel = forecaster.predictor_, forecaster._panel
    arrays: dict[str, Any] = {"errors": forecaster._errors}
    for k, params in enumerate(predictor.networks):
        arrays |= {f"network{k}.{name}": to_numpy(p) for name, p in params.items()}
    for k, design in enumerate(forecaster._designs):
        tail = design.tail(forecaster.seq_length)
        arrays |= {f"series{k}.{part}": np.asarray(getattr(tail, part), float) for part in _PARTS}
    settings = {n: v for n, v in forecaster.get_params().items() if n not in _NOT_SAVED}
    about = {
        "forecaster": _SCHEMA,
        "settings": settings,
        "network": dataclasses.asdict(predictor.net),
        "series": [
            {
                "name": name,
                "rows": rows,
                "scaler": dataclasses.asdict(design.scaler),
                "unit": design.unit,
                "index": _describe(index),
            }
            for name, rows, design, index in zip(
                panel.names, forecaster._rows, forecaster._designs, panel.indices, strict=True
            )
        ],
        "kind": panel.kind,
    }
    checkpoint.save(path, arrays, about)


def load_into(forecaster: Any, path: str | Path, backend: Backend | None) -> None:
    """Make a new forecaster the one of a file.

    Raises
    ------
    CheckpointError
        If the file is damaged, of another kind or of another version.
    """
    arrays, about = checkpoint.load(path)
    schema = about.get("forecaster")
    if schema is None:
        raise CheckpointError(f"{path} holds no Forecaster.")
    if schema != _SCHEMA:
        raise CheckpointError(
            f"{path} is of schema {schema}, but this version of rnn_xp reads {_SCHEMA}."
        )
    backend = get_backend() if backend is None else backend
    try:
        forecaster.set_params(**about["settings"])
        forecaster.check()
        net = Network(**about["network"])
        networks = tuple(
            {name: backend.asarray(arrays[f"network{k}.{name}"]) for name in net.shapes}
            for k in range(forecaster.n_seeds)
        )
        series = about["series"]
        designs = []
        for k, each in enumerate(series):
            parts = {part: arrays[f"series{k}.{part}"] for part in _PARTS}
            parts["known"] = parts["known"] > 0.0
            unit = float(each["unit"])
            designs.append(Design(forecaster.target, Scaler(**each["scaler"]), **parts, unit=unit))
        names = tuple(each["name"] for each in series)
        indices = tuple(_rebuild(each["index"]) for each in series)
        columns = tuple(design.levels for design in designs)
        forecaster._panel = Panel(about["kind"], names, columns, indices)
        forecaster._rows = [int(each["rows"]) for each in series]
        forecaster._errors = arrays["errors"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit its own description: {error}.") from error
    forecaster._designs = designs
    forecaster.predictor_ = Predictor(
        net, networks, backend, forecaster.seq_length, forecaster.reach,
        len(forecaster.levels_of_quantiles),
    )  # fmt: skip


def _describe(index: Any) -> dict[str, Any] | None:
    """What of a pandas index says how it goes on."""
    if index is None:
        return None
    if index.dtype.kind in "iu" and len(index) > 1:
        return {"kind": "integer", "last": int(index[-1]), "step": int(index[-1] - index[-2])}
    kind = "period" if hasattr(index, "to_timestamp") else "date"
    frequency = index.freqstr if kind == "period" else frequency_of(index)
    frequency = getattr(frequency, "freqstr", frequency)
    return {"kind": kind if frequency else "none", "last": str(index[-1]), "step": frequency}


def _rebuild(about: dict[str, Any] | None) -> Any:
    """An index that goes on as the one that was described."""
    if about is None:
        return None
    pandas = importlib.import_module("pandas")
    last, step = about["last"], about["step"]
    if about["kind"] == "integer":
        return pandas.RangeIndex(last - step, last + step, step)
    if about["kind"] == "date":
        return pandas.date_range(last, periods=1, freq=step)
    if about["kind"] == "period":
        return pandas.period_range(last, periods=1, freq=step)
    return pandas.Index([last])
