"""Forecasting: `Forecaster` for whatever people have; one series split and judged.

- `forecaster`: the class people use; `panel` reads what they give, `design` and `targets` make
  scaled windows of it, `training` and `predictor` are its two halves;
- `intervals`: conformal prediction; `backtest` and `judging`: what forecasts are worth;
- `split`: a series in two parts, as ``rnn-xp train`` takes it.
"""

from rnn_xp.forecasting.backtest import Backtest
from rnn_xp.forecasting.forecaster import Forecaster
from rnn_xp.forecasting.judging import (
    Score,
    compare,
    follows_last_value,
    score_table,
    verdict,
)
from rnn_xp.forecasting.split import SplitSeries, split_series

__all__ = [
    "Backtest",
    "Forecaster",
    "Score",
    "SplitSeries",
    "compare",
    "follows_last_value",
    "score_table",
    "split_series",
    "verdict",
]
