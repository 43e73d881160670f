"""The series of the comparison of forecasters, and series of known processes."""

from __future__ import annotations

import numpy as np

from benchmarks.coverage import SERIES

__all__ = ["PROCESSES", "SEASONS", "SERIES"]

# The steps of a year or, of yearly and daily records, 1. `Forecaster` is told none of them.
SEASONS = {
    "airline": 12, "lynx": 1, "sunspots": 1, "co2": 52, "realgdp": 4, "unemployment": 4,
    "elnino": 12, "length_of_day": 1,
}  # fmt: skip


def _regression(rng, rows, *coefficients):
    """An autoregression, after 200 rows that are not shown."""
    z = [0.0] * len(coefficients)
    for _ in range(rows + 200):
        z.append(float(np.dot(coefficients, z[: -len(coefficients) - 1 : -1])) + rng.normal())
    return np.asarray(z[-rows:])


def _monthly(rng, rows):
    season = 0.15 * rng.standard_normal(12)[np.arange(rows) % 12]
    wander = np.cumsum(0.003 + 0.02 * rng.standard_normal(rows))
    return np.exp(5.0 + season + wander + 0.03 * rng.standard_normal(rows))


PROCESSES = {
    "noise": lambda rng, rows: rng.standard_normal(rows),
    "AR(1)": lambda rng, rows: _regression(rng, rows, 0.8),
    "AR(2) with a cycle": lambda rng, rows: _regression(rng, rows, 1.4, -0.8),
    "random walk": lambda rng, rows: np.cumsum(rng.standard_normal(rows)),
    "random walk with drift": lambda rng, rows: np.cumsum(0.3 + rng.standard_normal(rows)),
    "AR(1) of changes": lambda rng, rows: np.cumsum(0.5 + _regression(rng, rows, 0.6)),
    "growth by shares": lambda rng, rows: np.exp(np.cumsum(0.008 + 0.01 * rng.normal(size=rows))),
    "monthly, growing": _monthly,
    "walk of changing volatility": lambda rng, rows: np.cumsum(
        np.exp(0.2 * _regression(rng, rows, 0.95)) * rng.standard_normal(rows)
    ),
}
"""Functions ``(generator, rows) -> values`` by name."""
