"""Dates in CSV files: one series per file, in time order, and what is missing is said."""

from __future__ import annotations

import pytest

from rnn_xp.data.datasets import load


class TestDates:
    def test_newest_first(self, read):
        message = r"row 3, column 'day': 2024-01-01 comes after 2024-01-02\. Sort the rows by time"
        with pytest.raises(ValueError, match=message):
            read("day,level\n2024-01-02,1\n2024-01-01,2\n")

    def test_same_day_twice(self, read):
        message = (
            r"row 3, column 'day': the date 2024-01-01 is there twice\. A file holds one series"
        )
        with pytest.raises(ValueError, match=message):
            read("day,level\n2024-01-01,1\n2024-01-01,2\n")

    def test_two_series_in_one_file_are_refused(self, read):
        rows = [f"2024-01-{d:02},{s},{d}" for d in (1, 2, 3) for s in ("A", "B")]
        with pytest.raises(ValueError, match="row 3, column 'date': the date 2024-01-01 is there"):
            read("\n".join(["date,store,sales", *rows]))

    def test_months_quarters_and_days_of_any_country(self, read):
        for dates in (
            ("2023-12", "2024-01"),
            ("2023Q4", "2024Q1"),
            ("31.12.2023", "01.01.2024"),
            ("12/31/2023", "01/01/2024"),
        ):
            rows = [f"{date},{k}" for k, date in enumerate(dates)]
            assert read("\n".join(["when,level", *rows])).dates == dates

    def test_hours_in_a_column_of_their_own_are_refused(self, read):
        with pytest.raises(ValueError, match="join dates and times of day in one column"):
            read("day,hour,level\n2024-01-01,00:00,1\n2024-01-01,01:00,2\n", column="level")

    @pytest.mark.parametrize(
        "dates", ["2/1/2024 1/1/2024", "31.12.2024 30.12.2024", "2024Q2 2024Q1"]
    )
    def test_order_of_dates_in_other_formats(self, read, dates):
        first, second = dates.split()
        with pytest.raises(
            ValueError, match=f"{second} comes after {first}. Sort the rows by time"
        ):
            read(f"day,level\n{first},1\n{second},2\n")

    def test_day_and_month_that_could_be_exchanged(self, read):
        message = r"row 4, column 'day': '03/01/2024' can be 01 March or 03 January"
        with pytest.raises(ValueError, match=message):
            read("day,level\n01/01/2024,1\n02/01/2024,2\n03/01/2024,3\n")

    def test_order_of_dates_of_which_some_have_a_time_zone_is_not_known(self, read):
        dates = ("2024-01-02T00:00Z", "2024-01-01", "2024-01-03T00:00Z")
        rows = [f"{date},{k}" for k, date in enumerate(dates)]
        assert read("\n".join(["day,level", *rows])).dates == dates

    def test_a_row_of_totals_is_no_date(self, read):
        rows = "".join(f"2024-01-{k:02},{k}\n" for k in range(1, 6))
        message = r"row 7, column 'day': 'Total' is not a date, .* such as totals"
        with pytest.raises(ValueError, match=message):
            read(f"day,level\n{rows}Total,15\n")

    def test_one_missing_date_does_not_hide_the_others(self, read):
        rows = "".join(f"2024-01-{k:02},{k}\n" for k in (3, 2, 1))
        with pytest.raises(ValueError, match="2024-01-02 comes after 2024-01-03"):
            read(f"day,level\n{rows}2024-01-04,4\n")
        with pytest.raises(ValueError, match=r"row 5, column 'day': the date is missing \(''\)"):
            read(f"day,level\n{rows},4\n")

    def test_names_with_digits_are_no_dates(self, read):
        series = read("id,level,day\nsensor1,1,2024-01-01\nsensor1,2,2024-01-02\n")
        assert series.dates == ("2024-01-01", "2024-01-02")
        assert read("id,level\nA7,1\nA7,2\n").dates is None

    def test_missing_rows_are_said(self, read):
        days = [f"2024-01-{k:02},{k}" for k in (1, 2, 3, 7, 8)]
        with pytest.warns(
            UserWarning, match="3 steps are missing between 2024-01-03 and 2024-01-07"
        ):
            series = read("\n".join(["day,level", *days]))
        assert len(series.values) == 5

    def test_interpolate_adds_missing_rows(self, read):
        days = [f"2024-01-{k:02},{v}" for k, v in ((1, 1), (2, 2), (3, "NA"), (6, 6), (7, 7))]
        series = read("\n".join(["day,level", *days]), missing="interpolate")
        assert series.values.tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert series.dates == tuple(f"2024-01-{k:02}" for k in range(1, 8))

    @pytest.mark.parametrize("name", ["length_of_day", "wti"])
    def test_the_bundled_series_lack_nothing(self, name, recwarn):
        load(name)
        assert not recwarn.list

    def test_missing_date(self, read):
        with pytest.raises(ValueError, match=r"row 3, column 'day': the date is missing \(''\)"):
            read("day,level\n1 Jan,1\n,2\n", date_column="day")
