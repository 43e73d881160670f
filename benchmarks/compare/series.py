"""The series of the comparison of forecasters, with the seasons that the peers are told."""

from __future__ import annotations

from benchmarks.coverage import SERIES

__all__ = ["SEASONS", "SERIES"]

# The steps of a year or, of yearly and daily records, 1. `Forecaster` is told none of them.
SEASONS = {
    "airline": 12, "lynx": 1, "sunspots": 1, "co2": 52, "realgdp": 4, "unemployment": 4,
    "elnino": 12, "length_of_day": 1,
}  # fmt: skip
