"""Series prepared for training: transformed, scaled and cut into windows.

The order of the steps keeps the validation part unseen: the first row to validate on is determined
first, the scaler is fitted on the rows before it only, and windows are cut last, with a gap between
the two parts so that they have no value in common.
"""

from __future__ import annotations

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
    """

    settings: Settings
    panel: Panel
    designs: tuple[Design, ...]
    starts: tuple[int, ...]
    net: Network
    trained: Cut
    validated: Cut | None


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
    seq_length, horizon, reach = settings.seq_length, settings.horizon, settings.reach
    offset = int(settings.target != "level")
    starts = tuple(
        first_validated(len(column), seq_length, offset, horizon, settings.validation)
        for column in panel.columns
    )
    designs = tuple(
        make_design(column, p, f, target=settings.target, scaler=settings.scaler, train=start)
        for column, p, f, start in zip(panel.columns, *tables, starts, strict=True)
    )
    cuts = [
        cut(design, start, seq_length, horizon, reach, validate=settings.validation is not None)
        for design, start in zip(designs, starts, strict=True)
    ]
    trained = joined([part for part, _ in cuts])
    held_out = [part for _, part in cuts if part is not None]
    net = settings.network(trained.x.shape[2])
    validated = joined(held_out) if held_out else None
    return Prepared(settings, panel, designs, starts, net, trained, validated)
