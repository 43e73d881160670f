"""What "auto" chooses, the linear path that all starts from, and the network that has to earn."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves

import rnn_xp as rx
from benchmarks.learn.series import mackey_glass
from rnn_xp.forecasting.baselines import aicc, best_lags, fit_linear_ar
from rnn_xp.forecasting.choices import _running_free, choose, grows_with_level
from rnn_xp.forecasting.fitted import ALONE
from rnn_xp.forecasting.linear import fit_path, fit_paths, mean_ahead
from rnn_xp.forecasting.settings import Settings


def monthly(rows=144, seed=0):
    """A trend with a season that grows with it."""
    t, rng = np.arange(rows), np.random.default_rng(seed)
    year = 0.2 * np.sin(2.0 * np.pi * t / 12.0) + 0.1 * np.cos(2.0 * np.pi * t / 6.0)
    return 100.0 * np.exp(0.01 * t + year + 0.02 * rng.standard_normal(rows))


def walk(rows=300, seed=0):
    return np.cumsum(np.random.default_rng(seed).standard_normal(rows))


def chosen(values, **options):
    return choose(Settings(**options), [np.asarray(values)])


class TestChoices:
    def test_a_window_of_two_seasons_and_logarithms_where_the_season_grows(self):
        settings, period = chosen(monthly())
        assert (settings.seq_length, period) == (26, 12)
        assert settings.target in ("log", "logret")
        assert settings.hidden_size == (144 - 26) // 20

    def test_one_season_where_two_do_not_fit(self):
        settings, period = chosen(monthly(72))
        assert (settings.seq_length, period) == (14, 12)

    def test_no_logarithms_where_the_spread_stays_or_values_are_not_positive(self):
        t = np.arange(144)
        even = 100.0 + t + 10.0 * np.sin(2.0 * np.pi * t / 12.0) + monthly() / 100.0
        assert chosen(even)[0].target in ("level", "diff")
        assert chosen(monthly() - 200.0)[0].target in ("level", "diff")
        assert not grows_with_level([even], 12)

    def test_changes_of_a_series_whose_changes_alone_repeat(self):
        """An AR(1) of the changes, far from any level."""
        rng, change = np.random.default_rng(1), [0.0]
        for _ in range(400):
            change.append(0.7 * change[-1] + rng.standard_normal())
        assert chosen(np.cumsum(change) + np.arange(401.0))[0].target == "diff"

    def test_what_is_fed_back_is_judged_over_the_steps_that_it_runs(self):
        """Changes of a chaotic series are forecast better one step ahead, and worse 84 ahead."""
        series = mackey_glass(1500)
        one, free = (
            chosen(series, seq_length=24, linear=False, strategy="recursive", horizon=h)[0]
            for h in (1, 84)
        )
        assert (one.target, free.target) == ("diff", "level")
        rng, change = np.random.default_rng(1), [0.0]
        for _ in range(400):
            change.append(0.7 * change[-1] + rng.standard_normal())
        trend = np.cumsum(change) + np.arange(401.0)
        assert chosen(trend, strategy="recursive", horizon=12)[0].target == "diff"

    def test_what_runs_free_is_what_the_path_forecasts(self):
        """Against a loop over rows and steps, for changes."""
        values, steps, held, length = walk(60, seed=2), 3, 12, 5
        z = np.diff(values)
        middle, scale = z[: len(z) - held].mean(), values.std()
        rows = np.lib.stride_tricks.sliding_window_view((z[:-held] - middle) / scale, length + 1)
        path = fit_path(rows[:, :-1], rows[:, -1], changes=True)
        squares = []
        for row in range(60 - held, 60 - steps + 1):
            window, level = list((z[row - 1 - length : row - 1] - middle) / scale), values[row - 1]
            for step in range(steps):
                window.append(float(path.coef @ window[-length:]) + path.intercept)
                level += window[-1] * scale + middle
                squares.append((level - values[row + step]) ** 2)
        found = _running_free(path, "diff", [values], held, steps)
        assert found == pytest.approx(np.mean(squares) / values.var())

    def test_what_is_given_stays(self):
        settings, _ = chosen(monthly(), seq_length=7, target="diff", hidden_size=3)
        assert (settings.seq_length, settings.target, settings.hidden_size) == (7, "diff", 3)

    def test_the_validation_part_chooses_nothing(self):
        values, other = monthly(), monthly()
        other[-20:] = 5e4
        assert chosen(values) == chosen(other) or chosen(values)[0].get_params() == (
            chosen(other)[0].get_params()
        )

    def test_logarithms_are_not_taken_where_any_value_has_none(self):
        values = monthly()
        values[-1] = 0.0
        assert chosen(monthly())[0].target in ("log", "logret")
        f = rx.Forecaster(epochs=2, verbose=False).fit(values)
        assert f.fitted.settings.target in ("level", "diff")

    def test_quantiles_of_several_steps_take_no_changes(self):
        settings, _ = chosen(walk(), intervals="quantile", horizon=3)
        assert settings.target == "level"

    def test_few_rows_are_enough_for_a_short_window(self):
        f = rx.Forecaster(verbose=False, epochs=2, validation=None, intervals=None, patience=None)
        assert np.isfinite(f.fit(walk(14)).predict(3)).all()

    def test_logarithms_go_there_and_back(self):
        f = quick(target="log", epochs=3).fit(monthly())
        assert 0.8 < f.predict(3)[0] / monthly()[-12] / np.exp(0.12) < 1.25
        with pytest.raises(ValueError, match="target='log' needs positive values: a logarithm of"):
            quick(target="log").fit(waves())

    def test_what_was_chosen_is_printed_in_sentences(self, capsys):
        values = monthly()
        rx.Forecaster(epochs=2).fit(values)
        first, second, third, *_ = capsys.readouterr().out.splitlines()
        assert first == "The window has 26 values, because a season of 12 steps repeats."
        assert "logarithms, because the changes of the series grow with its level" in second
        assert third == "The network has 5 hidden units, by the number of windows."
        quick(verbose=True).fit(values)
        assert "The window" not in capsys.readouterr().out
        rx.Forecaster(epochs=2, validation=None, intervals=None, target="diff").fit(walk())
        first, second = capsys.readouterr().out.splitlines()
        assert first == "The window has 20 values, because no season was found that fits."

    @pytest.mark.parametrize(
        ("given", "closest"), [("seeds", "n_seeds"), ("hidden", "hidden_size"), ("x", "it has seq")]
    )
    def test_an_argument_that_is_not_there_names_the_closest(self, given, closest):
        with pytest.raises(TypeError, match=f"Forecaster has no argument '{given}': .*{closest}"):
            rx.Forecaster(**{given: 2})
        with pytest.raises(ValueError, match=f"Forecaster has no parameter '{given}': .*{closest}"):
            rx.Forecaster().set_params(**{given: 2})

    @pytest.mark.parametrize("name", ["seq_length", "hidden_size"])
    def test_another_word_is_refused(self, name):
        with pytest.raises(ValueError, match=f"{name} must be a whole number or 'auto'"):
            quick(**{name: "long"}).fit(waves())


class TestLinearPath:
    def test_with_many_rows_it_is_least_squares(self):
        rng, z = np.random.default_rng(0), [0.0, 0.0]
        for _ in range(5000):
            z.append(0.3 + 0.6 * z[-1] - 0.5 * z[-2] + rng.standard_normal())
        rows = np.lib.stride_tricks.sliding_window_view(np.asarray(z), 3)
        path = fit_path(rows[:, :-1], rows[:, -1])
        exact = fit_linear_ar(rows[:, :-1, None], rows[:, -1:])
        np.testing.assert_allclose(path.coef, exact.coef[:, 0, 0], atol=2e-3)
        np.testing.assert_allclose(path.intercept, exact.intercept[0], atol=2e-3)

    def test_with_few_rows_it_keeps_to_the_last_value(self):
        values = walk(40, seed=3)
        rows = np.lib.stride_tricks.sliding_window_view(values, 11)
        path = fit_path(rows[:, :-1], rows[:, -1])
        exact = fit_linear_ar(rows[:, :-1, None], rows[:, -1:]).coef[:, 0, 0]
        none = np.eye(10)[-1]
        assert np.abs(path.coef - none).sum() < 0.5 * np.abs(exact - none).sum()

    def test_a_season_that_repeats_is_found_with_few_rows(self):
        t = np.arange(40)
        values = np.random.default_rng(2).standard_normal(7)[t % 7] + 5.0 * walk(6)[t // 7]
        rows = np.lib.stride_tricks.sliding_window_view(values, 17)
        path = fit_path(rows[:, :-1], rows[:, -1], period=7)
        plain = fit_path(rows[:, :-1], rows[:, -1])
        assert path.criterion < plain.criterion

    def test_steps_ahead_are_iterated(self):
        values = walk(60)
        rows = np.lib.stride_tricks.sliding_window_view(values, 5)
        path = fit_path(rows[:, :-1], rows[:, -1])
        weights, intercepts = path.ahead(3)
        window = list(values[-4:])
        for _ in range(3):
            window.append(float(path.coef @ window[-4:]) + path.intercept)
        np.testing.assert_allclose(weights @ values[-4:] + intercepts, window[4:])

    def test_units_do_not_change_it(self):
        rows = np.lib.stride_tricks.sliding_window_view(walk(60), 5)
        one = fit_path(rows[:, :-1], rows[:, -1])
        other = fit_path(1e6 * rows[:, :-1] + 3e6, 1e6 * rows[:, -1] + 3e6)
        np.testing.assert_allclose(one.coef, other.coef, rtol=1e-6)

    @pytest.mark.parametrize("length", [1, 2, 6])
    def test_levels_average_a_path_of_their_changes(self, length):
        """Against changes that are added up step by step."""
        values, steps = walk(80, seed=4), 4
        rows = np.lib.stride_tricks.sliding_window_view(values, length + 1)
        paths = fit_paths(rows[:, :-1], rows[:, -1])
        weights, intercepts = mean_ahead(paths, steps)
        ahead = []
        for changes in (False, True):
            window = list(values[-length:])
            for _ in range(steps):
                if not changes:
                    path = fit_path(rows[:, :-1], rows[:, -1])
                    following = path.coef @ window[-length:] + path.intercept
                elif length == 1:
                    following = window[-1] + np.mean(np.diff(values))
                else:
                    of_changes = np.diff(rows, axis=1)
                    path = fit_path(of_changes[:, :-1], of_changes[:, -1], changes=True)
                    change = path.coef @ np.diff(window[-length:]) + path.intercept
                    following = window[-1] + change
                window.append(float(following))
            ahead.append(window[length:])
        found = weights @ values[-length:] + intercepts
        np.testing.assert_allclose(found, np.mean(ahead, axis=0), rtol=1e-9)
        assert len(fit_paths(rows[:, :-1], rows[:, -1], changes=True)) == 1

    def test_where_many_rows_tell_one_path_is_enough(self):
        rng, returns = np.random.default_rng(0), [0.0]
        for _ in range(1500):
            returns.append(0.6 * returns[-1] + rng.standard_normal())
        rows = np.lib.stride_tricks.sliding_window_view(np.asarray(returns), 4)
        (path,) = fit_paths(rows[:, :-1], rows[:, -1])
        np.testing.assert_array_equal(path.coef, fit_path(rows[:, :-1], rows[:, -1]).coef)
        assert len(fit_paths(rows[:60, :-1], rows[:60, -1])) == 2

    def test_where_the_path_forecasts_alone_it_is_that_of_levels_if_rows_are_few(self):
        few = walk(120, seed=9)
        rng, change = np.random.default_rng(1), [0.0]
        for _ in range(400):
            change.append(0.7 * change[-1] + rng.standard_normal())
        many = np.cumsum(change) + np.arange(401.0)  # its changes alone repeat
        for values, given, target in (
            (few, "auto", "level"), (many, "auto", "diff"), (few, "diff", "diff"),
        ):  # fmt: skip
            assert chosen(values)[0].target == "diff"
            f = rx.Forecaster(epochs=2, verbose=False, target=given).fit(values)
            assert f.fitted.alone
            assert f.fitted.settings.target == target
        kept = rx.Forecaster(epochs=2, verbose=False, fallback=False).fit(few)
        assert kept.fitted.settings.target == "diff"

    def test_the_baseline_chooses_its_own_lags_by_it(self):
        rng, z = np.random.default_rng(0), [0.0, 0.0, 0.0]
        for _ in range(500):
            z.append(0.5 * z[-1] - 0.6 * z[-3] + rng.standard_normal())
        series = np.asarray(z)
        assert best_lags(series, 12) == 3
        scores = []
        for lags in range(1, 13):
            rows = np.lib.stride_tricks.sliding_window_view(series[12 - lags :], lags + 1)
            model = fit_linear_ar(rows[:, :-1, None], rows[:, -1:])
            rest = rows[:, -1] - model.predict(rows[:, :-1, None])[:, 0]
            scores.append(float(aicc(rest @ rest, len(rest), 1.0 + lags)))
        assert int(np.argmin(scores)) + 1 == 3
        assert best_lags(series[:20], 12) == 12, "too few rows to compare"

    def test_no_criterion_without_rows(self):
        assert aicc(1.0, 10, 8.0) == np.inf
        np.testing.assert_allclose(aicc(20.0, 20, 3.0), 40.0 * 4.0 / 15.0)


class TestEarning:
    def test_a_network_that_earns_nothing_is_left_out_and_that_is_said(self, tmp_path):
        values = walk()
        f = quick(fallback=True, horizon=2).fit(values[:260])
        assert f.fitted.alone
        assert f.refits_ == []
        said = ALONE.format("rnn")
        assert said in f.report_.notes
        assert said in f.evaluate(values).notes
        for params in f.predictor_.networks:
            assert not np.asarray(params["readout.w_hy"]).any()
        f.save(tmp_path / "f")
        again = rx.Forecaster.load(tmp_path / "f")
        assert again.fitted.alone
        assert np.array_equal(again.predict(), f.predict())

    def test_it_is_the_linear_path_of_all_rows(self):
        values = walk()
        f = quick(fallback=True).fit(values)
        again = quick(epochs=1, optimizer=rx.optim.sgd(1e-12)).fit(values)
        np.testing.assert_allclose(f.predict(), again.predict(), rtol=1e-4)

    def test_a_network_that_earns_stays(self):
        """A logistic map, which no linear path can forecast."""
        z = [0.3]
        for _ in range(299):
            z.append(3.9 * z[-1] * (1.0 - z[-1]))
        f = quick(fallback=True, hidden_size=8, epochs=100).fit(np.asarray(z))
        assert not f.fitted.alone
        assert not any("alone" in note for note in f.report_.notes)

    def test_a_network_of_levels_does_not_follow_a_series_beyond_them(self):
        t = np.arange(300)
        values = 0.05 * t + np.abs((t % 9) - 4.0)
        assert quick(fallback=True, epochs=100).fit(values).fitted.alone

    def test_it_can_be_kept(self):
        f = quick(fallback=False).fit(walk())
        assert not f.fitted.alone
        assert len(f.refits_) == 1

    def test_it_is_yes_or_no(self):
        with pytest.raises(ValueError, match="fallback='no' must be True or False"):
            quick(fallback="no").fit(walk())

    def test_a_training_without_prospect_ends_early(self):
        f = rx.Forecaster(epochs=60, verbose=False, hidden_size=2, patience=None, target="diff")
        f.fit(walk(seed=8))
        (result,) = f.results_
        assert f.fitted.alone
        assert len(result.history["loss"]) == 15
        assert "not better than the linear path by 0.5 %" in result.stopped
        t = np.arange(300)
        f = rx.Forecaster(epochs=60, verbose=False, target="level", patience=None)
        f.fit(0.05 * t + np.abs((t % 9) - 4.0))
        assert len(f.history_[0]["loss"]) == 1
        assert "the series leaves the range" in f.results_[0].stopped
        kept = rx.Forecaster(epochs=60, verbose=False, hidden_size=2, patience=None, fallback=False)
        assert len(kept.fit(walk(seed=8)).history_[0]["loss"]) == 60
