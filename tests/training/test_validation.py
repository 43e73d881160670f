"""Validation on the last block of time, early stopping, and keeping the best."""

from __future__ import annotations

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp.training.watch import Watch

NET = rx.Network(hidden_size=6)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


def windows(rows=100, seq_length=5, seed=0):
    noise = np.random.default_rng(seed).standard_normal(rows + seq_length)
    return rx.make_windows(np.sin(np.arange(rows + seq_length) / 3.0) + 0.3 * noise, seq_length)


def fit(x, y, **options):
    options = {"optimizer": rx.optim.adam(0.05), "epochs": 12, "backend": FLOAT64, **options}
    return rx.fit(NET, x, y, **options)


class TestSplit:
    def test_is_the_last_rows_after_a_gap(self):
        """100 rows: 20 to validate on, 5 + 1 - 1 dropped, 75 to train on."""
        x, y = windows()
        shared = fit(x, y, validation=0.2)
        apart = fit(x[:75], y[:75], validation=(x[80:], y[80:]))
        plain = fit(x[:75], y[:75])
        assert shared.history == apart.history
        assert shared.history["loss"] == plain.history["loss"]
        for name, p in plain.params.items():
            assert np.array_equal(shared.params[name], p)

    def test_no_value_is_on_both_sides_of_the_default_gap(self):
        series = np.arange(60.0)
        net, seen = rx.Network(hidden_size=3, output_size=4), []

        def spy(pred, target, weight=None, total=None):
            seen.append(target)
            return rx.losses.mse(pred, target, weight, total)

        x, y = rx.make_windows(series, 7, horizon=4)
        rx.fit(
            net, x, y, optimizer=rx.optim.sgd(1e-9), epochs=1, loss=spy, validation=0.25,
            backend=FLOAT64, workers=1,
        )  # fmt: skip
        trained, validated = seen
        first_input = x[len(x) - len(validated), 0, 0]
        assert trained.max() + 1 == first_input
        assert len(validated) == round(0.25 * len(x))

    def test_the_default_gap_of_one_to_many_is_as_long_as_what_follows(self):
        """Each row's window of the series is its first value and the T - 1 after it."""
        series, seen = np.arange(60.0), []
        net = rx.Network(hidden_size=3, topology="one_to_many")

        def spy(pred, target, weight=None, total=None):
            seen.append(target)
            return rx.losses.mse(pred, target, weight, total)

        windows = np.lib.stride_tricks.sliding_window_view(series, 6)
        x, y = windows[:, :1, None], windows[:, 1:, None]
        rx.fit(
            net, x, y, optimizer=rx.optim.sgd(1e-9), epochs=1, loss=spy, validation=0.25,
            backend=FLOAT64, workers=1,
        )  # fmt: skip
        trained, validated = seen
        assert trained.max() < x[len(x) - len(validated), 0, 0]

    def test_classes_are_no_steps_ahead(self):
        net = rx.Network(hidden_size=4, output_size=30)
        x, y = np.zeros((90, 5, 1)), np.zeros(90, dtype=int)
        found = rx.fit(
            net, x, y, loss="cross_entropy", optimizer=rx.optim.adam(), epochs=1, validation=0.2
        )
        assert found.state.run["rows"] == 90 - 18 - 5

    def test_gap_of_your_own(self):
        x, y = windows()
        assert (
            fit(x, y, validation=0.2, gap=0).history
            == fit(x[:80], y[:80], validation=(x[80:], y[80:])).history
        )

    def test_never_shuffled_whatever_the_batches(self):
        x, y = windows()
        found = fit(x, y, validation=0.2, batch_size=10, epochs=3)
        apart = fit(x[:75], y[:75], validation=(x[80:], y[80:]), batch_size=10, epochs=3)
        assert found.history == apart.history

    def test_weights_masks_and_lengths_go_along(self):
        rng = np.random.default_rng(1)
        net = rx.Network(hidden_size=4, topology="many_to_many")
        x = rng.standard_normal((40, 6, 1))
        data = {
            "x": x,
            "y": np.cumsum(x, axis=1),
            "sample_weight": rng.uniform(0.5, 2.0, (40, 6)),
            "lengths": rng.integers(1, 7, 40),
            "mask": rng.random((40, 6)) > 0.2,
            "reset": rng.random((40, 6)) > 0.8,
        }
        options = {"optimizer": rx.optim.adam(0.05), "epochs": 4, "backend": FLOAT64}
        shared = rx.fit(net, **data, validation=0.25, **options)
        last = {name: array[30:] for name, array in data.items()}
        first = {name: array[:24] for name, array in data.items()}
        apart = rx.fit(net, **first, validation=last, **options)
        assert shared.history == apart.history
        done, _ = net.value_and_grad(
            shared.params, last["x"], last["y"], "mse", last["sample_weight"],
            lengths=last["lengths"], mask=last["mask"], reset=last["reset"],
        )  # fmt: skip
        assert shared.history["validation_loss"][-1] == pytest.approx(float(done), rel=1e-13)


class TestLoss:
    def test_k_is_that_of_the_parameters_epoch_k_left(self):
        x, y = windows()
        for epochs in (1, 4):
            found = fit(x, y, validation=0.2, epochs=epochs)
            value, _ = NET.value_and_grad(found.params, x[80:], y[80:])
            assert found.history["validation_loss"][-1] == pytest.approx(float(value), rel=1e-13)
            assert len(found.history["validation_loss"]) == epochs

    def test_without_dropout(self):
        net = rx.Network(hidden_size=6, recurrent_dropout=0.5)
        x, y = windows()
        found = rx.fit(
            net, x, y, optimizer=rx.optim.adam(0.05), epochs=3, validation=0.2, backend=FLOAT64
        )
        pred, _ = net.forward(found.params, x[80:])
        expected = float(np.mean((pred - y[80:]) ** 2))
        assert found.history["validation_loss"][-1] == pytest.approx(expected, rel=1e-13)

    def test_classes_and_steps_out_of_one(self):
        x = np.random.default_rng(0).standard_normal((60, 6, 1))
        y = (x.sum(axis=(1, 2)) > 0).astype(int)
        net = rx.Network(hidden_size=8, output_size=2)
        options = {"optimizer": rx.optim.adam(0.05), "epochs": 2, "validation": 0.2}
        found = rx.fit(net, x, y, loss="cross_entropy", **options)
        assert found.history["validation_loss"][0] == pytest.approx(np.log(2), rel=0.3)
        net = rx.Network(hidden_size=4, topology="one_to_many")
        starts = np.linspace(-1.0, 1.0, 30)[:, None, None]
        found = rx.fit(net, starts, np.repeat(starts, 5, axis=1), **options)
        assert np.isfinite(found.history["validation_loss"]).all()

    @pytest.mark.full("jax")
    def test_on_every_backend(self, case):
        x, y = windows(40)
        found = rx.fit(
            NET, case.array(x), case.array(y), optimizer=rx.optim.adam(0.05), epochs=3,
            validation=0.25, backend=case.backend,
        )  # fmt: skip
        rtol = 1e-9 if case.dtype_name == "float64" else 1e-4
        expected = fit(x, y, validation=0.25, epochs=3).history
        for name, column in found.history.items():
            np.testing.assert_allclose(column, expected[name], rtol=rtol)
        assert found.best_params.keys() == NET.shapes.keys()


class TestBest:
    def test_is_the_lowest_and_params_are_the_last(self):
        x, y = windows()
        found = fit(x, y, validation=0.2, epochs=60)
        losses = found.history["validation_loss"]
        assert found.best_epoch == int(np.argmin(losses)) + 1 < 60
        best, _ = NET.value_and_grad(found.best_params, x[80:], y[80:])
        last, _ = NET.value_and_grad(found.params, x[80:], y[80:])
        assert float(best) == pytest.approx(min(losses), rel=1e-13)
        assert float(last) == pytest.approx(losses[-1], rel=1e-13)
        assert float(last) > float(best)

    def test_without_validation_there_is_none(self):
        found = fit(*windows(), epochs=2)
        assert (found.best_params, found.best_epoch) == (None, None)
        assert found.history.keys() == {"loss"}


class TestPatience:
    def test_ends_so_many_epochs_after_the_best(self):
        found = fit(*windows(), validation=0.2, patience=3, epochs=500)
        losses = found.history["validation_loss"]
        assert len(losses) == found.best_epoch + 3 < 500
        assert found.stopped == (
            f"no lower validation loss than {min(losses):.6g} of epoch {found.best_epoch} in 3 "
            "epochs"
        )

    def test_of_the_loss_itself_where_there_is_no_validation(self):
        """A plateau: steps too small to change anything."""
        found = fit(*windows(), optimizer=rx.optim.sgd(1e-300), patience=4, epochs=50)
        assert len(found.history["loss"]) == 5
        assert found.stopped.startswith("no lower loss than")
        assert "of epoch 1 in 4 epochs" in found.stopped

    def test_tolerance_is_a_share(self):
        x, y = windows()
        slow = {"optimizer": rx.optim.sgd(1e-3), "patience": 5, "epochs": 40}
        assert fit(x, y, **slow).stopped == ""
        assert len(fit(x, y, tolerance=0.5, **slow).history["loss"]) == 6

    @pytest.mark.parametrize(
        ("losses", "patience", "tolerance", "ends"),
        [
            ([3, 2, 1, 1, 1], 2, 0.0, 5),
            ([3, 2, 1, 1, 0.9, 0.9, 0.9], 2, 0.0, 7),
            ([1, 2, 3], 2, 0.0, 3),
            ([1, 0.95, 0.92, 0.91], 3, 0.1, 4),
            ([1, 0.95, 0.89, 0.88], 3, 0.1, None),
            ([-1, -1.05, -1.09], 2, 0.1, 3),  # of a negative loss too, lower is better
            ([-1, -1.05, -1.2, -1.2], 2, 0.1, None),
            ([0, 0, 0], 2, 0.0, 3),
        ],
    )
    def test_when(self, losses, patience, tolerance, ends):
        watch = Watch(patience, tolerance)
        at = None
        for epoch, loss in enumerate(losses, start=1):
            watch.see(99.0, loss)
            if watch.exhausted("loss") and at is None:
                at = epoch
        assert at == ends


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"validation": 0.0}, ValueError, r"validation must be a share in \(0, 1\), got 0.0"),
            ({"validation": 1.5}, ValueError, "got 1.5"),
            ({"validation": 0.96}, ValueError, "of 100 rows, .* takes 96 and the gap 5, .* none"),
            ({"validation": 0.2, "gap": 80}, ValueError, "takes 20 and the gap 80"),
            ({"validation": 0.2, "gap": -1}, ValueError, "gap must be an integer >= 0, got -1"),
            ({"gap": 3}, ValueError, r"gap= goes with a share of the rows"),
            ({"validation": 20}, TypeError, r"must be a share .* a pair .*; got int"),
            ({"validation": {"x": 1}}, TypeError, r"or a mapping .*; got \['x'\]"),
            ({"validation": {"x": 1, "y": 1, "z": 1}}, TypeError, r"got \['x', 'y', 'z'\]"),
            (
                {"validation": (np.zeros((3, 5)), np.zeros((3, 1)))},
                ValueError,
                "fit: validation: x must have shape",
            ),
            (
                {"validation": (np.full((3, 5, 1), np.nan), np.zeros((3, 1)))},
                ValueError,
                "fit: validation: x has values that are not finite",
            ),
            ({"patience": 0}, ValueError, "patience must be an integer >= 1, got 0"),
            ({"tolerance": -0.1}, ValueError, r"tolerance must be in \[0, 1\)"),
            ({"tolerance": float("nan")}, ValueError, r"tolerance must be in \[0, 1\)"),
            (
                {"validation": 0.2, "sample_weight": np.arange(100) < 50.0},
                ValueError,
                "nothing counts in the validation rows",
            ),
            (
                {"validation": 0.2, "sample_weight": np.arange(100) >= 80.0},
                ValueError,
                "nothing counts in the training rows",
            ),
            ({"validation": 0.2, "batch_size": 76}, ValueError, r"in 1..75 \(N\)"),
        ],
    )
    def test_message(self, change, error, message):
        with pytest.raises(error, match=message):
            fit(*windows(), **change)


def test_a_validation_in_which_nothing_counts():
    net = rx.Network(hidden_size=4, topology="many_to_many")
    x = np.zeros((40, 5, 1))
    with pytest.raises(ValueError, match="nothing counts in the validation"):
        rx.fit(
            net, x, x, lengths=np.where(np.arange(40) < 20, 5, 0), validation=0.25,
            optimizer=rx.optim.adam(), epochs=1,
        )  # fmt: skip


def test_a_validation_loss_that_is_not_finite_is_divergence():
    x, y = windows()
    bad = y[80:].copy()
    bad[0] = 1e300  # finite, but its square is not
    with pytest.raises(rx.DivergenceError, match="the validation loss is not finite at epoch 1"):
        fit(x[:75], y[:75], validation=(x[80:], bad))
