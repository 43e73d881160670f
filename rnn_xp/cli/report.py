"""One file that says how a network was judged: scores, pictures, settings; to read and to send.

Pictures are SVG by matplotlib, inside the file. The scripts of plotly 7.1.0 (4.8 MB) and of bokeh
3.9.2 (1.3 MB), which would have to lie in it, are larger than the whole page may be (a megabyte).
"""

from __future__ import annotations

import dataclasses
import html
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from rnn_xp import __version__
from rnn_xp._checks import install
from rnn_xp.cli.run_folder import column_label
from rnn_xp.data.datasets import Series
from rnn_xp.forecasting import Backtest, plotting

__all__ = ["NO_PICTURES", "about", "figure", "fill", "report", "to_svg"]

_LATEST = 60  # steps of the first picture
_SHOWN = {"metrics", "scores", "per_step", "verdict", "warning", "follows_last_value"}  # elsewhere
NO_PICTURES = f"Pictures need matplotlib: {install('plot')}."
"""What stands for the pictures without it."""


def report(
    series: Series,
    result: Backtest,
    facts: Mapping[str, Any],
    history: Mapping[str, Sequence[float]] | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """Return the page as HTML, without a reference to anything outside it.

    Parameters
    ----------
    series : Series
    result : Backtest
        The scores and forecasts of this one series.
    facts : mapping
        Settings, digests and versions, nested; written as a table.
    history : mapping, optional
        Losses of the training, as in ``FitResult.history``.
    remarks : sequence of str
        Further notes, below the verdict.
    """
    *scores, verdict = result.table(series.unit)  # of a table the verdict is the last line
    return fill(
        f"{series.name}, {column_label(series)}",
        verdict.removeprefix("verdict").strip(),
        scores,
        [*result.notes, *remarks],
        _pictures(series, result, history),
        facts,
    )


def fill(
    title: str,
    verdict: str,
    scores: Sequence[str],
    notes: Sequence[str],
    pictures: Iterable[str],
    facts: Mapping[str, Any],
) -> str:
    """Return a page of these parts: lines of text, and pictures that are HTML."""
    parts = {
        "TITLE": html.escape(title),
        "VERDICT": html.escape(verdict),
        "SCORES": html.escape("\n".join(scores)),
        "NOTES": "\n".join(f"<p>{html.escape(note)}</p>" for note in notes),
        "PICTURES": "\n".join(pictures),
        "FACTS": "\n".join(
            f'<tr><th scope="row">{html.escape(key)}</th><td>{html.escape(value)}</td></tr>'
            for key, value in _flat(facts)
        ),
        "VERSION": html.escape(__version__),
    }
    template = resources.files("rnn_xp.cli").joinpath("report.html").read_text("utf-8")
    return re.sub("@([A-Z]+)@", lambda match: parts[match[1]], template)


def about(series: Series, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a report that has no run folder behind it."""
    plain = {k: str(v) for k, v in settings.items() if v is not None and not callable(v)}
    dates = series.dates or (None,)
    data = {"name": series.name, "column": series.column, "unit": series.unit,
            "sha256": series.sha256, "rows": len(series.values),
            "first": dates[0], "last": dates[-1]}  # fmt: skip
    return {"data": data, "settings": plain, "rnn_xp": __version__, "numpy": np.__version__}


def to_svg(ax: Any, label: str) -> str:
    """Return the figure of an Axes as an SVG element, with a label for who cannot see it.

    Coordinates have one decimal of a point, so that 10,000 values take some hundred kilobytes.
    """
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        ax.figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # alike in all figures, and nothing refers to them
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _pictures(
    series: Series, result: Backtest, history: Mapping[str, Sequence[float]] | None
) -> Iterator[str]:
    (part,), unit, column = result.series, series.unit, column_label(series)
    label = f"{column} ({unit})" if unit else column
    whole = int(part.origins[-1] - part.origins[0]) + part.truth.shape[1]
    try:
        parts = [(_LATEST, "the latest"), (whole, "the whole test part")]
        for last, what in parts if whole > _LATEST else parts[1:]:
            ax = plotting.backtest(
                result, dates=series.dates, label=label, title=series.name, last=last
            )
            yield figure(ax, f"Forecast, truth and interval: {what}", zoom=last != _LATEST)
        if part.truth.shape[1] > 1:
            drawn = [score for score in result.scores if score.name not in ("drift", "mean")]
            yield figure(plotting.step_errors(drawn, unit=unit), "Errors by steps ahead")
        errors = plotting.residuals(part.truth[:, 0], part.forecast[:, 0], unit=unit)
        yield figure(errors, "Autocorrelation of the errors")
        if history is not None:
            losses = plotting.loss(history["loss"], history.get("validation_loss"))
            yield figure(losses, "Losses of the training")
    except ImportError:
        yield f"<p>{html.escape(NO_PICTURES)}</p>"


def figure(ax: Any, label: str, *, zoom: bool = False) -> str:
    """Return a picture with its caption as HTML; with a slider if it can be zoomed."""
    slider = (
        '<label>zoom <input type="range" min="1" max="10" step="0.5" value="1" oninput="'
        "this.closest('figure').style.setProperty('--zoom', this.value)\"></label>"
    )
    view = f'<div class="view" tabindex="0" role="region" aria-label="{html.escape(label)}">'
    caption = f"<figcaption>{html.escape(label)} {slider if zoom else ''}</figcaption>"
    return f"<figure>{caption}{view}{to_svg(ax, label)}</div></figure>"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and values of nested facts; results that the page shows are left out."""
    for key, value in facts.items():
        if not prefix and key in _SHOWN:
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float) or (prefix == "" and key == "argv"):
            yield f"{prefix}{key}", " ".join(value) if isinstance(value, list) else str(value)
