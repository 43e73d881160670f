"""A line search for the strong Wolfe conditions, on Python floats.

Along a descent direction with phi(t) = f(p + t * d), find a step t with::

    phi(t) <= phi(0) + c1 * t * phi'(0)        sufficient decrease
    |phi'(t)| <= c2 * |phi'(0)|                curvature

First a bracket is grown until it must contain such a step; then it is shrunk by cubic
interpolation.

References
----------
.. [1] J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., Algorithms 3.5 and 3.6 and
       equation 3.59.
.. [2] M. Schmidt, minFunc (2005), for the bounds on extrapolation and on interpolation near the
       ends of the bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Point", "strong_wolfe"]


class Point(NamedTuple):
    """A step along the search direction, with value and slope there, and the caller's payload."""

    step: float
    value: float
    slope: float
    payload: Any = None


def strong_wolfe(
    evaluate: Callable[[float], Point],
    start: Point,
    step: float,
    *,
    c1: float = 1e-4,
    c2: float = 0.9,
    max_evaluations: int = 25,
    min_width: float = 0.0,
) -> Point:
    """Return a point that satisfies the strong Wolfe conditions, or the best one seen.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(step) -> Point``. A value that is not finite counts as infinitely high.
    start : Point
        The point at step 0, whose slope must be negative.
    step : float
        The first step to try, > 0.
    c1, c2 : float
        The constants of the two conditions, 0 < c1 < c2 < 1.
    max_evaluations : int
        Maximum number of calls of ``evaluate``.
    min_width : float
        The search ends when the bracket is narrower than this.

    Returns
    -------
    Point
        A point that satisfies both conditions. If none was found within the limits, the lowest
        point of the bracket with sufficient decrease, or ``start`` if there is none.

    Examples
    --------
    >>> def evaluate(t):
    ...     return Point(t, (t - 3.0) ** 2, 2.0 * (t - 3.0))
    >>> round(strong_wolfe(evaluate, evaluate(0.0), 1.0).step, 12)
    1.0
    """

    def too_high(point: Point) -> bool:
        return not point.value <= start.value + c1 * point.step * start.slope

    def flat(point: Point) -> bool:
        return abs(point.slope) <= -c2 * start.slope

    previous, evaluations = start, 0
    while True:  # grow
        point = evaluate(step)
        evaluations += 1
        if too_high(point) or (evaluations > 1 and point.value >= previous.value):
            low, high = previous, point
            break
        if flat(point):
            return point
        if point.slope >= 0.0:
            low, high = point, previous
            break
        if evaluations == max_evaluations:
            return point
        bounds = (point.step + 0.01 * (point.step - previous.step), 10.0 * point.step)
        previous, step = point, _cubic_minimum(previous, point, bounds)

    # `low` has sufficient decrease (or is the start) and its slope points towards `high`.
    crowded = False
    while evaluations < max_evaluations and abs(high.step - low.step) > min_width:  # shrink
        step, crowded = _inside(low, high, crowded)
        point = evaluate(step)
        evaluations += 1
        if too_high(point) or point.value >= low.value:
            high = point
            continue
        if flat(point):
            return point
        if point.slope * (high.step - low.step) >= 0.0:
            high = low
        low = point
    return low


def _inside(low: Point, high: Point, crowded: bool) -> tuple[float, bool]:
    """Return the next trial step between two bracket points, away from their ends.

    If two steps in a row fall within a tenth of an end, interpolation is stuck there, and the
    second is moved away from it.
    """
    left, right = min(low.step, high.step), max(low.step, high.step)
    if not math.isfinite(high.value):
        return 0.5 * (left + right), False
    first, second = (low, high) if low.step <= high.step else (high, low)
    step = _cubic_minimum(first, second, (left, right))
    margin = 0.1 * (right - left)
    if min(right - step, step - left) >= margin:
        return step, False
    if crowded or step >= right or step <= left:
        near_right = abs(step - right) < abs(step - left)
        return (right - margin if near_right else left + margin), False
    return step, True


def _cubic_minimum(a: Point, b: Point, bounds: tuple[float, float]) -> float:
    """Return the minimum of the cubic through two points, a.step < b.step, cut to the bounds."""
    d1 = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.step - b.step)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0.0:
        return 0.5 * (bounds[0] + bounds[1])
    d2 = math.sqrt(square)
    denominator = b.slope - a.slope + 2.0 * d2
    if denominator == 0.0:
        return 0.5 * (bounds[0] + bounds[1])
    step = b.step - (b.step - a.step) * (b.slope + d2 - d1) / denominator
    return min(max(step, bounds[0]), bounds[1])
