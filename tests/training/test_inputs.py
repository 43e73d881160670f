"""What `rnn_xp.fit` is given: values that a loss has a meaning for, of one library."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.losses import declare, mse, valid_targets

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 3, 1))
Y = RNG.standard_normal((6, 1))
NET = rx.Network(hidden_size=2)
PER_STEP = rx.Network(hidden_size=2, topology="many_to_many")
STEPS = np.array([[0.0, 1.0, 7.0]] * 6)[:, :, None]


def train(y, loss="binary_cross_entropy", net=NET, x=X, **options):
    return rx.fit(net, x, y, loss=loss, optimizer=rx.optim.adam(0.1), epochs=2, **options)


class TestTargets:
    @pytest.mark.parametrize(
        ("y", "words"),
        [
            ([1, -1] * 3, r"y\[1, 0\] is -1.0, but binary_cross_entropy takes targets in 0..1"),
            ([255, 0] * 3, r"y\[0, 0\] is 255.0, .* \(y \+ 1\) / 2, for 0..255 give y / 255"),
            ([0, 1, 0, 1, 1.5, 0], r"y\[4, 0\] is 1.5"),
        ],
    )
    @pytest.mark.parametrize("library", ["numpy", pytest.param("torch", marks=pytest.mark.torch)])
    def test_of_binary_cross_entropy_lie_between_0_and_1(self, y, words, library):
        pytest.importorskip(library)
        y = np.array(y, float)[:, None]
        with pytest.raises(ValueError, match=words):
            train(y, backend=rx.get_backend(library, dtype="float64"))
        with pytest.raises(ValueError, match="fit: validation: y"):
            train(np.clip(y, 0, 1), validation=(X, y))

    def test_probabilities_are_taken(self):
        losses = train(np.array([[0.0], [1.0], [0.3], [0.0], [1.0], [1.0]])).history["loss"]
        assert all(0.0 < loss < 2.0 for loss in losses)

    def test_entries_that_do_not_count_may_be_anything(self):
        y = np.array([[0.0], [1.0], [-1.0], [0.0], [1.0], [1.0]])
        train(y, sample_weight=np.array([1.0, 1, 0, 1, 1, 1]))
        train(STEPS, net=PER_STEP, lengths=np.full(6, 2))
        train(STEPS, net=PER_STEP, mask=np.array([[True, True, False]] * 6))
        train(STEPS, net=PER_STEP, sample_weight=np.array([[1.0, 1.0, 0.0]] * 6))
        with pytest.raises(ValueError, match=r"y\[0, 2, 0\] is 7.0"):
            train(STEPS, net=PER_STEP)

    def test_a_loss_of_ones_own_declares_its_targets(self):
        @declare(targets=(0.0, math.inf))
        def poisson(pred, target, weight=None, total=None):
            return mse(pred, target, weight, total)

        assert valid_targets(poisson) == (0.0, math.inf)
        assert valid_targets(functools.partial(poisson)) == (0.0, math.inf)
        with pytest.raises(ValueError, match=r"y\[1, 0\] is -2.0, but poisson takes .* 0..inf"):
            train(np.array([[3.0], [-2.0]] * 3), poisson)
        train(np.array([[3.0], [0.0]] * 3), poisson)

    def test_a_class_declares_its_targets(self):
        class Hinge:
            targets = (-1.0, 1.0)

            def __call__(self, pred, target, weight=None, total=None):
                return mse(pred, target, weight, total)

        train(np.array([[1.0], [-1.0]] * 3), Hinge())
        with pytest.raises(ValueError, match=r"y\[0, 0\] is 2.0, but Hinge takes targets in -1..1"):
            train(np.array([[2.0], [0.0]] * 3), Hinge())

    def test_others_take_all_numbers(self):
        for name in ("mse", "mae", "huber"):
            train(np.array([[-1e3], [255.0]] * 3), name)


class TestTooLarge:
    @pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
    def test_finite_values_are_not_called_infinite(self, name):
        data = {"x": X, "y": Y, "sample_weight": np.ones(6)}
        data[name] = np.full(data[name].shape, 1e39)
        words = f"fit: {name} has values that are too large for float32, up to 1e.39. Scale them"
        with pytest.raises(ValueError, match=words):
            train(loss="mse", backend=rx.get_backend(dtype="float32"), **data)

    def test_whole_numbers_and_validation_too(self):
        backend = rx.get_backend(dtype="float32")
        big = np.full((6, 1), 1e39)
        with pytest.raises(ValueError, match="validation: y has values that are too large"):
            train(Y, "mse", backend=backend, validation=(X, big))
        with pytest.raises(ValueError, match="x has values that are not finite"):
            train(Y, "mse", x=np.where(X[0, 0] == X, np.inf, X), backend=backend)

    def test_an_estimator_and_a_forecast_say_so(self):
        flat = X[:, :, 0].astype("float32")
        with pytest.raises(ValueError, match="y has values that are too large for float32"):
            rx.RecurrentRegressor(max_iter=1).fit(flat, np.full(6, 1e39))
        series = np.sin(np.arange(120) / 5.0)
        f = rx.Forecaster(
            seq_length=6, hidden_size=2, epochs=1, verbose=False,
            backend=rx.get_backend(dtype="float32"),
        ).fit(series)  # fmt: skip
        with pytest.raises(ValueError, match="too large for float32 after scaling as in fit"):
            f.apply(1e39 * series).predict()

    def test_float64_holds_them(self):
        train(Y, "mse", x=X * 1e39, backend=rx.get_backend(dtype="float64"))


class TestKinds:
    def test_a_pandas_series_is_taken(self):
        pd = pytest.importorskip("pandas")
        labels = np.array([0, 1, 2, 0, 1, 2])
        net = rx.Network(hidden_size=2, output_size=3)
        given = pd.Series(labels, index=list("abcdef"))
        found = train(given, "cross_entropy", net)
        assert found.history == train(labels, "cross_entropy", net).history
        weights = pd.Series(np.arange(1.0, 7.0))
        found = train(pd.DataFrame(Y), "mse", sample_weight=weights)
        assert found.history == train(Y, "mse", sample_weight=np.arange(1.0, 7.0)).history
        with pytest.raises(ValueError, match=r"got \(6, 3\).*x\.to_numpy\(\)\[:, :, None\]"):
            train(Y, "mse", x=pd.DataFrame(X[:, :, 0]))
        with pytest.raises(ValueError, match=r"got \(6,\). For one output give y\.to_numpy\(\)\["):
            train(pd.Series(Y[:, 0]), "mse")

    def test_a_pandas_column_of_text_is_refused(self):
        pd = pytest.importorskip("pandas")
        with pytest.raises(TypeError, match="real numbers are required"):
            train(pd.DataFrame({"y": list("abcdef")}), "mse")

    def test_arrays_of_two_libraries_are_named(self):
        torch = pytest.importorskip("torch")
        backend = rx.get_backend("numpy")
        words = "arrays of one library are required, but y is an array of torch and .* on numpy"
        with pytest.raises(TypeError, match=words):
            train(torch.tensor(Y), "mse", backend=backend)
        with pytest.raises(TypeError, match="but mask is an array of torch"):
            train(Y, "mse", mask=torch.ones((6, 3), dtype=torch.bool), backend=backend)
        with pytest.raises(TypeError, match="fit: validation: arrays of one library"):
            train(Y, "mse", validation=(X, torch.tensor(Y)), backend=backend)

    def test_sequences_of_unequal_length_are_to_be_padded(self):
        with pytest.raises(ValueError, match=r"x is a list of sequences of unequal.*lengths="):
            train([[1.0], [2.0]], "mse", x=[[[1.0], [2.0]], [[1.0]]])
        with pytest.raises(ValueError, match="y is a list of sequences of unequal length"):
            train([[1.0], [2.0, 3.0]], "mse")
