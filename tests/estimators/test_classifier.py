"""The classifier, and estimators on arrays of any library."""

from __future__ import annotations

import numpy as np
import pytest
from estimating import FEW_EPOCHS, labelled, quick, watch_fit, windows

import rnn_xp as rx

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from rnn_xp.estimators import RecurrentClassifier, RecurrentRegressor

pytestmark = FEW_EPOCHS


class TestClassifier:
    def test_probabilities(self):
        x, y = labelled()
        model = RecurrentClassifier(
            hidden_size=8, solver="lbfgs", random_state=0, max_iter=40, standardize=False,
            n_estimators=1,
        )  # fmt: skip
        model.fit(x, y)
        assert list(model.classes_) == ["down", "flat", "up"]
        probabilities = model.predict_proba(x)
        assert probabilities.shape == (len(x), 3)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
        assert np.array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(x))
        assert model.score(x, y) > 0.95
        share = probabilities[np.arange(len(x)), np.searchsorted(model.classes_, y)]
        loss, _ = model.net_.value_and_grad(
            model.params_, x[:, :, None], np.searchsorted(model.classes_, y), "cross_entropy"
        )
        assert -np.log(share).mean() == pytest.approx(float(loss))

    def test_batches_that_lack_a_class(self):
        x, y = labelled()
        model = RecurrentClassifier(hidden_size=4, random_state=0)
        model.partial_fit(x[y != "up"], y[y != "up"], classes=["up", "down", "flat"])
        model.partial_fit(x, y)
        assert model.predict_proba(x).shape == (len(x), 3)
        with pytest.raises(ValueError, match="labels other than the classes"):
            model.partial_fit(x, np.where(y == "up", "sideways", y))

    def test_one_class_is_none(self):
        with pytest.raises(ValueError, match="at least 2 classes, got 1"):
            RecurrentClassifier().fit(np.ones((5, 3)), np.zeros(5))

    def test_weights_of_samples(self):
        x, y = labelled()
        certain = RecurrentClassifier(hidden_size=4, solver="lbfgs", random_state=0, max_iter=30)
        only = certain.fit(x, y, sample_weight=np.where(y == "flat", 0.0, 1.0))
        assert "flat" not in only.predict(x)

    @pytest.mark.parametrize("weights", [{"flat": 0.0}, "balanced"])
    @pytest.mark.parametrize("beside", [False, True])
    def test_weights_of_classes_are_those_of_their_samples(self, weights, beside):
        x, y = labelled()
        names, counts = np.unique(y, return_counts=True)
        by_label = dict(zip(names, len(y) / (3 * counts), strict=True))
        by_label = by_label if weights == "balanced" else weights
        share = np.array([by_label.get(label, 1.0) for label in y])
        given = np.arange(1.0, len(y) + 1.0) if beside else None
        total = share if given is None else share * given
        settings = {"hidden_size": 4, "random_state": 0, "max_iter": 3}
        model = RecurrentClassifier(**settings, class_weight=weights).fit(x, y, sample_weight=given)
        expected = RecurrentClassifier(**settings).fit(x, y, sample_weight=total)
        assert model.loss_curve_ == expected.loss_curve_

    def test_weights_of_classes_that_cannot_be(self):
        with pytest.raises(ValueError, match="balanced"):
            RecurrentClassifier(class_weight="equal").fit(*labelled())

    @pytest.mark.parametrize("ragged", [False, True])
    def test_several_labels_are_learned_by_a_classifier_each(self, ragged):
        from sklearn.multioutput import MultiOutputClassifier

        x = np.random.default_rng(0).standard_normal((60, 6, 2))
        y = np.where(x.mean(axis=1) > 0.0, ["high", "loud"], ["low", "soft"])
        x = [row[: 3 + k % 4] for k, row in enumerate(x)] if ragged else x
        model = RecurrentClassifier(hidden_size=4, max_iter=10, n_estimators=1, random_state=0)
        with pytest.raises(ValueError, match=r"shape \(60, 2\).*MultiOutputClassifier; for"):
            model.fit(x, y)
        both = MultiOutputClassifier(model).fit(x, y)
        alone = [model.fit(x, y[:, k]).predict_proba(x) for k in range(2)]
        np.testing.assert_array_equal(both.predict_proba(x), alone)
        assert both.score(x, y) > 0.5

    def test_text_labels_of_another_library_come_back_as_text(self, monkeypatch):
        sklearn = pytest.importorskip("sklearn")
        strict = rx.get_backend("array_api_strict", dtype="float64")
        x, y = labelled()
        model = RecurrentClassifier(hidden_size=4, random_state=0, max_iter=3)
        monkeypatch.setenv("SCIPY_ARRAY_API", "1")
        with sklearn.config_context(array_api_dispatch=True):
            predicted = model.fit(strict.asarray(x), y).predict(strict.asarray(x))
        assert isinstance(predicted, np.ndarray)
        assert set(predicted) <= set(y)


class TestEarlyStopping:
    """The classifier holds out samples of every class."""

    def test_samples_sorted_by_class_are_learned(self):
        rng = np.random.default_rng(0)
        y = np.repeat(["down", "flat", "up"], 60)
        x = 0.3 * rng.standard_normal((180, 6)) + np.repeat([-1.0, 0.0, 1.0], 60)[:, None]
        model = RecurrentClassifier(
            hidden_size=8, early_stopping=True, random_state=0, learning_rate_init=0.01
        )
        assert model.fit(x, y).score(x, y) == 1.0

    def test_each_part_has_the_share_of_each_class(self, monkeypatch):
        x, labels = labelled(200)
        named = watch_fit(monkeypatch)
        RecurrentClassifier(
            hidden_size=3,
            early_stopping=True,
            standardize=False,
            validation_fraction=0.25,
            max_iter=1,
            random_state=1,
        ).fit(x, labels, sample_weight=np.arange(1.0, 201.0))
        held_out = named["validation"]
        counts = np.bincount(held_out["y"], minlength=3)
        everyone = np.bincount(np.unique(labels, return_inverse=True)[1])
        np.testing.assert_allclose(counts, everyone / 4, atol=1.0)
        rows = held_out["sample_weight"].astype(int) - 1  # a weight tells its row
        assert len(set(rows)) == len(held_out["x"]) == 50
        assert np.array_equal(held_out["x"][:, :, 0], x[rows])
        assert rows.max() - rows.min() > 100
        assert named["batch_size"] == 10  # a sixteenth of 150 rows
        assert "gap" not in named

    def test_held_out_samples_are_not_trained_on(self, monkeypatch):
        x, labels = labelled(200)
        named = watch_fit(monkeypatch)
        model = RecurrentClassifier(
            hidden_size=3, early_stopping=True, max_iter=2, random_state=1, standardize=False
        )
        curve = model.fit(x, labels).loss_curve_
        changed = x.copy()
        for held_out in named["validation"]["x"][:, :, 0]:
            changed[(x == held_out).all(axis=1)] += 5.0
        assert not np.array_equal(changed, x)
        assert model.fit(changed, labels).loss_curve_ == curve

    def test_the_held_out_samples_follow_from_the_random_state(self, monkeypatch):
        x, labels = labelled()
        named, parts = watch_fit(monkeypatch), []
        for seed in (0, 0, 1):
            quickly = {"hidden_size": 3, "max_iter": 1, "random_state": seed}
            RecurrentClassifier(early_stopping=True, **quickly).fit(x, labels)
            parts.append(named["validation"]["x"])
        assert np.array_equal(parts[0], parts[1])
        assert not np.array_equal(parts[0], parts[2])

    def test_a_class_of_one_sample_is_refused_by_its_name(self):
        x, labels = np.ones((7, 3)), ["once", *["twice"] * 6]
        with pytest.raises(ValueError, match=r"holds out a share of each class.*'once'.*Give more"):
            RecurrentClassifier(early_stopping=True).fit(x, labels)

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.1, "0.1"])
    def test_bad_fractions(self, share):
        x, labels = labelled()
        model = RecurrentClassifier(early_stopping=True, validation_fraction=share)
        with pytest.raises((ValueError, TypeError), match=r"validation_fraction must be a number"):
            model.fit(x, labels)

    def test_the_docstrings_say_what_is_held_out(self):
        assert "drawn at random, with the share of each class" in RecurrentClassifier.__doc__
        assert "the last windows in time, never shuffled" in RecurrentRegressor.__doc__

    def test_on_another_library(self):
        x, labels = labelled()
        x, y = x.astype("float32"), np.unique(labels, return_inverse=True)[1]
        backend = rx.get_backend("array_api_strict", device="device1", dtype="float32")
        quickly = {"hidden_size": 3, "max_iter": 2, "random_state": 0, "early_stopping": True}
        quickly["batch_size"] = 50
        here = RecurrentClassifier(**quickly).fit(x, y)
        there = RecurrentClassifier(**quickly).fit(backend.asarray(x), y)
        np.testing.assert_allclose(there.validation_curve_, here.validation_curve_, rtol=1e-4)


class TestArrays:
    """Everything follows X."""

    @pytest.mark.parametrize(
        "library", ["array_api_strict", pytest.param("torch", marks=pytest.mark.torch)]
    )
    @pytest.mark.parametrize("kind", [RecurrentRegressor, RecurrentClassifier])
    def test_of_another_library(self, library, kind):
        pytest.importorskip(library, reason=f"{library} is not installed")
        device = {"array_api_strict": "device1", "torch": "cpu"}[library]
        backend = rx.get_backend(library, device=device, dtype="float32")
        x, y = windows(100, "float32")
        y = (y > 0).astype(np.int64) if kind is RecurrentClassifier else y
        model = kind(hidden_size=4, random_state=0, max_iter=3)
        here = model.fit(x, y).predict(x)
        there_x = backend.asarray(x)
        for there_y in (y, backend.xp.asarray(y, device=backend.device)):
            found = model.fit(there_x, there_y).predict(there_x)
            assert rx.backend.array_namespace(found) is backend.xp
            assert rx.backend.device_of(found) == backend.device
            np.testing.assert_allclose(rx.backend.to_numpy(found), here, rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match=r"predict\(\) must use the same namespace"):
            model.predict(x)
        with pytest.raises(ValueError, match="X has 7 features, but .* is expecting 8"):
            model.predict(there_x[:, :7])

    @pytest.mark.torch
    @pytest.mark.parametrize("kind", [RecurrentRegressor, RecurrentClassifier])
    def test_tensors_that_record_gradients_are_detached(self, kind):
        torch = pytest.importorskip("torch", reason="torch is not installed")
        x, y = map(torch.tensor, windows(60))
        y = y > 0 if kind is RecurrentClassifier else y
        expected = kind(hidden_size=4, random_state=0, max_iter=2).fit(x, y)
        recorded = x.clone().requires_grad_() * 1.0  # with a graph behind it
        target = y if kind is RecurrentClassifier else y.clone().requires_grad_()
        model = kind(hidden_size=4, random_state=0, max_iter=2).fit(recorded, target)
        assert model.loss_curve_ == expected.loss_curve_
        outputs = [model.predict(recorded), *model.params_.values()]
        if kind is RecurrentClassifier:
            outputs.append(model.predict_proba(recorded))
        assert not any(output.requires_grad for output in outputs)
        assert torch.equal(outputs[0], expected.predict(x))
        assert recorded.requires_grad

    def test_numpy_data_computed_elsewhere(self):
        x, y = windows(100, "float32")
        here = quick().fit(x, y).predict(x)
        for backend in ("array_api_strict", rx.get_backend("array_api_strict", dtype="float32")):
            there = quick(backend=backend).fit(x, y)
            assert rx.backend.array_namespace(there.params_["readout.b_y"]).__name__ == (
                "array_api_strict"
            )
            found = there.predict(x)
            assert isinstance(found, np.ndarray)
            np.testing.assert_allclose(found, here, rtol=1e-4, atol=1e-5)
