"""Consecutive steps that the network reads as one."""

from __future__ import annotations

import numpy as np
import pytest
from estimating import quick

import rnn_xp as rx

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

SETTINGS = {
    "hidden_size": 3,
    "max_iter": 2,
    "n_iter_no_change": None,
    "random_state": 0,
    "n_estimators": 1,
}


def rows(n=20, steps=7, features=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, steps, features)), np.arange(n) % 2


def by_hand(x, size):
    """Patches of each row, one value after the other."""
    n, steps, features = x.shape
    count = -(-steps // size)
    made = np.zeros((n, count, size * features))
    for i in range(n):
        for t in range(steps):
            for f in range(features):
                made[i, t // size, (t % size) * features + f] = x[i, t, f]
    return made


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
def test_a_patch_has_the_features_of_its_steps(size):
    x, y = rows()
    model = quick(patch_size=size, bidirectional=True).fit(x, 1.0 * y)
    wanted = quick(bidirectional=True, channels_first=False).fit(by_hand(x, size), 1.0 * y)
    assert model.loss_curve_ == wanted.loss_curve_
    np.testing.assert_array_equal(model.predict(x), wanted.predict(by_hand(x, size)))
    assert (model.patch_size_, model.net_.input_size) == (size, 2 * size)
    assert model.n_features_in_ == 7


def test_the_rest_of_a_last_patch_counts_as_the_mean():
    x, y = rows()
    model = rx.RecurrentClassifier(**SETTINGS, patch_size=3).fit(x + 9.0, y)
    seen = by_hand((x + 9.0 - model.scaling_[0]) / model.scaling_[1], 3)
    assert not seen[:, 2, 2:].any()
    expected = rx.RecurrentClassifier(**SETTINGS, standardize=False).fit(seen, y)
    np.testing.assert_allclose(model.predict_proba(x + 9.0), expected.predict_proba(seen))


class TestPatches:
    def test_sequences_of_unequal_length(self):
        x, y = rows(steps=9)
        ends = np.arange(20) % 8 + 2
        ends[0] = 9
        model = rx.RecurrentClassifier(**SETTINGS, patch_size=3)
        ragged = [row[:end] for row, end in zip(x, ends, strict=True)]
        probable = model.fit(ragged, y).predict_proba(ragged)
        other = rx.RecurrentClassifier(**SETTINGS, patch_size=3).fit(x, y, lengths=ends)
        np.testing.assert_array_equal(other.predict_proba(x, lengths=ends), probable)
        for row, wanted in zip(ragged, probable, strict=True):  # nothing of the others' padding
            np.testing.assert_allclose(model.predict_proba(row[None]), wanted[None], rtol=1e-9)

    def test_held_out_rows_have_patches_as_well(self):
        x, y = rows(60)
        model = rx.RecurrentClassifier(**SETTINGS, patch_size=3, early_stopping=True).fit(x, y)
        assert len(model.validation_curve_) == 2


@pytest.mark.parametrize(("steps", "size"), [(64, 1), (65, 2), (128, 2), (427, 7)])
def test_long_sequences_have_64_patches_or_fewer(steps, size):
    x = np.random.default_rng(0).standard_normal((6, steps))
    model = rx.RecurrentClassifier(**SETTINGS).fit(x, np.arange(6) % 2)
    assert model.patch_size_ == size


def test_other_features_are_named_as_the_user_counts_them():
    x, y = rows()
    model = rx.RecurrentClassifier(**SETTINGS, patch_size=3).fit(x, y)
    with pytest.raises(ValueError, match="3 features at each step, .* expecting 2"):
        model.predict(np.ones((4, 7, 3)))


@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_arrays_of_other_libraries(library):
    xp = pytest.importorskip(library)
    x, y = rows()
    here = rx.RecurrentClassifier(**SETTINGS, patch_size=3).fit(x, y, lengths=np.arange(20) % 7 + 1)
    there = rx.RecurrentClassifier(**SETTINGS, patch_size=3)
    there.fit(xp.asarray(x), xp.asarray(y), lengths=xp.asarray(np.arange(20) % 7 + 1))
    got = rx.backend.to_numpy(there.predict_proba(xp.asarray(x)))
    np.testing.assert_allclose(got, here.predict_proba(x), atol=1e-8)


@pytest.mark.interchange
@pytest.mark.parametrize("spelling", ["native", "portable"])
@pytest.mark.parametrize("count", [None, 20])
def test_exported_graphs_take_the_steps(spelling, count):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    x, y = rows()
    x = x.astype(np.float32)
    model = rx.RecurrentClassifier(**SETTINGS, patch_size=3).fit(x, y)
    graph = model.to_onnx(spelling=spelling, rows=count).SerializeToString()
    session = onnxruntime.InferenceSession(graph)
    assert session.get_inputs()[0].shape[1:] == [7, 2]
    (probable,) = session.run(["probabilities"], {"X": x})
    np.testing.assert_allclose(probable, model.predict_proba(x), atol=1e-5)
