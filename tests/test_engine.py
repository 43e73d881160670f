"""The engine's blocks and batches, and the loop around it: chunks, orders, threads, callbacks."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

import rnn_xp as rx
from rnn_xp import trainer
from rnn_xp.engines.portable import Batch, PortableEngine, default_block_rows, on_accelerator
from rnn_xp.losses import mse

NET = rx.Network(hidden_size=4)
FLOAT32 = rx.get_backend("numpy", dtype="float32")
FLOAT64 = rx.get_backend("numpy", dtype="float64")


def windows(rows, dtype="float32", seq_length=3):
    series = np.random.default_rng(0).standard_normal(rows + seq_length).astype(dtype)
    return rx.make_windows(series, seq_length)


def fit(rows=23, **options):
    options = {"optimizer": rx.optim.adam(0.01), "epochs": 3, "backend": FLOAT64, **options}
    return rx.fit(NET, *windows(rows), **options)


class TestBlocks:
    @pytest.mark.parametrize(
        ("device", "rows", "accelerator"),
        [
            ("cpu", 1040, False),
            ("CPU_DEVICE", 1040, False),
            ("device1", 1040, False),
            ("cuda:0", 65536, True),
            ("gpu:0", 65536, True),
            ("tpu:0", 65536, True),
            ("mps", 65536, True),
        ],
    )
    def test_rows_of_a_block_on_each_kind_of_device(self, device, rows, accelerator):
        backend = SimpleNamespace(device_name=device)
        assert default_block_rows(backend) == rows
        assert on_accelerator(backend) is accelerator

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_reference_workload_is_summed_as_a_tree(self, workers):
        """To the bit, with threads and without; one after the other gives other bits."""
        x, y = windows(8317)
        params = NET.init(0, FLOAT32)
        engine = PortableEngine(
            net=NET, loss=mse, optimizer=rx.optim.sgd(), backend=FLOAT32, data=Batch(x, y),
            block_rows=default_block_rows(FLOAT32), workers=workers,
        )  # fmt: skip
        with engine.running():
            value, grads = engine.value_and_grad(params)
        blocks = [
            NET.value_and_grad(params, x[k : k + 1040], y[k : k + 1040], "mse", total=8317.0)
            for k in range(0, 8317, 1040)
        ]
        assert len(blocks) == 8
        leaves = [np.concatenate([[v], *map(np.ravel, g.values())]) for v, g in blocks]
        a, b, c, d, e, f, g, h = leaves
        found = np.concatenate([[value], *map(np.ravel, grads.values())])
        tree = ((a + b) + (c + d)) + ((e + f) + (g + h))
        assert found.dtype == tree.dtype == np.float32
        assert np.array_equal(found, tree)
        assert not np.array_equal(tree, ((((((a + b) + c) + d) + e) + f) + g) + h)


class TestBatch:
    BATCH = Batch(
        x=np.arange(24.0).reshape(4, 3, 2),
        y=np.arange(12.0).reshape(4, 3, 1),
        sample_weight=np.arange(12.0).reshape(4, 3),
        mask=np.arange(12).reshape(4, 3) % 2 == 0,
    )

    def test_rows_end_where_the_data_end(self):
        for stop in (4, 5, 100):
            part = self.BATCH.rows(3, stop)
            assert part.x.shape == (1, 3, 2)
            assert np.shares_memory(part.x, self.BATCH.x)
            assert np.array_equal(part.y, self.BATCH.y[3:])
            assert np.array_equal(part.mask, self.BATCH.mask[3:])
            assert (part.lengths, part.reset) == (None, None)
        assert np.array_equal(self.BATCH.rows(1, 3).sample_weight, self.BATCH.sample_weight[1:3])

    def test_take_keeps_what_is_absent(self):
        index = np.asarray([2, 0])
        part = self.BATCH.take(index, xp=np)
        assert (part.lengths, part.reset) == (None, None)
        for name in ("x", "y", "sample_weight", "mask"):
            assert np.array_equal(getattr(part, name), getattr(self.BATCH, name)[index])

    @pytest.mark.parametrize(
        ("topology", "cut_x", "cut_y"),
        [
            ("many_to_many", True, True),
            ("many_to_one", True, False),
            ("one_to_many", False, True),
        ],
    )
    def test_steps_cuts_what_has_steps(self, topology, cut_x, cut_y):
        whole = self.BATCH._replace(reset=~self.BATCH.mask)
        part = whole.steps(1, 3, topology)
        assert np.array_equal(part.x, whole.x[:, 1:3] if cut_x else whole.x)
        assert np.array_equal(part.y, whole.y[:, 1:3] if cut_y else whole.y)
        for name in ("sample_weight", "mask", "reset"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[:, 1:3])
        by_row = whole._replace(sample_weight=np.ones(4), mask=None).steps(1, 3, topology)
        assert np.array_equal(by_row.sample_weight, np.ones(4))
        assert by_row.mask is None


class TestMinibatches:
    @staticmethod
    def orders(seed, lr=0.01):
        """The order in which each of two epochs sees the rows, from the same parameters."""
        seen = []

        def spy(pred, target, weight=None, total=None):
            seen.extend(target[:, 0].tolist())
            return mse(pred, target, weight, total)

        fit(
            loss=spy, epochs=2, batch_size=5, seed=seed, workers=1, params=NET.init(0, FLOAT64),
            optimizer=rx.optim.sgd(lr),
        )  # fmt: skip
        return [tuple(seen[:23]), tuple(seen[23:])]

    def test_their_order_is_a_function_of_seed_and_epoch(self):
        # (4, 1) and (5, 0) have one sum; (0, epoch) is no seed at all.
        found = {seed: self.orders(seed) for seed in (0, 4, 5)}
        assert len({order for orders in found.values() for order in orders}) == 6
        assert len({tuple(sorted(order)) for orders in found.values() for order in orders}) == 1
        assert self.orders(4, lr=0.5) == found[4]

    @pytest.mark.parametrize("optimizer", [rx.optim.sgd(0.1), rx.optim.adam(0.01)])
    def test_one_whose_weights_are_all_zero_counts_for_nothing(self, optimizer):
        weight = np.zeros(23)
        weight[:2] = 1.0  # at least three of five batches have none
        losses = fit(batch_size=5, sample_weight=weight, optimizer=optimizer).history["loss"]
        assert len(losses) == 3
        assert np.isfinite(losses).all()
        assert losses[0] > 0.0
        small = {"optimizer": rx.optim.sgd(1e-300), "sample_weight": weight, "epochs": 1}
        assert fit(batch_size=5, **small).history["loss"] == pytest.approx(
            fit(**small).history["loss"], rel=1e-13
        )


class TestLoop:
    @pytest.fixture(params=[False, True], ids=["cpu", "accelerator"])
    def accelerated(self, request, monkeypatch):
        monkeypatch.setattr(trainer, "on_accelerator", lambda backend: request.param)
        return request.param

    @pytest.mark.parametrize(
        ("optimizer", "epochs", "chunks"),
        [
            (rx.optim.adam(0.01), 3, [3]),
            (rx.optim.adam(0.01), 25, [10, 10, 5]),
            (rx.optim.lbfgs(), 3, [1, 1, 1]),  # its line search reads the losses anyway
        ],
        ids=["adam-3", "adam-25", "lbfgs-3"],
    )
    def test_reads_of_the_losses(self, optimizer, epochs, chunks, accelerated, monkeypatch):
        found, original = [], PortableEngine.run

        def run(self, params, opt_state, epochs, first_epoch=0):
            found.append((first_epoch, epochs))
            return original(self, params, opt_state, epochs, first_epoch)

        monkeypatch.setattr(PortableEngine, "run", run)
        result = fit(optimizer=optimizer, epochs=epochs)
        assert len(result.history["loss"]) == epochs
        assert result.stopped == ""
        chunks = chunks if accelerated else [1] * epochs
        assert found == [(sum(chunks[:k]), size) for k, size in enumerate(chunks)]

    def test_stops_when_the_optimiser_says_so(self, accelerated):
        result = fit(optimizer=rx.optim.lbfgs(tolerance=1e9), epochs=5)
        assert len(result.history["loss"]) == 1
        assert "within the tolerance" in result.stopped

    def test_callbacks_are_told_epoch_epochs_and_loss(self, accelerated):
        told = []
        result = fit(epochs=12, callbacks=[lambda *given: told.append(given)] * 2)
        expected = [(k, 12, loss) for k, loss in enumerate(result.history["loss"], start=1)]
        assert told[::2] == told[1::2] == expected


class TestWhere:
    def test_host_data_go_to_the_backend_that_is_given(self):
        strict = rx.get_backend("array_api_strict", dtype="float64")
        assert fit(backend=strict).backend is strict

    def test_arrays_of_another_library_stay_where_they_are(self):
        """backend= may name their own library, and never moves them."""
        jax = rx.get_backend("jax")
        x, y = (jax.asarray(a) for a in windows(23))
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 1}
        assert rx.fit(NET, x, y, backend=jax, **options).backend is jax
        assert rx.fit(NET, x, y, **options).backend.name == "jax"
        with pytest.raises(TypeError, match="librar"):
            rx.fit(NET, x, y, backend=FLOAT32, **options)

    def test_threads_on_numpy_alone(self):
        strict = rx.get_backend("array_api_strict", dtype="float64")
        for workers in (None, 3):
            assert fit(backend=strict, workers=workers).workers == 1
        assert fit(workers=3).workers == 3

    @pytest.mark.parametrize(("count", "workers"), [(5, 5), (None, 1)])
    def test_all_cores_by_default(self, count, workers, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 7}, raising=False)
        assert fit().workers == 3
        monkeypatch.delattr(os, "sched_getaffinity")
        monkeypatch.setattr(os, "cpu_count", lambda: count)
        assert fit().workers == workers
