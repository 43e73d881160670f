"""A trained model: networks, scalers and errors, and the settings of the training.

A `Fitted` is frozen: later changes to the `Forecaster` that holds it do not alter its forecasts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError
from rnn_xp._typing import Params
from rnn_xp.backend import Backend
from rnn_xp.forecasting.adapting import adapted_bounds, errors_of, waiting
from rnn_xp.forecasting.backtest import (
    Backtest,
    Judged,
    judge,
    judge_forecasts,
)
from rnn_xp.forecasting.design import Design, make_design
from rnn_xp.forecasting.intervals import (
    adaptive_radii,
    check_enough,
    check_level,
    conformal_radii,
    read_levels,
)
from rnn_xp.forecasting.panel import Panel
from rnn_xp.forecasting.predictor import Predictor
from rnn_xp.forecasting.prepared import Prepared
from rnn_xp.forecasting.settings import Settings, check_ahead, check_data
from rnn_xp.network import Network

__all__ = ["ALONE", "Fitted", "NotFittedError", "finish", "make_predictor", "unjudged"]

ALONE = "the linear path alone forecasts: on the validation part the {} earned nothing beside it"
"""A remark on forecasts, about the name of a cell."""

_Floats = NDArray[np.float64]


class NotFittedError(ValueError, AttributeError):
    """Raised when a `Forecaster` is used before it is fitted."""


@dataclass(frozen=True)
class Fitted:
    """A trained model at the end of its series.

    Attributes
    ----------
    settings : Settings
        Settings of the training.
    predictor : Predictor
        The networks.
    panel : Panel
        The series that forecasts continue.
    designs : tuple of Design
        Each series with its fitted scaler.
    rows : tuple of int
        Number of training rows of each series.
    errors : ndarray (n, horizon)
        Absolute errors on the validation part, in the unit of each series.
    later : tuple of ndarray (M, horizon)
        For adaptive intervals: absolute errors, in its unit, of the forecasts from every row of
        each series after its training rows; NaN where the true value is missing or still to come.
    alone : bool
        True if the linear path alone makes the forecasts.
    """

    settings: Settings
    predictor: Predictor
    panel: Panel
    designs: tuple[Design, ...]
    rows: tuple[int, ...]
    errors: _Floats
    later: tuple[_Floats, ...] = ()
    alone: bool = False

    def predict(self, steps: int | None, future: Any) -> Any:
        """Forecast, see `rnn_xp.Forecaster.predict`."""
        ahead = self._ahead(steps, future)
        return self.panel.restore([levels[0, :, levels.shape[2] // 2] for levels in ahead])

    def predict_interval(self, steps: int | None, level: Any, future: Any) -> tuple[Any, Any]:
        """Return interval ends, see `rnn_xp.Forecaster.predict_interval`."""
        settings = self.settings
        if level is not None and np.ndim(level):
            return self._nested(steps, level, future)
        ends = self._ends(steps, settings.level if level is None else level, future)
        low, high = zip(*ends, strict=True)
        return self.panel.restore(low), self.panel.restore(high)

    def _ends(self, steps: int | None, level: float, future: Any) -> list[tuple[Any, Any]]:
        """Return the lower and upper ends of each series."""
        settings = self.settings
        check_level(level)
        if settings.intervals is None:
            raise ParameterError("there are no intervals: {0}.", Argument("intervals", None))
        if settings.intervals == "quantile" and level != settings.level:
            raise ParameterError(
                "quantiles were trained for {0} alone.", Argument("level", settings.level)
            )
        ahead = self._ahead(steps, future)
        count = ahead[0].shape[1]
        if count > settings.horizon:
            raise ParameterError(
                f"intervals reach {settings.horizon} steps, the horizon that errors are known of; "
                "got {0}. Train with a longer {1:name}.",
                Argument("steps", count),
                Argument("horizon", settings.horizon),
            )
        if settings.intervals == "quantile":
            return [(levels[0, :, 0], levels[0, :, -1]) for levels in ahead]
        ends = []
        for k, levels in enumerate(ahead):
            ends.append(self.designs[k].around(levels[0, :, 0], self._radii(k, level)[:count]))
        return ends

    def _nested(self, steps: int | None, levels: Any, future: Any) -> tuple[Any, Any]:
        """Return the ends of intervals of several levels, each within those of higher ones.

        Adaptive intervals of each level adapt by themselves, so one could reach beyond another.
        """
        named = read_levels(levels)
        lows: dict[Any, Any] = {}
        highs: dict[Any, Any] = {}
        inner: Any = None
        for name, share in sorted(named, key=lambda each: each[1]):
            ends = self._ends(steps, share, future)
            if inner is not None:
                ends = [
                    (np.minimum(low, least), np.maximum(high, most))
                    for (low, high), (least, most) in zip(ends, inner, strict=True)
                ]
            inner = ends
            low, high = zip(*ends, strict=True)
            lows[name], highs[name] = self.panel.restore(low), self.panel.restore(high)
        order = [name for name, _ in named]
        return {name: lows[name] for name in order}, {name: highs[name] for name in order}

    def _radii(self, k: int, level: float) -> NDArray[Any]:
        """Return the radii (horizon,) of the intervals at the end of a series, in its unit."""
        if self.settings.intervals == "split":
            return conformal_radii(self.errors, level)
        check_enough(len(self.errors), level)
        horizon = self.settings.horizon
        now = np.full((1, horizon), np.nan)  # of the forecast to be made
        errors = np.concatenate([*self.later[k : k + 1], now])
        wait = waiting(self.designs[k], horizon)
        return np.asarray(adaptive_radii(self.errors, errors, level, wait=wait)[-1])

    def _ahead(self, steps: int | None, future: Any) -> list[_Floats]:
        """Return forecasts (1, steps, Q) of each series from its end."""
        settings, names = self.settings, self.panel.names
        steps, tables = check_ahead(settings, steps, future, self.designs[0], self.panel)
        windows, aheads = [], []
        for name, design, table in zip(names, self.designs, tables, strict=True):
            ahead, end = design.scaled_future(table), np.asarray([len(design.levels)])
            needed = settings.seq_length + design.offset
            if end < needed:
                raise ValueError(
                    f"{name} has {end[0]} values, but a forecast needs the last {needed}: "
                    f"{needed - end[0]} more."
                )
            windows.append(design.windows(end, settings.seq_length, settings.reach, ahead))
            aheads.append(ahead[None])
        return self.predictor.forecast(self.designs, windows, aheads, steps)

    def apply(self, panel: Panel, past: Any, future: Any) -> Fitted:
        """Return this model, positioned at the end of other series.

        Adaptive intervals adapt to the errors on all rows after the training rows of a series that
        goes on from this one; on any other series they begin as they were at the end of training.
        """
        designs = self.designs_of(panel, past, future)
        panel = dataclasses.replace(panel, features=self.panel.features, static=self.panel.static)
        later: tuple[_Floats, ...] = ()
        if self.settings.intervals == "adaptive" and len(self.errors):
            later = tuple(
                self._later(k, column, design)
                for k, (column, design) in enumerate(zip(panel.columns, designs, strict=True))
            )
        return dataclasses.replace(self, panel=panel, designs=designs, later=later)

    def _later(self, k: int, column: _Floats, design: Design) -> _Floats:
        """Return the errors made on the rows of a series after the training rows."""
        horizon, rows = self.settings.horizon, self.rows[k]
        known = self.later[k] if self.later else np.empty((0, horizon))
        end = rows + len(known)
        begin = end - len(self.designs[k].levels)  # a file holds the last rows only
        both = max(min(end, len(column)) - begin, 0)
        if not both or not np.array_equal(
            design.levels[begin : begin + both], self.designs[k].levels[:both]
        ):
            return np.empty((0, horizon))
        # Of the last forecasts some true values were not known yet.
        known = known[: max(min(end, len(column)) - rows - horizon + 1, 0)]
        new = np.arange(rows + len(known), len(column))
        errors = errors_of(self.predictor, column, design, new, horizon)
        return np.concatenate([known, errors])

    def designs_of(self, panel: Panel, past: Any, future: Any) -> tuple[Design, ...]:
        """Transform and scale series in the same way as the training series."""
        if len(panel.names) != len(self.designs):
            raise ValueError(
                f"this forecaster was fitted on {len(self.designs)} series, got {len(panel.names)}."
            )
        if self.panel.static:
            panel = panel.in_order_of(self.panel.names)
            if panel.names != self.panel.names:
                raise ValueError(
                    "fit was given static values of its series, and of others none are known: the "
                    f"series must have the names {', '.join(map(str, self.panel.names))}."
                )
            panel = dataclasses.replace(panel, static=self.panel.static)
        _, tables = check_data(self.settings, panel, past, future, self.panel.features)
        designs = []
        for column, p, f, fitted in zip(panel.columns, *tables, self.designs, strict=True):
            width = len(fitted.scaler.offset)
            if 1 + p.shape[1] + f.shape[1] != width:
                raise ValueError(
                    f"fit was given {width - 1} features, but there are {p.shape[1] + f.shape[1]}."
                )
            designs.append(
                make_design(
                    column, p, f, target=fitted.target, scaler=fitted.scaler, unit=fitted.unit,
                    train=0, gaps=fitted.gaps,
                )
            )  # fmt: skip
        return tuple(designs)

    def evaluate(self, panel: Panel, past: Any, future: Any, stride: int) -> Backtest:
        """Score forecasts of values that follow, see `rnn_xp.Forecaster.evaluate`."""
        panel = panel.in_order_of(self.panel.names)
        if panel.names != self.panel.names:
            names = ", ".join(map(str, self.panel.names))
            raise ValueError(f"the series must have the names that fit was given, {names}.")
        panel.check_begins_with(self.panel, self.rows)
        return self.evaluate_rows(panel, past, future, self.rows, stride)

    def evaluate_rows(
        self, panel: Panel, past: Any, future: Any, starts: Sequence[int], stride: int,
        trains: Sequence[int] | None = None,
    ) -> Backtest:  # fmt: skip
        """Score forecasts of every series, see `judge_rows`."""
        settings = self.settings
        parts = self.judge_rows(panel, past, future, starts, stride, trains=trains)
        if missing := set(panel.names) - {part.name for part in parts}:
            raise ValueError(
                f"{min(missing)!r} has nowhere {settings.horizon} new values together, as judging "
                "a forecast of that many steps needs."
            )
        level = None if parts[0].low is None else settings.level
        return self.noted(judge(parts, settings.cell, level))

    def noted(self, result: Backtest) -> Backtest:
        """Return the scores with a remark if the linear path alone makes the forecasts."""
        if not self.alone:
            return result
        return dataclasses.replace(result, notes=[*result.notes, ALONE.format(self.settings.cell)])

    def judge_rows(
        self, panel: Panel, past: Any, future: Any, starts: Sequence[int], stride: int,
        most: int | None = None, trains: Sequence[int] | None = None, adapt: bool = True,
    ) -> tuple[Judged, ...]:  # fmt: skip
        """Forecast from successive rows, with the fitted scalers.

        Parameters
        ----------
        panel, past, future : as for `apply`
        starts : sequence of int
            First row of the first forecast of each series.
        stride : int
            Number of steps between two forecasts.
        most : int, optional
            Maximum number of forecasts of each series; by default all that can be judged.
        trains : sequence of int, optional
            Length of each series' training part, on which the baselines are fitted; by default it
            ends at the first forecast. Adaptive intervals adapt from there on.
        adapt : bool
            If False, there are no adaptive intervals.

        Returns
        -------
        tuple of Judged
        """
        designs, settings = self.designs_of(panel, past, future), self.settings
        parts = judge_forecasts(
            settings, self.predictor, panel, designs, starts, stride, most, self.errors, trains
        )
        if not (adapt and settings.intervals == "adaptive" and len(self.errors)):
            return parts
        numbers, judged = {name: k for k, name in enumerate(panel.names)}, []
        for part in parts:
            k = numbers[part.name]
            begin = (trains or starts)[k]
            rows = np.arange(begin, part.origins[-1] + 1)
            errors = errors_of(self.predictor, panel.columns[k], designs[k], rows, settings.horizon)
            low, high = adapted_bounds(
                part.forecast, part.origins, begin, self.errors, errors, settings.level, designs[k]
            )
            judged.append(dataclasses.replace(part, low=low, high=high))
        return tuple(judged)


def make_predictor(
    settings: Settings, net: Network, networks: Sequence[Params], backend: Backend
) -> Predictor:
    """Return a predictor that uses trained parameters."""
    quantiles = len(settings.levels_of_quantiles)
    return Predictor(net, networks, backend, settings.seq_length, settings.reach, quantiles)


def finish(
    prepared: Prepared, networks: Sequence[Params], backend: Backend,
    refitted: tuple[Prepared, Sequence[Params]], *, alone: bool = False,
    earlier: _Floats | None = None,
) -> tuple[Fitted, Backtest | None]:  # fmt: skip
    """Score trained networks on the validation part, and keep their errors.

    Parameters
    ----------
    prepared : Prepared
        The data that the networks were trained on.
    networks : sequence of Params
    backend : Backend
    refitted : tuple of Prepared and sequence of Params
        The data and the networks of the last training, which make the forecasts. Where these are
        all the data, the errors of ``networks`` stand for theirs, which are not known.
    alone : bool
        See `Fitted`.
    earlier : ndarray (n, horizon), optional
        Errors before the validation part, which are kept with those on it.

    Returns
    -------
    fitted : Fitted
    report : Backtest or None
        The scores of ``networks``; None without validation.
    """
    fitted = dataclasses.replace(unjudged(*refitted, backend), alone=alone)
    if prepared.validated is None:
        return fitted, None
    settings, panel, designs = fitted.settings, prepared.panel, prepared.designs
    predictor = make_predictor(settings, prepared.net, networks, backend)
    parts = judge_forecasts(settings, predictor, panel, designs, prepared.starts)
    by_name = dict(zip(panel.names, designs, strict=True))
    made = [by_name[part.name].errors(part.truth, part.forecast) for part in parts]
    # The latest last, because adaptive intervals look at the last ones: those of all series.
    age = np.concatenate([np.arange(len(each))[::-1] for each in made])
    errors = np.concatenate(made)[np.argsort(-age, kind="stable")]
    if earlier is not None:
        errors = np.concatenate([earlier, errors])
    report = fitted.noted(judge(parts, settings.cell, None))
    return dataclasses.replace(fitted, errors=errors), report


def unjudged(prepared: Prepared, networks: Sequence[Params], backend: Backend) -> Fitted:
    """Return a model without errors, for example of networks whose training diverged."""
    settings = dataclasses.replace(prepared.settings, n_seeds=len(networks))
    predictor = make_predictor(settings, prepared.net, networks, backend)
    rows = tuple(len(column) for column in prepared.panel.columns)
    no_errors = np.empty((0, settings.horizon))
    return Fitted(settings, predictor, prepared.panel, prepared.designs, rows, no_errors)
