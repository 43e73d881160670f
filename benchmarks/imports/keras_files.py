"""Keras 3: .keras, .weights.h5 and .h5; the backend is that of KERAS_BACKEND."""

import keras
import numpy as np
from keras import layers

from benchmarks.imports.cases import Cases

KINDS = {"rnn": layers.SimpleRNN, "gru": layers.GRU, "lstm": layers.LSTM}


def build(kind, count=1, directions=1, every=False, more=(), **options):
    """Build a Sequential, with biases that are not zero."""
    stack = []
    for at in range(count):
        layer = KINDS[kind](4, return_sequences=every or at < count - 1, **options)
        stack.append(layers.Bidirectional(layer) if directions == 2 else layer)
    model = keras.Sequential([keras.Input((None, 3)), *stack, *more, layers.Dense(2)])
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.2 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def predicted(model):
    """Return inputs and predictions."""
    x = np.random.default_rng(1).standard_normal((5, 7, 3)).astype("float32")
    return x, np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def make(folder):
    """Write the files."""
    keras.utils.set_random_seed(0)
    cases = Cases(folder, f"keras-{keras.backend.backend()}")

    def add(about, model, suffix=".keras", **more):
        path = cases.path(suffix)
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        cases.add(about, path, *(() if "refused" in more else predicted(model)), **more)

    for kind in KINDS:
        for count, directions in ((1, 1), (2, 1), (1, 2), (2, 2)):
            name = f"{kind} {count}x{directions}"
            add(f"{name}, .keras", build(kind, count, directions))
    for kind in KINDS:
        add(f"{kind} 2x2, .weights.h5", build(kind, 2, 2), ".weights.h5")
        add(f"{kind} 2x1, .h5", build(kind, 2), ".h5")
    add("gru, reset_after=False", build("gru", reset_after=False))
    add("gru, reset_after=False", build("gru", reset_after=False), ".weights.h5")
    add("rnn, relu", build("rnn", activation="relu"))
    add("lstm, use_bias=False", build("lstm", use_bias=False))
    add("gru, every step", build("gru", every=True))
    pool = layers.GlobalAveragePooling1D()
    add("lstm, mean of the steps", build("lstm", every=True, more=[pool]))
    add("lstm, dropout", build("lstm", 2, dropout=0.2, more=[layers.Dropout(0.5)]))
    inputs = keras.Input((None, 3))
    outputs = layers.Dense(2, activation="softmax")(layers.GRU(4)(inputs))
    add("gru, functional, softmax", keras.Model(inputs, outputs))
    model = build("lstm", 2)
    model.compile("adam", "mse")
    model.fit(np.ones((4, 7, 3)), np.ones((4, 2)), verbose=0)
    add("lstm 2x1, after fit", model)
    masked = keras.Sequential([keras.Input((None, 3)), layers.Masking(), layers.LSTM(4)])
    masked.add(layers.Dense(1))
    add("lstm behind Masking", masked, refused="masks steps by their values")
    hard = build("lstm", recurrent_activation="hard_sigmoid")
    add("lstm, hard_sigmoid", hard, refused="recurrent_activation='hard_sigmoid'")
    hidden = build("gru", more=[layers.Dense(4, activation="relu")])
    add("gru and two Denses", hidden, refused="valid: 'linear', 'sigmoid', 'tanh', 'softmax'")
    normed = build("gru", more=[layers.LayerNormalization()])
    add("gru and LayerNormalization", normed, refused="LayerNormalization 'layer_normalization'")
    add("lstm, merge_mode", _summed(), refused="merge_mode='sum'")
    cases.write()


def _summed():
    layer = layers.Bidirectional(layers.LSTM(4), merge_mode="sum")
    return keras.Sequential([keras.Input((None, 3)), layer, layers.Dense(1)])
