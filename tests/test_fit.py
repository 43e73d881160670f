"""Training: exactness in blocks and workers, golden losses, divergence, and the door's checks."""

from __future__ import annotations

import functools
import json
import operator
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

import rnn_xp as rx
from rnn_xp import trainer
from rnn_xp.callbacks import Progress
from rnn_xp.engines.portable import Batch, PortableEngine, default_block_rows, tree_sum
from rnn_xp.losses import mse

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "tests" / "golden_losses.json").read_text())
NET = rx.Network(input_size=1, hidden_size=8, output_size=1)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


def windows(rows=60, seq_length=5):
    t = np.arange(rows + seq_length, dtype=float)
    return rx.make_windows(np.sin(t / 3.0) + 0.3 * np.cos(t), seq_length)


def engine(x, y, **options):
    data = Batch(x, y, options.pop("sample_weight", None))
    options = {"block_rows": 16, **options}
    return PortableEngine(
        net=NET, loss=mse, optimizer=rx.optim.adam(0.01), backend=FLOAT64, data=data, **options
    )


class TestTreeSum:
    @pytest.mark.parametrize(
        ("leaves", "tree"),
        [
            ("a", "a"),
            ("ab", "(ab)"),
            ("abc", "((ab)c)"),
            ("abcd", "((ab)(cd))"),
            ("abcdefg", "(((ab)(cd))((ef)g))"),
            ("abcdefghi", "((((ab)(cd))((ef)(gh)))i)"),
        ],
    )
    def test_shape_of_the_tree(self, leaves, tree):
        assert tree_sum(leaves, lambda a, b: f"({a}{b})") == tree

    @given(st.lists(st.integers(), min_size=1, max_size=200))
    def test_is_a_sum(self, numbers):
        assert tree_sum(numbers, operator.add) == sum(numbers)

    @given(st.integers(1, 64), st.integers(0, 5))
    def test_aligned_subtrees_do_not_depend_on_what_follows(self, count, height):
        """What lets ranks of a cluster each compute a part."""
        size, join = 2**height, lambda a, b: f"({a}{b})"
        if count >= size:
            first = tree_sum([f"{i}." for i in range(size)], join)
            assert first in tree_sum([f"{i}." for i in range(count)], join)

    def test_holds_few_partial_sums(self):
        alive, most = 0, 0

        def leaves():
            nonlocal alive, most
            for _ in range(1000):
                alive += 1
                most = max(most, alive)
                yield 1

        def add(a, b):
            nonlocal alive
            alive -= 1
            return a + b

        assert tree_sum(leaves(), add) == 1000
        assert most <= 11

    def test_nothing_to_sum(self):
        with pytest.raises(ValueError, match="at least one leaf"):
            tree_sum([], operator.add)


class TestBlocks:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(1, 70), st.integers(1, 80))
    def test_any_block_size_gives_the_gradient_of_the_whole(self, rows, block_rows):
        x, y = windows(rows)
        weight = np.random.default_rng(rows).uniform(0.0, 2.0, rows) + 0.01
        params = NET.init(0, FLOAT64)
        value, grads = engine(x, y, block_rows=block_rows, sample_weight=weight).value_and_grad(
            params
        )
        whole, expected = NET.value_and_grad(params, x, y, "mse", weight)
        assert float(value) == pytest.approx(float(whole), rel=1e-13)
        for name, grad in expected.items():
            np.testing.assert_allclose(grads[name], grad, atol=1e-13 * np.abs(grad).max())

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(st.integers(1, 5000), st.integers(0, 99))
    def test_any_number_of_workers_gives_the_same_bits(self, rows, seed):
        x, y = windows(rows)
        runs = [
            rx.fit(NET, x, y, optimizer=rx.optim.adam(0.01), epochs=2, seed=seed, workers=workers)
            for workers in (1, 2, 4, 8)
        ]
        for run in runs[1:]:
            assert run.history == runs[0].history
            for name, p in runs[0].params.items():
                assert np.array_equal(run.params[name], p)

    def test_reference_workload_has_eight_blocks(self):
        assert -(-8317 // default_block_rows(FLOAT64)) == 8

    def test_line_search_evaluations_are_reused(self):
        """L-BFGS ends on a point it has evaluated: only the first gradient is extra."""
        x, y = windows()
        result = rx.fit(NET, x, y, optimizer=rx.optim.lbfgs(), epochs=20)
        assert 20 < result.evaluations <= 35
        calls = engine(x, y)
        params = NET.init(0, FLOAT64)
        calls.value_and_grad(params)
        calls.value_and_grad(params)
        assert calls.evaluations == 1
        calls.value_and_grad(dict(params))
        assert calls.evaluations == 2

    def test_the_series_is_not_copied(self):
        """A window view of the series feeds the blocks: T times less memory."""
        x, y = windows(1000)
        x = x.astype("float64", copy=False)
        seen = []

        def spy(pred, target, weight=None, total=None):
            return mse(pred, target, weight, total)

        original = rx.Network.value_and_grad

        def value_and_grad(self, params, x, y, *args, **options):
            seen.append(x)
            return original(self, params, x, y, *args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rx.Network, "value_and_grad", value_and_grad)
            rx.fit(NET, x, y, optimizer=rx.optim.sgd(), epochs=1, loss=spy, backend=FLOAT64)
        assert all(np.shares_memory(block, x) for block in seen)


class TestBLASThreads:
    def test_one_throughout_and_restored_even_after_an_error(self):
        def threads():
            return [
                pool["num_threads"]
                for pool in threadpoolctl.threadpool_info()
                if pool["user_api"] == "blas"
            ]

        inside = []

        def look(epoch, epochs, loss):
            inside.append(threads())
            if epoch == 2:
                raise RuntimeError("stop here")

        with threadpoolctl.threadpool_limits(2, user_api="blas"):
            before = threads()
            with pytest.raises(RuntimeError, match="stop here"):
                rx.fit(NET, *windows(), optimizer=rx.optim.sgd(), epochs=5, callbacks=[look])
            assert threads() == before
        assert len(inside) == 2
        assert all(set(found) == {1} for found in inside)


class TestGolden:
    @staticmethod
    @functools.cache
    def losses():
        return runpy.run_path(str(ROOT / "scripts" / "make_golden.py"))["losses"]

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


class TestDivergence:
    def test_keeps_the_last_good_parameters(self):
        x, y = windows()
        net = rx.Network(input_size=1, hidden_size=8, output_size=1, activation="relu")
        with pytest.raises(rx.DivergenceError) as caught:
            rx.fit(net, x, y, optimizer=rx.optim.sgd(1e4), epochs=50)
        error = caught.value
        assert f"the loss is not finite at epoch {error.epoch}" in str(error)
        assert len(error.history["loss"]) == error.epoch - 1
        assert np.isfinite(error.history["loss"]).all()
        assert error.epoch > 1
        good, _ = net.value_and_grad(error.params, x.astype("f4"), y.astype("f4"))
        assert float(good) == pytest.approx(error.history["loss"][-1], rel=1e-5)

    @pytest.mark.parametrize("at", [1, 4, 5])
    def test_a_planted_nan_names_its_epoch(self, at):
        x, y = windows()
        calls = []

        def poisoned(pred, target, weight=None, total=None):
            calls.append(None)
            value, dpred = mse(pred, target, weight, total)
            return (value * np.nan if len(calls) == at else value), dpred

        with pytest.raises(rx.DivergenceError) as caught:
            rx.fit(NET, x, y, optimizer=rx.optim.sgd(0.01), epochs=5, loss=poisoned, workers=1)
        assert caught.value.epoch == at
        assert len(caught.value.history["loss"]) == at - 1

    @pytest.mark.parametrize("epochs", [1, 13, 20])
    def test_parameters_broken_by_the_last_update(self, epochs, monkeypatch):
        """No loss sees them any more; on an accelerator they end a chunk of ten."""
        x, y = windows(8)
        calls = []

        def poisoned(pred, target, weight=None, total=None):
            calls.append(None)
            value, dpred = mse(pred, target, weight, total)
            return value, dpred * (np.nan if len(calls) in breaking else 1.0)

        options = {"optimizer": rx.optim.sgd(0.01), "epochs": epochs, "backend": FLOAT64}
        found = []
        for accelerated in (False, True):
            calls.clear()
            # On an accelerator the last chunk is done again, one by one.
            breaking = {epochs, epochs + (epochs - 1) % 10 + 1} if accelerated else {epochs}
            monkeypatch.setattr(trainer, "on_accelerator", lambda backend, a=accelerated: a)
            with pytest.raises(rx.DivergenceError, match="updated parameters are not") as caught:
                rx.fit(NET, x, y, loss=poisoned, workers=1, **options)
            found.append(caught.value)
        assert found[0].epoch == found[1].epoch == epochs
        assert len(found[0].history["loss"]) == epochs
        good, _ = NET.value_and_grad(found[0].params, x, y)
        assert float(good) == pytest.approx(found[0].history["loss"][-1], rel=1e-13)
        for name, p in found[0].params.items():
            assert np.array_equal(found[1].params[name], p)

    def test_a_broken_gradient_of_a_line_search_is_divergence_too(self):
        x, y = windows()

        def poisoned(pred, target, weight=None, total=None):
            value, dpred = mse(pred, target, weight, total)
            return value, dpred * np.nan

        with pytest.raises(rx.DivergenceError) as caught:
            rx.fit(NET, x, y, optimizer=rx.optim.lbfgs(), epochs=3, loss=poisoned)
        assert caught.value.epoch == 1

    @pytest.mark.parametrize("options", [{"activation": "relu"}, {}, {"read": "max"}])
    def test_a_nan_shows(self, options):
        """relu and max must not take it for an idle unit or a small value."""
        net = rx.Network(hidden_size=4, **options)
        params = net.init(0, FLOAT64)
        params["layer0.w_xh"] = params["layer0.w_xh"] * np.nan
        with np.errstate(invalid="ignore"):
            pred, _ = net.forward(params, np.ones((2, 3, 1)))
        assert np.isnan(pred).all()

    def test_given_parameters_must_be_finite(self):
        params = {k: p * np.nan for k, p in NET.init(0).items()}
        with pytest.raises(ValueError, match="the given params have values that are not finite"):
            rx.fit(NET, *windows(), optimizer=rx.optim.adam(), epochs=1, params=params)

    @pytest.mark.parametrize("at", [1, 5, 10, 11, 12, 21])
    def test_on_an_accelerator_the_chunk_is_replayed_to_find_the_epoch(self, at, monkeypatch):
        """Losses are read every ten epochs there; what is found must be the same."""
        x, y = windows(8)

        def poisoned(pred, target, weight=None, total=None):
            # Gradients that push all predictions up by a step each: the epoch is in the data.
            value = np.mean(pred - target)
            broken = value > threshold
            return (np.asarray(np.nan) if broken else value), -np.ones_like(pred) / pred.size

        options = {"optimizer": rx.optim.sgd(0.01), "epochs": 30, "backend": FLOAT64}
        threshold = np.inf
        losses = rx.fit(NET, x, y, loss=poisoned, **options).history["loss"]
        assert losses == sorted(losses)
        threshold = -np.inf if at == 1 else (losses[at - 2] + losses[at - 1]) / 2
        found, told = [], []
        for accelerated in (False, True):
            monkeypatch.setattr(trainer, "on_accelerator", lambda backend, a=accelerated: a)
            told.append([])
            watch = [lambda epoch, epochs, loss, to=told[-1]: to.append((epoch, loss))]
            with pytest.raises(rx.DivergenceError) as caught:
                rx.fit(NET, x, y, loss=poisoned, callbacks=watch, **options)
            found.append(caught.value)
        assert found[0].epoch == found[1].epoch == at
        assert found[0].history == found[1].history == {"loss": losses[: at - 1]}
        assert told[0] == told[1] == list(enumerate(losses[: at - 1], start=1))
        for name, p in found[0].params.items():
            assert np.array_equal(found[1].params[name], p)


class TestDropout:
    NET = rx.Network(
        hidden_size=8, num_layers=2, dropout=0.5, recurrent_dropout=0.3, cell="gru", output_size=1
    )

    def fit(self, **options):
        x, y = windows(2500)
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 2, **options}
        return rx.fit(self.NET, x, y, **options).history["loss"]

    def test_a_function_of_the_seed_alone(self):
        assert self.fit(workers=1) == self.fit(workers=4)
        assert self.fit(seed=0, batch_size=500) == self.fit(seed=0, batch_size=500)
        assert self.fit(seed=0) != self.fit(seed=1)

    def test_other_masks_in_every_update_and_block(self, monkeypatch):
        drawn = []
        original = rx.Network.value_and_grad

        def value_and_grad(self, *args, rng=None, **options):
            drawn.append(rng.bit_generator.seed_seq.entropy)
            return original(self, *args, rng=rng, **options)

        monkeypatch.setattr(rx.Network, "value_and_grad", value_and_grad)
        self.fit(seed=7, workers=1)
        assert drawn == [(7, step, block) for step in (0, 1) for block in (0, 1, 2)]
        drawn.clear()
        self.fit(seed=7, workers=1, batch_size=1000)
        assert drawn == [(7, step, 0) for step in range(6)]

    def test_masks_keep_the_expectation(self):
        """Where all is positive relu is the identity, and the mean over many draws is exact."""
        net = rx.Network(
            hidden_size=8, num_layers=2, activation="relu", dropout=0.5, recurrent_dropout=0.3
        )
        params = {k: np.abs(p) for k, p in net.init(0, FLOAT64).items()}
        x = np.ones((20_000, 2, 1))
        plain, _ = net.forward(params, x)
        noisy, _, _ = net.vjp(params, x, rng=np.random.default_rng(0))
        assert np.std(noisy) > 0.1 * plain[0, 0]
        assert np.mean(noisy) == pytest.approx(plain[0, 0], rel=0.02)

    def test_recurrent_masks_are_the_same_at_every_step(self):
        """With w_xh zero and h_0 of ones, a unit that is dropped once is dropped for ever."""
        net = rx.Network(hidden_size=50, recurrent_dropout=0.5, output_size=50)
        params = {k: np.zeros(s) for k, s in net.shapes.items()}
        params["layer0.w_hh"] = np.eye(50)
        params["readout.w_hy"] = np.eye(50)
        state = rx.RNNState(np.ones((1, 1, 50)))
        pred, _, _ = net.vjp(params, np.zeros((1, 12, 1)), state, rng=np.random.default_rng(0))
        alive = np.count_nonzero(pred)
        assert 15 <= alive <= 35, "independent masks would leave none of 50 after 12 steps"

    def test_line_search_methods_are_refused(self):
        with pytest.raises(ValueError, match="LBFGS needs the full batch, without truncation or"):
            self.fit(optimizer=rx.optim.lbfgs())


class TestSequences:
    """fit on the other topologies: masks, lengths, classes, truncated backpropagation."""

    @staticmethod
    def echo(rows=40, steps=12, seed=0):
        """Each step's target is the input before it."""
        x = np.random.default_rng(seed).standard_normal((rows, steps, 1))
        y = np.concatenate([np.zeros((rows, 1, 1)), x[:, :-1]], axis=1)
        return x, y

    NET = rx.Network(cell="gru", hidden_size=12, topology="many_to_many")

    def test_many_to_many_learns(self):
        x, y = self.echo()
        result = rx.fit(self.NET, x, y, optimizer=rx.optim.lbfgs(), epochs=60)
        assert result.history["loss"][-1] < 0.02

    def test_lengths_make_padding_invisible(self):
        x, y = self.echo()
        lengths = np.random.default_rng(1).integers(0, 13, 40)
        padded = np.arange(12) >= lengths[:, None]
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 3, "lengths": lengths}
        clean = rx.fit(self.NET, x, y, **options)
        x[padded], y[padded] = 1e3, -1e3
        assert rx.fit(self.NET, x, y, **options).history == clean.history
        by_mask = {**options, "lengths": None, "mask": ~padded}
        assert rx.fit(self.NET, x, y, **by_mask).history == clean.history

    def test_workers_and_minibatches_take_the_masks_along(self):
        x, y = self.echo(rows=3000, steps=4)
        lengths = np.random.default_rng(1).integers(0, 5, 3000)
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 1, "lengths": lengths}
        one = rx.fit(self.NET, x, y, workers=1, **options)
        four = rx.fit(self.NET, x, y, workers=4, **options)
        assert one.history == four.history
        small = rx.fit(
            self.NET, x, y, batch_size=700, backend=FLOAT64, optimizer=rx.optim.sgd(1e-300),
            epochs=1, lengths=lengths,
        )  # fmt: skip
        assert small.history["loss"][0] == pytest.approx(one.history["loss"][0], rel=1e-5)

    def test_classes(self):
        x = np.random.default_rng(0).standard_normal((60, 6, 1))
        y = (x.sum(axis=(1, 2)) > 0).astype(int)
        net = rx.Network(hidden_size=8, output_size=2, read="mean")
        result = rx.fit(net, x, y, loss="cross_entropy", optimizer=rx.optim.lbfgs(), epochs=40)
        assert result.history["loss"][0] == pytest.approx(np.log(2), rel=0.5)
        assert result.history["loss"][-1] < 0.05

    @pytest.mark.parametrize("truncate", [(12, 12), (4, 4), (3, 6), (1, 5)])
    def test_truncated_backpropagation_learns_what_is_within_its_reach(self, truncate):
        x, y = self.echo(rows=20, steps=12)
        result = rx.fit(
            self.NET, x, y, optimizer=rx.optim.adam(0.02), epochs=150, truncate=truncate
        )
        assert result.history["loss"][-1] < 0.1

    def test_one_segment_equals_the_full_batch(self):
        x, y = self.echo()
        options = {"optimizer": rx.optim.sgd(0.1), "epochs": 3, "backend": FLOAT64}
        whole = rx.fit(self.NET, x, y, **options)
        one = rx.fit(self.NET, x, y, truncate=(12, 12), **options)
        np.testing.assert_allclose(one.history["loss"], whole.history["loss"], rtol=1e-13)
        for name, p in whole.params.items():
            np.testing.assert_allclose(one.params[name], p, rtol=1e-12, atol=1e-14)

    def test_losses_of_segments_are_those_of_the_steps(self):
        """With a step too small to matter the epoch's loss is that of the full batch."""
        x, y = self.echo()
        mask = np.random.default_rng(5).random((40, 12)) > 0.3
        loss = {}
        for truncate in (None, (4, 4), (5, 7), (1, 12)):
            result = rx.fit(
                self.NET, x, y, optimizer=rx.optim.sgd(1e-300), epochs=1, truncate=truncate,
                mask=mask, backend=FLOAT64,
            )  # fmt: skip
            loss[truncate] = result.history["loss"][0]
        assert list(loss.values()) == pytest.approx([loss[None]] * 4, rel=1e-12)

    def test_truncated_runs_are_the_same_for_any_number_of_workers(self):
        x, y = self.echo(rows=2500, steps=6)
        runs = [
            rx.fit(
                self.NET, x, y, optimizer=rx.optim.adam(0.01), epochs=2, truncate=(2, 3), workers=w
            ).history
            for w in (1, 4)
        ]
        assert runs[0] == runs[1]

    @pytest.mark.parametrize("feed", ["zeros", "repeat", "feedback"])
    @pytest.mark.parametrize("truncate", [None, (3, 4)])
    def test_one_to_many(self, feed, truncate):
        x = np.linspace(-1.0, 1.0, 30)[:, None, None]
        y = x * 0.7 ** np.arange(1, 7)[None, :, None]
        net = rx.Network(cell="gru", hidden_size=10, topology="one_to_many", feed=feed)
        result = rx.fit(net, x, y, optimizer=rx.optim.adam(0.02), epochs=150, truncate=truncate)
        assert result.history["loss"][-1] < 0.05 * result.history["loss"][0]
        pred, _ = net.forward(result.params, x.astype("float32"), steps=6)
        assert pred.shape == (30, 6, 1)

    def test_many_to_one_truncated_reaches_back_k2_steps(self):
        x, y = windows(30, seq_length=6)
        options = {"optimizer": rx.optim.sgd(0.1), "epochs": 1, "backend": FLOAT64}
        start = NET.init(0, FLOAT64)
        result = rx.fit(NET, x, y, truncate=(1, 2), params=start, **options)
        _, state = NET.forward(start, x[:, :4])
        _, grads, _ = NET.segment_value_and_grad(start, x[:, 4:], y, state=state)
        for name, p in start.items():
            np.testing.assert_allclose(result.params[name], p - 0.1 * grads[name], rtol=1e-12)

    def test_reset_separates_what_was_joined(self):
        """Two sequences end to end in one row train like two rows."""
        x, y = self.echo(rows=10, steps=6)
        joined = {"x": x.reshape(5, 12, 1), "y": y.reshape(5, 12, 1)}
        reset = np.zeros((5, 12), dtype=bool)
        reset[:, 6] = True
        options = {"optimizer": rx.optim.sgd(0.1), "epochs": 3, "backend": FLOAT64}
        apart = rx.fit(self.NET, x, y, **options)
        together = rx.fit(self.NET, **joined, reset=reset, **options)
        np.testing.assert_allclose(together.history["loss"], apart.history["loss"], rtol=1e-12)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"batch_size": 0}, ValueError, r"batch_size must be an integer in 1..60 \(N\).*got 0"),
            ({"batch_size": 61}, ValueError, r"in 1..60 \(N\), or None for the full batch, got 61"),
            ({"batch_size": 2.5}, TypeError, "got 2.5"),
            ({"batch_size": True}, ValueError, "got True"),
            ({"epochs": 0}, ValueError, "epochs must be an integer >= 1, got 0"),
            ({"epochs": 1.5}, TypeError, "epochs must be an integer >= 1, got 1.5"),
            ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
            ({"seed": None}, TypeError, "seed must be an integer >= 0, got None"),
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
            ({"sample_weight": np.zeros(60)}, ValueError, "at least one weight > 0"),
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


class TestProgress:
    def test_prints_a_line_now_and_then(self, capsys):
        with Progress(lines=3) as progress:
            for epoch in range(1, 10):
                progress(epoch, 9, 0.5)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split()[1] for line in lines] == ["3/9", "6/9", "9/9"]

    def test_a_bar_on_a_terminal(self, capsys, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        with warnings.catch_warnings(), Progress() as progress:
            for epoch in range(1, 4):
                progress(epoch, 3, 0.5)
        err = capsys.readouterr().err
        assert "3/3" in err
        assert "loss=0.5" in err
