"""The times of the rows of a series, and how they continue.

pandas is not imported unless one of its indices is given.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from rnn_xp.data.dates import Spacing, describe_gaps, find_spacing, read_dates

__all__ = ["Times", "load_times", "read_times"]


@dataclass(frozen=True)
class Times:
    """The times of the rows of a series.

    Attributes
    ----------
    index : pandas Index
        The times in ascending order; of a series that was read from a file, only the last one.
    rule : object
        How the times continue: a pandas offset, a `Spacing` with the usual day of the month, a
        number, a Timedelta, or None if nothing regular is known.
    """

    index: Any
    known_rule: Any = None

    @cached_property
    def rule(self) -> Any:
        """The rule by which the times continue, see above."""
        return _rule(self.index) if self.known_rule is None else self.known_rule

    def before(self, end: int) -> Times:
        """Return the times of the rows before the given one."""
        return Times(self.index[:end])

    def following(self, steps: int) -> Any:
        """Return the index of the steps that follow; None if nothing regular is known."""
        pandas, last, rule = importlib.import_module("pandas"), self.index[-1], self.rule
        if rule is None:
            return None
        if isinstance(self.index, pandas.PeriodIndex):
            return pandas.period_range(last + 1, periods=steps, freq=rule)
        if isinstance(self.index, pandas.TimedeltaIndex):
            return pandas.timedelta_range(last + rule, periods=steps, freq=rule)
        if isinstance(rule, int):
            return pandas.RangeIndex(last + rule, last + rule * (steps + 1), rule)
        if isinstance(rule, tuple):
            spacing, day = rule
            return pandas.DatetimeIndex(list(_after(last, spacing, day, steps)))
        return pandas.date_range(last, periods=steps + 1, freq=rule)[1:]

    def counted(self, steps: int) -> Any:
        """Return the index of the steps that follow; counted from 1 if nothing is known of it."""
        index = self.following(steps)
        if index is None:
            return importlib.import_module("pandas").RangeIndex(1, steps + 1)
        return index

    def describe(self) -> dict[str, Any]:
        """Return a description for `load_times` that JSON can hold.

        Raises
        ------
        ValueError
            If the times that `load_times` continues would differ.
        """
        try:
            about = _describe(self)
            again = load_times(about).counted(3)
        except Exception as error:  # of pandas, which may refuse any text of its own
            reason = f" ({error})"
        else:
            if again.equals(self.counted(3)) and again.dtype == self.counted(3).dtype:
                return about
            reason = ""
        raise ValueError(
            f"a file cannot hold how the times of the series continue after {self.index[-1]}, by "
            f"{self.rule!r}{reason}. The forecaster is unchanged: apply(...) to the same values "
            "with another index, or without one, gives a forecaster that can be saved."
        )


def read_times(index: Any, what: str = "") -> Times:
    """Read a pandas index, and check that it is in time order; text becomes dates.

    Parameters
    ----------
    index : pandas Index
    what : str, optional
        Whose times they are, for messages about features. The times of a series are also checked
        for gaps.

    Raises
    ------
    ValueError
        If there are several levels, or times are missing, repeated, not in order or no times.

    Warns
    -----
    UserWarning
        If dates of a series are missing.
    """
    pandas = importlib.import_module("pandas")
    of = f"{what}: " if what else ""
    if index.nlevels > 1:
        raise ValueError(
            f"{of}the index has {index.nlevels} levels. One series has one date for each row: make "
            "columns of the series, as with frame.unstack(), or a dict of series."
        )
    missing = np.flatnonzero(index.isna())
    if missing.size:
        raise ValueError(
            f"{of}a date is missing: row {missing[0]} of the index is {index[missing[0]]}."
        )
    if any(isinstance(label, str) for label in index[:1]):
        dates = read_dates([str(label).strip() for label in index])
        if dates is None:
            raise ValueError(
                f"{of}the index holds text ({index[0]!r}), whose order in time is unknown. Give "
                "dates such as pandas.to_datetime(index), or rows: series.reset_index(drop=True)."
            )
        index = pandas.DatetimeIndex(dates.moments, name=index.name)
    elif index.dtype == object and len(index) and isinstance(index[0], date):
        index = pandas.DatetimeIndex(index)
    if not index.is_unique:
        raise ValueError(f"{of}duplicate dates: {index[index.duplicated()][0]} is there twice.")
    if not index.is_monotonic_increasing:
        at = next(k for k in range(1, len(index)) if index[k] < index[k - 1])
        raise ValueError(
            f"{of}dates are not in order: {index[at]} comes after {index[at - 1]}. Sort them first."
        )
    if not what and (gaps := describe_gaps(index, _spacing(index))):
        warnings.warn(
            f"{gaps}; the rows on both sides are taken for neighbours. Add the missing rows, for "
            "instance with series.asfreq(...), and say with missing= what to do about them.",
            stacklevel=5,
        )
    return Times(index)


def load_times(about: dict[str, Any]) -> Times:
    """Return times that continue like those that `Times.describe` described."""
    pandas = importlib.import_module("pandas")
    kind, last, step = about["kind"], about["last"], about["step"]
    if kind == "integer":
        return Times(pandas.RangeIndex(last, last + 1), step)
    if kind == "delta":
        index = pandas.TimedeltaIndex([pandas.Timedelta(last)]).as_unit(about["unit"])
        return Times(index, None if step is None else pandas.Timedelta(step).as_unit(about["unit"]))
    if kind == "period":
        index = pandas.PeriodIndex([last], freq=step)
        return Times(index, index.freq)
    if kind == "none":
        return Times(pandas.Index([last]))
    index = pandas.DatetimeIndex([last])
    if about.get("zone") is not None:
        index = index.tz_localize("UTC").tz_convert(about["zone"])
    return Times(index.as_unit(about["unit"]) if "unit" in about else index, _load_rule(step))


def _rule(index: Any) -> Any:
    """Return the rule by which a pandas index continues, see `Times`."""
    pandas = importlib.import_module("pandas")
    if isinstance(index, pandas.PeriodIndex):
        return index.freq
    if isinstance(index, pandas.DatetimeIndex):
        if (frequency := _frequency(index)) is not None:
            return pandas.tseries.frequencies.to_offset(frequency)
        spacing = _spacing(index)
        return None if spacing is None else (spacing, max(index.day))
    if len(index) < 2:
        return None
    if isinstance(index, pandas.TimedeltaIndex):
        return None if _frequency(index) is None else index[-1] - index[-2]
    return int(index[-1] - index[-2]) if index.dtype.kind in "iu" else None


def _frequency(index: Any) -> Any:
    """Return the frequency of a pandas index; None if its dates are not evenly spaced."""
    if getattr(index, "freq", None) is not None:
        return index.freq
    with warnings.catch_warnings():  # pandas announces another type of the answer
        warnings.simplefilter("ignore")
        return getattr(index, "inferred_freq", None)


def _spacing(index: Any) -> Spacing | None:
    """Return the spacing of a DatetimeIndex, despite missing dates; None for any other index."""
    if not hasattr(index, "to_pydatetime") or not hasattr(index, "tz") or _frequency(index):
        return None
    return find_spacing(index.to_pydatetime())


def _after(moment: Any, spacing: Spacing, day: int, steps: int) -> Iterator[Any]:
    for _ in range(steps):
        moment = spacing.after(moment, day)
        yield moment


def _describe(times: Times) -> dict[str, Any]:
    index, last, rule = times.index, times.index[-1], times.rule
    pandas = importlib.import_module("pandas")
    if isinstance(index, pandas.PeriodIndex):
        return {"kind": "period", "last": str(last), "step": index.freqstr}
    if isinstance(index, pandas.TimedeltaIndex):
        step = None if rule is None else rule.isoformat()
        return {"kind": "delta", "last": last.isoformat(), "step": step, "unit": index.unit}
    if isinstance(rule, int):
        return {"kind": "integer", "last": int(last), "step": rule}
    if not isinstance(index, pandas.DatetimeIndex):
        return {"kind": "none", "last": str(last), "step": None}
    zone = None if index.tz is None else str(index.tz)
    if zone is not None:
        last = last.tz_convert("UTC").tz_localize(None)
    step = _describe_rule(rule)
    return {"kind": "date", "last": last.isoformat(), "step": step, "zone": zone,
            "unit": index.unit}  # fmt: skip


def _describe_rule(rule: Any) -> Any:
    """Describe the rule of dates: by the text of pandas, or by all of its numbers."""
    if rule is None:
        return None
    if isinstance(rule, tuple):
        spacing, day = rule
        return {
            "seconds": spacing.step.total_seconds(), "months": spacing.months,
            "month_ends": spacing.month_ends, "weekdays": spacing.weekdays, "day": int(day),
        }  # fmt: skip
    try:
        if _load_rule(rule.freqstr) == rule:
            return rule.freqstr
    except ValueError:
        pass  # a text such as "<DateOffset: months=2>" is not for reading
    keywords = {name: _plain(v) for name, v in rule.kwds.items() if name != "calendar"}
    return {"class": type(rule).__name__, "n": rule.n, "normalize": rule.normalize, **keywords}


def _plain(value: Any) -> Any:
    """Return a number, text, date or time of a pandas offset as JSON can hold it."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, timedelta):
        return {"seconds": value.total_seconds()}
    if isinstance(value, time):
        return value.strftime("%H:%M")
    return str(value) if isinstance(value, np.datetime64) else value


def _load_rule(step: Any) -> Any:
    pandas = importlib.import_module("pandas")
    if not isinstance(step, dict):
        return None if step is None else pandas.tseries.frequencies.to_offset(step)
    if "class" not in step:
        names = ("months", "month_ends", "weekdays")
        spacing = Spacing(timedelta(seconds=step["seconds"]), *(step[name] for name in names))
        return spacing, step["day"]
    keywords = {
        name: timedelta(**value) if isinstance(value, dict) else value
        for name, value in step.items()
        if name != "class"
    }
    if step["class"] not in pandas.offsets.__all__:  # the content of a file is not trusted
        raise ValueError(f"pandas has no offset {step['class']!r}")
    return getattr(pandas.offsets, step["class"])(**keywords)
