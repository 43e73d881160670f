"""Weights from here in PyTorch's modules and the reverse: the same predictions."""

from __future__ import annotations

import numpy as np
import pytest
from exchange import CELLS, assert_close, batches, counted, random_params, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import rnn_xp as rx
from rnn_xp.interchange import files
from rnn_xp.interchange import torch as interchange

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.torch

NAMES = [name for name in CELLS if name != "gru-reset-before"]  # which PyTorch has not


class Module(torch.nn.Module):
    """What a user of PyTorch would write for the same network."""

    def __init__(self, net):
        super().__init__()
        kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[net.cell]
        relu = {"nonlinearity": "relu"} if net.activation == "relu" else {}
        self.rnn = kind(
            net.input_size, net.hidden_size, net.num_layers, batch_first=True,
            bidirectional=net.bidirectional, **relu,
        )  # fmt: skip
        self.readout = torch.nn.Linear(net.directions * net.hidden_size, net.output_size)
        self.net = net

    def forward(self, x, lengths=None):
        steps, net = x.shape[1], self.net
        if lengths is not None:
            x = torch.nn.utils.rnn.pack_padded_sequence(
                x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
            )
        hs, state = self.rnn(x)
        if net.topology == "many_to_one":
            h = state[0] if net.cell == "lstm" else state
            return self.readout(torch.cat(list(h[-net.directions :]), dim=-1))
        if lengths is not None:
            hs, _ = torch.nn.utils.rnn.pad_packed_sequence(hs, batch_first=True, total_length=steps)
        return self.readout(hs)

    def predict(self, x, lengths=None):
        with torch.no_grad():
            return self(torch.tensor(x), lengths).numpy()


@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_from_here_to_pytorch(name, layers, directions, lengths):
    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(batches(name, layers, directions, lengths))
    def check(batch):
        net, params, x, given_lengths = batch
        module = Module(net)
        state = interchange.to_state_dict(net, params)
        module.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        pred, _ = net.forward(params, x, lengths=given_lengths)
        where = counted(net, x, given_lengths)
        assert_close(module.predict(x, given_lengths)[where], pred[where])
        assert same_bits(interchange.from_state_dict(net, module.state_dict()), params)

    check()


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_from_pytorch_to_here(name, layers, directions):
    """With two biases as PyTorch draws them, which become one."""

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(batches(name, layers, directions, False), st.integers(0, 999))
    def check(batch, seed):
        net, _, x, _ = batch
        torch.manual_seed(seed)
        module = Module(net)
        found = interchange.infer_network(
            module.state_dict(), activation=net.activation, topology=net.topology
        )
        assert found == (net, "rnn", "readout")
        params = interchange.from_state_dict(net, module.state_dict())
        assert_close(net.forward(params, x)[0], module.predict(x))

    check()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_written_here_loads_into_pytorch_and_comes_back(tmp_path, name):
    safetensors_torch = pytest.importorskip("safetensors.torch")
    net = rx.Network(**CELLS[name], hidden_size=5, num_layers=2, bidirectional=True)
    params = random_params(net, 0)
    files.save(tmp_path / "ours", "torch", net, params)
    module = Module(net)
    module.load_state_dict(safetensors_torch.load_file(tmp_path / "ours"))
    safetensors_torch.save_file(module.state_dict(), tmp_path / "theirs")
    state = files.read_foreign(tmp_path / "theirs")
    assert same_bits(interchange.from_state_dict(net, state), params)


def test_two_biases_learn_at_twice_the_rate_of_their_sum():
    """The rule that the documentation states: equal predictions, another course of training."""
    net = rx.Network(hidden_size=4)
    torch.manual_seed(0)
    module, x = Module(net), np.ones((3, 5, 1), np.float32)
    y = np.zeros((3, 1), np.float32)
    params = interchange.from_state_dict(net, module.state_dict())
    _, grads = net.value_and_grad(params, x, y)
    step = torch.optim.SGD(module.parameters(), lr=0.1)
    torch.nn.functional.mse_loss(module(torch.tensor(x)), torch.tensor(y)).backward()
    step.step()
    ours = {name: p - np.float32(0.1) * grads[name] for name, p in params.items()}
    theirs = interchange.from_state_dict(net, module.state_dict())
    moved, joint = (after["layer0.b_h"] - params["layer0.b_h"] for after in (ours, theirs))
    np.testing.assert_allclose(joint, 2 * moved, atol=1e-7)
    assert np.abs(moved).max() > 1e-3
    for name in ("layer0.w_xh", "layer0.w_hh", "readout.w_hy", "readout.b_y"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-7)
