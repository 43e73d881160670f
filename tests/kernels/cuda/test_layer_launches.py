"""How many launches a whole training step has, with each option and any number of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import as_cupy
import cupy_stand_in
import numpy as np
import pytest
from kernel_problems import CUDA_CELLS as CELLS
from layer_cases import KERNELS, build, through_kernels

import rnn_xp as rx
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine

N, T = 6, 9
ADAM = rx.optim.adam(0.01)

SETTINGS: dict[str, dict[str, Any]] = {  # of the network and the update, and arrays beside
    "plain": {},
    "lengths": {"arrays": ("lengths",)},
    "mask": {"arrays": ("mask",)},
    "reset": {"arrays": ("reset",)},
    "sample_weight": {"arrays": ("sample_weight",)},
    "layer norm": {"layer_norm": True},
    "recurrent dropout": {"recurrent_dropout": 0.3},
    "dropout": {"dropout": 0.3, "num_layers": 2},
    "residual": {"residual": True, "num_layers": 2},
    "clip_norm": {"optimizer": rx.optim.adam(0.01, clip_norm=1.0)},
    "clip_value": {"optimizer": rx.optim.adam(0.01, clip_value=0.1)},
    "weight decay": {"optimizer": rx.optim.adamw(0.01)},
    "minibatches": {"minibatches": True},
    "many to many": {"topology": "many_to_many"},
    "lags": {"linear_lags": 3},
    "mean": {"read": "mean"},
    "mean, masked": {"read": "mean", "arrays": ("lengths", "mask")},
    "max": {"read": "max"},
    "zeros": {"topology": "one_to_many"},
    "repeat": {"topology": "one_to_many", "feed": "repeat"},
    "all": {
        "arrays": ("lengths", "mask", "reset", "sample_weight"), "layer_norm": True,
        "dropout": 0.3, "recurrent_dropout": 0.3, "residual": True, "num_layers": 2,
        "minibatches": True, "topology": "many_to_many",
        "optimizer": rx.optim.adamw(0.01, clip_norm=1.0),
    },
}  # fmt: skip
# A layer and direction has two launches, `forward` and `backward`. Beside these are at most so
# many, whatever the number of layers: the readout, the loss, the gradients of all weights
# (`collect` and `add_up`), Adam. The masks of dropout are drawn by NumPy here, and not counted.
PLAIN = 17
CONSTANTS = {
    "lengths": 21, "mask": 20, "reset": 18, "sample_weight": 26, "layer norm": 19, "clip_norm": 34,
    "clip_value": 22, "weight decay": 18, "minibatches": 22, "many to many": 20, "lags": 20,
    "mean": 23, "mean, masked": 30, "max": 51, "zeros": 22, "repeat": 21, "all": 68,
}  # fmt: skip


def launches(
    monkeypatch, cell, *, steps=T, arrays=(), minibatches=False, optimizer=ADAM, **options
):
    """The launches of one update by the engine, on the stand-in."""
    as_cupy.install(monkeypatch)
    net = rx.Network(input_size=2, hidden_size=5, **CELLS[cell], **options)
    rng, counted = np.random.default_rng(0), cupy_stand_in.counted
    made = {
        "lengths": np.asarray([steps - 1, 3, 4, 1, 5, 2]),
        "mask": rng.random((N, steps)) < 0.7,
        "reset": rng.random((N, steps)) < 0.2,
        "sample_weight": counted(rng.random(N).astype("f4")),
    }
    y = (N, 1) if net.topology == "many_to_one" else (N, steps, 1)
    entering = 1 if net.topology == "one_to_many" else steps
    x, y = (counted(rng.standard_normal(shape).astype("f4")) for shape in ((N, entering, 2), y))
    noisy = "dropout" in options or "recurrent_dropout" in options
    engine = PortableEngine(
        net=net, loss=rx.losses.mse, optimizer=optimizer,
        backend=rx.get_backend("numpy", dtype="float32"), block_rows=N, workers=1,
        data=Batch(x, y, **{name: made[name] for name in arrays}),
        batches=(lambda epoch: [np.arange(N)[::-1].copy()]) if minibatches else None,
        noise=(lambda step, block: np.random.default_rng(step)) if noisy else None,
    )  # fmt: skip
    engine._workspaces = [KERNELS.Workspace("float32")]
    params = {name: counted(p) for name, p in net.init(0, engine.backend).items()}
    params, state, _ = engine.run(params, engine.optimizer.init(params), 1)
    with cupy_stand_in.launches() as noted:
        engine.run(params, state, 1)
    return list(noted)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "lstm"])
def test_two_launches_for_a_layer_and_direction_and_a_constant(monkeypatch, cell, setting):
    for stack in ({}, {"num_layers": 2}, {"num_layers": 4, "bidirectional": True}):
        settings = {**SETTINGS[setting], **stack}
        noted = launches(monkeypatch, cell, **settings)
        layers = settings.get("num_layers", 1) * (2 if "bidirectional" in stack else 1)
        assert noted.count("forward") == noted.count("backward") == layers
        assert "matmul" not in noted, "cuBLAS, which a CUDA graph cannot record"
        assert noted.count("transfer") == ("lengths" in settings.get("arrays", ()))
        assert len(noted) <= 2 * layers + CONSTANTS.get(setting, PLAIN)
        assert len(noted) == len(launches(monkeypatch, cell, steps=3 * T, **settings))


@pytest.mark.parametrize("cell", ["rnn-tanh", "gru", "lstm"])
def test_states_that_are_given(cell):
    """Of one pass forward and back, as the pieces of a long sequence have them."""
    for stack in ({}, {"num_layers": 2}, {"num_layers": 4, "bidirectional": True}):
        problem = build(cell, "state", **stack)
        through_kernels(problem)
        with cupy_stand_in.launches() as noted:
            through_kernels(problem)
        layers = problem.net.num_layers * problem.net.directions
        assert noted.count("forward") == noted.count("backward") == layers
        # Of up to eight layers and directions CuPy stacks the final states by a copy for each.
        stacked = 2 * len(problem.state) * min(layers, 8)
        assert len([name for name in noted if name != "copy"]) <= 2 * layers + stacked + 11


@pytest.mark.parametrize(
    ("cell", "norm", "at_once"),
    [("rnn-tanh", False, 28), ("gru", False, 14), ("lstm", False, 28), ("lstm", True, 9)],
)
def test_the_tables_have_room_for_many_layers(monkeypatch, cell, norm, at_once):
    """Beyond, the gradients of the weights take two launches more."""
    for layers, count in ((at_once, 2), (at_once + 1, 3)):  # one is the readout's
        noted = launches(monkeypatch, cell, num_layers=layers, layer_norm=norm)
        assert noted.count("collect") == noted.count("add_up") == count


def test_the_guide_has_the_same_numbers():
    page = (Path(__file__).parents[3] / "docs" / "guide" / "gpu.md").read_text(encoding="utf-8")
    listed = ", ".join(f"{name} {count}" for name, count in {"plain": PLAIN, **CONSTANTS}.items())
    assert listed in " ".join(page.split())
