"""The engine of CUDA graphs on the stand-in: what is captured is what the portable code computes.

A graph of the stand-in repeats launches with the memory of its capture, in which nothing was
computed, so a number that the host had looked at, or kept, would be wrong here.
"""

from __future__ import annotations

import array_api_compat.numpy
import capturing
import cupy_stand_in
import numpy as np
import pytest
from kernel_problems import CELLS
from standin import Device

import rnn_xp as rx
from rnn_xp.backend import Backend
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.choice import fastest
from rnn_xp.engines.cuda_graph import SUPPORTED, GraphEngine, unsupported
from rnn_xp.engines.portable import PortableEngine

N, T, I = 11, 6, 2  # noqa: E741  the field's letters
ROWS = 4  # of a minibatch; the last of three has 3
FLOAT64 = rx.get_backend("numpy", dtype="float64")
# Adam divides each gradient by its size, rounding errors of tiny ones too.
TOLERANCE = 3e-5


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    cupy_stand_in.install(monkeypatch)
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
