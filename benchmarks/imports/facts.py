"""What layers do that no array shows: the forget bias at the start, padding, the reverse direction.

    python -m benchmarks.imports.facts torch

Each function builds layers of one library and measures. Sequences of five steps have two steps of
padding, whose inputs are then changed; what changes with them depends on the padding.
"""

from __future__ import annotations

import json
import sys

import numpy as np

SEEN = {"zero": "zero", "last": "repeats the last", "on": "goes on with the padding"}
X = np.random.default_rng(0).standard_normal((2, 5, 3)).astype("float32")
OTHER = np.concatenate([X[:, :3], 9.0 * np.ones((2, 2, 3), "float32")], axis=1)


def padded(run):
    """Describe the outputs in the padding; ``run(x)`` gives them for lengths of 3, (2, 5, H)."""
    one, two = np.asarray(run(X)), np.asarray(run(OTHER))
    if one.shape[1] < 5 or not one[:, 3:].any():
        return SEEN["zero"]
    if np.array_equal(one, two) and np.allclose(one[:, 3:], one[:, 2:3]):
        return SEEN["last"]
    return SEEN["on"]


def started(run):
    """Describe where the reverse direction starts; ``run(x)`` gives its output at step 0."""
    same = np.allclose(np.asarray(run(X)), np.asarray(run(OTHER)))
    return "at the last step" if same else "in the padding"


def of_torch():
    """Measure PyTorch's packed sequences."""
    import torch
    from torch.nn.utils import rnn

    def run(layer, x):
        packed = rnn.pack_padded_sequence(torch.tensor(x), [3, 3], batch_first=True)
        with torch.no_grad():
            hs, _ = rnn.pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=5)
        return hs.numpy()

    torch.manual_seed(0)
    layer = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True)
    wide = torch.nn.LSTM(1, 4096).bias_ih_l0[4096:8192].mean().item()
    return forget(wide), padded(lambda x: run(layer, x)), started(lambda x: run(layer, x)[:, 0, 4:])


def of_keras():
    """Measure Keras' masks."""
    import keras

    mask = np.arange(5)[None] < np.asarray([[3], [3]])
    plain = keras.layers.LSTM(4, return_sequences=True)
    both = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))

    def run(layer, x):
        return keras.ops.convert_to_numpy(layer(x, mask=mask))

    one, two = padded(lambda x: run(plain, x)), padded(lambda x: run(both, x))
    bias = np.asarray(plain.get_weights()[2])[4:8].mean()
    outputs = f"{one}, Bidirectional {two}"
    return forget(bias), outputs, started(lambda x: run(both, x)[:, 0, 4:])


def of_paddle():
    """Measure Paddle's sequence_length."""
    import paddle

    layer = paddle.nn.LSTM(3, 4, direction="bidirect")
    bias = paddle.nn.LSTM(1, 4096).bias_ih_l0.numpy()[4096:8192].mean()

    def run(x):
        lengths = paddle.to_tensor(np.asarray([3, 3]))
        return layer(paddle.to_tensor(x), sequence_length=lengths)[0].numpy()

    return forget(bias), padded(run), started(lambda x: run(x)[:, 0, 4:])


def of_flax():
    """Measure linen's seq_lengths."""
    import jax
    from flax import linen

    one, two = linen.RNN(linen.LSTMCell(4)), linen.RNN(linen.LSTMCell(4))
    layer, lengths = linen.Bidirectional(one, two), np.asarray([3, 3])
    params = layer.init(jax.random.key(0), X)

    def run(x):
        return layer.apply(params, x, seq_lengths=lengths)

    named = jax.tree_util.tree_leaves_with_path(params)
    biases = [leaf for key, leaf in named if jax.tree_util.keystr(key).endswith("['hf']['bias']")]
    bias = np.asarray(biases[0]).mean()
    return forget(bias), padded(run), started(lambda x: run(x)[:, 0, 4:])


def of_onnx():
    """Measure sequence_lens in onnxruntime."""
    import onnxruntime

    import rnn_xp as rx
    from rnn_xp.interchange.onnx import to_onnx

    net = rx.Network(cell="lstm", input_size=3, hidden_size=4, bidirectional=True)
    params = net.init(seed=0, backend=rx.get_backend("numpy", dtype="float32"))
    model = to_onnx(net, params, lengths=True)
    node = next(node for node in model.graph.node if node.op_type == "LSTM")
    model.graph.output.append(type(model.graph.output[0])(name=node.output[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def run(x):
        feeds = {"x": x, "lengths": np.asarray([3, 3], np.int32)}
        return session.run([node.output[0]], feeds)[0].transpose(2, 0, 1, 3).reshape(2, 5, 8)

    return "none", padded(run), started(lambda x: run(x)[:, 0, 4:])


def forget(bias):
    """Say what the forget gate's bias is at the start, from its mean."""
    return "1, in the stored bias" if abs(bias - 1.0) < 0.1 else "none"


EXPECTED = {  # as docs/guide/importing.md has it
    "torch": ("none", "zero", "at the last step"),
    "keras": ("1, in the stored bias", "repeats the last, Bidirectional zero", "at the last step"),
    "paddle": ("none", "zero", "at the last step"),
    "flax": ("none", "goes on with the padding", "at the last step"),
    "onnx": ("none", "zero", "at the last step"),
}
MEASURED = {
    "torch": of_torch, "keras": of_keras, "paddle": of_paddle, "flax": of_flax, "onnx": of_onnx,
}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(MEASURED[sys.argv[1]]()))
