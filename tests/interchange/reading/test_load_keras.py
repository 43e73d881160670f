"""Files of Keras: the same predictions, or the layer that no network here has, by name."""

from __future__ import annotations

import json
import re
import warnings
import zipfile

import numpy as np
import pytest

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange import load

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras", reason="keras is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")
pytestmark = [
    pytest.mark.interchange,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

X = np.random.default_rng(1).standard_normal((3, 6, 3)).astype(np.float32)
KINDS = ("SimpleRNN", "GRU", "LSTM")


def build(kind, count=1, both=False, every=False, more=(), **options):
    layers = keras.layers
    stack = []
    for at in range(count):
        layer = getattr(layers, kind)(4, return_sequences=every or at < count - 1, **options)
        stack.append(layers.Bidirectional(layer) if both else layer)
    model = keras.Sequential([keras.Input((None, 3)), *stack, *more, layers.Dense(2)])
    rng = np.random.default_rng(0)
    model.set_weights(
        [(w + 0.2 * rng.standard_normal(w.shape)).astype("f4") for w in model.get_weights()]
    )
    return model


def saved(tmp_path, model, suffix=".keras"):
    path = tmp_path / f"model{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    return path


def check(model, result):
    net, params, _ = result
    expected = keras.ops.convert_to_numpy(model(X, training=False))
    pred, _ = net.forward(params, X)
    np.testing.assert_allclose(pred, expected, rtol=0, atol=1e-6 * max(1, abs(expected).max()))


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_predicts_the_same(tmp_path, kind, count, both, suffix):
    model = build(kind, count, both)
    check(model, result := load(saved(tmp_path, model, suffix)))
    described = {"scaler": "none"}
    assert suffix == ".weights.h5" or result.assumed == described


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("SimpleRNN", {"activation": "relu"}, {"activation": "relu"}),
        ("GRU", {"reset_after": False}, {"reset_after": False}),
        ("GRU", {"use_bias": False, "reset_after": False}, {"reset_after": False}),
        ("LSTM", {"every": True}, {"topology": "many_to_many"}),
        ("GRU", {"every": True, "pool": "GlobalAveragePooling1D"}, {"read": "mean"}),
        ("LSTM", {"every": True, "pool": "GlobalMaxPooling1D"}, {"read": "max"}),
        ("LSTM", {"dropout": 0.3, "pool": "Dropout"}, {}),
    ],
)
def test_the_description_says_what_arrays_do_not(tmp_path, kind, options, expected):
    options = dict(options)
    pool = options.pop("pool", None)
    layers = [getattr(keras.layers, pool)(*([0.5] if pool == "Dropout" else []))] if pool else []
    model = build(kind, more=layers, **options)
    check(model, result := load(saved(tmp_path, model)))
    for name, value in expected.items():
        assert getattr(result.net, name) == value
    assert result.assumed == {"scaler": "none"}


def test_a_functional_model_with_an_activation(tmp_path):
    inputs = keras.Input((None, 3))
    hidden = keras.layers.GRU(4, return_sequences=True, name="enc")(inputs)
    hidden = keras.layers.GRU(4, name="another")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(hidden))
    check(model, result := load(saved(tmp_path, model)))
    assert result.net.output_activation == "softmax"


def of_branches():
    inputs = keras.Input((None, 3))
    both = [keras.layers.LSTM(4)(inputs) for _ in range(2)]
    joined = keras.layers.Concatenate()(both)
    return keras.Model(inputs, keras.layers.Dense(2)(joined))


REFUSED = [
    (lambda: build("LSTM", recurrent_activation="hard_sigmoid"), "recurrent_activation='hard_sigm"),
    (lambda: build("LSTM", activation="relu"), "has activation='relu'; 'tanh' is required"),
    (
        lambda: build("SimpleRNN", activation="elu"),
        "activation='elu'; 'tanh' or 'relu' is required",
    ),
    (lambda: build("GRU", go_backwards=True), "has go_backwards=True; False is required"),
    (lambda: build("GRU", more=[keras.layers.LayerNormalization()]), "LayerNormalization 'layer"),
    (lambda: build("GRU", more=[keras.layers.Dense(4)]), "is a second Dense, or stands before"),
    (of_branches, "but a chain of layers is required"),
]


@pytest.mark.parametrize(("make", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_what_no_network_here_has_is_refused_by_its_name(tmp_path, make, match):
    with pytest.raises(CheckpointError, match=re.escape(match)):
        load(saved(tmp_path, make()))


def test_a_hint_that_contradicts_the_description_is_refused(tmp_path):
    path = saved(tmp_path, build("GRU"))
    with pytest.raises(
        CheckpointError, match="topology='many_to_many' contradicts the file, which"
    ):
        load(path, topology="many_to_many")
    with pytest.raises(CheckpointError, match="describes its model: rnn=, readout= and names= are"):
        load(path, rnn="gru")


def test_a_description_of_another_size_than_the_arrays_is_refused(tmp_path):
    path = saved(tmp_path, build("LSTM"))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][1]["config"]["units"] = 5
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="arrays of another size than its 5 units"):
        load(path)


@pytest.mark.parametrize("way", ["link", "soft", "array", "virtual"])
def test_nothing_outside_the_file_is_read(tmp_path, way):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["x"] = np.ones((3, 3), "f4")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        if way == "link":
            file["w"] = h5py.ExternalLink("secret.h5", "/x")
        elif way == "soft":
            file["w"] = h5py.SoftLink("/x")
        elif way == "array":
            file.create_dataset("w", (3, 3), "f4", external=[("secret.h5", 0, 36)])
        else:
            layout = h5py.VirtualLayout((3, 3), "f4")
            layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "x", (3, 3))
            file.create_virtual_dataset("w", layout)
    match = "a link w that leads elsewhere" if way in ("link", "soft") else "w that lies in other f"
    with pytest.raises(CheckpointError, match=match):
        load(tmp_path / "f.h5")


def test_an_array_larger_than_its_file_is_not_unpacked(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("w", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))
    with pytest.raises(CheckpointError, match="w of 4398046511104 bytes, more than it can hold"):
        load(tmp_path / "f.h5")
