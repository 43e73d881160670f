"""The settings of a `Forecaster`, and checks that they suit each other and the data."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError, whole
from rnn_xp.backend import Backend
from rnn_xp.forecasting.design import Design
from rnn_xp.forecasting.features import read_features
from rnn_xp.forecasting.intervals import check_level
from rnn_xp.forecasting.panel import Names, Panel
from rnn_xp.forecasting.targets import TARGETS, offset_of
from rnn_xp.network import Network
from rnn_xp.optim import Optimizer

__all__ = ["AUTO", "Settings", "check_ahead", "check_data"]

AUTO = "auto"
"""The value of a setting that the training rows choose, see `rnn_xp.forecasting.choices`."""

_STRATEGIES, _INTERVALS = ("direct", "recursive"), ("adaptive", "split", "quantile", None)
_SIZES = {
    "seq_length": 1, "horizon": 1, "hidden_size": 1, "num_layers": 1, "n_seeds": 1, "epochs": 1,
    "random_state": 0,
}  # fmt: skip
_OF_THE_NETWORK = (
    "cell", "hidden_size", "num_layers", "bidirectional", "activation", "read", "dropout",
    "recurrent_dropout", "layer_norm", "residual", "reset_after",
)  # fmt: skip


_Class = TypeVar("_Class", bound=type)


def _unknown(kind: str, what: str, name: str, names: Iterable[str]) -> str:
    """Return a message about an argument or parameter that a class does not have."""
    near = difflib.get_close_matches(name, names := list(names), 1, 0.5)
    hint = f"the closest is {near[0]!r}" if near else f"it has {', '.join(names)}"
    return f"{kind} has no {what} {name!r}: {hint}."


def _names_arguments(kind: _Class) -> _Class:
    """Make the constructor name the class, and the closest argument, if one is not known."""
    made = kind.__init__  # type: ignore[misc]

    @functools.wraps(made)
    def init(self: Any, *args: Any, **settings: Any) -> None:
        names = [field.name for field in dataclasses.fields(self)]
        if unknown := [name for name in settings if name not in names]:
            raise TypeError(_unknown(type(self).__name__, "argument", unknown[0], names))
        made(self, *args, **settings)

    kind.__init__ = init  # type: ignore[misc]
    return kind


@_names_arguments
@dataclass(eq=False)
class Settings:
    """The arguments of `rnn_xp.Forecaster`, which documents them."""

    seq_length: Any = AUTO  # or an int, as it always is once a training is prepared
    horizon: int = 1
    cell: str = "rnn"
    hidden_size: Any = AUTO  # likewise
    num_layers: int = 1
    strategy: str = "direct"
    target: str = AUTO
    linear: bool = True
    fallback: bool = True
    scaler: str = "standard"
    missing: str = "error"
    intervals: str | None = "adaptive"
    level: float = 0.9
    optimizer: Optimizer | None = None
    epochs: int = 200
    batch_size: int | None = None
    validation: float | None = 0.15
    refit: bool = True
    patience: int | None = 30
    n_seeds: int = 1
    random_state: int = 0
    backend: Backend | None = None
    verbose: bool = True
    bidirectional: bool = False
    activation: str = "tanh"
    read: str = "last"
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    layer_norm: bool = False
    residual: bool = False
    reset_after: bool = True

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor, as scikit-learn requires."""
        names = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor; they take effect at the next fit."""
        names = self.get_params()
        if unknown := params.keys() - names.keys():
            raise ValueError(_unknown("Forecaster", "parameter", min(unknown), names))
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def frozen(self) -> Settings:
        """Return an independent copy, with NumPy's numbers converted to Python's."""
        params = self.get_params().items()
        return Settings(**{n: v.item() if isinstance(v, np.generic) else v for n, v in params})

    def check(self) -> None:
        """Check the settings without the data.

        Raises
        ------
        ParameterError
            If a value is unknown or out of range, or two of them contradict each other.
        """
        for name, low in _SIZES.items():
            value = getattr(self, name)
            if isinstance(value, str) and name in ("seq_length", "hidden_size"):
                if value != AUTO:
                    raise ParameterError(
                        "{0:name} must be a whole number or 'auto', got {0:value}.",
                        Argument(name, value),
                    )
                continue
            whole(name, value, low)
        for name, valid in (
            ("strategy", _STRATEGIES), ("target", (*TARGETS, AUTO)), ("missing", ("error", "mask")),
            ("intervals", _INTERVALS), ("scaler", ("standard", "minmax", "none")),
        ):  # fmt: skip
            value = getattr(self, name)
            if value not in valid:
                listed = ", ".join(map(repr, valid))
                raise ParameterError(f"{{0}} is not known. Valid: {listed}.", Argument(name, value))
        check_level(self.level)
        for name in ("linear", "fallback", "refit"):
            if not isinstance(value := getattr(self, name), bool):
                raise ParameterError("{0} must be True or False.", Argument(name, value))
        if not isinstance(self.backend, Backend | None):
            raise ParameterError(
                "{0:name} must be what rnn_xp.get_backend returns, or None, got {0:value}.",
                Argument("backend", self.backend),
            )
        if self.validation is not None and not 0.0 < self.validation < 1.0:
            raise ParameterError(
                "{0:name} must be a share in (0, 1), got {0:value}.",
                Argument("validation", self.validation),
            )
        self._check_combinations()

    def _check_combinations(self) -> None:
        intervals, level = Argument("intervals", self.intervals), Argument("target", "level")
        if self.missing == "mask" and self.target not in ("level", AUTO) and not self.linear:
            raise ParameterError(
                "{0} needs {1} or {2}.",
                Argument("missing", "mask"), level, Argument("linear", True),
            )  # fmt: skip
        if self.validation is None and self.intervals in ("adaptive", "split"):
            raise ParameterError(
                "{0} needs {1:name}, whose errors make the intervals. Give a share to validate on, "
                "or {2}.",
                intervals, Argument("validation"), Argument("intervals", None),
            )  # fmt: skip
        one_step = Argument("horizon", 1)
        changes = self.target != AUTO and offset_of(self.target)
        if self.intervals == "quantile" and self.reach > 1 and changes:
            raise ParameterError(
                "{0} needs {1} or {2}: quantiles of changes do not add up.",
                intervals, level, one_step,
            )  # fmt: skip
        if self.intervals == "quantile" and self.strategy == "recursive" and self.horizon > 1:
            raise ParameterError(
                "{0} needs {1} or {2}: what is fed back is one number, whose uncertainty would be "
                "lost.",
                intervals, Argument("strategy", "direct"), one_step,
            )  # fmt: skip

    @property
    def reach(self) -> int:
        """Number of steps that the network forecasts at once."""
        return self.horizon if self.strategy == "direct" else 1

    @property
    def gap_lags(self) -> int | None:
        """Lags of the model that estimates missing values; None if they are skipped."""
        return self.seq_length if self.linear and self.missing == "mask" else None

    @property
    def levels_of_quantiles(self) -> tuple[float, ...]:
        """Quantiles that the network forecasts, the median in the middle."""
        half = (1.0 - self.level) / 2.0
        return (half, 0.5, 1.0 - half) if self.intervals == "quantile" else (0.5,)

    def network(self, inputs: int) -> Network:
        """Return the network that the settings describe.

        Parameters
        ----------
        inputs : int
            Number of values at each step, I: the series and its features.

        Returns
        -------
        Network
        """
        return Network(
            input_size=inputs,
            output_size=self.reach * len(self.levels_of_quantiles),
            linear_lags=self.seq_length if self.linear else 0,
            **{name: getattr(self, name) for name in _OF_THE_NETWORK},
        )


def check_data(
    settings: Settings,
    panel: Panel,
    past: Any,
    future: Any,
    features: tuple[Names, Names] = (None, None),
) -> tuple[Panel, tuple[list[Any], list[Any]]]:
    """Check series and features against the settings.

    Parameters
    ----------
    settings : Settings
    panel : Panel
    past, future : as for `rnn_xp.Forecaster.fit`
    features : tuple of two Names
        Names of the features in `fit`, in whose order columns are returned.

    Returns
    -------
    panel : Panel
        The series, with the names of their features.
    past, future : list of ndarray (n, k)
        Features of each series; k is 0 if there are none. Those that do not change with time are
        the last of the past ones.

    Raises
    ------
    ValueError
        If values are missing or all equal, or features do not suit the strategy.
    """
    for name, column in zip(panel.names, panel.columns, strict=True):
        who = "the series" if len(panel.names) == 1 else repr(name)
        gaps = np.flatnonzero(np.isnan(column))
        if len(gaps) and settings.missing == "error":
            raise ValueError(
                f"{who} has {len(gaps)} missing values, the first at row {gaps[0]}. Fill "
                "them, or give missing='mask' to skip those steps."
            )
        if len(gaps) == len(column):
            raise ValueError(f"{who} has no value.")
        if np.ptp(column[~np.isnan(column)]) == 0.0:
            raise ValueError(f"{who} is constant: there is nothing to forecast.")
    if past is not None and settings.strategy == "recursive" and settings.horizon > 1:
        raise ParameterError(
            "past features need {0}: a forecast that feeds on itself would need their own "
            "forecasts.",
            Argument("strategy", "direct"),
        )
    if future is not None and settings.seq_length < settings.reach:
        raise ParameterError(
            "future features need {0:name} >= {1:name}, so that a window has room for the "
            f"features of all steps; got {settings.seq_length} and {settings.reach}.",
            Argument("seq_length", settings.seq_length),
            Argument("horizon", settings.horizon),
        )
    tables, names = [], []
    for what, given, known in zip(("past", "future"), (past, future), features, strict=True):
        read, columns = [np.empty((len(column), 0)) for column in panel.columns], known
        if given is not None:
            read, columns = read_features(what, given, panel, known)
        if what == "past" and panel.static:
            read = [
                np.concatenate([each, np.tile(row, (len(each), 1))], axis=1)
                for each, row in zip(read, panel.static, strict=True)
            ]
        tables.append(read)
        names.append(columns)
    panel = dataclasses.replace(panel, features=(names[0], names[1]))
    return panel, (tables[0], tables[1])


def check_ahead(
    settings: Settings, steps: int | None, future: Any, design: Design, panel: Panel
) -> tuple[int, list[NDArray[np.float64]]]:
    """Check the number of steps to forecast, and the future features for them.

    Returns
    -------
    steps : int
    future : list of ndarray (A, k)
        Features of each series for the next A steps.
    """
    steps = settings.horizon if steps is None else whole("steps", steps, 1)
    rows = max(steps, settings.reach)
    width = design.future.shape[1]
    if (future is not None) != bool(width):
        have = "was given future features: pass their values for the steps to forecast, future="
        raise ValueError(f"fit {have}." if width else "fit was given no future features.")
    if design.past.shape[1] > panel.statics and steps > settings.horizon:
        raise ValueError(
            f"past features are not known beyond the series: steps must be at most "
            f"horizon={settings.horizon}, got {steps}."
        )
    tables = [np.empty((rows, 0))] * len(panel.names)
    if future is not None:
        tables, _ = read_features("future", future, panel, panel.features[1], ahead=rows)
    if tables[0].shape[1] != width:
        raise ValueError(f"future must have {width} columns, got {tables[0].shape[1]}.")
    return steps, tables
