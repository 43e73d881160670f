"""Every kind of file that needs no other library: the same network, or a refusal by name."""

from __future__ import annotations

import re

import numpy as np
import pytest
import safetensors.numpy
from exchange import random_params, same_bits
from foreign import (
    flax_gru,
    flax_lstm,
    keras_gru,
    msgpack,
    nested,
    npy,
    numbers,
    one_bias_gru,
    pickled,
    run,
    text,
    torch_zip,
    zipped,
)

import rnn_xp as rx
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.data.scalers import Scaler
from rnn_xp.interchange import files, keras, load, torch

NET = rx.Network(cell="gru", input_size=3, hidden_size=4, output_size=2, num_layers=2)
X = np.random.default_rng(5).standard_normal((4, 6, 3))
HEAD = {"fc.weight": (2, 4), "fc.bias": (2,)}


def state_of(net=NET, seed=0, dtype="float64", **names):
    return torch.to_state_dict(net, random_params(net, seed, dtype), **names)


def loaded(tmp_path, data, name="file", **hints):
    path = tmp_path / name
    path.write_bytes(data)
    return load(path, **hints)


def predict(result):
    net, params, _ = result
    return net.forward(params, X.astype(params["readout.w_hy"].dtype))[0]


def refused(tmp_path, data, match, **hints):
    with pytest.raises(CheckpointError, match=re.escape(match)) as caught:
        loaded(tmp_path, data, **hints)
    assert str(tmp_path / "file") in str(caught.value)


class TestKinds:
    def test_a_file_of_pytorch_is_read_without_pytorch(self, tmp_path):
        params = random_params(NET, 0, "float64")
        result = loaded(tmp_path, torch_zip(torch.to_state_dict(NET, params)))
        assert result.net == NET
        assert same_bits(result.params, params)
        assert result.kind == "PyTorch zip file"

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_safetensors_and_npz_with_the_names_of_pytorch(self, tmp_path, dtype):
        params = random_params(NET, 0, dtype)
        state = torch.to_state_dict(NET, params, rnn="module.enc", readout="module.head.1")
        np.savez(tmp_path / "f.npz", **state)
        for data in (safetensors.numpy.save(state), (tmp_path / "f.npz").read_bytes()):
            result = loaded(tmp_path, data)
            assert (result.net, same_bits(result.params, params)) == (NET, True)

    def test_bfloat16_is_widened_exactly(self, tmp_path):
        state = state_of(dtype="float32")
        bits = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in state.items()}
        data = safetensors.numpy.save(bits).replace(b'"U16"', b'"BF16"')
        length = int.from_bytes(data[:8], "little") + data.count(b'"BF16"')
        header = data[8 : 8 + length].rstrip()
        header += b" " * (-len(header) % 8)
        data = len(header).to_bytes(8, "little") + header + data[8 + length :]
        exact = {k: (v.astype(np.uint32) << 16).view(np.float32) for k, v in bits.items()}
        assert same_bits(loaded(tmp_path, data).params, torch.from_state_dict(NET, exact))

    def test_float16_is_widened_before_biases_are_added(self, tmp_path):
        state = {k: v.astype(np.float16) for k, v in state_of(dtype="float32").items()}
        state["rnn.bias_hh_l0"] = np.full_like(state["rnn.bias_hh_l0"], 1e-4)
        wide = {k: v.astype(np.float32) for k, v in state.items()}
        result = loaded(tmp_path, safetensors.numpy.save(state))
        assert same_bits(result.params, torch.from_state_dict(NET, wide))

    @pytest.mark.parametrize("layout", ["torch", "keras"])
    def test_a_file_of_ours_is_verified_and_assumes_nothing(self, tmp_path, layout):
        net, params = rx.Network(hidden_size=4, read="mean"), None
        params = random_params(net, 0)
        about = {"scaler": {"kind": "standard", "offset": [2.0], "scale": [3.0]}}
        files.save(tmp_path / "f", layout, net, params, about)
        result = load(tmp_path / "f")
        assert (result.net, result.assumed, same_bits(result.params, params)) == (net, {}, True)
        assert result.scaler == Scaler("standard", (2.0,), (3.0,))
        with pytest.raises(CheckpointError, match="read='max' contradicts the file, which says"):
            load(tmp_path / "f", read="max")

    def test_a_file_of_ours_whose_mark_is_damaged_is_not_taken_for_one_of_others(self, tmp_path):
        net = rx.Network(hidden_size=4)
        files.save(tmp_path / "f", "torch", net, random_params(net, 0))
        data = (tmp_path / "f").read_bytes()
        refused(tmp_path, data.replace(b'"rnn_xp"', b'"rnn_xq"', 1), "was written by rnn_xp")

    def test_flax_msgpack_of_a_gru(self, tmp_path):
        w = numbers(
            0, ir__kernel=(3, 4), iz__kernel=(3, 4), in__kernel=(3, 4), ir__bias=4, iz__bias=4,
            in__bias=4, hr__kernel=(4, 4), hz__kernel=(4, 4), hn__kernel=(4, 4), hn__bias=4,
        )  # fmt: skip
        head = numbers(1, kernel=(4, 2), bias=2)
        tree = {"params": {"GRUCell_0": nested(w), "Dense_0": head}, "step": 3}
        result = loaded(tmp_path, msgpack(tree))
        expected = run(flax_gru(w), X, 4) @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(predict(result), expected, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("forget", ["if", "if_"])
    def test_flax_msgpack_of_an_lstm(self, tmp_path, forget):
        shapes = {f"i{k}.kernel": (3, 4) for k in "ifgo"} | {f"h{k}.kernel": (4, 4) for k in "ifgo"}
        w = numbers(0, **shapes, **{f"h{k}.bias": 4 for k in "ifgo"})
        head = numbers(1, kernel=(4, 2), bias=2)
        names = {name.replace("if.", f"{forget}."): array for name, array in w.items()}
        result = loaded(tmp_path, msgpack({"rnn": {"cell": nested(names)}, "out": head}))
        start = (np.zeros((4, 4)), np.zeros((4, 4)))
        expected = run(flax_lstm(w), X, 4, start) @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(predict(result), expected, rtol=0, atol=1e-14)

    def test_flax_nnx_of_a_gru_has_no_bias_inside_the_reset_gate(self, tmp_path):
        w = numbers(0, dense_i__kernel=(3, 12), dense_i__bias=12, dense_h__kernel=(4, 12))
        head = numbers(1, kernel=(4, 2), bias=2)
        result = loaded(tmp_path, msgpack({"rnn": {"cell": nested(w)}, "out": head}))
        step = one_bias_gru(w["dense_i.kernel"].T, w["dense_h.kernel"].T, w["dense_i.bias"], 0.0)
        expected = run(step, X, 4) @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(predict(result), expected, rtol=0, atol=1e-14)

    @pytest.mark.parametrize(
        "names", [("Wx", "Wh", "b", "bhn"), ("weight_ih", "weight_hh", "bias", "bias_n")]
    )
    def test_one_bias_and_the_candidates_own_of_mlx_and_equinox(self, tmp_path, names):
        w = numbers(0, x=(12, 3), h=(12, 4), b=12, n=4)
        head = numbers(1, **HEAD)
        arrays = {f"layers.0.{name}": w[key] for name, key in zip(names, "xhbn", strict=True)}
        result = loaded(tmp_path, safetensors.numpy.save({**arrays, **head}))
        step = one_bias_gru(w["x"], w["h"], w["b"], w["n"])
        expected = run(step, X, 4) @ head["fc.weight"].T + head["fc.bias"]
        np.testing.assert_allclose(predict(result), expected, rtol=0, atol=1e-14)

    def test_eqx_has_places_and_no_names(self, tmp_path):
        w = numbers(0, x=(12, 3), h=(12, 4), b=12, n=4, weight=(2, 4), bias=2)
        result = loaded(tmp_path, npy(*w.values()))
        step = one_bias_gru(w["x"], w["h"], w["b"], w["n"])
        expected = run(step, X, 4) @ w["weight"].T + w["bias"]
        np.testing.assert_allclose(predict(result), expected, rtol=0, atol=1e-14)
        with_line = loaded(tmp_path, b'{"hidden": 4}\n' + npy(*w.values()))
        assert same_bits(with_line.params, result.params)

    @pytest.mark.parametrize("reset_after", [True, False])
    def test_keras_gru_by_the_shape_of_its_bias(self, tmp_path, reset_after):
        w = numbers(0, k=(3, 12), r=(4, 12), b=(2, 12) if reset_after else 12)
        head = numbers(1, kernel=(4, 2), bias=2)
        names = {"gru.kernel": w["k"], "gru.recurrent_kernel": w["r"], "gru.bias": w["b"]}
        names |= {f"dense.{name}": array for name, array in head.items()}
        result = loaded(tmp_path, safetensors.numpy.save(names))
        assert result.net.reset_after is reset_after
        step = keras_gru(w["k"], w["r"], w["b"], reset_after)
        expected = run(step, X, 4) @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(predict(result), expected, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("square", [True, False])
    def test_a_linear_of_paddle_is_transposed(self, tmp_path, square):
        net = rx.Network(cell="lstm", input_size=3, hidden_size=4, output_size=4 if square else 2)
        params = random_params(net, 0, "float64")
        state = torch.to_state_dict(net, params)
        twice = {"rnn.0.cell." + name.split(".")[1].removesuffix("_l0"): array
                 for name, array in state.items() if name.startswith("rnn")}  # fmt: skip
        state["readout.weight"] = np.ascontiguousarray(state["readout.weight"].T)
        result = loaded(tmp_path, safetensors.numpy.save({**state, **twice}))
        assert (result.net, same_bits(result.params, params)) == (net, True)

    @pytest.mark.parametrize(
        ("data", "match"),
        [
            (b"", "is of no kind that is read"),
            (b"\x1f\x8b" + bytes(20), "is a gzip file; unpack it first"),
            (b"GGUF" + bytes(20), "is a GGUF file"),
            (bytes(4) + b"TFL3" + bytes(20), "is a TensorFlow Lite model"),
            (b'{"a": 1}', "is a text in JSON"),
            (zipped({"word/document.xml": b""}), "is a zip file of word/document.xml"),
            (zipped({"m/data.pkl": b"", "m/constants.pkl": b""}), "is a TorchScript archive"),
            (zipped({"m/archive_format": b"pt2"}), "is a program of torch.export"),
            (b"\x80\x04N.", "has no state_dict"),
            (b"\x80\x02cposix\nsystem\n(X\x04\x00\x00\x00exittR.", "asks for posix.system"),
            (bytes(range(256)), "is of no kind that is read"),
        ],
    )  # fmt: skip
    def test_other_kinds_are_refused_by_name(self, tmp_path, data, match):
        refused(tmp_path, data, match)

    def test_a_folder_is_refused_by_name(self, tmp_path):
        (tmp_path / "file").mkdir()
        (tmp_path / "file" / "_METADATA").touch()
        with pytest.raises(CheckpointError, match=r"file: is a checkpoint of Orbax.*to_bytes"):
            load(tmp_path / "file")


class TestWords:
    def test_what_nobody_said_is_listed(self, tmp_path):
        net = rx.Network(hidden_size=4)
        assert loaded(tmp_path, torch_zip(state_of(net))).assumed == {
            "topology": "many_to_one", "activation": "tanh", "read": "last",
            "output_activation": "identity", "scaler": "none",
        }  # fmt: skip

    def test_what_is_said_is_taken_and_not_listed(self, tmp_path):
        net = rx.Network(hidden_size=4, activation="relu", read="max", output_activation="sigmoid")
        scaler = Scaler("standard", (20.0,), (3.0,))
        result = loaded(
            tmp_path, torch_zip(state_of(net)), topology="many_to_one", activation="relu",
            read="max", output_activation="sigmoid", scaler=scaler,
        )  # fmt: skip
        assert (result.net, result.assumed, result.scaler) == (net, {}, scaler)

    def test_a_hint_that_no_network_takes_is_refused_before_the_file_is_read(self):
        with pytest.raises(ValueError, match="activation='elu' is not known"):
            load("nowhere", activation="elu")

    def test_a_scaler_of_other_columns_is_refused(self, tmp_path):
        (tmp_path / "file").write_bytes(torch_zip(state_of()))
        with pytest.raises(ValueError, match="the scaler has 1 columns, but .*file has 3 inputs"):
            load(tmp_path / "file", scaler=Scaler("none", (0.0,), (1.0,)))

    def test_a_missing_file_is_named(self):
        with pytest.raises(FileNotFoundError, match="there is no file or folder nowhere"):
            load("nowhere")

    def test_names_give_arrays_other_names(self, tmp_path):
        state = state_of()
        strange = {f"a{at}": array for at, array in enumerate(state.values())}
        data = safetensors.numpy.save(strange)
        refused(tmp_path, data, "has no weights of an RNN, GRU or LSTM")
        result = loaded(tmp_path, data, names=dict(zip(strange, state, strict=True)))
        assert same_bits(result.params, torch.from_state_dict(NET, state))
        refused(tmp_path, data, "has no array 'b'; it has a0, ", names={"b": "c"})

    def test_modules_that_are_not_numbered_must_be_named(self, tmp_path):
        one, two = (
            state_of(rx.Network(cell="lstm", hidden_size=4, input_size=n), n) for n in (3, 4)
        )
        first = {k.replace("rnn", "low"): v for k, v in one.items() if "rnn" in k}
        second = {k.replace("rnn", "high"): v for k, v in two.items()}
        data = torch_zip({**second, **first})
        refused(tmp_path, data, "has 2 recurrent modules, high, low: rnn= says which")
        result = loaded(tmp_path, data, rnn="low, high")
        expected = {**two, **{k.replace("l0", "l1"): v for k, v in two.items()}}
        expected |= {k: v for k, v in one.items() if "rnn" in k}
        net = rx.Network(cell="lstm", input_size=3, hidden_size=4, num_layers=2)
        assert (result.net, same_bits(result.params, torch.from_state_dict(net, expected))) == (
            net,
            True,
        )
        refused(tmp_path, data, "has no recurrent module named 'enc'", rnn="enc, low")

    def test_two_arrays_of_one_name_are_refused(self, tmp_path):
        data = torch_zip(state_of() | {"readout/weight": np.ones((2, 4))})
        refused(tmp_path, data, "has two arrays named readout.weight")

    def test_two_directions_are_joined_by_a_plus(self, tmp_path):
        net = rx.Network(cell="lstm", input_size=3, hidden_size=4, bidirectional=True)
        params = random_params(net, 0, "float64")
        state = torch.to_state_dict(net, params)
        names = {k: k.replace("rnn", "back" if "_reverse" in k else "fore").removesuffix("_reverse")
                 for k in state}  # fmt: skip
        data = torch_zip({names[k]: v for k, v in state.items()})
        result = loaded(tmp_path, data, rnn="fore + back")
        assert (result.net, same_bits(result.params, params)) == (net, True)

    def test_arrays_without_a_place_are_refused_unless_both_names_are_given(self, tmp_path):
        state = state_of() | {"norm.weight": np.ones(4), "norm.bias": np.ones(4)}
        data = torch_zip(state)
        refused(tmp_path, data, "norm.weight is part of a layer or batch normalisation (2 such)")
        refused(tmp_path, data, "norm.weight is part of a layer", readout="readout")
        result = loaded(tmp_path, data, rnn="rnn", readout="readout")
        assert result.assumed["ignored"] == "norm.bias, norm.weight"
        assert same_bits(result.params, random_params(NET, 0, "float64"))


class TestPyTorch:
    def test_no_biases_are_zero_biases(self, tmp_path):
        state = {k: v for k, v in state_of().items() if "bias" not in k}
        params = loaded(tmp_path, torch_zip(state)).params
        expected = random_params(NET, 0, "float64")
        for name, array in params.items():
            bias = ".b_" in name
            np.testing.assert_array_equal(array, 0 * expected[name] if bias else expected[name])

    def test_half_of_a_pair_of_biases_is_refused(self, tmp_path):
        state = state_of()
        del state["rnn.bias_hh_l1"]
        refused(tmp_path, torch_zip(state), "one of bias_ih_l1 and bias_hh_l1 is missing")

    @pytest.mark.parametrize("names", [("_g", "_v"), ("original0", "original1")])
    def test_weight_norm_is_folded(self, tmp_path, names):
        state = state_of()
        v, g = state.pop("rnn.weight_hh_l0"), np.linspace(1.0, 2.0, 12)[:, None]
        tags = [f"rnn.weight_hh_l0{tag}" if tag[0] == "_" else
                f"rnn.parametrizations.weight_hh_l0.{tag}" for tag in names]  # fmt: skip
        result = loaded(tmp_path, torch_zip({**state, tags[0]: g, tags[1]: v}))
        expected = g * v / np.linalg.norm(v, axis=1, keepdims=True)
        np.testing.assert_allclose(result.params["layer0.w_hh"], expected, rtol=1e-15)
        assert result.assumed["folded"] == "rnn.weight_hh_l0 (weight_norm)"

    def test_pruning_is_folded(self, tmp_path):
        state = state_of()
        weight = state.pop("readout.weight")
        mask = (np.arange(8).reshape(2, 4) % 3 > 0).astype(float)
        more = {"readout.weight_orig": weight, "readout.weight_mask": mask}
        result = loaded(tmp_path, torch_zip({**state, **more}))
        np.testing.assert_array_equal(result.params["readout.w_hy"], weight * mask)

    def test_spectral_norm_is_folded(self, tmp_path):
        state = state_of()
        weight = state.pop("readout.weight")
        u, v = np.asarray([0.6, 0.8]), np.asarray([0.5, 0.5, 0.5, 0.5])
        names = ("original", "0._u", "0._v")
        more = {f"readout.parametrizations.weight.{name}": array
                for name, array in zip(names, (weight, u, v), strict=True)}  # fmt: skip
        result = loaded(tmp_path, torch_zip({**state, **more}))
        expected = weight / (u @ weight @ v)
        np.testing.assert_allclose(result.params["readout.w_hy"], expected, rtol=1e-15)

    @pytest.mark.parametrize(
        ("more", "match"),
        [
            ({"rnn.weight_hr_l0": (2, 4)}, "rnn.weight_hr_l0 is a projection of the state"),
            ({"rnn.w_f_diag": (4,)}, "rnn.w_f_diag is a peephole of the LSTM"),
            ({"other.weight": (2, 4)}, "exactly one Linear or Dense is required, found 2: other"),
            ({"bn.running_mean": (4,)}, "bn.running_mean is part of a batch normalisation"),
            ({"rnn.parametrizations.weight_hh_l1.original": (4, 4)}, "as an orthogonal weight"),
            ({"rnn.weight_hh_l9": (12, 4)}, "rnn.weight_hh_l9 is no part of a recurrent layer"),
        ],
    )  # fmt: skip
    def test_what_no_layer_has_is_refused_by_its_name(self, tmp_path, more, match):
        extra = {name: np.ones(shape) for name, shape in more.items()}
        refused(tmp_path, torch_zip({**state_of(), **extra}), match)

    def test_layers_without_a_readout_are_refused(self, tmp_path):
        alone = {k: v for k, v in state_of().items() if "readout" not in k}
        refused(tmp_path, torch_zip(alone), "found none. A network here ends in a readout")

    def test_layers_of_unequal_sizes_are_refused(self, tmp_path):
        one, two = rx.Network(hidden_size=4), rx.Network(hidden_size=5, input_size=4)
        arrays = {k.replace("rnn", "a"): v for k, v in state_of(one).items() if "rnn" in k}
        arrays |= {k.replace("rnn", "b"): v for k, v in state_of(two).items()}
        refused(tmp_path, torch_zip(arrays), "b has 5 hidden units and a has 4", rnn="a,b")

    def test_a_function_of_the_file_is_never_called(self, tmp_path, capfd):
        data = torch_zip(state_of(), call=b"cbuiltins\nprint\n")
        refused(tmp_path, data, "asks for builtins.print, which no file of weights needs")
        assert capfd.readouterr().out == ""

    def test_a_tensor_cannot_reach_beyond_its_storage(self, tmp_path):
        state = state_of()
        longer = pickled(state).replace(b"J\x0c\x00\x00\x00", b"J\x0d\x00\x00\x00")
        members = {f"m/data/{at}": array.tobytes() for at, array in enumerate(state.values())}
        match = "its pickle does not parse (a tensor reaches beyond its storage)"
        refused(tmp_path, zipped({"m/data.pkl": longer, **members}), match)

    def test_a_pickle_that_repeats_itself_without_end_is_refused(self, tmp_path):
        twice = b"}(" + text("a") + b"h\x00" + text("b") + b"h\x00uq\x00"
        doubled = b"".join([twice] * 60)
        refused(tmp_path, b"\x80\x02}q\x00" + doubled + b".", "nests or repeats its content")


class TestKeras:
    def test_infer_network_finds_sizes_in_the_list_of_weights(self):
        for cell, options in (("rnn", {}), ("gru", {"reset_after": False}), ("lstm", {})):
            for layers, both in ((1, False), (2, True), (3, False)):
                net = rx.Network(cell=cell, hidden_size=4, input_size=3, output_size=2,
                                 num_layers=layers, bidirectional=both, **options)  # fmt: skip
                weights = keras.to_weights(net, net.init(seed=0))
                assert keras.infer_network(weights) == net

    def test_infer_network_takes_what_shapes_do_not_show(self):
        net = rx.Network(hidden_size=4, activation="relu")
        weights = keras.to_weights(net, net.init(seed=0))
        assert keras.infer_network(weights, activation="relu") == net

    def test_infer_network_refuses_other_lists(self):
        net = rx.Network(hidden_size=4)
        with pytest.raises(ValueError, match=r"arrays of the shapes \(1, 4\), \(4, 4\)"):
            keras.infer_network(keras.to_weights(net, net.init(seed=0))[:-1])
