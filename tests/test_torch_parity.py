"""Agreement with PyTorch: an independent forward, autograd, and its optimisers."""

from __future__ import annotations

import numpy as np
import pytest
from problems import Problem

import rnn_xp as rx

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", CONFIGURATIONS)
class TestNetwork:
    def test_forward_and_every_gradient(self, name):
        """torch.nn.RNN with the same weights, differentiated by autograd, to 1e-12."""
        p = Problem(**CONFIGURATIONS[name])
        net, weights = p.net, {k: torch.tensor(v) for k, v in p.params.items()}
        peer = torch.nn.RNN(
            net.input_size, net.hidden_size, nonlinearity=net.activation, batch_first=True
        ).double()
        readout = torch.nn.Linear(net.hidden_size, net.output_size).double()
        ours_to_theirs = {
            "layer0.w_xh": peer.weight_ih_l0,
            "layer0.w_hh": peer.weight_hh_l0,
            "layer0.b_h": peer.bias_ih_l0,
            "readout.w_hy": readout.weight,
            "readout.b_y": readout.bias,
        }
        with torch.no_grad():
            peer.bias_hh_l0.zero_()
            for key, parameter in ours_to_theirs.items():
                parameter.copy_(weights[key])
        x = torch.tensor(p.x, requires_grad=True)
        h = torch.tensor(p.state.h, requires_grad=True)
        hs, h_last = peer(x, h)
        pred = readout(hs[:, -1])
        upstream = (pred * torch.tensor(p.dpred)).sum() + (h_last * torch.tensor(p.dstate.h)).sum()
        upstream.backward()

        ours, state, back = net.vjp(p.params, p.x, p.state)
        grads = back(p.dpred, p.dstate)
        np.testing.assert_allclose(ours, pred.detach().numpy(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(state.h, h_last.detach().numpy(), rtol=1e-12, atol=1e-14)
        theirs = {key: parameter.grad for key, parameter in ours_to_theirs.items()}
        theirs |= {"x": x.grad, "state": h.grad}
        grads["state"] = grads["state"].h
        for key, grad in theirs.items():
            expected = grad.numpy()
            np.testing.assert_allclose(
                grads[key], expected, atol=1e-12 * np.abs(expected).max(), err_msg=key
            )

    def test_autograd_through_our_own_forward(self, name):
        p = Problem(**CONFIGURATIONS[name])
        params = {k: torch.tensor(v, requires_grad=True) for k, v in p.params.items()}
        pred, _ = p.net.forward(params, torch.tensor(p.x))
        (pred * torch.tensor(p.dpred)).sum().backward()
        grads = p.net.vjp(p.params, p.x)[2](p.dpred)
        for key, parameter in params.items():
            expected = parameter.grad.numpy()
            np.testing.assert_allclose(
                grads[key], expected, atol=1e-12 * np.abs(expected).max(), err_msg=key
            )


class TestOptimizers:
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (rx.optim.sgd(0.05), lambda p: torch.optim.SGD(p, lr=0.05)),
            (rx.optim.sgd(0.05, 0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
            (rx.optim.adam(0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
        ],
        ids=["sgd", "sgd-momentum", "adam"],
    )
    def test_twenty_updates(self, ours, theirs):
        p = Problem()
        params, state = p.params, ours.init(p.params)
        peers = {k: torch.tensor(v, requires_grad=True) for k, v in p.params.items()}
        optimizer = theirs(list(peers.values()))
        for _ in range(20):
            _, grads = p.net.value_and_grad(params, p.x, p.y)
            params, state = ours.update(grads, state, params)
            optimizer.zero_grad()
            pred, _ = p.net.forward(peers, torch.tensor(p.x))
            torch.nn.functional.mse_loss(pred, torch.tensor(p.y)).backward()
            optimizer.step()
        for key, peer in peers.items():
            np.testing.assert_allclose(params[key], peer.detach().numpy(), atol=1e-12)

    def test_lbfgs_takes_the_same_steps(self):
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
