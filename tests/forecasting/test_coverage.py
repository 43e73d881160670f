"""The coverage that is reported is that of the intervals which `predict_interval` then gives."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves

import rnn_xp as rx
from rnn_xp.forecasting.adapting import errors_of
from rnn_xp.forecasting.backtest import judge, make_judged
from rnn_xp.forecasting.intervals import adaptive_radii

KINDS = ["adaptive", "split", "quantile"]


def growing(rows=320, seed=0):
    """Waves whose noise is four times as large from row 200 on."""
    rng = np.random.default_rng(seed)
    noise = 0.1 * rng.standard_normal(rows) * np.where(np.arange(rows) < 200, 1.0, 4.0)
    return waves(rows) + noise


def intervals_at(f, part, values, **later):
    """Return both ends at each origin of judged forecasts, as if the series ended there."""
    ends = []
    for origin in part.origins:
        now = f.apply(values[:origin], **{k: v[:origin] for k, v in later.items()})
        ahead = {k: v[origin : origin + f.horizon] for k, v in later.items()}
        ends.append(now.predict_interval(**ahead))
    return (np.stack(side) for side in zip(*ends, strict=True))


class TestReportedIsReal:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("horizon", [1, 12])
    def test_reported_intervals_are_those_of_predict_interval_at_every_origin(self, kind, horizon):
        values = growing()
        f = quick(horizon=horizon, intervals=kind, level=0.8).fit(values[:240])
        report = f.evaluate(values)
        (part,) = report.series
        low, high = intervals_at(f, part, values)
        np.testing.assert_allclose(low, part.low, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(high, part.high, rtol=1e-5, atol=1e-5)
        covered = np.mean((low <= part.truth) & (part.truth <= high))
        assert covered == pytest.approx(report.metrics["coverage"], abs=0.002)

    def test_a_stride_judges_the_same_intervals(self):
        values = growing()
        f = quick(horizon=3).fit(values[:240])
        every, third = (f.evaluate(values, stride=k).series[0] for k in (1, 3))
        np.testing.assert_allclose(third.high, every.high[::3], rtol=1e-5)

    def test_applied_step_by_step_saved_and_loaded_it_is_the_same(self, tmp_path):
        values = growing(280)
        f = quick(horizon=3).fit(values[:240])
        at_once, by_step = f.apply(values).predict_interval(), f
        for end in range(241, 281):
            by_step = by_step.apply(values[:end])
            if end in (243, 260):
                by_step.save(tmp_path / "f")
                by_step = rx.Forecaster.load(tmp_path / "f")
        for a, b in zip(at_once, by_step.predict_interval(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        assert not np.allclose(at_once[1] - at_once[0], np.subtract(*f.predict_interval()[::-1]))

    def test_gaps_after_the_training_change_nothing_but_themselves(self, tmp_path):
        values = growing()
        values[[250, 251, 270]] = np.nan
        f = quick(horizon=3, missing="mask").fit(values[:240])
        (part,) = f.evaluate(values).series
        assert 252 in part.origins
        f.apply(values[:290]).save(tmp_path / "f")
        now, loaded = f.apply(values[:300]), rx.Forecaster.load(tmp_path / "f")
        for a, b in zip(now.fitted.later, loaded.apply(values[:300]).fitted.later, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        low, high = intervals_at(f, part, values)
        np.testing.assert_allclose(low, part.low, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(high, part.high, rtol=1e-5, atol=1e-5)

    def test_future_features_that_are_not_there_yet_are_not_taken_for_zero(self):
        values, feature = growing(), waves(320, seed=5)
        f = quick(horizon=4).fit(values[:240], future=feature[:240])
        (part,) = f.evaluate(values, future=feature).series
        low, high = intervals_at(f, part, values, future=feature)
        np.testing.assert_allclose(low, part.low, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(high, part.high, rtol=1e-5, atol=1e-5)

    def test_several_series_adapt_each_to_its_own_errors(self):
        calm, wild = waves(320), growing(320, 1)
        f = quick().fit({"calm": calm[:200], "wild": wild[:200]})
        low, high = f.apply({"calm": calm, "wild": wild}).predict_interval()
        before = [np.subtract(*(ends[n] for ends in f.predict_interval()[::-1])) for n in low]
        now = [high[n] - low[n] for n in low]
        assert now[0] <= before[0]
        assert now[1] > 1.5 * before[1]

    def test_values_of_another_series_change_no_interval(self):
        f = quick(horizon=2).fit(waves())
        before = np.subtract(*f.predict_interval()[::-1])
        for other in (waves(300, 4), 5.0 * waves(300), waves()[:100]):
            width = np.subtract(*f.apply(other).predict_interval()[::-1])
            np.testing.assert_allclose(width, before, rtol=1e-9)


class TestRetraining:
    def test_adaptive_intervals_go_on_from_one_training_to_the_next(self):
        """Errors four times as large as before: with intervals begun anew 0.3 would be covered."""
        values = growing(300)
        f = quick(epochs=2, hidden_size=2, level=0.9, refit=False)
        result = f.backtest(values, start=200, retrain=5)
        (part,) = result.series
        first = f.fit(values[:200]).fitted
        errors = np.abs(part.truth - part.forecast) / first.designs[0].unit
        radii = adaptive_radii(first.errors, errors, 0.9) * first.designs[0].unit
        np.testing.assert_allclose(part.high - part.forecast, radii, rtol=1e-4)
        assert radii[-1] > 2.0 * radii[0]

    @pytest.mark.parametrize("every", [1, 7, 50])
    def test_how_often_it_is_trained_does_not_change_what_intervals_know(self, every):
        """The network of a walk hardly changes; so must its intervals, in the mean of a few."""
        f = quick(epochs=1, hidden_size=1, seq_length=2, optimizer=rx.optim.sgd(1e-9))
        widths, covered = [], []
        for seed in range(1, 9):
            walk = np.random.default_rng(seed).standard_normal(150).cumsum()
            walk[100:] += 3.0 * np.random.default_rng(seed + 1).standard_normal(50)
            once, again = (f.backtest(walk, start=100, retrain=k) for k in (False, every))
            covered.append([once.metrics["coverage"], again.metrics["coverage"]])
            widths.append([np.mean(r.series[0].high - r.series[0].low) for r in (once, again)])
        np.testing.assert_allclose(*np.mean(widths, axis=0), rtol=0.15)
        assert np.ptp(np.mean(covered, axis=0)) <= 0.02
        assert np.abs(np.diff(covered, axis=1)).max() <= 0.06

    def test_the_intervals_of_a_stride_adapt_to_all_rows_between(self):
        values = growing(280)
        f = quick(epochs=2)
        dense, sparse = (f.backtest(values, 200, stride=s, retrain=20 // s) for s in (1, 4))
        dense, sparse = dense.series[0], sparse.series[0]
        np.testing.assert_allclose(sparse.high, dense.high[::4], rtol=1e-4)


def test_errors_are_nan_where_the_truth_is_missing_or_to_come():
    values = waves()
    values[235] = np.nan
    f = quick(horizon=3, missing="mask").fit(values[:230]).apply(values).fitted
    errors = errors_of(f.predictor, values, f.designs[0], np.arange(230, 240), 3)
    unknown = {(r, s) for r in range(10) for s in range(3) if r + s == 5 or r + s >= 10}
    assert {tuple(at) for at in np.argwhere(np.isnan(errors)).tolist()} == unknown
    assert np.array_equal(f.later[0], errors, equal_nan=True)


class TestQuantiles:
    """Lower end, forecast and upper end are in this order, and a report can always be printed."""

    @pytest.mark.parametrize("n_seeds", [1, 2])
    def test_the_forecast_lies_within_its_interval_even_where_the_network_s_quantiles_cross(
        self, n_seeds
    ):
        rng = np.random.default_rng(0)
        f = quick(intervals="quantile", horizon=3, level=0.1, epochs=3, n_seeds=n_seeds)
        f.fit(rng.standard_normal(200))
        predictor = f.predictor_
        x = (5.0 * rng.standard_normal((500, 8, 1))).astype(np.float32)
        raw = np.mean([predictor.net.predict(p, x) for p in predictor.networks], axis=0)
        raw = raw.reshape(500, 3, 3)
        assert (np.diff(raw, axis=2) < 0.0).any(), "they cross, or this shows nothing"
        found = predictor._networks(x, np.ones((500, 8), bool))
        np.testing.assert_allclose(found, np.sort(raw, axis=2), rtol=1e-5, atol=1e-6)

    def test_every_forecast_of_a_backtest_lies_within_its_interval(self):
        values = np.random.default_rng(1).standard_normal(260)
        f = quick(intervals="quantile", horizon=2, level=0.1, epochs=4)
        result = f.backtest(values, start=200)
        (part,) = result.series
        assert (part.low <= part.forecast).all()
        assert (part.forecast <= part.high).all()
        low, high = f.fit(values).predict_interval()
        assert (low <= f.predict()).all()
        assert (f.predict() <= high).all()
        assert "interval 10 %: covers" in str(result)

    def test_a_report_whose_ends_cross_is_printed_and_says_so(self):
        values = waves()
        forecast = values[200:239, None]
        part = make_judged(
            "made", values, 200, np.arange(200, 239), forecast, (forecast + 1.0, forecast), 8
        )
        text = str(judge((part,), "rnn", 0.9))
        assert "interval 90 %: its ends cross, so nothing can be covered" in text
