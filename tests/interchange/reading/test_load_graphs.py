"""Graphs of ONNX: the network that they are, or the part that no network here has, by name."""

from __future__ import annotations

import re

import numpy as np
import pytest
from exchange import random_params, same_bits

import rnn_xp as rx
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import load
from rnn_xp.interchange.onnx import to_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.interchange

from graphs import Graph  # noqa: E402  (it imports onnx)

SIZES = {"input_size": 3, "hidden_size": 4, "output_size": 2}
CELLS = {
    "rnn": {"cell": "rnn"}, "relu": {"cell": "rnn", "activation": "relu"}, "gru": {"cell": "gru"},
    "before": {"cell": "gru", "reset_after": False}, "lstm": {"cell": "lstm"},
}  # fmt: skip
READS = {
    "last": {}, "mean": {"read": "mean"}, "max": {"read": "max"},
    "every": {"topology": "many_to_many"},
}  # fmt: skip


def loaded(tmp_path, data, **hints):
    (tmp_path / "model.onnx").write_bytes(data)
    return load(tmp_path / "model.onnx", **hints)


def refused(tmp_path, data, match):
    with pytest.raises(CheckpointError, match=re.escape(match)):
        loaded(tmp_path, data)


def network(cell="gru", **options):
    net = rx.Network(**SIZES, **CELLS[cell], **options)
    return net, random_params(net, 0)


def same(result, net, params):
    assert result.net == net
    assert same_bits(result.params, params)


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "softmax"])
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_graph_of_ours_comes_back_to_the_bit(tmp_path, cell, layers, both, read, activation):
    net, params = network(
        cell, num_layers=layers, bidirectional=both, output_activation=activation, **READS[read]
    )
    result = loaded(tmp_path, to_onnx(net, params).SerializeToString())
    same(result, net, params)
    assert result.assumed == {"scaler": "none"}


@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_a_scaler_in_the_graph_is_recovered(tmp_path, activation):
    net, params = network("lstm", output_activation=activation)
    scaler = Scaler("standard", (20.0, 5.0, -3.0), (3.0, 0.5, 2.0))
    result = loaded(tmp_path, to_onnx(net, params, scaler=scaler).SerializeToString())
    assert (result.net, result.scaler, result.assumed) == (net, scaler, {})
    for name, array in params.items():
        np.testing.assert_allclose(result.params[name], array, rtol=0, atol=1e-7)


@pytest.mark.parametrize("exporter", ["squeeze", "split", "gather", "slice", "reshape", "axes"])
@pytest.mark.parametrize("cell", ["rnn", "before", "lstm"])
def test_the_ways_from_the_states_to_the_readout(tmp_path, cell, exporter):
    """The last state is taken from Y or Y_h by whatever operators an exporter likes."""
    net, params = network(cell)
    graph = Graph()
    xs = graph.add("Transpose", "x", perm=[1, 0, 2])
    y, last, *_ = graph.recurrent(net, params, xs)
    if exporter == "squeeze":
        h = graph.add("Squeeze", last, graph.whole(0))
    elif exporter == "split":
        parts = graph.add("Split", last, outputs=2, axis=2)
        h = graph.add("Squeeze", graph.add("Concat", *parts, axis=2), graph.whole(0))
    elif exporter == "gather":
        h = graph.add("Gather", graph.add("Squeeze", y, graph.whole(1)), graph.whole(-1), axis=0)
        h = graph.add("Squeeze", h, graph.whole(0))
    elif exporter == "slice":
        end = graph.whole(np.iinfo(np.int64).max)
        h = graph.add("Slice", y, graph.whole(-1), end, graph.whole(0), graph.whole(1))
        h = graph.add("Reshape", h, graph.whole(-1, 4))
    elif exporter == "reshape":
        h = graph.add("Transpose", y, perm=[0, 2, 1, 3])
        shape = graph.add("Shape", h)
        lead = graph.add("Slice", shape, graph.whole(0), graph.whole(2))
        h = graph.add("Reshape", h, graph.add("Concat", lead, graph.whole(-1), axis=0))
        h = graph.add("Gather", h, graph.constant(-1, np.int64), axis=0)
    else:
        h = graph.add("Unsqueeze", graph.add("Squeeze", last, graph.whole(0)), graph.whole(0))
        h = graph.add("Flatten", h, axis=2)
    same(loaded(tmp_path, graph.bytes(graph.readout(params, h))), net, params)


def test_states_first_outputs_and_zeros_from_the_sizes_of_the_input(tmp_path):
    """The initial state that PyTorch writes: zeros of a shape that is computed, and cut."""
    net, params = network("lstm")
    graph = Graph()
    xs = graph.add("Transpose", "x", perm=[1, 0, 2])
    rows = graph.add("Slice", graph.add("Shape", xs), graph.whole(1), graph.whole(2))
    shape = graph.add("Concat", graph.whole(2), rows, graph.whole(4), axis=0)
    zeros = graph.add("ConstantOfShape", shape)
    start = graph.add("Slice", zeros, graph.whole(0), graph.whole(1), graph.whole(0))
    _, h, c = graph.recurrent(net, params, xs, more=["", start, start])
    pred = graph.readout(params, graph.add("Squeeze", h, graph.whole(0)))
    result = loaded(tmp_path, graph.bytes(pred, h, c))
    same(result, net, params)
    assert result.assumed == {"ignored": f"{h}, {c}", "scaler": "none"}


def test_a_state_that_the_graph_takes_is_assumed_to_be_zero(tmp_path):
    net, params = network("gru")
    graph = Graph()
    graph.input("h0", (1, "batch", 4))
    xs = graph.add("Transpose", "x", perm=[1, 0, 2])
    _, h = graph.recurrent(net, params, xs, more=["", "h0"])
    pred = graph.readout(params, graph.add("Squeeze", h, graph.whole(0)))
    result = loaded(tmp_path, graph.bytes(pred))
    same(result, net, params)
    assert result.assumed["initial state"] == "zero, which the graph takes as h0"


@pytest.mark.parametrize("way", ["one node", "reverse", "turned"])
@pytest.mark.parametrize("cell", ["relu", "gru", "lstm"])
def test_the_ways_to_write_two_directions(tmp_path, cell, way):
    """One node, a node with direction "reverse", or a forward node on the input from its end."""
    net, params = network(cell, bidirectional=True, topology="many_to_many")
    graph = Graph()
    xs = graph.add("Transpose", "x", perm=[1, 0, 2])
    if way == "one node":
        y, *_ = graph.recurrent(net, params, xs)
        h = graph.add("Reshape", graph.add("Transpose", y, perm=[0, 2, 1, 3]), graph.whole(0, 0, 8))
    else:
        fore, *_ = graph.recurrent(net, params, xs, directions=[0])
        turn = [graph.whole(-1), graph.whole(-(2**62)), graph.whole(0), graph.whole(-1)]
        back, options = xs, {"direction": "reverse"}
        if way == "turned":
            back, options = graph.add("Slice", xs, *turn), {}
        back, *_ = graph.recurrent(net, params, back, directions=[1], **options)
        back = graph.add("Slice", back, *turn) if way == "turned" else back
        h = graph.add("Squeeze", graph.add("Concat", fore, back, axis=3), graph.whole(1))
    w = graph.constant(params["readout.w_hy"].T)
    pred = graph.add("Add", graph.constant(params["readout.b_y"]), graph.add("MatMul", h, w))
    pred = graph.add("Transpose", pred, perm=[1, 0, 2])
    same(loaded(tmp_path, graph.bytes(pred)), net, params)


def test_a_graph_with_steps_first_is_read_and_it_is_said(tmp_path):
    net, params = network("gru")
    graph = Graph(("time", "batch", 3))
    _, h = graph.recurrent(net, params, "x")
    result = loaded(tmp_path, graph.bytes(graph.readout(params, graph.add("Squeeze", h))))
    same(result, net, params)
    assert result.assumed["layout"] == "the graph's input has steps first, here rows"


def test_batches_first_by_the_operators_own_layout(tmp_path):
    net, params = network("rnn")
    graph = Graph()
    _, h = graph.recurrent(net, params, "x", layout=1)
    pred = graph.readout(params, graph.add("Squeeze", h, graph.whole(1)))
    same(loaded(tmp_path, graph.bytes(pred)), net, params)


def test_columns_in_another_order_are_put_in_theirs(tmp_path):
    """A graph may exchange the columns of the input, or those of the states."""
    net, params = network("gru")
    graph = Graph()
    x = graph.add("Gather", "x", graph.whole(2, 0, 1), axis=2)
    _, h = graph.recurrent(net, params, graph.add("Transpose", x, perm=[1, 0, 2]))
    h = graph.add(
        "Gather", graph.add("Squeeze", h, graph.whole(0)), graph.whole(3, 1, 0, 2), axis=1
    )
    result = loaded(tmp_path, graph.bytes(graph.readout(params, h)))
    np.testing.assert_array_equal(result.params["layer0.w_xh"][:, [2, 0, 1]], params["layer0.w_xh"])
    np.testing.assert_array_equal(
        result.params["readout.w_hy"][:, [3, 1, 0, 2]], params["readout.w_hy"]
    )


def test_half_of_two_directions_is_read_with_weights_of_zero(tmp_path):
    """h_n[-1] of two directions, a common mistake, is the final state of the reverse one."""
    net, params = network("lstm", bidirectional=True)
    params["readout.w_hy"][:, :4] = 0
    graph = Graph()
    _, h, _ = graph.recurrent(net, params, graph.add("Transpose", "x", perm=[1, 0, 2]))
    h = graph.add("Gather", h, graph.constant(-1, np.int64), axis=0)
    some = {**params, "readout.w_hy": params["readout.w_hy"][:, 4:]}
    same(loaded(tmp_path, graph.bytes(graph.readout(some, h))), net, params)


def test_a_scale_without_its_inverse_is_folded_into_the_weights(tmp_path):
    net, params = network("lstm", bidirectional=True)
    graph = Graph()
    x = graph.add(
        "Div", graph.add("Sub", "x", graph.constant([1.0, 0.5, 0.0])), graph.constant(4.0)
    )
    _, h, _ = graph.recurrent(net, params, graph.add("Transpose", x, perm=[1, 0, 2]))
    h = graph.add("Reshape", graph.add("Transpose", h, perm=[1, 0, 2]), graph.whole(0, 8))
    result = loaded(tmp_path, graph.bytes(graph.readout(params, h)))
    x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
    expected = net.forward(params, (x - np.float32([1.0, 0.5, 0.0])) / 4)[0]
    np.testing.assert_allclose(net.forward(result.params, x)[0], expected, rtol=0, atol=1e-6)
    assert result.scaler is None


def built(change, cell="gru", **options):
    """A graph with one thing that no network here has."""
    net, params = network(cell, **options)
    graph = Graph()
    xs = graph.add("Transpose", "x", perm=[1, 0, 2])
    return change(graph, net, params, xs)


def ended(graph, params, h):
    return graph.bytes(graph.readout(params, graph.add("Squeeze", h, graph.whole(0))))


def of_attributes(**attributes):
    def change(graph, net, params, xs):
        _, h, *_ = graph.recurrent(net, params, xs, **attributes)
        return ended(graph, params, h)

    return change


def of_inputs(*values):
    def change(graph, net, params, xs):
        more = [graph.constant(v, v.dtype) if isinstance(v, np.ndarray) else v for v in values]
        _, h, *_ = graph.recurrent(net, params, xs, more=more)
        return ended(graph, params, h)

    return change


def of_lengths(graph, net, params, xs):
    graph.inputs.append(onnx.helper.make_tensor_value_info("lengths", 6, ["batch"]))
    _, h = graph.recurrent(net, params, xs, more=["lengths"])
    return ended(graph, params, h)


def of_states(operator, *values, where="after", **attributes):
    def change(graph, net, params, xs):
        more = [graph.constant(v) for v in values]
        xs = graph.add(operator, xs, *more, **attributes) if where == "before" else xs
        _, h, *_ = graph.recurrent(net, params, xs)
        h = graph.add("Squeeze", h, graph.whole(0))
        h = graph.add(operator, h, *more, **attributes) if where == "after" else h
        pred = graph.readout(params, h)
        return graph.bytes(
            graph.add(operator, pred, *more, **attributes) if where == "end" else pred
        )

    return change


def of_one_step(at):
    def change(graph, net, params, xs):
        y, *_ = graph.recurrent(net, params, xs)
        h = graph.add(
            "Reshape", graph.add("Transpose", y, perm=[0, 2, 1, 3]), graph.whole(0, 0, -1)
        )
        return graph.bytes(
            graph.readout(params, graph.add("Gather", h, graph.constant(at, np.int64)))
        )

    return change


def of_skips(graph, net, params, xs):
    y, *_ = graph.recurrent(net, params, xs)
    below = graph.add("Squeeze", y, graph.whole(1))
    y, *_ = graph.recurrent(net, params, below, layer=1)
    h = graph.add("Add", graph.add("Squeeze", y, graph.whole(1)), below)
    return graph.bytes(graph.readout(params, graph.add("Gather", h, graph.constant(-1, np.int64))))


ONES = np.ones((1, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (of_attributes(clip=1.0), {}, "(GRU) has no place in a network here: it clips the gates"),
        (of_attributes(activation_alpha=[0.1]), {}, "activations with parameters"),
        (of_attributes(direction="reverse"), {}, "layer 0 has 1 recurrent operators with the dir"),
        (of_attributes(input_forget=1), {"cell": "lstm"}, "it couples input and forget gate"),
        (of_attributes(activations=["Elu"]), {"cell": "rnn"}, "it has the activations elu"),
        (of_inputs("", ONES), {}, "it begins with a state that is not zero"),
        (of_inputs("", "", "", np.ones((1, 12), "f4")), {"cell": "lstm"}, "it has peepholes"),
        (of_lengths, {}, "the graph takes lengths, which are whole numbers such as the lengths of"),
        (of_inputs(np.full(3, 2, np.int32)), {}, "it is given lengths of the rows (sequence_lens)"),
        (of_states("Relu"), {}, "is a relu outside an RNN"),
        (of_states("Relu", where="end"), {}, "is a relu outside an RNN"),
        (of_states("LayerNormalization", np.ones(4, "f4")), {}, "is a layer normalisation"),
        (of_states("Tanh"), {}, "it acts on something else than the readout"),
        (of_states("MatMul", np.eye(4)), {}, "it is a second linear layer after the states"),
        (of_states("MatMul", np.eye(3), where="before"), {}, "it multiplies something else than"),
        (of_states("Pow", np.float32(2), where="before"), {}, "(Pow) is an operator that no netwo"),
        (of_states("Softmax", where="end", axis=0), {}, "it is a softmax over something else"),
        (of_one_step(1), {}, "it reads the step(s) 1 of 5"),
        (of_one_step(-1), {"bidirectional": True}, "the reverse direction where that one has seen"),
        (of_skips, {"num_layers": 2}, "it combines two values that depend on the input"),
    ],
)  # fmt: skip
def test_what_no_network_here_has_is_refused_by_its_name(tmp_path, change, options, match):
    refused(tmp_path, built(change, **options), match)


def test_a_graph_of_ours_with_lengths_is_refused_by_its_input(tmp_path):
    net, params = network("gru")
    data = to_onnx(net, params, lengths=True).SerializeToString()
    refused(
        tmp_path, data, "the graph takes lengths, which are whole numbers such as the lengths of"
    )


def test_a_graph_without_a_readout_is_refused(tmp_path):
    net, params = network("gru")
    graph = Graph()
    y, _ = graph.recurrent(net, params, graph.add("Transpose", "x", perm=[1, 0, 2]))
    refused(tmp_path, graph.bytes(y), "one output of a readout is required, found none")


def test_weights_beside_the_graph_are_read_and_those_elsewhere_are_not(tmp_path):
    net, params = network("lstm")
    model = to_onnx(net, params)
    onnx.save_model(
        model, tmp_path / "big.onnx", save_as_external_data=True, location="big.data",
        size_threshold=0,
    )  # fmt: skip
    same(load(tmp_path / "big.onnx"), net, params)
    data = (tmp_path / "big.onnx").read_bytes()
    refused(
        tmp_path, data.replace(b"big.data", b"../a.dat"), "keeps c0 in '../a.dat'; only a file in"
    )
    (tmp_path / "big.data").write_bytes(b"")
    refused(tmp_path, data, "keeps c0 in big.data, which is cut short")


def test_a_graph_that_predicts_otherwise_is_never_taken(tmp_path, monkeypatch):
    """If a node were understood wrongly, the comparison on random data would find it."""
    from rnn_xp.interchange.reading.graphs import recurrent

    monkeypatch.setitem(recurrent._ORDERS, "lstm", (0, 1, 2, 3))
    net, params = network("lstm")
    refused(tmp_path, to_onnx(net, params).SerializeToString(), "predicts otherwise, by ")


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_a_graph_of_pytorch_predicts_as_its_module(tmp_path, cell, both):
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
            self.rnn = kind(3, 4, 2, batch_first=True, bidirectional=both)
            self.fc = torch.nn.Linear(8 if both else 4, 2)

        def forward(self, x):
            return self.fc(self.rnn(x)[0])

    torch.manual_seed(0)
    module, path = Module(), tmp_path / "module.onnx"
    torch.onnx.export(
        module, (torch.randn(2, 6, 3),), path, dynamo=False, input_names=["x"],
        dynamic_axes={"x": {0: "batch", 1: "time"}},
    )  # fmt: skip
    net, params, assumed = load(path)
    assert (net.topology, net.num_layers, net.bidirectional) == ("many_to_many", 2, both)
    assert assumed == {"scaler": "none"}
    x = torch.randn(5, 9, 3)
    expected = module(x).detach().numpy()
    np.testing.assert_allclose(net.forward(params, x.numpy())[0], expected, rtol=0, atol=1e-6)
