"""A picture of what one forecast rests on: its input steps, and the windows it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp.forecasting.looks import NETWORK, VALIDATION, new_axes, time_axis

__all__ = ["draw_attribution"]

_LABELS = 8  # dates that fit below the bars


def draw_attribution(
    steps: Sequence[str],
    parts: NDArray[np.floating[Any]],
    dates: Sequence[str],
    influence: NDArray[np.floating[Any]],
    *,
    named: Sequence[int],
    title: str = "",
    unit: str = "",
) -> Any:
    """Draw integrated gradients as bars, and the influence of the training windows below.

    Parameters
    ----------
    steps : sequence of T str
        Dates of the input steps.
    parts : ndarray (T,)
        Their attributions, in ``unit``.
    dates : sequence of N str
        Dates of the values that the training windows forecast.
    influence : ndarray (N,)
    named : sequence of int
        Numbers of the training windows whose dates are written.
    title, unit : str

    Returns
    -------
    matplotlib Axes
        Those of the bars.
    """
    figure = new_axes().figure
    figure.clear()
    figure.set_size_inches(9, 6.5)
    above, below = figure.subplots(2, 1)
    colors = [NETWORK if part >= 0 else VALIDATION for part in parts]
    above.bar(range(len(steps)), parts, color=colors)
    above.axhline(0.0, color="0.4", linewidth=0.8)
    every = -(-len(steps) // _LABELS)
    places = list(range(len(steps) - 1, -1, -every))  # the latest step is labelled
    above.set_xticks(places, [steps[k] for k in places], fontsize=8)
    in_unit = f", {unit}" if unit else ""
    above.set(xlabel="input step", ylabel=f"attribution{in_unit}", title=title)
    above.grid(alpha=0.3, axis="y")

    when, what = time_axis(list(dates))
    if what not in ("date", "row"):
        what = "training window"
    below.vlines(when, 0.0, influence, color="0.6", linewidth=0.8)
    below.axhline(0.0, color="0.4", linewidth=0.8)
    for number in named:
        score = influence[number]
        color = NETWORK if score >= 0 else VALIDATION
        below.plot([when[number]], [score], "o", color=color, markersize=5)
        below.annotate(
            dates[number], (when[number], score), textcoords="offset points", fontsize=8,
            xytext=(-6, 3 if score >= 0 else -11), ha="right",
        )  # fmt: skip
    below.margins(x=0.08, y=0.15)
    below.set(
        xlabel=f"{what} that a training window forecasts",
        ylabel="influence on the loss\n(above 0: a step on it helps)",
    )
    below.grid(alpha=0.3, axis="y")
    return above
