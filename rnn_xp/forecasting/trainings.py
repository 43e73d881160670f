"""The trainings of a forecaster: one of each network for its epochs, and one on all windows.

Between the two the networks have to earn their place. Their mean forecast of the validation part is
compared with that of the linear path from which training started: its RMSE must be lower by 2 % or
more, and the squared errors, window by window, lower by at least two standard errors of their mean
difference [1]_, where windows that have steps in common count as one. And a network that is given
levels must not have met new ones: if more than a tenth of the validation part lies beyond the range
of the rows before it, the series leaves what saturating cells have seen, and will again. Otherwise
the linear path alone makes the forecasts. A training ends after a quarter or half of its epochs if
the network has not earned a quarter or half of these 2 % by then.

A linear path is fitted in no time, so its intervals need not make do with the errors on the
validation part, which are few if the series is short, and overlap if there are several steps. Paths
are fitted to the rows before earlier parts as well, and their errors on these are added.

References
----------
.. [1] F. X. Diebold, R. S. Mariano, "Comparing predictive accuracy", J. Bus. Econ. Stat. 13 (1995),
       253-263.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Params
from rnn_xp.backend import Backend
from rnn_xp.forecasting.adapting import errors_of
from rnn_xp.forecasting.backtest import origins_of
from rnn_xp.forecasting.fitted import make_predictor
from rnn_xp.forecasting.prepared import Prepared
from rnn_xp.forecasting.targets import offset_of
from rnn_xp.forecasting.training import linear_start, train
from rnn_xp.training.callbacks import Callback, Epoch
from rnn_xp.training.result import FitResult

__all__ = ["Trained", "train_networks"]

_LEVEL = 0.98  # times the RMSE of the linear path: what is not below earns nothing
_BEYOND = 0.1  # of the values of the validation part
_LONG = 40  # epochs of a training that may end early
_PARTS, _ENOUGH = 3, 500  # parts before the validation part, and errors that need no more


@dataclass(frozen=True)
class Trained:
    """Results of all trainings, in the order of the seeds.

    Attributes
    ----------
    results : list of FitResult
        Trainings that are validated, or that validation was switched off for.
    refits : list of FitResult
        Trainings on all windows after that; empty if there were none.
    prepared : Prepared
        The data on which what forecasts is judged.
    whole : Prepared
        The data of the last training.
    alone : tuple of two Params, or None
        The linear path of the validated training and that of all windows, if the networks earned
        nothing beside it.
    earlier : ndarray (n, horizon), optional
        With ``alone``: errors before the validation part, see `rnn_xp.forecasting.design`, oldest
        first.
    """

    results: list[FitResult]
    refits: list[FitResult]
    prepared: Prepared
    whole: Prepared
    alone: tuple[Params, Params] | None = None
    earlier: NDArray[np.float64] | None = None

    @property
    def networks(self) -> tuple[Params, ...]:
        """Parameters with the lowest validation loss; without validation the last ones."""
        if self.alone is not None:
            return (self.alone[0],)
        return tuple(r.params if r.best_params is None else r.best_params for r in self.results)

    @property
    def refitted(self) -> tuple[Params, ...]:
        """Parameters of the refits, or `networks` if there were none."""
        if self.alone is not None:
            return (self.alone[1],)
        return tuple(result.params for result in self.refits) or self.networks


def train_networks(
    prepared: Prepared, backend: Backend, stop: Callback | None, training: Mapping[str, Any]
) -> Trained:
    """Train the networks of a forecaster, see `rnn_xp.Forecaster.fit_prepared`.

    After the validated training has chosen a number of epochs, the refit begins anew from the same
    seed, because the windows are others: a training that went on from the first one's end would
    have seen the first windows for twice as long as the last ones.
    """
    settings = prepared.settings
    seeds = range(settings.random_state, settings.random_state + settings.n_seeds)
    always = [] if stop is None else [stop]
    judged = settings.linear and settings.fallback and settings.intervals != "quantile"
    watching: list[Callback] = []
    if judged and prepared.validated is not None:
        path, start, theirs = _path_to_beat(prepared, backend, training)
        if training.get("comm") is None:  # ranks would have to agree
            watching = [_Prospect(prepared, theirs, backend)]
    given = training.get("callbacks") or ()
    first = {**training, "callbacks": [*always, *given, *watching]}
    results = [
        train(
            settings, prepared.net, prepared.trained, prepared.validated, backend, seed,
            path=prepared.path, **first,
        )
        for seed in seeds
    ]  # fmt: skip
    trained = Trained(results, [], prepared, prepared)
    if prepared.validated is None:
        return trained
    ours = _squares(prepared, trained.networks, backend) if judged else None
    if ours is not None and not _earns(prepared, ours, theirs, training.get("comm")):
        whole = path.whole() if settings.refit else path
        alone = start, _linear(whole, backend, training)
        return Trained(results, [], path, whole, alone, _earlier(path, backend, training))
    whole = prepared.whole() if settings.refit else prepared
    if not settings.refit:
        return trained
    again = {**training, "callbacks": always, "resume": None}
    refits = [
        train(
            settings, whole.net, whole.trained, None, backend, seed, path=whole.path,
            epochs=result.best_epoch, **again,
        )
        for seed, result in zip(seeds, results, strict=True)
    ]  # fmt: skip
    return Trained(results, refits, prepared, whole)


def _path_to_beat(
    prepared: Prepared, backend: Backend, training: Mapping[str, Any]
) -> tuple[Prepared, Params, NDArray[np.float64]]:
    """Return the data of the linear path, its parameters, and its squared errors.

    It is the one of levels, which averages that of changes, unless the latter earns its place
    beside it as a network has to.
    """
    levels = prepared.for_path()
    start = _linear(levels, backend, training)
    theirs = _squares(levels, (start,), backend)
    if levels is prepared:
        return levels, start, theirs
    changes = _linear(prepared, backend, training)
    ours = _squares(prepared, (changes,), backend)
    if _earns(prepared, ours, theirs, training.get("comm")):
        return prepared, changes, ours
    return levels, start, theirs


def _linear(prepared: Prepared, backend: Backend, training: Mapping[str, Any]) -> Params:
    """Return parameters with which the network equals the linear path."""
    settings = prepared.settings
    return linear_start(
        prepared.net, prepared.trained, settings.levels_of_quantiles, settings.random_state,
        backend, training.get("comm"), prepared.path,
    )  # fmt: skip


def _earlier(
    prepared: Prepared, backend: Backend, training: Mapping[str, Any]
) -> NDArray[np.float64]:
    """Return errors (n, horizon) of linear paths on parts of the series before the validation part.

    Each part is as long as the validation part, and a path is fitted to the rows before it, which
    are a third of the series or more.
    """
    settings, panel = prepared.settings, prepared.panel
    rows = [len(column) for column in panel.columns]
    errors: list[Any] = []
    least = 2 * settings.seq_length + settings.horizon + offset_of(settings.target)
    stops = prepared.starts
    known = sum(n - start for n, start in zip(rows, stops, strict=True))
    while len(errors) < _PARTS and known < _ENOUGH:
        starts = tuple(
            stop - (n - start) for n, start, stop in zip(rows, prepared.starts, stops, strict=True)
        )
        if any(start < max(n // 3, least) for n, start in zip(rows, starts, strict=True)):
            break
        try:
            before = prepared.before(starts)
        except ValueError:  # such as a part without variation
            break
        params = (_linear(before, backend, training),)
        predictor = make_predictor(settings, prepared.net, params, backend)
        made = [
            errors_of(predictor, column, design, np.arange(start, stop), settings.horizon)
            for column, design, start, stop in zip(
                panel.columns, before.designs, starts, stops, strict=True
            )
        ]
        errors.insert(0, np.concatenate(made))
        stops, known = starts, known + len(errors[0])
    found = np.concatenate([*errors, np.empty((0, settings.horizon))])
    whole: NDArray[np.float64] = found[~np.isnan(found).any(axis=1)]
    return whole


def _squares(
    prepared: Prepared, networks: Sequence[Params], backend: Backend
) -> NDArray[np.float64]:
    """Return the mean squared error of each window of the validation part, in units of spreads."""
    settings, starts = prepared.settings, prepared.starts
    predictor = make_predictor(settings, prepared.net, networks, backend)
    columns, designs = prepared.panel.columns, prepared.designs
    rows = [
        origins_of(column, first, settings.horizon, 1)
        for column, first in zip(columns, starts, strict=True)
    ]
    forecasts = predictor.from_rows(designs, rows, settings.horizon)
    squares = []
    for column, design, first, at, forecast in zip(
        columns, designs, starts, rows, forecasts, strict=True
    ):
        wrong = forecast[:, :, 0] - column[at[:, None] + np.arange(settings.horizon)]
        squares.append(np.mean(wrong**2, axis=1) / (float(np.var(design.levels[:first])) or 1.0))
    return np.concatenate(squares)


@dataclass(frozen=True)
class _Prospect:
    """A callback that ends a training whose network is not going to earn its place.

    Attributes
    ----------
    prepared : Prepared
    theirs : ndarray (n,)
        Squared errors of the linear path.
    backend : Backend
    """

    prepared: Prepared
    theirs: NDArray[np.float64]
    backend: Backend

    def __call__(self, epoch: Epoch) -> str | None:
        if _leaves(self.prepared):
            return "the series leaves the range of its training part, which no network follows"
        if epoch.number not in (epoch.epochs // 4, epoch.epochs // 2) or epoch.epochs < _LONG:
            return None
        best = None if epoch.state is None else epoch.state().best
        if best is None:
            return None
        ours = _squares(self.prepared, (best.params,), self.backend)
        wanted = 1.0 - (1.0 - _LEVEL) * epoch.number / epoch.epochs
        if np.sqrt(np.mean(ours)) <= wanted * np.sqrt(np.mean(self.theirs)):
            return None
        gain = f"{100.0 * (1.0 - wanted):.1f} %"
        return f"the network is not better than the linear path by {gain}, and 2 % are required"


def _earns(
    prepared: Prepared, ours: NDArray[np.float64], theirs: NDArray[np.float64], comm: Any
) -> bool:
    """Return True if squared errors on the validation part are lower than the linear path's."""
    if _leaves(prepared):
        return False
    gain = theirs - ours
    apart = max(len(gain) / prepared.settings.horizon, 1.0)
    better = np.sqrt(np.mean(ours)) <= _LEVEL * np.sqrt(np.mean(theirs))
    earned = bool(better and np.mean(gain) >= 2.0 * np.std(gain) / np.sqrt(apart))
    if comm is not None:  # the last digits of a solver may differ between machines
        earned = bool(comm.gather(np.asarray([float(earned)]))[0][0])
    return earned


def _leaves(prepared: Prepared) -> bool:
    """Return True if levels are forecast that mostly were in no window before."""
    if offset_of(prepared.settings.target):
        return False
    outside = []
    for design, first in zip(prepared.designs, prepared.starts, strict=True):
        seen, later = design.levels[:first], design.levels[first:]
        outside.append((later < seen.min()) | (later > seen.max()))
    return float(np.mean(np.concatenate(outside))) > _BEYOND
