"""What ``"auto"`` stands for: the window, the target and the size, chosen by the training rows.

- **Season.** `rnn_xp.forecasting.baselines.suggest_period`, for a panel the one that most of its
  series have.
- **Window.** Two seasons and two steps, or one season and two steps if the rows are fewer than
  three such windows or the cells would have to see more than 250,000 values; without a season 20
  steps. At least 10 of them, and at most a quarter of the rows.
- **Logarithms.** Taken of a positive series whose changes grow with its level: over blocks of a
  season, or of 10 steps, the logarithm of the standard deviation of the changes is regressed on the
  logarithm of the mean (the spread-level plot of Tukey [1]_). The slope is 0 if the spread stays
  and 1 if it is a share of the level; from 1/2 on, and significant at 2 standard errors, it calls
  for logarithms.
- **Differences.** Taken if the linear path of the changes has a lower corrected Akaike criterion
  than that of the levels, on the same rows, see `rnn_xp.forecasting.linear`. The criterion knows
  one step only. Where forecasts are fed back (``strategy="recursive"``), the paths are fitted to
  the first four fifths of the rows instead and run free from each of the others, over the horizon
  or as many steps as those rows have two times: errors of changes add up, those of levels need not.
  It is the network that forecasts changes; where the linear path forecasts alone, it is that of
  levels, which averages both, unless the validation part tells that changes alone are better.
- **Size.** One hidden unit for 20 windows, from 4 to 50.

The rows of the validation part are not used, but for this: logarithms need positive values there,
too.

References
----------
.. [1] J. W. Tukey, "Exploratory data analysis", Addison-Wesley 1977, chapter 4.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rnn_xp.forecasting.baselines import suggest_period
from rnn_xp.forecasting.gaps import fill_forward
from rnn_xp.forecasting.linear import LinearPath, fit_path
from rnn_xp.forecasting.settings import AUTO, Settings
from rnn_xp.forecasting.targets import from_target, in_logs, offset_of, to_target

__all__ = ["choose", "grows_with_level", "season_of", "sentences"]

_SERIES = 50  # of a panel that are looked at
_CELLS = 250_000  # values that the cells see in an epoch
_ROWS = 20  # windows for each hidden unit

_FORECASTS = {
    "level": "the values themselves, because their changes are no easier to forecast",
    "diff": "changes, which a linear path forecasts better than the values",
    "log": "logarithms, because the changes of the series grow with its level",
    "logret": "changes of logarithms, because the changes of the series grow with its level, and a "
    "linear path forecasts those better",
}

_Floats = NDArray[np.float64]


def sentences(given: Settings, chosen: Settings, period: int | None) -> tuple[str, ...]:
    """Return what "auto" stands for, a sentence for each choice.

    Examples
    --------
    >>> chosen = Settings(seq_length=26, target="level", hidden_size=5)
    >>> sentences(Settings(target="level"), chosen, 12)[0]
    'The window has 26 values, because a season of 12 steps repeats.'
    """
    said = []
    if given.seq_length == AUTO:
        season = "no season was found that fits" if period is None else (
            f"a season of {period} steps repeats"
        )  # fmt: skip
        said.append(f"The window has {chosen.seq_length} values, because {season}.")
    if given.target == AUTO:
        said.append(f"The network forecasts {_FORECASTS[chosen.target]}.")
    if given.hidden_size == AUTO:
        said.append(f"The network has {chosen.hidden_size} hidden units, by the number of windows.")
    return tuple(said)


def choose(settings: Settings, columns: Sequence[_Floats]) -> tuple[Settings, int | None]:
    """Return settings without "auto", and the season.

    Parameters
    ----------
    settings : Settings
    columns : sequence of ndarray (n,)
        The series; NaN where a value is missing.

    Returns
    -------
    settings : Settings
    period : int or None
        Number of steps of a season, if it fits into the window.
    """
    share = 1.0 - (settings.validation or 0.0)
    held = settings.horizon if settings.validation else 0
    every = -(-len(columns) // _SERIES)
    seen = [fill_forward(c[: max(int(share * len(c)) - held, 1)]) for c in columns[::every]]
    period = season_of(seen)
    rows, total = min(map(len, seen)), sum(len(column) for column in columns)
    length = settings.seq_length
    if length == AUTO:
        length = _window(period, rows, total, settings.reach)
    target = settings.target
    if target == AUTO:
        positive = all(np.nanmin(column) > 0.0 for column in columns)
        target = _target(settings, seen, length, period, positive=positive)
    size = settings.hidden_size
    if size == AUTO:
        size = int(np.clip((total - len(columns) * length) // _ROWS, 4, 50))
    chosen = dataclasses.replace(settings, seq_length=length, target=target, hidden_size=size)
    return chosen, period if period is not None and period < length else None


def season_of(columns: Sequence[_Floats]) -> int | None:
    """Return the season of most of the series; None if most have none."""
    periods = Counter(suggest_period(column) for column in columns)
    return periods.most_common(1)[0][0]


def _window(period: int | None, rows: int, total: int, reach: int) -> int:
    least = 10
    length = min(20, rows // 4)
    if period is not None:
        short, long = period + 2, 2 * period + 2
        fits = 3 * long <= rows and long * total <= _CELLS
        length = long if fits else short if 3 * short <= rows else length
    return max(length, min(least, max(rows // 4, 1)), min(reach, max(rows // 4, 1)))


def _target(
    settings: Settings, columns: Sequence[_Floats], length: int, period: int | None, *,
    positive: bool,
) -> str:  # fmt: skip
    logs = positive and grows_with_level(columns, period)
    level, change = ("log", "logret") if logs else ("level", "diff")
    if settings.intervals == "quantile" and settings.reach > 1:
        return level  # quantiles of changes do not add up
    if settings.missing == "mask" and not settings.linear:
        return "level"
    fed_back = settings.strategy == "recursive" and settings.horizon > 1
    held = min(len(column) // 5 for column in columns) if fed_back else 0
    scores = {}
    for kind in (level, change):
        parts = [_scaled(kind, column, held) for column in columns]
        if any(len(z) - held <= length for z, *_ in parts):
            return level
        rows = [sliding_window_view(z[: len(z) - held], length + 1) for z, *_ in parts]
        table = np.concatenate(rows)
        if np.ptp(table[:, -1]) == 0.0:
            return level
        path = fit_path(table[:, :-1], table[:, -1], period=period, changes=kind == change)
        scores[kind] = path.criterion
        if steps := min(settings.horizon, held // 2):
            scores[kind] = _running_free(path, kind, columns, held, steps)
    return min(scores, key=scores.__getitem__)


def _scaled(kind: str, column: _Floats, held: int) -> tuple[_Floats, float, float]:
    """Return targets of the same rows for all kinds, and what was taken off and divided by."""
    z = to_target(kind, column)[1 - offset_of(kind) :]
    middle = float(np.mean(z[: len(z) - held]))
    scale = float(np.std(np.log(column) if in_logs(kind) else column)) or 1.0
    return (z - middle) / scale, middle, scale


def _running_free(
    path: LinearPath, kind: str, columns: Sequence[_Floats], held: int, steps: int
) -> float:
    """Return the mean squared error of forecasts of several steps from each of the last rows."""
    weights, constant = path.ahead(steps)
    squares = []
    for column in columns:
        z, middle, scale = _scaled(kind, column, held)
        first, last = len(z) - held, len(z) - steps
        length, levels = weights.shape[1], column[1:]  # the rows of z
        windows = sliding_window_view(z, length)[first - length : last - length + 1]
        at = np.arange(first, last + 1)
        ahead = (windows @ weights.T + constant) * scale + middle
        wrong = from_target(kind, ahead, levels[at - 1]) - levels[at[:, None] + np.arange(steps)]
        squares.append(np.mean(wrong**2) / float(np.var(column)))
    return float(np.mean(squares))


def grows_with_level(columns: Sequence[_Floats], period: int | None) -> bool:
    """Return True if the changes of most series grow with the level, see above.

    Examples
    --------
    >>> waves = 2.0 + np.sin(np.arange(120.0))
    >>> grows_with_level([waves + 0.1 * np.arange(120.0)], None)
    False
    >>> grows_with_level([waves * np.exp(0.03 * np.arange(120.0))], None)
    True
    """
    length = max(period or 0, 10)
    return 2 * sum(_grows(column, length) for column in columns) > len(columns)


def _grows(values: _Floats, length: int) -> bool:
    blocks = len(values) // length
    if blocks < 4:
        return False
    table = values[len(values) - blocks * length :].reshape(blocks, length)
    level, spread = np.log(table.mean(axis=1)), np.std(np.diff(table, axis=1), axis=1)
    if (spread <= 0.0).any() or np.ptp(level) == 0.0:
        return False
    x = level - level.mean()
    slope = float(x @ np.log(spread) / (x @ x))
    rest = np.log(spread) - np.log(spread).mean() - slope * x
    error = float(np.sqrt(np.sum(rest**2) / (blocks - 2) / (x @ x)))
    return slope >= 0.5 and slope >= 2.0 * error
