"""Series prepared for training: transformed, scaled and cut into windows.

The order of the steps keeps the validation part unseen: the first row to validate on is determined
first, the scaler is fitted on the rows before it only, and windows are cut last, with a gap between
the two parts so that they have no value in common.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnn_xp.forecasting.choices import choose, sentences
from rnn_xp.forecasting.design import Design, make_design
from rnn_xp.forecasting.linear import fit_paths, mean_ahead
from rnn_xp.forecasting.panel import Panel
from rnn_xp.forecasting.settings import AUTO, Settings, check_data
from rnn_xp.forecasting.targets import levels_of, offset_of
from rnn_xp.forecasting.training import Cut, cut, first_validated, joined
from rnn_xp.network import Network

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """Everything that a training needs.

    Attributes
    ----------
    settings : Settings
        A frozen copy, see `Settings.frozen`, in which nothing is left to be chosen.
    panel : Panel
        The series.
    designs : tuple of Design
        Each series, transformed and scaled.
    starts : tuple of int
        The first row to validate on in each series; without validation, its number of rows.
    net : Network
    trained : Cut
        Windows to train on.
    validated : Cut or None
        Windows to validate on; None without validation.
    tables : tuple of two lists of ndarray (n, k)
        Past and future features of each series.
    period : int or None
        The season that the linear path reaches back to.
    path : tuple of ndarray (reach, T) and ndarray (reach,), or None
        The linear path that training starts from, see `rnn_xp.forecasting.linear`; None without
        one, and with features, to which another is fitted.
    choices : tuple of str
        What "auto" stands for, in sentences.
    """

    settings: Settings
    panel: Panel
    designs: tuple[Design, ...]
    starts: tuple[int, ...]
    net: Network
    trained: Cut
    validated: Cut | None
    tables: tuple[list[Any], list[Any]]
    period: int | None = None
    path: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    choices: tuple[str, ...] = ()
    auto_target: bool = False

    def for_path(self) -> Prepared:
        """Return validated data for the linear path alone: levels, unless changes were asked for.

        The path of levels averages that of changes, see `rnn_xp.forecasting.linear`; with features
        there is none.
        """
        target = levels_of(self.settings.target)
        if not self.auto_target or target == self.settings.target or self.path is None:
            return self
        settings = dataclasses.replace(self.settings, target=target)
        return dataclasses.replace(self, settings=settings).before(self.starts)

    def whole(self) -> Prepared:
        """Return all windows to train on, scaled by all rows; the unit of errors stays."""
        rows = tuple(len(column) for column in self.panel.columns)
        return self.before(rows, validate=False)

    def before(self, ends: tuple[int, ...], *, validate: bool = True) -> Prepared:
        """Return what the rows before the given ones prepare: scalers, windows, linear path."""
        units = [design.unit for design in self.designs]
        designs = _designs(self.settings, self.panel, self.tables, ends, units)
        trained, validated = _cuts(self.settings, designs, ends, validate=validate)
        path = _path(self.settings, self.panel, designs, ends, self.period)
        return dataclasses.replace(
            self, designs=designs, starts=ends, trained=trained, validated=validated, path=path
        )


def prepare(settings: Settings, panel: Panel, past: Any = None, future: Any = None) -> Prepared:
    """Check the settings and the data, and cut the windows.

    Parameters
    ----------
    settings : Settings
    panel : Panel
    past, future : as for `rnn_xp.Forecaster.fit`

    Returns
    -------
    Prepared

    Raises
    ------
    ValueError
        If settings contradict each other, or a series is too short, constant or has gaps.
    """
    settings = settings.frozen()
    settings.check()
    panel, tables = check_data(settings, panel, past, future)
    given = settings
    settings, period = choose(given, panel.columns)
    offset = offset_of(settings.target)
    starts = tuple(
        first_validated(
            len(column), settings.seq_length, offset, settings.horizon, settings.validation
        )
        for column in panel.columns
    )
    designs = _designs(settings, panel, tables, starts)
    trained, validated = _cuts(settings, designs, starts, validate=settings.validation is not None)
    net = settings.network(trained.x.shape[2])
    path = _path(settings, panel, designs, starts, period)
    return Prepared(
        settings, panel, designs, starts, net, trained, validated, tables, period, path,
        sentences(given, settings, period), given.target == AUTO,
    )  # fmt: skip


def _designs(
    settings: Settings, panel: Panel, tables: tuple[list[Any], list[Any]], trains: Sequence[int],
    units: Sequence[float | None] | None = None,
) -> tuple[Design, ...]:  # fmt: skip
    """Transform and scale each series, by its first rows."""
    return tuple(
        make_design(
            column, p, f, target=settings.target, scaler=settings.scaler, train=train, unit=unit,
            gaps=settings.gap_lags, statics=panel.statics,
        )
        for column, p, f, train, unit in zip(
            panel.columns, *tables, trains, units or (None,) * len(trains), strict=True
        )
    )  # fmt: skip


def _path(
    settings: Settings,
    panel: Panel,
    designs: Sequence[Design],
    ends: Sequence[int],
    period: int | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Fit the linear path to the rows of all series before the given ones."""
    features = designs[0].past.shape[1] - panel.statics + designs[0].future.shape[1]
    if not settings.linear or features:
        return None
    length = settings.seq_length
    rows, seen = [], []
    for design, end in zip(designs, ends, strict=True):
        stop = end - design.offset
        rows.append(sliding_window_view(design.z[:stop], length + 1))
        seen.append(sliding_window_view(design.known[:stop], length + 1).all(axis=1))
    table, whole = np.concatenate(rows), np.concatenate(seen)
    if np.sum(whole) > length:  # otherwise estimates stand for missing values
        table = table[whole]
    changes = offset_of(settings.target) > 0
    paths = fit_paths(table[:, :-1], table[:, -1], period=period, changes=changes)
    return mean_ahead(paths, settings.reach)


def _cuts(
    settings: Settings, designs: Sequence[Design], starts: Sequence[int], *, validate: bool
) -> tuple[Cut, Cut | None]:
    """Return the windows of all series to train on and to validate on."""
    cuts = [
        cut(design, start, settings.seq_length, settings.horizon, settings.reach, validate=validate)
        for design, start in zip(designs, starts, strict=True)
    ]
    held_out = [part for _, part in cuts if part is not None]
    return joined([part for part, _ in cuts]), joined(held_out) if held_out else None
