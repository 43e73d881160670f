"""Features are standardised inside the estimators, by the rows that are trained on alone."""

from __future__ import annotations

import numpy as np
import pytest
from estimating import FEW_EPOCHS, labelled, watch_fit

import rnn_xp as rx

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

pytestmark = FEW_EPOCHS

BATCHES = [(6, 6), (32, 32), (33, 8), (800, 50), (3000, 188), (4000, 200)]  # by rows
QUICK = {"hidden_size": 3, "max_iter": 2, "random_state": 0, "n_estimators": 1}


def rows_and_labels():
    x, y = labelled(60)
    return np.stack([x, 100.0 + 7.0 * x[:, ::-1]], axis=2), y


def test_each_feature_has_its_own_mean_and_deviation(monkeypatch):
    x, y = rows_and_labels()
    model = rx.RecurrentClassifier(**QUICK)
    seen = []
    monkeypatch.setattr("rnn_xp.estimators.members.fit", lambda *a, **k: seen.append(a[1]))
    with pytest.raises(AttributeError):  # there is no result
        model.fit(x, y)
    np.testing.assert_allclose(seen[0].mean(axis=(0, 1)), 0.0, atol=1e-12)
    np.testing.assert_allclose(seen[0].std(axis=(0, 1)), 1.0)
    np.testing.assert_allclose(model.scaling_[0], x.mean(axis=(0, 1)))
    np.testing.assert_allclose(model.scaling_[1], x.std(axis=(0, 1)))


def test_units_change_no_prediction():
    x, y = rows_and_labels()
    wanted = rx.RecurrentClassifier(**QUICK).fit(x, y).predict_proba(x)
    other = x * [1e3, 0.5] - [4.0, 1e3]
    got = rx.RecurrentClassifier(**QUICK).fit(other, y).predict_proba(other)
    np.testing.assert_allclose(got, wanted, atol=1e-9)


def test_steps_after_the_end_and_weights_of_zero_do_not_count():
    rows = [np.array([1.0, 3.0]), np.array([2.0]), np.array([90.0, 91.0, 95.0])]
    model = rx.RecurrentRegressor(**QUICK, standardize=True)
    model.fit(rows, [0.0, 1.0, 2.0], sample_weight=[1.0, 1.0, 0.0])
    assert model.scaling_[0] == pytest.approx([2.0])
    assert model.scaling_[1] == pytest.approx([np.sqrt(2.0 / 3.0)])


def test_held_out_rows_do_not_count(monkeypatch):
    x, y = rows_and_labels()
    named = watch_fit(monkeypatch)
    model = rx.RecurrentClassifier(**QUICK, early_stopping=True, standardize=False).fit(x, y)
    held_out = {row.tobytes() for row in named["validation"]["x"]}
    trained = np.array([row.tobytes() not in held_out for row in x])
    assert not trained.all()
    assert model.scaling_ is None
    model = rx.RecurrentClassifier(**QUICK, early_stopping=True).fit(x, y)
    np.testing.assert_allclose(model.scaling_[0], x[trained].mean(axis=(0, 1)))
    wanted = (x[~trained] - model.scaling_[0]) / model.scaling_[1]
    np.testing.assert_allclose(named["validation"]["x"], wanted)


def test_the_last_rows_do_not_count_where_they_are_held_out():
    x, _ = rows_and_labels()
    model = rx.RecurrentRegressor(**QUICK, early_stopping=True, standardize=True)
    model.fit(x, x[:, 0, 0])
    np.testing.assert_allclose(model.scaling_[0], x[: 60 - 6 - 6].mean(axis=(0, 1)))


def test_a_constant_feature_is_only_centred():
    x, y = rows_and_labels()
    x[:, :, 1] = 0.1
    assert rx.RecurrentClassifier(**QUICK).fit(x, y).scaling_[1][1] == 1.0


def test_training_goes_on_with_the_first_scaling():
    x, y = rows_and_labels()
    model = rx.RecurrentClassifier(**QUICK, warm_start=True).fit(x, y)
    first = model.scaling_
    assert model.fit(x + 5.0, y).scaling_ is first


def test_data_of_the_units_that_were_trained_on_go_into_the_exported_graph():
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    x, y = rows_and_labels()
    x = x.astype(np.float32)
    model = rx.RecurrentClassifier(**QUICK).fit(x, y)
    session = onnxruntime.InferenceSession(model.to_onnx().SerializeToString())
    (probable,) = session.run(["probabilities"], {"X": x})
    np.testing.assert_allclose(probable, model.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize(("rows", "batch"), BATCHES)
def test_an_update_of_the_classifier_has_a_sixteenth_of_the_rows(monkeypatch, rows, batch):
    named = watch_fit(monkeypatch)
    rx.RecurrentClassifier(hidden_size=2, max_iter=1).fit(np.eye(rows, 2), np.arange(rows) % 2)
    assert (named["batch_size"] or rows) == batch


def test_the_classifier_clips_gradients_only_of_solvers_with_a_learning_rate(monkeypatch):
    named, (x, y) = watch_fit(monkeypatch), labelled(40)
    rx.RecurrentClassifier(**QUICK).fit(x, y)
    assert named["optimizer"].clip_norm == 1.0
    rx.RecurrentClassifier(**QUICK, solver="lbfgs").fit(x, y)
    assert not hasattr(named["optimizer"], "clip_norm")
