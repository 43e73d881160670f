"""How many launches a whole training step has, with each option and any number of layers."""

from __future__ import annotations

from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from kernel_problems import CELLS
from layer_cases import KERNELS

import rnn_xp as rx
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.portable import PortableEngine

N, T = 6, 9

SETTINGS: dict[str, dict[str, Any]] = {  # of the network, and which arrays a batch has beside
    "plain": {},
    "lengths": {"arrays": ("lengths",)},
    "mask": {"arrays": ("mask",)},
    "reset": {"arrays": ("reset",)},
    "sample_weight": {"arrays": ("sample_weight",)},
    "layer norm": {"layer_norm": True},
    "recurrent dropout": {"recurrent_dropout": 0.3},
    "dropout": {"dropout": 0.3, "num_layers": 2},
    "clip_norm": {"clip_norm": 1.0},
    "minibatches": {"minibatches": True},
    "many to many": {"topology": "many_to_many"},
}
# At most so many launches for each layer and direction, and beside. `forward` and `backward` are a
# layer's own. Others are its products (of the input, both weights, the biases, the layer below),
# their place beside the other direction's, and its arrays' share of the optimiser. The masks of
# dropout are drawn by NumPy here, and not counted.
PLAIN = (14, 16)
BOUNDS = {
    "lengths": (16, 16), "mask": (15, 16), "reset": (14, 18), "sample_weight": (14, 22),
    "layer norm": (24, 16), "clip_norm": (14, 20), "minibatches": (14, 20),
}  # fmt: skip


def launches(
    monkeypatch, cell, *, steps=T, arrays=(), minibatches=False, clip_norm=None, **options
):
    """The launches of one update by the engine, on the stand-in."""
    fusion = cupy_stand_in.load("fusion")
    monkeypatch.setattr(
        "rnn_xp.optim.first_order.pointwise", lambda f, sets, *, xp: fusion.run(f, sets)
    )
    net = rx.Network(input_size=2, hidden_size=5, **CELLS[cell], **options)
    rng, counted = np.random.default_rng(0), cupy_stand_in.counted
    made = {
        "lengths": np.asarray([steps - 1, 3, 4, 1, 5, 2]),
        "mask": rng.random((N, steps)) < 0.7,
        "reset": rng.random((N, steps)) < 0.2,
        "sample_weight": counted(rng.random(N).astype("f4")),
    }
    y = (N, steps, 1) if net.topology == "many_to_many" else (N, 1)
    x, y = (counted(rng.standard_normal(shape).astype("f4")) for shape in ((N, steps, 2), y))
    noisy = "dropout" in options or "recurrent_dropout" in options
    engine = PortableEngine(
        net=net, loss=rx.losses.mse, optimizer=rx.optim.adam(0.01, clip_norm=clip_norm),
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
def test_a_layer_has_two_launches_of_its_own_beside_its_products(monkeypatch, cell, setting):
    for stack in ({}, {"num_layers": 2}, {"num_layers": 3, "bidirectional": True}):
        settings = {**SETTINGS[setting], **stack}
        noted = launches(monkeypatch, cell, **settings)
        layers = settings.get("num_layers", 1) * (2 if "bidirectional" in stack else 1)
        assert noted.count("forward") == noted.count("backward") == layers
        per_layer, constant = BOUNDS.get(setting, PLAIN)
        assert len(noted) <= per_layer * layers + constant
        assert len(noted) == len(launches(monkeypatch, cell, steps=3 * T, **settings))
