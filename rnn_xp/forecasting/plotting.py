"""Plots: each function draws on a matplotlib Axes and returns it (extra ``plot``).

A colour has one meaning in all of them, see `rnn_xp.forecasting.looks`.
"""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.forecasting.looks import (
    BAND,
    COUNTED,
    FEW,
    LAYERS,
    NETWORK,
    TRUTH,
    VALIDATION,
    finish,
    legend_beside,
    log_axis,
    look_of,
    marked,
    new_axes,
    time_axis,
)

__all__ = [
    "backtest",
    "forecast",
    "gradient_flow",
    "loss",
    "outlook",
    "residuals",
    "step_errors",
    "to_png",
]

_Floats = NDArray[np.floating[Any]]

_TITLE, _MANY = 72, 40  # letters in a line of a title; markers that do not hide their line


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
    ax = new_axes() if ax is None else ax
    epochs = range(1, len(losses) + 1)
    ax.plot(epochs, losses, color=NETWORK, label="training")
    what = "training loss"
    if validation:
        lowest = int(np.argmin(validation))
        ax.plot(epochs, validation, color=VALIDATION, linestyle="--", label="validation")
        label = f"lowest, epoch {lowest + 1}"
        ax.plot(lowest + 1, validation[lowest], "o", color=VALIDATION, label=label)
        what = "loss"
    if max(losses, default=0.0) > 0.0:
        log_axis(ax)
    ax.set(xlabel="epoch", ylabel=f"{what} (mean squared error, scaled)", title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if len(losses) <= FEW:
        ax.lines[0].set_marker("o")
    if len(losses) == 1:
        ax.set_xlim(0.0, 2.0)
        if losses[0] > 0.0:
            ax.set_ylim(losses[0] / 10, losses[0] * 10)
    ax.grid(alpha=0.3, which="both")
    if validation:
        legend_beside(ax)
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
    ax = new_axes() if ax is None else ax
    when, what = time_axis(list(dates))
    when = when[-last:]
    if interval is not None:
        low, high = (end[-last:] for end in interval)
        ax.fill_between(when, low, high, color=BAND, label=interval_label)
    few = {"marker": "o", "markersize": 4} if len(when) <= FEW else {}
    ax.plot(when, truth[-last:], color=TRUTH, linewidth=2.0, label="truth", **few)
    for name, values in forecasts.items():
        ax.plot(when, values[-last:], label=name, **marked(look_of(name), len(when)))
    return finish(ax, when, what, label, title)


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
        Ends of an interval of the first k steps; the legend calls it ``interval_label``.
    label, title : str
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes() if ax is None else ax
    when: list[Any] = list(range(1 - len(past), len(ahead) + 1))
    what = "steps after the last value"
    if dates is not None and (axis := time_axis(list(dates)))[1] != COUNTED:
        when, what = axis
    # The forecast begins at the last value, so that no gap is between them.
    joined = np.concatenate([past[-1:], ahead])
    if interval is not None:
        low, high = (np.concatenate([past[-1:], end]) for end in interval)
        covered = when[len(past) - 1 : len(past) - 1 + len(low)]
        ax.fill_between(covered, low, high, color=BAND, label=interval_label)
    ax.plot(when[: len(past)], past, color=TRUTH, linewidth=2.0, label="so far")
    few = {"marker": "o", "markersize": 4} if len(ahead) <= FEW else {}
    line = {"color": NETWORK, "linewidth": 2.0, "label": "forecast", **few}
    ax.plot(when[len(past) - 1 :], joined, **line)
    return finish(ax, when, what, label, title)


def backtest(
    result: Any,
    *,
    dates: Sequence[str] | None = None,
    label: str,
    title: str = "",
    last: int = 60,
    baselines: Sequence[str] = ("persistence",),
    ax: Any = None,
) -> Any:
    """Draw the latest forecasts of a backtest, with their intervals and some baselines.

    Forecasts of one step are joined to a line. Of longer forecasts, those are drawn that follow
    each other without overlap, each as a path of its own.

    Parameters
    ----------
    result : rnn_xp.forecasting.Backtest
        Its first series is drawn.
    dates : sequence of str, optional
        Dates of all rows of the series.
    label : str
        Quantity and unit, for the vertical axis.
    title : str
        The name of the series, to which the title adds what is shown.
    last : int
        Number of rows to show.
    baselines : sequence of str
        Names of the baselines to draw.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    part, name, horizon = result.series[0], result.scores[-1].name, result.series[0].truth.shape[1]
    drawn = {each: part.baselines[each] for each in baselines} | {name: part.forecast}
    band = f"{100 * (result.level or 0.0):g} % interval"
    about = f"{title}: " if title else ""
    if horizon == 1:
        shown = min(last, len(part.origins))
        of = "last step" if shown == 1 else f"last {shown} steps"
        return forecast(
            [dates[row] if dates else str(row) for row in part.origins], part.truth[:, 0],
            {each: values[:, 0] for each, values in drawn.items()}, label=label, last=last,
            title=f"{about}one step ahead, {of} of the test part",
            interval=None if part.low is None else (part.low[:, 0], part.high[:, 0]),
            interval_label=band, ax=ax,
        )  # fmt: skip
    chosen = _apart(part.origins, horizon, max(last, horizon))
    first = int(part.origins[chosen[0]])
    rows = list(range(first, int(part.origins[chosen[-1]]) + horizon))
    when, what = time_axis([dates[row] if dates else str(row) for row in rows])
    ax = new_axes() if ax is None else ax
    truth = {int(part.origins[i]) + k: part.truth[i, k] for i in chosen for k in range(horizon)}
    known = [truth.get(row, np.nan) for row in rows]
    ax.plot(when, known, color=TRUTH, linewidth=2.0, label="truth")
    for number, i in enumerate(chosen):
        at = when[int(part.origins[i]) - first :][:horizon]
        if part.low is not None:
            once = band if number == 0 else None
            ax.fill_between(at, part.low[i], part.high[i], color=BAND, label=once)
        for each, values in drawn.items():
            look = marked(look_of(each), len(rows), markers=each == name)
            ax.plot(at, values[i], label=each if number == 0 else None, **look)
    paths = f"{len(chosen)} forecasts" if len(chosen) > 1 else "the last forecast"
    return finish(ax, when, what, label, f"{about}{paths} of {horizon} steps")


def _apart(origins: Sequence[int], horizon: int, last: int) -> list[int]:
    """Return the latest origins whose forecasts do not overlap, within the last rows."""
    chosen = [len(origins) - 1]
    for i in range(len(origins) - 2, -1, -1):
        near = origins[-1] + horizon - origins[i] <= last
        if near and origins[chosen[-1]] - origins[i] >= horizon:
            chosen.append(i)
    return chosen[::-1]


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
    ax = new_axes() if ax is None else ax
    for score in scores:
        steps = range(1, len(score.rmse_per_step) + 1)
        ax.plot(steps, score.rmse_per_step, markersize=5, label=score.name, **look_of(score.name))
    ax.set(
        xlabel="steps ahead",
        ylabel=f"RMSE ({unit})" if unit else "RMSE",
        title=f"{title}: error by step, lower is better".removeprefix(": "),
    )
    ax.set_ylim(bottom=0.0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    legend_beside(ax)
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
    ax = new_axes() if ax is None else ax
    errors = forecast - truth
    errors = errors - errors.mean()
    count = min(lags, len(errors) - 1)
    whole = float(errors @ errors) or 1.0
    correlations = [float(errors[k:] @ errors[:-k]) / whole for k in range(1, count + 1)]
    band = 1.96 / np.sqrt(len(errors))
    ax.axhspan(-band, band, color=BAND, label="95 % band of white noise")
    ax.axhline(0.0, color="0.5")
    ax.vlines(range(1, count + 1), 0.0, correlations, color=NETWORK)
    ax.plot(
        range(1, count + 1), correlations, "o", color=NETWORK, markersize=4, label="autocorrelation"
    )
    spread = f", standard deviation {np.std(errors):.4g}{f' {unit}' if unit else ''}"
    ax.set(
        xlabel="lag", ylabel="autocorrelation of the errors", title=f"{title}{spread}".lstrip(", ")
    )
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    legend_beside(ax)
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
    ax = new_axes() if ax is None else ax
    looks = dict(zip({**norms, **terms}, itertools.cycle(LAYERS), strict=False))
    ax.axhline(1.0, color="0.8")
    for values, style, of_terms in ((norms, "-", False), (terms, ":", True)):
        for name, entry in values.items():
            color, marker = looks[name]
            # A logarithmic axis has no zero, such as the first term's where h_0 is zero.
            drawn = np.isfinite(entry) & (entry > 0.0)
            norm = "|dL/dpred_t|" if name == "prediction" else "|dL/dh_t|"
            label = f"{name}: {'term of dL/dw_hh' if of_terms else norm}"
            zeros = [str(t) for t in np.flatnonzero(entry == 0.0) + 1]
            if zeros:
                label += f"\n(0 at t = {', '.join(zeros[:3])}{', ...' if zeros[3:] else ''})"
            ax.plot(
                range(1, len(entry) + 1), np.where(drawn, entry, np.nan), color=color,
                linestyle=style, marker=marker, markersize=4, label=label,
                markerfacecolor="white" if of_terms else color,
                markevery=max(1, len(entry) // _MANY),
            )  # fmt: skip
    log_axis(ax)
    ax.xaxis.get_major_locator().set_params(integer=True)
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, _TITLE)]
    ax.set(xlabel="time step t", ylabel="gradient norm, relative to the last step")
    ax.set_title("\n".join(lines))
    ax.grid(alpha=0.3, which="both")
    legend_beside(ax)
    return ax


def to_png(ax: Any) -> bytes:
    """Return the figure of an Axes as the content of a PNG file."""
    data = io.BytesIO()
    ax.figure.savefig(data, format="png", dpi=120)
    return data.getvalue()
