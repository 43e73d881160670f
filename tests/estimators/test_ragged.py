"""Sequences of unequal length, in each form in which people hold them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from estimating import FEW_EPOCHS

import rnn_xp as rx

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
import sklearn
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

pytestmark = FEW_EPOCHS

LABELS = np.array(["high", "low"])


def sequences(n=30, features=2, seed=0):
    """Sequences of 3..9 steps whose class is the sign of their level; the padding says nothing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    steps = rng.integers(3, 10, size=n)
    steps[:2] = 3, 9
    x = [rng.standard_normal((t, features)) - 2.0 * k + 1.0 for t, k in zip(steps, y, strict=True)]
    return x, LABELS[y]


def padded(rows, fill):
    x = np.full((len(rows), max(map(len, rows)), rows[0].shape[1]), fill)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
    return x, np.array([len(row) for row in rows])


def classifier(**settings):
    given = {"hidden_size": 4, "max_iter": 5, "learning_rate_init": 0.02, "random_state": 0}
    return rx.RecurrentClassifier(**given | settings)


def objects(rows):
    x = np.empty(len(rows), object)
    x[:] = rows
    return x


def as_nested_frame(rows):
    pandas = pytest.importorskip("pandas")
    columns = range(rows[0].shape[1])
    return pandas.DataFrame({f: [pandas.Series(row[:, f]) for row in rows] for f in columns})


def as_panel_frame(rows):
    pandas = pytest.importorskip("pandas")
    frames = {i: pandas.DataFrame(row) for i, row in enumerate(rows)}
    return pandas.concat(frames, names=["sequence", "time"])


FORMS = {
    "list": lambda rows: (rows, {}),
    "tuple of lists": lambda rows: (tuple(row.tolist() for row in rows), {}),
    "object array": lambda rows: (objects(rows), {}),
    "padded with NaN, as tslearn": lambda rows: (padded(rows, np.nan)[0], {}),
    "padded with lengths": lambda rows: (padded(rows, 9.0)[0], {"lengths": padded(rows, 9.0)[1]}),
    "NaN and lengths": lambda rows: (padded(rows, np.nan)[0], {"lengths": padded(rows, 9.0)[1]}),
    "list of aeon": lambda rows: ([row.T for row in rows], {}),
    "nested frame of sktime": lambda rows: (as_nested_frame(rows), {}),
    "frame of sktime with two levels": lambda rows: (as_panel_frame(rows), {}),
}


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_each_form_gives_the_bits_of_the_network_with_lengths(self, form):
        rows, y = sequences()
        x, given = FORMS[form](rows)
        model = classifier().fit(x, y, **given)
        array, lengths = padded(rows, 0.0)
        reference = classifier().fit(array, y, lengths=lengths)
        wanted = reference.predict_proba(array, lengths=lengths)
        np.testing.assert_array_equal(model.predict_proba(x, **given), wanted)
        assert model.n_features_in_ == 9
        assert model.net_.input_size == 2

    def test_one_feature_needs_no_second_axis(self):
        rows, y = sequences(features=1)
        flat = classifier().fit([row[:, 0] for row in rows], y)
        deep = classifier().fit(rows, y)
        np.testing.assert_array_equal(flat.predict_proba(rows), deep.predict_proba(rows))

    def test_padding_changes_no_prediction(self):
        rows, y = sequences()
        model = classifier().fit(rows, y)
        short = [row for row in rows if len(row) == 3]
        alone = model.predict_proba(short)
        together = model.predict_proba([*short, np.ones((40, 2))])[:-1]
        np.testing.assert_allclose(together, alone, rtol=1e-12)

    def test_sequences_may_be_longer_or_equally_long_when_predicted(self):
        rows, y = sequences()
        model = classifier().fit(rows, y)
        assert model.predict([np.ones((25, 2)), np.ones((2, 2))]).shape == (2,)
        assert model.predict([np.ones((4, 2)), np.ones((4, 2))]).shape == (2,)
        assert model.predict(np.ones((3, 30, 2))).shape == (3,)

    def test_the_order_of_the_axes_is_remembered_where_it_cannot_be_seen(self):
        rows, y = sequences()
        model = classifier().fit([row.T for row in rows], y)
        alone = model.predict_proba([rows[0].T])
        np.testing.assert_allclose(alone, model.predict_proba([row.T for row in rows])[:1])

    def test_a_regressor_learns_from_sequences_with_several_targets(self):
        rows, _ = sequences(60)
        y = np.array([row.mean(axis=0) for row in rows])
        settings = {"hidden_size": 8, "read": "mean", "solver": "lbfgs", "random_state": 0}
        model = rx.RecurrentRegressor(**settings).fit(rows, y)
        assert model.predict(rows[:7]).shape == (7, 2)
        assert model.score(rows, y) > 0.95

    def test_the_last_sequences_are_held_out_without_a_gap(self):
        rows, _ = sequences()
        y = np.array([row.mean() for row in rows])
        model = rx.RecurrentRegressor(hidden_size=3, max_iter=3, early_stopping=True)
        assert len(model.fit(rows, y).validation_curve_) == 3

    @pytest.mark.parametrize("library", ["torch", "array_api_strict"])
    def test_arrays_of_other_libraries(self, library):
        xp = pytest.importorskip(library)
        rows, y = sequences()
        array, lengths = padded(rows, np.nan)
        reference = classifier().fit(rows, y)
        wanted = reference.predict_proba(rows)
        y = np.searchsorted(LABELS, y)
        for x, given in (
            ([xp.asarray(row) for row in rows], {}),
            (xp.asarray(array), {}),
            (xp.asarray(array), {"lengths": xp.asarray(lengths)}),
        ):
            model = classifier().fit(x, xp.asarray(y), **given)
            got = rx.backend.to_numpy(model.predict_proba(x, **given))
            np.testing.assert_allclose(got, wanted, atol=1e-8)


class TestScikitLearn:
    def test_lists_go_through_searches(self):
        rows, y = sequences()
        search = GridSearchCV(classifier(max_iter=30), {"hidden_size": [3, 8]}, cv=3)
        assert search.fit(rows, y).best_score_ > 0.8
        scores = cross_val_score(classifier(max_iter=30), objects(rows), y, cv=3)
        assert scores.mean() > 0.8

    def test_lengths_are_routed_as_metadata(self):
        rows, y = sequences()
        x, lengths = padded(rows, 9.0)
        with sklearn.config_context(enable_metadata_routing=True):
            model = classifier(max_iter=30).set_fit_request(lengths=True)
            model.set_predict_request(lengths=True).set_score_request(lengths=True)
            pipeline = make_pipeline(FunctionTransformer(), model)
            pipeline.fit(x, y, lengths=lengths)
            np.testing.assert_array_equal(
                pipeline.predict(x, lengths=lengths),
                classifier(max_iter=30).fit(rows, y).predict(rows),
            )
            params = {"lengths": lengths}
            by_lengths = cross_val_score(pipeline, x, y, cv=3, params=params)
            search = GridSearchCV(pipeline, {"recurrentclassifier__hidden_size": [4]}, cv=3)
            search.fit(x, y, lengths=lengths)
        by_list = cross_val_score(classifier(max_iter=30), rows, y, cv=3)
        np.testing.assert_array_equal(by_lengths, by_list)
        assert search.best_score_ == pytest.approx(by_list.mean())


class TestOrderOfAxes:
    def test_an_array_that_looks_transposed_is_warned_of(self):
        x, y = np.random.default_rng(0).standard_normal((8, 6, 50)), np.arange(8) % 2
        message = "read as 6 steps of 50 features.*channels_first=True"
        with pytest.warns(UserWarning, match=message):
            classifier().fit(x, y)

    @pytest.mark.filterwarnings("error")
    def test_the_argument_says_which_axis_is_which(self):
        x, y = np.random.default_rng(0).standard_normal((8, 6, 50)), np.arange(8) % 2
        transposed = classifier(channels_first=True).fit(x, y)
        assert (transposed.n_features_in_, transposed.net_.input_size) == (50, 6)
        model = classifier(channels_first=False).fit(np.swapaxes(x, 1, 2), y)
        wanted = model.predict_proba(np.swapaxes(x, 1, 2))
        np.testing.assert_array_equal(transposed.predict_proba(x), wanted)


def ones(*shapes):
    return [np.ones(shape) for shape in shapes]


def with_value(value, i, step):
    rows = ones((4, 2), (3, 2))
    rows[i][step, 1] = value
    return rows


def array(value, where):
    x = np.ones((2, 4, 2))
    x[where] = value
    return x


REFUSED = {
    "mixed features": (ones((4, 2), (3, 5)), {}, r"X\[0\] has 2 and X\[1\] has 5"),
    "empty": (ones((4, 2), (0, 2)), {}, r"X\[1\] has no step. Leave the empty sequence out"),
    "NaN in a list": (with_value(np.nan, 1, 2), {}, r"X\[1\] contains NaN at step 2. Fill it"),
    "infinite": (with_value(np.inf, 0, 1), {}, r"X\[0\] contains infinity at step 1"),
    "text": ([np.array(["a", "b"]), np.ones(3)], {}, r"X\[0\] must hold real numbers"),
    "complex": ([np.ones(2) * 1j, np.ones(3)], {}, r"X\[0\] must hold real numbers"),
    "three axes": (ones((4, 2, 2), (3, 2, 2)), {}, r"X\[0\] has shape \(4, 2, 2\); a sequence"),
    "parts unequal": ([[[1.0], [1.0, 2.0]], [[1.0]]], {}, r"X\[0\] is not an array"),
    "NaN inside": (array(np.nan, (0, 1)), {}, r"X\[0\] contains NaN at step 1, inside its"),
    "NaN of one feature": (array(np.nan, (1, 3, 0)), {}, r"X\[1\] contains NaN at step 3, inside"),
    "all NaN": (array(np.nan, 1), {}, r"X\[1\] has no step: it is all NaN"),
    "too long": (np.ones((2, 4, 2)), {"lengths": [4, 5]}, r"lengths\[1\] is 5, .* 4 steps"),
    "zero": (np.ones((2, 4, 2)), {"lengths": [0, 4]}, r"lengths\[0\] is 0, .* 1\.\.4"),
    "too many": (np.ones((2, 4)), {"lengths": [4, 4, 4]}, r"shape \(2,\), one for each row of X"),
    "not whole": (np.ones((2, 4)), {"lengths": [4.0, 4.0]}, "lengths must be integers"),
    "NaN before": (array(np.nan, (0, 1)), {"lengths": [3, 4]}, r"X\[0\] contains NaN at step 1"),
    "both": (ones((4, 2), (3, 2)), {"lengths": [4, 3]}, "Leave lengths out"),
}


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSED)
    def test_what_cannot_be_read_is_named(self, case):
        x, given, message = REFUSED[case]
        with pytest.raises((ValueError, TypeError), match=message):
            classifier().fit(x, ["a", "b"], **given)

    def test_series_of_one_row_must_have_one_length(self):
        pandas = pytest.importorskip("pandas")
        cells = [pandas.Series(np.ones(size)) for size in (3, 4)]
        x = pandas.DataFrame({"a": cells, "b": cells[::-1]})
        with pytest.raises(ValueError, match="row 0 of X has series of the shapes"):
            classifier().fit(x, ["a", "b"])

    def test_other_features_when_predicted(self):
        rows, y = sequences()
        model = classifier().fit(rows, y)
        with pytest.raises(ValueError, match="3 features at each step, .* expecting 2"):
            model.predict(ones((4, 3), (5, 3)))

    def test_an_argument_of_another_kind(self):
        message = re.escape("channels_first must be 'auto', True or False, got 'yes'")
        with pytest.raises(ValueError, match=message):
            classifier(channels_first="yes").fit(np.ones((2, 3)), [0, 1])
