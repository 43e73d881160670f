"""The engine of CUDA graphs at its edges: odd data, losses, optimisers, and no memory left."""

from __future__ import annotations

import as_cupy
import capturing
import cupy_stand_in
import numpy as np
import pytest
import test_cuda_graph as graphs
from test_cuda_graph import I, N, T, assert_equal_training, engines, made_of, problem, start

import rnn_xp as rx
from rnn_xp.engines.choice import fastest
from rnn_xp.engines.cuda_stream import OwnStream, lasting_pool
from rnn_xp.optim.first_order import FirstOrder

BOTH = pytest.mark.parametrize("minibatches", [True, False], ids=["minibatches", "full batch"])


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    as_cupy.install(monkeypatch)
    monkeypatch.setattr(capturing.Stream, "graphs", [])


def net_of(**options):
    return rx.Network(**{"input_size": I, "hidden_size": 5, **options})


def assert_equal(found, right):
    assert found.keys() == right.keys()
    assert all(np.array_equal(found[name], right[name]) for name in right)


class TestData:
    @BOTH
    @pytest.mark.parametrize("read", ["last", "mean", "max"])
    @pytest.mark.parametrize("lengths", [[T] * N, [1] * N, ([0, T] * N)[:N]], ids=["T", "1", "0 T"])
    def test_lengths(self, read, lengths, minibatches):
        net = net_of(read=read)
        data = problem(net)._replace(lengths=np.asarray(lengths))
        assert_equal_training(net, data, minibatches=minibatches)

    @BOTH
    def test_weights_of_zero(self, minibatches):
        """Also for all rows of the first minibatch."""
        net, weights = net_of(), np.ones(N, dtype="f4")
        for rows in (slice(0, None, 2), graphs.batches(0)[0]):
            weights[rows] = 0.0
            data = problem(net)._replace(sample_weight=weights)
            assert_equal_training(net, data, minibatches=minibatches)

    @BOTH
    @pytest.mark.parametrize("arrays", [(), ("lengths",), ("mask",), ("lengths", "mask", "reset")])
    def test_weights_of_steps(self, arrays, minibatches):
        net = net_of(topology="many_to_many")
        weights = np.random.default_rng(0).random((N, T)).astype("f4")
        data = problem(net, arrays)._replace(sample_weight=weights)
        assert_equal_training(net, data, minibatches=minibatches)

    @pytest.mark.parametrize("dtype", ["i1", "i8"])
    @pytest.mark.parametrize("arrays", [(), ("lengths",), ("mask", "sample_weight")])
    def test_classes_of_every_step(self, arrays, dtype):
        net = net_of(topology="many_to_many", output_size=3)
        classes = np.random.default_rng(1).integers(0, 3, (N, T)).astype(dtype)
        data = problem(net, arrays)._replace(y=classes)
        assert_equal_training(net, data, loss=rx.losses.cross_entropy)

    @BOTH
    @pytest.mark.parametrize("setting", ["plain", "max", "linear lags", "one to many", "all"])
    def test_one_row(self, monkeypatch, setting, minibatches):
        monkeypatch.setattr(graphs, "N", 1)
        monkeypatch.setattr(graphs, "batches", lambda epoch: [np.zeros(1, dtype="i8")])
        net, data, options = made_of(setting)
        assert_equal_training(net, data, minibatches=minibatches, **options)

    @pytest.mark.parametrize("setting", ["plain", "max", "one to many", "all"])
    def test_one_step(self, monkeypatch, setting):
        monkeypatch.setattr(graphs, "T", 1)
        net, data, options = made_of(setting)
        assert_equal_training(net, data, **options)


def scaled(scale, *args):
    value, dpred = rx.losses.mse(*args)
    return value * scale, dpred * scale


class TestLosses:
    @staticmethod
    def in_float64(pred, target, weight=None, total=None):
        value, dpred = rx.losses.mse(pred, target, weight, total)
        return value.astype("f8"), dpred.astype("f8")

    @staticmethod
    def as_number(pred, target, weight=None, total=None):
        value, dpred = rx.losses.mse(pred, target, weight, total)
        return float(value), dpred

    @staticmethod
    def branches(pred, target, weight=None, total=None):
        value, dpred = rx.losses.mse(pred, target, weight, total)
        return (value if value < 1e9 else 2.0 * value), dpred

    def test_precision(self):
        """A kernel takes whatever it is given for float32."""
        net = net_of(num_layers=2)
        assert_equal_training(net, problem(net), loss=self.in_float64)

    @pytest.mark.parametrize("loss", ["as_number", "branches"])
    def test_one_that_the_host_reads(self, loss):
        net, data, options = made_of("all")
        results = []
        for given in (rx.losses.mse, getattr(self, loss)):
            engine, _ = engines(net, data, loss=given, **options)
            params = start(net)
            if given is rx.losses.mse:
                results.append(engine.run(params, engine.optimizer.init(params), 2))
                continue
            with pytest.warns(UserWarning, match="kernel by kernel.*a read by the host"):
                results.append(engine.run(params, engine.optimizer.init(params), 2))
        (right, _, losses), (found, _, found_losses) = results
        assert_equal(found, right)
        assert np.array_equal(found_losses, losses)

    def test_a_number_of_its_own_on_the_device(self):
        """A graph reads what is there at each launch."""
        scale = cupy_stand_in.counted(np.ones((), dtype="f4"))
        net, data, _ = made_of("plain")
        engine, _ = engines(net, data, loss=lambda *args: scaled(scale, *args))
        found = []
        for factor in (1.0, 0.0):
            scale[...] = factor
            params = start(net)
            found.append(engine.run(params, engine.optimizer.init(params), 1)[2])
        assert found[0] > 0.0
        assert found[1] == 0.0


class Long(type(rx.optim.sgd())):
    """Gradient descent with more numbers than the tables hold at first, in a single step."""

    def _rule(self, g, slots, rate, t, *, xp):
        for _ in range(70 if t == 5 else 1):
            g = g * 1.0001
        return rate * g, {}


class Turning(type(rx.optim.sgd())):
    """Gradient descent with two formulas, whose texts have the same length."""

    def _rule(self, g, slots, rate, t, *, xp):
        return (rate * g if t % 2 else g / (90.0 + t)), {}


class Own(FirstOrder):
    """Slots in another order than in the rule, one of them untouched."""

    def _slots(self):
        return {"a": 1.0, "b": 0.0, "c": 0.5}

    def _rule(self, g, slots, rate, t, *, xp):
        a = slots["a"] * 0.9 + 0.1 * g * g
        step = rate * g / (xp.sqrt(a) + 1e-3)
        return step, {"c": slots["c"], "a": a, "b": slots["b"] + t}


class TestOptimisers:
    @BOTH
    @pytest.mark.parametrize(
        "optimizer",
        [Long(0.01), Turning(0.01), Own(0.01, weight_decay=0.1, clip_norm=0.1, clip_value=0.2)],
        ids=["long", "turning", "own"],
    )
    def test_rules_of_the_user(self, optimizer, minibatches):
        net, data, _ = made_of("plain")
        assert_equal_training(net, data, optimizer=optimizer, minibatches=minibatches)

    def test_numbers_come_from_tables_in_a_graph_alone(self):
        net, data, _ = made_of("plain")
        engine, _ = engines(net, data)
        params = start(net)
        state, update = engine.optimizer.init(params), engine.optimizer.update
        right, _ = update(params, state, params)
        engine.run(params, state, 1)
        assert_equal(update(params, state, params)[0], right)

    def test_wider_tables_between_two_runs(self):
        """Graphs that were captured before would read those from before."""
        net, data, _ = made_of("plain")
        whole, parts = (engines(net, data, optimizer=Long(0.01))[0] for _ in range(2))
        now = params, state = start(net), whole.optimizer.init(start(net))
        right, *_ = whole.run(params, state, 4)
        for epoch in range(4):
            now = parts.run(*now, 1, epoch)[:2]
        assert_equal(now[0], right)

    def test_a_state_in_another_order(self):
        """As tools give it back that sort the keys of dicts."""
        net, data, _ = made_of("plain")
        engine, _ = engines(net, data)
        params = start(net)
        params, state, _ = engine.run(params, engine.optimizer.init(params), 2)
        right, right_state, _ = engine.run(params, state, 2, 2)
        turned = state._replace(slots=dict(reversed(state.slots.items())))
        params = dict(reversed(params.items()))
        for other in (engine, engines(net, data)[0]):
            found, found_state, _ = other.run(params, turned, 2, 2)
            assert_equal(found, right)
            for slot in state.slots:
                assert_equal(found_state.slots[slot], right_state.slots[slot])

    def test_two_engines_in_turns(self):
        net, data, options = made_of("all")
        whole, *both = (engines(net, data, **options)[0] for _ in range(3))
        params = start(net)
        state = whole.optimizer.init(params)
        right, *_ = whole.run(params, state, 3)
        now = [(params, state)] * 2
        for epoch in range(3):
            now = [engine.run(*at, 1, epoch)[:2] for engine, at in zip(both, now, strict=True)]
        for found, _ in now:
            assert_equal(found, right)


class TestMemory:
    @pytest.fixture(autouse=True)
    def _full(self, monkeypatch):
        monkeypatch.setattr(capturing.Memory, "left", 100)
        monkeypatch.setattr(capturing, "default_pool", capturing.Pool())

    def test_of_others_is_free_for_a_graph(self):
        capturing.default_pool.free = 100
        lasting_pool().malloc(150)
        assert capturing.Memory.left == 50
        with pytest.raises(MemoryError, match="Out of memory"):
            lasting_pool().malloc(51)

    def test_that_runs_out_in_a_capture_ends_it(self):
        """The free blocks of the pool are those that what is captured will write to."""
        pool, sizes = lasting_pool(), iter([10, 200, 10])
        pool.free = capturing.default_pool.free = 1000
        stream = OwnStream()
        with stream.working():
            made = stream.repeatable(lambda: pool.malloc(next(sizes)))
            made.launch()
        assert "no CUDA graph: Out of memory" in made.reason
        assert (pool.free, capturing.default_pool.free) == (1000, 1000)


def test_without_kernels_there_is_no_graph(monkeypatch):
    net, data, _ = made_of("plain")
    portable = engines(net, data)[0].portable
    monkeypatch.setenv("RNN_XP_KERNELS", "portable")
    chosen = fastest(portable)
    assert chosen.name == "portable"
    assert chosen.reason.endswith("which RNN_XP_KERNELS=portable leaves out")
