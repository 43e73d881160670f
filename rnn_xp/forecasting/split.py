"""One series made ready for training: split, scaled and cut into windows.

The order is fixed because it keeps the test part unseen: split in time first, fit the scaler on
the training part alone, then cut windows from each part by itself, so that no window straddles
the split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import ParameterError
from rnn_xp.data.datasets import Series
from rnn_xp.data.scalers import Scaler, fit_scaler, range_warning
from rnn_xp.data.windows import make_windows, time_split
from rnn_xp.forecasting.judging import baseline_forecasts

__all__ = ["SplitSeries", "split_series"]

_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class SplitSeries:
    """A series made ready for training and for judging what was trained.

    Attributes
    ----------
    series : Series
    seq_length, horizon : int
        T, and how many steps ahead each window is to forecast.
    scaler : Scaler
        Fitted on the training part.
    train, test : ndarray
        The two parts, in original units.
    x, y : ndarray
        Scaled training windows (N, T, 1) and targets (N, horizon), read-only views.
    x_test, y_test : ndarray
        The same of the test part, scaled.
    warning : str
        Says if the test part leaves the range of the training part; empty otherwise.
    """

    series: Series
    seq_length: int
    horizon: int
    scaler: Scaler
    train: _Floats
    test: _Floats
    x: _Floats
    y: _Floats
    x_test: _Floats
    y_test: _Floats
    warning: str

    def truth(self) -> _Floats:
        """Test targets (N, horizon) in original units."""
        return make_windows(self.test, self.seq_length, self.horizon)[1]

    def last_values(self) -> _Floats:
        """Last value (N,) of each test window, in original units."""
        return make_windows(self.test, self.seq_length, self.horizon)[0][:, -1, 0]

    def baselines(self) -> dict[str, _Floats]:
        """Forecasts of the test part (N, horizon) in original units that any model must beat.

        The seasonal one is there if the training part suggests a period.
        """
        first = len(self.train) + self.seq_length
        origins = first + np.arange(len(self.y_test))
        whole = np.concatenate([self.train, self.test])
        return baseline_forecasts(whole, len(self.train), origins, self.seq_length, self.horizon)

    def target_dates(self) -> list[str]:
        """Date of each test window's first target, or its index in the series if undated."""
        first = len(self.train) + self.seq_length
        indices = range(first, first + len(self.y_test))
        dates = self.series.dates
        return [dates[i] if dates is not None else str(i) for i in indices]


def split_series(
    series: Series,
    *,
    seq_length: int,
    horizon: int = 1,
    train_fraction: float = 0.8,
    scaler: str = "standard",
    dtype: str = "float32",
) -> SplitSeries:
    """Split a series in time, scale it and cut it into windows.

    Parameters
    ----------
    series : Series
    seq_length, horizon : int
        At least 1 each.
    train_fraction : float
        In (0, 1).
    scaler : {"standard", "minmax", "none"}
    dtype : {"float32", "float64"}
        Of the scaled windows.

    Returns
    -------
    SplitSeries

    Examples
    --------
    >>> from rnn_xp import datasets
    >>> split = split_series(datasets.load("length_of_day"), seq_length=10)
    >>> split.x.shape, split.x_test.shape
    ((8317, 10, 1), (2072, 10, 1))
    """
    train, test = time_split(series.values, train_fraction)
    fitted = fit_scaler(scaler, train)
    # Cast the short series and not its windows, which would be T times the memory.
    x, y = make_windows(fitted.transform(train).astype(dtype), seq_length, horizon)
    try:
        x_test, y_test = make_windows(fitted.transform(test).astype(dtype), seq_length, horizon)
    except ParameterError as error:
        raise error.within(f"the test part of {len(test)} values is too short: ") from error
    warning = range_warning(train, test) or ""
    return SplitSeries(
        series, seq_length, horizon, fitted, train, test, x, y, x_test, y_test, warning
    )
