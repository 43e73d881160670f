"""One-series forecasting: what training may see, and each score against plain NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rnn_xp.data.scalers import fit_scaler
from rnn_xp.forecasting import Score, compare, follows_last_value, verdict
from rnn_xp.forecasting.backtest import make_judged
from rnn_xp.forecasting.panel import as_panel
from rnn_xp.forecasting.prepared import prepare
from rnn_xp.forecasting.settings import Settings

VALUES = np.random.default_rng(0).standard_normal(50).cumsum()
CUT = 40


def ready(values=VALUES, seq_length=4, horizon=2, scaler="standard"):
    """The training part of a series, made ready; nothing is kept for validation."""
    settings = Settings(
        seq_length=seq_length, horizon=horizon, scaler=scaler, validation=None, intervals=None
    )
    return prepare(settings, as_panel(np.asarray(values)[:CUT]))


def judged(values=VALUES, seq_length=4, horizon=2, cut=None):
    """The test part of a series, beside forecasts that are all zero."""
    values = np.asarray(values, dtype=float)
    cut = int(0.8 * len(values)) if cut is None else cut
    origins = np.arange(cut + seq_length, len(values) - horizon + 1)
    forecast = np.zeros((len(origins), horizon))
    return make_judged("made", values, cut, origins, forecast, None, seq_length)


class TestTestPartIsUnseen:
    @pytest.mark.parametrize("kind", ["standard", "minmax", "none"])
    def test_what_comes_after_the_cut_changes_nothing(self, kind):
        changed = VALUES.copy()
        changed[CUT:] = 1e6
        one, other = ready(scaler=kind), ready(changed, scaler=kind)
        found = [made.designs[0].scaler for made in (one, other)]
        assert found == [fit_scaler(kind, VALUES[:CUT])] * 2
        assert np.array_equal(one.trained.x, other.trained.x)
        assert np.array_equal(one.trained.y, other.trained.y)

    def test_windows_of_each_part(self):
        made, part = ready().trained, judged()
        scaled = fit_scaler("standard", VALUES[:CUT]).transform(VALUES)
        ends = range(4, CUT - 1)  # of the first target
        assert np.array_equal(made.x[..., 0], [scaled[end - 4 : end] for end in ends])
        assert np.array_equal(made.y, [scaled[end : end + 2] for end in ends])
        ends = range(CUT + 4, len(VALUES) - 1)
        assert np.array_equal(part.truth, [VALUES[end : end + 2] for end in ends])

    def test_baselines(self):
        """Persistence repeats the last value; the AR finds the rule of the training part."""
        rule = np.sin(np.arange(50) * np.pi / 4.0)  # v[t] = 2 cos(pi/4) v[t-1] - v[t-2]
        rule[CUT:] = VALUES[CUT:]  # which follows no such rule
        forecasts = judged(rule, seq_length=2).baselines
        assert list(forecasts) == ["persistence", "drift", "mean", "seasonal(8)", "linear AR(2)"]
        last = rule[CUT + 1 : -2]
        assert np.array_equal(forecasts["persistence"], np.stack([last, last], axis=1))
        expected = 2 * np.cos(np.pi / 4) * last - rule[CUT:-3]
        np.testing.assert_allclose(forecasts["linear AR(2)"][:, 0], expected, atol=1e-12)
        change = (rule[CUT - 1] - rule[0]) / (CUT - 1)
        np.testing.assert_allclose(
            forecasts["drift"], np.stack([last + change, last + 2 * change], axis=1)
        )
        np.testing.assert_allclose(forecasts["mean"], np.full((7, 2), rule[:CUT].mean()))
        # What a season ago was may lie in the training part.
        before = np.stack([rule[CUT + 2 - 8 : -1 - 8], rule[CUT + 3 - 8 : -8]], axis=1)
        assert np.array_equal(forecasts["seasonal(8)"], before)

    def test_no_seasonal_forecast_without_a_season(self):
        walk = np.random.default_rng(3).standard_normal(60).cumsum()
        assert list(judged(walk).baselines) == ["persistence", "drift", "mean", "linear AR(4)"]

    @pytest.mark.parametrize(
        ("train", "test", "words"),
        [
            ([0.0, 10.0], [2.0, 8.0], ""),
            ([0.0, 10.0], [2.0, 14.0], "training range by 40 % of that range (training 0 .. 10"),
        ],
    )
    def test_warning(self, train, test, words):
        warning = judged(train * 20 + test * 5).warning
        assert words in warning
        assert bool(warning) == bool(words)


class TestCompare:
    def test_every_score(self):
        made = judged()
        truth = made.truth
        forecasts = {**made.baselines, "model": truth + np.asarray([[0.3, -1.0]]) * truth + 0.2}
        scores = compare(truth, forecasts, made.train)
        assert [score.name for score in scores] == list(forecasts)
        reference = np.sqrt(np.mean((forecasts["persistence"] - truth) ** 2))
        for score, forecast in zip(scores, forecasts.values(), strict=True):
            error = forecast - truth
            rmse = np.sqrt(np.mean(error**2))
            found = dataclasses.asdict(score)
            steps = found.pop("rmse_per_step")
            del found["name"]
            assert steps == pytest.approx(tuple(np.sqrt(np.mean(error**2, axis=0))), rel=1e-12)
            assert found == pytest.approx(
                {
                    "rmse": rmse,
                    "mae": np.mean(np.abs(error)),
                    "mase": np.mean(np.abs(error)) / np.mean(np.abs(np.diff(VALUES[:CUT]))),
                    "skill": 1 - rmse / reference,
                    "r2": 1 - np.sum(error**2) / np.sum((truth - truth.mean()) ** 2),
                    "bias": error.mean(),
                },
                rel=1e-12,
                abs=1e-12,
            )

    def test_none_where_a_score_is_not_defined(self):
        """A test part that stands still: persistence is perfect and the truth has no variance."""
        made = judged(np.concatenate([VALUES[:CUT], np.full(10, 3.0)]))
        score = compare(made.truth, made.baselines, made.train)[0]
        assert (score.skill, score.r2) == (None, None)
        assert (score.rmse, score.mae, score.mase, score.bias) == (0.0, 0.0, 0.0, 0.0)
        values, last = np.concatenate([np.full(CUT, 3.0), VALUES[CUT:]]), np.arange(43, 48)
        truth = values[last[:, None] + [1, 2]]
        persistence = np.stack([values[last]] * 2, axis=1)
        score = compare(truth, {"persistence": persistence}, values[:CUT])[0]
        assert score.mase is None
        assert (score.skill, score.r2 is None) == (0.0, False)


class TestFollowsLastValue:
    WALK = np.random.default_rng(0).standard_normal(300).cumsum()

    def test_it_is_said_of_a_copy_of_the_last_value(self):
        made = judged(self.WALK)
        copy = made.baselines["persistence"]
        noise = 0.01 * np.random.default_rng(1).standard_normal(copy.shape)
        said = follows_last_value(
            "model", 0.9 * copy + 3.0 + noise, made.truth, made.baselines["persistence"][:, 0]
        )
        assert said.startswith("model repeats the last value: its forecast is closer to")

    def test_it_is_not_said_of_a_forecast(self):
        made = judged(self.WALK)
        noise = 0.1 * np.random.default_rng(1).standard_normal(made.truth.shape)
        assert (
            follows_last_value(
                "model", made.truth + noise, made.truth, made.baselines["persistence"][:, 0]
            )
            == ""
        )

    def test_it_is_not_said_on_a_trend_where_the_changes_are_forecast(self):
        """Levels correlate more with the last value, but the error is 70 % below persistence's."""
        rng, t = np.random.default_rng(0), np.arange(200.0)
        last = t + 0.05 * rng.standard_normal(200)
        truth = (last + 1.0 + 0.25 * rng.standard_normal(200))[:, None]
        forecast = last[:, None] + 1.0
        behind, ahead = (np.corrcoef(forecast[:, 0], v)[0, 1] for v in (last, truth[:, 0]))
        assert behind > ahead
        assert (
            1.0 - np.sqrt(np.mean((truth - forecast) ** 2) / np.mean((truth.T - last) ** 2)) > 0.7
        )
        assert follows_last_value("model", forecast, truth, last) == ""

    def test_it_is_said_on_a_trend_where_the_last_value_is_repeated(self):
        """Both correlations are 1 on a straight line, and the forecast is a step late."""
        last = np.arange(100.0)
        truth, forecast = last[:, None] + 1.0, last[:, None] + 0.001 * (last[:, None] % 2)
        assert "(RMSE 0.00071) than to the one" in follows_last_value("m", forecast, truth, last)

    def test_it_is_not_said_of_small_changes_that_are_right(self):
        """A third of each change is foreseen: closer to the last value, but better than it."""
        last = self.WALK[:-1]
        change = np.diff(self.WALK)
        truth, forecast = (last + change)[:, None], (last + 0.33 * change)[:, None]
        assert follows_last_value("model", forecast, truth, last) == ""

    def test_nor_of_a_bad_forecast_that_repeats_nothing(self):
        noise = 30.0 * np.random.default_rng(1).standard_normal(299)[:, None]
        assert follows_last_value("model", noise, self.WALK[1:, None], self.WALK[:-1]) == ""

    @pytest.mark.parametrize("forecast", [0.0, 5.0])
    def test_nor_where_nothing_moves(self, forecast):
        made = judged(self.WALK)
        assert (
            follows_last_value(
                "model",
                np.full(made.truth.shape, forecast),
                made.truth,
                made.baselines["persistence"][:, 0],
            )
            == ""
        )


class TestVerdict:
    @staticmethod
    def say(*rmses):
        names = [f"base {i}" for i in range(len(rmses) - 1)] + ["model"]
        return verdict(
            [
                Score(name, rmse, 0.0, None, None, None, 0.0, ())
                for name, rmse in zip(names, rmses, strict=True)
            ]
        )

    @pytest.mark.parametrize(
        ("rmse", "words"),
        [
            (0.5, "model beats base 1 by 50.0 % of RMSE"),
            (0.98, "model beats base 1 by 2.0 % of RMSE"),
            (0.981, "model is level with base 1 (RMSE ratio 0.981)"),
            (1.019, "model is level with base 1 (RMSE ratio 1.019)"),
            (1.02, "model does NOT beat base 1: its RMSE is 1.020 times as large"),
            (3.0, "model does NOT beat base 1: its RMSE is 3.000 times as large"),
        ],
    )
    def test_thresholds_beside_the_best_baseline(self, rmse, words):
        assert self.say(2.0, 1.0, rmse) == words

    def test_a_perfect_baseline(self):
        assert self.say(1.0, 0.0, 0.0) == "base 1 makes no error here: there is nothing to learn"
