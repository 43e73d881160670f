"""The engine that drives the kernels: epochs, optimisers, graphs, `fit` and the command line."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
from cases import BOUND, FLOAT64, Case, distance, doubled, make_engine, portable64
from standin import FakeCupy

import rnn_xp as rx
from rnn_xp._typing import Engine
from rnn_xp.cli import main
from rnn_xp.cli import train as train_command
from rnn_xp.training.watch import DivergenceError

SMALL = Case("tanh", "one-mse", "adam", 130, 4, 7, 1, 1)


def flat(*memories):
    return np.concatenate([np.ravel(array) for memory in memories for array in memory.values()])


@pytest.fixture
def cupy(monkeypatch):
    found = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", found)
    return found


class TestEpochs:
    # Adam divides each gradient by its size, rounding errors of tiny ones too: hence not BOUND.
    TOLERANCE = 2e-5

    @pytest.mark.cover("values")
    @pytest.mark.parametrize("task", ["one-mse", "many-cross_entropy"])
    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    @pytest.mark.parametrize("cell", ["tanh", "relu", "gru", "lstm"])
    def test_equal_the_portable_engine(self, cell, optimizer, task):
        case = Case(cell, task, optimizer, 130, 6, 10, 2, 3)
        params, batch = case.problem()
        engine, right = make_engine(case, FakeCupy(), batch), portable64(case, batch)
        state, state64 = engine.optimizer.init(params), right.optimizer.init(doubled(params))
        after, state, losses = engine.run(params, state, 20)
        after64, state64, losses64 = right.run(doubled(params), state64, 20)
        np.testing.assert_allclose(losses, losses64, rtol=self.TOLERANCE)
        assert losses64[-1] < losses64[0]
        assert distance(after, after64) < self.TOLERANCE
        assert state.step == state64.step == 20
        for slot, memory in state.slots.items():
            assert distance(memory, state64.slots[slot]) < self.TOLERANCE
        assert engine.evaluations == 20

    def test_may_be_cut_anywhere(self):
        params, batch = SMALL.problem()
        engine = make_engine(SMALL, FakeCupy(), batch)
        whole, whole_state, losses = engine.run(params, engine.optimizer.init(params), 7)
        state, parts = engine.optimizer.init(params), []
        for epochs in (3, 1, 3):
            params, state, part = engine.run(params, state, epochs)
            parts.append(part)
        assert np.array_equal(np.concatenate(parts), losses)
        assert np.array_equal(flat(params), flat(whole))
        assert state.step == whole_state.step
        assert np.array_equal(flat(*state.slots.values()), flat(*whole_state.slots.values()))

    @pytest.mark.parametrize("name", ["adam", "sgd"])
    def test_the_rate_follows_a_schedule(self, name):
        case = dataclasses.replace(SMALL, optimizer=name)
        params, batch = case.problem()
        optimizer = case.update_rule()
        optimizer = dataclasses.replace(optimizer, learning_rate=rx.optim.Step(0.01, 3))
        engine = make_engine(case, FakeCupy(), batch, optimizer)
        right = portable64(case, batch, optimizer)
        state, state64 = optimizer.init(params), optimizer.init(doubled(params))
        for epochs in (4, 5):
            params, state, _ = engine.run(params, state, epochs)
        after64, *_ = right.run(doubled(case.problem()[0]), state64, 9)
        assert distance(params, after64) < self.TOLERANCE
        constant = portable64(case, batch)
        other, *_ = constant.run(doubled(case.problem()[0]), state64, 9)
        assert not distance(params, other) < 10 * self.TOLERANCE

    def test_without_a_graph_it_says_so_and_computes_the_same(self):
        params, batch = SMALL.problem()
        engine = make_engine(SMALL, FakeCupy(), batch)
        right, *_ = engine.run(params, engine.optimizer.init(params), 2)
        assert engine.reason == ""
        engine = make_engine(SMALL, FakeCupy(graphs=False), batch)
        with pytest.warns(UserWarning, match="there is no CUDA graph: the stream cannot be captu"):
            found, *_ = engine.run(params, engine.optimizer.init(params), 2)
        assert "no CUDA graph" in engine.reason
        assert np.array_equal(flat(found), flat(right))

    @pytest.mark.cover("values")
    @pytest.mark.parametrize(
        "optimizer",
        [
            rx.optim.lbfgs(),
            rx.optim.adamw(0.01),
            rx.optim.adam(0.01, clip_norm=0.1),
            rx.optim.sgd(rx.optim.Step(0.01, 3), momentum=0.9),
            rx.optim.rmsprop(0.01),
        ],
        ids=lambda optimizer: type(optimizer).__name__,
    )
    @pytest.mark.parametrize(
        ("cell", "task"), [("tanh", "one-mse"), ("gru", "many-cross_entropy"), ("lstm", "many-mse")]
    )
    def test_loss_and_gradient_for_optimisers_without_a_kernel(self, cell, task, optimizer):
        case = Case(cell, task, "adam", 130, 6, 10, 2, 3)
        params, batch = case.problem()
        engine = make_engine(case, FakeCupy(), batch, optimizer)
        right = portable64(case, batch, optimizer)
        value, grads = engine.value_and_grad(params)
        value64, grads64 = right.value_and_grad(doubled(params))
        assert (value.shape, value.dtype) == ((), np.float32)
        assert abs(value / value64 - 1.0) < BOUND
        assert distance(grads, grads64) < BOUND
        assert {name: g.shape for name, g in grads.items()} == case.net.shapes
        engine.value_and_grad({name: 2.0 * p for name, p in params.items()})
        assert distance(grads, grads64) < BOUND  # not a view of what is overwritten
        after, _, losses = engine.run(params, optimizer.init(params), 8)
        right = portable64(case, batch, optimizer)  # which counts anew
        after64, _, losses64 = right.run(doubled(params), optimizer.init(doubled(params)), 8)
        # L-BFGS divides by differences of gradients, and so magnifies what is lost in them.
        tolerance = 5e-3 if isinstance(optimizer, rx.optim.LBFGS) else self.TOLERANCE
        np.testing.assert_allclose(losses, losses64, rtol=tolerance)
        assert distance(after, after64) < tolerance
        assert losses[-1] < losses[0]
        assert engine.evaluations == right.evaluations
        assert engine.portable.evaluations == 0  # each engine counts its own

    def test_it_and_the_portable_engine_are_engines_and_leave_each_other_alone(self):
        case = Case("gru", "one-mse", "adam", 130, 6, 10, 2, 3)
        params, batch = case.problem()
        engine = make_engine(case, FakeCupy(), batch, rx.optim.lbfgs())
        for name in (name for name in vars(Engine) if not name.startswith("_")):
            assert hasattr(engine, name), name
            assert hasattr(engine.portable, name), name
        engine.run(params, engine.optimizer.init(params), 2)
        engine.portable.value_and_grad(params)
        engine.portable.value_and_grad(params)  # remembered
        assert engine.evaluations >= 2
        assert (engine.portable.evaluations, engine.portable.reason) == (1, "")

    def test_a_state_of_another_optimiser_is_refused(self):
        params, batch = SMALL.problem()
        engine = make_engine(SMALL, FakeCupy(), batch)
        with pytest.raises(ValueError, match=r"the state has \[\], but this optimiser remembers"):
            engine.run(params, rx.optim.sgd().init(params), 1)


class TestFit:
    NET = rx.Network(cell="gru", hidden_size=6)

    def fit(self, cupy, epochs=23, **options):
        series = np.sin(np.arange(120.0) / 3.0)
        x, y = rx.make_windows(series, seq_length=5)
        options = {"optimizer": rx.optim.adam(0.01), "backend": cupy.backend, **options}
        return rx.fit(self.NET, x, y, epochs=epochs, **options)

    def test_uses_the_engine(self, cupy):
        result = self.fit(cupy)
        assert (result.engine, result.engine_reason) == ("cuda_fused", "")
        assert result.evaluations == 23
        right = self.fit(cupy, backend=FLOAT64)
        assert (right.engine, right.engine_reason) == ("portable", "")
        losses, losses64 = result.history["loss"], right.history["loss"]
        np.testing.assert_allclose(losses, losses64, rtol=TestEpochs.TOLERANCE)
        assert distance(result.params, right.params) < TestEpochs.TOLERANCE

    def test_lbfgs(self, cupy):
        result, right = (
            self.fit(cupy, optimizer=rx.optim.lbfgs(), backend=backend, epochs=12)
            for backend in (cupy.backend, FLOAT64)
        )
        assert (result.engine, result.engine_reason) == ("cuda_fused", "")
        assert result.evaluations == right.evaluations > 12
        np.testing.assert_allclose(result.history["loss"], right.history["loss"], rtol=1e-2)

    def test_says_why_not(self, cupy):
        result = self.fit(cupy, truncate=(2, 2), epochs=2)
        assert result.engine == "portable"
        assert result.engine_reason == (
            "the fused kernels need the full batch, without truncation and dropout; "
            "CUDA graphs need no truncation"
        )

    def test_goes_on_to_the_same_bits(self, cupy, tmp_path):
        whole = self.fit(cupy)
        checkpoint = rx.callbacks.Checkpoint(tmp_path, every=1)
        self.fit(cupy, epochs=11, callbacks=[checkpoint])
        result = self.fit(cupy, resume=tmp_path)
        assert result.history == whole.history
        assert np.array_equal(flat(result.params), flat(whole.params))
        cupy.cuda.is_available = lambda: False
        with pytest.warns(UserWarning, match="its bits may differ"):
            self.fit(cupy, resume=tmp_path)

    def test_validation_and_patience(self, cupy):
        result = self.fit(cupy, validation=0.2, patience=3, epochs=40)
        assert result.engine == "cuda_fused"
        assert len(result.history["validation_loss"]) == len(result.history["loss"])
        right = self.fit(cupy, backend=FLOAT64, validation=0.2, patience=3, epochs=40)
        found, wanted = (r.history["validation_loss"] for r in (result, right))
        np.testing.assert_allclose(found, wanted, rtol=TestEpochs.TOLERANCE)

    @pytest.mark.filterwarnings("ignore:overflow")
    def test_finds_the_epoch_that_diverged(self, cupy):
        errors = []
        for backend in (cupy.backend, rx.get_backend("numpy", dtype="float32")):
            with pytest.raises(DivergenceError, match="not finite") as caught:
                self.fit(cupy, optimizer=rx.optim.sgd(1e30), backend=backend)
            errors.append(caught.value.epoch)
        assert errors[0] == errors[1]


@pytest.mark.full
def test_the_command_line_says_which_engine(cupy, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(train_command, "get_backend", lambda *a, **k: cupy.backend)
    needs = (
        "the fused kernels need the full batch, without truncation and dropout; CUDA graphs need"
    )
    needs += " kernels, which RNN_XP_KERNELS=portable leaves out"
    for number, (option, kernels, line, reason) in enumerate(
        [
            ([], "", "engine   cuda_fused\n", None),
            (["--batch-size", "99"], "portable", "engine   portable: the fused kernels", needs),
        ]
    ):
        monkeypatch.setenv("RNN_XP_KERNELS", kernels)
        out = tmp_path / str(number)
        command = ["train", "--plain", "--epochs", "1", "--optimizer", "adam"]
        command += ["--hidden-size", "4", *option]
        assert main([*command, "--out", str(out)]) == 0
        assert line in capsys.readouterr().out
        engine = json.loads((out / "metrics.json").read_text())["engine"]
        assert (engine["name"], engine["reason"]) == (line.split()[1].rstrip(":"), reason)
