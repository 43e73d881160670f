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

from rnn_xp.forecasting.design import Design, make_design
from rnn_xp.forecasting.panel import Panel
from rnn_xp.forecasting.settings import Settings, check_data
from rnn_xp.forecasting.training import Cut, cut, first_validated, joined
from rnn_xp.network import Network

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """Everything that a training needs.

    Attributes
    ----------
    settings : Settings
        A frozen copy, see `Settings.frozen`.
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
    """

    settings: Settings
    panel: Panel
    designs: tuple[Design, ...]
    starts: tuple[int, ...]
    net: Network
    trained: Cut
    validated: Cut | None
    tables: tuple[list[Any], list[Any]]

    def whole(self) -> Prepared:
        """Return all windows to train on, scaled by all rows; the unit of errors stays."""
        rows = tuple(len(column) for column in self.panel.columns)
        units = [design.unit for design in self.designs]
        designs = _designs(self.settings, self.panel, self.tables, rows, units)
        trained, _ = _cuts(self.settings, designs, rows, validate=False)
        return dataclasses.replace(
            self, designs=designs, starts=rows, trained=trained, validated=None
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
    offset = int(settings.target != "level")
    starts = tuple(
        first_validated(
            len(column), settings.seq_length, offset, settings.horizon, settings.validation
        )
        for column in panel.columns
    )
    designs = _designs(settings, panel, tables, starts)
    trained, validated = _cuts(settings, designs, starts, validate=settings.validation is not None)
    net = settings.network(trained.x.shape[2])
    return Prepared(settings, panel, designs, starts, net, trained, validated, tables)


def _designs(
    settings: Settings, panel: Panel, tables: tuple[list[Any], list[Any]], trains: Sequence[int],
    units: Sequence[float | None] | None = None,
) -> tuple[Design, ...]:  # fmt: skip
    """Transform and scale each series, by its first rows."""
    return tuple(
        make_design(
            column, p, f, target=settings.target, scaler=settings.scaler, train=train, unit=unit,
            gaps=settings.gap_lags,
        )
        for column, p, f, train, unit in zip(
            panel.columns, *tables, trains, units or (None,) * len(trains), strict=True
        )
    )  # fmt: skip


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
