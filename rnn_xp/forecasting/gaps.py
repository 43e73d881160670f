"""Estimates of missing values from the values before them.

A linear path multiplies every value of its window, so a missing one needs a number. The mean of the
training part would be far from a trending series. The number used here is the conditional mean of a
linear autoregression given the values before [1]_ [2]_, never those after::

    z[t] = c[0] + c[1] * z[t-1] + ... + c[L] * z[t-L]      in units of the target

Earlier estimates serve as values, for at most L rows of a gap; from there on nothing in the window
was observed, and the last estimate stays.

References
----------
.. [1] R. H. Jones, "Maximum likelihood fitting of ARMA models to time series with missing
       observations", Technometrics 22 (1980), 389-395: a missing value is replaced by its forecast.
.. [2] R. J. A. Little, D. B. Rubin, "Statistical analysis with missing data", 3rd edition, Wiley
       2019, sections 3.2 and 4.2: complete cases, and imputation of the conditional mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnn_xp.forecasting.baselines import fit_linear_ar
from rnn_xp.forecasting.targets import from_target, offset_of, to_target

__all__ = ["GapModel", "estimate_gaps", "fill_forward", "fit_gap_model"]

GapModel = tuple[float, ...]  # c[0], ..., c[L]

_ROWS = 2  # that a coefficient needs at least

_Floats = NDArray[np.float64]


def fill_forward(values: _Floats) -> _Floats:
    """Replace missing values by the last known value, or at the start by the first known one."""
    known = np.flatnonzero(~np.isnan(values))
    if len(known) == len(values):
        return values
    at = np.maximum(np.searchsorted(known, np.arange(len(values)), side="right") - 1, 0)
    filled: _Floats = values[known[at]]
    return filled


def fit_gap_model(values: _Floats, target: str, lags: int) -> GapModel:
    """Fit the autoregression by least squares to rows that are known together with their lags.

    Parameters
    ----------
    values : (n,) array
        The series, NaN where a value is missing.
    target : str
        See `rnn_xp.forecasting.targets`.
    lags : int
        Largest number of lags; fewer are used if there are less than two rows per coefficient.

    Returns
    -------
    tuple of float
        Without enough rows, levels stay at the last value, and changes at their mean.

    Examples
    --------
    >>> doubling = np.asarray([1.0, 2.0, 4.0, np.nan, 16.0, 32.0, 64.0, 128.0])
    >>> [round(each, 6) + 0.0 for each in fit_gap_model(doubling, "level", 1)]
    [0.0, 2.0]
    """
    offset = offset_of(target)
    missing = np.isnan(values)
    z = to_target(target, fill_forward(values))
    known = ~missing[offset:] & ~missing[: len(z)]
    if not known.any():
        return (0.0,) if offset else (0.0, 1.0)
    mean, spread = float(np.mean(z[known])), float(np.std(z[known])) or 1.0
    scaled = (z - mean) / spread
    for count in range(min(lags, len(z) - 1), 0, -1):
        complete = sliding_window_view(known, count + 1).all(axis=1)
        if np.sum(complete) >= _ROWS * (count + 1):
            rows = sliding_window_view(scaled, count + 1)[complete]
            model = fit_linear_ar(rows[:, :-1, None], rows[:, -1:])
            c = model.coef[::-1, 0, 0]  # the latest lag first
            constant = mean + spread * model.intercept[0] - mean * np.sum(c)
            return (float(constant), *map(float, c))
    return (mean,) if offset else (0.0, 1.0)


def estimate_gaps(values: _Floats, target: str, model: GapModel) -> _Floats:
    """Return the series (n,) with estimates in place of missing values.

    Examples
    --------
    >>> estimate_gaps(np.asarray([1.0, 2.0, np.nan, 5.0, np.nan]), "level", (0.0, 2.0)).tolist()
    [1.0, 2.0, 4.0, 5.0, 10.0]
    >>> estimate_gaps(np.asarray([1.0, 3.0, np.nan, np.nan]), "diff", (2.0,)).tolist()
    [1.0, 3.0, 5.0, 5.0]
    """
    missing = np.isnan(values)
    levels = fill_forward(values).copy()
    offset, lags = offset_of(target), len(model) - 1
    weights, run = np.asarray(model[1:]), 0
    for t in range(1, len(levels)):
        run = run + 1 if missing[t] else 0
        if not run or missing[:t].all():
            continue
        levels[t] = levels[t - 1]
        if run <= max(lags, 1) and t - offset >= lags:
            recent: Any = to_target(target, levels[t - lags - offset : t])[::-1]
            ahead = np.asarray([[model[0] + weights @ recent]])
            levels[t] = from_target(target, ahead, levels[t - 1 : t])[0, 0]
    return levels
