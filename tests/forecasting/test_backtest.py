"""Backtests: truth, baselines and metrics as defined, no look ahead, and plain words."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves

import rnn_xp as rx
from rnn_xp.forecasting import baselines


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
        lags = baselines.best_lags(values[:200], 8)
        x, y = rx.make_windows(values[:200], lags, 2)
        x_test, _ = rx.make_windows(values[200 - lags :], lags, 2)
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
        # The same parameters, in products of other sizes, which a BLAS may round otherwise.
        np.testing.assert_allclose(
            once.series[0].forecast[:2], again.series[0].forecast[:2], rtol=1e-6
        )
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

    def test_pooled_mase_knows_no_seam(self):
        """Each series is scaled by its own changes; the way from one to the next is none."""
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((2, 300)).cumsum(axis=1)
        result = quick(epochs=2).backtest({"a": a, "b": b + 1000.0}, start=200)
        mases = [
            np.mean(np.abs(part.truth - part.baselines["persistence"]))
            / np.mean(np.abs(np.diff(values[:200])))
            for part, values in zip(result.series, (a, b), strict=True)
        ]
        (score,) = (s for s in result.scores if s.name == "persistence")
        np.testing.assert_allclose(score.mase, np.mean(mases))
        apart = quick(epochs=2).backtest({"a": a, "b": b}, start=200)
        np.testing.assert_allclose(apart.scores[0].mase, score.mase)
        own = [
            np.mean(np.abs(part.truth - part.forecast)) / np.mean(np.abs(np.diff(values[:200])))
            for part, values in zip(result.series, (a, b), strict=True)
        ]
        np.testing.assert_allclose(result.metrics["mase"], np.mean(own))

    def test_a_series_with_nothing_to_judge_by_gives_no_errors(self):
        """Its validation part has nowhere three values together; the other's errors are kept."""
        holes = waves()
        holes[205::3] = np.nan
        f = quick(strategy="recursive", horizon=3, missing="mask")
        f.fit({"holes": holes, "whole": waves(seed=1)})
        (part,) = f.report_.series
        assert part.name == "whole"
        unit = f.fitted.designs[1].unit
        np.testing.assert_allclose(f.fitted.errors, np.abs(part.truth - part.forecast) / unit)
        low, high = f.predict_interval(level=0.5)
        for name, design in zip(("holes", "whole"), f.fitted.designs, strict=True):
            radii = (high[name] - low[name]) / 2
            expected = np.sort(f.fitted.errors, axis=0)[-(-(len(f.fitted.errors) + 1) // 2) - 1]
            np.testing.assert_allclose(radii, expected * design.unit, rtol=1e-6)


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
