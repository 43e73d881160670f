"""The forecasts that every network is measured against.

In original units, with x the windows of `make_windows`, v the series, t the index in it of the
last value of window k, and j = 1, 2, ... the step ahead::

    persistence   f[k, j] = x[k, T-1, 0]
    drift         f[k, j] = x[k, T-1, 0] + j * (mean change of a step in the training part)
    mean          f[k, j] = mean of the training part
    seasonal      f[k, j] = v[t + j - m * ceil(j / m)]      the same season, at the latest known
    linear AR     f[k, j] = intercept[j] + sum over t, i of x[k, t, i] * coef[t, i, j]

A report calls it linear AR(T) if up to T lags may be used; `best_lags` chooses how many are.

References
----------
.. [1] R. J. Hyndman, G. Athanasopoulos, "Forecasting: principles and practice", 3rd edition,
       OTexts 2021, section 5.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_xp._checks import readable
from rnn_xp.data.windows import as_series, num_windows

__all__ = [
    "LinearAR",
    "aicc",
    "best_lags",
    "drift",
    "fit_linear_ar",
    "mean",
    "persistence",
    "seasonal",
    "suggest_period",
]

_LONGEST_PERIOD = 400  # steps
_PRONOUNCED, _PLAIN, _AS_GOOD = 0.8, 0.4, 1.2
_NORMAL = 2.326  # the 99 % quantile of the normal distribution
_NOTHING = 1e-20  # share of the sum of squares that rounding leaves of a straight line


def persistence(x: ArrayLike, horizon: int = 1) -> NDArray[np.floating[Any]]:
    """Forecast that column 0 keeps its last value.

    Parameters
    ----------
    x : (N, T, I)
        Windows; column 0 is the target.
    horizon : int
        Number of steps to forecast, at least 1.

    Returns
    -------
    (N, horizon) array
        The forecasts, in the units and dtype of `x`.

    Raises
    ------
    ValueError
        If `x` does not have three axes or is empty, or `horizon` is below 1.

    Examples
    --------
    >>> persistence([[[1.0], [2.0]], [[2.0], [5.0]]], horizon=3).tolist()
    [[2.0, 2.0, 2.0], [5.0, 5.0, 5.0]]
    """
    windows = _windows(x)
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}.")
    return np.repeat(windows[:, -1, :1], horizon, axis=1)


def drift(x: ArrayLike, train: ArrayLike, horizon: int = 1) -> NDArray[np.floating[Any]]:
    """Forecast that column 0 changes by the mean change of the training part at every step.

    Parameters
    ----------
    x : (N, T, I)
        Windows; column 0 is the target.
    train : (n,)
        Training part of the target, n >= 2; its mean change is (last - first) / (n - 1).
    horizon : int

    Returns
    -------
    (N, horizon) array

    Raises
    ------
    ValueError
        As for `persistence`, or if `train` is not a vector of at least two values.

    Examples
    --------
    >>> drift([[[7.0], [8.0]]], train=[1.0, 2.0, 5.0], horizon=2).tolist()
    [[10.0, 12.0]]
    """
    past = _vector(train, 2)
    change = (past[-1] - past[0]) / (len(past) - 1)
    forecasts: NDArray[np.floating[Any]]
    forecasts = persistence(x, horizon) + change * np.arange(1, horizon + 1)
    return forecasts


def mean(train: ArrayLike, rows: int, horizon: int = 1) -> NDArray[np.float64]:
    """Forecast the mean of the training part (n,) for each of the windows, (rows, horizon).

    Examples
    --------
    >>> mean([1.0, 2.0, 6.0], rows=1, horizon=2).tolist()
    [[3.0, 3.0]]
    """
    return np.full((rows, horizon), np.mean(_vector(train, 1), dtype=np.float64))


def seasonal(series: ArrayLike, first: int, period: int, horizon: int = 1) -> NDArray[np.float64]:
    """Forecast that the season repeats: the latest known value of the same season.

    Parameters
    ----------
    series : (n,)
        The whole series, because a forecast may look back further than a window.
    first : int
        Index of the first target of the first forecast; each further forecast starts one step
        later.
    period : int
        Number of steps in a season, m; at most ``first``.
    horizon : int
        Number of steps to forecast, at least 1; it may exceed a season.

    Returns
    -------
    (N, horizon) array
        N = n - first - horizon + 1.

    Raises
    ------
    ValueError
        If less than a season precedes the first target, or the series ends before it.

    Examples
    --------
    >>> seasonal([1.0, 2.0, 3.0, 1.5, 2.5, 3.5, 2.0], first=4, period=3, horizon=2).tolist()
    [[2.0, 3.0], [3.0, 1.5]]
    """
    values = _vector(series, 1).astype(np.float64)
    if not 1 <= period <= first:
        raise ValueError(
            f"seasonal needs a whole season before the first target: period={period} must be in "
            f"1..{first}."
        )
    rows = num_windows(len(values) - first + 1, 1, horizon)
    steps = np.arange(horizon)
    back = period * (steps // period + 1)
    forecasts: NDArray[np.float64] = values[first + np.arange(rows)[:, None] + steps - back]
    return forecasts


def suggest_period(train: ArrayLike) -> int | None:
    """Suggest a season: the lag at which the training part resembles itself most.

    The root mean square of v[t] - v[t - m] is computed for lags m of up to 400 steps and a third of
    the series. A season is a local minimum that lies at least a fifth below the values at shorter
    lags, and at which the series without its linear trend is autocorrelated: significantly so, at
    the level of 1 % and with Bartlett's standard error, which grows with the autocorrelations at
    shorter lags. A minimum below two fifths of those values needs no test. Multiples of a season
    are minima as well, and by chance one of them may be the lowest. So the season is the smallest
    divisor of the lowest that is a season itself and at most 20 % above it.

    Parameters
    ----------
    train : (n,)
        Training part of the target.

    Returns
    -------
    int or None
        Number of steps in a season; None if there is no such minimum.

    References
    ----------
    .. [1] M. S. Bartlett, "On the theoretical specification and sampling properties of
           autocorrelated time-series", J. R. Statist. Soc. Suppl. 8 (1946), 27-41.
    .. [2] S. Makridakis, E. Spiliotis, V. Assimakopoulos, "The M4 competition", Int. J. Forecasting
           36 (2020), 54-74: the seasonality test of its benchmarks, there for a given period.
    .. [3] X. Wang, K. Smith, R. Hyndman, "Characteristic-based clustering for time series data",
           Data Min. Knowl. Discov. 13 (2006), 335-364: peaks of the detrended autocorrelation.

    Examples
    --------
    >>> suggest_period([0.0, 1.0, 5.0, 2.0] * 6)
    4
    >>> suggest_period([0.0, 1.0, 2.0, 3.0] + [4.0] * 20) is None
    True
    """
    values = _vector(train, 1).astype(np.float64)
    longest = min(len(values) // 3, _LONGEST_PERIOD)
    lags = range(1, longest + 1)
    gaps = [float(np.sqrt(np.mean((values[m:] - values[:-m]) ** 2))) for m in lags]
    significant = _significant_lags(values, longest)
    dips = {
        m: gaps[m - 1]
        for m in lags[1:-1]
        if gaps[m - 2] > gaps[m - 1] <= gaps[m]
        and gaps[m - 1] <= (_PRONOUNCED if significant[m - 1] else _PLAIN) * max(gaps[: m - 1])
    }
    if not dips:
        return None
    lowest = min(dips, key=dips.__getitem__)
    return next(m for m in dips if lowest % m == 0 and dips[m] <= _AS_GOOD * dips[lowest])


def _significant_lags(values: NDArray[np.float64], longest: int) -> NDArray[np.bool_]:
    """Return for lags 1..longest if the detrended series is autocorrelated there."""
    t = np.linspace(-1.0, 1.0, len(values))
    centred = values - np.mean(values)
    rest = centred - t * (np.sum(t * centred) / max(np.sum(t * t), 1.0))
    power = np.sum(rest * rest)
    if power <= _NOTHING * np.sum(values * values):
        return np.zeros(longest, bool)
    r = np.asarray([np.sum(rest[m:] * rest[:-m]) for m in range(1, longest + 1)]) / power
    shorter = np.cumsum(r * r) - r * r
    significant: NDArray[np.bool_] = r > _NORMAL * np.sqrt((1.0 + 2.0 * shorter) / len(values))
    return significant


@dataclass(frozen=True, eq=False)
class LinearAR:
    """A fitted linear autoregression with separate coefficients for each step of the horizon.

    Parameters
    ----------
    coef : (T, I, horizon) float64 array
        Weight of each value of the window.
    intercept : (horizon,) float64 array
        Intercept of each step, in the units of the target.

    See Also
    --------
    fit_linear_ar : Find the coefficients.
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """Forecast the values that follow windows.

        Parameters
        ----------
        x : (N, T, I)
            Windows in the units of the fit.

        Returns
        -------
        (N, horizon) float64 array
            The forecasts, in the units of the target.

        Raises
        ------
        ValueError
            If the windows do not have the T and I of the fit.
        """
        windows = _windows(x)
        if windows.shape[1:] != self.coef.shape[:2]:
            raise ValueError(
                f"the fit was on windows (N, {self.coef.shape[0]}, {self.coef.shape[1]}), "
                f"got {windows.shape}. Use the same seq_length and columns."
            )
        return np.tensordot(windows, self.coef, axes=2) + self.intercept


def fit_linear_ar(x: ArrayLike, y: ArrayLike) -> LinearAR:
    """Fit a linear autoregression with intercept by least squares, in float64.

    Parameters
    ----------
    x : (N, T, I)
        Training windows.
    y : (N, horizon)
        Values that follow each window. With fewer windows than T * I + 1 coefficients, the
        least-squares solution of smallest norm is returned.

    Returns
    -------
    LinearAR
        One set of T * I coefficients and an intercept per step of the horizon.

    Raises
    ------
    ValueError
        If `x` does not have three axes, if `y` does not have two, or if they differ in N.

    Examples
    --------
    >>> from rnn_xp.data.windows import make_windows
    >>> x, y = make_windows([0.0, 1.0, 4.0, 9.0, 16.0, 25.0], seq_length=2)
    >>> model = fit_linear_ar(x, y)            # squares: v[t] = 2 v[t-1] - v[t-2] + 2
    >>> model.coef[:, 0, 0].round(6).tolist(), model.intercept.round(6).tolist()
    ([-1.0, 2.0], [2.0])
    >>> model.predict([[[25.0], [36.0]]]).round(6).tolist()
    [[49.0]]
    """
    windows = _windows(x)
    targets = np.asarray(readable("y", y))
    if targets.ndim != 2 or len(targets) != len(windows):
        raise ValueError(
            f"y must have shape (N, horizon) with the N = {len(windows)} of x, got {targets.shape}."
        )
    _, steps, width = windows.shape
    design = np.hstack([np.ones((len(windows), 1)), windows.reshape(len(windows), -1)])
    solution = np.linalg.lstsq(design, targets, rcond=None)[0]
    return LinearAR(coef=solution[1:].reshape(steps, width, -1), intercept=solution[0])


def aicc(rss: Any, rows: int, coefficients: Any) -> Any:
    """Return the Akaike criterion of normal errors, corrected for few rows; lower is better.

    It is infinite if there are not two rows more than coefficients.
    """
    left = rows - coefficients - 2.0
    with np.errstate(divide="ignore"):
        fits = rows * np.log(np.asarray(rss) / rows)
        penalty = 2.0 * rows * (coefficients + 1.0) / np.where(left > 0.0, left, 1.0)
    return np.where(left > 0.0, fits + penalty, np.inf)


def best_lags(train: ArrayLike, most: int) -> int:
    """Return the number of lags of the autoregression with the lowest corrected Akaike criterion.

    Parameters
    ----------
    train : (n,)
        Training part of the target.
    most : int
        Largest number of lags to consider; all are compared on the same rows.

    Returns
    -------
    int
        From 1 to ``most``; ``most`` if there are too few rows to compare, or nothing is left to
        explain.

    Examples
    --------
    >>> waves = np.sin(np.arange(60.0)) + 0.01 * np.cos(np.arange(60.0) ** 2)
    >>> best_lags(waves, most=1)
    1
    """
    values = _vector(train, 1).astype(np.float64)
    rows = len(values) - most
    if rows <= most + 4:
        return most
    lagged = [values[most - lag : len(values) - lag] for lag in range(1, most + 1)]
    table = np.stack([np.ones(rows), *lagged, values[most:]], axis=1)
    # What the columns before explain is above in the last column of R, what is left is below.
    r: NDArray[np.float64] = np.linalg.qr(table)[1]
    left = np.cumsum(r[::-1, -1] ** 2)[::-1][2:]
    if left[-1] <= _NOTHING * np.sum(values * values):
        return most
    return 1 + int(np.argmin(aicc(left, rows, 1.0 + np.arange(1, most + 1))))


def _vector(values: ArrayLike, least: int) -> NDArray[np.floating[Any]]:
    """Check that the values form a finite vector of length ``least`` or more."""
    vector = np.asarray(readable("the series", values))
    if vector.ndim != 1 or len(vector) < least:
        raise ValueError(f"a vector of {least} values or more is needed, got {vector.shape}.")
    return as_series(vector, "the series")[:, 0]


def _windows(x: ArrayLike) -> NDArray[np.floating[Any]]:
    """Check that `x` has the shape (N, T, I) without empty axes."""
    windows = np.asarray(readable("x", x))
    if windows.ndim != 3 or windows.size == 0:
        raise ValueError(
            f"windows must have shape (N, T, I), none of them 0, got {windows.shape}. "
            "Axes are window, time, column; see make_windows."
        )
    return windows
