"""Labels of the steps of sequences."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import rnn_xp as rx

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

SETTINGS = {
    "hidden_size": 4,
    "max_iter": 4,
    "n_iter_no_change": None,
    "random_state": 0,
    "n_estimators": 1,
}


def sequences(n=30, features=2, seed=0):
    """Sequences of 3..9 steps; a step is named after the sign of the sum of the steps so far."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(3, 10, size=n)
    steps[:2] = 3, 9
    x = [rng.standard_normal((t, features)) for t in steps]
    return x, [np.where(np.cumsum(row[:, 0]) > 0, "over", "below") for row in x]


def padded(rows, fill):
    rows = [np.asarray(row) for row in rows]
    steps = max(map(len, rows))
    x = np.full((len(rows), steps, *rows[0].shape[1:]), fill, rows[0].dtype)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
    return x, np.array([len(row) for row in rows])


def labeler(**settings):
    return rx.SequenceLabeler(**SETTINGS | settings)


class TestLabels:
    def test_it_is_a_network_with_a_loss_at_each_step(self):
        x, y = sequences()
        model = labeler(batch_size=10, standardize=False).fit(x, y)
        array, lengths = padded(x, 0.0)
        index = (padded(y, "below")[0] == "over").astype(int)
        inside = np.arange(array.shape[1]) < lengths[:, None]
        net = rx.Network(cell="gru", input_size=2, hidden_size=4, output_size=2,
                         topology="many_to_many", bidirectional=True)  # fmt: skip
        seed = int(np.random.RandomState(0).randint(2**31))
        result = rx.fit(
            net, array, index, epochs=4,
            optimizer=rx.optim.adam(rx.optim.schedules.Cosine(0.01, 12), clip_norm=1.0),
            loss="cross_entropy", batch_size=10, sample_weight=inside.astype(float),
            lengths=lengths, seed=seed, backend=rx.get_backend("numpy", dtype="float64"),
        )  # fmt: skip
        assert model.net_ == net
        assert model.loss_curve_ == result.history["loss"]
        assert list(model.classes_) == ["below", "over"]

    def test_it_learns(self):
        x, y = sequences(80)
        model = labeler(hidden_size=12, max_iter=80).fit(x, y)
        new, truth = sequences(40, seed=1)
        assert model.score(new, truth) > 0.9
        right = [p == t for p, t in zip(model.predict(new), truth, strict=True)]
        assert model.score(new, truth) == pytest.approx(np.concatenate(right).mean())

    def test_each_form_gives_the_same_labels(self):
        x, y = sequences()
        array, lengths = padded(x, 0.0)
        forms = [
            (padded(x, np.nan)[0], {}, padded(y, "never")[0]),
            (array, {"lengths": lengths}, padded(y, "never")[0]),
            (array, {"lengths": lengths}, y),
            (x, {}, [list(row) for row in y]),
            ([row.T for row in x], {}, y),
        ]
        model = labeler().fit(x, y)
        wanted = model.predict_proba(x)
        assert [len(row) for row in wanted] == [len(row) for row in x]
        np.testing.assert_allclose(np.concatenate(wanted).sum(axis=1), 1.0)
        for given, more, labels in forms:
            other = labeler().fit(given, labels, **more)
            assert other.loss_curve_ == model.loss_curve_
            probable = other.predict_proba(given, **more)
            assert isinstance(probable, list) == isinstance(given, list)
            for row, end, each in zip(probable, lengths, wanted, strict=True):
                np.testing.assert_array_equal(row[:end], each)
            assert other.score(given, labels, **more) == model.score(x, y)

    def test_windows_of_one_length(self):
        x = np.random.default_rng(0).standard_normal((30, 6))
        y = (np.cumsum(x, axis=1) > 0).astype(int) * 7
        model = labeler(n_estimators=2).fit(x, y)
        assert model.predict(x).shape == (30, 6)
        assert set(model.predict(x).ravel()) <= {0, 7}
        seen = (x[:, :, None] - model.scaling_[0]) / model.scaling_[1]
        each = [np.exp(model.net_.predict(params, seen)) for params in model.networks_]
        wanted = np.mean([p / p.sum(axis=-1, keepdims=True) for p in each], axis=0)
        np.testing.assert_allclose(model.predict_proba(x), wanted, rtol=1e-9)


class TestMask:
    def test_labels_that_do_not_count_are_not_learned(self):
        x, y = sequences()
        rng = np.random.default_rng(5)
        mask = [rng.random(len(row)) < 0.6 for row in y]
        other = [np.where(m, row, "over") for m, row in zip(mask, y, strict=True)]
        model = labeler().fit(x, y, mask=mask)
        assert labeler().fit(x, other, mask=mask).loss_curve_ == model.loss_curve_
        assert labeler().fit(x, y).loss_curve_ != model.loss_curve_
        first = labeler(batch_size=30, standardize=False, max_iter=1).fit(x, y, mask=mask)
        seed = int(np.random.RandomState(0).randint(2**31))
        params = first.net_.init(seed=seed, backend=rx.get_backend("numpy", dtype="float64"))
        rows, lengths = padded(x, 0.0)
        index = (padded(y, "below")[0] == "over").astype(int)
        loss, _ = first.net_.value_and_grad(
            params, rows, index, "cross_entropy", lengths=lengths,
            sample_weight=padded(mask, False)[0].astype(float),
        )  # fmt: skip
        assert first.loss_curve_[0] == pytest.approx(float(loss))
        array, steps = padded(mask, True)
        again = labeler().fit(padded(x, 0.0)[0], y, lengths=steps, mask=array)
        assert again.loss_curve_ == model.loss_curve_

    def test_nor_are_they_scored(self):
        x, y = sequences()
        model = labeler(max_iter=40).fit(x, y)
        right = [p == t for p, t in zip(model.predict(x), y, strict=True)]
        assert model.score(x, y) < 1.0
        assert model.score(x, y, mask=right) == 1.0
        assert model.score(x, y, mask=[~row for row in right]) == 0.0

    def test_missing_labels_may_stand_where_nothing_counts(self):
        x, y = sequences()
        gaps = [np.array([None, *row[1:]], object) for row in y]
        mask = [np.arange(len(row)) > 0 for row in y]
        model = labeler().fit(x, gaps, mask=mask)
        assert model.loss_curve_ == labeler().fit(x, y, mask=mask).loss_curve_

    def test_the_network_reads_steps_without_a_label(self):
        x, y = sequences()
        mask = [np.arange(len(row)) > 0 for row in y]
        changed = [row + 5.0 * (np.arange(len(row)) == 0)[:, None] for row in x]
        models = [labeler(standardize=False).fit(rows, y, mask=mask) for rows in (x, changed)]
        assert models[0].loss_curve_ != models[1].loss_curve_


class TestScikitLearn:
    def test_lists_go_through_searches(self):
        x, y = sequences(60)
        scores = cross_val_score(labeler(max_iter=60, hidden_size=8), x, y, cv=3)
        assert scores.min() > 0.75
        search = GridSearchCV(labeler(), {"hidden_size": [2, 3]}, cv=2)
        assert search.fit(x, y).best_params_["hidden_size"] in (2, 3)

    def test_copies(self):
        x, y = sequences()
        model = labeler().fit(x, y)
        for copy in (pickle.loads(pickle.dumps(model)), clone(model).fit(x, y)):
            for one, other in zip(copy.predict_proba(x), model.predict_proba(x), strict=True):
                np.testing.assert_array_equal(one, other)

    def test_weights_of_sequences(self):
        x, y = sequences()
        twice = np.arange(len(x)) % 2 == 0
        kept = [[r for r, t in zip(rows, twice, strict=True) if t] for rows in (x, y)]
        both, labels = [*x, *kept[0]], [*y, *kept[1]]
        plain = {"standardize": False, "solver": "lbfgs"}
        weighted = labeler(**plain).fit(x, y, sample_weight=1.0 + twice)
        repeated = labeler(**plain).fit(both, labels)
        np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-6)
        only = weighted.score(x, y, sample_weight=twice.astype(float))
        assert only == pytest.approx(weighted.score(*kept))

    def test_epoch_by_epoch(self):
        x, y = sequences()
        whole, parts = (labeler(learning_rate="constant", batch_size=30) for _ in range(2))
        whole.fit(x, y)
        for _ in range(4):
            parts.partial_fit(x, y, classes=["below", "over"])
        assert parts.loss_curve_ == whole.loss_curve_

    def test_sequences_are_held_out_at_random(self):
        x, y = sequences(40)
        model = labeler(early_stopping=True, validation_fraction=0.25).fit(x, y)
        assert len(model.validation_curve_) == 4
        assert model.best_loss_ == min(model.validation_curve_)

    @pytest.mark.parametrize("library", ["torch", "array_api_strict"])
    def test_arrays_of_other_libraries(self, library):
        xp = pytest.importorskip(library)
        x = np.random.default_rng(0).standard_normal((30, 6, 2))
        y = (np.cumsum(x[:, :, 0], axis=1) > 0).astype(int)
        model, here = labeler().fit(xp.asarray(x), xp.asarray(y)), labeler().fit(x, y)
        there = model.predict_proba(xp.asarray(x))
        assert type(there) is type(xp.asarray(x))
        np.testing.assert_allclose(rx.backend.to_numpy(there), here.predict_proba(x), atol=1e-8)
        labels = rx.backend.to_numpy(model.predict(xp.asarray(x)))
        np.testing.assert_array_equal(labels, here.predict(x))
        assert model.score(xp.asarray(x), xp.asarray(y)) == here.score(x, y)

    @pytest.mark.interchange
    @pytest.mark.parametrize("spelling", ["native", "portable"])
    def test_the_exported_graph_labels_each_step(self, spelling):
        onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        x = np.random.default_rng(0).standard_normal((30, 6, 2)).astype(np.float32)
        y = np.where(np.cumsum(x[:, :, 0], axis=1) > 0, "over", "below")
        model = labeler().fit(x, y)
        graph = model.to_onnx(spelling=spelling).SerializeToString()
        labels, probable = onnxruntime.InferenceSession(graph).run(None, {"X": x})
        np.testing.assert_allclose(probable, model.predict_proba(x), atol=1e-5)
        assert labels.tolist() == model.predict(x).tolist()

    def test_its_parameters_are_those_that_it_has(self):
        names = set(rx.SequenceLabeler().get_params())
        assert names == set(rx.RecurrentClassifier().get_params()) - {
            "class_weight",
            "patch_size",
            "read",
        }
        assert sklearn.base.is_classifier(rx.SequenceLabeler()) is False
        for name in names:
            assert f"\n    {name} : " in rx.SequenceLabeler.__doc__
        assert "\n    read : " not in rx.SequenceLabeler.__doc__


ROWS, NAMES = sequences(4)
SHORT = [*NAMES[:3], NAMES[3][:-1]]
REFUSED = {
    "a label for each sequence": (["over"] * 4, {}, r"y must have the shape \(4, 9\), one value"),
    "too few sequences": (NAMES[:3], {}, "y has 3 sequences, but X has 4"),
    "too few steps": (SHORT, {}, r"y\[3\] must have the shape .*, one value for each step of X\[3"),
    "one class": ([["over"] * len(row) for row in NAMES], {}, "at least 2 classes, got 1"),
    "no label": (
        [np.where(np.arange(len(row)) == 1, np.nan, 1.0) for row in NAMES], {},
        r"y\[0\] has no label at step 1. Leave steps without a label out with mask=",
    ),
    "nothing counts": (NAMES, {"mask": [np.zeros(len(r), bool) for r in NAMES]}, "no step has a"),
    "mask of numbers": (NAMES, {"mask": [np.ones(len(r)) for r in NAMES]}, "mask must be bool"),
    "mask of other rows": (NAMES, {"mask": np.ones((4, 2), bool)}, r"mask must have the shape"),
}  # fmt: skip


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSED)
    def test_what_cannot_be_read_is_named(self, case):
        y, given, message = REFUSED[case]
        with pytest.raises((ValueError, TypeError), match=message):
            labeler().fit(ROWS, y, **given)

    def test_labels_that_were_not_named(self):
        with pytest.raises(ValueError, match="labels other than the classes"):
            labeler().partial_fit(ROWS, NAMES, classes=["below", "beyond"])
