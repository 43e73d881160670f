"""Damaged files of weights: those written here are noticed, foreign ones give one kind of error."""

from __future__ import annotations

import collections
import random

import pytest
import safetensors.numpy
from exchange import random_params, same_bits
from mutations import KINDS

import rnn_xp as rx
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.interchange import files, torch

MUTATIONS = 1000
NET = rx.Network(cell="gru", hidden_size=4, input_size=2, num_layers=2, bidirectional=True)


def mutants(seed, data, other):
    rng = random.Random(seed)
    for n in range(MUTATIONS):
        kind = KINDS[n % len(KINDS)]
        yield kind.__name__, kind(rng, data, other)


@pytest.mark.parametrize("layout", ["torch", "keras"])
def test_no_change_of_a_file_written_here_goes_unnoticed(tmp_path, layout):
    contents, path = {}, tmp_path / "f"
    for seed in (1, 2):
        params = random_params(NET, seed)
        files.save(path, layout, NET, params, {"seed": seed})
        contents[path.read_bytes()] = params
    (data, params), (other, _) = contents.items()
    rejected, same, said = collections.Counter(), 0, []
    for kind, mutant in mutants(0, data, other):
        path.write_bytes(mutant)
        try:
            found = files.load(path)
        except CheckpointError as error:
            said.append(str(error))
            rejected[kind] += 1
        else:  # such as spaces exchanged for spaces, or a splice that gives the other file
            expected = contents.get(mutant, params)
            assert found.net == NET
            assert same_bits(found.params, expected)
            same += 1
    assert all(rejected[kind.__name__] > 0.8 * MUTATIONS // len(KINDS) for kind in KINDS)
    assert rejected.total() + same == MUTATIONS
    assert all(str(path) in message for message in said)


def test_no_change_of_a_foreign_file_gives_another_error_than_ours(tmp_path):
    path, outcomes, said, of_tensors = tmp_path / "f", collections.Counter(), [], []
    data, other = (
        safetensors.numpy.save(torch.to_state_dict(NET, random_params(NET, seed)), {"format": "pt"})
        for seed in (1, 2)
    )
    for _, mutant in mutants(1, data, other):
        path.write_bytes(mutant)
        try:
            state = files.read_foreign(path)
        except CheckpointError as error:
            said.append(str(error))
            outcomes["no safetensors file"] += 1
            continue
        try:
            net, rnn, readout = torch.infer_network(state)
            params = torch.from_state_dict(net, state, rnn=rnn, readout=readout)
        except ValueError as error:
            of_tensors.append(error)
            outcomes["other tensors"] += 1
        else:
            assert {name: p.shape for name, p in params.items()} == net.shapes
            outcomes["read"] += 1
    assert all(outcomes[kind] > 20 for kind in ("no safetensors file", "other tensors", "read"))
    assert outcomes.total() == MUTATIONS
    assert all(str(path) in message for message in said)
    for error in of_tensors:
        assert type(error) is ValueError
        assert "PyTorch" in str(error) or str(error).startswith("Network: ")


def test_a_panic_of_the_reader_is_an_error_of_ours(tmp_path, monkeypatch):
    class Panic(BaseException):
        """Such as pyo3_runtime.PanicException, which is no Exception."""

    def load(data):
        raise Panic("index out of range")

    monkeypatch.setattr(safetensors, "deserialize", load)
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cannot be read .*Panic: index out of range"):
        files.read_foreign(tmp_path / "f")
