"""How plots look: one colour for one meaning, legends beside the curves, dates and logarithms.

The truth is black, the network vermilion, and each baseline has its own colour, line style and
marker. The colours are those of Okabe and Ito [1]_, which differ for the colour-blind as well.

References
----------
.. [1] M. Okabe, K. Ito, "Color universal design", 2002, https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rnn_xp._checks import install

__all__ = [
    "BAND", "COUNTED", "FEW", "LAYERS", "NETWORK", "TRUTH", "VALIDATION", "finish", "legend_beside",
    "log_axis", "look_of", "marked", "new_axes", "time_axis",
]  # fmt: skip

FEW = 10
"""Points, at most, that need a marker each."""

COUNTED = "step of the test part"
"""The horizontal axis of dates that cannot be read."""

TRUTH, NETWORK, VALIDATION, BAND = "#000000", "#D55E00", "#0072B2", "#D9D9D9"
_DOTTED, _DASHED, _LONG, _DASHDOT = (0, (1, 1.5)), (0, (4, 3)), (0, (8, 3)), (0, (6, 2, 1, 2))
_BASELINES = {  # by the first word of the name: colour, line style, marker
    "persistence": ("#4D4D4D", _DASHED, "s"),
    "seasonal": ("#009E73", _DASHDOT, "^"),
    "linear": ("#0072B2", _LONG, "D"),
    "drift": ("#56B4E9", _DOTTED, "v"),
    "mean": ("#F0E442", _DASHDOT, "x"),
}
LAYERS = [(NETWORK, "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#56B4E9", "D"), ("#4D4D4D", "v")]


def look_of(name: str) -> dict[str, Any]:
    """Return the colour, line style and marker of a forecast, as arguments of ``Axes.plot``.

    Parameters
    ----------
    name : str
        Name of a score, such as "persistence", "seasonal(27)" or "rnn".

    Examples
    --------
    >>> look_of("rnn")["color"], look_of("persistence")["color"]
    ('#D55E00', '#4D4D4D')
    """
    kind = name.replace("(", " ").split()[0]
    if kind not in _BASELINES:
        return {"color": NETWORK, "linestyle": "-", "marker": "o", "linewidth": 2.0}
    color, style, marker = _BASELINES[kind]
    # Baselines are dashed and on top: where the network equals one, both can be seen.
    return {
        "color": color,
        "linestyle": style,
        "marker": marker,
        "zorder": 4 if kind == "persistence" else 3,
    }


def new_axes() -> Any:
    """Make a figure and return its axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"Plots need matplotlib: {install('plot')}.") from error
    # Not pyplot: no window, no global state, nothing to close.
    return Figure(figsize=(9, 4.5), layout="constrained").subplots()


def legend_beside(ax: Any) -> None:
    """Put the legend beside the axes, where it hides no curve."""
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def marked(look: Mapping[str, Any], points: int, *, markers: bool = True) -> dict[str, Any]:
    """Return a look with markers that are few enough to tell lines apart, and hide none."""
    if not markers:
        return {**look, "marker": ""}
    return {**look, "markersize": 4, "markevery": 1 if points <= FEW else max(1, points // 8)}


def finish(ax: Any, when: list[Any], what: str, label: str, title: str) -> Any:
    """Label the axes of a series, and put the legend beside it."""
    ax.set(xlabel=what, ylabel=label, title=title)
    if what == "date":
        _show_dates(ax, when)
    else:
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    legend_beside(ax)
    return ax


def log_axis(ax: Any) -> None:
    """Use a logarithmic vertical axis with plain numbers, such as 0.6, and not 6 x 10^-1."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def time_axis(dates: list[str]) -> tuple[list[Any], str]:
    """Return moments or numbers for a horizontal axis, and what they are."""
    if all(date.isdecimal() for date in dates):
        return [int(date) for date in dates], "row"
    try:
        # A month, such as 1949-01, is drawn at its first day.
        moments = [
            datetime.fromisoformat(f"{date}-01" if len(date) == 7 else date) for date in dates
        ]
        min(moments)
    except (ValueError, TypeError):  # not ISO 8601, or some with a time zone and some without
        return list(range(1, len(dates) + 1)), COUNTED
    return moments, "date"


def _show_dates(ax: Any, when: list[Any]) -> None:
    """Use short date labels, and write the full range, with the year, once."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    ax.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=9))
    if len(when) <= FEW:
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
