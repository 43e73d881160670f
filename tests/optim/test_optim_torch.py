"""Agreement of optimisers, schedules and clipping with those of PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from problems import Problem

from rnn_xp import optim

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.torch

TOLERANCE = 1e-12  # relative, in float64


def peers_of(params):
    return {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}


def assert_close(params, peers):
    for key, peer in peers.items():
        expected = peer.detach().numpy()
        limit = TOLERANCE * np.abs(expected).max()
        np.testing.assert_allclose(params[key], expected, rtol=0.0, atol=limit, err_msg=key)


def train(ours, theirs, *, before=lambda peers: None, after=lambda optimizer: lambda loss: None):
    """Twenty updates of a network side by side; parameters must agree after each, and rates."""
    p = Problem()
    params, state = p.params, ours.init(p.params)
    peers = peers_of(params)
    optimizer = theirs([*peers.values()])
    finish = after(optimizer)
    for _ in range(20):
        value, grads = p.net.value_and_grad(params, p.x, p.y)
        assert ours.rate(state) == pytest.approx(optimizer.param_groups[0]["lr"], rel=TOLERANCE)
        params, state = ours.update(grads, state, params)
        state = ours.observe(state, value)
        optimizer.zero_grad()
        pred, _ = p.net.forward(peers, torch.tensor(p.x))
        loss = torch.nn.functional.mse_loss(pred, torch.tensor(p.y))
        loss.backward()
        before(peers.values())
        optimizer.step()
        finish(loss.item())
        assert_close(params, peers)
    return state


DECAY = {"weight_decay": 0.3, "decay_biases": True}  # PyTorch's decays whatever it is given
OPTIMIZERS = {
    "sgd": (optim.sgd(0.05), lambda p: torch.optim.SGD(p, lr=0.05)),
    "sgd-momentum": (optim.sgd(0.05, 0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    "sgd-nesterov": (
        optim.sgd(0.05, 0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    ),
    "sgd-decay": (
        optim.sgd(0.05, 0.9, nesterov=True, **DECAY),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.3),
    ),
    "adam": (optim.adam(0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "adam-defaults": (optim.adam(), lambda p: torch.optim.Adam(p)),
    "adam-options": (
        optim.adam(0.01, 0.7, 0.9, 1e-3),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.7, 0.9), eps=1e-3),
    ),
    "adam-decay": (
        optim.adam(0.01, **DECAY), lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.3)
    ),
    "adamw-defaults": (optim.adamw(decay_biases=True), lambda p: torch.optim.AdamW(p)),
    "adamw": (
        optim.adamw(0.01, 0.7, 0.9, **DECAY),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.7, 0.9), weight_decay=0.3),
    ),
    "rmsprop-defaults": (optim.rmsprop(), lambda p: torch.optim.RMSprop(p)),
    "rmsprop": (
        optim.rmsprop(0.01, 0.9, 1e-4, **DECAY),
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, eps=1e-4, weight_decay=0.3),
    ),
    "rmsprop-momentum": (
        optim.rmsprop(0.01, 0.9, momentum=0.8),
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.8),
    ),
    "adagrad-defaults": (optim.adagrad(), lambda p: torch.optim.Adagrad(p)),
    "adagrad": (
        optim.adagrad(0.05, 1e-4, 0.2, **DECAY),
        lambda p: torch.optim.Adagrad(
            p, lr=0.05, eps=1e-4, initial_accumulator_value=0.2, weight_decay=0.3
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_updates(name):
    train(*OPTIMIZERS[name])


def test_decay_of_weights_alone():
    """PyTorch's way to leave biases out: groups of parameters."""

    def theirs(peers):
        weights, biases = ([p for p in peers if (p.ndim > 1) == want] for want in (True, False))
        assert biases
        groups = [{"params": weights, "weight_decay": 0.3}, {"params": biases, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.01)

    train(optim.adamw(0.01, weight_decay=0.3), theirs)


SCHEDULES = {
    "step": (
        optim.Step(0.05, 3, 0.5),
        lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=3, gamma=0.5),
    ),
    "cosine": (
        optim.Cosine(0.05, 25, 0.001),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=25, eta_min=0.001),
    ),
    "warm-up": (
        optim.WarmUp(6, 0.05),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: min((k + 1) / 6, 1.0)),
    ),
    "warm-up-cosine": (
        optim.WarmUp(6, optim.Cosine(0.05, 20)),
        lambda o: torch.optim.lr_scheduler.LambdaLR(
            o, lambda k: (k + 1) / 6 if k < 6 else (1 + math.cos(math.pi * (k - 6) / 20)) / 2
        ),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_schedules(name, kind):
    """Every rate and every update; the decay of AdamW follows the rate."""
    schedule, theirs = SCHEDULES[name]

    def after(optimizer):
        scheduler = theirs(optimizer)
        return lambda loss: scheduler.step()

    if kind == "sgd":
        train(optim.sgd(schedule), lambda p: torch.optim.SGD(p, lr=0.05), after=after)
    else:
        ours = optim.adamw(schedule, **DECAY)
        train(ours, lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.3), after=after)


@pytest.mark.parametrize("patience", [0, 1, 4])
@pytest.mark.parametrize("cooldown", [0, 1, 3])
@pytest.mark.parametrize("minimum", [0.0, 0.003])
def test_reduce_on_plateau(patience, cooldown, minimum):
    """300 epochs of losses that fall, rise and stay."""
    rng = np.random.default_rng(patience + 10 * cooldown)
    losses = np.exp(np.cumsum(rng.choice([-0.06, -0.005, 0.0, 0.0, 0.03, 0.03], 300)))
    weight = torch.zeros(1, requires_grad=True)
    peer = torch.optim.SGD([weight], lr=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        peer, factor=0.7, patience=patience, threshold=0.01, cooldown=cooldown, min_lr=minimum,
        eps=0.0,
    )  # fmt: skip
    ours = optim.sgd(optim.ReduceOnPlateau(0.5, 0.7, patience, 0.01, cooldown, minimum))
    state, seen = ours.init({}), set()
    for loss in losses:
        state = ours.observe(state, loss)
        scheduler.step(loss)
        assert ours.rate(state) == pytest.approx(peer.param_groups[0]["lr"], rel=TOLERANCE)
        seen.add(ours.rate(state))
    assert len(seen) > 5
    assert (minimum in seen) == (minimum > 0.0)


def test_reduce_on_plateau_in_training():
    def after(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1).step

    ours = optim.sgd(optim.ReduceOnPlateau(1.5, patience=1), 0.9)
    state = train(ours, lambda p: torch.optim.SGD(p, lr=1.5, momentum=0.9), after=after)
    assert ours.rate(state) < 1.5


class TestClipping:
    def test_value(self):
        def clip(peers):
            torch.nn.utils.clip_grad_value_(peers, 0.02)

        adam = torch.optim.Adam
        train(optim.adam(0.01, clip_value=0.02), lambda p: adam(p, lr=0.01), before=clip)

    @pytest.mark.parametrize("limit", [1e-3, 0.1, 10.0])
    def test_norm(self, limit):
        """PyTorch divides by norm + 1e-6, which is taken back here."""

        def clip(peers):
            peers = [*peers]
            norm = torch.nn.utils.clip_grad_norm_(peers, limit)
            if norm > limit:
                for peer in peers:
                    peer.grad *= (norm + 1e-6) / norm

        def sgd(p):
            return torch.optim.SGD(p, lr=0.5, momentum=0.9)

        train(optim.sgd(0.5, 0.9, clip_norm=limit), sgd, before=clip)
