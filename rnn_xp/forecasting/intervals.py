"""Prediction intervals from past errors: split conformal and adaptive conformal inference.

Both methods return an interval of some radius around a forecast, with a separate radius for each
step of the horizon. The radius is a quantile of the absolute errors on windows that were not used
in training.

- split: the quantile is fixed. The coverage is as nominal if future errors are like past ones.
- adaptive: the quantile moves. Every miss raises it and every hit lowers it slightly, so that the
  fraction of misses approaches its nominal value in the long run, however errors change [2]_. The
  steps are largest at first, when they make up for errors of the validation part that were too few
  or unlike those to come, and become smaller after 50 forecasts [3]_. The quantile is taken of the
  latest errors, those of forecasts made after the training among them.

Errors are in the units of a series, or those of its logarithms, see `rnn_xp.forecasting.design`.

References
----------
.. [1] J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman, "Distribution-free predictive
       inference for regression", J. Amer. Statist. Assoc. 113 (2018), 1094-1111.
.. [2] I. Gibbs, E. Candes, "Adaptive conformal inference under distribution shift", NeurIPS 2021,
       equation 2.
.. [3] A. N. Angelopoulos, R. F. Barber, S. Bates, "Online conformal prediction with decaying step
       sizes", ICML 2024.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError

__all__ = [
    "IntervalError",
    "adaptive_radii",
    "check_enough",
    "check_level",
    "conformal_radii",
    "read_levels",
]

_RATE, _FAST, _LEAST = 0.05, 50, 0.4  # of the adaptive level; forecasts; of the rate, in the end
_MEMORY = 500  # errors whose quantile is taken

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


def read_levels(level: Any) -> list[tuple[Any, float]]:
    """Return levels as they were given, and as shares; whole numbers from 2 on are percentages.

    Examples
    --------
    >>> read_levels([80, 0.95])
    [(80, 0.8), (0.95, 0.95)]
    """
    if isinstance(level, str) or not len(level):
        raise ParameterError(
            "{0:name} must be a share such as 0.9, or a list of shares or percentages such as "
            "[80, 95], got {0:value}.",
            Argument("level", level),
        )
    shares = []
    for each in level:
        whole = isinstance(each, int | np.integer) and not isinstance(each, bool)
        real = whole or isinstance(each, float | np.floating)
        share = float(each) / 100.0 if real and float(each) >= 2.0 else each
        if not (real and 0.0 < share < 1.0):
            raise ParameterError(
                "{0:name} must be shares in (0, 1) or percentages in [2, 100), got {0:value}.",
                Argument("level", each),
            )
        shares.append(float(share))
    for k, share in enumerate(shares):
        if share in shares[:k]:
            raise ParameterError("{0:name} is there twice: {0:value}.", Argument("level", level[k]))
    return list(zip(level, shares, strict=True))


def _rank(count: int, level: float) -> int:
    """Return the rank, by size, of the error to use as the radius; 20 * 0.9 must give 18."""
    return math.ceil((count + 1) * level - 1e-9)


def check_enough(count: int, level: float) -> None:
    """Check that a number of errors suffices for a quantile of this level.

    Raises
    ------
    IntervalError
        If there are too few; the message says how many are required.
    """
    check_level(level)
    if _rank(count, level) > count:
        needed = next(n for n in itertools.count(count) if _rank(n, level) <= n)
        raise IntervalError(
            f"an interval of {level:g} needs the errors of {needed} "
            f"windows or more, but there are {count}. Give more data, a larger validation share or "
            "a lower level."
        )


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
    check_enough(len(errors), level)
    radii: _Floats = np.sort(errors, axis=0)[_rank(len(errors), level) - 1]
    return radii


def adaptive_radii(
    past: _Floats,
    errors: _Floats,
    level: float,
    *,
    rows: Sequence[int] | NDArray[np.intp] | None = None,
    wait: int = 0,
    rate: float = _RATE,
) -> _Floats:
    """Return radii for successive forecasts, each computed from the errors known by then.

    The error of step j = 0, 1, ... of a forecast is known, and used, from j + 1 rows after it on.

    Parameters
    ----------
    past : (n, steps)
        Absolute errors before the first forecast, as for `conformal_radii`; n >= 1.
    errors : (M, steps)
        Absolute errors of the forecasts, in the order of their origins; NaN where the true value is
        not known, which changes nothing.
    level : float
    rows : sequence of int (M,), optional
        The row of each forecast; by default they follow each other row by row.
    wait : int
        Number of steps, 0 or more, before which no error of a forecast is used.
    rate : float
        Step size by which the level is adapted at first, gamma in Gibbs and Candes.

    Returns
    -------
    (M, steps) array

    Examples
    --------
    >>> adaptive_radii(np.asarray([[1.0], [3.0]]), np.asarray([[9.0], [np.nan]]), 0.6).tolist()
    [[3.0], [9.0]]
    """
    check_level(level)
    rows = range(len(errors)) if rows is None else rows
    radii = np.empty(errors.shape)
    for step in range(errors.shape[1]):
        latest = deque(past[-_MEMORY:, step].tolist())
        ordered, miss, known = sorted(latest), 1.0 - level, 0
        for now, row in enumerate(rows):
            while known < now and rows[known] + max(step, wait) < row:
                error = float(errors[known, step])
                if not math.isnan(error):
                    size = rate * max(math.sqrt(_FAST / max(known + 1, _FAST)), _LEAST)
                    miss += size * ((1.0 - level) - (error > radii[known, step]))
                    latest.append(error)
                    bisect.insort(ordered, error)
                    if len(latest) > _MEMORY:
                        del ordered[bisect.bisect_left(ordered, latest.popleft())]
                known += 1
            rank = _rank(len(ordered), 1.0 - miss)
            radii[now, step] = 0.0 if rank < 1 else ordered[min(rank, len(ordered)) - 1]
            if rank > len(ordered):  # asked for more than was ever seen
                radii[now, step] *= 1.0 + (rank - len(ordered)) / len(ordered)
    return radii
