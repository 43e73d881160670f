"""Files as other libraries write them, made here without those libraries, and what they compute."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def numbers(seed, **shapes):
    """Random arrays of the given shapes, float64; a bar in a name stands for a dot."""
    rng = np.random.default_rng(seed)
    return {
        name.replace("__", "."): 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()
    }


def run(step, x, hidden, state=None):
    """Run a cell over x (N, T, I); return its last state."""
    h = np.zeros((len(x), hidden)) if state is None else state
    for t in range(x.shape[1]):
        h = step(x[:, t], h)
    return h[0] if isinstance(h, tuple) else h


def flax_gru(w):
    """The step of ``flax.linen.GRUCell``, as its documentation writes it."""

    def step(x, h):
        r = sigmoid(x @ w["ir.kernel"] + w["ir.bias"] + h @ w["hr.kernel"])
        z = sigmoid(x @ w["iz.kernel"] + w["iz.bias"] + h @ w["hz.kernel"])
        inner = h @ w["hn.kernel"] + w["hn.bias"]
        n = np.tanh(x @ w["in.kernel"] + w["in.bias"] + r * inner)
        return (1 - z) * n + z * h

    return step


def flax_lstm(w):
    """The step of ``flax.linen.LSTMCell``."""

    def step(x, state):
        h, c = state
        i, f, g, o = (
            x @ w[f"i{k}.kernel"] + h @ w[f"h{k}.kernel"] + w[f"h{k}.bias"] for k in "ifgo"
        )
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return step


def keras_gru(kernel, recurrent, bias, reset_after):
    """The step of Keras' GRU, gates z, r, h."""
    hidden = len(recurrent)
    one, two = (bias[0], bias[1]) if reset_after else (bias, np.zeros_like(bias))

    def step(x, h):
        a, b = x @ kernel + one, h @ recurrent + two
        z = sigmoid(a[:, :hidden] + b[:, :hidden])
        r = sigmoid(a[:, hidden : 2 * hidden] + b[:, hidden : 2 * hidden])
        inner = r * b[:, 2 * hidden :]
        if not reset_after:
            inner = (r * h) @ recurrent[:, 2 * hidden :]
        return z * h + (1 - z) * np.tanh(a[:, 2 * hidden :] + inner)

    return step


def one_bias_gru(w_x, w_h, bias, own):
    """The step of the GRU of MLX and Equinox: one bias, and the candidate's own."""
    size = w_h.shape[1]

    def step(x, h):
        a, b = x @ w_x.T + bias, h @ w_h.T
        r, z = sigmoid(a[:, :size] + b[:, :size]), sigmoid((a + b)[:, size : 2 * size])
        n = np.tanh(a[:, 2 * size :] + r * (b[:, 2 * size :] + own))
        return (1 - z) * n + z * h

    return step


def msgpack(value):
    """Encode as ``flax.serialization.to_bytes`` does."""
    if isinstance(value, np.ndarray):
        name = value.dtype.name.encode()
        shape = b"".join(bytes([n]) for n in value.shape)
        raw = value.tobytes()
        body = b"\x93" + bytes([0x90 + value.ndim]) + shape
        body += bytes([0xA0 + len(name)]) + name + b"\xc6" + struct.pack(">I", len(raw)) + raw
        return b"\xc9" + struct.pack(">I", len(body)) + b"\x01" + body
    if isinstance(value, dict):
        pairs = (bytes([0xA0 + len(k)]) + k.encode() + msgpack(v) for k, v in value.items())
        return bytes([0x80 + len(value)]) + b"".join(pairs)
    return bytes([value])


def nested(flat):
    """Turn names with dots into nested dicts."""
    tree = {}
    for name, array in flat.items():
        *path, leaf = name.split(".")
        at = tree
        for part in path:
            at = at.setdefault(part, {})
        at[leaf] = array
    return tree


def npy(*arrays):
    """Write arrays one after another, as ``equinox.tree_serialise_leaves`` does."""
    stream = io.BytesIO()
    for array in arrays:
        np.save(stream, array)
    return stream.getvalue()


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def pickled(state, call=b"ctorch._utils\n_rebuild_tensor_v2\n"):
    """The pickle that ``torch.save`` writes of a dict of float64 arrays."""
    parts = [b"\x80\x02}("]
    for at, (name, array) in enumerate(state.items()):
        strides = [n // array.itemsize for n in array.strides]
        sizes = (b"(" + b"".join(b"J" + struct.pack("<i", n) for n in each) + b"t" for each in
                 (array.shape, strides))  # fmt: skip
        identity = b"(" + text("storage") + b"ctorch\nDoubleStorage\n" + text(str(at))
        identity += text("cpu") + b"J" + struct.pack("<i", array.size) + b"tQ"
        parts += [text(name), call, b"(", identity, b"K\x00", *sizes, b"\x89}tR"]
    return b"".join([*parts, b"u."])


def torch_zip(state, **options):
    """A file as ``torch.save`` writes it; arrays must be contiguous."""
    return zipped(
        {
            "model/data.pkl": pickled(state, **options),
            "model/byteorder": b"little",
            **{f"model/data/{at}": array.tobytes() for at, array in enumerate(state.values())},
            "model/version": b"3\n",
        }
    )


def zipped(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()
