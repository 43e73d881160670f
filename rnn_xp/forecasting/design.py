"""Scaled windows of series and their features, with a separate scaler for each series.

If the network forecasts r steps at once, row t of its input is::

    [ z[t] | past features at t | future features at t + r ]

so a window whose last row is t contains the future features of all the steps to forecast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError
from rnn_xp.data.scalers import Scaler, fit_scaler
from rnn_xp.forecasting.gaps import GapModel, estimate_gaps, fill_forward, fit_gap_model
from rnn_xp.forecasting.targets import from_target, in_logs, offset_of, to_target

__all__ = ["Design", "Windows", "make_design"]

_Floats = NDArray[np.float64]
_Reals = NDArray[np.floating[Any]]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Windows:
    """Input windows of a network.

    Attributes
    ----------
    x : ndarray (N, T, I)
        The scaled values.
    mask : ndarray (N, T) of bool
        True where a value is known.
    last : ndarray (N,)
        The last known level of each window.
    """

    x: _Floats
    mask: _Bools
    last: _Floats


@dataclass(frozen=True)
class Design:
    """One series, transformed and scaled.

    Attributes
    ----------
    target : str
        See `rnn_xp.forecasting.targets`.
    scaler : Scaler
        The scaler of z and all features, fitted on the training part.
    levels : ndarray (n,)
        The series in original units, gaps filled forward, or estimated by ``gaps``.
    z : ndarray (n',)
        The scaled targets, 0 or an estimate where missing; n' is n, or n - 1 for differences.
    past, future : ndarray (n', k)
        Scaled features.
    known : ndarray (n',) of bool
        True where z is not missing.
    unit : float
        The unit in which errors of several series are pooled: the standard deviation of the
        training part, or of its logarithms if the target is one of them.
    gaps : tuple of float, optional
        The model that estimates missing values, see `rnn_xp.forecasting.gaps`; without one they are
        skipped.
    """

    target: str
    scaler: Scaler
    levels: _Floats
    z: _Floats
    past: _Floats
    future: _Floats
    known: _Bools
    unit: float
    gaps: GapModel | None = None

    @property
    def offset(self) -> int:
        """Number of rows that differencing removes from the start."""
        return len(self.levels) - len(self.z)

    def windows(self, ends: NDArray[np.intp], seq_length: int, reach: int, ahead: Any) -> Windows:
        """Return windows that end just before the given rows of the series.

        Parameters
        ----------
        ends : (N,) array
            The row after each window, at least seq_length + offset.
        seq_length, reach : int
            T, and the number of steps that the network forecasts at once.
        ahead : ndarray (A, k)
            Scaled future features of the rows after the last one; A may be 0.
        """
        future = np.concatenate([self.future, ahead])
        shifted = np.zeros_like(self.future)
        within = min(len(self.z), len(future) - reach)
        shifted[:within] = future[reach : reach + within]
        rows = np.concatenate([self.z[:, None], self.past, shifted], axis=1)
        starts = ends - self.offset - seq_length
        x = np.moveaxis(sliding_window_view(rows, seq_length, axis=0), -1, 1)[starts]
        mask = sliding_window_view(self.known, seq_length)[starts]
        return Windows(x, mask, self.levels[ends - 1])

    def targets(self, ends: NDArray[np.intp], steps: int) -> tuple[_Floats, _Bools]:
        """Return scaled targets (N, steps) from each row on, and True for windows without gaps."""
        at = (ends - self.offset)[:, None] + np.arange(steps)
        return self.z[at], self.known[at].all(axis=1)

    def scaled_future(self, rows: _Floats) -> _Floats:
        """Scale future features (A, k)."""
        first = 1 + self.past.shape[1]
        offset, scale = (np.asarray(v[first:]) for v in (self.scaler.offset, self.scaler.scale))
        scaled: _Floats = (rows - offset) / scale
        return scaled

    def tail(self, seq_length: int) -> Design:
        """Return the last rows, from which the values that follow are forecast."""
        rows = slice(-seq_length, None)
        parts = (self.z[rows], self.past[rows], self.future[rows], self.known[rows])
        levels = self.levels[-(seq_length + self.offset) :]
        return Design(self.target, self.scaler, levels, *parts, self.unit, self.gaps)

    def errors(self, truth: _Reals, forecast: _Reals) -> _Reals:
        """Return absolute errors in units of the design.

        Logarithms are taken of series whose noise grows with their level, so where they are the
        target the errors are those of the logarithms.
        """
        apart = np.log(truth) - np.log(forecast) if in_logs(self.target) else truth - forecast
        errors: _Reals = np.abs(apart) / self.unit
        return errors

    def around(self, forecast: _Reals, radii: _Reals) -> tuple[_Reals, _Reals]:
        """Return the ends of intervals around forecasts, whose radii are such errors."""
        apart = radii * self.unit
        if in_logs(self.target):
            return forecast * np.exp(-apart), forecast * np.exp(apart)
        return forecast - apart, forecast + apart

    def to_levels(self, z: _Floats, last: _Floats) -> _Floats:
        """Return scaled forecasts (N, steps) in original units."""
        return from_target(self.target, self.scaler.inverse_target(z), last)


def make_design(
    values: _Floats,
    past: _Floats,
    future: _Floats,
    *,
    target: str,
    scaler: str | Scaler,
    train: int,
    unit: float | None = None,
    gaps: GapModel | int | None = None,
    statics: int = 0,
) -> Design:
    """Transform and scale a series (n,) and its features (n, k).

    Parameters
    ----------
    values : (n,) array
        The series, NaN where a value is missing.
    past, future : (n, k) arrays
    target : str
    scaler : str or Scaler
        The kind of a scaler to fit on the first ``train`` rows, or a fitted scaler.
    train : int
    unit : float, optional
        ``Design.unit`` of the series on which the scaler was fitted.
    gaps : tuple of float or int, optional
        ``Design.gaps``, or the number of lags of a model to fit on the first ``train`` rows.
    statics : int
        Number of past features, the last ones, that do not change and are not to be scaled.
    """
    known = ~np.isnan(values)
    if isinstance(gaps, int):
        gaps = fit_gap_model(values[:train], target, gaps)
    levels = fill_forward(values) if gaps is None else estimate_gaps(values, target, gaps)
    z = to_target(target, levels)
    offset = len(values) - len(z)
    columns = np.concatenate([z[:, None], past[offset:], future[offset:]], axis=1)
    known = known[offset:] & known[: len(z)]  # a change is known if both of its ends are
    if isinstance(scaler, str):
        seen = columns[: train - offset][known[: train - offset]]
        varying = np.ones(seen.shape[1], bool)
        varying[1 + past.shape[1] - statics : 1 + past.shape[1]] = False
        _check_scales(scaler, seen[:, varying], levels, target, past.shape[1] - statics)
        scaler = fit_scaler(scaler, seen[:, varying])
        if statics:
            numbers = np.stack([np.zeros(len(varying)), np.ones(len(varying))])
            numbers[:, varying] = scaler.offset, scaler.scale
            scaler = Scaler(scaler.kind, *map(tuple, numbers.tolist()))
    scaled = scaler.transform(columns)
    if gaps is None:
        scaled[~known, 0] = 0.0
    first = 1 + past.shape[1]
    if unit is None:
        seen = levels[:train] if train else levels
        unit = float(np.std(np.log(seen) if in_logs(target) else seen)) or 1.0
    return Design(
        target,
        scaler,
        levels,
        scaled[:, 0],
        scaled[:, 1:first],
        scaled[:, first:],
        known,
        unit,
        gaps,
    )


def _check_scales(scaler: str, seen: _Floats, levels: _Floats, target: str, past: int) -> None:
    """Refuse constant columns, which have no scale.

    Changes that differ only by the rounding of the levels count as constant.

    Raises
    ------
    ParameterError
        If a column of the training part is constant, and the scaler is not "none".
    """
    if scaler == "none" or not len(seen):
        return
    rounding = np.zeros(seen.shape[1])
    if offset_of(target):
        subtracted = levels if target == "diff" else np.log(levels)
        rounding[0] = 4.0 * np.finfo(float).eps * np.max(np.abs(subtracted))
    constant = np.flatnonzero(np.ptp(seen, axis=0) <= rounding)
    if not constant.size:
        return
    column = int(constant[0])
    value = f"constant ({seen[0, column]:g}) in the training part"
    if column:
        kind, number = ("past", column - 1) if column <= past else ("future", column - 1 - past)
        raise ParameterError(
            f"{kind} feature {number} is {value}, so it has no scale and says nothing. Leave it "
            "out, or give {0}.",
            Argument("scaler", "none"),
        )
    if not offset_of(target):
        raise ParameterError(
            f"the series is {value}, so it has no scale. Give {{0}}, or more values that vary.",
            Argument("scaler", "none"),
        )
    changes = "changes" if target == "diff" else "logarithmic changes"
    raise ParameterError(
        f"the {changes} of the series are {value}: there is nothing to forecast. Give {{0}}, or "
        "{1}.",
        Argument("target", "level"),
        Argument("scaler", "none"),
    )
