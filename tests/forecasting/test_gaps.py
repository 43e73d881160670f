"""Missing values with a linear path: estimated from what came before, never taken for the mean."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick

import rnn_xp as rx
from rnn_xp.forecasting.baselines import fit_linear_ar
from rnn_xp.forecasting.gaps import estimate_gaps, fit_gap_model
from rnn_xp.forecasting.panel import as_panel
from rnn_xp.forecasting.prepared import prepare
from rnn_xp.forecasting.training import linear_start

NAN = np.nan


def trend(rows=240, seed=0, slope=1.5, spread=1.0):
    """A rising series, 371 or so at its end."""
    noise = spread * np.random.default_rng(seed).standard_normal(rows)
    return 10.0 + slope * np.arange(rows) + noise


def without(values, *rows):
    values = values.copy()
    values[list(rows)] = NAN
    return values


def masked(**options):
    return quick(missing="mask", **options)


class TestTrend:
    @pytest.mark.parametrize("target", ["level", "diff", "logret"])
    @pytest.mark.parametrize("strategy", ["direct", "recursive"])
    @pytest.mark.parametrize("rows", [(-1,), (-2,), (-3, -2, -1), (-8, -5, -1)])
    def test_forecasts_go_on_as_if_nothing_were_missing(self, target, strategy, rows, tmp_path):
        """Within three standard deviations of the noise; the training mean would be 180 away."""
        values = trend()
        f = masked(target=target, strategy=strategy, horizon=3).fit(values)
        seen, gone = f.predict(), f.apply(without(values, *rows))
        tolerance = 3.0 * 1.0 if target == "level" else 4.5  # changes start from a noisy value
        np.testing.assert_allclose(gone.predict(), seen, atol=tolerance)
        fitted = masked(target=target, strategy=strategy, horizon=3).fit(without(values, *rows))
        np.testing.assert_allclose(fitted.predict(), seen, atol=tolerance)
        for made in (gone, fitted):
            made.save(tmp_path / "f")
            again = rx.Forecaster.load(tmp_path / "f")
            assert np.array_equal(again.predict(5), made.predict(5))
            newer = without(np.append(values, trend(242)[240:]), *rows[:1], -1)
            np.testing.assert_allclose(again.apply(newer).predict(), made.apply(newer).predict())

    def test_each_series_has_estimates_of_its_own(self):
        up, down = trend(), 1000.0 - trend(seed=1)
        f = masked(horizon=2).fit({"up": up, "down": down})
        seen = f.predict()
        found = f.apply({"up": without(up, -1), "down": without(down, -2, -1)}).predict()
        for name in seen:
            np.testing.assert_allclose(found[name], seen[name], atol=4.0)

    def test_gaps_within_the_series_do_not_disturb_what_is_learnt(self):
        values = trend(spread=0.1)
        holes = np.random.default_rng(3).choice(230, 24, replace=False)
        f = masked(horizon=2).fit(without(values, *holes))
        np.testing.assert_allclose(f.predict(), [370.0, 371.5], atol=0.6)
        (part,) = f.evaluate(np.append(values, trend(260, spread=0.1)[240:])).series
        assert np.abs(part.truth - part.forecast).max() < 1.0

    def test_persistence_stays_the_last_value_that_was_seen(self):
        values = without(trend(260), 245, 246)
        (part,) = masked().fit(values[:240]).evaluate(values).series
        at = part.origins.tolist().index(247)
        assert part.baselines["persistence"][at, 0] == values[244]

    def test_without_a_linear_path_the_step_is_skipped_as_before(self):
        design = prepare(masked(linear=False), as_panel(without(trend(), 20))).designs[0]
        assert design.gaps is None
        assert design.z[20] == 0.0


class TestLeastSquares:
    def test_only_windows_whose_lags_are_all_seen_enter(self):
        values = trend() + np.random.default_rng(1).standard_normal(240).cumsum()
        holes = np.random.default_rng(2).choice(200, 10, replace=False)
        prepared = prepare(masked(seq_length=6), as_panel(without(values, *holes)))
        backend = rx.get_backend("numpy", dtype="float64")
        start = linear_start(prepared.net, prepared.trained, (0.5,), 0, backend, None)
        x, y, whole = prepared.trained.x, prepared.trained.y, prepared.trained.mask.all(axis=1)
        assert 30 < np.sum(~whole) < 70
        right, wrong = fit_linear_ar(x[whole], y[whole]), fit_linear_ar(x, y)
        np.testing.assert_allclose(start["readout.w_xy"][0], right.coef[:, 0, 0], rtol=1e-9)
        np.testing.assert_allclose(start["readout.b_y"], right.intercept, rtol=1e-9)
        assert np.abs(right.coef - wrong.coef).max() > 1e-3

    def test_with_fewer_of_them_than_coefficients_estimates_help_out(self):
        values = trend()
        values[::4] = NAN  # no eight values follow each other
        found = masked(horizon=2).fit(values).predict()
        np.testing.assert_allclose(found, [370.0, 371.5], atol=4.0)


class TestModel:
    def test_it_is_the_least_squares_autoregression(self):
        rng = np.random.default_rng(0)
        values = np.zeros(400)
        for t in range(2, 400):
            values[t] = 5.0 + 0.5 * values[t - 1] + 0.3 * values[t - 2] + 0.1 * rng.normal()
        model = fit_gap_model(values, "level", 2)
        x = np.stack([np.ones(398), values[1:-1], values[:-2]], axis=1)
        expected = np.linalg.lstsq(x, values[2:], rcond=None)[0]
        np.testing.assert_allclose(model, expected, rtol=1e-8)

    def test_its_rows_are_known_together_with_all_their_lags(self):
        values = 2.0 ** np.arange(20.0)
        values[9] = NAN
        constant, weight = fit_gap_model(values, "level", 1)
        np.testing.assert_allclose((constant, weight), (0.0, 2.0), atol=1e-6)

    @pytest.mark.parametrize(("target", "expected"), [("level", (0.0, 1.0)), ("diff", (0.0,))])
    def test_where_no_two_values_follow_each_other_the_last_one_stays(self, target, expected):
        values = trend(60)
        values[::2] = NAN
        assert fit_gap_model(values, target, 8) == expected

    def test_fewer_lags_where_gaps_leave_no_longer_run(self):
        values = trend(90)
        values[::5] = NAN
        assert len(fit_gap_model(values, "level", 8)) == 4  # four values together: three lags

    def test_the_first_weight_is_that_of_the_latest_value(self):
        found = estimate_gaps(np.asarray([1.0, 3.0, NAN, NAN]), "level", (0.0, 2.0, -1.0))
        assert found.tolist() == [1.0, 3.0, 5.0, 7.0]
        found = estimate_gaps(np.asarray([1.0, 2.0, 5.0, NAN]), "diff", (0.5, 1.0, -1.0))
        assert found.tolist() == [1.0, 2.0, 5.0, 7.5]

    def test_an_estimate_looks_at_values_before_it_alone(self):
        values = without(trend(), 100, 101)
        changed = values.copy()
        changed[102:] += 1000.0
        model = fit_gap_model(values[:90], "level", 4)
        one, other = (estimate_gaps(v, "level", model)[100:102] for v in (values, changed))
        assert np.array_equal(one, other)

    def test_beyond_as_many_rows_as_lags_nothing_was_seen_and_the_estimate_stays(self):
        found = estimate_gaps(np.asarray([1.0, 2.0, *[NAN] * 4]), "level", (0.0, 0.0, 4.0))
        assert found.tolist() == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]

    def test_a_gap_at_the_start_takes_the_first_value(self):
        assert estimate_gaps(np.asarray([NAN, 3.0, NAN]), "diff", (1.0,)).tolist() == [3, 3, 4]
