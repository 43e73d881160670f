"""Training: golden losses, what fit makes of its arguments, and the door's checks."""

from __future__ import annotations

import functools
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from problems import windows

import rnn_xp as rx
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import mse

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden_losses.json").read_text())
NET = rx.Network(input_size=1, hidden_size=8, output_size=1)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


class TestGolden:
    @staticmethod
    @functools.cache
    def losses():
        return runpy.run_path(str(ROOT / "scripts" / "make_golden.py"))["losses"]

    @pytest.mark.full("jax")
    @pytest.mark.cover("values")
    @pytest.mark.parametrize("name", GOLDEN["losses"])
    def test_losses(self, name, case):
        """Ten literal losses from a fixed seed, on every backend.

        float64 to 1e-9. float32 rounding is amplified epoch by epoch; 1e-3 over ten is what
        Adam and a line search leave of it.
        """
        rtol = 1e-9 if case.dtype_name == "float64" else 1e-3
        found = self.losses()(*name.split("-"), case.backend)
        assert len(found) == 10
        np.testing.assert_allclose(found, GOLDEN["losses"][name], rtol=rtol)


class TestFit:
    def test_learns_a_sine(self):
        x, y = windows(200)
        result = rx.fit(NET, x, y, optimizer=rx.optim.lbfgs(), epochs=100)
        assert result.history["loss"][-1] < 1e-4
        pred, _ = NET.forward(result.params, x.astype("float32"))
        assert np.abs(pred - y).max() < 0.05

    def test_loss_k_is_the_loss_before_update_k(self):
        x, y = windows()
        start = NET.init(3, FLOAT64)
        result = rx.fit(
            NET, x, y, optimizer=rx.optim.sgd(0.1), epochs=3, params=start, backend=FLOAT64
        )
        first, _ = NET.value_and_grad(start, x, y)
        assert result.history["loss"][0] == pytest.approx(float(first), rel=1e-13)
        last, _ = NET.value_and_grad(result.params, x, y)
        assert float(last) < result.history["loss"][2]

    def test_full_batch_by_number_is_the_full_batch(self):
        x, y = windows()
        runs = [
            rx.fit(NET, x, y, optimizer=rx.optim.adam(0.01), epochs=3, batch_size=b)
            for b in (None, len(x))
        ]
        assert runs[0].history == runs[1].history

    def test_minibatches_see_every_row_once_and_repeat_by_seed(self):
        x, y = windows(53)
        seen = []

        def spy(pred, target, weight=None, total=None):
            seen.append(np.asarray(target)[:, 0])
            return mse(pred, target, weight, total)

        options = {"optimizer": rx.optim.sgd(0.01), "epochs": 2, "batch_size": 10}
        one = rx.fit(NET, x, y, loss=spy, workers=1, seed=4, backend=FLOAT64, **options)
        assert [len(t) for t in seen] == [10, 10, 10, 10, 10, 3] * 2
        for epoch in (seen[:6], seen[6:]):
            assert np.array_equal(np.sort(np.concatenate(epoch)), np.sort(y[:, 0]))
        assert not np.array_equal(seen[0], seen[6]), "another order in every epoch"
        again = rx.fit(NET, x, y, seed=4, backend=FLOAT64, **options)
        other = rx.fit(NET, x, y, seed=5, backend=FLOAT64, **options)
        assert one.history == again.history != other.history

    def test_epoch_loss_of_minibatches_weights_the_short_batch_right(self):
        """With a step too small to matter it must equal the full batch's loss."""
        x, y = windows(53)
        weight = np.linspace(0.0, 1.0, 53)
        loss = {}
        for batch_size in (None, 10):
            result = rx.fit(
                NET, x, y, optimizer=rx.optim.sgd(1e-300), epochs=1, batch_size=batch_size,
                sample_weight=weight, backend=FLOAT64,
            )  # fmt: skip
            loss[batch_size] = result.history["loss"][0]
        assert loss[10] == pytest.approx(loss[None], rel=1e-13)

    def test_a_weight_of_zero_is_as_good_as_absent(self):
        x, y = windows(40)
        weight = np.ones(40)
        weight[25:] = 0.0
        options = {"optimizer": rx.optim.sgd(0.1), "epochs": 4, "backend": FLOAT64}
        weighted = rx.fit(NET, x, y, sample_weight=weight, **options)
        shorter = rx.fit(NET, x[:25], y[:25], **options)
        np.testing.assert_allclose(weighted.history["loss"], shorter.history["loss"], rtol=1e-12)

    @pytest.mark.full("jax")
    @pytest.mark.cover("values")
    def test_arrays_of_another_library_stay_there(self, case):
        x, y = windows(20)
        result = rx.fit(NET, case.array(x), case.array(y), optimizer=rx.optim.adam(0.01), epochs=2)
        if case.backend.name == "numpy":  # host data: the selected backend decides
            assert str(result.backend) == str(rx.get_backend())
        else:
            assert str(result.backend) == str(case.backend)
            expected = rx.fit(NET, x, y, optimizer=rx.optim.adam(0.01), epochs=2, backend=FLOAT64)
            for name, p in expected.params.items():
                case.assert_close(result.params[name], p, rtol=10 * case.tolerance)

    def test_host_data_go_to_the_selected_backend(self, monkeypatch):
        x, y = windows(20)
        monkeypatch.setenv("RNN_XP_BACKEND", "array_api_strict")
        monkeypatch.setenv("RNN_XP_DTYPE", "float64")
        result = rx.fit(NET, x, y, optimizer=rx.optim.adam(0.01), epochs=1)
        assert str(result.backend).startswith("array_api_strict")
        assert "array_api_strict" in type(result.params["layer0.b_h"]).__module__

    def test_nothing_given_is_changed(self):
        x, y = windows(20)
        start = NET.init(0)
        before = {k: p.copy() for k, p in start.items()}
        rx.fit(NET, x, y, optimizer=rx.optim.adam(0.1), epochs=3, params=start)
        for name, p in before.items():
            assert np.array_equal(start[name], p)

    @pytest.mark.full("jax")
    @pytest.mark.cover("values")
    def test_no_host_read_within_an_epoch(self, case):
        """Of first-order training: losses are read by the trainer, never by the engine."""
        x, y = windows(40)
        run = PortableEngine(
            net=NET, loss=mse, optimizer=rx.optim.adam(0.01), backend=case.backend,
            data=Batch(case.array(x), case.array(y)), block_rows=16,
        )  # fmt: skip
        params = NET.init(0, case.backend)
        with case.guard():
            _, _, losses = run.run(params, run.optimizer.init(params), 3)
        assert losses.shape == (3,)


@pytest.mark.torch
def test_gradients_that_torch_records_stay_outside():
    """Else every epoch would be added to the graph of x, y or the initial parameters."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, y = (torch.tensor(array) for array in windows(20))
    params = NET.init(0, rx.get_backend("torch", dtype="float64"))
    options = {"optimizer": rx.optim.adam(0.01), "epochs": 3, "validation": (x, y)}
    right = rx.fit(NET, x, y, params=params, **options)
    recorded = {name: p.clone().requires_grad_() for name, p in params.items()}
    data = [array.clone().requires_grad_() for array in (x, y)]
    options["validation"] = tuple(data)
    weight = torch.ones(20, dtype=x.dtype, requires_grad=True)
    result = rx.fit(NET, *data, sample_weight=weight, params=recorded, **options)
    assert result.history == right.history
    for tensor in (*result.params.values(), *result.best_params.values()):
        assert not tensor.requires_grad
    for slot in result.state.opt_state.slots.values():
        assert not any(tensor.requires_grad for tensor in slot.values())
    assert all(tensor.requires_grad for tensor in (*data, *recorded.values()))


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"batch_size": 0}, ValueError, r"batch_size must be an integer in 1..60 \(N\).*got 0"),
            ({"batch_size": 61}, ValueError, r"in 1..60 \(N\), or None for the full batch, got 61"),
            ({"batch_size": 2.5}, TypeError, "got 2.5"),
            ({"batch_size": True}, TypeError, "got True"),
            ({"epochs": 0}, ValueError, "epochs must be an integer >= 1, got 0"),
            ({"epochs": np.True_}, TypeError, "epochs must be an integer >= 1, got np.True_"),
            ({"epochs": 1.5}, TypeError, "epochs must be an integer >= 1, got 1.5"),
            ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
            ({"seed": None}, TypeError, "seed must be an integer >= 0, got None"),
            ({"memory_budget": 0}, ValueError, "memory_budget must be an integer >= 1, got 0"),
            ({"block_rows": 0}, ValueError, "block_rows must be an integer >= 1, got 0"),
            ({"workers": 0}, ValueError, "workers must be an integer >= 1, got 0"),
            ({"workers": 1.5}, TypeError, "workers must be an integer >= 1, got 1.5"),
            ({"optimizer": "lbfgs"}, TypeError, "must be an object such as rnn_xp.optim.adam"),
            ({"optimizer": rx.optim.LBFGS}, TypeError, "must be an object such as rnn_xp.optim"),
            ({"backend": "numpy"}, TypeError, "what rnn_xp.get_backend returns, got 'numpy'"),
            ({"y": np.zeros(60)}, ValueError, r"y must have shape \(60, 1\).*y\[..., None\]"),
            ({"y": np.zeros((59, 1))}, ValueError, r"y must have shape \(60, 1\).*got \(59, 1\)"),
            ({"y": np.zeros((60, 5, 1))}, ValueError, r"\(60, 1\) for many_to_one, got \(60, 5"),
            (
                {"x": np.zeros((60, 5))},
                ValueError,
                r"x must have shape \(N, T, I\).*\[:, :, None\]",
            ),
            ({"x": np.full((60, 5, 1), np.nan)}, ValueError, "x has values that are not finite"),
            ({"y": np.full((60, 1), np.inf)}, ValueError, "y has values that are not finite"),
            ({"sample_weight": np.ones((60, 1))}, ValueError, r"must have shape \(60,\)"),
            ({"sample_weight": -np.ones(60)}, ValueError, "sample_weight must be >= 0"),
            ({"sample_weight": np.zeros(60)}, ValueError, "nothing counts in the training rows"),
            ({"lengths": np.full(60, 6)}, ValueError, r"lengths\[0\] is 6, but .* is 0..5"),
            ({"lengths": np.full(60, -1)}, ValueError, r"lengths\[0\] is -1, but .* is 0..5"),
            ({"lengths": np.full(60, 2.0)}, TypeError, "lengths must be integers, got float"),
            ({"lengths": np.full((60, 1), 2)}, ValueError, r"lengths must have shape \(60,\)"),
            ({"mask": np.ones((60, 4), dtype=bool)}, ValueError, r"mask must have shape \(60, 5\)"),
            ({"mask": np.ones((60, 5))}, TypeError, "mask must be bool, got float"),
            ({"reset": np.ones((5, 60), dtype=bool)}, ValueError, r"reset must have shape \(60, 5"),
            ({"loss": "cross_entropy"}, ValueError, r"class indices of shape \(60,\)"),
            (
                {"loss": "cross_entropy", "y": np.full(60, 1)},
                ValueError,
                r"y\[0\] is 1, but a class of the network's outputs is 0..0",
            ),
            ({"truncate": (2, 1)}, ValueError, "1 <= k1 <= k2"),
            ({"truncate": (2, 2), "batch_size": 10}, ValueError, "truncate= goes with the full"),
            (
                {"optimizer": rx.optim.lbfgs(), "batch_size": 10},
                ValueError,
                "LBFGS needs the full batch.*or use rnn_xp.optim.adam",
            ),
            ({"optimizer": rx.optim.lbfgs(), "truncate": (2, 2)}, ValueError, "LBFGS needs the"),
        ],
    )
    def test_message(self, change, error, message):
        x, y = windows()
        arguments = {"x": x, "y": y, "optimizer": rx.optim.adam(), "epochs": 1, **change}
        with pytest.raises(error, match=message):
            rx.fit(NET, **arguments)

    def test_numpy_integers_and_whole_numbers_as_data_are_fine(self):
        x, y = windows(20)
        result = rx.fit(
            NET, np.ones_like(x, dtype=int), np.ones_like(y, dtype=int), epochs=np.int64(2),
            optimizer=rx.optim.adam(), batch_size=np.int32(7), seed=np.uint8(3),
        )  # fmt: skip
        assert result.params["layer0.b_h"].dtype == np.float32

    def test_classes_that_do_not_count_may_hold_anything(self):
        net = rx.Network(hidden_size=4, output_size=3, topology="many_to_many")
        x, y = np.zeros((2, 4, 1)), np.full((2, 4), 2)
        y[1, 2:] = -1
        options = {"loss": "cross_entropy", "optimizer": rx.optim.adam(), "epochs": 1}
        with pytest.raises(ValueError, match=r"y\[1, 2\] is -1, but a class .* is 0..2"):
            rx.fit(net, x, y, **options)
        for hidden in (
            {"lengths": np.asarray([4, 2])},
            {"mask": y >= 0},
            {"sample_weight": (y >= 0).astype(float)},
        ):
            assert np.isfinite(rx.fit(net, x, y, **hidden, **options).history["loss"]).all()
