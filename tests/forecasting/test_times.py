"""Times go on after a file was read as they did before it was written."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves

import rnn_xp as rx
from rnn_xp.forecasting.times import load_times

pd = pytest.importorskip("pandas")
offsets = pd.offsets

HOLIDAYS = ["2024-05-28", "2024-12-03", "2024-12-04"]
CUSTOM = {"weekmask": "Sun Mon Tue Wed Thu", "holidays": HOLIDAYS}


def dates(frequency, **options):
    return pd.date_range("2024-01-01", periods=240, freq=frequency, **options)


INDICES = {
    **{f"days of pandas, {f}": dates(f) for f in ("D", "B", "W-WED", "MS", "ME", "QS-FEB", "YE")},
    **{f"hours of pandas, {f}": dates(f) for f in ("h", "15min", "36h", "7s")},
    "two months": dates(pd.DateOffset(months=2)),
    "two weeks and three hours": dates(pd.DateOffset(weeks=2, hours=3)),
    "quarter ends": dates(offsets.BQuarterEnd(2, startingMonth=2)),
    "trading days": dates(offsets.CustomBusinessDay(holidays=HOLIDAYS)),
    "a week of its own": dates(offsets.CustomBusinessDay(**CUSTOM)),
    "business hours": dates(offsets.BusinessHour(start="08:00", end="10:00")),
    "two shifts": dates(offsets.BusinessHour(start=["08:00", "14:00"], end=["10:00", "15:00"])),
    "business hours with holidays": dates(offsets.CustomBusinessHour(holidays=HOLIDAYS)),
    "Easter": dates(offsets.Easter()),
    "fiscal years": dates(offsets.FY5253(weekday=4, startingMonth=12)),
    "days of Berlin": dates("D", tz="Europe/Berlin"),
    "a change of clocks": pd.date_range("2024-10-17", periods=240, freq="h", tz="Europe/Berlin"),
    "an offset from UTC": dates("h", tz="+05:30"),
    "UTC": dates("h", tz="UTC"),
    "another unit": dates("D").as_unit("ns"),
    "days with a gap": pd.date_range("2024-01-01", periods=270).delete(range(100, 130)),
    "months with a gap": pd.date_range("2000-01-31", periods=242, freq="ME").delete([5, 6]),
    "weekdays without holidays": pd.bdate_range("2024-01-01", periods=242).delete([50, 120]),
    "irregular": pd.DatetimeIndex(np.datetime64("2024-01-01") + np.cumsum(np.arange(240) % 5 + 1)),
    "months as periods": pd.period_range("2000-01", periods=240, freq="M"),
    "quarters as periods": pd.period_range("2000-01", periods=240, freq="Q-FEB"),
    "seconds": pd.timedelta_range("0s", periods=240, freq="s"),
    "half milliseconds": pd.timedelta_range("3s", periods=240, freq="500us"),
    "irregular durations": pd.to_timedelta(np.cumsum(np.arange(240) % 5 + 1), "s"),
    "rows": pd.RangeIndex(240),
    "every third row": pd.RangeIndex(7, 727, 3),
    "whole numbers": pd.Index(np.arange(1900, 2140)),
    "fractions": pd.Index(np.arange(240) / 2),
    "dates of Python": pd.Index([day.date() for day in dates("D")]),
    "dates as text": dates("D").strftime("%m/%d/%Y"),
}


@pytest.fixture(scope="module")
def forecaster():
    return quick(horizon=3).fit(waves())


@pytest.mark.filterwarnings("ignore:.*missing between")
@pytest.mark.parametrize("kind", INDICES)
def test_what_follows_is_the_same_after_a_file(forecaster, tmp_path, kind):
    f = forecaster.apply(pd.Series(waves(), index=INDICES[kind]))
    f.save(tmp_path / "f")
    again = rx.Forecaster.load(tmp_path / "f").predict(30).index
    expected = f.predict(30).index
    assert again.equals(expected)
    assert again.dtype == expected.dtype


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("trading days", ["2024-12-05", "2024-12-06"]),
        ("two months", ["2064-01-01", "2064-03-01"]),
        ("dates of Python", ["2024-08-28", "2024-08-29"]),
        ("a change of clocks", ["2024-10-27 00:00:00+02:00", "2024-10-27 01:00:00+02:00"]),
        ("every third row", ["727", "730"]),
    ],
)
def test_what_follows(forecaster, kind, expected):
    f = forecaster.apply(pd.Series(waves(), index=INDICES[kind]))
    assert f.predict(2).index.astype(str).tolist() == expected


def test_the_clocks_change_in_the_zone(forecaster, tmp_path):
    f = forecaster.apply(pd.Series(waves(), index=INDICES["a change of clocks"]))
    f.save(tmp_path / "f")
    found = rx.Forecaster.load(tmp_path / "f").predict(5).index
    assert [str(time)[11:] for time in found] == [
        "00:00:00+02:00", "01:00:00+02:00", "02:00:00+02:00", "02:00:00+01:00", "03:00:00+01:00",
    ]  # fmt: skip


def test_features_after_a_file_are_matched_by_time(tmp_path):
    index = pd.date_range("2024-01-01", periods=243, freq=offsets.CustomBusinessDay(**CUSTOM))
    table = pd.DataFrame({"price": waves(243, seed=3)}, index=index)
    f = quick(horizon=3).fit(pd.Series(waves(), index=index[:240]), future=table)
    f.save(tmp_path / "f")
    again = rx.Forecaster.load(tmp_path / "f")
    assert again.predict(future=table).equals(f.predict(future=table))
    with pytest.raises(ValueError, match="future has no row for 2024"):
        again.predict(future=table[:-1])


@pytest.mark.parametrize("name", ["os", "__loader__", "annotations"])
def test_a_file_that_names_anything_but_an_offset_of_pandas_is_refused(name):
    step = {"class": name, "n": 1, "normalize": False}
    about = {"kind": "date", "last": "2024-01-01", "step": step, "zone": None, "unit": "us"}
    with pytest.raises(ValueError, match=f"pandas has no offset '{name}'"):
        load_times(about)


def test_times_that_a_file_cannot_hold_lose_no_model(forecaster, tmp_path):
    class Fortnight(offsets.Week):
        """An offset that pandas does not know."""

    index = pd.date_range("2024-01-01", periods=240, freq=Fortnight(2))
    f = forecaster.apply(pd.Series(waves(), index=index))
    with pytest.raises(ValueError, match=r"a file cannot hold how the times.*apply\(\.\.\.\)"):
        f.save(tmp_path / "f")
    assert not (tmp_path / "f").exists()
    f.apply(waves()).save(tmp_path / "f")
    assert np.array_equal(rx.Forecaster.load(tmp_path / "f").predict(), f.predict())
