"""The linear path: an autoregression whose coefficients are shrunk, iterated over the horizon.

::

    z[t] = c + a[1] * z[t-1] + ... + a[T] * z[t-T]

minimises the sum of squares plus ``ridge * sum over k of (d[k] * (a[k] - b[k]))^2``, as with the
prior of Litterman [1]_. Coefficients are drawn to b, either that nothing changes or that the season
repeats, and the more so, the farther back they look. The distance d[k] of lag k counts one season
as one step::

    d[k] = min(k, min over j = 1, 2, ... of 1 + j + |k - j * period|)

The strength of the ridge, and which b, have the lowest Akaike criterion with the correction for few
rows, where the number of coefficients is the trace of the hat matrix [2]_.

Levels are forecast by the mean of two paths, the one above and one with a unit root, which is that
of the changes, written in levels::

    z[t] - z[t-1] = c + b[1] * (z[t-1] - z[t-2]) + ... + b[T-1] * (z[t-T+1] - z[t-T])

Few rows do not tell whether a series returns to its mean, and over several steps the one assumption
where the other holds costs much, the mean of both little [3]_. If the criterion of one of them is
lower by 20 or more, that one is the path.

References
----------
.. [1] R. B. Litterman, "Forecasting with Bayesian vector autoregressions - five years of
       experience", J. Bus. Econ. Stat. 4 (1986), 25-38.
.. [2] C. M. Hurvich, J. S. Simonoff, C.-L. Tsai, "Smoothing parameter selection in nonparametric
       regression using an improved Akaike information criterion", J. R. Statist. Soc. B 60 (1998),
       271-293.
.. [3] B. E. Hansen, "Averaging estimators for autoregressions with a near unit root",
       J. Econometrics 158 (2010), 142-155.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnn_xp.forecasting.baselines import aicc

__all__ = ["LinearPath", "fit_path", "fit_paths", "mean_ahead"]

_RIDGES = 10.0 ** np.arange(-3.0, 5.5, 0.5)  # for rows of unit variance
_DECISIVE = 20.0  # of a criterion, above the lowest one
_NOTHING = 1e-20  # share of the sum of squares that rounding leaves

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearPath:
    """A fitted autoregression of one step.

    Attributes
    ----------
    coef : ndarray (T,)
        Weights of the values of a window, the oldest first.
    intercept : float
    criterion : float
        The corrected Akaike criterion, in units in which the deviance is that of normal errors.
    """

    coef: _Floats
    intercept: float
    criterion: float

    def ahead(self, steps: int) -> tuple[_Floats, _Floats]:
        """Return the weights (steps, T) and intercepts (steps,) of forecasts of several steps.

        Examples
        --------
        >>> halving = LinearPath(np.asarray([0.0, 0.5]), 1.0, 0.0)
        >>> weights, intercepts = halving.ahead(2)
        >>> weights.tolist(), intercepts.tolist()
        ([[0.0, 0.5], [0.0, 0.25]], [1.0, 1.5])
        """
        # Each row of a window, and then each forecast, as a sum of the window and a constant.
        length = len(self.coef)
        sums = np.eye(length, length + 1)
        for _ in range(steps):
            following = self.coef @ sums[-length:]
            following[length] += self.intercept
            sums = np.concatenate([sums, following[None]])
        return sums[length:, :length], sums[length:, length]


def mean_ahead(paths: Sequence[LinearPath], steps: int) -> tuple[_Floats, _Floats]:
    """Return the mean weights (steps, T) and intercepts (steps,) of several paths.

    Examples
    --------
    >>> paths = LinearPath(np.asarray([0.5]), 0.0, 0.0), LinearPath(np.asarray([1.0]), 1.0, 0.0)
    >>> weights, intercepts = mean_ahead(paths, 2)
    >>> weights.tolist(), intercepts.tolist()
    ([[0.75], [0.625]], [0.5, 1.0])
    """
    weights, intercepts = zip(*(path.ahead(steps) for path in paths), strict=True)
    return np.mean(weights, axis=0), np.mean(intercepts, axis=0)


def fit_paths(
    x: _Floats, y: _Floats, *, period: int | None = None, changes: bool = False
) -> tuple[LinearPath, ...]:
    """Fit the autoregressions whose forecasts are averaged: one of changes, or up to two of levels.

    Parameters
    ----------
    x, y, period, changes : as for `fit_path`

    Returns
    -------
    tuple of LinearPath
        That of `fit_path`, and that with a unit root.

    Examples
    --------
    >>> walk = np.cumsum(np.cos(np.arange(60.0) ** 2))
    >>> rows = np.lib.stride_tricks.sliding_window_view(walk, 5)
    >>> _, unit_root = fit_paths(rows[:, :-1], rows[:, -1])
    >>> round(float(unit_root.coef.sum()), 12)
    1.0
    """
    path = fit_path(x, y, period=period, changes=changes)
    if changes:
        return (path,)
    both = path, _with_unit_root(x, y, period)
    least = min(each.criterion for each in both)
    return tuple(each for each in both if each.criterion < least + _DECISIVE)


def _with_unit_root(x: _Floats, y: _Floats, period: int | None) -> LinearPath:
    """Fit the changes, and write their autoregression in levels."""
    last = x[:, -1]
    if x.shape[1] == 1:
        return _walk(y - last)
    path = fit_path(np.diff(x, axis=1), y - last, period=period, changes=True)
    coef = np.concatenate([[0.0], path.coef]) - np.concatenate([path.coef, [0.0]])
    coef[-1] += 1.0
    return LinearPath(coef, path.intercept, path.criterion)


def _walk(changes: _Floats) -> LinearPath:
    """Return the path of a random walk with drift."""
    drift = float(np.mean(changes))
    rss = max(float(np.sum((changes - drift) ** 2)), 1e-300)
    return LinearPath(np.ones(1), drift, float(aicc(rss, len(changes), 1.0)))


def fit_path(
    x: _Floats, y: _Floats, *, period: int | None = None, changes: bool = False
) -> LinearPath:
    """Fit the autoregression.

    Parameters
    ----------
    x : ndarray (N, T)
        Windows, the oldest value first.
    y : ndarray (N,)
        The value that follows each window.
    period : int, optional
        Number of steps of a season.
    changes : bool
        True if the values are changes, so that zeros mean that nothing changes.

    Returns
    -------
    LinearPath

    Examples
    --------
    >>> wave = np.sin(np.arange(60.0))
    >>> path = fit_path(np.stack([wave[:-2], wave[1:-1]], axis=1), wave[2:])
    >>> bool(np.allclose(path.coef, [-1.0, 2.0 * np.cos(1.0)], atol=0.01))
    True
    """
    length = x.shape[1]
    lags = np.arange(length, 0, -1)
    distance = lags.astype(float)
    step = period or length + 1
    for season in range(step, length + 1, step):
        distance = np.minimum(distance, 1.0 + season // step + np.abs(lags - season))
    scale = float(np.std(y)) or 1.0
    middle, level = x.mean(axis=0), float(y.mean())
    columns, rows = (x - middle) / (distance * scale), (y - level) / scale
    u, s, vt = np.linalg.svd(columns, full_matrices=False)
    total = float(rows @ rows)
    priors = _priors(lags, period, changes=changes)
    score, coef = np.inf, priors[0]
    for prior in priors:
        rest = rows - columns @ (distance * prior)
        along, power = u.T @ rest, float(rest @ rest)
        for ridge in _RIDGES:
            shrunk = s * s / (s * s + ridge)
            rss = max(power - float(np.sum((2.0 - shrunk) * shrunk * along**2)), _NOTHING * total)
            now = float(aicc(max(rss, 1e-300), len(y), 1.0 + np.sum(shrunk)))
            if now < score:
                score, coef = now, prior + (vt.T @ (along * s / (s * s + ridge))) / distance
    criterion = score + len(y) * 2.0 * float(np.log(scale))
    return LinearPath(coef, level - float(middle @ coef), criterion)


def _priors(lags: NDArray[np.intp], period: int | None, *, changes: bool) -> list[_Floats]:
    """Return the coefficients of no change and, with a period, those of a season that repeats."""
    same = np.zeros(len(lags))
    if not changes:
        same[lags == 1] = 1.0
    if period is None or period + (not changes) > len(lags):
        return [same]
    repeated = same.copy()
    repeated[lags == period] += 1.0
    if not changes:  # the last value, and the change at this time of the last season
        repeated[lags == period + 1] -= 1.0
    return [same, repeated]
