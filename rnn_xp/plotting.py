"""Pictures of a run (extra ``plot``). Each function draws on a matplotlib Axes and returns it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["forecast", "gradient_flow", "loss", "to_png"]

_Floats = NDArray[np.floating[Any]]


def loss(losses: Sequence[float], *, title: str = "", ax: Any = None) -> Any:
    """Draw the training loss by epoch, on a logarithmic axis.

    Parameters
    ----------
    losses : sequence of float
        As in ``FitResult.history["loss"]``.
    title : str
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes() if ax is None else ax
    ax.semilogy(range(1, len(losses) + 1), losses, color="C0", label="training loss")
    ax.set(xlabel="epoch", ylabel="training loss (mean squared error, scaled)", title=title)
    if len(losses) == 1:
        ax.lines[0].set_marker("o")
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
    ax: Any = None,
) -> Any:
    """Draw the latest forecasts against the truth and against persistence.

    A forecast that is merely the last value runs one step behind the truth, like persistence;
    only beside it can that be seen.

    Parameters
    ----------
    dates : sequence of N str
        ISO dates, or anything else to number the steps.
    truth : ndarray (N,)
    forecasts : mapping of str to ndarray (N,)
    label : str
        Quantity and unit, for the vertical axis.
    title : str
    last : int
        How many steps to show.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _axes() if ax is None else ax
    when, what = _time_axis(list(dates)[-last:])
    ax.plot(when, truth[-last:], color="black", linewidth=2.0, label="truth")
    for i, (name, values) in enumerate(forecasts.items()):
        style = ":" if name == "persistence" else "-"
        color = "0.5" if name == "persistence" else f"C{i}"
        ax.plot(when, values[-last:], style, color=color, label=name)
    ax.set(xlabel=what, ylabel=label, title=title)
    ax.grid(alpha=0.3)
    ax.legend()
    if what == "date":
        ax.figure.autofmt_xdate()
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
        |dL/dh_t| by layer, relative to the step where the way back begins.
    terms : mapping of str to ndarray (T,)
        By layer, the norm of each step's term of dL/dw_hh, relative to the same step.
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
    ax.set(xlabel="time step t", ylabel="norm, relative to where the way back begins", title=title)
    ax.grid(alpha=0.3, which="both")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
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
    try:
        return [date.fromisoformat(day) for day in dates], "date"
    except ValueError:
        return list(range(len(dates))), "step"
