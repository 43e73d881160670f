"""Dates as text: read in every common format, continued where they are regular."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from rnn_xp.data.dates import describe_gaps, find_spacing, following_dates, is_date, read_dates


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ("2024-01-12,2024-01-13", "2024-01-14"),
        ("2024-01-01,2024-01-08", "2024-01-15"),
        ("2024-01-13 10:00,2024-01-13 11:00", "2024-01-13 12:00"),
        ("2024-01-13 22:00:00,2024-01-13 23:00:00", "2024-01-14 00:00:00"),
        ("2024-01-13T10:15,2024-01-13T10:30", "2024-01-13T10:45"),
        ("2024-01-13T10:00Z,2024-01-13T11:00Z", "2024-01-13T12:00Z"),
        ("2024-01-13T10:00+02:00,2024-01-13T11:00+02:00", "2024-01-13T12:00+02:00"),
        ("2024-01-13 10:00:00.25,2024-01-13 10:00:00.50", "2024-01-13 10:00:00.750000"),
        ("2024-01-05,2024-01-08,2024-01-09", "2024-01-10"),  # weekdays
        ("2024-01-08,2024-01-09,2024-01-10,2024-01-11,2024-01-12", "2024-01-13"),  # a single week
        ("2000-11,2000-12", "2001-01"),
        ("2000-11-01,2000-12-01", "2001-01-01"),
        ("2024-01-31,2024-02-29", "2024-03-31"),  # ends of months
        ("2024-01-30,2024-02-29", "2024-03-30"),  # the 30th, as far as there is one
        ("2023-10-01,2024-01-01", "2024-04-01"),
        ("2023Q4,2024Q1", "2024Q2"),
        ("2023-Q3,2023-Q4", "2024-Q1"),
        ("2000,2001", "2002"),
        ("2023-06-30,2024-06-30", "2025-06-30"),
        ("30.12.2023,31.12.2023", "01.01.2024"),
        ("12/30/2023,12/31/2023", "01/01/2024"),
        ("30/12/2023,31/12/2023", "01/01/2024"),
        ("2023/12/30,2023/12/31", "2024/01/01"),
        ("30 Dec 2023,31 Dec 2023", "01 Jan 2024"),
        ("Dec 30, 2023,Dec 31, 2023", None),
        ("Nov 2023,Dec 2023", "Jan 2024"),
    ],
)  # fmt: skip
def test_regular_dates_go_on_in_their_own_format(dates, expected):
    if expected is None:  # a date with a comma in it
        assert following_dates(["Dec 30, 2023", "Dec 31, 2023"], 1) == ["Jan 01, 2024"]
    else:
        assert following_dates(dates.split(","), 1) == [expected]


@pytest.mark.parametrize(
    "dates",
    [
        None,
        (),
        ("2024-01-01",),
        ("2024-01-01", "2024-01-02", "2024-01-04", "2024-01-09", "2024-01-17"),
        ("1 Jan", "2 Jan"),
        ("2024-01-02T00:00Z", "2024-01-01"),
        ("2024-02-30", "2024-03-30"),
    ],
)
def test_others_do_not(dates):
    assert following_dates(dates, 3) is None


def test_an_end_of_month_comes_back_after_february():
    assert following_dates(("2023-12-31", "2024-01-31"), 3) == [
        *("2024-02-29", "2024-03-31", "2024-04-30"),
    ]


@pytest.mark.parametrize(
    ("dates", "first"),
    [
        (("01/31/2024", "02/01/2024"), datetime(2024, 1, 31)),
        (("12/01/2024", "13/01/2024"), datetime(2024, 1, 12)),
        (("02/01/2024", "01/02/2024"), datetime(2024, 1, 2)),  # backwards, if the month came first
    ],
)
def test_the_order_of_day_and_month_is_found(dates, first):
    assert read_dates(dates).moments[0] == first


def test_it_is_refused_where_both_are_possible():
    with pytest.raises(ValueError, match="'02/01/2024' can be 01 February or 02 January"):
        read_dates(("01/01/2024", "02/01/2024"))
    assert read_dates(("01/01/2024", "02/02/2024")) is not None  # alike in both


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2024-01-31", True),
        ("31.1.2024", True),
        ("Jan 2024", True),
        ("1 January", True),
        ("2024Q3", True),
        ("2024-03", True),
        ("2024", True),
        ("2024-03-05 10:00", True),
        ("2024-02-30", False),
        ("Total", False),
        ("", False),
        ("A7", False),
        ("store 7", False),
        ("10.5", False),
        ("january", True),
    ],
)
def test_is_date(cell, expected):
    assert is_date(cell) is expected


class TestSpacing:
    def days(self, *numbers, start=datetime(2024, 1, 1)):  # a Monday
        return [start + timedelta(days=number) for number in numbers]

    def test_gaps_are_counted(self):
        spacing = find_spacing(self.days(0, 1, 2, 5, 6, 9))
        assert spacing.step == timedelta(days=1)
        assert [tuple(gap) for gap in spacing.gaps] == [(2, 2), (4, 2)]
        assert spacing.missing == 4

    def test_weekends_and_holidays_are_no_gaps(self):
        spacing = find_spacing(self.days(0, 1, 2, 3, 4, 7, 9, 10, 14))
        assert spacing.weekdays
        assert spacing.gaps == ()

    def test_a_month_without_business_days_is_one(self):
        spacing = find_spacing(self.days(0, 1, 2, 3, 4, 7, 28, 29))
        assert [tuple(gap) for gap in spacing.gaps] == [(5, 14)]

    def test_missing_months(self):
        months = [datetime(2024, month, 1) for month in (1, 2, 3, 6, 7)]
        spacing = find_spacing(months)
        assert (spacing.months, spacing.missing) == (1, 2)

    def test_no_spacing(self):
        assert find_spacing(self.days(0)) is None
        assert find_spacing(self.days(0, 1, 5, 9, 30)) is None
        assert (
            find_spacing([datetime(2024, 1, 1), datetime(2024, 2, 1), datetime(2024, 3, 5)]) is None
        )

    def test_the_widest_gap_is_named(self):
        days = self.days(0, 1, 3, 4, 5, 6, 30, 31)
        text = [f"{day:%Y-%m-%d}" for day in days]
        assert describe_gaps(text, find_spacing(days)) == (
            "24 steps are missing in 2 places, most of them (23) between 2024-01-07 and 2024-01-31"
        )
        assert describe_gaps(text[3:5], find_spacing(days[3:5])) == ""
