"""A forecast as text, CSV, plot and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

from rnn_xp.cli.run_folder import column_label
from rnn_xp.data.datasets import Series
from rnn_xp.forecasting import plotting

__all__ = ["Interval", "Outlook"]

_SHOWN = 60  # past values in a picture


@dataclasses.dataclass(frozen=True)
class Interval:
    """The ends of intervals of one nominal coverage, for the first steps, up to the horizon."""

    level: float
    low: Any
    high: Any

    @property
    def percent(self) -> str:
        """The level in percent, as columns and lines name it."""
        return f"{100 * self.level:g}"


@dataclasses.dataclass(frozen=True)
class Outlook:
    """A forecast as text, CSV, plot and JSON.

    Attributes
    ----------
    series : Series
    values : ndarray (steps,)
    dates : list of str or None
    bounds : list of Interval
        Empty if there are none.
    notes : list of str
    """

    series: Series
    values: Any
    dates: list[str] | None
    bounds: list[Interval]
    notes: list[str]

    def _bounds_of(self, step: int) -> list[tuple[float, float]]:
        return [
            (float(each.low[step]), float(each.high[step]))
            for each in self.bounds
            if step < len(each.low)
        ]

    def lines(self) -> list[str]:
        """Return the lines to print."""
        series = self.series
        on_date = f" on {series.dates[-1]}" if series.dates else ""
        unit = f" {series.unit}" if series.unit else ""
        last = f"last value {series.values[-1]:g}{unit}{on_date}"
        lines = [f"data     {series.name}: {len(series.values)} rows, {last}"]
        if self.bounds:
            lines.append(f"interval {', '.join(f'{each.percent} %' for each in self.bounds)}")
        for step, value in enumerate(self.values):
            interval = "".join(f"  [{low:.6g}, {high:.6g}]" for low, high in self._bounds_of(step))
            lines.append(
                f"{self.dates[step] if self.dates else step + 1:>10}  {value:.6g}{interval}"
            )
        return [*lines, *(f"note     {note}" for note in self.notes)]

    def csv(self) -> bytes:
        """Return a CSV file with a row for each step."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        dated = ["date"] if self.dates else []
        several = len(self.bounds) > 1
        ends = [
            f"{end}_{each.percent}" if several else end
            for each in self.bounds
            for end in ("low", "high")
        ]
        writer.writerow(["step", *dated, "forecast", *ends])
        for step, value in enumerate(self.values):
            date = [self.dates[step]] if self.dates else []
            bounds = [f"{end:.9g}" for pair in self._bounds_of(step) for end in pair]
            row = bounds or [""] * len(ends)
            writer.writerow([step + 1, *date, f"{value:.9g}", *row])
        return text.getvalue().encode()

    def png(self) -> bytes:
        """Return a picture of the latest values and the forecast."""
        series, dates = self.series, self.dates
        unit = f" ({series.unit})" if series.unit else ""
        ahead = "1 step" if len(self.values) == 1 else f"{len(self.values)} steps"
        widest = max(self.bounds, key=lambda each: each.level, default=None)
        shown = (*series.dates[-_SHOWN:], *dates) if series.dates and dates else None
        return plotting.to_png(
            plotting.outlook(
                series.values[-_SHOWN:], self.values, dates=shown,
                title=f"{series.name}: {ahead} after the last value",
                label=f"{column_label(series)}{unit}",
                interval=None if widest is None else (widest.low, widest.high),
                interval_label=f"{widest.percent} % interval" if widest else "",
            )
        )  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """Return what JSON says."""
        summary = {"data": self.series.name, "dates": self.dates, "forecast": self.values.tolist()}
        intervals = [
            {"level": each.level, "low": each.low.tolist(), "high": each.high.tolist()}
            for each in self.bounds
        ]
        if len(intervals) == 1:
            return {**summary, **intervals[0]}
        return {**summary, "intervals": intervals} if intervals else summary
