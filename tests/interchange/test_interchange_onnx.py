"""Networks as ONNX graphs, run by onnxruntime and by onnx's own evaluator."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from exchange import CELLS, assert_close, batches, random_params
from hypothesis import given, settings
from hypothesis import strategies as st

import rnn_xp as rx
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import onnx as interchange

evaluation = pytest.importorskip("onnx.reference", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.interchange


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def run(model, x, lengths=None):
    feed = {"x": x} | ({} if lengths is None else {"lengths": lengths.astype(np.int32)})
    return session(model).run(["pred"], feed)[0]


@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_onnxruntime_predicts_the_same(name, layers, directions, lengths):
    """Padding included, and rows without a step."""

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(batches(name, layers, directions, lengths, smallest=0))
    def check(batch):
        net, params, x, given_lengths = batch
        model = interchange.to_onnx(net, params, lengths=lengths)
        assert_close(run(model, x, given_lengths), net.forward(params, x, lengths=given_lengths)[0])

    check()


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", [name for name in CELLS if name != "rnn-relu"])
def test_the_reference_evaluator_predicts_the_same(name, layers, directions):
    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(batches(name, layers, directions, False))
    def check(batch):
        net, params, x, _ = batch
        model = interchange.to_onnx(net, params)
        evaluator = evaluation.ReferenceEvaluator(model)
        assert_close(evaluator.run(["pred"], {"x": x})[0], net.forward(params, x)[0])

    check()


@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "softmax"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("read", ["last", "mean", "max", "every"])
def test_reads_residual_connections_and_activations(read, residual, activation, lengths):
    every = {"topology": "many_to_many"} if read == "every" else {"read": read}
    for directions in (1, 2):
        net = rx.Network(
            cell="gru", input_size=2, hidden_size=4, output_size=3, num_layers=3,
            residual=residual, output_activation=activation, bidirectional=directions == 2, **every,
        )  # fmt: skip
        params = random_params(net, 0)
        x = np.random.default_rng(1).standard_normal((5, 6, 2)).astype(np.float32)
        given_lengths = np.asarray([6, 0, 2, 5, 1]) if lengths else None
        model = interchange.to_onnx(net, params, lengths=lengths)
        pred, _ = net.forward(params, x, lengths=given_lengths)
        assert_close(run(model, x, given_lengths), pred)


@pytest.mark.parametrize("name", CELLS)
def test_the_linear_path_is_in_the_graph(name):
    net = rx.Network(**CELLS[name], input_size=2, hidden_size=4, output_size=3, linear_lags=5)
    params = random_params(net, 0)
    model = interchange.to_onnx(net, params)
    for steps in (5, 9):
        x = np.random.default_rng(steps).standard_normal((6, steps, 2)).astype(np.float32)
        assert_close(run(model, x), net.forward(params, x)[0])
    with pytest.raises(ValueError, match="lengths are not supported with linear_lags"):
        interchange.to_onnx(net, params, lengths=True)


def test_padding_may_hold_anything():
    net = rx.Network(cell="lstm", hidden_size=4, num_layers=2, bidirectional=True)
    params = random_params(net, 0)
    model = interchange.to_onnx(net, params, lengths=True)
    x = np.random.default_rng(1).standard_normal((3, 6, 1)).astype(np.float32)
    lengths = np.asarray([6, 2, 4])
    clean = run(model, x, lengths)
    x[np.arange(6) >= lengths[:, None]] = 1e30
    assert np.array_equal(run(model, x, lengths), clean)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 40))
def test_batch_and_time_are_open(rows, steps):
    x = np.random.default_rng(0).standard_normal((rows, steps, 1)).astype(np.float32)
    assert_close(OPEN.run(["pred"], {"x": x})[0], NET.forward(PARAMS, x)[0])


NET = rx.Network(hidden_size=50)
PARAMS = NET.init(0, rx.get_backend("numpy", dtype="float32"))
OPEN = session(interchange.to_onnx(NET, PARAMS))


def test_the_file_of_the_reference_model_is_small():
    net = rx.Network(cell="rnn", input_size=1, hidden_size=50, output_size=1)
    data = interchange.to_onnx(net, net.init(0)).SerializeToString()
    assert len(data) < 15_000  # 40,000 is allowed; the weights are 10,604
    assert len(data) > 10_604


def test_opset_and_version_suit_older_runtimes():
    model = interchange.to_onnx(NET, PARAMS)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


@pytest.mark.parametrize("topology", ["many_to_one", "many_to_many"])
def test_a_scaler_inside_takes_and_gives_original_units(topology):
    net = rx.Network(cell="gru", input_size=2, hidden_size=5, output_size=3, topology=topology)
    params, scaler = random_params(net, 0), Scaler("standard", (10.0, -3.0), (2.0, 0.5))
    x = np.random.default_rng(1).normal([10, -3], [2, 0.5], (4, 6, 2))
    pred, _ = net.forward(params, scaler.transform(x).astype(np.float32))
    model = interchange.to_onnx(net, params, scaler=scaler)
    assert_close(run(model, x.astype(np.float32)), scaler.inverse_target(pred).astype(np.float32))
    facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["rnn_xp"])
    assert Scaler(**facts["scaler"]) == scaler
    assert rx.Network(**facts["network"]) == net


def test_the_metadata_say_that_no_scaler_is_inside():
    model = interchange.to_onnx(NET, PARAMS, about={"horizon": 1})
    facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["rnn_xp"])
    assert facts["scaler"] is None
    assert facts["horizon"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer_norm": True}, "ONNX cannot express layer_norm=True"),
        ({"topology": "one_to_many"}, "ONNX cannot express topology='one_to_many'"),
        ({"topology": "one_to_many", "feed": "feedback"}, "topology='one_to_many'"),
    ],
)
def test_what_cannot_be_expressed_is_an_error(options, words):
    net = rx.Network(hidden_size=3, **options)
    with pytest.raises(ValueError, match=words):
        interchange.to_onnx(net, random_params(net, 0))


def test_a_scaler_of_other_columns_is_an_error():
    with pytest.raises(ValueError, match="the scaler has 2 columns, but input_size is 1"):
        interchange.to_onnx(NET, PARAMS, scaler=Scaler("none", (0, 0), (1, 1)))


def test_float64_is_cast_and_said():
    params = random_params(NET, 0, "float64")
    with pytest.warns(UserWarning, match="float64 parameters are cast to float32"):
        model = interchange.to_onnx(NET, params)
    x = np.ones((2, 3, 1), np.float32)
    single = {name: p.astype(np.float32) for name, p in params.items()}
    assert_close(run(model, x), NET.forward(single, x)[0])


def test_a_relu_cell_in_the_evaluator_is_its_own_error():
    net = rx.Network(hidden_size=3, activation="relu")
    model = interchange.to_onnx(net, random_params(net, 0))
    with pytest.raises(RuntimeError, match="Unknown activation function 'Relu'"):
        evaluation.ReferenceEvaluator(model).run(None, {"x": np.ones((1, 1, 1), np.float32)})


def test_without_onnx_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[onnx\]'"):
        interchange.to_onnx(NET, PARAMS)
