"""A step of training as an ONNX graph follows the library's own training."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest
from exchange import random_params

import rnn_xp as rx
from rnn_xp.interchange import onnx_training

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("ndonnx", reason="ndonnx is not installed")
pytestmark = pytest.mark.interchange

ROWS = 16


def losses_in_onnxruntime(model, params, x, y, rate, updates=50):
    """What a device does: feed what came out, and zeros at first for what is remembered."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {"x": x, "y": y, "learning_rate": np.asarray(rate, np.float32), **params}
    for node in session.get_inputs():
        kind = np.int64 if node.type == "tensor(int64)" else np.float32
        feed.setdefault(node.name, np.zeros(node.shape, kind))
    names = [node.name for node in session.get_outputs()]
    losses = []
    for _ in range(updates):
        after = dict(zip(names, session.run(None, feed), strict=True))
        losses.append(float(after.pop("loss")))
        feed |= {name.removeprefix("next."): array for name, array in after.items()}
    return losses, feed


CASES = {
    "reference": ({"hidden_size": 50}, 10, rx.optim.adam(0.01), "mse"),
    "lstm-each-step": (
        {"cell": "lstm", "hidden_size": 6, "topology": "many_to_many", "layer_norm": True},
        2, rx.optim.adamw(0.01, clip_norm=0.5, weight_decay=0.1), "huber",
    ),
    "gru-bidirectional": (
        {"cell": "gru", "hidden_size": 4, "bidirectional": True, "read": "mean"},
        2, rx.optim.sgd(0.05, momentum=0.9), "mse",
    ),
    "linear-path": ({"hidden_size": 3, "linear_lags": 2}, 3, rx.optim.adam(0.01), "mse"),
    "classes": (
        {"activation": "relu", "hidden_size": 6, "output_size": 3}, 2, rx.optim.rmsprop(0.003),
        "cross_entropy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_fifty_updates_give_the_losses_of_fit(name):
    options, steps, optimizer, loss = CASES[name]
    net = rx.Network(**options)
    params = net.init(seed=0, backend=rx.get_backend("numpy", dtype="float32"))
    series = np.sin(np.arange(ROWS + steps) / 3.0).astype(np.float32)
    x, y = rx.make_windows(series, steps)
    y = np.stack([y] * steps, axis=1) if net.topology == "many_to_many" else y
    y = np.digitize(y[:, 0], [-0.5, 0.5]) if loss == "cross_entropy" else y
    model = onnx_training.to_training_step(
        net, rows=ROWS, steps=steps, optimizer=optimizer, loss=loss
    )
    rate = optimizer.learning_rate
    losses, feed = losses_in_onnxruntime(model, params, np.array(x), np.array(y), rate)
    result = rx.fit(net, x, y, optimizer=optimizer, epochs=50, loss=loss, seed=0)
    np.testing.assert_allclose(losses, result.history["loss"], rtol=0, atol=1e-4)
    assert losses[-1] < 0.8 * losses[0]
    assert int(feed["step"]) == 50
    for key, p in result.params.items():
        np.testing.assert_allclose(feed[key], p, rtol=0, atol=1e-3, err_msg=key)
    operators = {node.op_type for node in model.graph.node}
    assert "MatMul" in operators
    assert "If" not in operators  # runtimes for small devices refuse branches
    if name == "reference":
        assert len(model.SerializeToString()) < 40_000
        assert not model.graph.initializer  # weights are inputs
        facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["rnn_xp"])
        assert facts["optimizer"]["name"] == "Adam"
        assert facts["loss"] == "mse"


def test_the_step_of_the_reference_network_is_written_within_five_seconds():
    begin = time.perf_counter()
    onnx_training.to_training_step(
        rx.Network(hidden_size=50), rows=8317, steps=10, optimizer=rx.optim.adam(0.01)
    )
    assert time.perf_counter() - begin < 5.0  # 0.7 s when nothing else runs


def test_functions_of_ndonnx_are_as_before_after_an_export():
    ndonnx = pytest.importorskip("ndonnx", reason="ndonnx is not installed")
    names = ("real", "matmul", "max", "any")
    before = [getattr(ndonnx, name) for name in names]
    net = rx.Network(hidden_size=2)
    onnx_training.to_training_step(net, rows=3, steps=1, optimizer=rx.optim.sgd(0.1))
    assert [getattr(ndonnx, name) for name in names] == before


@pytest.mark.parametrize(
    ("options", "arguments", "words"),
    [
        ({"num_layers": 2, "dropout": 0.1}, {}, "cannot express dropout=0.1: its masks are drawn"),
        ({"recurrent_dropout": 0.1}, {}, "cannot express recurrent_dropout=0.1"),
        ({}, {"optimizer": rx.optim.lbfgs()}, "cannot express LBFGS: its line search"),
        ({}, {"optimizer": rx.optim.adam(rx.optim.Cosine(0.1, 5))}, "learning rate that is a numb"),
        ({}, {"rows": 0}, "rows must be an integer >= 1, got 0"),
        ({}, {"steps": 2.0}, "steps must be an integer >= 1, got 2.0"),
        ({}, {"loss": "l1"}, "loss='l1' is not known"),
    ],
)
def test_what_cannot_be_exported_is_an_error(options, arguments, words):
    net = rx.Network(hidden_size=3, **options)
    given = {"rows": 4, "steps": 2, "optimizer": rx.optim.adam(0.01), **arguments}
    with pytest.raises(ValueError, match=words):
        onnx_training.to_training_step(net, **given)


def test_sizes_are_fixed():
    net = rx.Network(hidden_size=2)
    model = onnx_training.to_training_step(net, rows=3, steps=1, optimizer=rx.optim.sgd(0.1))
    with pytest.raises(Exception, match="invalid dimensions"):
        losses_in_onnxruntime(
            model, random_params(net, 0), np.ones((4, 1, 1), "f4"), np.ones((4, 1), "f4"), 0.1, 1
        )


def test_without_ndonnx_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ndonnx", None)
    net = rx.Network(hidden_size=3)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[onnx-train\]'"):
        onnx_training.to_training_step(net, rows=3, steps=1, optimizer=rx.optim.sgd(0.1))
