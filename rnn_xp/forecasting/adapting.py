"""Errors of forecasts made after the training, to which adaptive intervals adapt."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.forecasting.design import Design
from rnn_xp.forecasting.intervals import adaptive_radii
from rnn_xp.forecasting.predictor import Predictor

__all__ = ["adapted_bounds", "errors_of", "waiting"]

_Floats = NDArray[np.floating[Any]]


def errors_of(
    predictor: Predictor, column: _Floats, design: Design, rows: NDArray[np.intp], horizon: int
) -> _Floats:
    """Return the absolute errors (M, horizon) of forecasts from rows of a series.

    They are in units of the design, and NaN where the true value is missing or still to come.
    Future features beyond the end are taken as zero: forecasts that need them are to be made again
    when these features are there, see `waiting`.
    """
    if not len(rows):
        return np.empty((0, horizon))
    more = np.zeros(horizon)
    longer = dataclasses.replace(
        design,
        levels=np.concatenate([design.levels, more]),
        z=np.concatenate([design.z, more]),
        known=np.concatenate([design.known, more > 0.0]),
        past=np.concatenate([design.past, np.zeros((horizon, design.past.shape[1]))]),
        future=np.concatenate([design.future, np.zeros((horizon, design.future.shape[1]))]),
    )
    (levels,) = predictor.from_rows([longer], [rows], horizon)
    truth = np.concatenate([column, np.full(horizon, np.nan)])[rows[:, None] + np.arange(horizon)]
    return design.errors(truth, levels[:, :, levels.shape[2] // 2])


def adapted_bounds(
    forecast: _Floats, origins: NDArray[np.intp], begin: int, past: _Floats, errors: _Floats,
    level: float, design: Design,
) -> tuple[_Floats, _Floats]:  # fmt: skip
    """Return the ends (M, horizon) of adaptive intervals around forecasts.

    Parameters
    ----------
    forecast : ndarray (M, horizon)
    origins : ndarray (M,)
        The row of each forecast.
    begin : int
        First row after the training.
    past : ndarray (n, horizon)
        Errors before that row, in units of the design.
    errors : ndarray (K, horizon)
        Errors of the forecasts from **every** row from ``begin`` to the last origin, as `errors_of`
        returns them, because intervals adapt at every row, whichever forecasts are judged.
    level : float
    design : Design

    Returns
    -------
    low, high : ndarray (M, horizon)
    """
    radii = adaptive_radii(past, errors, level, wait=waiting(design, errors.shape[1]))
    return design.around(forecast, radii[origins - begin])


def waiting(design: Design, horizon: int) -> int:
    """Return the number of steps before which no error of a forecast is used.

    A forecast from future features needs those of its last step, which may not be known earlier.
    """
    return horizon - 1 if design.future.shape[1] else 0
