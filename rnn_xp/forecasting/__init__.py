"""Forecasting: series in, judged forecasts out; metrics and baselines.

- `forecaster`: the class people use; `panel` reads what they give, `design` and `targets` make
  scaled windows of it, `prepared` and `training` train on them;
- `fitted`: what a training leaves, which `predictor` forecasts with and `files` keeps;
- `intervals`: conformal prediction; `backtest`, `judging`, `metrics` and `baselines`: what
  forecasts are worth.
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

__all__ = [
    "Backtest",
    "Forecaster",
    "Score",
    "compare",
    "follows_last_value",
    "score_table",
    "verdict",
]
