"""Scalers: their numbers, their inverse, and that nothing leaks from the test part."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from rnn_xp.data.datasets import load
from rnn_xp.data.scalers import Scaler, fit_scaler, range_warning
from rnn_xp.data.windows import make_windows, time_split

KINDS = ["standard", "minmax", "none"]


class TestFitScaler:
    def test_standard(self):
        assert fit_scaler("standard", [1.0, 2.0, 3.0, 6.0]) == Scaler(
            "standard", (3.0,), (np.sqrt(3.5),)
        )

    def test_minmax(self):
        assert fit_scaler("minmax", [4, -1, 2]) == Scaler("minmax", (-1.0,), (5.0,))

    def test_none(self):
        assert fit_scaler("none", [4, 4]) == Scaler("none", (0.0,), (1.0,))

    def test_columns_are_independent(self):
        train = np.asarray([[1, 100], [3, 500]])
        assert fit_scaler("minmax", train) == Scaler("minmax", (1.0, 100.0), (2.0, 400.0))

    def test_computed_in_float64(self):
        train = np.asarray([16777216, 16777218, 16777220], dtype=np.float32)
        scaler = fit_scaler("standard", train)
        assert scaler.offset == (16777218.0,)
        assert scaler.scale == pytest.approx((np.sqrt(8 / 3),), rel=1e-15)

    def test_length_of_day(self):
        train, test = time_split(load("length_of_day").values)
        scaler = fit_scaler("minmax", train)
        assert scaler.offset == (-1.0516,)
        assert scaler.scale == pytest.approx((2.6864 + 1.0516,), rel=1e-15)
        scaled = scaler.transform(test)
        assert scaled.min().round(2) == -0.16
        assert scaled.max().round(2) == 0.64

    @pytest.mark.parametrize("kind", ["standard", "minmax"])
    def test_constant_column(self, kind):
        with pytest.raises(ValueError, match=r"column 1 of the training part is constant \(0\.1\)"):
            fit_scaler(kind, [[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]])

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match=r"'robust' is not a scaler\. Valid: standard"):
            fit_scaler("robust", [1.0, 2.0])

    def test_empty(self):
        with pytest.raises(ValueError, match="train is empty: at least 1 value"):
            fit_scaler("none", [])

    def test_not_finite(self):
        with pytest.raises(ValueError, match=r"train\[1\] is nan"):
            fit_scaler("standard", [1.0, np.nan])


class TestScaler:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
    def test_round_trip(self, kind, shape):
        values = np.random.default_rng(0).normal(5.0, 3.0, size=shape)
        scaler = fit_scaler(kind, values)
        scaled = scaler.transform(values)
        assert scaled.shape == shape
        assert scaled.dtype == np.float64
        np.testing.assert_allclose(scaler.inverse(scaled), values, rtol=1e-14, atol=1e-14)

    def test_standard_has_mean_0_and_deviation_1(self):
        values = np.random.default_rng(1).normal(5.0, [1.0, 3.0], size=(50, 2))
        scaled = fit_scaler("standard", values).transform(values)
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-14)
        np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-14)

    def test_minmax_covers_0_to_1(self):
        values = np.random.default_rng(2).normal(size=(50, 2))
        scaled = fit_scaler("minmax", values).transform(values)
        assert scaled.min(axis=0).tolist() == [0, 0]
        assert scaled.max(axis=0).tolist() == [1, 1]

    def test_windows_scale_like_their_series(self):
        series = np.random.default_rng(3).normal(size=(20, 2))
        scaler = fit_scaler("standard", series)
        x, _ = make_windows(series, 5)
        expected, _ = make_windows(scaler.transform(series), 5)
        assert np.array_equal(scaler.transform(x), expected)

    def test_predictions_belong_to_column_0(self):
        scaler = Scaler("minmax", (10.0, -7.0), (2.0, 5.0))
        predictions = np.asarray([[0.0, 0.5, 1.0], [2.0, -1.0, 0.25]], dtype=np.float32)
        original = scaler.inverse_target(predictions)
        assert original.dtype == np.float64
        assert original.tolist() == [[10, 11, 12], [14, 8, 10.5]]

    @pytest.mark.parametrize("method", ["transform", "inverse"])
    @pytest.mark.parametrize("shape", [(5,), (5, 3), ()])
    def test_wrong_columns(self, method, shape):
        scaler = Scaler("minmax", (0.0, 0.0), (1.0, 1.0))
        message = r"fitted on 2 column\(s\), so the last axis must have length 2, got shape"
        with pytest.raises(ValueError, match=message):
            getattr(scaler, method)(np.ones(shape))

    def test_complex(self):
        with pytest.raises(TypeError, match="complex128"):
            Scaler("none", (0.0,), (1.0,)).transform(np.ones(3, complex))

    def test_json_round_trip(self):
        scaler = fit_scaler("standard", np.random.default_rng(4).normal(size=(9, 2)))
        again = Scaler(**json.loads(json.dumps(asdict(scaler))))
        assert again == scaler
        assert hash(again) == hash(scaler)

    @pytest.mark.parametrize(
        ("offset", "scale", "message"),
        [
            ((), (), "got 0 and 0"),
            ((1.0,), (1.0, 2.0), "got 1 and 2"),
            ((1.0,), (0.0,), "scale finite and positive"),
            ((1.0,), (-1.0,), "scale finite and positive"),
            ((np.nan,), (1.0,), "offset must be finite"),
        ],
    )
    def test_bad_numbers(self, offset, scale, message):
        with pytest.raises(ValueError, match=message):
            Scaler("standard", offset, scale)

    def test_bad_kind(self):
        with pytest.raises(ValueError, match=r"'z' is not a scaler\. Valid: standard, minmax"):
            Scaler("z", (0.0,), (1.0,))


@pytest.mark.parametrize("kind", KINDS)
def test_test_part_does_not_leak(kind):
    values = load("length_of_day").values.copy()

    def prepare(series):
        train, _ = time_split(series)
        scaler = fit_scaler(kind, train)
        return scaler, *make_windows(scaler.transform(train), 10)

    scaler, x, y = prepare(values)
    changed = values.copy()
    changed[8327:] = 1e6
    scaler_after, x_after, y_after = prepare(changed)
    assert scaler_after == scaler
    assert x.shape == (8317, 10, 1)
    assert np.array_equal(x_after, x)
    assert np.array_equal(y_after, y)


class TestRangeWarning:
    def test_inside(self):
        assert range_warning([0, 10], [3, 7]) is None

    def test_within_tolerance(self):
        assert range_warning([0, 10], [-0.5, 10.5]) is None
        assert range_warning([0, 10], [-0.5, 10.6]) is not None

    @pytest.mark.parametrize(
        ("test", "share"), [([5, 14], "40 %"), ([-25, 14], "250 %"), ([11, 12], "20 %")]
    )
    def test_share_of_the_training_range(self, test, share):
        message = range_warning([0, 10], test)
        assert f"training range by {share} of that range" in message
        assert f"(training 0 .. 10, test {min(test)} .. {max(test)})" in message

    def test_names_the_worst_column(self):
        train = [[0, 0, 0], [10, 100, 1]]
        test = [[5, 130, 0], [12, 50, 1]]
        assert "column 1 by 30 %" in range_warning(train, test)

    def test_constant_training_column(self):
        assert range_warning([5, 5], [5, 5]) is None
        assert "by inf %" in range_warning([5, 5], [5, 6])

    def test_tolerance(self):
        assert range_warning([0, 10], [0, 14], tolerance=0.4) is None

    @pytest.mark.parametrize("name", ["length_of_day", "wti"])
    def test_bundled_series(self, name):
        message = range_warning(*time_split(load(name).values))
        if name == "wti":
            assert message is None
        else:
            assert "by 16 % of that range (training -1.0516 .. 2.6864, test -1.6" in message

    def test_errors(self):
        with pytest.raises(ValueError, match="test is empty"):
            range_warning([1.0], [])
        with pytest.raises(ValueError, match=r"train has 2 column\(s\) and test 1"):
            range_warning(np.ones((3, 2)), np.ones(3))
