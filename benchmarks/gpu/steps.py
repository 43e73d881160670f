"""Steps with options, minibatches and second-order optimisers, by what they may take at most.

An option may cost 1.3 times the plain step of the same network; all limits are of an H100. Every
case computes a few steps twice first: the bits must be the same.
"""

from __future__ import annotations

import functools
import time

import numpy as np

import rnn_xp as rx
from benchmarks.cpu import ADAM
from benchmarks.gpu import attempt
from benchmarks.gpu.tiers import Tier
from benchmarks.gpu.timing import measure
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.choice import fastest
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import mse
from rnn_xp.training.inputs import seeded

SECONDS, DRY_SECONDS = 0.2, 0.01
OPTION_LIMIT, STEP_LIMIT = 1.3, 100.0  # times the plain step; µs of a step of a minibatch
LBFGS_EPOCHS, LBFGS_LIMIT, LM_LIMIT = 300, 0.25, 0.02  # seconds of all epochs, of an iteration
MINIBATCH = 256

OPTIONS = {  # of the network, of the optimiser, and the arrays beside
    "plain": ({}, {}, ()),
    "lengths": ({}, {}, ("lengths",)),
    "mask": ({}, {}, ("mask",)),
    "reset": ({}, {}, ("reset",)),
    "sample_weight": ({}, {}, ("sample_weight",)),
    "recurrent dropout": ({"recurrent_dropout": 0.2}, {}, ()),
    "layer norm": ({"layer_norm": True}, {}, ()),
    "clip_norm": ({}, {"clip_norm": 1.0}, ()),
}


class Steps(Tier):
    """Updates by the engine that `fit` would take, ``unit`` of them in an epoch."""

    def __init__(self, place, net, size, optimizer=ADAM, arrays=(), minibatch=None):
        self.place, self.name = place, str(optimizer)
        backend, (N, T, I) = place.backend(), size  # noqa: E741
        xp, rng = backend.xp, np.random.default_rng(0)
        made = {
            "lengths": lambda: xp.asarray(rng.integers(1, T + 1, N)),
            "mask": lambda: xp.asarray(rng.random((N, T)) < 0.8),
            "reset": lambda: xp.asarray(rng.random((N, T)) < 0.05),
            "sample_weight": lambda: backend.asarray(rng.random(N)),
        }
        x, y = (backend.asarray(rng.standard_normal(shape)) for shape in ((N, T, I), (N, 1)))
        self.unit, batches = 1, None
        if minibatch is not None:
            order = rng.permutation(N)
            cut = [order[i : i + minibatch] for i in range(0, N, minibatch)]
            self.unit, batches = len(cut), lambda epoch: cut
        noisy = net.recurrent_dropout > 0.0
        self.engine = fastest(PortableEngine(
            net=net, loss=mse, optimizer=optimizer, backend=backend, block_rows=max(N, 65_536),
            data=Batch(x, y, **{name: made[name]() for name in arrays}), batches=batches,
            noise=seeded(0) if noisy else None,
        ))  # fmt: skip
        self.params = net.init(0, backend)
        self.state, self.losses = optimizer.init(self.params), None

    def run(self, epochs):
        for _ in range(epochs // self.unit):
            self.params, self.state, self.losses = self.engine.run(self.params, self.state, 1)


def same_bits(make):
    """Three epochs from the same start, twice."""

    def trained():
        steps = make()
        steps.run(3 * steps.unit)
        to_numpy = steps.engine.backend.to_numpy
        return {name: to_numpy(param) for name, param in steps.params.items()}

    first, second = trained(), trained()
    wrong = [name for name, param in first.items() if not np.array_equal(param, second[name])]
    return {"holds": not wrong, "detail": ", ".join(wrong) or "the same bits twice"}


def timed(make, seconds):
    """What `measure` returns, and the engine; a graph that cannot be captured is a failure."""
    steps = make()
    record = {**measure(steps, seconds), "engine": steps.engine.name}
    if "no CUDA graph" in steps.engine.reason:
        record |= {"holds": False, "detail": steps.engine.reason}
    return record


def with_options(place, seconds):
    """A step with each option, as a multiple of the plain step."""
    size, hidden = ((9, 5, 2), 6) if place.dry else ((256, 100, 8), 128)
    for cell in ("lstm",) if place.dry else ("lstm", "gru", "rnn"):
        plain = None
        for option, (network, optimizer, arrays) in OPTIONS.items():
            net = rx.Network(cell=cell, input_size=size[2], hidden_size=hidden, **network)
            make = functools.partial(
                Steps, place, net, size, rx.optim.adam(1e-3, **optimizer), arrays
            )
            what = f"{cell.upper()} {(*size, hidden)}, {option}"
            yield attempt(f"{what}: bits", same_bits, make)
            record = attempt(what, timed, make, seconds)
            yield record
            plain = record.get("wall") if option == "plain" else plain
            if plain and record.get("wall") and option != "plain":
                ratio = record["wall"] / plain
                judged = {} if place.dry else {"holds": ratio <= OPTION_LIMIT}
                detail = f"{ratio:.2f}, at most {OPTION_LIMIT}"
                yield {"what": f"{what} ÷ plain", "detail": detail, **judged}


def minibatches(place, seconds):
    """Microseconds of a step of a minibatch of the reference windows."""
    size, hidden, rows = ((40, 4, 1), 5, 16) if place.dry else ((8317, 10, 1), 50, MINIBATCH)
    for cell in ("rnn", "gru", "lstm"):
        make = functools.partial(
            Steps, place, rx.Network(cell=cell, hidden_size=hidden), size, minibatch=rows
        )
        what = f"{cell.upper()} {(*size, hidden)}, minibatches of {rows}"
        yield attempt(f"{what}: bits", same_bits, make)
        record = attempt(what, timed, make, seconds)
        if "wall" in record and not place.dry:
            holds = record.get("holds", True) and record["wall"] <= STEP_LIMIT
            record |= {"limit": STEP_LIMIT, "holds": holds}
        yield record


def second_order(place):
    """Seconds of the epochs of L-BFGS, and of an iteration of Levenberg-Marquardt."""
    size, hidden, epochs = ((40, 4, 1), 5, 3) if place.dry else ((8317, 10, 1), 50, LBFGS_EPOCHS)
    net = rx.Network(hidden_size=hidden)

    def in_all(optimizer, epochs, limit, share):
        make = functools.partial(Steps, place, net, size, optimizer)
        make().run(2)  # compiles what it needs
        steps = make()
        steps.synchronize()
        began = time.perf_counter()
        steps.run(epochs)
        steps.synchronize()
        seconds = (time.perf_counter() - began) / share
        judged = {} if place.dry else {"holds": seconds <= limit}
        return {"seconds": seconds, "limit": limit, "engine": steps.engine.name, **judged}

    for what, optimizer, count, limit, share in (
        (f"L-BFGS, {epochs} epochs", rx.optim.lbfgs(), epochs, LBFGS_LIMIT, 1),
        ("Levenberg-Marquardt, an iteration", rx.optim.levenberg_marquardt(), 3, LM_LIMIT, 3),
    ):
        make = functools.partial(Steps, place, net, size, optimizer)
        yield attempt(f"{what}: bits", same_bits, make)
        yield attempt(what, in_all, optimizer, count, limit, share)


def steps(place):
    """All of it, what is judged by a limit of time first."""
    seconds = DRY_SECONDS if place.dry else SECONDS
    yield from second_order(place)
    yield from minibatches(place, seconds)
    yield from with_options(place, seconds)
