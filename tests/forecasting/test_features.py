"""Features are matched with the series: columns by name, rows by time."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves

import rnn_xp as rx

pd = pytest.importorskip("pandas")

DAYS = pd.date_range("2023-01-01", periods=243)
TABLE = pd.DataFrame({"price": waves(243, seed=3), "promo": np.cos(np.arange(243.0))}, index=DAYS)
SERIES = pd.Series(2.0 * TABLE["price"] - TABLE["promo"], name="sales")[:240]
SEEN, AHEAD = TABLE[:240], TABLE[240:]


@pytest.fixture(scope="module")
def fitted():
    return quick(horizon=3).fit(SERIES, future=SEEN)


@pytest.fixture(scope="module")
def expected(fitted):
    return fitted.predict(future=AHEAD.to_numpy())


class TestNames:
    def test_columns_are_matched_by_name(self, fitted, expected):
        assert np.array_equal(fitted.predict(future=AHEAD), expected)
        assert np.array_equal(fitted.predict(future=AHEAD[["promo", "price"]]), expected)
        for a, b in zip(
            fitted.predict_interval(future=AHEAD[["promo", "price"]]),
            fitted.predict_interval(future=AHEAD),
            strict=True,
        ):
            assert np.array_equal(a, b)

    def test_apply_and_evaluate_match_by_name(self, fitted, expected):
        turned = TABLE[["promo", "price"]]
        again = fitted.apply(SERIES, future=turned[:240])
        assert np.array_equal(again.predict(future=turned[240:]), expected)
        longer = (2.0 * TABLE["price"] - TABLE["promo"]).rename("sales")
        report = fitted.evaluate(longer, future=turned)
        assert report.metrics == fitted.evaluate(longer, future=TABLE.to_numpy()).metrics

    def test_names_come_back_from_a_file(self, fitted, expected, tmp_path):
        fitted.save(tmp_path / "f")
        again = rx.Forecaster.load(tmp_path / "f")
        assert np.array_equal(again.predict(future=AHEAD[["promo", "price"]]), expected)
        with pytest.raises(ValueError, match="future lacks the column 'promo'"):
            again.predict(future=AHEAD[["price"]])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda f: f[["price"]], "future lacks the column 'promo': the columns that fit was"),
            (lambda f: f.assign(rain=0.0), "future has a column 'rain' that fit was not given"),
            (lambda f: f.set_axis(["price"] * 2, axis=1), "future: the name 'price' is there twic"),
            (lambda f: f.set_axis([0, 1], axis=1), "future lacks the column 'price'"),
            (lambda f: f.reset_index(), "column 'index' holds dates"),
        ],
    )
    def test_other_columns_are_named(self, fitted, change, words):
        with pytest.raises(ValueError if "holds" not in words else TypeError, match=words):
            fitted.predict(future=change(AHEAD))

    def test_tables_of_several_series_agree_by_name(self):
        series = {7: SERIES, "b": SERIES[::-1].set_axis(SERIES.index)}
        both = {7: SEEN, "b": SEEN[["promo", "price"]]}
        f = quick(horizon=3).fit(series, future=both)
        found = f.predict(future={7: AHEAD[["promo", "price"]], "b": AHEAD})
        same = quick(horizon=3).fit(series, future=SEEN.to_numpy())
        for name, values in same.predict(future=AHEAD.to_numpy()).items():
            assert np.array_equal(found[name], values)
        with pytest.raises(ValueError, match="future must have the names of the series, 7, b"):
            f.predict(future={"a": AHEAD, "b": AHEAD})


class TestTimes:
    def test_a_longer_table_is_cut_to_the_times(self, expected):
        f = quick(horizon=3).fit(SERIES, future=TABLE)
        assert np.array_equal(f.predict(future=TABLE), expected)

    def test_past_features_are_matched_by_time(self):
        found = quick().fit(SERIES, past=TABLE).predict()
        assert np.array_equal(found, quick().fit(SERIES, past=SEEN.to_numpy()).predict())

    @pytest.mark.parametrize("kind", ["past", "future"])
    def test_times_of_another_year_are_refused(self, kind):
        late = SEEN.set_axis(SEEN.index + pd.Timedelta(days=365))
        words = (
            f"{kind} has no row for 2023-01-01.*row 0 of 'sales'.* of 2024-01-01.* to 2024-08-27"
        )
        with pytest.raises(ValueError, match=words):
            quick().fit(SERIES, **{kind: late})
        with pytest.raises(ValueError, match=words):
            quick().backtest(SERIES, **{kind: late})

    @pytest.mark.parametrize("kind", ["past", "future"])
    def test_newest_first_is_refused(self, kind):
        words = f"{kind}: dates are not in order: 2023-08-27.* comes after 2023-08-28"
        with pytest.raises(ValueError, match=words):
            quick().fit(SERIES, **{kind: SEEN[::-1]})
        with pytest.raises(ValueError, match=words):  # the series has no times to compare
            quick().fit(SERIES.to_numpy(), **{kind: SEEN[::-1]})

    @pytest.mark.parametrize("ahead", [SEEN[:3], SEEN[-3:], TABLE[241:]])
    def test_other_times_than_those_that_come_are_refused(self, fitted, ahead):
        words = "future has no row for 2023-08-29.*, which step 1 of 'sales' needs: its rows are"
        with pytest.raises(ValueError, match=words):
            fitted.predict(future=ahead)
        with pytest.raises(ValueError, match=words):
            fitted.predict_interval(future=ahead)

    def test_a_table_that_ends_too_soon_is_refused(self, fitted):
        with pytest.raises(ValueError, match=r"no row for 2023-08-31.*, which step 3 of 'sales'"):
            fitted.predict(future=AHEAD[:2])

    def test_row_numbers_are_no_dates(self, fitted):
        with pytest.raises(
            ValueError, match="no row for 2023-08-29.*Give the times.*or a plain ar"
        ):
            fitted.predict(future=AHEAD.reset_index(drop=True))

    def test_another_time_zone_is_another_time(self, fitted):
        with pytest.raises(ValueError, match="future has no row for 2023-08-29"):
            fitted.predict(future=AHEAD.tz_localize("Europe/Berlin"))

    def test_row_numbers_go_on(self):
        series, table = SERIES.reset_index(drop=True), TABLE.reset_index(drop=True)
        f = quick(horizon=3).fit(series, future=table[:240])
        assert np.array_equal(
            f.predict(future=table[240:]), f.predict(future=table[240:].to_numpy())
        )
        with pytest.raises(ValueError, match="no row for 240, which step 1"):
            f.predict(future=table[:3])

    def test_after_irregular_times_only_later_ones_can_come(self):
        index = pd.DatetimeIndex(np.datetime64("2022-01-01") + np.cumsum(np.arange(240) % 5 + 1))
        f = quick(horizon=3).fit(SERIES.set_axis(index), future=SEEN.set_axis(index))
        later = AHEAD.set_axis(index[-1] + pd.to_timedelta([2, 5, 9], "D"))
        assert np.array_equal(f.predict(future=later), f.predict(future=AHEAD.to_numpy()))
        with pytest.raises(ValueError, match="future must be of times after 2023-12-22"):
            f.predict(future=AHEAD.set_axis(index[:3]))

    def test_evaluate_needs_the_series_from_its_start(self):
        longer = (2.0 * TABLE["price"] - TABLE["promo"]).rename("sales")
        f = quick().fit(SERIES)
        assert f.evaluate(longer).series[0].origins.tolist() == [240, 241, 242]
        with pytest.raises(ValueError, match="end with 2023-08-28.*, but row 239 is of 2023-08-30"):
            f.evaluate(longer[2:])


class TestSeveralSeries:
    def test_other_values_are_matched_by_name(self):
        frame = pd.DataFrame({"a": waves(243), "b": 100 + 30 * waves(243, seed=1)}, index=DAYS)
        f = quick().fit(frame[:240])
        turned = frame[["b", "a"]]
        assert f.apply(turned).predict().equals(f.apply(frame).predict())
        assert f.evaluate(turned).metrics == f.evaluate(frame).metrics
        with pytest.raises(ValueError, match="names that fit was given, a, b; got b, c"):
            f.apply(turned.set_axis(["b", "c"], axis=1))
