"""Mistakes in forecasting and its reports, planted line by line, and all caught.

Each entry is a piece of the source as it stands and as a tired engineer might have written it. The
module is compiled anew with that one change and put into place of itself, and the test that is
named, which passes without the change, must fail. All these programs run and print forecasts,
intervals and scores that look right.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types

import pytest

INTERVALS = [
    ("math.ceil((count + 1) * level - 1e-9)", "math.ceil(count * level - 1e-9)",
     "test_intervals.test_the_radius_is_the_error_of_this_rank",
     {"count": 4, "level": 0.5, "rank": 3}),
    ("[_rank(len(errors), level) - 1]", "[min(_rank(len(errors), level), len(errors) - 1)]",
     "test_intervals.test_the_radius_is_the_error_of_this_rank",
     {"count": 19, "level": 0.9, "rank": 18}),
    ("np.sort(errors, axis=0)", "np.sort(errors, axis=None)[:, None]",
     "test_intervals.test_steps_have_radii_of_their_own", {}),
    ("miss += size", "miss -= size", "test_intervals.test_a_miss_widens_and_a_hit_narrows", {}),
    ("(error > radii[known, step])", "(error < radii[known, step])",
     "test_intervals.test_a_miss_widens_and_a_hit_narrows", {}),
    ("rows[known] + max(step, wait) < row", "rows[known] + max(step, wait) <= row",
     "test_intervals.test_an_error_is_not_used_before_it_is_known", {"stride": 1}),
    ("rows[known] + max(step, wait) < row", "rows[known] + wait < row",
     "test_intervals.test_an_error_is_not_used_before_it_is_known", {"stride": 2}),
    ("rows[known] + max(step, wait) < row", "rows[known] + step < row",
     "test_intervals.test_no_error_is_used_before_the_wait_is_over", {}),
    ("if not math.isnan(error):", "if True:",
     "test_intervals.test_an_unknown_error_changes_nothing", {}),
    ("past[-_MEMORY:, step]", "past[:_MEMORY, step]",
     "test_intervals.test_the_quantile_of_the_latest_errors_is_taken", {}),
    ("latest.popleft()", "latest.pop()",
     "test_intervals.test_the_quantile_of_the_latest_errors_is_taken", {}),
    ("1.0 + (rank - len(ordered)) / len(ordered)", "1.0",
     "test_intervals.test_more_than_was_ever_seen_is_an_error_larger_than_all", {}),
]  # fmt: skip
REAL = "test_coverage.TestReportedIsReal."
AT_EVERY_ORIGIN = REAL + "test_reported_intervals_are_those_of_predict_interval_at_every_origin"
STEP_BY_STEP = REAL + "test_applied_step_by_step_saved_and_loaded_it_is_the_same"
CARRIED = "test_coverage.TestRetraining.test_adaptive_intervals_go_on_from_one_training_to_the_next"
REPORTED = [
    ("backtest", "conformal_radii(errors, settings.level)",
     "conformal_radii(errors[-20:], settings.level)",
     AT_EVERY_ORIGIN, {"kind": "split", "horizon": 1}),
    ("fitted", "np.concatenate([*self.later[k : k + 1], now])", "now",
     AT_EVERY_ORIGIN, {"kind": "adaptive", "horizon": 1}),
    ("fitted", "rows = np.arange(begin, part.origins[-1] + 1)",
     "begin += 5\n            rows = np.arange(begin - 5, part.origins[-1] + 1)[5:]",
     AT_EVERY_ORIGIN, {"kind": "adaptive", "horizon": 12}),
    ("fitted", "begin = (trains or starts)[k]", "begin = part.origins[0] - 3",
     AT_EVERY_ORIGIN, {"kind": "adaptive", "horizon": 1}),
    ("fitted", "- rows - horizon + 1, 0)]", "- rows, 0)]", STEP_BY_STEP, {"tmp_path": True}),
    ("files", "np.where(each < 0.0, np.nan, each) for", "np.abs(each) for",
     REAL + "test_gaps_after_the_training_change_nothing_but_themselves", {"tmp_path": True}),
    ("adapting", "return horizon - 1 if", "return 0 if",
     REAL + "test_future_features_that_are_not_there_yet_are_not_taken_for_zero", {}),
    ("adapting", "design.errors(truth, levels[:, :, levels.shape[2] // 2])",
     "np.abs(truth - levels[:, :, 0])", CARRIED, {}),
    ("adapting", "radii[origins - begin]", "radii[: len(origins)]",
     REAL + "test_a_stride_judges_the_same_intervals", {}),
    ("backtest", "np.concatenate(errors[k]), settings.level",
     "errors[k][-1][np.zeros(len(whole[name].forecast), int)], settings.level",
     CARRIED, {}),
    ("backtest", "first = fitted if first is None else first", "first = fitted",
     CARRIED, {}),
    ("predictor", "np.sort(np.concatenate(means)", "(lambda a, axis: a)(np.concatenate(means)",
     "test_coverage.TestQuantiles.test_the_forecast_lies_within_its_interval_even_where_the_network_"
     "s_quantiles_cross", {"n_seeds": 1}),
]  # fmt: skip
SCORES = (
    "test_backtest.TestBacktest.test_metrics_are_those_of_their_definitions_overall_and_by_step"
)
REPEATS = "test_forecasting.TestFollowsLastValue."
REPORTS = [
    ("metrics", "np.mean((lower <= y) & (y <= upper))", "np.mean(y <= upper)", SCORES, {}),
    ("metrics", "np.mean(upper - lower)", "np.mean(upper - lower) / 2", SCORES, {}),
    ("metrics", "np.mean(f - y)", "np.mean(y - f)", SCORES, {}),
    ("metrics", "return 1 - rmse(truth, forecast) / scale",
     "return 1 - (rmse(truth, forecast) / scale) ** 2", SCORES, {}),
    ("metrics", "np.mean(np.maximum(quantile * (y - f), (quantile - 1) * (y - f)))",
     "np.mean(np.maximum(quantile * (f - y), (quantile - 1) * (f - y)))", SCORES, {}),
    ("metrics", "/ (y + np.abs(f))", "/ y", SCORES, {}),
    ("judging", "half = (1.0 - level) / 2.0", "half = 1.0 - level", SCORES, {}),
    ("backtest", "columns.append(measures(truth[:, k], judged[:, k], reference[:, k]",
     "columns.append(measures(truth[:, 0], judged[:, k], reference[:, k]", SCORES, {}),
    ("backtest", "levels[:train],\n        range_warning", "levels,\n        range_warning",
     SCORES, {}),
    ("judging", "rows * metrics.mase(truth[part], forecast[part], train)",
     "rows * metrics.mase(truth[part], forecast[part], np.concatenate([t for _, t in trains]))",
     "test_backtest.TestBacktest.test_pooled_mase_knows_no_seam", {}),
    ("judging", "first += rows", "first = rows",
     "test_backtest.TestBacktest.test_pooled_mase_knows_no_seam", {}),
    ("baselines", "(len(past) - 1)", "len(past)",
     "test_forecasting.TestTestPartIsUnseen.test_baselines", {}),
    ("baselines", "change * np.arange(1, horizon + 1)", "change * np.arange(horizon)",
     "test_forecasting.TestTestPartIsUnseen.test_baselines", {}),
    ("baselines", "back = period * (steps // period + 1)",
     "back = period * (steps // period + 1) + 1",
     "test_forecasting.TestTestPartIsUnseen.test_baselines", {}),
    ("baselines", "back = period * (steps // period + 1)", "back = period",
     "test_baselines.TestSeasonal.test_the_latest_value_of_the_same_season_that_is_known",
     {"horizon": 7}),
    ("judging", "x, y = make_windows(seen, lags, steps)",
     "x, y = make_windows(levels, lags, steps)",
     "test_backtest.TestBacktest.test_baselines_are_those_of_their_definitions", {}),
    ("backtest", "levels[origins[:, None] + np.arange(steps)]",
     "levels[np.minimum(origins[:, None] + 1 + np.arange(steps), len(levels) - 1)]",
     "test_backtest.TestBacktest.test_the_truth_is_what_followed", {}),
    ("baselines", "dips[m] <= _AS_GOOD * dips[lowest]", "m == lowest",
     "test_baselines.TestSuggestPeriod.test_a_multiple_that_is_a_little_better_by_chance_is_not_taken",
     {}),
    ("baselines", "(_PRONOUNCED if significant[m - 1] else _PLAIN)", "_PRONOUNCED",
     "test_baselines.TestSuggestPeriod.test_noise_and_walks_have_a_season_by_chance_in_one_case_of_"
     "thirty_at_most", {"rows": 60}),
    ("judging", "if behind >= error or", "if",
     REPEATS + "test_nor_of_a_bad_forecast_that_repeats_nothing", {}),
    ("judging", "or error <= _LEVEL * metrics.rmse(ahead, last)", "",
     REPEATS + "test_it_is_not_said_of_small_changes_that_are_right", {}),
    ("judging", "best = min(others, key=lambda score: score.rmse)", "best = others[0]",
     "test_forecasting.TestVerdict.test_thresholds_beside_the_best_baseline",
     {"rmse": 0.5, "words": "model beats base 1 by 50.0 % of RMSE"}),
]  # fmt: skip
REFIT = "test_refit.TestRefit."
EARLIER = "test_calibration.TestEarlier."
TREND = "test_gaps.TestTrend.test_forecasts_go_on_as_if_nothing_were_missing"
DROPPED = {"target": "level", "strategy": "direct", "rows": (-1,), "tmp_path": True}
TRAININGS = [
    ("trainings", "prepared.whole() if settings.refit else prepared", "prepared",
     REFIT + "test_the_linear_path_starts_from_all_rows", {}),
    ("trainings", "epochs=result.best_epoch", "epochs=settings.epochs",
     REFIT + "test_each_seed_is_trained_again_for_its_own_number_of_epochs", {}),
    ("trainings", "for seed, result in zip(seeds, results, strict=True)",
     "for seed, result in zip([seeds[0]] * len(seeds), results, strict=True)",
     "test_forecaster.TestForecasts.test_seeds_are_averaged", {}),
    ("trainings", '"callbacks": always, "resume": None',
     '"callbacks": first["callbacks"], "resume": None',
     REFIT + "test_callbacks_watch_the_first_training_and_stop_may_end_both", {}),
    ("trainings", "before = prepared.before(starts)", "before = prepared",
     EARLIER + "test_they_are_errors_of_paths_that_had_not_seen_their_rows", {}),
    ("trainings", "np.arange(start, stop), settings.horizon", "np.arange(start + 1, stop), 1",
     EARLIER + "test_they_are_errors_of_paths_that_had_not_seen_their_rows", {}),
    ("fitted", "np.argsort(-age, kind=\"stable\")", "np.argsort(age, kind=\"stable\")",
     EARLIER + "test_the_latest_errors_of_all_series_are_the_last", {}),
    ("design", "return forecast * np.exp(-apart), forecast * np.exp(apart)",
     "return forecast - apart * forecast, forecast + apart * forecast",
     "test_calibration.TestLogarithms.test_ends_lie_as_many_times_above_as_below",
     {"target": "log", "kind": "split"}),
    ("prepared", "rows = tuple(len(column) for column in self.panel.columns)", "rows = self.starts",
     REFIT + "test_it_is_a_training_on_all_windows_for_the_chosen_number_of_epochs", {}),
    ("prepared", "units = [design.unit for design in self.designs]", "units = None",
     REFIT + "test_errors_report_and_history_are_those_before", {}),
    ("fitted", "judge_forecasts(settings, predictor, panel",
     "judge_forecasts(settings, fitted.predictor, panel",
     REFIT + "test_errors_report_and_history_are_those_before", {}),
    ("training", "first - seq_length - horizon + 1)", "first)",
     "test_forecaster.TestFirstValidated.test_windows_of_the_two_parts_share_no_value", {}),
    ("training", "len(seen) <= trained.x[0].size", "True",
     "test_gaps.TestLeastSquares.test_only_windows_whose_lags_are_all_seen_enter", {}),
    ("design", "    if gaps is None:\n        scaled[~known, 0] = 0.0",
     "    scaled[~known, 0] = 0.0",
     TREND, DROPPED),
    ("gaps", "model.coef[::-1, 0, 0]", "model.coef[:, 0, 0]",
     "test_gaps.TestModel.test_it_is_the_least_squares_autoregression", {}),
    ("gaps", "- mean * np.sum(c)", "",
     "test_gaps.TestModel.test_it_is_the_least_squares_autoregression", {}),
    ("gaps", "levels[t - lags - offset : t])[::-1]", "levels[t - lags - offset : t])",
     "test_gaps.TestModel.test_the_first_weight_is_that_of_the_latest_value", {}),
    ("gaps", "run <= max(lags, 1) and", "",
     "test_gaps.TestModel.test_beyond_as_many_rows_as_lags_nothing_was_seen_and_the_estimate_stays",
     {}),
    ("backtest", "fill_forward(column), (trains", "design.levels, (trains",
     "test_gaps.TestTrend.test_persistence_stays_the_last_value_that_was_seen", {}),
]  # fmt: skip
MISTAKES = [*(("intervals", *row) for row in INTERVALS), *REPORTED, *REPORTS, *TRAININGS]


def plant(monkeypatch, name, old, new):
    """Put a module of `rnn_xp.forecasting` with one change into place, wherever it is imported."""
    module = importlib.import_module(f"rnn_xp.forecasting.{name}")
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {name}"
    changed = types.ModuleType(module.__name__)
    exec(source.replace(old, new), changed.__dict__)
    original = dict(vars(module))
    for place in [m for n, m in sys.modules.items() if n.startswith(("rnn_xp", "test_"))]:
        for attribute, value in list(vars(place).items()):
            if (
                getattr(value, "__module__", None) == module.__name__
                and original.get(attribute) is value
            ):
                monkeypatch.setattr(place, attribute, getattr(changed, attribute))


def find(path):
    """Return a test by the names of its file, its class and itself."""
    name, *rest = path.split(".")
    found = importlib.import_module(name)
    for step in rest:
        found = getattr(found, step)
        found = found() if inspect.isclass(found) else found
    return found


@pytest.mark.parametrize(
    ("module", "old", "new", "test", "arguments"),
    [pytest.param(*row, id=f"{row[0]}: {row[1]} -> {row[2]}") for row in MISTAKES],
)
def test_every_mistake_is_caught(module, old, new, test, arguments, monkeypatch, tmp_path):
    arguments = {k: tmp_path if k == "tmp_path" else v for k, v in arguments.items()}
    run = find(test)
    plant(monkeypatch, module, old, new)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        run(**arguments)


def test_there_are_many():
    assert len(MISTAKES) >= 50
