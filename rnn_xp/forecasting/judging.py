"""What a forecast is worth: scores beside the baselines, and plain words about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp import metrics

__all__ = ["Score", "compare", "follows_last_value", "score_table", "verdict"]

_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Score:
    """Errors of one forecast on the test part, in original units.

    ``skill`` is 1 - RMSE / RMSE of persistence; ``rmse_per_step`` has one value for each step of
    the horizon. Definitions: `rnn_xp.metrics`. None where a score is not defined, such as the
    skill beside a persistence without error.
    """

    name: str
    rmse: float
    mae: float
    mase: float | None
    skill: float | None
    r2: float | None
    bias: float
    rmse_per_step: tuple[float, ...]


def compare(truth: _Floats, forecasts: Mapping[str, _Floats], train: _Floats) -> list[Score]:
    """Score forecasts of the same targets.

    Parameters
    ----------
    truth : ndarray (N, horizon)
        In original units.
    forecasts : mapping of str to ndarray (N, horizon)
        In original units; must have ``"persistence"``, against which skill is measured.
    train : ndarray (n,)
        The training part, whose changes MASE is measured by.

    Returns
    -------
    list of Score
        In the order given.
    """
    reference = forecasts["persistence"]
    return [
        Score(
            name=name,
            rmse=metrics.rmse(truth, forecast),
            mae=metrics.mae(truth, forecast),
            mase=_if_defined(metrics.mase, truth, forecast, train),
            skill=_if_defined(metrics.skill, truth, forecast, reference),
            r2=_if_defined(metrics.r2, truth, forecast),
            bias=metrics.bias(truth, forecast),
            rmse_per_step=tuple(
                metrics.rmse(truth[:, k], forecast[:, k]) for k in range(truth.shape[1])
            ),
        )
        for name, forecast in forecasts.items()
    ]


def verdict(scores: list[Score]) -> str:
    """Say in plain words whether the last forecast beats the baselines before it.

    Within 2 % of RMSE counts as level.
    """
    *others, model = scores
    best = min(others, key=lambda score: score.rmse)
    if best.rmse == 0.0:
        return f"{best.name} makes no error here: there is nothing to learn"
    ratio = model.rmse / best.rmse
    if ratio <= 0.98:
        return f"{model.name} beats {best.name} by {100 * (1 - ratio):.1f} % of RMSE"
    if ratio < 1.02:
        return f"{model.name} is level with {best.name} (RMSE ratio {ratio:.3f})"
    return f"{model.name} does NOT beat {best.name}: its RMSE is {ratio:.3f} times as large"


def score_table(scores: list[Score], unit: str = "") -> list[str]:
    """Lines of a table: RMSE and MAE in the unit of the series, MASE, and skill."""
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
    """Say so if a forecast is no more than the last value, one step late.

    It is if the forecast of the first step correlates more with the value that was known when it
    was made than with the value that came: drawn over time it looks right, and runs behind.

    Parameters
    ----------
    name : str
        Of the model, for the sentence.
    forecast, truth : ndarray (N, horizon)
        In original units.
    last : ndarray (N,)
        The last value that was known when each forecast was made.

    Returns
    -------
    str
        A sentence, or nothing.
    """
    first = forecast[:, 0]
    if min(np.ptp(first), np.ptp(last), np.ptp(truth[:, 0])) == 0.0:
        return ""
    behind, ahead = (float(np.corrcoef(first, other)[0, 1]) for other in (last, truth[:, 0]))
    if behind <= ahead:
        return ""
    return (
        f"{name} repeats the last value: its forecast correlates more with the value before "
        f"({behind:.4f}) than with the one it is of ({ahead:.4f})"
    )


def _if_defined(metric: Callable[..., float], *arguments: _Floats) -> float | None:
    """A constant truth or a perfect reference leaves some metrics without a meaning."""
    try:
        return metric(*arguments)
    except ValueError:
        return None
