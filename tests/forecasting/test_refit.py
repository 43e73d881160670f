"""The network is trained on all the data that its baselines see, and the choice stays honest."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import quick, waves
from numpy.lib.stride_tricks import sliding_window_view

import rnn_xp as rx
from rnn_xp.forecasting.linear import fit_paths, mean_ahead
from rnn_xp.forecasting.panel import as_panel
from rnn_xp.forecasting.prepared import prepare


def steep(rows=240):
    """Waves that grow, so that the last part is worth more than any before."""
    t = np.arange(rows)
    return waves(rows) * np.exp(t / 80.0) + 0.02 * t


class TestRefit:
    def test_it_is_a_training_on_all_windows_for_the_chosen_number_of_epochs(self):
        values = steep()
        f = quick(horizon=2).fit(values)
        epochs = f.results_[0].best_epoch
        alone = quick(horizon=2, epochs=epochs, validation=None, intervals=None, patience=None).fit(
            values
        )
        assert len(f.refits_[0].history["loss"]) == epochs
        assert f.refits_[0].history == alone.history_[0]
        assert np.array_equal(f.predict(5), alone.predict(5))
        assert f.fitted.designs[0].scaler == alone.fitted.designs[0].scaler

    def test_the_last_rows_are_trained_on(self):
        values, changed = steep(), steep()
        changed[-3:] += 5.0
        seen, other = (quick(target="diff").fit(v) for v in (values, changed))
        with_refit = [f.apply(values).predict()[0] for f in (seen, other)]
        assert abs(with_refit[0] - with_refit[1]) > 1e-3
        whole = prepare(quick(horizon=2), as_panel(values)).whole()
        assert len(whole.trained.x) == 240 - 8 - 2 + 1
        assert whole.validated is None

    def test_the_linear_path_starts_from_all_rows(self):
        """With cells that do nothing the network is the linear path of every row before."""
        values = steep(300)
        f = quick(epochs=1, optimizer=rx.optim.sgd(1e-12))
        after, before = (f.set_params(refit=r).backtest(values, 240) for r in (True, False))
        scaled = (values - values[:240].mean()) / values[:240].std()
        rows = sliding_window_view(scaled, 9)
        (weights,), intercept = mean_ahead(fit_paths(rows[:232, :-1], rows[:232, -1]), 1)
        ahead = rows[232:, :-1] @ weights + intercept
        ahead = ahead[:, None] * values[:240].std() + values[:240].mean()
        np.testing.assert_allclose(after.series[0].forecast, ahead, rtol=1e-4, atol=1e-4)
        assert np.abs(before.series[0].forecast - ahead).max() > 1e-2
        assert after.metrics["rmse"] < before.metrics["rmse"]

    def test_errors_report_and_history_are_those_before(self):
        values = steep()
        one, other = (quick(refit=r, horizon=2).fit(values) for r in (True, False))
        assert np.array_equal(one.fitted.errors, other.fitted.errors)
        assert one.report_.metrics == other.report_.metrics
        assert one.history_ == other.history_
        assert other.refits_ == []
        assert other.fitted.designs[0].unit == one.fitted.designs[0].unit
        assert not np.array_equal(one.predict(), other.predict())
        widths = [np.subtract(*f.predict_interval()[::-1]) for f in (one, other)]
        np.testing.assert_allclose(*widths, rtol=1e-9)

    def test_nothing_of_the_test_part_is_seen(self):
        values = steep()
        changed = values.copy()
        changed[205:] += 50.0
        a, b = (quick().backtest(v, start=200).series[0].forecast for v in (values, changed))
        assert np.array_equal(a[:5], b[:5])

    def test_each_seed_is_trained_again_for_its_own_number_of_epochs(self):
        f = quick(n_seeds=2).fit(steep())
        assert [len(r.history["loss"]) for r in f.refits_] == [r.best_epoch for r in f.results_]
        assert len(f.predictor_.networks) == 2

    def test_the_schedule_is_that_of_the_whole_training(self):
        f = quick(batch_size=16, epochs=6).fit(steep())
        rows = len(prepare(quick(), as_panel(steep())).whole().trained.x)
        rate = f.refits_[0].state.optimizer.learning_rate
        assert rate == rx.optim.Cosine(0.01, 6 * -(-rows // 16))

    def test_callbacks_watch_the_first_training_and_stop_may_end_both(self):
        epochs, prepared = [], prepare(quick(), as_panel(steep()))
        f = quick().fit(steep(), callbacks=[lambda epoch: epochs.append(epoch.number)])
        assert len(epochs) == len(f.history_[0]["loss"])
        f.fit_prepared(prepared, stop=lambda epoch: "enough")
        assert [len(r.history["loss"]) for r in (*f.results_, *f.refits_)] == [1, 1]
        assert f.refits_[0].stopped == "enough"

    def test_without_validation_there_is_nothing_to_train_again(self):
        assert quick(validation=None, intervals=None, patience=None).fit(steep()).refits_ == []

    def test_it_is_yes_or_no(self):
        with pytest.raises(ValueError, match="refit='no' must be True or False"):
            quick(refit="no").fit(steep())

    def test_a_linear_path_of_all_rows_is_far_better_where_the_last_ones_matter(self):
        """The reason for it: two fifths of these rows would not be trained on otherwise."""
        t = np.arange(144)
        months = np.random.default_rng(0).standard_normal(12)
        values = (100.0 + 2.5 * t) * (1.0 + 0.15 * months[t % 12])
        f = quick(seq_length=12, epochs=1, validation=0.4, optimizer=rx.optim.sgd(1e-12))
        without, with_it = (
            f.set_params(refit=r).backtest(values, 115).metrics["mase"] for r in (False, True)
        )
        assert with_it < 0.7 * without
