"""What can be chosen of a `Forecaster`, and which choices contradict each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rnn_xp.backend import Backend
from rnn_xp.forecasting.design import Design
from rnn_xp.forecasting.intervals import check_level
from rnn_xp.forecasting.panel import Panel, as_rows
from rnn_xp.forecasting.targets import TARGETS
from rnn_xp.optim import Optimizer

__all__ = ["Settings", "check_ahead", "check_data"]

_STRATEGIES, _INTERVALS = ("direct", "recursive"), ("adaptive", "split", "quantile", None)


@dataclass(eq=False)
class Settings:
    """Arguments of `rnn_xp.Forecaster`, which documents them."""

    seq_length: int = 10
    horizon: int = 1
    cell: str = "rnn"
    hidden_size: int = 50
    num_layers: int = 1
    strategy: str = "direct"
    target: str = "level"
    linear: bool = True
    scaler: str = "standard"
    missing: str = "error"
    intervals: str | None = "adaptive"
    level: float = 0.9
    optimizer: Optimizer | None = None
    epochs: int = 200
    batch_size: int | None = None
    validation: float = 0.15
    patience: int | None = 30
    n_seeds: int = 1
    random_state: int = 0
    backend: Backend | None = None
    verbose: bool = True

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Arguments of the constructor, as scikit-learn asks for them."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor."""
        if unknown := params.keys() - self.get_params().keys():
            raise ValueError(f"Forecaster has no parameter {sorted(unknown)[0]!r}.")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def check(self) -> None:
        """Raise ValueError for what is not known or contradicts itself."""
        for name in ("seq_length", "horizon", "n_seeds", "epochs"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"Forecaster: {name} must be an integer >= 1, got {size!r}.")
        for name, valid in (
            ("strategy", _STRATEGIES), ("target", TARGETS), ("missing", ("error", "mask")),
            ("intervals", _INTERVALS),
        ):  # fmt: skip
            if getattr(self, name) not in valid:
                listed = ", ".join(map(repr, valid))
                raise ValueError(
                    f"Forecaster: {name}={getattr(self, name)!r} is not known. Valid: {listed}."
                )
        check_level(self.level)
        if not 0.0 < self.validation < 1.0:
            raise ValueError(
                f"Forecaster: validation must be a share in (0, 1), got {self.validation!r}."
            )
        if self.missing == "mask" and self.target != "level":
            raise ValueError("Forecaster: missing='mask' needs target='level'.")
        if self.intervals == "quantile" and self.reach > 1 and self.target != "level":
            raise ValueError(
                "Forecaster: intervals='quantile' needs target='level' or horizon=1: quantiles of "
                "changes do not add up."
            )
        if self.intervals == "quantile" and self.strategy == "recursive" and self.horizon > 1:
            raise ValueError(
                "Forecaster: intervals='quantile' needs strategy='direct' or horizon=1: what is "
                "fed back is one number, whose uncertainty would be lost."
            )

    @property
    def reach(self) -> int:
        """Steps that the network forecasts at once."""
        return self.horizon if self.strategy == "direct" else 1

    @property
    def levels_of_quantiles(self) -> tuple[float, ...]:
        """Quantiles that the network forecasts, the median in the middle."""
        half = (1.0 - self.level) / 2.0
        return (half, 0.5, 1.0 - half) if self.intervals == "quantile" else (0.5,)


def check_data(
    settings: Settings, panel: Panel, past: Any, future: Any
) -> tuple[list[Any], list[Any]]:
    """Check the series and features that were given; past and future features (n, k) of each."""
    lengths = [len(column) for column in panel.columns]
    for name, column in zip(panel.names, panel.columns, strict=True):
        gaps = np.flatnonzero(np.isnan(column))
        if len(gaps) and settings.missing == "error":
            raise ValueError(
                f"{name!r} has {len(gaps)} missing values, the first at row {gaps[0]}. Fill "
                "them, or give missing='mask' to skip those steps."
            )
        if len(gaps) == len(column):
            raise ValueError(f"{name!r} has no value.")
        if np.ptp(column[~np.isnan(column)]) == 0.0:
            raise ValueError(f"{name!r} is constant: there is nothing to forecast.")
    if past is not None and settings.strategy == "recursive" and settings.horizon > 1:
        raise ValueError(
            "past features need strategy='direct': a forecast that feeds on itself would need "
            "their own forecasts."
        )
    if future is not None and settings.seq_length < settings.reach:
        raise ValueError(
            f"future features need seq_length >= horizon, so that a window has room for those "
            f"of all steps; got {settings.seq_length} and {settings.reach}."
        )
    empty = [np.empty((n, 0)) for n in lengths]
    return (
        empty if past is None else as_rows("past", past, panel.names, lengths),
        empty if future is None else as_rows("future", future, panel.names, lengths),
    )


def check_ahead(
    settings: Settings, steps: int | None, future: Any, design: Design, names: Sequence[str]
) -> tuple[int, list[NDArray[np.float64]]]:
    """Check how many steps to forecast, and the future features (A, k) of each series for them."""
    steps = settings.horizon if steps is None else steps
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}.")
    rows = max(steps, settings.reach)
    width = design.future.shape[1]
    if (future is not None) != bool(width):
        have = "was given future features: give those of the steps to come, future="
        raise ValueError(f"fit {have}." if width else "fit was given no future features.")
    if design.past.shape[1] and steps > settings.horizon:
        raise ValueError(
            f"past features are not known beyond the series: steps must be at most "
            f"horizon={settings.horizon}, got {steps}."
        )
    tables = [np.empty((rows, 0))] * len(names)
    if future is not None:
        tables = as_rows("future", future, names, [rows] * len(names))
    if tables[0].shape[1] != width:
        raise ValueError(f"future must have {width} columns, got {tables[0].shape[1]}.")
    return steps, tables
