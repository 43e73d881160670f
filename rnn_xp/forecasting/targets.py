"""Targets of a network: the level of a series, its logarithm, or the changes of either.

::

    level    z[t] = v[t]
    log      z[t] = log v[t]                   v[t+j] = exp(z[t+j])
    diff     z[t] = v[t] - v[t-1]              v[t+j] = v[t] + z[t+1] + ... + z[t+j]
    logret   z[t] = log v[t] - log v[t-1]      v[t+j] = v[t] * exp(z[t+1] + ... + z[t+j])

A saturating network cannot follow a trend beyond the range of its training data, but the changes of
a trending series stay within their range.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError

__all__ = ["TARGETS", "from_target", "in_logs", "levels_of", "offset_of", "to_target"]

TARGETS = ("level", "diff", "log", "logret")

_Floats = NDArray[np.float64]


def offset_of(kind: str) -> int:
    """Return the number of rows that are lost at the start: 1 for changes, else 0."""
    return int(kind in ("diff", "logret"))


def levels_of(kind: str) -> str:
    """Return the target whose changes are forecast: "level" or "log"."""
    return "log" if in_logs(kind) else "level"


def in_logs(kind: str) -> bool:
    """Return True for logarithms and their changes, whose errors are shares of the level."""
    return kind in ("log", "logret")


def to_target(kind: str, values: _Floats) -> _Floats:
    """Turn a series (n,) into targets: (n,) for "level" and "log", otherwise (n - 1,).

    Raises
    ------
    ValueError
        If a value has no logarithm.

    Examples
    --------
    >>> to_target("diff", np.asarray([1.0, 4.0, 2.0])).tolist()
    [3.0, -2.0]
    """
    if kind == "level":
        return values
    if kind == "diff":
        return np.diff(values)
    if not (values > 0.0).all():
        raise ParameterError(
            "{0} needs positive values: "
            + ("a logarithm" if kind == "log" else "a logarithmic return")
            + " of a value that is zero or negative has no meaning. Use {1}.",
            Argument("target", kind),
            Argument("target", "level" if kind == "log" else "diff"),
        )
    logs: _Floats = np.log(values)
    return logs if kind == "log" else np.diff(logs)


def from_target(kind: str, z: _Floats, last: _Floats) -> _Floats:
    """Turn forecasts (N, steps) of z into levels, given the last known levels (N,).

    >>> from_target("diff", np.asarray([[3.0, -2.0]]), np.asarray([1.0])).tolist()
    [[4.0, 2.0]]
    """
    if kind == "level":
        return z
    if kind == "log":
        return np.exp(z)
    change = np.cumsum(z, axis=1)
    return last[:, None] + change if kind == "diff" else last[:, None] * np.exp(change)
