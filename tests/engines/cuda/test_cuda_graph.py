"""The engine of CUDA graphs on the stand-in: what is captured is what the portable code computes.

A graph of the stand-in repeats launches with the memory of its capture, in which nothing was
computed, so a number that the host had looked at, or kept, would be wrong here.
"""

from __future__ import annotations

from pathlib import Path

import array_api_compat.numpy
import as_cupy
import capturing
import cupy_stand_in
import numpy as np
import pytest
from kernel_problems import CUDA_CELLS as CELLS
from standin import Device

import rnn_xp as rx
from rnn_xp.backend import Backend
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.choice import fastest
from rnn_xp.engines.cuda_graph import SUPPORTED, GraphEngine, unsupported
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.training.plan import Plan

N, T, I = 11, 6, 2  # noqa: E741  the field's letters
ROWS = 4  # of a minibatch; the last of three has 3
FLOAT64 = rx.get_backend("numpy", dtype="float64")
# Adam divides each gradient by its size, rounding errors of tiny ones too.
TOLERANCE = 3e-5


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    as_cupy.install(monkeypatch)
    monkeypatch.setattr(capturing.Stream, "graphs", [])


def backend():
    return Backend("cupy", array_api_compat.numpy, Device("cpu"), np.dtype(np.float32))


def batches(epoch):
    order = np.random.default_rng(epoch).permutation(N)
    return [order[first : first + ROWS] for first in range(0, N, ROWS)]


def problem(net, arrays=(), seed=0):
    rng = np.random.default_rng(seed)
    made = {
        "lengths": rng.permutation(np.arange(N) % T + 1),
        "mask": rng.random((N, T)) < 0.7,
        "reset": rng.random((N, T)) < 0.2,
        "sample_weight": rng.uniform(0.5, 2.0, N).astype("f4"),
    }
    y = (N, T, 1) if net.topology != "many_to_one" else (N, 1)
    inputs = (N, 1, I) if net.topology == "one_to_many" else (N, T, I)
    x, y = (rng.standard_normal(shape).astype("f4") for shape in (inputs, y))
    return Batch(x, y, **{name: made[name] for name in arrays})


def engines(net, data, *, optimizer=None, minibatches=True, loss=rx.losses.mse, noisy=False):
    """The engine of CUDA graphs in float32, and the portable one in float64."""
    options = {
        "net": net, "loss": loss, "optimizer": optimizer or rx.optim.adam(0.01), "block_rows": N,
        "batches": batches if minibatches else None,
        "noise": (lambda step, block: np.random.default_rng(step)) if noisy else None,
    }  # fmt: skip
    single = Batch(*(None if a is None else cupy_stand_in.counted(a.copy()) for a in data))
    double = Batch(*(a.astype("f8") if a is not None and a.dtype == "f4" else a for a in data))
    portable = PortableEngine(backend=backend(), data=single, **options)
    assert not unsupported(portable)
    return GraphEngine(portable), PortableEngine(backend=FLOAT64, data=double, **options)


def start(net, dtype="f4"):
    make = cupy_stand_in.counted if dtype == "f4" else np.asarray
    return {name: make(p.astype(dtype)) for name, p in net.init(0, FLOAT64).items()}


def flat(*memories):
    return np.concatenate([np.ravel(array) for memory in memories for array in memory.values()])


def assert_equal_training(net, data, epochs=3, **options):
    engine, right = engines(net, data, **options)
    params, right_params = start(net), start(net, "f8")
    params, state, losses = engine.run(params, engine.optimizer.init(params), epochs)
    with as_cupy.apart():
        expected, right_state, right_losses = right.run(
            right_params, right.optimizer.init(right_params), epochs
        )
    assert engine.reason == ""
    assert all(graph.launches for graph in capturing.Stream.graphs)
    assert len({*map(float, right_losses)}) == epochs
    np.testing.assert_allclose(losses, right_losses, rtol=TOLERANCE)
    for made, exact in zip(
        (params, *state.slots.values()), (expected, *right_state.slots.values()), strict=True
    ):
        difference = np.linalg.norm(flat(made) - flat(exact)) / np.linalg.norm(flat(exact))
        assert difference < TOLERANCE
    assert (state.step, engine.evaluations) == (right_state.step, right.evaluations)
    return engine


SETTINGS = {  # of the network, and arrays beside
    "plain": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "lengths": {"arrays": ("lengths",)},
    "mask": {"arrays": ("mask",)},
    "reset": {"arrays": ("reset",)},
    "sample_weight": {"arrays": ("sample_weight",)},
    "layer norm": {"layer_norm": True},
    "recurrent dropout": {"recurrent_dropout": 0.3},
    "dropout": {"dropout": 0.3, "num_layers": 2},
    "residual": {"residual": True, "num_layers": 2},
    "mean": {"read": "mean"},
    "max": {"read": "max"},
    "linear lags": {"linear_lags": 3},
    "many to many": {"topology": "many_to_many"},
    "one to many": {"topology": "one_to_many", "feed": "repeat"},
    "all": {
        "arrays": ("lengths", "mask", "reset", "sample_weight"), "layer_norm": True,
        "dropout": 0.3, "recurrent_dropout": 0.3, "residual": True, "num_layers": 2,
        "topology": "many_to_many", "bidirectional": True,
    },
}  # fmt: skip


def made_of(setting, cell="rnn-tanh"):
    options = dict(SETTINGS[setting])
    arrays = options.pop("arrays", ())
    net = rx.Network(input_size=I, hidden_size=5, **CELLS[cell], **options)
    return net, problem(net, arrays), {"noisy": bool(net.dropout or net.recurrent_dropout)}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("minibatches", [True, False], ids=["minibatches", "full batch"])
def test_equals_the_portable_engine(setting, minibatches):
    net, data, options = made_of(setting)
    assert_equal_training(net, data, minibatches=minibatches, **options)


@pytest.mark.parametrize(
    "setting",
    [
        {"read": "mean"},
        {"read": "max"},
        {"linear_lags": 10},
        {"topology": "one_to_many", "feed": "repeat"},
        {"topology": "one_to_many", "feed": "zeros"},
        {"topology": "many_to_many", "bidirectional": True},
    ],
    ids=repr,
)
def test_many_steps(monkeypatch, setting):
    """More than eight arrays are joined by a table that comes from the host."""
    monkeypatch.setitem(globals(), "T", 12)
    net = rx.Network(input_size=I, hidden_size=5, **setting)
    assert_equal_training(net, problem(net))


@pytest.mark.parametrize("cell", CELLS)
def test_wide_layers_step_by_step(cell):
    net = rx.Network(input_size=I, hidden_size=260, **CELLS[cell])
    assert_equal_training(net, problem(net), epochs=2)


@pytest.mark.cover("values")
@pytest.mark.parametrize("setting", ["all", "mean", "linear lags"])
@pytest.mark.parametrize("cell", ["rnn-relu", "gru", "lstm"])
def test_every_cell(cell, setting):
    net, data, options = made_of(setting, cell)
    assert_equal_training(net, data, **options)


@pytest.mark.parametrize(
    "optimizer",
    [
        rx.optim.adamw(0.01, weight_decay=0.1),
        rx.optim.adam(0.01, clip_norm=0.1),
        rx.optim.adam(0.01, clip_value=0.01),
        rx.optim.sgd(rx.optim.Step(0.01, 2), momentum=0.9, nesterov=True),
        rx.optim.adam(rx.optim.Cosine(0.02, 9)),
        rx.optim.rmsprop(0.01),
        rx.optim.adagrad(0.01, weight_decay=0.1, decay_biases=True),
    ],
    ids=repr,
)
def test_every_optimiser_of_first_order(optimizer):
    """Its rates and corrections differ from update to update."""
    net, data, _ = made_of("many to many")
    assert_equal_training(net, data, optimizer=optimizer, epochs=4)


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [("mae", 1), ("huber", 1), ("cross_entropy", 3), ("binary_cross_entropy", 1),
     (rx.losses.Pinball((0.1, 0.9)), 2)],
    ids=repr,
)  # fmt: skip
def test_every_loss(loss, outputs):
    net = rx.Network(input_size=I, hidden_size=5, output_size=outputs)
    data = problem(net)
    rng = np.random.default_rng(1)
    if loss == "cross_entropy":
        y = rng.integers(0, outputs, N)
    else:
        y = np.repeat(data.y > 0.0 if loss == "binary_cross_entropy" else data.y, outputs, axis=1)
    function = rx.losses.resolve_loss(loss, "identity")
    y = y if loss == "cross_entropy" else y.astype("f4")
    assert_equal_training(net, data._replace(y=y), loss=function)


class TestGraphs:
    def test_one_for_each_number_of_rows_launched_once_for_each_update(self):
        net, data, _ = made_of("plain")
        engine, _ = engines(net, data)
        params = start(net)
        params, state, _ = engine.run(params, engine.optimizer.init(params), 2)
        graphs = capturing.Stream.graphs
        assert [graph.launches for graph in graphs] == [4, 2]  # of 4 rows, and of 3
        with cupy_stand_in.launches() as noted:
            engine.run(params, state, 1)
        assert [graph.launches for graph in graphs] == [6, 3]
        of_the_run = len(noted) - 2 * len(graphs[0].work) - len(graphs[1].work)
        assert of_the_run < 40  # what is not in a graph does not grow with the updates

    def test_the_same_bits_kernel_by_kernel_which_is_said(self, monkeypatch):
        net, data, options = made_of("all")
        engine, _ = engines(net, data, **options)
        params = start(net)
        right, *_ = engine.run(params, engine.optimizer.init(params), 2)
        assert engine.reason == ""
        monkeypatch.setattr(capturing.Stream, "refuses", True)
        engine, _ = engines(net, data, **options)
        with pytest.warns(UserWarning, match="there is no CUDA graph: the stream cannot be captu"):
            found, *_ = engine.run(params, engine.optimizer.init(params), 2)
        assert "no CUDA graph" in engine.reason
        assert np.array_equal(flat(found), flat(right))

    @pytest.mark.parametrize("minibatches", [True, False])
    def test_training_may_be_cut_anywhere(self, minibatches):
        net, data, options = made_of("all", "lstm")
        engine, _ = engines(net, data, minibatches=minibatches, **options)
        params = start(net)
        whole, whole_state, losses = engine.run(params, engine.optimizer.init(params), 7)
        before = flat(whole).copy()
        state, parts, first = engine.optimizer.init(params), [], 0
        for epochs in (3, 1, 3):
            params, state, part = engine.run(params, state, epochs, first)
            parts.append(part)
            first += epochs
            assert np.array_equal(flat(whole), before)  # not what is overwritten
        assert np.array_equal(np.concatenate(parts), losses)
        assert np.array_equal(flat(params), before)
        assert state.step == whole_state.step
        assert np.array_equal(flat(*state.slots.values()), flat(*whole_state.slots.values()))

    def test_a_short_minibatch_may_come_first(self, monkeypatch):
        net, data, options = made_of("all")
        monkeypatch.setitem(globals(), "batches", lambda epoch: [np.asarray([4, 0]), np.arange(9)])
        assert_equal_training(net, data, **options)

    def test_more_epochs_than_the_tables_have_room_for(self):
        net, data, _ = made_of("plain")
        assert_equal_training(net, data, epochs=70, minibatches=False)

    def test_a_rule_that_changes_its_operations_has_a_graph_for_each(self):
        net, data, _ = made_of("plain")
        engine = assert_equal_training(net, data, optimizer=Warming(0.01), minibatches=False)
        assert len(engine._launches) == 2


class Warming(type(rx.optim.sgd())):
    """Gradient descent whose first step has another formula."""

    def _rule(self, g, slots, rate, t, *, xp):
        return (rate * g if t > 1 else (0.5 * rate) * g / (1.0 + g * g)), {}


class TestChoice:
    @pytest.mark.parametrize(
        ("net", "options", "needed"),
        [
            ({}, {"backend": FLOAT64}, "the backend cupy"),
            ({}, {"optimizer": rx.optim.lbfgs()}, "one gradient per update"),
            ({}, {"truncate": (2, 2)}, "no truncation"),
            ({}, {"block_budget": 10**6}, "no memory budget"),
            ({}, {"ranks": object()}, "a single rank"),
            ({}, {"block_rows": N - 1}, "at most block_rows rows"),
            ({"cell": "gru", "reset_after": False}, {}, "cells with kernels"),
            ({"topology": "one_to_many", "feed": "feedback", "input_size": 1}, {}, "no feedback"),
            ({"hidden_size": 300, "layer_norm": True}, {}, "up to hidden_size = 128"),
        ],
    )
    def test_what_is_needed(self, net, options, needed):
        net = rx.Network(**{"input_size": I, "hidden_size": 5, **net})
        data = problem(net)
        engine = PortableEngine(**{
            "net": net, "loss": rx.losses.mse, "optimizer": rx.optim.adam(), "block_rows": N,
            "backend": backend(), "data": data, **options,
        })  # fmt: skip
        assert needed in unsupported(engine)
        assert unsupported(engine) in dict(SUPPORTED)
        if engine.backend.name == "cupy":
            chosen = fastest(engine)
            assert chosen.name == "portable"
            assert chosen.reason.endswith(f"CUDA graphs need {unsupported(engine)}")

    def test_the_fused_engine_then_graphs(self):
        net, data, options = made_of("lengths", "gru")
        engine, _ = engines(net, data, **options)
        chosen = fastest(engine.portable)
        assert (chosen.name, chosen.portable) == ("cuda_graph", engine.portable)
        assert chosen.reason.startswith("the fused kernels need ")


def test_the_documentation_has_the_same_table():
    page = (Path(__file__).parents[3] / "docs" / "guide" / "gpu.md").read_text(encoding="utf-8")
    listed = page.partition("becomes a CUDA graph if it has all of this:\n\n- ")[2]
    sentences = listed.partition("\n\n")[0].split("\n- ")
    assert sentences == [sentence for sentence, _ in SUPPORTED]


class TestFit:
    @pytest.fixture(autouse=True)
    def _on_device(self, monkeypatch):
        """Data come to the stand-in's memory, where all that is done with them is noted."""
        enter = Plan.enter

        def entered(self, source):
            data, held_out = enter(self, source)
            return Batch(*(None if a is None else cupy_stand_in.counted(a) for a in data)), held_out

        monkeypatch.setattr(Plan, "enter", entered)

    @staticmethod
    def fit(epochs=6, backend=None, **options):
        net, data, _ = made_of("all", "gru")
        options = {"batch_size": ROWS, "optimizer": rx.optim.adam(0.01), **options}
        arrays = data._asdict()
        x, y = arrays.pop("x"), arrays.pop("y")
        where = backend or globals()["backend"]()
        return rx.fit(net, x, y, epochs=epochs, backend=where, **arrays, **options)

    def test_says_what_it_took_and_why(self):
        result = self.fit()
        assert result.engine == "cuda_graph"
        assert result.engine_reason.startswith("the fused kernels need one layer in one direction")
        with as_cupy.apart():
            right = self.fit(backend=FLOAT64)
        np.testing.assert_allclose(result.history["loss"], right.history["loss"], rtol=TOLERANCE)
        assert result.evaluations == right.evaluations

    def test_goes_on_to_the_same_bits(self, tmp_path):
        whole = self.fit(12)
        self.fit(7, callbacks=[rx.callbacks.Checkpoint(tmp_path, every=1)])
        result = self.fit(12, resume=tmp_path)
        assert result.history == whole.history
        assert np.array_equal(flat(result.params), flat(whole.params))

    def test_validation_and_a_rate_that_watches_it(self):
        rate = rx.optim.ReduceOnPlateau(0.05, patience=1)
        options = {"optimizer": rx.optim.adam(rate), "validation": 0.2, "gap": 0, "epochs": 9}
        result = self.fit(**options)
        with as_cupy.apart():
            right = self.fit(backend=FLOAT64, **options)
        for name in ("loss", "validation_loss"):
            np.testing.assert_allclose(result.history[name], right.history[name], rtol=1e-3)

    @pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
    def test_finds_the_epoch_that_diverged(self):
        with pytest.raises(rx.DivergenceError, match="not finite") as caught:
            self.fit(30, optimizer=rx.optim.sgd(1e30))
        assert caught.value.epoch == 1
