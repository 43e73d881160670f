"""Agreement with PyTorch: an independent forward, autograd, and its L-BFGS."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from problems import CELLS, N, Problem, T, flat

import rnn_xp as rx

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.torch


PEERS = {
    "rnn-tanh": (torch.nn.RNN, {}),
    "rnn-relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "gru": (torch.nn.GRU, {}),
    "lstm": (torch.nn.LSTM, {}),
}


def parameters_of(peer, readout, net):
    """PyTorch's parameters under our names. Its second bias is zero, but for the GRU's b_hn."""
    named = {"readout.w_hy": readout.weight, "readout.b_y": readout.bias}
    size = net.hidden_size
    for layer, reverse in itertools.product(range(net.num_layers), range(net.directions)):
        ours = f"layer{layer}." + ("reverse." if reverse else "")
        theirs = f"_l{layer}" + ("_reverse" if reverse else "")
        named[ours + "w_xh"] = getattr(peer, "weight_ih" + theirs)
        named[ours + "w_hh"] = getattr(peer, "weight_hh" + theirs)
        named[ours + "b_h"] = getattr(peer, "bias_ih" + theirs)
        second = getattr(peer, "bias_hh" + theirs)
        second.data.zero_()
        if net.cell == "gru":
            named[ours + "b_hn"] = second  # its last block, see `block`
    return named, size


def block(key, array, size):
    """Of PyTorch's whole second bias only the candidate's block is a parameter of ours."""
    return array[2 * size :] if key.endswith("b_hn") else array


@pytest.mark.cover("pairs")
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "packed"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("topology", ["many_to_one", "many_to_many"])
@pytest.mark.parametrize("name", PEERS)
def test_forward_and_every_gradient(name, topology, layers, directions, lengths):
    """torch.nn.RNN, GRU and LSTM with the same weights, differentiated by autograd."""
    kind, options = PEERS[name]
    p = Problem(
        seed=2, topology=topology, num_layers=layers, bidirectional=directions == 2,
        with_=("state", "lengths") if lengths else ("state",), **CELLS[name],
    )  # fmt: skip
    net = p.net
    if lengths:  # PyTorch packs no empty rows; ours are in test_contract.py
        p.arrays["lengths"] = np.asarray([2, 5, 3])
    peer = kind(
        net.input_size, net.hidden_size, layers, batch_first=True,
        bidirectional=directions == 2, **options,
    ).double()  # fmt: skip
    readout = torch.nn.Linear(directions * net.hidden_size, net.output_size).double()
    named, size = parameters_of(peer, readout, net)
    with torch.no_grad():
        for key, value in p.params.items():
            block(key, named[key], size).copy_(torch.tensor(value))
    x = torch.tensor(p.x, requires_grad=True)
    state = [torch.tensor(field, requires_grad=True) for field in p.state]
    given = x
    if lengths:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(p.arrays["lengths"]), batch_first=True, enforce_sorted=False
        )
    hs, final = peer(given, tuple(state) if net.cell == "lstm" else state[0])
    final = final if net.cell == "lstm" else (final,)
    counted = np.ones((N, T), dtype=bool)
    if lengths:
        hs, _ = torch.nn.utils.rnn.pad_packed_sequence(hs, batch_first=True, total_length=T)
        counted = np.arange(T) < p.arrays["lengths"][:, None]
    if topology == "many_to_one":
        last = final[0].reshape(layers, directions, N, -1)[-1]
        pred = readout(torch.cat(list(last), dim=-1))
    else:
        pred = readout(hs)
        # Past its end PyTorch puts out zeros, ours the state carried on: no gradient from there.
        p.dpred = p.dpred * counted[..., None]
    scalar = (pred * torch.tensor(p.dpred)).sum()
    for field, upstream in zip(final, p.dstate, strict=True):
        scalar = scalar + (field * torch.tensor(upstream)).sum()
    scalar.backward()

    ours, after, back = net.vjp(p.params, p.x, **p.options())
    expected = pred.detach().numpy()
    keep = counted if topology == "many_to_many" else slice(None)
    np.testing.assert_allclose(ours[keep], expected[keep], atol=1e-12)
    for field, theirs in zip(after, final, strict=True):
        np.testing.assert_allclose(field, theirs.detach().numpy(), atol=1e-12)
    theirs = {key: block(key, named[key].grad, size) for key in p.params} | {"x": x.grad}
    theirs |= {
        f"state.{name}": field.grad for name, field in zip(after._fields, state, strict=True)
    }
    grads = flat(back(p.dpred, p.dstate))
    assert grads.keys() == theirs.keys()
    for key, gradient in theirs.items():
        expected = gradient.numpy()
        np.testing.assert_allclose(
            grads[key], expected, atol=1e-11 * max(1.0, np.abs(expected).max()), err_msg=key
        )


@pytest.mark.parametrize("name", CELLS)
def test_autograd_through_our_own_forward(name):
    p = Problem(**CELLS[name])
    params = {k: torch.tensor(v, requires_grad=True) for k, v in p.params.items()}
    pred, _ = p.net.forward(params, torch.tensor(p.x))
    (pred * torch.tensor(p.dpred)).sum().backward()
    grads = p.net.vjp(p.params, p.x)[2](p.dpred)
    for key, parameter in params.items():
        expected = parameter.grad.numpy()
        np.testing.assert_allclose(
            grads[key], expected, atol=1e-12 * np.abs(expected).max(), err_msg=key
        )


class TestLBFGS:
    def test_takes_the_same_steps(self):
        """Five iterations to 1e-9: rounding alone moves later ones further."""
        p = Problem(rows=40)
        ours = rx.optim.lbfgs(history=10)
        params, state = p.params, ours.init(p.params)
        peers = {k: torch.tensor(v, requires_grad=True) for k, v in sorted(p.params.items())}
        optimizer = torch.optim.LBFGS(
            list(peers.values()), max_iter=5, history_size=10, line_search_fn="strong_wolfe",
            tolerance_grad=0.0, tolerance_change=0.0,
        )  # fmt: skip

        def closure():
            optimizer.zero_grad()
            pred, _ = p.net.forward(peers, torch.tensor(p.x))
            loss = torch.nn.functional.mse_loss(pred, torch.tensor(p.y))
            loss.backward()
            return loss

        def value_and_grad(params):
            return p.net.value_and_grad(params, p.x, p.y)

        optimizer.step(closure)
        for _ in range(5):
            value, grads = value_and_grad(params)
            params, state = ours.update(
                grads, state, params, value=value, value_and_grad=value_and_grad
            )
        for key, peer in peers.items():
            np.testing.assert_allclose(params[key], peer.detach().numpy(), atol=1e-9)
