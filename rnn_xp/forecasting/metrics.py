"""Errors of a forecast; truth and forecast have the same shape, and nothing is broadcast.

With y the truth, f the forecast and means over all entries::

    rmse = sqrt(mean((y - f)**2))      mase = mae / mean(|train[t] - train[t-m]|)
    mae  = mean(|y - f|)               skill = 1 - rmse / rmse of a reference forecast
    bias = mean(f - y)                 r2 = 1 - sum((y - f)**2) / sum((y - mean(y))**2)
    smape = 200 * mean(|y - f| / (|y| + |f|)), for positive y only
    pinball = mean(max(q * (y - f), (q - 1) * (y - f))), where f forecasts the quantile q

and for an interval [low, high]::

    coverage = mean(low <= y <= high)  width = mean(high - low)

Several horizons are pooled: the mean runs over windows and steps alike. A metric has the units of
its arguments, so pass them in original units.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnn_xp._checks import readable
from rnn_xp.data.windows import as_series

__all__ = ["bias", "coverage", "mae", "mase", "pinball", "r2", "rmse", "skill", "smape", "width"]

_Float64: TypeAlias = NDArray[np.float64]


def rmse(truth: ArrayLike, forecast: ArrayLike) -> float:
    """Return the root mean squared error, sqrt(mean((truth - forecast)**2)).

    Parameters
    ----------
    truth, forecast : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units.

    Returns
    -------
    float
        Value in the units of the arguments.

    Raises
    ------
    ValueError
        If the shapes differ, there are no entries, or an entry is not finite.

    Examples
    --------
    >>> rmse([1.0, 2.0], [4.0, 6.0])
    3.5355339059327378
    """
    y, f = _pair(truth, forecast)
    return math.sqrt(np.mean((y - f) ** 2))


def mae(truth: ArrayLike, forecast: ArrayLike) -> float:
    """Return the mean absolute error, mean(abs(truth - forecast)).

    Parameters
    ----------
    truth, forecast : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units.

    Returns
    -------
    float
        Value in the units of the arguments.

    Raises
    ------
    ValueError
        If the shapes differ, there are no entries, or an entry is not finite.

    Examples
    --------
    >>> mae([1.0, 2.0], [4.0, 6.0])
    3.5
    """
    y, f = _pair(truth, forecast)
    return float(np.mean(np.abs(y - f)))


def bias(truth: ArrayLike, forecast: ArrayLike) -> float:
    """Return the mean error, mean(forecast - truth): positive when the forecast is too high.

    Parameters
    ----------
    truth, forecast : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units.

    Returns
    -------
    float
        Value in the units of the arguments.

    Raises
    ------
    ValueError
        If the shapes differ, there are no entries, or an entry is not finite.

    Examples
    --------
    >>> bias([1.0, 2.0], [4.0, 6.0])
    3.5
    """
    y, f = _pair(truth, forecast)
    return float(np.mean(f - y))


def mase(truth: ArrayLike, forecast: ArrayLike, train: ArrayLike, m: int = 1) -> float:
    """Return the mean absolute scaled error, mae / mean(abs(train[t] - train[t - m])).

    The denominator is the one-step error of the (seasonal) naive forecast over the training part,
    so the naive forecast itself scores 1 only if the test part moves as much as the training part.

    Parameters
    ----------
    truth, forecast : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units.
    train : (n,)
        Training part of the target, in the same units.
    m : int
        Season of the naive forecast in steps, at least 1 and below n.

    Returns
    -------
    float
        The error, without units.

    Raises
    ------
    ValueError
        As for `mae`; or if `train` is not a vector of more than `m` values, or if it repeats with
        period `m`, so that the denominator is zero.

    References
    ----------
    Hyndman, R. J. and Koehler, A. B. (2006). Another look at measures of forecast accuracy.
    International Journal of Forecasting 22(4), 679-688.

    Examples
    --------
    >>> mase([5.0], [6.0], train=[1.0, 3.0, 5.0])
    0.5
    """
    error = mae(truth, forecast)
    past = as_series(train, "train").astype(np.float64, copy=False)
    if np.ndim(train) != 1 or not 1 <= m < len(past):
        raise ValueError(
            f"mase needs a vector of more than m values to scale by and m >= 1, "
            f"got train of shape {np.shape(train)} and m={m}."
        )
    scale = float(np.mean(np.abs(past[m:] - past[:-m])))
    if scale == 0:
        raise ValueError(f"train repeats with period m={m}, so mase has nothing to scale by.")
    return error / scale


def skill(truth: ArrayLike, forecast: ArrayLike, reference: ArrayLike) -> float:
    """Return the skill score, 1 - rmse(truth, forecast) / rmse(truth, reference).

    Parameters
    ----------
    truth, forecast, reference : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units. The reference is usually persistence.

    Returns
    -------
    float
        1 for a perfect forecast, 0 for one as good as the reference, negative for a worse one.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or the reference is perfect.

    Examples
    --------
    >>> skill([1.0, 2.0], [1.5, 2.5], reference=[3.0, 4.0])
    0.75
    """
    scale = rmse(truth, reference)
    if scale == 0:
        raise ValueError("the reference forecast is perfect, so no skill can be measured.")
    return 1 - rmse(truth, forecast) / scale


def r2(truth: ArrayLike, forecast: ArrayLike) -> float:
    """Return the coefficient of determination, 1 - SS_res / SS_tot, pooled over all entries.

    Never report it alone: on a price series, persistence reaches 0.997 and is useless.

    Parameters
    ----------
    truth, forecast : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units.

    Returns
    -------
    float
        1 for a perfect forecast, 0 for the mean of the truth, negative for a worse one.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or the truth is constant.

    Examples
    --------
    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.5
    """
    y, f = _pair(truth, forecast)
    if y.min() == y.max():
        raise ValueError("the truth is constant, so r2 is undefined.")
    return float(1 - np.sum((y - f) ** 2) / np.sum((y - y.mean()) ** 2))


def smape(truth: ArrayLike, forecast: ArrayLike) -> float:
    """Return the symmetric mean absolute percentage error, between 0 and 200.

    ::

        200 * mean(abs(truth - forecast) / (abs(truth) + abs(forecast)))

    Other definitions range from 0 to 1 or to 2.

    Parameters
    ----------
    truth, forecast : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units, the truth positive.

    Returns
    -------
    float
        Percentage, 0 to 200.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or a true value is not positive, because
        percentages of values near zero are meaningless.

    References
    ----------
    Makridakis, S. (1993). Accuracy measures: theoretical and practical concerns. International
    Journal of Forecasting 9(4), 527-529.

    Examples
    --------
    >>> smape([1.0, 3.0], [3.0, 3.0])
    50.0
    """
    y, f = _pair(truth, forecast)
    if y.min() <= 0:
        raise ValueError(
            f"smape is for positive data, and the truth holds {y.min():g}. Use mae or mase."
        )
    return float(200 * np.mean(np.abs(y - f) / (y + np.abs(f))))


def pinball(truth: ArrayLike, forecast: ArrayLike, quantile: float) -> float:
    """Return the pinball loss of a quantile forecast; for the median it is half the MAE.

    Parameters
    ----------
    truth, forecast : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units.
    quantile : float
        The forecast quantile, in (0, 1).

    Returns
    -------
    float
        Value in the units of the arguments.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or the quantile is not in (0, 1).

    References
    ----------
    Koenker, R. and Bassett, G. (1978). Regression quantiles. Econometrica 46(1), 33-50.

    Examples
    --------
    >>> pinball([1.0, 2.0], [2.0, 0.0], quantile=0.75)
    0.875
    """
    y, f = _pair(truth, forecast)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must be in (0, 1), got {quantile!r}.")
    return float(np.mean(np.maximum(quantile * (y - f), (quantile - 1) * (y - f))))


def coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """Return the fraction of true values that lie in [low, high], ends included.

    Parameters
    ----------
    truth, low, high : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units.

    Returns
    -------
    float
        A fraction in 0..1, to compare with the nominal level of the interval.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or an interval ends below its start.

    Examples
    --------
    >>> coverage([1.0, 2.0, 9.0, 4.0], low=[0.0] * 4, high=[4.0] * 4)
    0.75
    """
    y, lower = _pair(truth, low)
    _, upper = _pair(truth, high)
    _check_interval(lower, upper)
    return float(np.mean((lower <= y) & (y <= upper)))


def width(low: ArrayLike, high: ArrayLike) -> float:
    """Return the mean width of intervals [low, high].

    Parameters
    ----------
    low, high : arrays of one shape, usually (N, horizon)
        Finite real numbers in the same units.

    Returns
    -------
    float
        Value in the units of the arguments.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is not finite, or an interval ends below its start.

    Examples
    --------
    >>> width([0.0, 1.0], [2.0, 5.0])
    3.0
    """
    lower, upper = _pair(low, high)
    _check_interval(lower, upper)
    return float(np.mean(upper - lower))


def _check_interval(low: _Float64, high: _Float64) -> None:
    if (high < low).any():
        raise ValueError("an interval ends below its start: low and high may have been swapped.")


def _pair(truth: ArrayLike, forecast: ArrayLike) -> tuple[_Float64, _Float64]:
    """Return both arguments as finite, non-empty float64 arrays of one shape."""
    y, f = (
        np.asarray(readable(name, values)).astype(np.float64, casting="same_kind", copy=False)
        for name, values in (("truth", truth), ("forecast", forecast))
    )
    if y.shape != f.shape:
        raise ValueError(
            f"truth {y.shape} and forecast {f.shape} must have the same shape: nothing is "
            "broadcast. Reshape one of them, for instance with forecast[:, 0] or truth[:, None]."
        )
    if y.size == 0:
        raise ValueError(f"there are no entries to measure: the shape is {y.shape}.")
    for name, values in (("truth", y), ("forecast", f)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds a NaN or infinite entry: an error cannot be measured.")
    return y, f
