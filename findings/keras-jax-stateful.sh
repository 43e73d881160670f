#!/usr/bin/env bash
# keras 3.15.1 with jax 0.10.2 (numpy backend for comparison)
#
# Expected: a recurrent layer with stateful=True hands its state to the next batch. A long series
# cut into two batches is then predicted as if it had come in one piece, whatever the backend.
#
# Seen: with the JAX backend the compiled methods (fit, evaluate, predict, also two batches of one
# predict call) start every batch from zeros and leave zeros in the layer; no warning, no error.
# Calling the model directly carries the state, and so does predict on the NumPy backend: the same
# file gives other numbers by the backend and by how it is called.
#
# Why it matters: truncated BPTT over a carried state silently becomes training on unrelated
# chunks, and streaming prediction forgets everything older than one batch.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile keras==3.15.1 jax==0.10.2 numpy==2.4.6

cat > "$work/probe.py" <<'PY'
import numpy as np
import keras
from keras import layers

rng = np.random.default_rng(0)
first, second = rng.normal(size=(2, 3, 6, 2)).astype("float32")
weights = [rng.normal(scale=0.6, size=s).astype("float32") for s in ((2, 12), (4, 12), (2, 12))]


def gru(stateful, steps):
    inputs = keras.Input(batch_shape=(3, steps, 2))
    layer = layers.GRU(4, stateful=stateful)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights(weights)
    return model, layer


model, layer = gru(True, 6)
host = keras.ops.convert_to_numpy
close = lambda a, b: bool(np.allclose(a, b, atol=1e-5))
whole = host(gru(False, 12)[0](np.concatenate([first, second], axis=1)))
alone = host(gru(False, 6)[0](second))
assert not close(whole, alone)

layer.reset_states()
model(first)
assert close(host(model(second)), whole), "a direct call carries the state"

layer.reset_states()
model.predict(first, batch_size=3, verbose=0)
two_calls = model.predict(second, batch_size=3, verbose=0)
state_kept = bool(np.any(host(layer.states[0])))
layer.reset_states()
one_call = model.predict(np.concatenate([first, second]), batch_size=3, verbose=0)[3:]

backend = keras.backend.backend()
if backend == "numpy":
    assert close(two_calls, whole) and close(one_call, whole) and state_kept
else:
    assert close(two_calls, alone) and close(one_call, alone) and not state_kept
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    layer.reset_states()
    zero = np.zeros((3, 4), "float32")
    losses = [model.train_on_batch(second, zero), model.train_on_batch(second, zero),
              model.evaluate(second, zero, batch_size=3, verbose=0)]
    assert close(losses, np.mean(alone**2)), losses
print(backend, "difference to the uncut series:", float(np.abs(two_calls - whole).max()))
PY
for backend in numpy jax; do
    KERAS_BACKEND=$backend JAX_PLATFORMS=cpu "$work/venv/bin/python" -W error::UserWarning "$work/probe.py"
done
