"""Files that hold a fitted `Forecaster`: settings, networks, scalers, errors, last windows.

The parameters of the first network keep their names; the parameters of further networks (`n_seeds`)
are called ``network1.layer0.w_xh``, and so on. Two other kinds of files that hold a network and its
scaler are read as forecasters without a series: the checkpoints of a training, and the models of
runs made before the Forecaster existed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp import checkpoint
from rnn_xp._typing import Params
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.data.scalers import Scaler
from rnn_xp.forecasting.design import Design
from rnn_xp.forecasting.fitted import Fitted, make_predictor
from rnn_xp.forecasting.panel import Panel
from rnn_xp.forecasting.settings import Settings
from rnn_xp.forecasting.targets import in_logs
from rnn_xp.forecasting.times import load_times
from rnn_xp.network import Network

__all__ = ["describe", "load_fitted", "of_network", "save_fitted"]

_SCHEMA, _BEFORE_LOGS = 3, 2  # in which errors of logarithms were kept in units of levels
_BEFORE = {"target": "level"}  # of files that were written when it had that default
_NOT_SAVED = ("optimizer", "backend")
_PARTS = ("levels", "z", "past", "future", "known")


def save_fitted(path: str | Path, fitted: Fitted) -> None:
    """Write a fitted model for `load_fitted`, atomically."""
    settings, predictor, panel = fitted.settings, fitted.predictor, fitted.panel
    arrays: dict[str, Any] = {"errors": fitted.errors}
    for k, params in enumerate(predictor.networks):
        arrays |= {_prefix(k) + name: to_numpy(p) for name, p in params.items()}
    for k, design in enumerate(fitted.designs):
        tail = design.tail(settings.seq_length)
        arrays |= {f"series{k}.{part}": np.asarray(getattr(tail, part), float) for part in _PARTS}
    for k, errors in enumerate(fitted.later):  # a file holds no NaN, and no error is negative
        arrays[f"series{k}.later"] = np.where(np.isnan(errors), -1.0, errors)
    about = {
        "forecaster": _SCHEMA,
        "settings": _plain(settings),
        "network": dataclasses.asdict(predictor.net),
        "series": [
            {
                "name": name,
                "rows": rows,
                "scaler": dataclasses.asdict(design.scaler),
                "unit": design.unit,
                "gaps": design.gaps,
                "index": None if times is None else times.describe(),
            }
            for name, rows, design, times in zip(
                panel.names, fitted.rows, fitted.designs, panel.times, strict=True
            )
        ],
        "kind": panel.kind,
        "features": panel.features,
        "static": [row.tolist() for row in panel.static],
        "alone": fitted.alone,
    }
    checkpoint.save(path, arrays, about)


def describe(settings: Settings, scaler: Scaler) -> dict[str, Any]:
    """Return the metadata that turn a file of one network's parameters into a forecaster."""
    return {
        "scaler": dataclasses.asdict(scaler),
        "seq_length": settings.seq_length,
        "horizon": settings.horizon,
        "settings": _plain(settings),
    }


def load_fitted(path: str | Path, backend: Backend) -> Fitted:
    """Read a forecaster, or a network with its scaler.

    Parameters
    ----------
    path : path
        A file, or the folder of a run, whose model.safetensors is read.
    backend : Backend

    Returns
    -------
    Fitted

    Raises
    ------
    CheckpointError
        If the file is damaged, of another kind or of another version.
    """
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    arrays, about = checkpoint.load(path)
    schema = about.get("forecaster")
    if schema is None and not ("network" in about and "scaler" in about):
        raise CheckpointError(f"{path} holds no Forecaster.")
    logs = schema == _BEFORE_LOGS and in_logs(about["settings"].get("target", "level"))
    if logs or schema not in (None, _BEFORE_LOGS, _SCHEMA):
        raise CheckpointError(
            f"{path} is of schema {schema}, but this version of rnn_xp reads {_SCHEMA}"
            + (" of logarithms. Fit it anew." if logs else ".")
        )
    try:
        if schema is None:
            return _network_alone(arrays, about, backend)
        return _forecaster(arrays, about, backend)
    except (KeyError, TypeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path} does not fit its own description: {what}.") from error


def of_network(net: Network, params: Params, backend: Backend, about: Mapping[str, Any]) -> Fitted:
    """Return a forecaster, still without a series, for a network that was trained elsewhere.

    Parameters
    ----------
    net : Network
    params : Params
    backend : Backend
    about : mapping
        The metadata that `describe` returns; ``settings`` may be missing.

    Returns
    -------
    Fitted
    """
    scaler = Scaler(**about["scaler"])
    if "settings" in about:
        settings = Settings(**_BEFORE | about["settings"])
    else:
        shared = {field.name for field in dataclasses.fields(Settings)}
        settings = Settings(
            seq_length=int(about["seq_length"]), horizon=int(about["horizon"]),
            linear=bool(net.linear_lags), scaler=scaler.kind, target="level",
            intervals=None, validation=None, patience=None,
            **{name: v for name, v in dataclasses.asdict(net).items() if name in shared},
        )  # fmt: skip
        if net.output_size != settings.horizon:
            raise ValueError(
                f"a horizon of {settings.horizon} does not fit {net.output_size} outputs"
            )
    settings.check()
    columns, empty = len(scaler.offset), np.empty(0)
    design = Design(
        settings.target, scaler, empty, empty, np.empty((0, columns - 1)), np.empty((0, 0)),
        np.empty(0, bool), unit=1.0,
    )  # fmt: skip
    predictor = make_predictor(settings, net, (params,), backend)
    panel = Panel("array", ("series",), (empty,), (None,))
    return Fitted(settings, predictor, panel, (design,), (0,), np.empty((0, settings.horizon)))


def _network_alone(arrays: dict[str, Any], about: dict[str, Any], backend: Backend) -> Fitted:
    if about.get("schema") != 1:
        raise ValueError(f"it has schema {about.get('schema')!r}, but this version reads 1")
    net = Network(**about["network"])
    if "training" in about:  # beside the parameters there is what the training needs
        arrays = {name: array for name, array in arrays.items() if name in net.shapes}
    return of_network(net, _params(net, arrays, backend), backend, about)


def _forecaster(arrays: dict[str, Any], about: dict[str, Any], backend: Backend) -> Fitted:
    settings, net = Settings(**_BEFORE | about["settings"]), Network(**about["network"])
    settings.check()
    errors = arrays.pop("errors")
    designs = []
    for k, each in enumerate(about["series"]):
        parts = {part: arrays.pop(f"series{k}.{part}") for part in _PARTS}
        parts["known"] = parts["known"] > 0.0
        scaler, unit = Scaler(**each["scaler"]), float(each["unit"])
        gaps = None if each["gaps"] is None else tuple(map(float, each["gaps"]))
        designs.append(Design(settings.target, scaler, **parts, unit=unit, gaps=gaps))
    later = [arrays.pop(f"series{k}.later", None) for k in range(len(designs))]
    networks = tuple(
        _params(net, {name: arrays.pop(_prefix(k) + name) for name in net.shapes}, backend)
        for k in range(settings.n_seeds)
    )
    if arrays:
        raise ValueError(f"{min(arrays)!r} is not known")
    series = about["series"]
    panel = Panel(
        about["kind"],
        tuple(_tuples(each["name"]) for each in series),
        tuple(design.levels for design in designs),
        tuple(None if each["index"] is None else load_times(each["index"]) for each in series),
        _tuples(about.get("features", (None, None))),
        tuple(np.asarray(row, float) for row in about.get("static", ())),
    )
    predictor = make_predictor(settings, net, networks, backend)
    rows = tuple(int(each["rows"]) for each in series)
    return Fitted(
        settings, predictor, panel, tuple(designs), rows, errors,
        tuple(np.where(each < 0.0, np.nan, each) for each in later if each is not None),
        bool(about.get("alone", False)),
    )  # fmt: skip


def _params(net: Network, arrays: dict[str, Any], backend: Backend) -> Params:
    if {name: array.shape for name, array in arrays.items()} != net.shapes:
        raise ValueError("names or shapes do not match its network")
    return {name: backend.asarray(arrays[name]) for name in net.shapes}


def _tuples(names: Any) -> Any:
    """Return names with tuples in place of the lists of JSON."""
    return tuple(map(_tuples, names)) if isinstance(names, list | tuple) else names


def _plain(settings: Settings) -> dict[str, Any]:
    return {name: v for name, v in settings.get_params().items() if name not in _NOT_SAVED}


def _prefix(number: int) -> str:
    return f"network{number}." if number else ""
