"""Estimators as ONNX graphs."""

from __future__ import annotations

import numpy as np
import pytest
from estimating import FEW_EPOCHS

import rnn_xp as rx
from rnn_xp.interchange import example

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = [pytest.mark.interchange, FEW_EPOCHS]

X = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
SETTINGS = {"hidden_size": 4, "max_iter": 3, "random_state": 0, "n_estimators": 1}


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": x[:, :, None]}), strict=True))


@pytest.mark.parametrize("spelling", ["native", "portable"])
def test_a_regressor_predicts_the_same(spelling):
    model = rx.RecurrentRegressor("gru", **SETTINGS).fit(X, X[:, 0] + 3.0 * X[:, 4])
    for options in ({}, {"rows": 60}):
        outputs = run(model.to_onnx(spelling=spelling, **options), X)
        np.testing.assert_allclose(outputs["pred"][:, 0], model.predict(X), rtol=0, atol=1e-6)


@pytest.mark.parametrize("labels", [("down", "level", "up"), (-1, 0, 7), (1.0, 2.0, 5.0)])
def test_a_classifier_gives_labels_and_probabilities(labels, tmp_path):
    y = np.asarray(labels)[np.digitize(X.sum(axis=1), [-1.0, 1.0])]
    model = rx.RecurrentClassifier("lstm", solver="lbfgs", **SETTINGS).fit(X, y)
    graph = model.to_onnx()
    outputs = run(graph, X)
    assert outputs["label"].tolist() == model.predict(X).tolist()
    assert len(set(outputs["label"].tolist())) > 1
    probable = model.predict_proba(X)
    np.testing.assert_allclose(outputs["probabilities"], probable, rtol=0, atol=1e-6)
    (tmp_path / "c.onnx").write_bytes(graph.SerializeToString())
    assert example.check(tmp_path / "c.onnx", "onnxruntime").ok


def test_an_estimator_that_is_not_fitted_is_an_error():
    with pytest.raises(ValueError, match="not fitted yet"):
        rx.RecurrentRegressor().to_onnx()
