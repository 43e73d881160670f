"""Dates written as text: parsing, spacing and continuation.

A column of dates is read as a whole. Every format in which all cells can be read is tried; if the
order of day and month is ambiguous, the reading in which time goes forward is chosen, and if time
goes forward in both readings, the column is refused.
"""

from __future__ import annotations

import calendar
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

__all__ = [
    "Dates",
    "Gap",
    "Spacing",
    "describe_gaps",
    "find_spacing",
    "following_dates",
    "is_date",
    "read_dates",
]

# strptime's words; each is tried on the whole column. ISO 8601 is read by datetime itself.
_FORMATS = (
    "%Y-%m", "%Y", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y.%m.%d",
    "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S",
    "%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S",
    "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d %B %Y", "%B %d, %Y",
    "%b %Y", "%B %Y", "%d-%b-%Y", "%b-%Y", "%Y-%b-%d",
)  # fmt: skip
_QUARTER = re.compile(r"(\d{4})([- ]?)[Qq]([1-4])")
# A day and a month without a year, such as "1 Jan": a date, though nobody knows its order.
_DAY_AND_MONTH = re.compile(
    r"(\d{1,2}\.? )?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?( \d{1,2})?", re.I
)
_DAY = timedelta(days=1)
# Holidays are no gaps in a series of business days; a longer silence is one.
_LONGEST_HOLIDAYS = 7 * _DAY


class Dates(NamedTuple):
    """A column of dates: the moments, and the format in which they were written.

    ``format`` is a strptime format; "iso", followed by the separator of date and time, the
    precision and, if the dates end in it, "Z"; or "quarter", followed by the text between the year
    and the Q.
    """

    moments: tuple[datetime, ...]
    format: str

    def write(self, moment: datetime) -> str:
        """Write a moment in the format of the column."""
        if self.format.startswith("quarter"):
            return f"{moment.year}{self.format[7:]}Q{(moment.month + 2) // 3}"
        if not self.format.startswith("iso"):
            return moment.strftime(self.format)
        separator, unit = self.format[3:4], self.format[4:].removesuffix("Z")
        text = moment.isoformat(separator, unit) if separator else moment.date().isoformat()
        return text.replace("+00:00", "Z") if self.format.endswith("Z") else text


class Gap(NamedTuple):
    """Two successive dates between which others are missing."""

    before: int
    """Index of the date before the gap."""
    missing: int
    """Number of missing steps."""


@dataclass(frozen=True)
class Spacing:
    """Even spacing of dates.

    Attributes
    ----------
    step : timedelta
        Time between two dates; without meaning unless ``months`` is 0.
    months : int
        Number of months between two dates, or 0.
    month_ends : bool
        True if every date is the last day of its month.
    weekdays : bool
        True if Saturdays and Sundays are left out.
    gaps : tuple of Gap
        The places where steps are missing.
    """

    step: timedelta
    months: int = 0
    month_ends: bool = False
    weekdays: bool = False
    gaps: tuple[Gap, ...] = ()

    @property
    def missing(self) -> int:
        """Total number of steps that are missing in all gaps."""
        return sum(gap.missing for gap in self.gaps)

    def after(self, moment: datetime, day: int | None = None) -> datetime:
        """Return the date that follows; ``day`` is the usual day of the month."""
        if self.months:
            return _add_months(moment, self.months, 31 if self.month_ends else day or moment.day)
        moment += self.step
        while self.weekdays and moment.weekday() >= 5:
            moment += _DAY
        return moment


def is_date(cell: str) -> bool:
    """Return True if a single cell, by itself, reads like a date.

    Examples
    --------
    >>> is_date("2024-01-31"), is_date("1 Jan"), is_date("store 7"), is_date("Total")
    (True, True, False, False)
    """
    if len(cell) >= 10 and cell[4] == "-":  # ISO 8601, which most files have, is read in no time
        with contextlib.suppress(ValueError):
            return bool(datetime.fromisoformat(cell))
    return bool(_DAY_AND_MONTH.fullmatch(cell)) or next(_readings([cell]), None) is not None


def read_dates(cells: Sequence[str]) -> Dates | None:
    """Read a column of dates.

    Parameters
    ----------
    cells : sequence of str
        The dates in the order of the rows, none of them missing.

    Returns
    -------
    Dates or None
        None if no format fits all of them.

    Raises
    ------
    ValueError
        If day and month could be exchanged and time would go forward in both readings.

    Examples
    --------
    >>> read_dates(["01/31/2024", "02/01/2024"]).moments[1].isoformat()
    '2024-02-01T00:00:00'
    """
    readings = list(_readings(cells))
    forward = [dates for dates in readings if _forward(dates.moments)]
    if len({dates.moments for dates in forward}) > 1:
        first, second = (dates.moments[-1].strftime("%d %B") for dates in forward[:2])
        raise ValueError(
            f"{cells[-1]!r} can be {first} or {second}, and the dates are in order either way. "
            "Write dates as 2024-12-31."
        )
    return next(iter(forward or readings), None)


def find_spacing(moments: Sequence[datetime]) -> Spacing | None:
    """Determine the spacing of dates.

    Parameters
    ----------
    moments : sequence of datetime
        Strictly increasing.

    Returns
    -------
    Spacing or None
        None for fewer than two dates, or if they are not evenly spaced apart from gaps.

    Examples
    --------
    >>> days = [datetime(2024, 1, day) for day in (1, 2, 3, 7, 8)]
    >>> spacing = find_spacing(days)
    >>> spacing.step.days, spacing.missing
    (1, 3)
    """
    if len(moments) < 2:
        return None
    steps = [b - a for a, b in itertools.pairwise(moments)]
    step = min(steps)
    weekdays = step == _DAY and all(m.weekday() < 5 for m in moments) and _spans_weekend(moments)
    if weekdays:
        missing = [_weekdays_between(a, b) for a, b in itertools.pairwise(moments)]
        if 2 * missing.count(0) <= len(steps):
            return None
        silent = (k for k, s in enumerate(steps) if s > _LONGEST_HOLIDAYS)
        return Spacing(step, weekdays=True, gaps=tuple(Gap(k, missing[k]) for k in silent))
    if step >= 28 * _DAY:
        return _monthly(moments)
    # Most of the rows must be there: otherwise any dates are days with gaps between them.
    if any(s % step for s in steps) or 2 * steps.count(step) <= len(steps):
        return None
    gaps = tuple(Gap(k, s // step - 1) for k, s in enumerate(steps) if s != step)
    return Spacing(step, gaps=gaps)


def following_dates(cells: Sequence[str] | None, steps: int) -> list[str] | None:
    """Continue a column of dates, in its own format.

    Parameters
    ----------
    cells : sequence of str or None
        The dates so far.
    steps : int
        Number of dates to add.

    Returns
    -------
    list of str or None
        None if there are no dates, or if they are not evenly spaced.

    Examples
    --------
    >>> following_dates(("2024-01-04", "2024-01-05", "2024-01-08"), 2)
    ['2024-01-09', '2024-01-10']
    >>> following_dates(("2024-01-31", "2024-02-29", "2024-03-31"), 1)
    ['2024-04-30']
    """
    dates = read_dates(cells) if cells else None
    spacing = None if dates is None else find_spacing(dates.moments)
    if dates is None or spacing is None:
        return None
    moment, day, following = dates.moments[-1], max(m.day for m in dates.moments[-12:]), []
    for _ in range(steps):
        moment = spacing.after(moment, day)
        following.append(dates.write(moment))
    return following


def describe_gaps(cells: Sequence[str], spacing: Spacing | None) -> str:
    """Describe which steps are missing between the dates; empty if none are.

    Examples
    --------
    >>> days = ("2024-04-08", "2024-04-09", "2024-05-10", "2024-05-11")
    >>> describe_gaps(days, find_spacing(read_dates(days).moments))
    '30 steps are missing between 2024-04-09 and 2024-05-10'
    """
    if spacing is None or not spacing.gaps:
        return ""
    widest = max(spacing.gaps, key=lambda gap: gap.missing)
    where = f"between {cells[widest.before]} and {cells[widest.before + 1]}"
    steps = "1 step is" if spacing.missing == 1 else f"{spacing.missing} steps are"
    if len(spacing.gaps) == 1:
        return f"{steps} missing {where}"
    return f"{steps} missing in {len(spacing.gaps)} places, most of them ({widest.missing}) {where}"


def _readings(cells: Sequence[str]) -> Iterator[Dates]:
    """Yield every reading that fits all cells."""
    try:
        if all(len(cell) >= 10 and cell[4:5] == "-" for cell in cells):
            moments = tuple(map(datetime.fromisoformat, cells))
            longest = max(cells, key=len)
            if len({moment.tzinfo is None for moment in moments}) == 1:  # else they have no order
                mark = "Z" if longest.endswith("Z") else ""
                yield Dates(moments, "iso" + longest[10:11] + _unit(longest) + mark)
    except ValueError:
        pass
    quarters = [_QUARTER.fullmatch(cell) for cell in cells]
    if all(quarters):
        parts = [match.groups() for match in quarters if match]
        months = tuple(datetime(int(year), 3 * int(q) - 2, 1) for year, _, q in parts)
        yield Dates(months, "quarter" + parts[0][1])
    for pattern in _FORMATS:
        try:
            yield Dates(tuple(datetime.strptime(cell, pattern) for cell in cells), pattern)
        except ValueError:
            continue


def _unit(cell: str) -> str:
    """Return the precision of a cell, as `datetime.isoformat` takes it."""
    clock = re.split(r"[+Z-]", cell[11:])[0]
    if "." in clock:
        return "microseconds"
    return {0: "", 1: "minutes"}.get(clock.count(":"), "seconds")


def _forward(moments: Sequence[datetime]) -> bool:
    return all(a < b for a, b in itertools.pairwise(moments))


def _spans_weekend(moments: Sequence[datetime]) -> bool:
    return any(b.date() - a.date() > b.weekday() * _DAY for a, b in itertools.pairwise(moments))


def _weekdays_between(first: datetime, last: datetime) -> int:
    days = range(1, (last - first).days)
    return sum((first + day * _DAY).weekday() < 5 for day in days)


def _monthly(moments: Sequence[datetime]) -> Spacing | None:
    """Return a spacing by months, on the same day or on the last day of each month."""
    ends = all(m.day == calendar.monthrange(m.year, m.month)[1] for m in moments)
    day = max(m.day for m in moments)
    clock = {(m.hour, m.minute, m.second) for m in moments}
    expected = [min(day, calendar.monthrange(m.year, m.month)[1]) for m in moments]
    if len(clock) > 1 or not (ends or [m.day for m in moments] == expected):
        days = Counter(b - a for a, b in itertools.pairwise(moments))
        return Spacing(next(iter(days))) if len(days) == 1 else None
    numbers = [12 * m.year + m.month for m in moments]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    months = min(steps)
    if any(s % months for s in steps) or 2 * steps.count(months) <= len(steps):
        return None
    gaps = tuple(Gap(k, s // months - 1) for k, s in enumerate(steps) if s != months)
    return Spacing(timedelta(0), months, ends and months > 0, gaps=gaps)


def _add_months(moment: datetime, months: int, day: int) -> datetime:
    year, month = divmod(12 * moment.year + moment.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return moment.replace(year=year, month=month + 1, day=min(day, last))
