"""Prediction intervals from past errors: split conformal and adaptive conformal inference.

Both methods return an interval of some radius around a forecast, with a separate radius for each
step of the horizon. The radius is a quantile of the absolute errors on windows that were not used
in training.

- split: the quantile is fixed. The coverage is as nominal if future errors are like past ones.
- adaptive: the quantile moves. Every miss raises it and every hit lowers it slightly, so that the
  fraction of misses approaches its nominal value in the long run, however errors change [2]_.

References
----------
.. [1] J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman, "Distribution-free predictive
       inference for regression", J. Amer. Statist. Assoc. 113 (2018), 1094-1111.
.. [2] I. Gibbs, E. Candes, "Adaptive conformal inference under distribution shift", NeurIPS 2021,
       equation 2.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError

__all__ = ["IntervalError", "adaptive_radii", "check_level", "conformal_radii", "interval_bounds"]

_RATE, _MEMORY = 0.02, 500  # of the adaptive level; errors whose quantile is taken

_Floats = NDArray[np.floating[Any]]


class IntervalError(ValueError):
    """Too few errors are known for an interval of this level."""


def check_level(level: float) -> None:
    """Check that the nominal coverage lies between 0 and 1."""
    if isinstance(level, bool) or not 0.0 < level < 1.0:
        raise ParameterError(
            "{0:name} must be a share in (0, 1), such as 0.9, got {0:value}.",
            Argument("level", level),
        )


def _rank(count: int, level: float) -> int:
    """Return the rank, by size, of the error to use as the radius; 20 * 0.9 must give 18."""
    return math.ceil((count + 1) * level - 1e-9)


def conformal_radii(errors: _Floats, level: float) -> _Floats:
    """Return the radius of a split-conformal interval for each step.

    Parameters
    ----------
    errors : (n, steps)
        Absolute errors on windows that were not used in training.
    level : float
        Nominal coverage.

    Returns
    -------
    (steps,) array
        The ``ceil((n + 1) * level)``-th smallest error of each step.

    Raises
    ------
    ValueError
        If there are too few errors for this level.

    Examples
    --------
    >>> conformal_radii(np.arange(1.0, 20.0)[:, None], 0.9).tolist()
    [18.0]
    """
    check_level(level)
    count = len(errors)
    rank = _rank(count, level)
    if rank > count:
        needed = next(n for n in itertools.count(count) if _rank(n, level) <= n)
        raise IntervalError(
            f"an interval of {level:g} needs the errors of {needed} "
            f"windows or more, but there are {count}. Give more data, a larger validation share or "
            "a lower level."
        )
    radii: _Floats = np.sort(errors, axis=0)[rank - 1]
    return radii


def adaptive_radii(
    past: _Floats, errors: _Floats, level: float, *, stride: int = 1, rate: float = _RATE
) -> _Floats:
    """Return radii for successive forecasts, each computed from the errors known by then.

    The error of step j of a forecast is known, and used, from j steps after the forecast on.

    Parameters
    ----------
    past : (n, steps)
        Absolute errors before the first forecast, as for `conformal_radii`.
    errors : (M, steps)
        Absolute errors of the forecasts, in the order of their origins.
    level : float
    stride : int
        Steps between two forecasts.
    rate : float
        Step size by which the level is adapted, gamma in Gibbs and Candes.

    Returns
    -------
    (M, steps) array
    """
    check_level(level)
    radii = np.empty_like(errors)
    for step in range(errors.shape[1]):
        seen = deque(past[:, step].tolist(), maxlen=_MEMORY)
        miss = 1.0 - level
        late = -(-(step + 1) // stride)  # forecasts made before an error is known
        for now in range(len(errors)):
            if (known := now - late) >= 0:
                error = float(errors[known, step])
                miss += rate * ((1.0 - level) - (error > radii[known, step]))
                seen.append(error)
            ordered = np.sort(np.fromiter(seen, dtype=np.float64))
            rank = _rank(len(ordered), 1.0 - miss)
            radii[now, step] = 0.0 if rank < 1 else ordered[min(rank, len(ordered)) - 1]
            if rank > len(ordered):  # asked for more than was ever seen
                radii[now, step] *= 1.0 + (rank - len(ordered)) / len(ordered)
    return radii


def interval_bounds(
    kind: str | None,
    level: float,
    levels: _Floats,
    truth: _Floats,
    past: _Floats | None,
    unit: float,
    stride: int,
) -> tuple[_Floats, _Floats] | None:
    """Return the ends of the intervals of successive forecasts.

    Parameters
    ----------
    kind : {"split", "adaptive", "quantile", None}
    level : float
    levels : (M, steps, Q)
        Forecasts; with quantiles, from the lowest to the highest.
    truth : (M, steps)
    past : (n, steps)
        Absolute errors before the first forecast, in ``unit``.
    unit : float
    stride : int

    Returns
    -------
    low, high : (M, steps) arrays, or None
    """
    if kind is None or past is None:
        return None
    if kind == "quantile":
        return levels[:, :, 0], levels[:, :, -1]
    if not len(past):  # such as those of a network that was trained elsewhere
        return None
    forecast = levels[:, :, 0]
    if kind == "split":
        radii = np.broadcast_to(conformal_radii(past, level), forecast.shape)
    else:
        radii = adaptive_radii(past, np.abs(truth - forecast) / unit, level, stride=stride)
    return forecast - unit * radii, forecast + unit * radii
