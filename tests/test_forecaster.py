"""`Forecaster`: what goes in comes out, nothing of the future leaks in, and it says the truth."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import baselines, checkpoint
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.forecasting.design import make_design
from rnn_xp.forecasting.training import cut, first_validated

QUICK = {"hidden_size": 4, "epochs": 8, "seq_length": 8, "verbose": False}


def waves(rows=240, seed=0):
    """Two waves and a little noise."""
    t, rng = np.arange(rows), np.random.default_rng(seed)
    return np.sin(t / 3.0) + 0.5 * np.sin(t / 7.0) + 0.02 * rng.standard_normal(rows)


def quick(**options):
    return rx.Forecaster(**{**QUICK, **options})


class TestFirstValidated:
    def test_windows_of_the_two_parts_share_no_value(self):
        values = np.arange(100.0)
        for horizon, offset in ((1, 0), (3, 0), (2, 1)):
            first = first_validated(100, 10, offset, horizon, 0.2)
            target = "diff" if offset else "level"
            design = make_design(
                values, np.empty((100, 0)), np.empty((100, 0)), target=target, scaler="none",
                train=first,
            )  # fmt: skip
            if offset:  # of differences all are alike: look at rows instead
                design = dataclasses.replace(design, z=values[1:])
            trained, validated = cut(design, first, 10, horizon, horizon)
            seen = set(trained.x.ravel()) | set(trained.y.ravel())
            later = set(validated.x.ravel()) | set(validated.y.ravel())
            assert not seen & later
            assert max(seen) + 1 == min(later)
            assert len(validated.y) == round(0.2 * (100 - 10 - offset - horizon + 1))
            assert validated.y[0, 0] == first

    def test_a_series_too_short_says_how_much_is_missing(self):
        with pytest.raises(
            ValueError, match=r"20 values is too short.* at least (\d+) are req"
        ) as e:
            first_validated(20, 10, 0, 1, 0.2)
        needed = int(str(e.value).split("at least ")[1].split()[0])
        assert f"{needed - 20} more" in str(e.value)
        first_validated(needed, 10, 0, 1, 0.2)
        with pytest.raises(ValueError, match="1 more"):
            first_validated(needed - 1, 10, 0, 1, 0.2)


class TestDesign:
    def test_a_window_knows_the_future_features_of_all_steps_ahead(self):
        rows, reach = 30, 3
        t = np.arange(rows, dtype=float)
        design = make_design(
            t, 100 + t[:, None], 1000 + t[:, None], target="level", scaler="none", train=rows
        )
        (x,), (last,) = (
            getattr(design.windows(np.asarray([20]), 4, reach, design.future[:0]), name)
            for name in ("x", "last")
        )
        assert x[:, 0].tolist() == [16, 17, 18, 19]
        assert x[:, 1].tolist() == [116, 117, 118, 119]
        assert x[:, 2].tolist() == [1019, 1020, 1021, 1022]  # rows 20, 21 and 22 are asked for
        assert last == 19.0
        ahead = np.asarray([[1030.0], [1031.0], [1032.0]])
        (x,) = design.windows(np.asarray([30]), 4, reach, ahead).x
        assert x[:, 2].tolist() == [1029, 1030, 1031, 1032]

    def test_the_scaler_sees_the_training_part_alone(self):
        values = waves()
        changed = values.copy()
        changed[150:] = 99.0
        empty = np.empty((len(values), 0))
        a, b = (
            make_design(v, empty, empty, target="level", scaler="standard", train=150)
            for v in (values, changed)
        )
        assert a.scaler == b.scaler
        np.testing.assert_allclose(a.z[:150].mean(), 0.0, atol=1e-12)

    def test_missing_values_are_zero_and_not_known(self):
        values = waves()
        values[[0, 40, 41]] = np.nan
        empty = np.empty((len(values), 0))
        design = make_design(values, empty, empty, target="level", scaler="standard", train=200)
        assert np.flatnonzero(~design.known).tolist() == [0, 40, 41]
        assert not design.z[[0, 40, 41]].any()
        assert design.levels[41] == values[39]
        assert design.levels[0] == values[1]
        np.testing.assert_allclose(design.scaler.offset[0], np.nanmean(values[:200]), rtol=1e-12)


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


class TestForecasts:
    def test_it_starts_from_the_linear_autoregression(self):
        """Training goes down from there, on the windows that are trained on."""
        f = quick(epochs=3, horizon=2).fit(waves())
        values = waves()
        first = first_validated(len(values), 8, 0, 2, f.validation)
        design = f._designs[0]
        trained, _ = cut(design, first, 8, 2, 2)
        model = baselines.fit_linear_ar(trained.x, trained.y)
        start = np.mean((model.predict(trained.x) - trained.y) ** 2)
        np.testing.assert_allclose(f.history_[0]["loss"][0], start, rtol=1e-3)
        assert f.history_[0]["loss"][-1] < start

    def test_direct_and_recursive_are_the_same_for_one_step(self):
        a, b = (quick(strategy=s).fit(waves()).predict() for s in ("direct", "recursive"))
        assert np.array_equal(a, b)

    def test_recursive_goes_on_from_the_newest_value(self):
        """A ramp, whose next value needs the latest one."""
        f = quick(strategy="recursive", horizon=4, target="diff", scaler="none", linear=True)
        ramp = np.arange(200.0) + np.tile([0.0, 0.25], 100)
        found = f.fit(ramp).predict(6)
        np.testing.assert_allclose(found, np.arange(200, 206) + np.tile([0, 0.25], 3), atol=0.05)

    @pytest.mark.parametrize("target", ["diff", "logret"])
    def test_a_trend_is_followed_out_of_the_range(self, target):
        t = np.arange(300)
        series = (
            np.exp(t / 60.0) * (1.0 + 0.01 * np.sin(t / 3.0)) if target == "logret" else 2.0 * t
        )
        series = series + (0.3 * np.sin(t / 3.0) if target == "diff" else 0.0)
        found = quick(target=target, horizon=5, scaler="none").fit(series[:280]).predict(20)
        np.testing.assert_allclose(found, series[280:], rtol=0.01)

    def test_more_steps_than_the_horizon_go_on_from_the_forecasts(self):
        """In blocks of the horizon; the last one ends with the last step."""
        f = quick(horizon=3).fit(waves())
        found = f.predict(8)
        values = waves()
        for at, count in ((0, 3), (3, 3), (5, 3)):
            known = np.concatenate([values, found[:at]])
            again = make_design(
                known, np.empty((len(known), 0)), np.empty((len(known), 0)), target="level",
                scaler=f._designs[0].scaler, train=0,
            )  # fmt: skip
            block = f.predictor_.from_rows(_longer(again, 3), np.asarray([len(known)]), 3)[0, :, 0]
            skip = {0: 0, 3: 0, 5: 1}[at]  # of the last block only the steps that are missing
            np.testing.assert_allclose(found[at + skip : at + count], block[skip:], rtol=1e-6)

    def test_seeds_are_averaged(self):
        several = quick(horizon=2, n_seeds=3, random_state=5).fit(waves()).predict()
        single = [quick(horizon=2, random_state=5 + k).fit(waves()).predict() for k in range(3)]
        assert not np.allclose(single[0], single[1], rtol=1e-9)
        np.testing.assert_allclose(several, np.mean(single, axis=0), rtol=1e-6)

    def test_known_future_features_are_used(self):
        rng = np.random.default_rng(0)
        feature = rng.standard_normal(300)
        series = feature + 0.01 * rng.standard_normal(300)
        f = quick(horizon=2, epochs=30)
        with_it = f.fit(series[:298], future=feature[:298]).predict(future=feature[298:])
        np.testing.assert_allclose(with_it, series[298:], atol=0.1)
        assert f.report_.metrics["rmse"] < 0.1
        assert quick(horizon=2, epochs=30).fit(series[:298]).report_.metrics["rmse"] > 0.8

    def test_past_features_are_used(self):
        rng = np.random.default_rng(0)
        feature = rng.standard_normal(300)
        series = np.concatenate([[0.0], feature[:-1]]) + 0.01 * rng.standard_normal(300)
        f = quick(epochs=30).fit(series, past=feature)
        assert f.report_.metrics["rmse"] < 0.1
        np.testing.assert_allclose(f.predict()[0], feature[-1], atol=0.1)

    def test_missing_values_are_skipped_if_asked(self):
        values = waves()
        values[[30, 31, 100, 239]] = np.nan
        found = quick(missing="mask", horizon=2).fit(values)
        assert np.isfinite(found.predict()).all()
        assert found.report_.metrics["rmse"] < 0.5

    def test_a_backend_and_its_dtype_are_used(self):
        backend = rx.get_backend("array_api_strict", device="device1", dtype="float32")
        a = quick(backend=backend).fit(waves()).predict(3)
        b = quick(backend=rx.get_backend("numpy", dtype="float32")).fit(waves()).predict(3)
        np.testing.assert_allclose(a, b, atol=1e-3)


class TestIntervals:
    @pytest.mark.parametrize("kind", ["split", "adaptive", "quantile"])
    def test_they_cover_noise_about_as_promised(self, kind):
        rng = np.random.default_rng(0)
        series = np.sin(np.arange(2000) / 5.0) + rng.normal(0.0, 0.2, 2000)
        f = quick(intervals=kind, level=0.8, horizon=2, epochs=40, validation=0.25)
        result = f.backtest(series, start=0.6)
        # Of 295 errors and 800 forecasts a standard deviation is 0.027.
        assert 0.73 < result.metrics["coverage"] < 0.87
        assert len(result.per_step["coverage"]) == 2
        assert 0.8 < result.metrics["width"] / (2 * 1.2816 * 0.2) < 1.4

    def test_they_lie_around_the_forecast_and_widen_with_the_level(self):
        f = quick(horizon=3).fit(waves())
        forecast = f.predict()
        narrow, wide = (f.predict_interval(level=level) for level in (0.5, 0.9))
        assert (wide[0] < narrow[0]).all()
        assert (narrow[0] < forecast).all()
        assert (forecast < narrow[1]).all()
        assert (narrow[1] < wide[1]).all()

    def test_what_they_cannot_do(self):
        f = quick(horizon=2).fit(waves())
        with pytest.raises(ValueError, match="intervals reach 2 steps"):
            f.predict_interval(3)
        with pytest.raises(ValueError, match=r"level must be a share"):
            f.predict_interval(level=90)
        with pytest.raises(ValueError, match="there are no intervals"):
            quick(intervals=None).fit(waves()).predict_interval()
        with pytest.raises(ValueError, match="trained for level=0.9 alone"):
            quick(intervals="quantile").fit(waves()).predict_interval(level=0.5)


class TestBacktest:
    def test_the_truth_is_what_followed(self):
        values = waves()
        result = quick(horizon=3).backtest(values, start=200, stride=4)
        (part,) = result.series
        assert part.origins.tolist() == list(range(200, 238, 4))
        for origin, truth in zip(part.origins, part.truth, strict=True):
            assert np.array_equal(truth, values[origin : origin + 3])
        rmse = np.sqrt(np.mean((part.truth - part.forecast) ** 2))
        np.testing.assert_allclose(result.metrics["rmse"], rmse)
        assert result.metrics["mae"] == result.scores[-1].mae

    def test_metrics_are_those_of_their_definitions_overall_and_by_step(self):
        values = 10.0 + waves()
        result = quick(horizon=3, intervals="split", level=0.8).backtest(values, start=150)
        (part,) = result.series
        truth, forecast, low, high = part.truth, part.forecast, part.low, part.high
        last = part.baselines["persistence"]

        def root(error):
            return np.sqrt(np.mean(error**2))

        def pinball(ends, q):
            return np.mean(np.maximum(q * (truth - ends), (q - 1.0) * (truth - ends)))

        expected = {
            "mase": np.mean(np.abs(truth - forecast)) / np.mean(np.abs(np.diff(values[:150]))),
            "skill": 1.0 - root(truth - forecast) / root(truth - last),
            "bias": np.mean(forecast - truth),
            "smape": 200 * np.mean(np.abs(truth - forecast) / (np.abs(truth) + np.abs(forecast))),
            "coverage": np.mean((low <= truth) & (truth <= high)),
            "width": np.mean(high - low),
            "pinball": 0.5 * (pinball(low, 0.1) + pinball(high, 0.9)),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(result.metrics[name], value, err_msg=name)
            assert len(result.per_step[name]) == 3
        for k in range(3):
            step = 1.0 - root((truth - forecast)[:, k]) / root((truth - last)[:, k])
            np.testing.assert_allclose(result.per_step["skill"][k], step)
        assert result.per_step["rmse"] == list(result.scores[-1].rmse_per_step)

    def test_what_comes_after_the_start_changes_no_weight_and_no_forecast_before(self):
        values = waves()
        changed = values.copy()
        changed[215:] += 50.0
        a, b = (quick().backtest(v, start=200).series[0].forecast for v in (values, changed))
        assert np.array_equal(a[:15], b[:15])  # the 16th is made from the changed value
        assert not np.isclose(a[16], b[16])

    def test_baselines_are_those_of_their_definitions(self):
        values = waves()
        part = quick(horizon=2).backtest(values, start=200).series[0]
        assert np.array_equal(part.baselines["persistence"][:, 1], values[199:238])
        np.testing.assert_allclose(part.baselines["mean"], values[:200].mean())
        x, y = rx.make_windows(values[:200], 8, 2)
        x_test, _ = rx.make_windows(values[192:], 8, 2)
        expected = baselines.fit_linear_ar(x, y).predict(x_test)
        np.testing.assert_allclose(part.baselines["linear AR(8)"], expected)
        period = baselines.suggest_period(values[:200])
        if period is not None:
            found = part.baselines[f"seasonal({period})"]
            assert found[0, 1] == values[201 - period]

    def test_trained_again_it_knows_what_came_meanwhile(self):
        values = waves()
        f = quick(epochs=4)
        once, again = (f.backtest(values, 200, stride=10, retrain=r) for r in (False, 2))
        assert np.array_equal(once.series[0].origins, again.series[0].origins)
        assert np.array_equal(once.series[0].forecast[:2], again.series[0].forecast[:2])
        assert not np.isclose(once.series[0].forecast[2], again.series[0].forecast[2])
        fresh = quick(epochs=4).fit(values[:220])
        np.testing.assert_allclose(again.series[0].forecast[2], fresh.predict(), rtol=1e-6)

    def test_trained_again_each_origin_is_judged_once_gaps_or_not(self):
        values = waves()
        values[[205, 206, 221]] = np.nan
        f = quick(epochs=2, missing="mask", horizon=2)
        once, again = (f.backtest(values, 200, stride=3, retrain=r) for r in (False, 2))
        assert np.array_equal(once.series[0].origins, again.series[0].origins)
        assert not np.isnan(values[once.series[0].origins[:, None] + [0, 1]]).any()

    def test_trained_again_with_series_of_unequal_length(self):
        given = {"long": waves(260), "short": waves(240, 1)}
        result = quick(epochs=2).backtest(given, 200, retrain=15)
        origins = {part.name: part.origins.tolist() for part in result.series}
        assert origins == {"long": list(range(200, 260)), "short": list(range(200, 240))}

    def test_nothing_to_judge_by_is_an_error(self):
        values = waves()
        f = quick(missing="mask").fit({"a": values, "b": values})
        more = {"a": waves(250), "b": np.concatenate([values, np.full(10, np.nan)])}
        with pytest.raises(ValueError, match="'b' has nowhere 1 new values together"):
            f.evaluate(more)

    def test_evaluate_goes_on_where_fit_ended(self):
        values = waves()
        f = quick(horizon=2).fit(values[:200])
        a, b = f.evaluate(values), quick(horizon=2).backtest(values, start=200)
        assert np.array_equal(a.series[0].forecast, b.series[0].forecast)
        assert a.metrics == b.metrics

    def test_it_leaves_the_forecaster_alone(self):
        f = quick().fit(waves())
        before = f.predict(3)
        f.backtest(waves(seed=3), start=0.5)
        assert np.array_equal(f.predict(3), before)
        with pytest.raises(ValueError, match="not fitted yet"):
            quick().predict()

    def test_several_series_are_pooled_in_units_of_their_spread(self):
        table = {"small": waves(), "large": 1000.0 * waves(seed=1)}
        result = quick().backtest(table, start=200)
        assert {part.name for part in result.series} == {"small", "large"}
        assert result.metrics["rmse"] < 2.0
        assert "2 series (errors in standard deviations)" in str(result)


class TestHonesty:
    def test_a_random_walk_is_called_what_it_is(self):
        walk = np.cumsum(np.random.default_rng(0).standard_normal(600))
        result = quick(epochs=20).backtest(walk, start=400)
        assert result.metrics["skill"] < 0.05
        assert "beats" not in result.verdict
        assert any("repeats the last value" in note for note in result.notes)
        assert "repeats the last value" in str(result)

    def test_a_wave_is_beaten_and_said_so(self):
        result = quick(seq_length=12, epochs=30).backtest(waves(600), start=400)
        assert result.metrics["skill"] > 0.5
        assert not result.notes

    def test_leaving_the_trained_range_is_said(self):
        rising = np.linspace(0.0, 10.0, 300) + 0.1 * waves(300)
        result = quick().backtest(rising, start=200)
        assert any("leaves the training range" in note for note in result.notes)

    def test_fit_prints_the_comparison_unless_told_not_to(self, capsys):
        quick().fit(waves())
        assert capsys.readouterr().out == ""
        quick(verbose=True).fit(waves())
        out = capsys.readouterr().out
        for word in (
            "persistence",
            "drift",
            "mean",
            "linear AR(8)",
            "rnn",
            "verdict",
        ):
            assert word in out

    def test_smape_is_there_for_positive_series_alone(self):
        assert "smape" not in quick().backtest(waves(), 200).metrics
        assert "smape" in quick().backtest(10.0 + waves(), 200).metrics


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
        with pytest.raises(CheckpointError, match="of schema 9, but this version .* reads 1"):
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
            ({"horizon": 1.5}, "horizon must be an integer >= 1"),
            ({"strategy": "magic"}, "strategy='magic' is not known. Valid: 'direct', 'recursive'"),
            ({"target": "log"}, "target='log' is not known"),
            ({"intervals": "normal"}, "intervals='normal' is not known"),
            ({"validation": 0.0}, r"validation must be a share in \(0, 1\)"),
            ({"level": 95}, r"level must be a share in \(0, 1\)"),
            ({"missing": "mask", "target": "diff"}, "missing='mask' needs target='level'"),
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


def test_its_settings_are_those_of_scikit_learn():
    f = quick()
    assert f.get_params()["seq_length"] == 8
    assert f.set_params(horizon=3) is f
    assert f.horizon == 3
    with pytest.raises(ValueError, match="no parameter 'width'"):
        f.set_params(width=3)


def _longer(design, rows):
    """The same with rows after its end, so that they may be asked for."""
    pad = np.zeros((rows, 0))
    return dataclasses.replace(
        design,
        levels=np.concatenate([design.levels, np.zeros(rows)]),
        z=np.concatenate([design.z, np.zeros(rows)]),
        known=np.concatenate([design.known, np.ones(rows, bool)]),
        past=np.concatenate([design.past, pad]),
        future=np.concatenate([design.future, pad]),
    )
