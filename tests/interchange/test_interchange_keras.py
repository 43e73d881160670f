"""Weights from here in Keras' layers and the reverse: the same predictions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from exchange import CELLS, assert_close, batches, counted, same_bits
from hypothesis import given, settings

from rnn_xp.interchange import keras as interchange

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras", reason="keras is not installed")
pytestmark = [
    pytest.mark.interchange,
    # Of Keras' own variables, under NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]

FEW = settings(max_examples=8, deadline=None, derandomize=True)  # every one builds a model


def build(net):
    """What a user of Keras would write for the same network, float32."""
    kind = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
    options = {"reset_after": net.reset_after} if net.cell == "gru" else {}
    options |= {"activation": net.activation} if net.cell == "rnn" else {}
    layers = []
    for layer in range(net.num_layers):
        every = net.topology == "many_to_many" or layer < net.num_layers - 1
        own = kind[net.cell](net.hidden_size, return_sequences=every, **options)
        layers.append(keras.layers.Bidirectional(own) if net.bidirectional else own)
    model = keras.Sequential(
        [keras.Input((None, net.input_size)), *layers, keras.layers.Dense(net.output_size)]
    )
    return model, layers


def predict(net, model, layers, x, lengths):
    mask = None if lengths is None else np.arange(x.shape[1]) < lengths[:, None]
    h = x
    for layer in layers:
        h = layer(h, mask=mask)
    return keras.ops.convert_to_numpy(model.layers[-1](h))


@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_from_here_to_keras_and_back(name, layers, directions, lengths):
    @FEW
    @given(batches(name, layers, directions, lengths))
    def check(batch):
        net, params, x, given_lengths = batch
        model, own = build(net)
        model.set_weights(interchange.to_weights(net, params))
        pred, _ = net.forward(params, x, lengths=given_lengths)
        where = counted(net, x, given_lengths)
        assert_close(predict(net, model, own, x, given_lengths)[where], pred[where])
        assert same_bits(interchange.from_weights(net, model.get_weights()), params)

    check()


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_from_keras_to_here(name, directions):
    """With the weights that Keras draws, and biases for both places that a GRU has them in."""

    @FEW
    @given(batches(name, 2, directions, False))
    def check(batch):
        net, _, x, _ = batch
        model, layers = build(net)
        rng = np.random.default_rng(len(x))
        weights = [
            (w + 0.3 * rng.standard_normal(w.shape)).astype(np.float32) for w in model.get_weights()
        ]
        model.set_weights(weights)
        params = interchange.from_weights(net, weights)
        assert_close(net.forward(params, x)[0], predict(net, model, layers, x, None))

    check()
