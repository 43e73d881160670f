"""What a `Forecaster` is given and gives back: kinds of data, dates, files, and clear errors."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from forecasters import quick, waves

import rnn_xp as rx
from rnn_xp import checkpoint
from rnn_xp.checkpoint import CheckpointError


class TestKinds:
    """What is given back is of the kind that was given."""

    def test_lists_and_arrays(self):
        values = waves()
        for given in (values, values.tolist()):
            found = quick(horizon=2).fit(given).predict(5)
            assert isinstance(found, np.ndarray)
            assert found.shape == (5,)

    def test_a_bundled_series(self):
        series = rx.datasets.load("length_of_day")
        short = dataclasses.replace(series, values=series.values[:300], dates=series.dates[:300])
        a, b = (quick().fit(given).predict(3) for given in (short, short.values))
        assert np.array_equal(a, b)

    def test_several_series(self):
        table = np.stack([waves(), 100 + 30 * waves(seed=1)], axis=1)
        found = quick(horizon=2).fit(table).predict()
        assert found.shape == (2, 2)
        assert abs(found[0, 1] - 100) < 90
        assert abs(found[0, 0]) < 3
        by_name = quick(horizon=2).fit({"a": table[:, 0], "b": table[:, 1]}).predict()
        assert by_name.keys() == {"a", "b"}
        assert np.array_equal(np.stack([by_name["a"], by_name["b"]], axis=1), found)
        low, high = quick(horizon=2).fit({"a": table[:, 0], "b": table[:, 1]}).predict_interval()
        assert ((high["b"] - low["b"]) > 5 * (high["a"] - low["a"])).all()

    def test_series_of_unequal_length(self):
        found = quick().fit({"long": waves(300), "short": waves(150, 1)}).predict(2)
        assert {name: len(values) for name, values in found.items()} == {"long": 2, "short": 2}

    def test_a_mask_is_not_dropped(self):
        masked = np.ma.masked_less(waves(), -1.0)
        with pytest.raises(
            TypeError, match=r"a masked array would lose its mask. Give values\.filled"
        ):
            quick().fit(masked)
        with pytest.raises(TypeError, match="past: a masked array"):
            quick().fit(waves(), past=masked[:, None])

    def test_a_row_is_no_series(self):
        with pytest.raises(ValueError, match=r"shape \(1, 240\): time is the first axis"):
            quick().fit(waves()[None, :])

    def test_pandas_is_not_imported_unless_given(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        assert quick().fit(waves()).predict(2).shape == (2,)


class TestPandas:
    @pytest.fixture(autouse=True)
    def pandas(self):
        self.pd = pytest.importorskip("pandas")

    @pytest.mark.parametrize("frequency", ["D", "B", "MS", "h"])
    def test_dates_go_on(self, frequency):
        index = self.pd.date_range("2024-01-01", periods=240, freq=frequency)
        given = self.pd.Series(waves(), index=index, name="load")
        found = quick(horizon=2).fit(given).predict(3)
        assert found.name == "load"
        expected = self.pd.date_range(index[-1], periods=4, freq=frequency)[1:]
        assert found.index.equals(expected)
        without = self.pd.Series(given.to_numpy(), index=self.pd.DatetimeIndex(list(index)))
        assert quick(horizon=2).fit(without).predict(3).index.equals(expected)

    def test_periods_and_numbers_go_on(self):
        index = self.pd.period_range("2000-01", periods=240, freq="M")
        found = quick().fit(self.pd.Series(waves(), index=index)).predict(2)
        assert found.index.astype(str).tolist() == ["2020-01", "2020-02"]
        found = quick().fit(self.pd.Series(waves(), index=range(0, 480, 2))).predict(2)
        assert found.index.tolist() == [480, 482]

    def test_irregular_dates_are_counted(self):
        index = self.pd.DatetimeIndex(
            np.datetime64("2024-01-01") + np.cumsum(np.arange(240) % 5 + 1)
        )
        assert quick().fit(self.pd.Series(waves(), index=index)).predict(2).index.tolist() == [1, 2]

    def test_dates_with_gaps_go_on_and_the_gap_is_said(self):
        days = self.pd.date_range("2024-01-01", periods=270).delete(range(100, 130))
        with pytest.warns(
            UserWarning, match=r"^30 steps are missing between 2024-04-09.* and 2024-05-10"
        ):
            f = quick().fit(self.pd.Series(waves(), index=days))
        assert f.predict(2).index.astype(str).tolist() == ["2024-09-27", "2024-09-28"]

    def test_business_days_with_holidays_go_on(self):
        index = self.pd.bdate_range("2024-01-01", periods=242).delete([50, 120])
        found = quick().fit(self.pd.Series(waves(), index=index)).predict(2).index
        assert found.equals(self.pd.bdate_range(index[-1], periods=3)[1:])

    def test_time_since_the_start_goes_on(self):
        index = self.pd.timedelta_range("0s", periods=240, freq="s")
        found = quick().fit(self.pd.Series(waves(), index=index)).predict(2).index
        assert found.equals(self.pd.timedelta_range("240s", periods=2, freq="s"))

    def test_dates_as_text_are_read(self):
        days = self.pd.date_range("2023-06-01", periods=240)
        text = self.pd.Series(waves(), index=days.strftime("%m/%d/%Y"))
        found = quick().fit(text).predict(2)
        expected = quick().fit(self.pd.Series(waves(), index=days)).predict(2)
        assert found.index.equals(expected.index)
        assert np.array_equal(found, expected)
        with pytest.raises(ValueError, match="dates are not in order"):
            quick().fit(text.sort_index())

    def test_labels_have_no_order(self):
        labels = [f"row {k}" for k in range(240)]
        with pytest.raises(ValueError, match=r"the index holds text \('row 0'\).*to_datetime"):
            quick().fit(self.pd.Series(waves(), index=labels))

    def test_a_missing_date_is_named(self):
        days = [*self.pd.date_range("2024-01-01", periods=239), self.pd.NaT]
        with pytest.raises(ValueError, match="a date is missing: row 239 of the index is NaT"):
            quick().fit(self.pd.Series(waves(), index=days))

    def test_several_levels(self):
        index = self.pd.MultiIndex.from_product([["a", "b"], range(120)])
        with pytest.raises(ValueError, match="the index has 2 levels"):
            quick().fit(self.pd.Series(waves(), index=index))

    def test_a_column_of_dates_is_no_series(self):
        days = self.pd.date_range("2024-01-01", periods=240)
        for dates in (days, days.astype(str)):
            with pytest.raises(TypeError, match=r"'date' holds dates.*frame\.set_index\('date'\)"):
                quick().fit(self.pd.DataFrame({"date": dates, "close": waves()}))

    def test_a_long_table_is_told_how_to_become_series(self):
        table = self.pd.DataFrame({"unique_id": ["a"] * 240, "ds": range(240), "y": waves()})
        with pytest.raises(TypeError, match=r"long table.*rnn_xp\.from_long"):
            quick().fit(table)

    def test_names_twice(self):
        frame = self.pd.DataFrame(np.stack([waves(), waves()], axis=1), columns=["a", "a"])
        with pytest.raises(ValueError, match="the name 'a' is there twice"):
            quick().fit(frame)
        with pytest.raises(ValueError, match="the name '1' is there twice"):
            quick().fit({1: waves(), "1": waves()})

    def test_names_come_back_as_they_were(self):
        frame = self.pd.DataFrame({2024: waves(), "b": waves(seed=1)})
        assert quick().fit(frame).predict(1).columns.tolist() == [2024, "b"]
        assert quick().fit({7: waves()}).predict(1).keys() == {7}

    def test_missing_values_of_pandas(self):
        values = self.pd.array([self.pd.NA, *waves()[1:]], dtype="Float64")
        found = quick(missing="mask").fit(self.pd.Series(values)).predict(2)
        expected = quick(missing="mask").fit([np.nan, *waves()[1:]]).predict(2)
        assert np.array_equal(found, expected)

    def test_a_frame_is_several_series(self):
        index = self.pd.date_range("2024-01-01", periods=240)
        frame = self.pd.DataFrame({"a": waves(), "b": waves(seed=1)}, index=index)
        found = quick().fit(frame).predict(2)
        assert found.columns.tolist() == ["a", "b"]
        assert found.index[0] == self.pd.Timestamp("2024-08-28")

    def test_dates_in_disorder_or_twice_are_named(self):
        index = self.pd.date_range("2024-01-01", periods=240).to_list()
        index[5], index[6] = index[6], index[5]
        with pytest.raises(ValueError, match="not in order: 2024-01-06.* comes after 2024-01-07"):
            quick().fit(self.pd.Series(waves(), index=index))
        index[6] = index[5]
        with pytest.raises(ValueError, match="duplicate dates: 2024-01-07"):
            quick().fit(self.pd.Series(waves(), index=index))


class TestFiles:
    @pytest.mark.parametrize(
        "options", [{}, {"horizon": 3, "n_seeds": 2}, {"target": "diff"}, {"intervals": "quantile"}]
    )
    def test_there_and_back(self, tmp_path, options):
        f = quick(**options).fit(waves())
        f.save(tmp_path / "f.safetensors")
        again = rx.Forecaster.load(tmp_path / "f.safetensors")
        assert np.array_equal(again.predict(5), f.predict(5))
        for a, b in zip(again.predict_interval(), f.predict_interval(), strict=True):
            assert np.array_equal(a, b)
        longer = waves(260)
        longer[:240] = waves()
        assert again.evaluate(longer).metrics == f.evaluate(longer).metrics

    def test_features_and_names_come_back(self, tmp_path):
        feature = np.sin(np.arange(243) / 2.0)
        f = quick(horizon=3).fit({"a": waves(), "b": waves(seed=1)}, future=feature[:240])
        f.save(tmp_path / "f")
        again = rx.Forecaster.load(tmp_path / "f").predict(future=feature[240:])
        expected = f.predict(future=feature[240:])
        assert again.keys() == {"a", "b"}
        assert all(np.array_equal(again[name], expected[name]) for name in "ab")

    @pytest.mark.parametrize("kind", ["date", "period", "integer"])
    def test_dates_come_back(self, tmp_path, kind):
        pd = pytest.importorskip("pandas")
        index = {
            "date": pd.date_range("2024-01-01", periods=240, freq="B"),
            "period": pd.period_range("2000-01", periods=240, freq="M"),
            "integer": pd.RangeIndex(0, 720, 3),
        }[kind]
        f = quick().fit(pd.Series(waves(), index=index))
        f.save(tmp_path / "f")
        assert rx.Forecaster.load(tmp_path / "f").predict(3).index.equals(f.predict(3).index)

    def test_a_file_of_another_kind_or_version_is_an_error(self, tmp_path):
        path = tmp_path / "f"
        checkpoint.save(path, {"w": np.zeros(2)}, {"schema": 1})
        with pytest.raises(CheckpointError, match="holds no Forecaster"):
            rx.Forecaster.load(path)
        quick().fit(waves()).save(path)
        arrays, about = checkpoint.load(path)
        checkpoint.save(path, arrays, {**about, "forecaster": 9})
        with pytest.raises(CheckpointError, match="of schema 9, but this version .* reads 3"):
            rx.Forecaster.load(path)
        checkpoint.save(path, arrays, {**about, "forecaster": 2})
        assert np.isfinite(rx.Forecaster.load(path).predict())
        logs = {**about["settings"], "target": "log"}
        checkpoint.save(path, arrays, {**about, "forecaster": 2, "settings": logs})
        with pytest.raises(CheckpointError, match="reads 3 of logarithms. Fit it anew"):
            rx.Forecaster.load(path)
        checkpoint.save(path, arrays, {**about, "settings": {"width": 3}})
        with pytest.raises(CheckpointError, match="does not fit its own description"):
            rx.Forecaster.load(path)
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(CheckpointError):
            rx.Forecaster.load(path)


class TestBadInput:
    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (np.arange(12.0), "12 values is too short for seq_length=8.* more"),
            (np.full(240, 3.0), "is constant: there is nothing to forecast"),
            (np.full(240, np.nan), "has 240 missing values, the first at row 0"),
            (np.where(np.arange(240) == 7, np.nan, waves()), "has 1 missing values, .* at row 7"),
            (np.where(np.arange(240) == 7, np.inf, waves()), "infinite"),
            (np.zeros((4, 3, 2)), r"must have shape \(n,\), got \(4, 3, 2\)"),
            ({}, "no series were given"),
            ({"a": np.zeros((9, 2))}, "'a' must be one series"),
        ],
    )
    def test_series(self, given, words):
        with pytest.raises(ValueError, match=words):
            quick().fit(given)

    def test_text_is_no_series(self):
        with pytest.raises(TypeError, match="must hold real numbers"):
            quick().fit(["a", "b"])

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"seq_length": 0}, "seq_length must be an integer >= 1"),
            ({"seq_length": "long"}, "seq_length must be a whole number or 'auto', got 'long'"),
            ({"horizon": 1.5}, "horizon must be an integer >= 1"),
            ({"strategy": "magic"}, "strategy='magic' is not known. Valid: 'direct', 'recursive'"),
            ({"target": "logs"}, "target='logs' is not known"),
            ({"intervals": "normal"}, "intervals='normal' is not known"),
            (
                {"scaler": "robust"},
                "scaler='robust' is not known. Valid: 'standard', 'minmax', 'no",
            ),
            ({"scaler": 3}, "scaler=3 is not known"),
            ({"linear": "yes"}, "linear='yes' must be True or False"),
            ({"backend": "torch"}, r"backend must be what rnn_xp\.get_backend returns.*'torch'"),
            ({"validation": 0.0}, r"validation must be a share in \(0, 1\)"),
            ({"level": 95}, r"level must be a share in \(0, 1\)"),
            (
                {"missing": "mask", "target": "diff", "linear": False},
                "missing='mask' needs target='level' or linear=True",
            ),
            (
                {"intervals": "quantile", "horizon": 2, "strategy": "recursive"},
                "needs strategy='direct' or horizon=1",
            ),
            (
                {"intervals": "quantile", "horizon": 2, "target": "diff"},
                "needs target='level' or horizon=1",
            ),
        ],
    )
    def test_settings(self, options, words):
        with pytest.raises(ValueError, match=words):
            quick(**options).fit(waves())

    def test_a_logarithm_needs_positive_values(self):
        with pytest.raises(ValueError, match="logret' needs positive values"):
            quick(target="logret").fit(waves())

    def test_features(self):
        f, values, feature = quick(horizon=2), waves(), waves(seed=1)
        with pytest.raises(ValueError, match="future must have 240 rows for 'series', got 239"):
            f.fit(values, future=feature[:-1])
        with pytest.raises(ValueError, match="past must be finite"):
            f.fit(values, past=np.where(np.arange(240) == 3, np.nan, feature))
        with pytest.raises(ValueError, match="future features need seq_length >= horizon"):
            quick(horizon=9).fit(values, future=feature)
        with pytest.raises(ValueError, match="past features need strategy='direct'"):
            quick(strategy="recursive", horizon=2).fit(values, past=feature)
        f.fit(values, future=feature)
        with pytest.raises(ValueError, match="fit was given future features"):
            f.predict()
        with pytest.raises(ValueError, match="future must have 2 rows for 'series', got 3"):
            f.predict(future=np.zeros(3))
        with pytest.raises(ValueError, match="future must have 1 columns, got 2"):
            f.predict(future=np.zeros((2, 2)))
        with pytest.raises(ValueError, match="fit was given no future features"):
            quick().fit(values).predict(future=np.zeros(1))
        f.fit(values, past=feature)
        with pytest.raises(ValueError, match="past features are not known beyond the series"):
            f.predict(3)

    def test_a_constant_feature_has_a_name_and_a_remedy(self):
        constant, varying = np.full((240, 1), 7.0), waves(seed=1)[:, None]
        words = r"past feature 1 is constant \(7\) in the training part.*scaler='none'"
        with pytest.raises(ValueError, match=words):
            quick().fit(waves(), past=np.concatenate([varying, constant], axis=1))
        with pytest.raises(ValueError, match="future feature 0 is constant"):
            quick().fit(waves(), past=varying, future=constant)
        quick(scaler="none").fit(waves(), past=constant)

    def test_a_series_without_changes(self):
        line = np.arange(240.0)
        with pytest.raises(
            ValueError, match=r"^the changes of the series are constant \(0.1\).*level"
        ):
            quick(target="diff").fit(0.1 * line)
        with pytest.raises(ValueError, match="^the logarithmic changes of the series are constant"):
            quick(target="logret").fit(1.1**line)
        with pytest.raises(ValueError, match="^the series is constant .* in the training part"):
            quick().fit(np.where(line < 235, 3.0, 4.0))

    def test_a_failed_fit_leaves_the_last_one(self):
        f = quick().fit(waves())
        before = f.predict(3)
        with pytest.raises(ValueError, match="is constant"):
            f.fit(np.ones(100))
        assert np.array_equal(f.predict(3), before)

    @pytest.mark.parametrize(
        ("start", "words"), [(1.5, "start=1.5 must be"), (240, "start=240"), (0, "start=0")]
    )
    def test_starts(self, start, words):
        with pytest.raises(ValueError, match=words):
            quick().backtest(waves(), start)
        with pytest.raises(ValueError, match="steps must be an integer >= 1, got 0"):
            quick().fit(waves()).predict(0)
