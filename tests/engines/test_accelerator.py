"""What a GPU asks of the portable code, shown without one.

No read by the host within an epoch (array-api-strict's ``device1`` and the guard stand in), matrix
products that CuPy passes on as they are, float32 throughout, and a known number of launches.
"""

from __future__ import annotations

import array_api_compat.numpy as compat
import as_cupy
import cupy_stand_in
import numpy as np
import pytest
from guard import HostSyncError, no_host_sync
from optimizers import OPTIMIZERS
from problems import CELLS, OPTIONS, TOPOLOGIES, Problem, excluded

import rnn_xp as rx
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.training import loop as training_loop

DEVICE1 = rx.get_backend("array_api_strict", device="device1", dtype="float32")
LOSSES = {
    "mse": "mse",
    "mae": "mae",
    "huber": "huber",
    "pinball": rx.losses.Pinball((0.1, 0.9)),
    "cross_entropy": "cross_entropy",
    "binary_cross_entropy": "binary_cross_entropy",
}


def make_engine(backend, net, x, y, loss="mse", optimizer=None, **options):
    data = {name: backend.asarray(a) for name, a in {"x": x, "y": y, **options}.items() if name in
            Batch._fields}  # fmt: skip
    options = {name: value for name, value in options.items() if name not in Batch._fields}
    function = rx.losses.resolve_loss(loss, net.output_activation)
    return PortableEngine(
        net=net, loss=function, optimizer=optimizer or rx.optim.adam(0.01), backend=backend,
        data=Batch(**data), **{"block_rows": 100, **options},
    )  # fmt: skip


def train_unseen(net, x, y, **options):
    """Two epochs on a device whose arrays the host may not read, in float32 to the end."""
    engine = make_engine(DEVICE1, net, x, y, **options)
    params = net.init(0, DEVICE1)
    with no_host_sync():
        params, state, losses = engine.run(params, engine.optimizer.init(params), 2)
    arrays, _ = engine.optimizer.pack(state)
    for array in (losses, *params.values(), *arrays.values()):
        assert array.dtype == DEVICE1.dtype
    assert np.isfinite(DEVICE1.to_numpy(losses)).all()


class TestNoReadByTheHost:
    @staticmethod
    def data(net, rows=7, steps=5, classes=False):
        rng = np.random.default_rng(0)
        lead = (rows,) if net.topology == "many_to_one" else (rows, steps)
        x = rng.standard_normal((rows, 1 if net.topology == "one_to_many" else steps, 2))
        y = rng.uniform(0.0, 1.0, (*lead, 2))
        return x, np.argmax(y, axis=-1) if classes else y

    @pytest.mark.cover("pairs")
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("option", ["plain", "two-layers-bidirectional", "layer-norm"])
    def test_by_any_network(self, cell, topology, option):
        if excluded(topology, option):
            option = "two-layers"
        options = CELLS[cell] | TOPOLOGIES[topology] | OPTIONS[option][0]
        net = rx.Network(input_size=2, hidden_size=4, output_size=2, **options)
        train_unseen(net, *self.data(net))

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("topology", ["many-to-one", "many-to-many"])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_by_any_loss(self, loss, topology, weighted):
        net = rx.Network(input_size=2, hidden_size=4, output_size=2, **TOPOLOGIES[topology])
        x, y = self.data(net, classes=loss == "cross_entropy")
        weight = {"sample_weight": np.linspace(0.0, 1.0, 7)} if weighted else {}
        train_unseen(net, x, y, loss=LOSSES[loss], **weight)

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_by_any_optimiser(self, name):
        net = rx.Network(input_size=2, hidden_size=4, output_size=2)
        train_unseen(net, *self.data(net), optimizer=OPTIMIZERS[name])

    @pytest.mark.parametrize(
        "options",
        [
            {"lengths": np.arange(7) % 6},
            {"mask": np.arange(35).reshape(7, 5) % 3 > 0},
            {"reset": np.arange(35).reshape(7, 5) % 4 == 0},
            {"block_rows": 2},
            {"batches": lambda epoch: [np.arange(4), np.arange(4, 7)]},
            {"truncate": (2, 3)},
            {"noise": lambda step, block: np.random.default_rng((step, block))},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_by_any_way_to_train(self, options):
        net = rx.Network(
            input_size=2, hidden_size=4, output_size=2, topology="many_to_many", num_layers=2,
            dropout=0.3, recurrent_dropout=0.3,
        )  # fmt: skip
        train_unseen(net, *self.data(net), **options)

    def test_a_read_would_be_seen(self):
        def loss(pred, target, weight=None, total=None):
            value, dpred = rx.losses.mse(pred, target, weight, total)
            return value * (1.0 if float(value) > 0.0 else 0.0), dpred

        net = rx.Network(input_size=2, hidden_size=4, output_size=2)
        with pytest.raises(HostSyncError, match="__float__"):
            train_unseen(net, *self.data(net), loss=loss)

    def test_losses_are_fetched_every_tenth_epoch(self, monkeypatch):
        monkeypatch.setattr(training_loop, "on_accelerator", lambda backend: True)
        net = rx.Network(input_size=2, hidden_size=4, output_size=2)
        found = {}
        for epochs in (10, 20, 40):
            with no_host_sync(allow=1000) as reads:
                rx.fit(
                    net, *self.data(net), optimizer=rx.optim.adam(0.01), epochs=epochs,
                    backend=DEVICE1,
                )  # fmt: skip
            found[epochs] = len(reads)
        once = found[20] - found[10]
        assert once > 0
        assert found[40] - found[20] == 2 * once


class TestMatrixProducts:
    @pytest.fixture
    def products(self, monkeypatch):
        """What enters the products of the portable code."""
        seen, matmul = [], compat.matmul

        def spy(a, b, **options):
            seen.append((a, b))
            return matmul(a, b, **options)

        monkeypatch.setattr(compat, "matmul", spy)
        return seen

    @pytest.mark.cover("pairs")
    @pytest.mark.parametrize("option", OPTIONS)
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    @pytest.mark.parametrize("cell", CELLS)
    def test_are_two_dimensional_and_of_contiguous_operands(self, products, cell, topology, option):
        """A stack of matrices is a batched product with kernels of its own to prepare it, and an
        operand that is a block of columns is copied on every call.
        """
        if excluded(topology, option):
            return
        network, call = OPTIONS[option]
        problem = Problem(**CELLS[cell], **TOPOLOGIES[topology], **network, with_=call)
        problem.net.value_and_grad(
            problem.params, problem.x, problem.y, sample_weight=problem.weight,
            **problem.options(steps=False),
        )  # fmt: skip
        assert len(products) > 5
        for operand in (operand for pair in products for operand in pair):
            assert operand.ndim == 2
            assert operand.flags.c_contiguous or operand.flags.f_contiguous, operand.strides


class TestLaunches:
    """Of an epoch, T = 10, many to one, mean squared error, Adam; counted on a stand-in."""

    @staticmethod
    def of_an_epoch(cell, kernels, rows=6, steps=10):
        counted = cupy_stand_in.counted
        net = rx.Network(hidden_size=5, **CELLS[cell])
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((rows, steps, 1)), rng.standard_normal((rows, 1))
        backend = rx.get_backend("numpy", dtype="float64")
        engine = make_engine(backend, net, x, y)
        engine.data = Batch(*(counted(a) for a in engine.data[:2]))
        workspace = cupy_stand_in.load("cupy").Workspace("float64") if kernels else None
        engine._workspaces = [workspace]
        params = {name: counted(p) for name, p in net.init(0, backend).items()}
        state = engine.optimizer.init(params)
        params, state, _ = engine.run(params, state, 1)  # buffers are made
        with cupy_stand_in.launches() as noted:
            engine.run(params, state, 1)
        return noted

    @pytest.mark.parametrize(
        ("cell", "portable", "kernels"),
        [
            ("rnn-tanh", 160, 58),
            ("rnn-relu", 180, 58),
            ("gru", 537, 59),
            ("lstm", 561, 59),
        ],
    )
    def test_number(self, monkeypatch, cell, portable, kernels):
        assert len(self.of_an_epoch(cell, kernels=False)) == portable
        as_cupy.install(monkeypatch)
        assert len(self.of_an_epoch(cell, kernels=True)) == kernels
