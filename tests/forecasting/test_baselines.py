"""Baselines: by hand on small windows, and the published figures on the bundled series."""

from __future__ import annotations

import numpy as np
import pytest

from rnn_xp.data.datasets import load
from rnn_xp.data.scalers import fit_scaler
from rnn_xp.data.windows import make_windows, time_split
from rnn_xp.forecasting.baselines import (
    LinearAR,
    drift,
    fit_linear_ar,
    mean,
    persistence,
    seasonal,
    suggest_period,
)
from rnn_xp.forecasting.metrics import mae, mase, r2, rmse, skill


def forecasts(name, horizon):
    """Truth, persistence and AR(10) on the test part, and the training part."""
    train, test = time_split(load(name).values)
    model = fit_linear_ar(*make_windows(train, 10, horizon))
    x, truth = make_windows(test, 10, horizon)
    return truth, persistence(x, horizon), model.predict(x), train


class TestPersistence:
    def test_repeats_the_last_value_of_column_0(self):
        x = np.asarray([[[1, 9], [2, 8]], [[3, 7], [4, 6]]], dtype=np.float32)
        forecast = persistence(x, horizon=3)
        assert forecast.tolist() == [[2, 2, 2], [4, 4, 4]]
        assert forecast.dtype == np.float32

    def test_does_not_alias_the_series(self):
        series = np.arange(9.0)
        x, _ = make_windows(series, 3)
        assert not np.shares_memory(persistence(x), series)

    def test_errors(self):
        with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
            persistence(np.ones((2, 3, 1)), horizon=0)
        with pytest.raises(ValueError, match=r"shape \(N, T, I\), none of them 0, got \(2, 3\)"):
            persistence(np.ones((2, 3)))


class TestDriftAndMean:
    def test_by_hand(self):
        x = np.asarray([[[1.0, 9.0], [2.0, 8.0]], [[3.0, 7.0], [5.0, 6.0]]])
        assert drift(x, [4.0, 9.0, 1.0], horizon=3).tolist() == [[0.5, -1.0, -2.5], [3.5, 2, 0.5]]
        assert mean([4.0, 9.0, 2.0], rows=2, horizon=3).tolist() == [[5.0] * 3] * 2

    def test_errors(self):
        with pytest.raises(ValueError, match=r"a vector of 2 values or more is needed, got \(1,\)"):
            drift(np.ones((2, 3, 1)), [1.0])
        with pytest.raises(ValueError, match=r"a vector of 1 values or more .* got \(2, 2\)"):
            mean(np.ones((2, 2)), rows=1)
        with pytest.raises(ValueError, match="must be finite"):
            mean([1.0, np.nan], rows=1)


class TestSeasonal:
    @pytest.mark.parametrize("horizon", [1, 3, 7, 10])
    def test_the_latest_value_of_the_same_season_that_is_known(self, horizon):
        """Values that are their own index say where they come from."""
        forecasts = seasonal(np.arange(40.0), first=12, period=3, horizon=horizon)
        assert forecasts.shape == (40 - 12 - horizon + 1, horizon)
        for row, forecast in enumerate(forecasts):
            known = 12 + row  # values before it
            for step, source in enumerate(forecast):
                target = known + step
                assert source < known
                assert (target - source) % 3 == 0
                assert source + 3 >= known

    def test_a_period_of_one_is_persistence(self):
        series = np.random.default_rng(0).normal(size=30)
        x, y = make_windows(series, 4, horizon=3)
        found = seasonal(series, first=4, period=1, horizon=3)
        assert np.array_equal(found, persistence(x, 3))
        assert found.shape == y.shape

    @pytest.mark.parametrize("period", [0, 5])
    def test_a_season_must_have_passed(self, period):
        with pytest.raises(ValueError, match=rf"period={period} must be in 1\.\.4"):
            seasonal(np.arange(20.0), first=4, period=period)


class TestSuggestPeriod:
    T = np.arange(1000.0)
    NOISE = np.random.default_rng(0).standard_normal(1000)

    @pytest.mark.parametrize("period", [2, 7, 12, 25, 90])
    def test_found_beneath_noise_and_trend(self, period):
        season = np.random.default_rng(period).standard_normal(period)
        series = np.tile(season, 1000)[:1000] + 0.2 * self.NOISE + 0.001 * self.T
        assert suggest_period(series) == period

    @pytest.mark.parametrize("series", [NOISE, NOISE.cumsum(), T, T**2, np.ones(50), T[:4], T[:1]])
    def test_none_where_there_is_none(self, series):
        assert suggest_period(series) is None

    @pytest.mark.parametrize("rows", [96, 144, 288, 600])
    @pytest.mark.parametrize("seed", range(5))
    def test_a_monthly_season_is_twelve_and_no_multiple_of_it(self, rows, seed):
        rng, t = np.random.default_rng(seed), np.arange(rows)
        months = rng.standard_normal(12)
        series = (months / months.std())[t % 12] + 0.5 * rng.standard_normal(rows) + 0.02 * t
        assert suggest_period(series) == 12

    def test_a_multiple_that_is_a_little_better_by_chance_is_not_taken(self):
        """Every fourth year is alike by another tenth: 48 is the lowest, 12 the season."""
        rng, t = np.random.default_rng(0), np.arange(480)
        series = 2.0 * np.sin(2 * np.pi * t / 12) + np.tile(0.3 * rng.standard_normal(48), 10)
        series = series + 0.5 * rng.standard_normal(480)
        gaps = {m: np.sqrt(np.mean((series[m:] - series[:-m]) ** 2)) for m in (12, 48)}
        assert 1.05 < gaps[12] / gaps[48] < 1.15
        assert suggest_period(series) == 12

    @pytest.mark.parametrize("seed", range(5))
    def test_an_hourly_season_is_a_day_unless_the_week_is_better(self, seed):
        rng, t = np.random.default_rng(seed), np.arange(1200)
        day = 1.4 * np.sin(2 * np.pi * t / 24) + 0.7 * np.sin(4 * np.pi * t / 24 + 1.0)
        noise = 0.3 * rng.standard_normal(1200)
        assert suggest_period(day + noise) == 24
        weekend = np.where((t // 24) % 7 >= 5, 0.2, 1.0)
        assert suggest_period(weekend * (day + 1.0) + noise) == 168

    @pytest.mark.parametrize("rows", [100, 200, 700])
    @pytest.mark.parametrize("seed", range(5))
    def test_a_daily_season_is_a_week(self, rows, seed):
        rng, t = np.random.default_rng(seed), np.arange(rows)
        days = rng.standard_normal(7)
        series = (days / days.std())[t % 7] + 0.5 * rng.standard_normal(rows) + 0.01 * t
        assert suggest_period(series) == 7

    @pytest.mark.parametrize("rows", [60, 96, 200, 600])
    def test_noise_and_walks_have_a_season_by_chance_in_one_case_of_thirty_at_most(self, rows):
        rng = np.random.default_rng(0)
        noise = rng.standard_normal((30, rows))
        found = [suggest_period(x) for x in (*noise, *noise.cumsum(axis=1))]
        assert sum(period is not None for period in found) <= 2

    def test_the_bundled_series(self):
        """Tides: about 27 days. Oil has no season."""
        assert suggest_period(time_split(load("length_of_day").values)[0]) == 27
        assert suggest_period(time_split(load("wti").values)[0]) is None

    def test_at_ten_days_the_season_beats_the_last_value(self):
        train, test = time_split(load("length_of_day").values)
        first, whole = len(train) + 10, np.concatenate([train, test])
        x, y = make_windows(test, 10, 10)
        found = seasonal(whole, first, 27, 10)
        assert rmse(y[:, 9], found[:, 9]) == pytest.approx(0.360, abs=0.002)
        assert rmse(y[:, 9], persistence(x, 10)[:, 9]) == pytest.approx(0.583, abs=0.001)


class TestLinearAR:
    def test_recovers_an_exact_recurrence(self):
        series = np.zeros((60, 2))
        series[:, 1] = np.random.default_rng(0).normal(size=60)
        for t in range(2, 60):
            series[t, 0] = (
                0.5 * series[t - 1, 0] - 0.3 * series[t - 2, 0] + 2.0 * series[t - 1, 1] + 1.0
            )
        x, y = make_windows(series, 2)
        model = fit_linear_ar(x, y)
        np.testing.assert_allclose(model.coef[:, :, 0], [[-0.3, 0.0], [0.5, 2.0]], atol=1e-12)
        np.testing.assert_allclose(model.intercept, [1.0], atol=1e-12)
        np.testing.assert_allclose(model.predict(x), y, atol=1e-12)

    def test_direct_is_one_fit_per_step(self):
        series = np.random.default_rng(1).normal(size=40).cumsum()
        x, y = make_windows(series, 4, horizon=3)
        model = fit_linear_ar(x, y)
        assert model.coef.shape == (4, 1, 3)
        for j in range(3):
            alone = fit_linear_ar(x, y[:, j : j + 1])
            np.testing.assert_allclose(model.coef[:, :, [j]], alone.coef, rtol=1e-10)
            np.testing.assert_allclose(model.intercept[[j]], alone.intercept, rtol=1e-10)

    def test_residuals_are_orthogonal_to_the_windows(self):
        x, y = make_windows(np.random.default_rng(2).normal(size=40), 4)
        residual = (y - fit_linear_ar(x, y).predict(x))[:, 0]
        np.testing.assert_allclose(residual.sum(), 0, atol=1e-12)
        np.testing.assert_allclose(residual @ x[:, :, 0], 0, atol=1e-12)

    def test_float32_windows_are_fitted_in_float64(self):
        x, y = make_windows(np.random.default_rng(3).normal(size=40).astype(np.float32), 4)
        model = fit_linear_ar(x, y)
        exact = fit_linear_ar(x.astype(np.float64), y.astype(np.float64))
        assert model.coef.dtype == model.predict(x).dtype == np.float64
        np.testing.assert_allclose(model.coef, exact.coef, rtol=1e-12)

    def test_fewer_windows_than_coefficients(self):
        x, y = make_windows([1.0, 3.0, 2.0, 5.0, 4.0], 3)
        np.testing.assert_allclose(fit_linear_ar(x, y).predict(x), y, atol=1e-12)

    @pytest.mark.parametrize("shape", [(7,), (6, 1), (7, 1, 1)])
    def test_targets_of_the_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"\(N, horizon\) with the N = 7 of x, got"):
            fit_linear_ar(np.ones((7, 3, 1)), np.ones(shape))

    def test_windows_of_another_length(self):
        model = LinearAR(coef=np.zeros((10, 1, 1)), intercept=np.zeros(1))
        with pytest.raises(ValueError, match=r"windows \(N, 10, 1\), got \(4, 9, 1\)"):
            model.predict(np.ones((4, 9, 1)))


# Expected figures, as printed: RMSE / MAE of persistence and of direct AR(10), measured once with
# NumPy 2.4.6 on the files whose digests are in rnn_xp.data.datasets.
@pytest.mark.parametrize(
    ("name", "horizon", "windows", "naive", "linear"),
    [
        ("length_of_day", 1, 2072, "0.1660 / 0.1423", "0.0563 / 0.0443"),
        ("length_of_day", 2, 2071, "0.3190 / 0.2743", "0.1289 / 0.1012"),
        ("length_of_day", 5, 2068, "0.6445 / 0.5584", "0.3213 / 0.2625"),
        ("length_of_day", 7, 2066, "0.7084 / 0.6133", "0.3820 / 0.3146"),
        ("length_of_day", 10, 2063, "0.5829 / 0.4893", "0.3932 / 0.3228"),
        ("wti", 1, 1655, "1.2429 / 0.9243", "1.2486 / 0.9287"),
    ],
)
def test_published_errors(name, horizon, windows, naive, linear):
    truth, last, ar, _ = (
        part[:, -1] if part.ndim == 2 else part for part in forecasts(name, horizon)
    )
    assert len(truth) == windows
    assert f"{rmse(truth, last):.4f} / {mae(truth, last):.4f}" == naive
    assert f"{rmse(truth, ar):.4f} / {mae(truth, ar):.4f}" == linear


def test_published_scores_of_length_of_day():
    truth, last, ar, train = forecasts("length_of_day", 1)
    assert f"{mase(truth, last, train):.3f} {mase(truth, ar, train):.3f}" == "1.278 0.398"
    assert f"{np.abs(np.diff(train)).mean():.5f}" == "0.11133"
    assert f"{r2(truth, last):.3f} {r2(truth, ar):.3f}" == "0.909 0.990"
    assert f"{100 * skill(truth, ar, last):.1f}" == "66.1"


def test_published_errors_in_the_min_max_scale():
    truth, last, ar, train = forecasts("length_of_day", 1)
    scaler = fit_scaler("minmax", train)
    truth, last, ar = (scaler.transform(part) for part in (truth, last, ar))
    assert f"{rmse(truth, last):.5f} {rmse(truth, ar):.5f}" == "0.04441 0.01506"


def test_published_scores_of_wti_where_persistence_wins():
    truth, last, ar, train = forecasts("wti", 1)
    assert f"{mase(truth, last, train):.3f} {r2(truth, last):.4f}" == "1.405 0.9971"
    assert f"{rmse(truth, ar) / rmse(truth, last):.3f}" == "1.005"
