"""Weights of Keras alone: what such a file cannot say is refused by name, or said by a hint."""

from __future__ import annotations

import pytest
from test_load_keras import KINDS, keras, saved
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
