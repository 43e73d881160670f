"""Mistakes in the readers, planted line by line, and each caught by a check with a name.

Each entry is a line of the source as it stands and as a tired engineer might have written it. The
functions of the module get the code of the changed source, and the check must fail.
"""

from __future__ import annotations

import importlib
import inspect
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from exchange import random_params, same_bits
from foreign import (
    flax_gru,
    keras_gru,
    msgpack,
    nested,
    npy,
    numbers,
    one_bias_gru,
    run,
    torch_zip,
    zipped,
)

import rnn_xp as rx
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange import load, torch

SIZES = {"input_size": 4, "hidden_size": 4, "output_size": 4}  # shapes show nothing
X = np.random.default_rng(5).standard_normal((4, 6, 4))


def loaded(path, data, **hints):
    path.write_bytes(data)
    return load(path, **hints)


def differs(result, step, weight, bias):
    net, params, _ = result
    expected = run(step, X, 4) @ weight + bias
    return np.abs(net.forward(params, X)[0] - expected).max() > 1e-9


def state_comes_back(path, cell="gru", **options):
    net = rx.Network(cell=cell, **SIZES, **options)
    params = random_params(net, 0, "float64")
    result = loaded(path, torch_zip(torch.to_state_dict(net, params)))
    assert result.net == net
    assert same_bits(result.params, params)


def a_zip_of_two_layers_and_directions_comes_back(path):
    state_comes_back(path, num_layers=2, bidirectional=True)


def a_transposed_tensor_keeps_its_order(path):
    net = rx.Network(**SIZES)
    params = random_params(net, 0, "float64")
    state = torch.to_state_dict(net, params)
    state["rnn.weight_hh_l0"] = state["rnn.weight_hh_l0"].T  # its bytes are in the other order
    data = torch_zip(state)
    result = loaded(path, data)
    stored = np.frombuffer(state["rnn.weight_hh_l0"].tobytes(), float)
    expected = np.lib.stride_tricks.as_strided(stored, (4, 4), (8, 32))
    np.testing.assert_array_equal(result.params["layer0.w_hh"], expected)


def a_stranger_is_refused(path):
    with pytest.raises(CheckpointError, match=r"asks for os\.system"):
        loaded(path, torch_zip({"a": np.ones(1)}, call=b"cos\nsystem\n"))


def a_tensor_beyond_its_storage_is_refused(path):
    data = b"\x80\x02}X\x01\x00\x00\x00aK\x00s."
    with pytest.raises(CheckpointError, match="has no state_dict"):
        loaded(path, data)
    from rnn_xp.interchange.reading import machine

    storage = machine.Storage("float64", 4, lambda: bytes(32))
    with pytest.raises(ValueError, match="beyond"):
        machine._tensor("<", storage, 1, (4,), (1,))


def flax_comes_out_right(path):
    w = numbers(
        0, ir__kernel=(4, 4), iz__kernel=(4, 4), in__kernel=(4, 4), ir__bias=4, iz__bias=4,
        in__bias=4, hr__kernel=(4, 4), hz__kernel=(4, 4), hn__kernel=(4, 4), hn__bias=4,
    )  # fmt: skip
    head = numbers(1, kernel=(4, 4), bias=4)
    result = loaded(path, msgpack({"params": {"GRUCell_0": nested(w), "Dense_0": head}}))
    assert not differs(result, flax_gru(w), head["kernel"], head["bias"])


def keras_comes_out_right(path):
    w, head = numbers(0, k=(4, 12), r=(4, 12), b=(2, 12)), numbers(1, kernel=(4, 4), bias=4)
    names = {"gru.kernel": w["k"], "gru.recurrent_kernel": w["r"], "gru.bias": w["b"]}
    names |= {f"dense.{name}": array for name, array in head.items()}
    result = loaded(path, safetensors.numpy.save(names))
    step = keras_gru(w["k"], w["r"], w["b"], reset_after=True)
    assert not differs(result, step, head["kernel"], head["bias"])


def equinox_comes_out_right(path):
    w = numbers(0, x=(12, 4), h=(12, 4), b=12, n=4, weight=(4, 4), bias=4)
    result = loaded(path, npy(*w.values()))
    assert not differs(
        result, one_bias_gru(w["x"], w["h"], w["b"], w["n"]), w["weight"].T, w["bias"]
    )


def paddle_comes_out_right(path):
    net = rx.Network(cell="lstm", **SIZES)
    params = random_params(net, 0, "float64")
    state = torch.to_state_dict(net, params)
    twice = {f"rnn.0.cell.{kind}": state[f"rnn.{kind}_l0"] for kind in ("weight_ih", "weight_hh")}
    state["readout.weight"] = np.ascontiguousarray(state["readout.weight"].T)
    assert same_bits(loaded(path, safetensors.numpy.save({**state, **twice})).params, params)


def layers_are_in_the_order_of_their_numbers(path):
    shapes = {"Wxh": (4, 4), "Whh": (4, 4), "bias": 4}
    each = {f"layers.{n}.{name}": shape for n in range(11) for name, shape in shapes.items()}
    arrays = numbers(0, **each, **{"o.weight": (4, 4), "o.bias": 4})
    result = loaded(path, safetensors.numpy.save(arrays))
    for n in range(11):
        np.testing.assert_array_equal(result.params[f"layer{n}.w_hh"], arrays[f"layers.{n}.Whh"])


def folded_weights_are_scaled_by_rows(path):
    state = torch.to_state_dict(net := rx.Network(**SIZES), random_params(net, 0, "float64"))
    v, g = state.pop("rnn.weight_hh_l0"), np.asarray([[1.0], [2.0], [3.0], [4.0]])
    more = {"rnn.weight_hh_l0_g": g, "rnn.weight_hh_l0_v": v}
    w_hh = loaded(path, torch_zip({**state, **more})).params["layer0.w_hh"]
    np.testing.assert_allclose(np.linalg.norm(w_hh, axis=1), [1, 2, 3, 4])


def bfloat16_is_the_upper_half_of_float32(path):
    from rnn_xp.interchange.reading.content import widened

    bits = np.asarray([0x3F80, 0xC049], np.uint16)
    assert widened(bits, "bfloat16").tolist() == [1.0, -3.140625]


def an_array_without_a_place_is_refused(path):
    state = torch.to_state_dict(net := rx.Network(**SIZES), random_params(net, 0, "float64"))
    with pytest.raises(CheckpointError, match="gain is no part"):
        loaded(path, torch_zip({**state, "gain": np.ones(4)}))


def an_assumption_is_listed(path):
    state = torch.to_state_dict(net := rx.Network(**SIZES), random_params(net, 0, "float64"))
    assert loaded(path, torch_zip(state)).assumed.get("activation") == "tanh"


def a_zip_of_too_much_is_refused(path):
    data = zipped({"a.npy": bytes(10_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="unpacks to 10000 bytes, over the limit of 1000"):
        loaded(path, data, limit=1000)


MISTAKES = [
    ("stack", "rest[merged:] = 0", "pass", flax_comes_out_right),
    ("stack", "second[merged:].copy())", "first[merged:].copy())", flax_comes_out_right),
    ("dialects", '"gru": (1, 0, 2)', '"gru": (0, 1, 2)', keras_comes_out_right),
    ("dialects", "list(bias) if", "list(bias[::-1]) if", keras_comes_out_right),
    ("dialects", '"gru": "rzn"', '"gru": "zrn"', flax_comes_out_right),
    ("dialects", 'ends = ("", "_reverse")', 'ends = ("_reverse", "")',
     a_zip_of_two_layers_and_directions_comes_back),
    ("dialects", "np.zeros(2 * len(own), own.dtype), own]", "own, np.zeros(2 * len(own))]",
     equinox_comes_out_right),
    ("names", "paddle = True", "paddle = False", paddle_comes_out_right),
    ("names", "weight = weight.T if transposed else weight", "weight = weight.T",
     equinox_comes_out_right),
    ("names", 'transposed = paddle or modules[0].library in ("Keras", "Flax")',
     'transposed = paddle or modules[0].library == "Keras"', flax_comes_out_right),
    ("names", "int(number or -1)", "number", layers_are_in_the_order_of_their_numbers),
    ("names", "raise ValueError(_homeless(left, rest))", "pass",
     an_array_without_a_place_is_refused),
    ("machine", "if name in _CALLS or", "if True or", a_stranger_is_refused),
    ("machine", "last >= storage.size", "last > storage.size",
     a_tensor_beyond_its_storage_is_refused),
    ("machine", "steps = [step * dtype.itemsize for step in stride]",
     "steps = [n * dtype.itemsize for n in (*size[1:], 1)]", a_transposed_tensor_keeps_its_order),
    ("folding", "if g.ndim != v.ndim or g.shape[at] == 1", "", folded_weights_are_scaled_by_rows),
    ("content", "astype(np.uint32) << 16", "astype(np.uint32) << 15",
     bfloat16_is_the_upper_half_of_float32),
    ("stack", "notes[name] = DEFAULTS[name]", "pass", an_assumption_is_listed),
    ("zipped", "> limit:", "> limit << 40:", a_zip_of_too_much_is_refused),
]  # fmt: skip


def planted(monkeypatch, where, old, new):
    """Give the functions of a module, and its tables, the code of the changed source."""
    module = importlib.import_module(f"rnn_xp.interchange.reading.{where}")
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is not in {where} any more, or twice"
    changed: dict[str, object] = {"__name__": module.__name__}
    exec(compile(source.replace(old, new), module.__file__, "exec"), changed)
    for name, value in vars(module).copy().items():
        if inspect.isfunction(value) and value.__module__ == module.__name__:
            monkeypatch.setattr(value, "__code__", changed[name].__code__)
        elif isinstance(value, dict) and not any(map(callable, value.values())):
            monkeypatch.setattr(module, name, changed[name])


@pytest.mark.parametrize(
    ("where", "old", "new", "check"), MISTAKES,
    ids=[f"{where}-{check.__name__}-{n}" for n, (where, *_, check) in enumerate(MISTAKES)],
)  # fmt: skip
def test_a_planted_mistake_is_caught(tmp_path, monkeypatch, where, old, new, check):
    check(tmp_path / "file")
    planted(monkeypatch, where, old, new)
    with pytest.raises((AssertionError, CheckpointError, pytest.fail.Exception)):
        check(tmp_path / "file")


GRAPH_MISTAKES = [
    ("recurrent", '"lstm": (0, 2, 3, 1)', '"lstm": (0, 3, 1, 2)', "lstm", {}),
    ("recurrent", '"gru": (1, 0, 2)', '"gru": (0, 1, 2)', "gru", {}),
    ("recurrent", 'attributes.get("linear_before_reset", 0)', "1", "before", {}),
    ("recurrent", "0 if flip else -1", "-1 if flip else 0", "lstm", {}),
    ("recurrent", "reorder(b[rows:], order)", "reorder(b[:rows], order)", "gru", {}),
    ("heads", "np.where(reverse[unit], 0, steps - 1)", "np.where(reverse[unit], 1, steps - 1)",
     "lstm", {"bidirectional": True}),
    ("build", "places.get(source, 0) + column", "column", "lstm",
     {"bidirectional": True, "num_layers": 2}),
    ("moves", "value.shape[at] if n == 0", "value.shape[0] if n == 0", "lstm", {}),
]  # fmt: skip


@pytest.mark.interchange
@pytest.mark.parametrize(
    ("where", "old", "new", "cell", "options"), GRAPH_MISTAKES,
    ids=[f"{where}-{n}" for n, (where, *_) in enumerate(GRAPH_MISTAKES)],
)  # fmt: skip
def test_a_mistake_in_reading_a_graph_never_gives_another_network(
    tmp_path, monkeypatch, where, old, new, cell, options
):
    """The graph is refused then: it and the network are compared before anything is returned."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from graphs import Graph

    kinds = {"before": {"cell": "gru", "reset_after": False}}.get(cell, {"cell": cell})
    net = rx.Network(**SIZES, **kinds, **options)
    params = random_params(net, 0)
    graph = Graph(("batch", "time", 4))
    xs = graph.add("Transpose", "x", perm=[1, 0, 2])
    for layer in range(net.num_layers):
        y, h, *_ = graph.recurrent(net, params, xs, layer=layer)
        y = graph.add("Transpose", y, perm=[0, 2, 1, 3])
        xs = graph.add("Reshape", y, graph.whole(0, 0, -1))
    h = graph.add("Reshape", graph.add("Transpose", h, perm=[1, 0, 2]), graph.whole(0, -1))
    data = graph.bytes(graph.readout(params, h))
    assert loaded(tmp_path / "file", data).net == net
    planted(monkeypatch, f"graphs.{where}", old, new)
    with pytest.raises(CheckpointError):
        loaded(tmp_path / "file", data)
