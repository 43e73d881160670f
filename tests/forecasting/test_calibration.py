"""The errors that intervals are made from: enough of them, none seen before, in the right units."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves

from benchmarks.compare.forecasters import covered
from benchmarks.compare.series import PROCESSES
from rnn_xp.forecasting.linear import fit_path


def walk(rows=200, seed=0):
    return 100.0 + np.cumsum(np.random.default_rng(seed).standard_normal(rows))


class TestLogarithms:
    """Noise that grows with the level gives intervals that are shares of the level."""

    def grown(self, rows=300):
        rng = np.random.default_rng(0)
        return np.exp(np.cumsum(0.02 + 0.03 * rng.standard_normal(rows)))

    @pytest.mark.parametrize("target", ["log", "logret"])
    @pytest.mark.parametrize("kind", ["adaptive", "split"])
    def test_ends_lie_as_many_times_above_as_below(self, target, kind):
        f = quick(target=target, intervals=kind, horizon=3).fit(self.grown()[:200])
        low, high = f.predict_interval()
        np.testing.assert_allclose(high / f.predict(), f.predict() / low, rtol=1e-6)
        assert (low > 0.0).all()

    def test_their_width_grows_with_the_level(self):
        values = self.grown()
        f = quick(target="log", intervals="split").fit(values[:150])
        (part,) = f.evaluate(values).series
        share = (part.high - part.low) / part.forecast
        np.testing.assert_allclose(share, share[0, 0], rtol=1e-6)
        widths = (part.high - part.low)[:, 0]
        assert widths[-20:].mean() > 3.0 * widths[:20].mean()

    def test_errors_are_those_of_logarithms(self):
        values = self.grown()
        f = quick(target="log").fit(values[:200])
        (part,) = f.report_.series
        unit = f.fitted.designs[0].unit
        assert unit == pytest.approx(np.std(np.log(values[: part.origins[0]])))
        expected = np.abs(np.log(part.truth / part.forecast)) / unit
        np.testing.assert_allclose(f.fitted.errors, expected)


class TestEarlier:
    """Where the linear path forecasts alone, its errors on earlier parts are known as well."""

    def test_they_are_errors_of_paths_that_had_not_seen_their_rows(self):
        values, length = walk(), 8
        f = quick(fallback=True, horizon=2, scaler="none").fit(values)
        assert f.fitted.alone
        (first,), known = f.report_.series[0].origins[:1], len(f.report_.series[0].origins)
        width = len(values) - first
        assert len(f.fitted.errors) == 3 * width + known
        for part in (1, 2, 3):
            end = first - part * width
            rows = np.lib.stride_tricks.sliding_window_view(values[:end], length + 1)
            weights, constant = fit_path(rows[:, :-1], rows[:, -1]).ahead(2)
            forecast = values[end - length : end] @ weights.T + constant
            expected = np.abs(values[end : end + 2] - forecast) / f.fitted.designs[0].unit
            np.testing.assert_allclose(f.fitted.errors[(3 - part) * width], expected, rtol=1e-3)

    def test_what_comes_later_does_not_change_them(self):
        values, other = walk(), walk()
        other[-60:] += walk(60, seed=5) - 100.0
        errors = [quick(fallback=True, scaler="none").fit(v).fitted for v in (values, other)]
        assert all(fitted.alone for fitted in errors)
        a, b = (fitted.errors[:30] * fitted.designs[0].unit for fitted in errors)
        np.testing.assert_allclose(a, b, rtol=1e-4)

    def test_the_latest_errors_of_all_series_are_the_last(self):
        panel = {k: walk(seed=k) for k in range(4)}
        f = quick(fallback=True).fit(panel)
        known = sum(len(part.origins) for part in f.report_.series)
        errors = f.fitted.errors[-known:]
        for k, part in enumerate(f.report_.series):
            design = f.fitted.designs[k]
            latest = design.errors(part.truth[-1], part.forecast[-1])
            assert np.isclose(errors[-4:], latest).any()

    def test_a_network_that_forecasts_has_those_on_the_validation_part_only(self):
        f = quick(fallback=False).fit(walk())
        assert len(f.fitted.errors) == len(f.report_.series[0].origins)

    def test_enough_of_a_long_series(self):
        f = quick(fallback=True, epochs=1).fit(walk(4000))
        assert len(f.fitted.errors) == len(f.report_.series[0].origins) > 500

    def test_features_and_gaps_are_no_hindrance(self):
        values = waves(240) + walk(240)
        values[30] = np.nan
        future = np.random.default_rng(0).standard_normal((240, 1))
        f = quick(fallback=True, missing="mask", horizon=2).fit(values, future=future)
        assert f.fitted.alone
        assert len(f.fitted.errors) > len(f.report_.series[0].origins)
        assert np.isfinite(f.fitted.errors).all()


@pytest.mark.full
@pytest.mark.parametrize("horizon", [1, 12])
def test_coverage_of_series_of_200_rows_is_what_was_promised(horizon):
    """In the mean of series of each process; of one series 40 forecasts tell little.

    A single series may be off by chance: by 6 points at 80 % (the deviation of a binomial share of
    40 forecasts), and by more where the steps of successive forecasts overlap.
    """
    seeds, levels, means = 20, (0.8, 0.95), []
    for make in PROCESSES.values():
        found = [
            covered(make(np.random.default_rng(1000 + seed), 200), horizon, levels)
            for seed in range(seeds)
        ]
        means.append(np.mean(found, axis=0))
        assert (np.abs(means[-1] - levels) < 0.05).all(), (make, means[-1])
    assert (np.abs(np.mean(means, axis=0) - levels) < 0.015).all()
