"""Weights of Keras alone: what such a file cannot say is refused by name, or said by a hint."""

from __future__ import annotations

import numpy as np
import pytest
from test_load_keras import KINDS, check, h5py, keras, saved
from test_load_keras import pytestmark as marks

from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange import load

pytestmark = marks

layers = keras.layers


def of(*stack):
    model = keras.Sequential([keras.Input((6, 3)), *stack])
    keras.utils.set_random_seed(0)
    return model


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("sizes", [(4, 3), (3, 4), (4, 2), (4, 4, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_stacked_layers_of_unequal_sizes_are_refused_by_name(tmp_path, kind, sizes):
    cell = getattr(layers, kind)
    stack = [cell(size, return_sequences=True) for size in sizes[:-1]]
    path = saved(tmp_path, of(*stack, cell(sizes[-1]), layers.Dense(2)), ".weights.h5")
    match = rf"_{len(sizes) - 1}.cell has {sizes[-1]} hidden units and .* has {sizes[0]}, but all"
    with pytest.raises(CheckpointError, match=match):
        load(path)


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("units", [3, 4])  # 3 is also the number of inputs
@pytest.mark.parametrize("mode", ["sum", "ave", "mul"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_directions_that_are_not_side_by_side_are_refused(tmp_path, kind, count, mode, units):
    cell = getattr(layers, kind)
    stack = [
        layers.Bidirectional(cell(units, return_sequences=at < count - 1), merge_mode=mode)
        for at in range(count)
    ]
    path = saved(tmp_path, of(*stack, layers.Dense(2)), ".weights.h5")
    match = f"sees {units} values, but {2 * units} are required, those of both side by side; in Ke"
    with pytest.raises(CheckpointError, match=match):
        load(path)
    with pytest.raises(CheckpointError, match=match):
        load(path, rnn=both(count))


def both(count):
    names = ["layers.bidirectional", "layers.bidirectional_1"][:count]
    return ", ".join(f"{n}.forward_layer.cell + {n}.backward_layer.cell" for n in names)


LISTED = [
    ("rescaling", lambda: [layers.Rescaling(2.0), layers.LSTM(4), layers.Dense(2)]),
    ("masking", lambda: [layers.Masking(), layers.LSTM(4), layers.Dense(2)]),
    ("activation", lambda: [layers.GRU(4), layers.Dense(2), layers.Activation("tanh")]),
    ("normalization", lambda: [layers.Normalization(), layers.GRU(4), layers.Dense(2)]),
    ("re_lu", lambda: [layers.GRU(4), layers.ReLU(), layers.Dense(2)]),
]


@pytest.mark.parametrize(("name", "make"), LISTED, ids=[name for name, _ in LISTED])
def test_a_layer_whose_settings_are_not_in_the_file_is_refused_by_name(tmp_path, name, make):
    path = saved(tmp_path, of(*make()), ".weights.h5")
    match = f"layers.{name}, whose settings .* as .keras, .* rnn= and readout= together ignore it"
    with pytest.raises(CheckpointError, match=match):
        load(path)


READS = [
    ("global_average_pooling1d", {"read": "mean"}, lambda: [layers.GlobalAveragePooling1D()]),
    ("global_max_pooling1d", {"read": "max"}, lambda: [layers.GlobalMaxPooling1D()]),
    ("time_distributed", {"topology": "many_to_many"}, list),
]


@pytest.mark.parametrize(("name", "hint", "more"), READS, ids=[name for name, *_ in READS])
def test_a_layer_that_a_hint_stands_for_is_read_with_it_alone(tmp_path, name, hint, more):
    end = layers.Dense(2)
    last = [*more(), end] if more() else [layers.TimeDistributed(end)]
    model = of(layers.LSTM(4, return_sequences=True), layers.Dropout(0.5), *last)
    path = saved(tmp_path, model, ".weights.h5")
    ((option, value),) = hint.items()
    match = f"lists a layer layers.{name}, .* Give {option}='{value}', or save the model as .keras"
    with pytest.raises(CheckpointError, match=match):
        load(path)
    other = {"read": "last"} if option == "read" else {"topology": "many_to_one"}
    with pytest.raises(CheckpointError, match=match):
        load(path, **other)
    check(model, result := load(path, **hint))
    assert result.assumed["settings"] == (
        "the defaults of Keras; activations and return_sequences are not in such a file"
    )
    assert option not in result.assumed


def test_layers_that_a_caller_leaves_out_are_listed(tmp_path):
    stack = [layers.Rescaling(2.0), layers.LSTM(4), layers.Dense(2), layers.Dense(5)]
    path = saved(tmp_path, of(*stack), ".weights.h5")
    result = load(path, rnn="layers.lstm.cell", readout="layers.dense")
    assert result.assumed["ignored"] == (
        "layers.dense_1.bias, layers.dense_1.kernel, layers.rescaling"
    )


def test_a_model_inside_a_model_is_read(tmp_path):
    inner = keras.Sequential([keras.Input((6, 3)), layers.GRU(4), layers.Dropout(0.5)])
    model = of(inner, layers.Dense(2))
    check(model, load(saved(tmp_path, model, ".weights.h5")))


@pytest.mark.parametrize("name", ["global_max_pooling1d_3", "pool"])
def test_an_older_file_names_its_layers_at_its_root(tmp_path, name):
    rng, path = np.random.default_rng(0), tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        for key, shape in (("kernel", (3, 4)), ("recurrent_kernel", (4, 4)), ("bias", (4,))):
            file[f"enc/enc/simple_rnn_cell/{key}:0"] = rng.standard_normal(shape).astype("f4")
        file["head/head/kernel:0"] = np.ones((4, 2), "f4")
        file["head/head/bias:0"] = np.ones(2, "f4")
        for empty in ("input_1", "dropout_2", "top_level_model_weights"):
            file.create_group(empty)
    assert load(path).net.read == "last"
    with h5py.File(path, "a") as file:
        file.create_group(name)
    with pytest.raises(CheckpointError, match=f"lists a layer {name}, "):
        load(path)
