"""Metrics against hand-computed values; nothing is broadcast."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnn_xp.forecasting.metrics import (
    bias,
    coverage,
    mae,
    mase,
    pinball,
    r2,
    rmse,
    skill,
    smape,
    width,
)

TRUTH = [[1.0, 2.0], [3.0, 6.0]]
FORECAST = [[2.0, 0.0], [3.0, 9.0]]  # errors f - y: 1, -2, 0, 3
PAIRED = [rmse, mae, bias, r2]


class TestValues:
    def test_rmse(self):
        assert rmse(TRUTH, FORECAST) == math.sqrt(14 / 4)

    def test_mae(self):
        assert mae(TRUTH, FORECAST) == 1.5

    def test_bias_is_positive_when_the_forecast_is_high(self):
        assert bias(TRUTH, FORECAST) == 0.5
        assert bias(FORECAST, TRUTH) == -0.5

    def test_r2(self):
        assert r2(TRUTH, FORECAST) == 1 - 14 / 14
        assert r2(TRUTH, TRUTH) == 1
        assert r2(TRUTH, np.full((2, 2), 3.0)) == 0

    def test_skill(self):
        reference = np.asarray(TRUTH) + 4.0
        assert skill(TRUTH, FORECAST, reference) == 1 - math.sqrt(3.5) / 4
        assert skill(TRUTH, reference, reference) == 0
        assert skill(TRUTH, TRUTH, reference) == 1

    def test_mase(self):
        train = [0.0, 1.0, 3.0, 3.0, 8.0]  # steps 1, 2, 0, 5: mean 2; two apart 3, 2, 5
        assert mase(TRUTH, FORECAST, train) == 0.75
        assert mase(TRUTH, FORECAST, train, m=2) == pytest.approx(1.5 * 3 / 10, rel=1e-15)

    def test_smape(self):
        """By its definition, 0 to 200, for positive data alone."""
        y, f = np.asarray([[1.0, 4.0]]), np.asarray([[2.0, -4.0]])
        assert smape(y, f) == pytest.approx(100 * (1 / 3 + 1.0) * 1.0)
        assert smape(y, 0 * y) == 200.0
        for bad in (0.0, -1.0):
            with pytest.raises(ValueError, match="positive data, and the truth holds"):
                smape([[1.0, bad]], f)

    @pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
    def test_pinball(self, quantile):
        """It is lowest for the quantile itself; for the median it is half the MAE."""
        y = np.random.default_rng(0).exponential(size=2001)
        best = pinball(y, np.full_like(y, np.quantile(y, quantile)), quantile)
        for shift in (-0.05, 0.05):
            assert pinball(y, np.full_like(y, np.quantile(y, quantile) + shift), quantile) > best
        assert pinball(y, y + 1.0, quantile) == pytest.approx(1.0 - quantile)
        assert pinball(y, y - 1.0, quantile) == pytest.approx(quantile)
        assert pinball(y, 2 * y, 0.5) == pytest.approx(0.5 * mae(y, 2 * y))
        for bad in (0.0, 1.0, -0.1):
            with pytest.raises(ValueError, match="quantile must be in"):
                pinball(y, y, bad)

    def test_intervals(self):
        y = [[1.0, 2.0], [3.0, 4.0]]
        low, high = [[1.0, 2.5], [2.0, 0.0]], [[1.0, 3.0], [3.0, 3.9]]
        assert coverage(y, low, high) == 0.5
        assert width(low, high) == pytest.approx((0.0 + 0.5 + 1.0 + 3.9) / 4)
        for call in (lambda: coverage(y, high, low), lambda: width(high, low)):
            with pytest.raises(ValueError, match="may have been swapped"):
                call()
        with pytest.raises(ValueError, match="nothing is broadcast"):
            coverage(y, low, high[0])

    def test_pooled_is_not_the_mean_of_the_steps(self):
        truth, forecast = np.asarray(TRUTH), np.asarray(FORECAST)
        per_step = [rmse(truth[:, j], forecast[:, j]) for j in range(2)]
        assert rmse(truth, forecast) == pytest.approx(math.sqrt(np.mean(np.square(per_step))))
        assert rmse(truth, forecast) != pytest.approx(np.mean(per_step))

    @pytest.mark.parametrize("metric", PAIRED)
    def test_python_floats(self, metric):
        assert type(metric(np.float32(TRUTH), np.float32(FORECAST))) is float
        assert type(mase(TRUTH, FORECAST, [1, 2])) is float
        assert type(skill(TRUTH, FORECAST, FORECAST)) is float

    def test_float32_is_summed_in_float64(self):
        truth = np.full(2**16, 4096.0, dtype=np.float32)
        assert mae(truth, truth + np.float32(0.0009765625)) == 0.0009765625


class TestErrors:
    @pytest.mark.parametrize("metric", PAIRED)
    def test_shapes_are_not_broadcast(self, metric):
        message = r"truth \(4, 1\) and forecast \(4,\) must have the same shape"
        with pytest.raises(ValueError, match=message):
            metric(np.arange(4.0)[:, None], np.arange(4.0))

    def test_reference_is_not_broadcast(self):
        with pytest.raises(ValueError, match=r"truth \(2, 2\) and forecast \(2,\)"):
            skill(TRUTH, FORECAST, [1.0, 2.0])

    @pytest.mark.parametrize("metric", PAIRED)
    def test_empty(self, metric):
        with pytest.raises(ValueError, match="no entries to measure"):
            metric([], [])

    @pytest.mark.parametrize("metric", PAIRED)
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, metric, bad):
        with pytest.raises(ValueError, match="forecast holds a NaN or infinite entry"):
            metric([1.0, 2.0], [1.0, bad])
        with pytest.raises(ValueError, match="truth holds a NaN or infinite entry"):
            metric([bad, 2.0], [1.0, 2.0])

    @pytest.mark.parametrize("metric", PAIRED)
    def test_complex(self, metric):
        with pytest.raises(TypeError, match="complex128"):
            metric(np.ones(2, complex), np.ones(2))

    @pytest.mark.parametrize("m", [0, -1, 5, 6])
    def test_mase_season(self, m):
        with pytest.raises(ValueError, match=rf"more than m values .* \(5,\) and m={m}\."):
            mase([1.0], [2.0], [1.0, 2.0, 4.0, 8.0, 9.0], m=m)

    def test_mase_wants_a_vector(self):
        with pytest.raises(ValueError, match=r"got train of shape \(3, 2\) and m=1"):
            mase([1.0], [2.0], np.ones((3, 2)))

    def test_mase_periodic_training_part(self):
        with pytest.raises(ValueError, match="train repeats with period m=2"):
            mase([1.0], [2.0], [1.0, 2.0, 1.0, 2.0], m=2)

    def test_r2_constant_truth(self):
        with pytest.raises(ValueError, match="truth is constant, so r2 is undefined"):
            r2([2.0, 2.0], [1.0, 3.0])

    def test_skill_perfect_reference(self):
        with pytest.raises(ValueError, match="reference forecast is perfect"):
            skill([1.0, 2.0], [1.0, 3.0], [1.0, 2.0])
