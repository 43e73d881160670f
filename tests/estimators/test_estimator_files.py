"""Fitted estimators in files."""

from __future__ import annotations

import numpy as np
import pytest
from estimating import labelled, quick, windows

import rnn_xp as rx

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

SETTINGS = {
    "hidden_size": 3,
    "max_iter": 2,
    "n_iter_no_change": None,
    "random_state": 0,
    "n_estimators": 1,
}


def fitted(kind, **more):
    x, y = labelled(40)
    if kind is rx.RecurrentRegressor:
        y = x[:, 0]
    if kind is rx.SequenceLabeler:
        y = np.where(x > 0, "over", "below")
    return kind(**SETTINGS | more).fit(x, y), x


KINDS = [rx.RecurrentRegressor, rx.RecurrentClassifier, rx.SequenceLabeler]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"n_estimators": 2, "early_stopping": True}])
def test_a_loaded_estimator_predicts_the_same(kind, more, tmp_path):
    model, x = fitted(kind, **more)
    model.save(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        loaded = kind.load(path)
        assert np.array_equal(loaded.predict(x), model.predict(x))
        assert loaded.get_params() == model.get_params()
        assert loaded.loss_curve_ == model.loss_curve_
        assert loaded.validation_curve_ == model.validation_curve_


def test_what_is_not_seen_in_the_parameters_is_kept(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 2, 70))
    y = np.arange(20) % 2
    model = rx.RecurrentClassifier(**SETTINGS, channels_first=True).fit(x, y)
    model.save(tmp_path / "m.safetensors")
    loaded = rx.RecurrentClassifier.load(tmp_path / "m.safetensors")
    assert loaded.patch_size_ == 2
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert loaded.predict(x).dtype == y.dtype
    ragged = [row.T[:9] for row in x]
    ragged[0] = ragged[0][:5]
    model.set_params(channels_first="auto").fit([row.T for row in ragged], y)
    model.save(tmp_path / "m.safetensors")
    loaded = rx.RecurrentClassifier.load(tmp_path / "m.safetensors")
    alone = [ragged[1].T]
    np.testing.assert_array_equal(loaded.predict_proba(alone), model.predict_proba(alone))


def test_training_goes_on_from_the_weights(tmp_path):
    x, y = windows(100)
    model = quick(warm_start=True, max_iter=20).fit(x, y)
    model.save(tmp_path / "m.safetensors")
    loaded = rx.RecurrentRegressor.load(tmp_path / "m.safetensors")
    assert loaded.fit(x, y).loss_curve_[20] < model.loss_curve_[19] * 1.05
    assert len(loaded.loss_curve_) == 40


def test_another_backend_computes(tmp_path):
    model, x = fitted(rx.RecurrentClassifier)
    model.save(tmp_path / "m.safetensors")
    backend = rx.get_backend("array_api_strict", dtype="float64")
    loaded = rx.RecurrentClassifier.load(tmp_path / "m.safetensors", backend)
    np.testing.assert_allclose(loaded.predict_proba(x), model.predict_proba(x), atol=1e-9)


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "m.safetensors"
    model, _ = fitted(rx.RecurrentClassifier)
    model.save(path)
    with pytest.raises(rx.CheckpointError, match="holds RecurrentClassifier, and no RecurrentReg"):
        rx.RecurrentRegressor.load(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(rx.CheckpointError, match="is damaged"):
        rx.RecurrentClassifier.load(path)
    with pytest.raises(ValueError, match="not fitted yet"):
        rx.RecurrentClassifier().save(path)


def test_objects_are_no_classes(tmp_path):
    x, _ = labelled(20)
    model = rx.RecurrentClassifier(**SETTINGS).fit(x, np.array([1, 2] * 10))
    model.classes_ = np.array([frozenset({1}), frozenset({2})], object)
    with pytest.raises(TypeError, match="classes must be text or numbers to be saved"):
        model.save(tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_skops_gives_the_estimator_back(kind):
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    model, x = fitted(kind)
    data = skops.dumps(model)
    loaded = skops.loads(data, trusted=skops.get_untrusted_types(data=data))
    assert np.array_equal(loaded.predict(x), model.predict(x))
    assert loaded.get_params() == model.get_params()
