"""Several networks in one fit, and the warning of a training that the last epoch ended."""

from __future__ import annotations

import pickle
import re
import threading
import warnings

import numpy as np
import pytest
from estimating import labelled, quick, windows

import rnn_xp as rx

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from rnn_xp.estimators import members

SETTINGS = {"hidden_size": 4, "max_iter": 4, "n_iter_no_change": None}


def classifier(**settings):
    return rx.RecurrentClassifier(**{"n_estimators": 1} | SETTINGS | settings)


def seeds_of(random_state, count):
    """Seeds such that an estimator with one of them trains one of the networks."""
    state = np.random.RandomState(random_state)
    return [Drawn(int(state.randint(2**31))) for _ in range(count)]


class Drawn(np.random.RandomState):
    """A random state that draws one given number."""

    def __init__(self, number):
        super().__init__(0)
        self.number = number

    def randint(self, *args, **named):
        return self.number


class TestMembers:
    def test_each_network_is_trained_from_its_own_seed(self):
        x, y = windows(100)
        model = quick(n_estimators=3, batch_size=20, random_state=7).fit(x, y)
        assert len(model.networks_) == 3
        for params, seed in zip(model.networks_, seeds_of(7, 3), strict=True):
            alone = quick(batch_size=20, random_state=seed).fit(x, y)
            for name, value in alone.params_.items():
                np.testing.assert_array_equal(params[name], value)
        assert model.params_ is model.networks_[0]
        assert model.loss_curve_ == quick(batch_size=20, random_state=7).fit(x, y).loss_curve_
        assert model.n_iter_ == 5

    def test_numbers_are_the_mean_of_the_networks(self):
        x, y = windows(100)
        model = quick(n_estimators=3, random_state=1).fit(x, np.stack([y, 2.0 * y], axis=1))
        each = [model.net_.predict(params, x[:, :, None]) for params in model.networks_]
        assert np.ptp(each, axis=0).min() > 0.0
        np.testing.assert_allclose(model.predict(x), np.mean(each, axis=0), rtol=1e-12)

    def test_probabilities_are_the_mean_of_the_networks(self):
        x, y = labelled()
        model = classifier(n_estimators=3, random_state=0, standardize=False).fit(x, y)
        power = [np.exp(model.net_.predict(params, x[:, :, None])) for params in model.networks_]
        wanted = np.mean([p / p.sum(axis=1, keepdims=True) for p in power], axis=0)
        np.testing.assert_allclose(model.predict_proba(x), wanted, rtol=1e-9)
        assert np.array_equal(model.predict(x), model.classes_[wanted.argmax(axis=1)])

    def test_each_network_goes_on_by_itself(self):
        x, y = windows(100)
        whole = quick(n_estimators=2, max_iter=3).fit(x, y)
        parts = quick(n_estimators=2)
        for _ in range(3):
            parts.partial_fit(x, y)
        again = quick(n_estimators=2, max_iter=1, warm_start=True).fit(x, y)
        again.set_params(max_iter=2).fit(x, y)
        for model in (parts, again):
            for params, wanted in zip(model.networks_, whole.networks_, strict=True):
                for name, value in wanted.items():
                    np.testing.assert_array_equal(params[name], value)
        with pytest.raises(ValueError, match="2 networks were trained and cannot go on as n_est"):
            again.set_params(n_estimators=3).fit(x, y)

    def test_all_networks_are_kept_from_the_same_rows(self):
        x, y = labelled(200)
        model = classifier(n_estimators=2, early_stopping=True, random_state=0).fit(x, y)
        alone = classifier(early_stopping=True, random_state=0).fit(x, y)
        assert model.validation_curve_ == alone.validation_curve_
        assert len(model.networks_) == 2

    def test_several_agree_better_than_one(self):
        """The mean of independent mistakes is smaller than a mistake."""
        x, y = windows(200)
        y = y + 0.3 * np.random.default_rng(0).standard_normal(len(y))
        model = quick(n_estimators=8, max_iter=60, learning_rate_init=0.02).fit(x, y)
        each = [model.net_.predict(params, x[:, :, None])[:, 0] for params in model.networks_]
        alone = [np.mean((prediction - y) ** 2) for prediction in each]
        assert np.mean((model.predict(x) - y) ** 2) < np.mean(alone)

    def test_copies_and_searches(self):
        x, y = labelled(90)
        model = classifier(n_estimators=2, random_state=0).fit(x, y)
        for copy in (pickle.loads(pickle.dumps(model)), clone(model).fit(x, y)):
            np.testing.assert_array_equal(copy.predict_proba(x), model.predict_proba(x))
        search = GridSearchCV(model, {"n_estimators": [1, 2]}, cv=2, n_jobs=1)
        assert search.fit(x, y).best_params_["n_estimators"] in (1, 2)

    @pytest.mark.parametrize("workers", [2, 3, 7])
    def test_networks_side_by_side_are_those_one_after_the_other(self, workers):
        x, y = windows(100)
        model, wanted = (
            quick(n_estimators=3, batch_size=20, dropout=0.2, num_layers=2, workers=w).fit(x, y)
            for w in (workers, 1)
        )
        for params, other in zip(model.networks_, wanted.networks_, strict=True):
            for name, value in params.items():
                np.testing.assert_array_equal(value, other[name])

    def test_a_training_that_fails_ends_the_others(self, monkeypatch):
        """Nobody waits for the epochs of a network that is not going to be kept."""
        x, y = windows(100)
        epochs, real, began = [], members.fit, threading.Event()

        def count(epoch):
            epochs.append(epoch.number)
            began.set()

        def fit(net, *data, seed, callbacks, **training):
            if seed == seeds[0]:
                assert began.wait(timeout=60.0)
                raise KeyboardInterrupt
            return real(net, *data, seed=seed, callbacks=[*callbacks, count], **training)

        seeds = [drawn.number for drawn in seeds_of(0, 2)]
        monkeypatch.setattr(members, "fit", fit)
        with pytest.raises(KeyboardInterrupt):
            quick(n_estimators=2, max_iter=2000, random_state=0, workers=2).fit(x, y)
        assert len(epochs) < 1000

    def test_each_network_reports_its_progress_by_its_number(self, capsys):
        x, y = windows(60)
        quick(n_estimators=2, verbose=True, workers=2).fit(x, y)
        lines = capsys.readouterr().err.splitlines()
        for k in (1, 2):
            assert f"network {k}/2  epoch 5/5  loss " in "\n".join(lines)
        quick(verbose=True).fit(x, y)
        assert capsys.readouterr().err.startswith("epoch 1/5  loss ")

    @pytest.mark.interchange
    @pytest.mark.parametrize("kind", [rx.RecurrentRegressor, rx.RecurrentClassifier])
    def test_all_networks_are_in_the_exported_graph(self, kind):
        onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        x = np.random.default_rng(0).standard_normal((40, 5, 2)).astype(np.float32)
        y = x[:, :, 0].sum(axis=1)
        y = y > 0.0 if kind is rx.RecurrentClassifier else y
        model = kind(n_estimators=3, **SETTINGS, random_state=0).fit(x, y)
        session = onnxruntime.InferenceSession(model.to_onnx().SerializeToString())
        (got,) = session.run([session.get_outputs()[-1].name], {"X": x})
        wanted = model.predict_proba(x) if hasattr(model, "classes_") else model.predict(x)[:, None]
        np.testing.assert_allclose(got, wanted, atol=1e-5)

    @pytest.mark.parametrize("count", [0, -1, 2.5, True, "3"])
    def test_numbers_of_networks_that_cannot_be(self, count):
        with pytest.raises(ValueError, match="n_estimators must be an integer >= 1, got"):
            quick(n_estimators=count).fit(*windows(60))


class TestWarningOfTheEnd:
    def test_the_last_epoch_is_warned_of(self):
        message = re.escape("max_iter=3 epochs ended the training while the loss still improved")
        with pytest.warns(ConvergenceWarning, match=message):
            quick(max_iter=3, n_iter_no_change=10).fit(*windows(60))
        with pytest.warns(ConvergenceWarning, match="training of 2 of 2 networks while"):
            classifier(n_iter_no_change=9, n_estimators=2).fit(*labelled(40))

    def test_it_points_at_the_call_of_fit(self):
        with pytest.warns(ConvergenceWarning) as caught:
            quick(max_iter=3, n_iter_no_change=10).fit(*windows(60))
        assert caught[0].filename == __file__

    def test_nothing_is_said_of_what_was_asked_for(self):
        x, y = windows(60)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quick(max_iter=3, n_iter_no_change=None).fit(x, y)
            quick(n_iter_no_change=10).partial_fit(x, y)

    def test_nothing_is_said_where_patience_ends_the_training(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = quick(max_iter=50, tol=0.5, n_iter_no_change=3).fit(*windows(100))
        assert model.n_iter_ < 50


class TestSchedule:
    def test_the_rate_falls_over_all_epochs(self):
        x, y = windows(100)
        model = quick(learning_rate="cosine", batch_size=40, learning_rate_init=0.01).fit(x, y)
        rate = rx.optim.schedules.Cosine(0.01, 5 * 3)  # 92 rows are three updates
        wanted = quick(solver=rx.optim.adam(rate), batch_size=40).fit(x, y)
        assert model.loss_curve_ == wanted.loss_curve_

    def test_it_goes_on_where_fit_does(self):
        x, y = windows(100)
        settings = {"learning_rate": "cosine", "warm_start": True, "learning_rate_init": 0.01}
        model = quick(max_iter=3, **settings).fit(x, y)
        model.set_params(max_iter=4).fit(x, y)
        rate = rx.optim.schedules.Cosine(0.01, 7)
        wanted = quick(max_iter=3, **settings).fit(x, y)
        wanted.set_params(max_iter=4, solver=rx.optim.adam(rate)).fit(x, y)
        assert model.loss_curve_ == wanted.loss_curve_
        assert model.loss_curve_[-1] < model.loss_curve_[2]

    def test_single_epochs_have_a_constant_rate(self):
        x, y = windows(100)
        falling, constant = quick(learning_rate="cosine"), quick()
        for _ in range(3):
            falling.partial_fit(x, y)
            constant.partial_fit(x, y)
        assert falling.loss_curve_ == constant.loss_curve_

    def test_solvers_without_a_rate_have_no_schedule(self):
        x, y = windows(60)
        falling = quick(learning_rate="cosine", solver="lbfgs").fit(x, y)
        assert falling.loss_curve_ == quick(solver="lbfgs").fit(x, y).loss_curve_
