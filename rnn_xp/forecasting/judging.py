"""Scores of forecasts in comparison with the baselines, and sentences about them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnn_xp.data.windows import make_windows
from rnn_xp.forecasting import baselines, metrics

__all__ = [
    "Score",
    "baseline_forecasts",
    "compare",
    "follows_last_value",
    "measures",
    "score_table",
    "verdict",
]

_LEVEL = 0.98  # times the RMSE of another forecast: what is not below counts as no better

_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Score:
    """Errors of one forecast on the test part, in original units.

    ``skill`` is 1 - RMSE / RMSE of persistence; ``rmse_per_step`` has one value for each step of
    the horizon. `rnn_xp.metrics` defines the scores. An undefined score is None, such as the skill
    if persistence has no error.
    """

    name: str
    rmse: float
    mae: float
    mase: float | None
    skill: float | None
    r2: float | None
    bias: float
    rmse_per_step: tuple[float, ...]


def compare(
    truth: _Floats,
    forecasts: Mapping[str, _Floats],
    train: _Floats | Sequence[tuple[int, _Floats]],
) -> list[Score]:
    """Score forecasts of the same targets.

    Parameters
    ----------
    truth : ndarray (N, horizon)
        True values, in original units.
    forecasts : mapping of str to ndarray (N, horizon)
        Forecasts in original units. They must include ``"persistence"``, against which skill is
        measured.
    train : ndarray (n,), or sequence of (int, ndarray (n,))
        The training part, whose mean absolute change is the unit of MASE. If the rows belong to
        several series, one after the other: the number of rows and the training part of each
        series.

    Returns
    -------
    list of Score
        One for each forecast, in the order of ``forecasts``.
    """
    reference, scores = forecasts["persistence"], []
    trains = [(len(truth), train)] if isinstance(train, np.ndarray) else train
    for name, forecast in forecasts.items():
        values = measures(truth, forecast, reference, trains)
        scores.append(
            Score(
                name=name,
                rmse=values["rmse"],
                mae=values["mae"],
                mase=values.get("mase"),
                skill=values.get("skill"),
                r2=values.get("r2"),
                bias=values["bias"],
                rmse_per_step=tuple(
                    metrics.rmse(truth[:, k], forecast[:, k]) for k in range(truth.shape[1])
                ),
            )
        )
    return scores


def measures(
    truth: _Floats, forecast: _Floats, persistence: _Floats, trains: Sequence[tuple[int, _Floats]],
    bounds: tuple[_Floats, ...] | None = None, level: float | None = None,
) -> dict[str, float]:  # fmt: skip
    """Return all metrics of `rnn_xp.forecasting.metrics` that are defined for these values."""
    defined: dict[str, Callable[[], float]] = {
        "rmse": lambda: metrics.rmse(truth, forecast),
        "mae": lambda: metrics.mae(truth, forecast),
        "mase": lambda: _pooled_mase(truth, forecast, trains),
        "skill": lambda: metrics.skill(truth, forecast, persistence),
        "r2": lambda: metrics.r2(truth, forecast),
        "bias": lambda: metrics.bias(truth, forecast),
        "smape": lambda: metrics.smape(truth, forecast),
    }
    if bounds is not None and level is not None:
        low, high = bounds
        half = (1.0 - level) / 2.0
        defined |= {
            "coverage": lambda: metrics.coverage(truth, low, high),
            "width": lambda: metrics.width(low, high),
            "pinball": lambda: (
                0.5 * (metrics.pinball(truth, low, half) + metrics.pinball(truth, high, 1.0 - half))
            ),
        }
    values = {}
    for name, metric in defined.items():
        with contextlib.suppress(ValueError):  # such as smape of values that are not positive
            values[name] = metric()
    return values


def _pooled_mase(truth: _Floats, forecast: _Floats, trains: Sequence[tuple[int, _Floats]]) -> float:
    """Return the mean over all rows of the errors, each in units of its series' mean change."""
    total, first = 0.0, 0
    for rows, train in trains:
        part = slice(first, first + rows)
        total += rows * metrics.mase(truth[part], forecast[part], train)
        first += rows
    return total / first


def baseline_forecasts(
    levels: _Floats, train: int, origins: NDArray[np.intp], seq_length: int, steps: int
) -> dict[str, _Floats]:
    """Return baseline forecasts (M, steps), made from the values before each origin.

    The baselines are fitted on the first ``train`` rows. The seasonal baseline is included if these
    rows suggest a period.
    """
    windows = sliding_window_view(levels, seq_length)[origins - seq_length][:, :, None]
    seen = levels[:train]
    forecasts = {
        "persistence": baselines.persistence(windows, steps),
        "drift": baselines.drift(windows, seen, steps),
        "mean": baselines.mean(seen, len(origins), steps),
    }
    if (period := baselines.suggest_period(seen)) is not None and period <= origins[0]:
        known = levels[: origins[-1] + steps]
        every = baselines.seasonal(known, int(origins[0]), period, steps)
        forecasts[f"seasonal({period})"] = every[origins - origins[0]]
    if train >= seq_length + steps:
        lags = baselines.best_lags(seen, seq_length)
        x, y = make_windows(seen, lags, steps)
        model = baselines.fit_linear_ar(x, y)
        forecasts[f"linear AR({seq_length})"] = model.predict(windows[:, -lags:])
    return forecasts


def verdict(scores: list[Score]) -> str:
    """Return a sentence that compares the last forecast with the baselines before it.

    An RMSE within 2 % of another counts as level with it.
    """
    *others, model = scores
    best = min(others, key=lambda score: score.rmse)
    if best.rmse == 0.0:
        return f"{best.name} makes no error here: there is nothing to learn"
    ratio = model.rmse / best.rmse
    if ratio <= _LEVEL:
        return f"{model.name} beats {best.name} by {100 * (1 - ratio):.1f} % of RMSE"
    if ratio < 1.02:
        return f"{model.name} is level with {best.name} (RMSE ratio {ratio:.3f})"
    return f"{model.name} does NOT beat {best.name}: its RMSE is {ratio:.3f} times as large"


def score_table(scores: list[Score], unit: str = "") -> list[str]:
    """Return the lines of a table of RMSE and MAE (in the unit of the series), MASE and skill."""
    width = max(len(score.name) for score in scores)
    of_unit = f" {unit}" if unit else ""
    columns = [f"RMSE{of_unit}", f"MAE{of_unit}", "MASE", "skill"]
    lines = [f"{'test':{width}}  " + "  ".join(f"{name:>9}" for name in columns)]
    for score in scores:
        cells = [
            f"{score.rmse:.4f}",
            f"{score.mae:.4f}",
            "-" if score.mase is None else f"{score.mase:.3f}",
            "-" if score.skill is None else f"{round(100 * score.skill, 1) + 0.0:.1f} %",
        ]
        lines.append(
            f"{score.name:{width}}  "
            + "  ".join(f"{c:>{max(9, len(n))}}" for c, n in zip(cells, columns, strict=True))
        )
    return lines


def follows_last_value(name: str, forecast: _Floats, truth: _Floats, last: _Floats) -> str:
    """Return a warning if a forecast merely repeats the last value, one step late.

    This is the case if the forecast of the first step is closer to the last known value than to the
    true value, and its error is not smaller than that of the last value itself by 2 % or more. Such
    a forecast looks right in a plot over time, but lags behind. Correlations of levels cannot tell:
    along a trend, both are nearly 1.

    Parameters
    ----------
    name : str
        Name of the model, for the sentence.
    forecast, truth : ndarray (N, horizon)
        Values in original units.
    last : ndarray (N,)
        The last known value at the origin of each forecast.

    Returns
    -------
    str
        A sentence; empty if there is nothing to warn about.
    """
    first, ahead = forecast[:, 0], truth[:, 0]
    if min(np.ptp(first), np.ptp(last), np.ptp(ahead)) == 0.0:
        return ""
    behind, error = metrics.rmse(last, first), metrics.rmse(ahead, first)
    if behind >= error or error <= _LEVEL * metrics.rmse(ahead, last):
        return ""
    return (
        f"{name} repeats the last value: its forecast is closer to the value before (RMSE "
        f"{behind:.2g}) than to the one it is of ({error:.2g}), and no better than that value"
    )
