"""Keras 2 (tf_keras): .h5 with and without a description."""

import numpy as np
import tf_keras
from tf_keras import layers

from benchmarks.imports.cases import Cases


def make(folder):
    """Write the files."""
    cases, rng = Cases(folder, "tf.keras"), np.random.default_rng(0)
    x = rng.standard_normal((5, 7, 3)).astype("float32")
    for kind in (layers.SimpleRNN, layers.GRU, layers.LSTM):
        for directions in (1, 2):
            stack = [kind(4, return_sequences=True), kind(4)]
            stack = [layers.Bidirectional(each) for each in stack] if directions == 2 else stack
            model = tf_keras.Sequential([layers.Input((None, 3)), *stack, layers.Dense(2)])
            model.set_weights([w + 0.2 * rng.standard_normal(w.shape) for w in model.get_weights()])
            name = f"{kind.__name__} 2x{directions}"
            path = cases.path(".h5")
            model.save(path)
            cases.add(f"{name}, .h5", path, x, model(x).numpy())
            path = cases.path(".weights.h5")
            model.save_weights(path)
            cases.add(f"{name}, weights alone", path, x, model(x).numpy())
    cases.write()
