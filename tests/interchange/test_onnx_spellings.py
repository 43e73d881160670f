"""Spellings of a graph, states as inputs and outputs, fixed sizes and half precision."""

from __future__ import annotations

import json

import numpy as np
import pytest
from exchange import CELLS, assert_close, random_params

import rnn_xp as rx
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import onnx as interchange

evaluation = pytest.importorskip("onnx.reference", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.interchange

SPELLINGS = {
    "portable": {"spelling": "portable"},
    "loop": {"spelling": "loop"},
    "written out": {"spelling": "portable", "steps": 5},
    "all fixed": {"spelling": "portable", "rows": 3, "steps": 5},
}
BOTH = (False, True)


def run(model, feed):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, feed), strict=True))


def operators(graph):
    """Names of all operators, those inside others included."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from operators(attribute.g)


def problem(name, rows=3, steps=5, seed=1, **options):
    sizes = {"input_size": 2, "hidden_size": 3, "output_size": 2, **options}
    net = rx.Network(**CELLS[name], **sizes)
    x = np.random.default_rng(seed).standard_normal((rows, steps, net.input_size))
    return net, random_params(net, 0), x.astype(np.float32)


def some_lengths(rows, steps, seed=2):
    """Lengths of rows, of which the first is without a step and the last is full."""
    drawn = np.random.default_rng(seed).integers(1, steps + 1, rows).astype(np.int32)
    drawn[0], drawn[-1] = 0, steps
    return drawn


def some_state(net, rows, seed=3):
    _, state = net.forward(random_params(net, 0), np.zeros((rows, 1, net.input_size), np.float32))
    rng = np.random.default_rng(seed)
    return type(state)(*(rng.uniform(-1, 1, f.shape).astype(np.float32) for f in state))


@pytest.mark.parametrize("spelled", SPELLINGS)
@pytest.mark.parametrize("name", CELLS)
def test_every_spelling_predicts_the_same(name, spelled):
    """Padding included, and rows without a step, at sizes other than those of the export."""
    options = SPELLINGS[spelled]
    for layers, bidirectional, lengths, topology in (
        (1, False, False, "many_to_one"), (1, True, True, "many_to_many"),
        (2, False, True, "many_to_many"), (2, True, False, "many_to_many"),
        (2, True, True, "many_to_one"),
    ):  # fmt: skip
        net, params, x = problem(
            name, num_layers=layers, bidirectional=bidirectional, topology=topology
        )
        model = interchange.to_onnx(net, params, lengths=lengths, **options)
        assert {"RNN", "GRU", "LSTM"}.isdisjoint(operators(model.graph))
        evaluator = evaluation.ReferenceEvaluator(model)
        for rows, steps in ((3, 5), (4, 1)):
            rows, steps = options.get("rows", rows), options.get("steps", steps)
            _, _, x = problem(name, rows, steps)
            given = some_lengths(rows, steps) if lengths else None
            feed = {"x": x} | ({} if given is None else {"lengths": given})
            expected, _ = net.forward(params, x, lengths=given)
            assert_close(run(model, feed)["pred"], expected)
            assert_close(evaluator.run(None, feed)[0], expected)


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_steps_are_in_a_scan_in_a_loop_or_written_out(spelled):
    net, params, _ = problem("gru", bidirectional=True)
    model = interchange.to_onnx(net, params, lengths=True, **SPELLINGS[spelled])
    used = {name for node in model.graph.node for name in node.input}
    assert {constant.name for constant in model.graph.initializer} <= used
    expected = {"portable": {"Scan"}, "loop": {"Loop"}}.get(spelled, set())
    assert {"Scan", "Loop", "If"} & set(operators(model.graph)) == expected
    sizes = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    given = SPELLINGS[spelled]
    assert sizes == [given.get("rows", "batch"), given.get("steps", "time"), 2]


@pytest.mark.parametrize("spelling", ["portable", "loop"])
@pytest.mark.parametrize("read", ["mean", "max"])
def test_reads_over_time_leave_out_the_padding(read, spelling):
    net, params, x = problem("gru", num_layers=2, residual=True, bidirectional=True, read=read)
    x[0] = np.nan  # a row without a step
    given = some_lengths(3, 5)
    model = interchange.to_onnx(net, params, lengths=True, spelling=spelling)
    expected, _ = net.forward(params, np.nan_to_num(x), lengths=given)
    assert_close(run(model, {"x": x, "lengths": given})["pred"], expected)


@pytest.mark.parametrize("name", CELLS)
def test_padding_may_hold_anything(name):
    net, params, x = problem(name, num_layers=2, bidirectional=True, topology="many_to_many")
    model = interchange.to_onnx(net, params, lengths=True, spelling="portable")
    given = some_lengths(3, 5)
    clean = run(model, {"x": x, "lengths": given})["pred"]
    x[np.arange(5) >= given[:, None]] = np.nan
    np.testing.assert_array_equal(run(model, {"x": x, "lengths": given})["pred"], clean)


@pytest.mark.parametrize("spelling", interchange.SPELLINGS)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("bidirectional", BOTH)
def test_a_state_goes_in_and_comes_out(name, spelling, bidirectional):
    """Rows without a step keep theirs."""
    net, params, x = problem(
        name, num_layers=2, bidirectional=bidirectional, topology="many_to_many"
    )
    state = some_state(net, 3)
    for given in (None, some_lengths(3, 5)):
        model = interchange.to_onnx(
            net, params, stateful=True, lengths=given is not None, spelling=spelling
        )
        feed = {"x": x} | {f"initial_{key}": value for key, value in state._asdict().items()}
        feed |= {} if given is None else {"lengths": given}
        outputs = run(model, feed)
        pred, final = net.forward(params, x, state=state, lengths=given)
        assert_close(outputs.pop("pred"), pred)
        assert outputs.keys() == {f"final_{key}" for key in final._fields}
        for key, value in final._asdict().items():
            assert_close(outputs[f"final_{key}"], value)


@pytest.mark.parametrize("spelling", interchange.SPELLINGS)
def test_a_stream_in_pieces_is_the_whole(spelling):
    net, params, x = problem("lstm", steps=9, num_layers=2, topology="many_to_many")
    model = interchange.to_onnx(net, params, stateful=True, spelling=spelling)
    state = {f"initial_{field}": np.zeros((2, 3, 3), np.float32) for field in "hc"}
    pieces = []
    for piece in np.split(x, [1, 3, 8], axis=1):
        outputs = run(model, {"x": piece, **state})
        pieces.append(outputs.pop("pred"))
        state = {key.replace("final", "initial"): value for key, value in outputs.items()}
    assert_close(np.concatenate(pieces, axis=1), net.forward(params, x)[0])


@pytest.mark.parametrize("name", CELLS)
def test_layer_normalisation_is_spelled_out(name):
    net, params, x = problem(name, num_layers=2, layer_norm=True, bidirectional=True)
    model = interchange.to_onnx(net, params, spelling="portable")
    assert_close(run(model, {"x": x})["pred"], net.forward(params, x)[0])
    with pytest.raises(ValueError, match="operators have none; the portable spelling has it"):
        interchange.to_onnx(net, params)


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_scaler_and_a_linear_path_are_in_every_spelling(spelled):
    net, params, x = problem("lstm", linear_lags=3)
    scaler = Scaler("standard", (10.0, -3.0), (2.0, 0.5))
    model = interchange.to_onnx(net, params, scaler=scaler, **SPELLINGS[spelled])
    pred, _ = net.forward(params, scaler.transform(x).astype(np.float32))
    expected = scaler.inverse_target(pred).astype(np.float32)
    assert_close(run(model, {"x": x})["pred"], expected)


@pytest.mark.parametrize("spelling", interchange.SPELLINGS)
@pytest.mark.parametrize("read", ["last", "mean", "max"])
def test_weights_may_be_stored_in_half_precision(spelling, read):
    net, params, x = problem("gru", bidirectional=True, read=read)
    x, given = 100.0 * x + 10_000.0, some_lengths(3, 5)
    scaler = Scaler("standard", (10_000.0, 10_000.0), (100.0, 100.0))  # in float32
    options = {"scaler": scaler, "lengths": True, "spelling": spelling}
    model = interchange.to_onnx(net, params, dtype="float16", **options)
    feed = {"x": x, "lengths": given}
    (half,) = run(model, feed).values()
    (whole,) = run(interchange.to_onnx(net, params, **options), feed).values()
    assert half.dtype == np.float32
    assert 1e-6 < np.abs(half - whole).max() / 100.0 < 1e-3
    rounded = {name: p.astype(np.float16).astype(np.float32) for name, p in params.items()}
    (expected,) = run(interchange.to_onnx(net, rounded, **options), feed).values()
    assert_close(half, expected)
    half, single = 10, 1  # onnx.TensorProto.FLOAT16 and FLOAT
    kinds = {c.data_type: c for c in model.graph.initializer if c.data_type in (half, single)}
    assert np.prod(kinds[single].dims) <= 2  # the scaler's
    assert half in kinds


def test_a_weight_that_half_precision_does_not_hold_is_an_error():
    net, params, _ = problem("lstm")
    params["readout.w_hy"][0, 0] = 1e5
    with pytest.raises(ValueError, match="float16 ends at 65504, but a weight is 100000"):
        interchange.to_onnx(net, params, dtype="float16")


def test_metadata_say_what_was_chosen_and_nothing_else():
    def facts(**options):
        props = interchange.to_onnx(net, params, **options).metadata_props
        return json.loads({entry.key: entry.value for entry in props}["rnn_xp"])

    net, params, _ = problem("lstm")
    assert facts().keys() == {"network", "scaler", "lengths"}
    chosen = {"spelling": "loop", "stateful": True, "rows": 3, "steps": 5, "dtype": "float16"}
    assert facts(**chosen).items() >= chosen.items()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spelling": "plain"}, "spelling='plain' is not known. Valid: 'native', 'portable', 'lo"),
        ({"dtype": "int8"}, "dtype='int8' is not known. Valid: 'float32', 'float16'"),
        ({"rows": 0}, "rows must be an integer >= 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer >= 1, got 2.5"),
        ({"steps": 2}, "steps must be at least linear_lags=3, got 2"),
        ({"stateful": 1}, "stateful must be True or False, got 1"),
    ],
)
def test_bad_choices_are_errors(options, words):
    net, params, _ = problem("rnn-tanh", linear_lags=3)
    with pytest.raises((ValueError, TypeError), match=words):
        interchange.to_onnx(net, params, **options)


def test_other_sizes_than_the_fixed_ones_are_an_error():
    net, params, _ = problem("rnn-tanh")
    model = interchange.to_onnx(net, params, rows=3, steps=5)
    with pytest.raises(Exception, match="Got: 4 Expected: 3"):
        run(model, {"x": np.zeros((4, 5, 2), np.float32)})
