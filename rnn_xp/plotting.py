"""Plots: each function draws on a matplotlib Axes and returns it (extra ``plot``)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "backtest",
    "forecast",
    "gradient_flow",
    "loss",
    "outlook",
    "residuals",
    "sharpness",
    "step_errors",
    "to_png",
]

_Floats = NDArray[np.floating[Any]]

_FEW = 10  # points, that need a marker each


def loss(
    losses: Sequence[float],
    validation: Sequence[float] | None = None,
    *,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draw the training loss by epoch, on a logarithmic axis.

    Parameters
    ----------
    losses : sequence of float
        As in ``FitResult.history["loss"]``.
    validation : sequence of float, optional
        As in ``FitResult.history["validation_loss"]``; the lowest is marked.
    title : str
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes() if ax is None else ax
    epochs = range(1, len(losses) + 1)
    ax.plot(epochs, losses, color="C0", label="training loss")
    what = "training loss"
    if validation:
        lowest = int(np.argmin(validation))
        ax.plot(epochs, validation, color="C1", label="validation loss")
        label = f"lowest, epoch {lowest + 1}"
        ax.plot(lowest + 1, validation[lowest], "o", color="C1", label=label)
        what = "loss"
    if max(losses, default=0.0) > 0.0:
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel=f"{what} (mean squared error, scaled)", title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if len(losses) <= _FEW:
        ax.lines[0].set_marker("o")
    if len(losses) == 1:
        ax.set_xlim(0.0, 2.0)
        if losses[0] > 0.0:
            ax.set_ylim(losses[0] / 10, losses[0] * 10)
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    return ax


def forecast(
    dates: Sequence[str],
    truth: _Floats,
    forecasts: Mapping[str, _Floats],
    *,
    label: str,
    title: str = "",
    last: int = 60,
    interval: tuple[_Floats, _Floats] | None = None,
    interval_label: str = "interval",
    ax: Any = None,
) -> Any:
    """Draw the latest forecasts against the truth and against persistence.

    A forecast that merely repeats the last value lags one step behind the truth, like persistence,
    which is drawn so that this can be seen.

    Parameters
    ----------
    dates : sequence of N str
        ISO 8601 dates or times, or row numbers; for any other text the steps are counted from 1.
    truth : ndarray (N,)
    forecasts : mapping of str to ndarray (N,)
    label : str
        Quantity and unit, for the vertical axis.
    title : str
    last : int
        Number of steps to show.
    interval : (ndarray (N,), ndarray (N,)), optional
        Lower and upper ends of a prediction interval; ``interval_label`` is its name in the legend.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes() if ax is None else ax
    when, what = _time_axis(list(dates))
    when = when[-last:]
    few = {"marker": "o", "markersize": 4} if len(when) <= _FEW else {}
    if interval is not None:
        low, high = (end[-last:] for end in interval)
        ax.fill_between(when, low, high, color="0.85", label=interval_label)
    ax.plot(when, truth[-last:], color="black", linewidth=2.0, label="truth", **few)
    for i, (name, values) in enumerate(forecasts.items()):
        # Persistence is dashed and on top: where a network equals it, both can be seen.
        look: dict[str, Any] = {"color": f"C{i}"}
        if name == "persistence":
            look = {"color": "0.45", "linestyle": (0, (4, 3)), "zorder": 3}
        ax.plot(when, values[-last:], label=name, **few, **look)
    ax.set(xlabel=what, ylabel=label, title=title)
    if what == "date":
        _show_dates(ax, when)
    else:
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def outlook(
    past: _Floats,
    ahead: _Floats,
    *,
    dates: Sequence[str] | None = None,
    interval: tuple[_Floats, _Floats] | None = None,
    interval_label: str = "interval",
    label: str,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draw the latest values of a series and a forecast of what follows.

    Parameters
    ----------
    past : ndarray (n,)
    ahead : ndarray (steps,)
    dates : sequence of n + steps str, optional
        As for `forecast`; without dates, steps are counted from the last value.
    interval : (ndarray (k,), ndarray (k,)), optional
        Lower and upper ends of an interval of the first k steps; ``interval_label`` is its name in
        the legend.
    label, title : str
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes() if ax is None else ax
    when: list[Any] = list(range(1 - len(past), len(ahead) + 1))
    what = "steps after the last value"
    if dates is not None:
        when, what = _time_axis(list(dates))
    # The forecast begins at the last value, so that no gap is between them.
    joined = np.concatenate([past[-1:], ahead])
    if interval is not None:
        low, high = (np.concatenate([past[-1:], end]) for end in interval)
        covered = when[len(past) - 1 : len(past) - 1 + len(low)]
        ax.fill_between(covered, low, high, color="0.85", label=interval_label)
    ax.plot(when[: len(past)], past, color="black", linewidth=2.0, label="so far")
    few = {"marker": "o", "markersize": 4} if len(ahead) <= _FEW else {}
    ax.plot(when[len(past) - 1 :], joined, color="C0", label="forecast", **few)
    ax.set(xlabel=what, ylabel=label, title=title)
    if what == "date":
        _show_dates(ax, when)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def backtest(
    result: Any,
    *,
    dates: Sequence[str] | None = None,
    label: str,
    title: str = "",
    last: int = 60,
    ax: Any = None,
) -> Any:
    """Draw the latest one-step forecasts of a backtest, with its intervals and persistence.

    Parameters
    ----------
    result : rnn_xp.forecasting.Backtest
        Its first series is drawn.
    dates : sequence of str, optional
        Dates of all rows of the series.
    label, title, last, ax : as for `forecast`

    Returns
    -------
    matplotlib Axes
    """
    part = result.series[0]
    when = [dates[row] if dates else str(row) for row in part.origins]
    name = result.scores[-1].name
    interval = None if part.low is None else (part.low[:, 0], part.high[:, 0])
    return forecast(
        when, part.truth[:, 0],
        {"persistence": part.baselines["persistence"][:, 0], name: part.forecast[:, 0]},
        label=label, title=f"{title}: one step ahead" if title else "one step ahead", last=last,
        interval=interval, interval_label=f"{100 * (result.level or 0.0):g} % interval", ax=ax,
    )  # fmt: skip


def step_errors(scores: Sequence[Any], *, unit: str = "", title: str = "", ax: Any = None) -> Any:
    """Draw the RMSE of a network and of the baselines for each step ahead.

    Parameters
    ----------
    scores : sequence of rnn_xp.forecasting.Score
        Scores of the baselines and, last, of the network.
    unit, title : str
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes() if ax is None else ax
    for i, score in enumerate(scores):
        steps = range(1, len(score.rmse_per_step) + 1)
        # Baselines are dashed and on top: where the network equals one, both can be seen.
        look: dict[str, Any] = {"color": f"C{i}", "linestyle": (0, (4, 3)), "zorder": 3}
        if score is scores[-1]:
            look = {"color": "black", "linewidth": 2.5}
        ax.plot(steps, score.rmse_per_step, marker="o", markersize=4, label=score.name, **look)
    ax.set(xlabel="steps ahead", ylabel=f"RMSE ({unit})" if unit else "RMSE", title=title)
    ax.set_ylim(bottom=0.0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def residuals(
    truth: _Floats, forecast: _Floats, *, unit: str = "", title: str = "", lags: int = 30,
    ax: Any = None,
) -> Any:  # fmt: skip
    """Draw the autocorrelation of the errors of one-step forecasts.

    Correlations outside the band could be predicted from earlier errors.

    Parameters
    ----------
    truth, forecast : ndarray (N,)
        Values in time order.
    unit, title : str
    lags : int
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes() if ax is None else ax
    errors = forecast - truth
    errors = errors - errors.mean()
    count = min(lags, len(errors) - 1)
    whole = float(errors @ errors) or 1.0
    correlations = [float(errors[k:] @ errors[:-k]) / whole for k in range(1, count + 1)]
    band = 1.96 / np.sqrt(len(errors))
    ax.axhspan(-band, band, color="0.9", label="95 % band of white noise")
    ax.axhline(0.0, color="0.5")
    ax.vlines(range(1, count + 1), 0.0, correlations, color="C0")
    ax.plot(
        range(1, count + 1), correlations, "o", color="C0", markersize=4, label="autocorrelation"
    )
    spread = f", standard deviation {np.std(errors):.4g}{f' {unit}' if unit else ''}"
    ax.set(
        xlabel="lag", ylabel="autocorrelation of the errors", title=f"{title}{spread}".lstrip(", ")
    )
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def gradient_flow(
    norms: Mapping[str, _Floats],
    terms: Mapping[str, _Floats],
    *,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draw how the gradient changes on its way back through time, on a logarithmic axis.

    Parameters
    ----------
    norms : mapping of str to ndarray (T,)
        ``|dL/dh_t|`` by layer, relative to the step at which backpropagation starts.
    terms : mapping of str to ndarray (T,)
        Norm of each step's term of dL/dw_hh, by layer, relative to the same step.
    title : str
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes() if ax is None else ax
    colors = {name: f"C{i}" for i, name in enumerate({**norms, **terms})}
    ax.axhline(1.0, color="0.8")
    for values, style, what in ((norms, "o-", "|dL/dh_t|"), (terms, "s:", "term of dL/dw_hh")):
        for name, entry in values.items():
            # A logarithmic axis has no zero, such as the first term's where h_0 is zero.
            y = np.where(np.isfinite(entry) & (entry > 0.0), entry, np.nan)
            steps = range(1, len(entry) + 1)
            ax.plot(steps, y, style, color=colors[name], markersize=4, label=f"{name}: {what}")
    ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="time step t", ylabel="gradient norm, relative to its start", title=title)
    ax.grid(alpha=0.3, which="both")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def sharpness(
    epochs: Sequence[int],
    values: Sequence[float],
    *,
    bound: float | None = None,
    title: str = "",
    ax: Any = None,
) -> Any:
    """Draw the largest eigenvalue of the Hessian by epoch, and the bound 2 / learning rate."""
    ax = _axes() if ax is None else ax
    ax.plot(epochs, values, "o-", color="C0", label="sharpness")
    if bound is not None:
        ax.axhline(bound, color="black", linestyle="--", label="2 / learning rate")
    ax.set(xlabel="epoch", ylabel="largest eigenvalue of the Hessian", yscale="log", title=title)
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    return ax


def to_png(ax: Any) -> bytes:
    """Return the figure of an Axes as the content of a PNG file."""
    data = io.BytesIO()
    ax.figure.savefig(data, format="png", dpi=120)
    return data.getvalue()


def _axes() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'rnn-xp[plot]'.") from error
    # Not pyplot: no window, no global state, nothing to close.
    return Figure(figsize=(9, 4.5), layout="constrained").subplots()


def _time_axis(dates: list[str]) -> tuple[list[Any], str]:
    if all(date.isdecimal() for date in dates):
        return [int(date) for date in dates], "row"
    try:
        moments = [datetime.fromisoformat(date) for date in dates]
        min(moments)
    except (ValueError, TypeError):  # not ISO 8601, or some with a time zone and some without
        return list(range(1, len(dates) + 1)), "step of the test part"
    return moments, "date"


def _show_dates(ax: Any, when: list[Any]) -> None:
    """Use short date labels, and write the full range, with the year, once."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    ax.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=9))
    if len(when) <= _FEW:
        ax.set_xticks(when)
    if len(when) == 1:
        ax.set_xticklabels([_plain(when[0])])
        return
    locator = ax.xaxis.get_major_locator()
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    ax.set_xlabel(f"date, {_plain(when[0])} .. {_plain(when[-1])}")


def _plain(moment: datetime) -> str:
    """Write a moment, omitting a time of midnight, which a mere date has."""
    return str(moment).removesuffix(" 00:00:00")
