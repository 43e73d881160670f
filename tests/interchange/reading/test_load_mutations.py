"""Damaged files of every kind: refused, or read as what the bytes say; never another error.

A zip file (PyTorch, npz, Keras) has a checksum of each member, so that a damaged one is refused or
gives the numbers that were written. The other kinds have none: if a damaged file is still whole,
its network is the one that was written, and numbers that were overwritten are read as they are. A
graph of ONNX that is still taken predicts what the damaged graph predicts, which `load` compares
itself; one changed bit can make it that of the other kind of GRU.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import pickle
import random
import warnings

import numpy as np
import pytest
import safetensors.numpy
from exchange import random_params, same_bits
from foreign import msgpack, nested, npy, torch_zip, zipped
from mutations import delete, flip, insert, overwrite, splice, truncate

import rnn_xp as rx
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange import load, torch

NET = rx.Network(cell="gru", input_size=3, hidden_size=4, output_size=2)
KINDS = (flip, overwrite, truncate, insert, delete, splice)
CHECKED = {"torch", "npz", "keras"}
COUNTS = [90, pytest.param(1000, marks=pytest.mark.full)]


def of_torch(state):
    return torch_zip(state)


def of_pickle(state):  # as Paddle's .pdparams
    return pickle.dumps(state, protocol=4)


def of_safetensors(state):
    return safetensors.numpy.save(state)


def of_npz(state):
    stream = io.BytesIO()
    np.savez(stream, **state)
    return stream.getvalue()


def of_msgpack(state):
    names = {"weight_ih_l0": "dense_i.kernel", "weight_hh_l0": "dense_h.kernel",
             "bias_ih_l0": "dense_i.bias", "bias_hh_l0": "dense_h.bias",
             "weight": "kernel", "bias": "bias"}  # fmt: skip
    flat = {name.replace(leaf := name.split(".")[1], names[leaf]): np.ascontiguousarray(array.T)
            for name, array in state.items()}  # fmt: skip
    return msgpack(nested(flat))


def of_eqx(state):
    w = list(state.values())
    first = w[2] + np.concatenate([w[3][:8], np.zeros(4)])
    return npy(w[0], w[1], first, w[3][8:], w[4], w[5])


def hdf5(arrays):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return stream.getvalue()


def of_weights_h5(state):
    w = [array.T for array in state.values()]
    order = np.r_[4:8, 0:4, 8:12]
    bias = np.stack([w[2][order], w[3][order]])
    cell = {"0": w[0][:, order], "1": w[1][:, order], "2": bias}
    arrays = {f"layers/gru/cell/vars/{key}": array for key, array in cell.items()}
    return hdf5({**arrays, "layers/dense/vars/0": w[4], "layers/dense/vars/1": w[5]})


def of_keras(state):
    config = (
        '{"class_name": "Sequential", "config": {"layers": ['
        '{"class_name": "GRU", "config": {"name": "gru", "units": 4}}, '
        '{"class_name": "Dense", "config": {"name": "dense", "units": 2}}]}}'
    )
    members = {"metadata.json": b"{}", "config.json": config.encode()}
    return zipped({**members, "model.weights.h5": of_weights_h5(state)})


def of_onnx(state):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from rnn_xp.interchange.onnx import to_onnx

    single = {name: array.astype(np.float32) for name, array in state.items()}
    return to_onnx(NET, torch.from_state_dict(NET, single)).SerializeToString()


MAKERS = [of_torch, of_pickle, of_safetensors, of_npz, of_msgpack, of_eqx]
WITH_PACKAGES = [
    pytest.param(make, marks=pytest.mark.interchange) for make in (of_weights_h5, of_keras, of_onnx)
]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("make", [*MAKERS, *WITH_PACKAGES])
def test_a_damaged_file_is_refused_or_read_as_what_it_says(tmp_path, make, count):
    path = tmp_path / "file"
    contents = []
    for seed in (1, 2):
        state = torch.to_state_dict(NET, random_params(NET, seed, "float64"))
        path.write_bytes(make(state))
        contents.append((path.read_bytes(), load(path)))
    (data, whole), (other, second) = contents
    assert whole.net == NET
    rng, outcomes, named = random.Random(0), collections.Counter(), 0
    for n in range(count):
        path.write_bytes(KINDS[n % len(KINDS)](rng, data, other))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                result = load(path)
        except CheckpointError as error:
            outcomes["refused"] += 1
            named += str(error).startswith(f"{path}: ")
            continue
        intact = any(same_bits(result.params, each.params) for each in (whole, second))
        outcomes["same" if intact else "changed"] += 1
        net = result.net
        assert (dataclasses.replace(net, reset_after=True) if make is of_onnx else net) == NET
        assert intact or make.__name__.removeprefix("of_") not in CHECKED
    assert named == outcomes["refused"] > count // 3
    assert outcomes.total() == count
