"""Forecasts from successive origins, and their scores in comparison with the baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.data.scalers import range_warning
from rnn_xp.forecasting.adapting import adapted_bounds, errors_of
from rnn_xp.forecasting.design import Design
from rnn_xp.forecasting.gaps import fill_forward
from rnn_xp.forecasting.intervals import conformal_radii
from rnn_xp.forecasting.judging import (
    Score,
    baseline_forecasts,
    compare,
    follows_last_value,
    measures,
    score_table,
    verdict,
)
from rnn_xp.forecasting.panel import Panel
from rnn_xp.forecasting.predictor import Predictor
from rnn_xp.forecasting.prepared import Prepared, prepare
from rnn_xp.forecasting.settings import Settings

__all__ = [
    "Backtest",
    "Judged",
    "as_dict",
    "chained",
    "judge",
    "judge_forecasts",
    "make_judged",
    "origins_of",
    "row_of",
    "run",
]

_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Judged:
    """Forecasts of one series.

    Attributes
    ----------
    name : str
    origins : ndarray (M,)
        The first row of each forecast; all rows before it were known.
    truth, forecast : ndarray (M, steps)
        True and forecast values, in original units.
    low, high : ndarray (M, steps) or None
        Prediction intervals.
    baselines : dict of str to ndarray (M, steps)
    train : ndarray (n,)
        The training part, with gaps filled.
    warning : str
        A sentence if the forecast part leaves the range of the training part, else empty.
    """

    name: str
    origins: NDArray[np.intp]
    truth: _Floats
    forecast: _Floats
    low: _Floats | None
    high: _Floats | None
    baselines: dict[str, _Floats]
    train: _Floats
    warning: str


@dataclass(frozen=True, repr=False)
class Backtest:
    """Scores of forecasts; ``print`` shows them as a table.

    Attributes
    ----------
    series : tuple of Judged
    scores : list of Score
        Scores of the baselines and, last, of the network. Several series are pooled, with the
        errors of each divided by the standard deviation of its training part.
    metrics : dict of str to float
        Metrics of the network: rmse, mae, mase, skill, r2, bias; smape if all values are positive;
        with intervals also coverage, width, and the mean pinball loss of their two ends.
    per_step : dict of str to list of float
        The same metrics for each step.
    verdict : str
        A sentence that compares the network with the baselines.
    notes : list of str
        Warnings about the data and the forecasts.
    level : float or None
        Nominal coverage of the intervals.
    """

    series: tuple[Judged, ...]
    scores: list[Score]
    metrics: dict[str, float]
    per_step: dict[str, list[float]]
    verdict: str
    notes: list[str] = field(default_factory=list)
    level: float | None = None

    def __repr__(self) -> str:
        """Return the verdict in one line; ``print`` shows the table."""
        return f"<Backtest of {len(self.series)} series: {self.verdict}>"

    def __str__(self) -> str:
        only = self.series[0] if len(self.series) == 1 else None
        steps = self.series[0].truth.shape[1]
        what = f"{len(self.series[0].origins)} forecasts of {steps} step{'s' * (steps > 1)}"
        unit = "" if only else " (errors in standard deviations)"
        title = f"{what}{'' if only else f', {len(self.series)} series'}{unit}"
        return "\n".join([title, *self.table(), *(f"note     {n}" for n in self.notes)])

    def table(self, unit: str = "") -> list[str]:
        """Return lines of the scores, the intervals and the verdict.

        Parameters
        ----------
        unit : str
            Unit of the series.
        """
        lines = score_table(self.scores, unit)
        if self.level is not None:
            measured = "its ends cross, so nothing can be covered"
            if "coverage" in self.metrics:
                covered, width = 100 * self.metrics["coverage"], self.metrics["width"]
                measured = f"covers {covered:.1f} %, mean width {width:.4g}"
            lines.append(f"interval {100 * self.level:g} %: {measured}")
        return [*lines, f"verdict  {self.verdict}"]


def judge(parts: tuple[Judged, ...], name: str, level: float | None) -> Backtest:
    """Score the forecasts of one series, or of several series together."""
    if not parts:
        raise ValueError("there are no values, or none without a gap, to judge forecasts by.")
    scales = [1.0] if len(parts) == 1 else [float(np.std(part.train)) or 1.0 for part in parts]

    def pooled(arrays: list[_Floats]) -> _Floats:
        return np.concatenate([a / s for a, s in zip(arrays, scales, strict=True)])

    shared = [b for b in parts[0].baselines if all(b in part.baselines for part in parts)]
    forecasts = {b: pooled([part.baselines[b] for part in parts]) for b in shared}
    forecasts[name] = pooled([part.forecast for part in parts])
    truth = pooled([part.truth for part in parts])
    # Each series by itself: the step from the end of one to the start of the next is no change.
    trains = [(len(part.truth), part.train / s) for part, s in zip(parts, scales, strict=True)]
    scores = compare(truth, forecasts, trains)
    bounds: tuple[_Floats, ...] | None = None
    if level is not None:
        bounds = tuple(pooled([getattr(p, side) for p in parts]) for side in ("low", "high"))
    judged, reference = forecasts[name], forecasts["persistence"]
    whole = measures(truth, judged, reference, trains, bounds, level)
    columns = []
    for k in range(truth.shape[1]):
        ends = bounds and tuple(bound[:, k] for bound in bounds)
        columns.append(measures(truth[:, k], judged[:, k], reference[:, k], trains, ends, level))
    shared_keys = [key for key in whole if all(key in column for column in columns)]
    per_step = {key: [column[key] for column in columns] for key in shared_keys}
    last = pooled([part.baselines["persistence"][:, 0] for part in parts])
    notes = [follows_last_value(name, forecasts[name], truth, last)]
    notes += [
        part.warning if len(parts) == 1 else f"{part.name}: {part.warning}"
        for part in parts
        if part.warning
    ]
    return Backtest(
        parts, scores, whole, per_step, verdict(scores), [note for note in notes if note], level
    )


def make_judged(
    name: str,
    levels: _Floats,
    train: int,
    origins: NDArray[np.intp],
    forecast: _Floats,
    bounds: tuple[_Floats, _Floats] | None,
    seq_length: int,
) -> Judged:
    """Combine forecasts of a series with the truth and the baselines."""
    steps = forecast.shape[1]
    low, high = bounds if bounds is not None else (None, None)
    part = levels[origins[0] : origins[-1] + steps]
    return Judged(
        name, origins, levels[origins[:, None] + np.arange(steps)], forecast, low, high,
        baseline_forecasts(levels, train, origins, seq_length, steps), levels[:train],
        range_warning(levels[:train], part) or "",
    )  # fmt: skip


def as_dict(result: Backtest) -> dict[str, Any]:
    """Return a backtest as a dict that JSON can hold."""
    scores: list[Mapping[str, Any]] = [vars(score) for score in result.scores]
    return {
        "scores": scores, "metrics": result.metrics, "per_step": result.per_step,
        "verdict": result.verdict, "notes": result.notes, "level": result.level,
    }  # fmt: skip


def judge_forecasts(
    settings: Settings,
    predictor: Predictor,
    panel: Panel,
    designs: Sequence[Design],
    starts: Sequence[int],
    stride: int = 1,
    most: int | None = None,
    errors: _Floats | None = None,
    trains: Sequence[int] | None = None,
) -> tuple[Judged, ...]:
    """Forecast from successive rows, and combine the forecasts with the truth.

    Parameters
    ----------
    settings, predictor : of the trained model
    panel, designs : the series to judge it on
    starts, stride, most, trains : as for `rnn_xp.forecasting.fitted.Fitted.judge_rows`
    errors : ndarray (n, horizon), optional
        Errors of earlier forecasts; without them there are no conformal intervals. Adaptive
        intervals are left to `rnn_xp.forecasting.adapting`.

    Returns
    -------
    tuple of Judged
        Series without any row to judge are left out.
    """
    rows = [
        origins_of(column, start, settings.horizon, stride, most)
        for column, start in zip(panel.columns, starts, strict=True)
    ]
    kept = [k for k, origins in enumerate(rows) if len(origins)]
    forecasts = predictor.from_rows(
        [designs[k] for k in kept], [rows[k] for k in kept], settings.horizon
    )
    parts = []
    for k, levels in zip(kept, forecasts, strict=True):
        column, design, origins = panel.columns[k], designs[k], rows[k]
        forecast = levels[:, :, levels.shape[2] // 2]
        bounds: tuple[_Floats, _Floats] | None = None
        if errors is not None and settings.intervals == "quantile":
            bounds = levels[:, :, 0], levels[:, :, -1]
        elif errors is not None and len(errors) and settings.intervals == "split":
            bounds = design.around(forecast, conformal_radii(errors, settings.level))
        parts.append(
            make_judged(
                panel.names[k], fill_forward(column), (trains or starts)[k], origins, forecast,
                bounds, settings.seq_length,
            )
        )  # fmt: skip
    return tuple(parts)


def origins_of(
    column: _Floats, start: int, horizon: int, stride: int, most: int | None = None
) -> NDArray[np.intp]:
    """Return up to ``most`` rows, from ``start`` on, whose next ``horizon`` values are known."""
    stop = len(column) - horizon + 1
    rows = np.arange(start, stop if most is None else min(stop, start + most * stride), stride)
    known = ~np.isnan(column[rows[:, None] + np.arange(horizon)]).any(axis=1)
    origins: NDArray[np.intp] = rows[known]
    return origins


def row_of(start: float | int, rows: int) -> int:
    """Return the first row of the part to forecast."""
    if isinstance(start, bool) or not isinstance(start, int | float):
        raise TypeError(f"start must be a share or a row, got {start!r}.")
    row = int(start * rows) if isinstance(start, float) else start
    if not 0 < row < rows:
        raise ValueError(f"start={start!r} must be a share in (0, 1) or a row in 1..{rows - 1}.")
    return row


def chained(parts: list[Judged]) -> Judged:
    """Join the forecasts that successively trained networks made of one series."""
    first = parts[0]
    names = [name for name in first.baselines if all(name in part.baselines for part in parts)]

    def joined(arrays: list[Any]) -> Any:
        return None if arrays[0] is None else np.concatenate(arrays)

    return Judged(
        first.name, joined([p.origins for p in parts]), joined([p.truth for p in parts]),
        joined([p.forecast for p in parts]), joined([p.low for p in parts]),
        joined([p.high for p in parts]),
        {name: joined([p.baselines[name] for p in parts]) for name in names}, first.train,
        first.warning,
    )  # fmt: skip


def run(
    settings: Settings, fit: Callable[[Prepared], Any], panel: Panel, tables: Any,
    starts: list[int], stride: int, every: int | None,
) -> Backtest:  # fmt: skip
    """Train forecasters and score them, see `rnn_xp.Forecaster.backtest`.

    Adaptive intervals go on from one training to the next: they adapt to the errors of all
    forecasts that were made so far, whichever network made them.

    Parameters
    ----------
    settings : Settings
    fit : callable
        ``fit(prepared)`` trains, and returns a `rnn_xp.forecasting.fitted.Fitted`.
    panel : Panel
    tables : past and future features of each series
    starts : list of int
        First row to forecast of each series.
    stride : int
        Number of steps between two origins.
    every : int or None
        Number of origins between two trainings; None to train once.

    Returns
    -------
    Backtest
    """
    past, future = _features(panel, tables)

    def trained_before(ends: list[int]) -> Any:
        seen = [
            kind and {n: kind[n][:end] for n, end in zip(panel.names, ends, strict=True)}
            for kind in (past, future)
        ]
        return fit(prepare(settings, panel.before(ends), *seen))

    if every is None:
        once: Backtest = trained_before(starts).evaluate_rows(panel, past, future, starts, stride)
        return once
    pieces: dict[str, list[Judged]] = {}
    errors: list[list[_Floats]] = [[] for _ in panel.names]
    first: Any = None
    rows = max(
        len(column) - settings.horizon + 1 - at
        for at, column in zip(starts, panel.columns, strict=True)
    )
    for done in range(0, rows, every * stride):
        ends = [at + done for at in starts]
        fitted = trained_before(ends)
        first = fitted if first is None else first
        parts = fitted.judge_rows(panel, past, future, ends, stride, every, adapt=False)
        for part in parts:
            pieces.setdefault(part.name, []).append(part)
        if settings.intervals == "adaptive":
            for k, design in enumerate(fitted.designs_of(panel, past, future)):
                column, unit = panel.columns[k], design.unit / first.designs[k].unit
                made = np.arange(ends[k], max(min(ends[k] + every * stride, len(column)), ends[k]))
                new = errors_of(fitted.predictor, column, design, made, settings.horizon)
                errors[k].append(unit * new)
    whole = {name: chained(parts) for name, parts in pieces.items()}
    if settings.intervals == "adaptive":
        for k, name in enumerate(panel.names):
            if name in whole:
                low, high = adapted_bounds(
                    whole[name].forecast, whole[name].origins, starts[k], first.errors,
                    np.concatenate(errors[k]), settings.level, first.designs[k],
                )  # fmt: skip
                whole[name] = dataclasses.replace(whole[name], low=low, high=high)
    level = None if settings.intervals is None else settings.level
    return judge(tuple(whole.values()), settings.cell, level)


def _features(panel: Panel, tables: tuple[list[Any], list[Any]]) -> list[Mapping[str, Any] | None]:
    """Return features in the form that `rnn_xp.Forecaster.fit` takes."""
    past, future = tables
    past = [table[:, : table.shape[1] - panel.statics] for table in past]
    return [
        dict(zip(panel.names, kind, strict=True)) if kind[0].shape[1] else None
        for kind in (past, future)
    ]
