"""Forecasting: series in, judged forecasts out; metrics and baselines.

- `forecaster`: the class people use; `panel`, `long` and `static` read what they give, `gaps`,
  `targets` and `design` make scaled windows of it, `prepared`, `training` and `trainings` train on
  them;
- `fitted`: what the trainings leave, which `predictor` forecasts with and `files` keeps;
- `intervals` and `adapting`: conformal prediction; `backtest`, `judging`, `metrics` and
  `baselines`: what forecasts are worth.
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
from rnn_xp.forecasting.long import from_long

__all__ = [
    "Backtest",
    "Forecaster",
    "Score",
    "compare",
    "follows_last_value",
    "from_long",
    "score_table",
    "verdict",
]
