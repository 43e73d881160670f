"""The engine's blocks and batches, and the loop around it: chunks, orders, threads, callbacks."""

from __future__ import annotations

import functools
import os
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import TOPOLOGIES

import rnn_xp as rx
from rnn_xp.backend import Backend
from rnn_xp.engines.blocks import Batch, default_block_rows
from rnn_xp.engines.memory import workers_within
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels import make_workspace
from rnn_xp.kernels.rows import on_accelerator
from rnn_xp.losses import cross_entropy, mse
from rnn_xp.network.memory import block_bytes
from rnn_xp.training import loop as training_loop

NET = rx.Network(hidden_size=4)
FLOAT32 = rx.get_backend("numpy", dtype="float32")
FLOAT64 = rx.get_backend("numpy", dtype="float64")


def windows(rows, dtype="float32", seq_length=3):
    series = np.random.default_rng(0).standard_normal(rows + seq_length).astype(dtype)
    return rx.make_windows(series, seq_length)


def fit(rows=23, **options):
    options = {"optimizer": rx.optim.adam(0.01), "epochs": 3, "backend": FLOAT64, **options}
    return rx.fit(NET, *windows(rows), **options)


def make_engine(data, workers=1, net=NET, backend=FLOAT64, **options):
    options = {"loss": mse, "optimizer": rx.optim.adam(0.01), "block_rows": 16, **options}
    return PortableEngine(net=net, backend=backend, data=data, workers=workers, **options)


def bits(value, arrays):
    """Value and arrays by name as one vector, to be compared bit by bit."""
    return np.concatenate([np.ravel(value), *(np.ravel(arrays[name]) for name in sorted(arrays))])


def evaluate(engine, params):
    with engine.running():
        return bits(*engine.value_and_grad(params))


class TestBlocks:
    @pytest.mark.parametrize(
        ("library", "device", "rows", "accelerator"),
        [
            ("numpy", "cpu", 1040, False),
            ("array_api_strict", "device1", 1040, False),
            ("cupy", SimpleNamespace(id=0), 65536, True),
            ("torch", "cpu", 1040, False),
            ("torch", "cuda:0", 65536, True),
            ("torch", "mps", 65536, True),
            ("jax", SimpleNamespace(platform="cpu", id=1), 1040, False),
            ("jax", SimpleNamespace(platform="gpu", id=0), 65536, True),
            ("jax", SimpleNamespace(platform="tpu", id=0), 65536, True),
            ("dpnp", SimpleNamespace(sycl_device=SimpleNamespace(is_cpu=True)), 1040, False),
            ("dpnp", SimpleNamespace(sycl_device=SimpleNamespace(is_cpu=False)), 65536, True),
        ],
    )
    def test_rows_of_a_block_on_each_kind_of_device(self, library, device, rows, accelerator):
        backend = Backend(library, None, device, None)
        assert default_block_rows(backend, 8317, 50) == rows
        assert on_accelerator(backend) is accelerator

    @pytest.mark.parametrize(
        ("rows", "hidden", "expected"),
        [
            (1040, 50, 520),
            (1041, 50, 1040),
            (64, 256, 32),
            (63, 256, 32),
            (62, 256, 1040),  # 31 x 256 numbers are not worth a thread
            (32, 64, 1040),
            (1, 20_000, 1),
        ],
    )
    def test_a_single_block_is_cut_in_two_if_it_is_worth_it(self, rows, hidden, expected):
        assert default_block_rows(FLOAT32, rows, hidden) == expected
        gpu = SimpleNamespace(is_accelerator=True)
        assert default_block_rows(gpu, rows, hidden) == 65536

    @pytest.mark.parametrize(
        ("rows", "steps", "hidden", "expected"),
        [(64, 64, 128, 32), (64, 63, 128, 1040), (62, 1000, 128, 1040), (1041, 1000, 50, 1040)],
    )
    def test_many_steps_are_worth_a_thread(self, rows, steps, hidden, expected):
        assert default_block_rows(FLOAT32, rows, hidden, steps) == expected

    def test_a_single_block_is_computed_without_threads(self, monkeypatch):
        x, y = windows(10)
        engine = PortableEngine(
            net=NET, loss=mse, optimizer=rx.optim.sgd(), backend=FLOAT32, data=Batch(x, y),
            block_rows=10, workers=2,
        )  # fmt: skip
        with engine.running():
            monkeypatch.setattr(engine._pool, "submit", None)
            assert np.isfinite(engine.value_and_grad(NET.init(0, FLOAT32))[0])
            with pytest.raises(TypeError, match="NoneType"):  # as two blocks would
                next(engine._map(str, range(2)))

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_reference_workload_is_summed_as_a_tree(self, workers):
        """To the bit, with threads and without; one after the other gives other bits."""
        x, y = windows(8317)
        params = NET.init(0, FLOAT32)
        engine = PortableEngine(
            net=NET, loss=mse, optimizer=rx.optim.sgd(), backend=FLOAT32, data=Batch(x, y),
            block_rows=default_block_rows(FLOAT32, 8317, 50), workers=workers,
        )  # fmt: skip
        with engine.running():
            value, grads = engine.value_and_grad(params)
        workspace = make_workspace(FLOAT32)
        blocks = [
            NET.value_and_grad(
                params, x[k : k + 1040], y[k : k + 1040], "mse", total=8317.0, workspace=workspace
            )
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


class TestBits:
    PARAMS = NET.init(0, FLOAT64)

    @given(rows=st.integers(1, 300), block_rows=st.integers(1, 400), budget=st.integers(1, 9))
    @settings(max_examples=25, deadline=None)
    def test_neither_workers_nor_memory_change_them(self, rows, block_rows, budget):
        data = Batch(*windows(rows, "float64"), sample_weight=np.linspace(0.5, 2.0, rows))
        height = min(rows, block_rows)
        one = block_bytes(NET, 3, height, 8)
        found = [
            evaluate(make_engine(data, workers, block_rows=block_rows), self.PARAMS)
            for workers in (1, 2, 4, 8, workers_within(budget * one, NET, 3, height, 8, 8))
        ]
        assert all(np.array_equal(found[0], other) for other in found[1:])

    @given(rows=st.integers(2, 300), block_rows=st.integers(1, 400), seed=st.integers(0, 2**32))
    @settings(max_examples=25, deadline=None)
    def test_the_order_of_the_rows_changes_rounding_alone(self, rows, block_rows, seed):
        data = Batch(*windows(rows, "float64"))
        order = np.random.default_rng(seed).permutation(rows)
        found, shuffled = (
            make_engine(batch, block_rows=block_rows).value_and_grad(self.PARAMS)
            for batch in (data, data.take(order, xp=np))
        )
        # What is summed: each row's share of the gradient, here of one row after the other.
        single = [
            NET.value_and_grad(
                self.PARAMS, data.x[k : k + 1], data.y[k : k + 1], mse, total=float(rows)
            )
            for k in range(rows)
        ]
        size = sum(np.abs(bits(*one)) for one in single)
        assert np.all(np.abs(bits(*found) - bits(*shuffled)) <= 1e-13 * np.max(size))

    def test_twenty_epochs_of_the_reference_workload(self):
        """To the bit, whatever the workers and however little memory there is."""
        net, (x, y) = rx.Network(hidden_size=50), windows(8317, seq_length=10)
        one = block_bytes(net, 10, 1040, 4)
        within = [workers_within(k * one, net, 10, 1040, 4, 8) for k in (1, 3, 8)]
        assert within == [1, 3, 8]
        found = {}
        for workers in {1, 2, 4, *within}:
            engine = make_engine(
                Batch(x, y), workers, net, FLOAT32, block_rows=default_block_rows(FLOAT32, 8317, 50)
            )
            params = net.init(0, FLOAT32)
            with engine.running(), threadpoolctl.threadpool_limits(1, user_api="blas"):
                params, _, losses = engine.run(params, engine.optimizer.init(params), 20)
            found[workers] = bits(losses, params)
        assert found[1].dtype == np.float32
        assert all(np.array_equal(found[1], other) for other in found.values())


class TestLossValue:
    @staticmethod
    def problem(topology, rows=50, steps=4, classes=False):
        net = rx.Network(
            **TOPOLOGIES[topology], input_size=2, output_size=2, hidden_size=4, num_layers=2,
            dropout=0.5,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        once, starts = net.topology == "many_to_one", net.topology == "one_to_many"
        x = rng.standard_normal((rows, 1 if starts else steps, 2))
        y = rng.standard_normal((rows, 2) if once else (rows, steps, 2))
        data = Batch(
            x, np.argmax(y, axis=-1) if classes else y,
            sample_weight=rng.random(rows) if once else rng.random((rows, steps)),
            lengths=None if starts else rng.integers(0, steps + 1, rows),
            mask=rng.random((rows, steps)) < 0.8,
            reset=rng.random((rows, steps)) < 0.2,
        )  # fmt: skip
        return net, data

    @pytest.mark.cover("pairs")
    @pytest.mark.parametrize("present", ["nothing", "weight", "lengths", "mask", "reset", "all"])
    @pytest.mark.parametrize("classes", [False, True])
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_is_the_value_of_value_and_grad(self, topology, classes, present):
        net, data = self.problem(topology, classes=classes)
        if present != "all":
            absent = {"sample_weight", "lengths", "mask", "reset"} - {present, f"sample_{present}"}
            data = data._replace(**dict.fromkeys(absent))
        options = {"loss": cross_entropy if classes else mse}
        params = net.init(0, FLOAT64)
        make = functools.partial(make_engine, net=net, **options)
        # The engine's own data, and its dropout, are something else.
        other = data.rows(0, 7)
        engine = make(other, noise=lambda step, block: np.random.default_rng((step, block)))
        value = engine.loss_value(params, data)
        assert engine.evaluations == 0
        assert value.shape == ()
        assert value == make(data).value_and_grad(params)[0]
        whole, _ = net.value_and_grad(
            params, data.x, data.y, options["loss"], data.sample_weight, **data.options
        )
        assert value == pytest.approx(whole, rel=1e-13)

    @pytest.mark.parametrize("workers", [2, 3, 8])
    def test_workers_do_not_change_the_bits(self, workers):
        net, data = self.problem("many-to-many", rows=333)
        params = net.init(0, FLOAT64)
        alone, engine = make_engine(data, net=net), make_engine(data, workers, net)
        with engine.running():
            assert engine.loss_value(params, data) == alone.loss_value(params, data)


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
        monkeypatch.setattr(training_loop, "on_accelerator", lambda backend: request.param)
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
        found = [(epoch.number, epoch.epochs, epoch.loss) for (epoch,) in told]
        assert found[::2] == found[1::2] == expected


class TestWhere:
    def test_host_data_go_to_the_backend_that_is_given(self):
        strict = rx.get_backend("array_api_strict", dtype="float64")
        assert fit(backend=strict).backend is strict

    def test_arrays_of_another_library_stay_where_they_are(self):
        """backend= may name their own library, and never moves them."""
        strict = rx.get_backend("array_api_strict")
        x, y = (strict.asarray(a) for a in windows(23))
        options = {"optimizer": rx.optim.adam(0.01), "epochs": 1}
        assert rx.fit(NET, x, y, backend=strict, **options).backend is strict
        assert rx.fit(NET, x, y, **options).backend.name == "array_api_strict"
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
