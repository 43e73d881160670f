"""Weights in the layouts of PyTorch and Keras, on plain arrays and in files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from exchange import CELLS, networks, random_params, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import rnn_xp as rx
from rnn_xp import checkpoint
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange import files, keras, torch

EXAMPLES = settings(max_examples=60, deadline=None)
IN_PYTORCH = [name for name in CELLS if name != "gru-reset-before"]


def with_zeros(params):
    """Zeros of both signs among the biases, where a sum of two could lose the sign."""
    for name, p in params.items():
        if ".b_" in name:
            p[::2] = -0.0
    return params


@EXAMPLES
@given(networks(IN_PYTORCH), st.integers(0, 99), st.sampled_from(["float32", "float64"]))
def test_here_to_pytorch_to_here_is_equal_to_the_bit(net, seed, dtype):
    params = with_zeros(random_params(net, seed, dtype))
    state = torch.to_state_dict(net, params, rnn="core", readout="")
    assert same_bits(torch.from_state_dict(net, state, rnn="core", readout=""), params)


@EXAMPLES
@given(networks(), st.integers(0, 99), st.sampled_from(["float32", "float64"]))
def test_here_to_keras_to_here_is_equal_to_the_bit(net, seed, dtype):
    params = with_zeros(random_params(net, seed, dtype))
    weights = keras.to_weights(net, params)
    assert len(weights) == len(keras.weight_names(net))
    assert same_bits(keras.from_weights(net, weights), params)


@EXAMPLES
@given(networks(IN_PYTORCH), st.sampled_from(["rnn", "", "a.b"]))
def test_the_network_is_inferred_from_a_state_dict(net, rnn):
    state = torch.to_state_dict(net, random_params(net, 0), rnn=rnn, readout="head.1")
    found = torch.infer_network(state, activation=net.activation if net.cell == "rnn" else "tanh")
    assert found == (net, rnn, "head.1")


def test_names_and_shapes_are_pytorchs():
    net = rx.Network(
        cell="lstm", num_layers=2, bidirectional=True, input_size=3, hidden_size=5, output_size=2
    )
    shapes = {k: v.shape for k, v in torch.to_state_dict(net, random_params(net, 0)).items()}
    assert shapes == {
        f"rnn.{what}_{to}_l{layer}{tail}": (20,) if what == "bias" else (20, width)
        for layer in (0, 1)
        for tail in ("", "_reverse")
        for what in ("weight", "bias")
        for to, width in (("ih", 10 if layer else 3), ("hh", 5))
    } | {"readout.weight": (2, 10), "readout.bias": (2,)}


def test_gates_lie_where_they_belong():
    """H = 1, so that a gate is a row here and a column in Keras."""
    net = rx.Network(cell="gru", hidden_size=1)
    params = random_params(net, 0)
    params |= {"layer0.w_xh": np.asarray([[1], [2], [3]], "f4")}  # r, z, n
    params |= {"layer0.b_h": np.asarray([4, 5, 6], "f4"), "layer0.b_hn": np.asarray([7], "f4")}
    state = torch.to_state_dict(net, params)
    assert state["rnn.weight_ih_l0"].tolist() == [[1], [2], [3]]
    assert state["rnn.bias_ih_l0"].tolist() == [4, 5, 6]
    assert state["rnn.bias_hh_l0"].tolist() == [0, 0, 7]
    kernel, _, bias, *_ = keras.to_weights(net, params)
    assert kernel.tolist() == [[2, 1, 3]]  # z, r, h
    assert bias.tolist() == [[5, 4, 6], [0, 0, 7]]


@pytest.mark.parametrize("name", IN_PYTORCH)
def test_two_biases_become_their_sum_except_in_the_candidate(name):
    net = rx.Network(**CELLS[name], hidden_size=3)
    state = torch.to_state_dict(net, random_params(net, 0))
    second = state["rnn.bias_hh_l0"]
    second[...] = np.arange(len(second)) + 1
    params, first = torch.from_state_dict(net, state), state["rnn.bias_ih_l0"]
    if net.cell == "gru":
        assert params["layer0.b_hn"].tolist() == second[6:].tolist()
        second = np.concatenate([second[:6], np.zeros(3, "f4")])
    assert params["layer0.b_h"].tolist() == (first + second).tolist()


def test_half_precision_becomes_single():
    net = rx.Network(hidden_size=3)
    state = torch.to_state_dict(net, random_params(net, 0))
    halves = {name: array.astype(np.float16) for name, array in state.items()}
    found = torch.from_state_dict(net, halves)
    assert all(p.dtype == np.float32 for p in found.values())
    assert np.array_equal(found["layer0.w_hh"], halves["rnn.weight_hh_l0"])


def test_arrays_of_other_libraries_are_taken():
    backend = rx.get_backend("array_api_strict")
    net = rx.Network(cell="lstm", hidden_size=3)
    params = random_params(net, 0)
    there = {name: backend.asarray(p) for name, p in params.items()}
    assert same_bits(torch.from_state_dict(net, torch.to_state_dict(net, there)), params)
    assert same_bits(keras.from_weights(net, keras.to_weights(net, there)), params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("rnn.weight_hh_l0"), "rnn.weight_hh_l0 is missing"),
        (lambda s: s.update({"rnn.weight_ih_l1": s["rnn.weight_ih_l0"]}), "weight_ih_l1 is not kn"),
        (lambda s: s.update({"readout.bias": np.zeros(2)}), r"readout.bias must have shape \(1,\)"),
        (lambda s: s.update({"rnn.bias_hh_l0": np.zeros(20)}), "bias_hh_l0 is float64, but all"),
        (lambda s: s.update({"rnn.bias_hh_l0": np.zeros(20, int)}), "bias_hh_l0 is int64, but"),
        (lambda s: s.update({"readout.bias": [0.0]}), "readout.bias cannot become a NumPy"),
        (lambda s: s["rnn.bias_hh_l0"].fill(np.nan), "bias_hh_l0 has values that are not finite"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_an_error_that_names_the_tensor(change, message):
    net = rx.Network(cell="lstm", hidden_size=5)
    state = torch.to_state_dict(net, random_params(net, 0))
    change(state)
    with pytest.raises(ValueError, match=message):
        torch.from_state_dict(net, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(), "readout.bias is missing"),
        (lambda w: w.append(w[0]), "a weight after readout.bias is not known"),
        (lambda w: w.insert(0, w.pop(1)), r"layer0.kernel must have shape \(2, 15\), got \(5, 15"),
        (lambda w: w.insert(2, w.pop(2)[0]), r"layer0.bias must have shape \(2, 15\)"),
    ],
)
def test_keras_weights_that_do_not_fit_are_an_error_that_names_one(change, message):
    net = rx.Network(cell="gru", input_size=2, hidden_size=5)
    weights = keras.to_weights(net, random_params(net, 0))
    change(weights)
    with pytest.raises(ValueError, match=message):
        keras.from_weights(net, weights)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer_norm": True}, "cannot express layer_norm=True"),
        ({"residual": True, "num_layers": 2}, "cannot express residual=True"),
        ({"linear_lags": 2}, "cannot express linear_lags=2"),
        ({"cell": "gru", "reset_after": False}, "PyTorch cannot express reset_after=False"),
        ({"cell": "mingru"}, "cannot express cell='mingru': it has the cells 'rnn', 'gru', 'lstm'"),
    ],
)
@pytest.mark.usefixtures("mingru")
def test_what_has_no_form_is_refused(options, words):
    net = rx.Network(hidden_size=3, **options)
    with pytest.raises(ValueError, match=words):
        torch.to_state_dict(net, random_params(net, 0))
    with pytest.raises(ValueError, match=words):
        torch.from_state_dict(net, {})
    if "reset_after" not in options:
        with pytest.raises(ValueError, match=words):
            keras.to_weights(net, random_params(net, 0))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "exactly one nn.RNN, nn.GRU or nn.LSTM is required, found 0"),
        ({"a.weight_hh_l0": (6, 2), "b.weight_hh_l0": (6, 2)}, "found 2: a.weight_hh_l0, b.wei"),
        ({"weight_hh_l0": (6, 2)}, "exactly one nn.Linear is required, found 0"),
        (
            {"weight_hh_l0": (4, 2), "o.weight": (1, 2), "weight_ih_l0": (4, 1)},
            "belongs to no known cell",
        ),
        ({"weight_hh_l0": (4,), "o.weight": (1, 2)}, "belongs to no known cell"),
        ({"weight_hh_l0": (0, 0), "o.weight": (1, 2)}, "belongs to no known cell"),
        ({"weight_hh_l0": (6, 2), "o.weight": (1, 2)}, "weight_ih_l0"),
    ],
)
def test_a_state_dict_of_something_else_is_not_inferred(state, words):
    with pytest.raises(ValueError, match=words):
        torch.infer_network({name: np.zeros(shape) for name, shape in state.items()})


class TestFiles:
    @pytest.mark.parametrize("layout", ["torch", "keras"])
    @pytest.mark.parametrize("name", IN_PYTORCH)
    def test_there_and_back(self, tmp_path, name, layout):
        net = rx.Network(**CELLS[name], hidden_size=3, num_layers=2, bidirectional=True)
        params = random_params(net, 0)
        files.save(tmp_path / "f", layout, net, params, {"seq_length": 7})
        found = files.load(tmp_path / "f")
        assert (found.net, found.layout, found.about) == (net, layout, {"seq_length": 7})
        assert same_bits(found.params, params)

    def test_they_are_plain_safetensors(self, tmp_path):
        net = rx.Network(cell="gru", hidden_size=3, input_size=2, num_layers=12)
        params = random_params(net, 0)
        files.save(tmp_path / "t", "torch", net, params)
        assert same_bits(
            safetensors.numpy.load_file(tmp_path / "t"), torch.to_state_dict(net, params)
        )
        files.save(tmp_path / "k", "keras", net, params)
        tensors = safetensors.numpy.load_file(tmp_path / "k")
        weights = [tensors[name] for name in sorted(tensors)]
        for read, written in zip(weights, keras.to_weights(net, params), strict=True):
            assert np.array_equal(read, written)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"gates": "z,r,h"}, "its gates are in the order z,r,h, but torch has r,z,n"),
            ({"layout": "keras"}, "its gates are in the order r,z,n, but keras has z,r,h"),
            ({"layout": "flax"}, "layout='flax' is not known"),
            ({"layout": None}, "of rnn_xp's own kind"),
            ({"interchange": 2}, "is of schema 2, but this version reads 1"),
            ({"network": {"hidden_size": 4, "cell": "gru"}}, "must have shape"),
            ({"network": {"hidden_size": 0}}, "hidden_size must be an integer >= 1"),
            ({"network": {"width": 3}}, "unexpected keyword"),
            ({"network": {"hidden_size": 3, "num_layers": 10**12, "cell": "gru"}}, "cannot have"),
        ],
    )
    def test_a_description_that_does_not_fit_is_an_error(self, tmp_path, change, words):
        net = rx.Network(cell="gru", hidden_size=3)
        tensors = torch.to_state_dict(net, random_params(net, 0))
        about = {"interchange": 1, "layout": "torch", "gates": "r,z,n", "about": {}}
        about |= {"network": dataclasses.asdict(net), **change}
        checkpoint.save(tmp_path / "f", tensors, about)
        with pytest.raises(CheckpointError, match=words):
            files.load(tmp_path / "f")

    @pytest.mark.parametrize("layout", ["torch", "keras"])
    @pytest.mark.parametrize(("lost", "words"), [(True, "is missing"), (False, "is not known")])
    def test_a_tensor_lost_or_added_is_named(self, tmp_path, layout, lost, words):
        net = rx.Network(cell="gru", hidden_size=3)
        files.save(tmp_path / "f", layout, net, random_params(net, 0))
        tensors, about = checkpoint.load(tmp_path / "f")
        name = sorted(tensors)[-1] if lost else "extra"
        tensors = {k: v for k, v in tensors.items() if k != name} if lost else tensors
        tensors |= {} if lost else {name: np.zeros(3)}
        checkpoint.save(tmp_path / "f", tensors, about)
        with pytest.raises(CheckpointError, match=f"{name} {words}"):
            files.load(tmp_path / "f")

    def test_a_run_is_no_file_for_others(self, tmp_path):
        checkpoint.save(tmp_path / "f", {"w": np.zeros(3)}, {"schema": 1})
        with pytest.raises(CheckpointError, match="of rnn_xp's own kind, not of weights for oth"):
            files.load(tmp_path / "f")

    def test_an_unknown_layout_writes_nothing(self, tmp_path):
        net = rx.Network(hidden_size=3)
        with pytest.raises(ValueError, match="layout='onnx' is not known. Valid: torch, keras"):
            files.save(tmp_path / "f", "onnx", net, random_params(net, 0))
        assert list(tmp_path.iterdir()) == []

    def test_foreign_files_are_read_as_they_are_and_can_be_written_to(self, tmp_path):
        arrays = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.zeros((), np.int64)}
        safetensors.numpy.save_file(arrays, tmp_path / "f", {"format": "pt"})
        found = files.read_foreign(tmp_path / "f")
        assert same_bits(found, arrays)
        found["a"][...] = 0

    def test_what_was_written_here_is_not_foreign_and_the_reverse(self, tmp_path):
        net = rx.Network(hidden_size=3)
        files.save(tmp_path / "own", "torch", net, random_params(net, 0))
        with pytest.raises(CheckpointError, match="was written by rnn_xp"):
            files.read_foreign(tmp_path / "own")
        safetensors.numpy.save_file({"a": np.zeros(3)}, tmp_path / "foreign")
        with pytest.raises(CheckpointError, match="has no digest"):
            files.load(tmp_path / "foreign")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "cannot be read as a safetensors file"),
            (b"\xff" * 100, "cannot be read as a safetensors file"),
            ("F8_E4M3", "has numbers of the kind 'float8_E4M3', which are not read"),
        ],
    )
    def test_a_foreign_file_that_cannot_be_read_is_one_error(self, tmp_path, content, words):
        if isinstance(content, str):
            header = {"a": {"dtype": content, "shape": [4], "data_offsets": [0, 4]}}
            text = json.dumps(header).encode()
            content = len(text).to_bytes(8, "little") + text + bytes(4)
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            files.read_foreign(tmp_path / "f")

    def test_folders_and_large_files_are_refused_before_they_are_read(self, tmp_path):
        with pytest.raises((CheckpointError, OSError)):
            files.read_foreign(tmp_path)
        (tmp_path / "f").write_bytes(bytes(100))
        with pytest.raises(CheckpointError, match="has 100 bytes, over the limit of 99"):
            files.read_foreign(tmp_path / "f", limit=99)
        with pytest.raises(FileNotFoundError):
            files.read_foreign(tmp_path / "nothing")
