"""rnn_xp's own ways to do an epoch on a GPU: portable code, kernels, the fused engine."""

from __future__ import annotations

import functools
import importlib.util

from benchmarks.cpu import ADAM
from benchmarks.cpu.contenders import first_gradient
from benchmarks.gpu import LeftOutError
from benchmarks.gpu.timing import Epochs
from rnn_xp.engines.blocks import Batch, default_block_rows
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import resolve_loss

PORTABLE, KERNELS, FUSED = "portable", "kernels", "fused"
NAMES = {
    PORTABLE: "rnn_xp, portable code",
    KERNELS: "rnn_xp, kernels",
    FUSED: "rnn_xp, fused engine",
}
ACCELERATOR_ROWS = 65_536
UNIT, LONG_UNIT = 10, 100  # epochs between two reads of the losses


def make_engine(tier, net, backend, x, y, loss="mse", optimizer=ADAM):
    """An engine that works in one way only.

    Raises
    ------
    LeftOutError
        If there is no fused engine for this, with its reason.
    """
    rows = max(ACCELERATOR_ROWS, default_block_rows(backend, len(x), net.hidden_size))
    engine = PortableEngine(
        net=net, loss=resolve_loss(loss, net.output_activation), optimizer=optimizer,
        backend=backend, data=Batch(backend.asarray(x), backend.asarray(y)), block_rows=rows,
    )  # fmt: skip
    if tier == PORTABLE:
        engine._workspaces.append(None)  # so that it makes none with kernels
    if tier != FUSED:
        return engine
    if importlib.util.find_spec("rnn_xp.engines.cuda_fused") is None:
        raise LeftOutError("this version has no fused engine")
    from rnn_xp.engines.cuda_fused import fastest

    fused = fastest(engine)
    if fused.name != "cuda_fused":
        raise LeftOutError(fused.reason or f"there is none on {backend.name}")
    return fused


class ByCupy(Epochs):
    """Work that CuPy does on the device of ``place``."""

    def synchronize(self):
        self.place.synchronize()

    def event(self):
        if self.place.dry:
            return None
        event = self.place.cupy.cuda.Event()
        event.record()
        return event

    def elapsed(self, first, last):
        return self.place.cupy.cuda.get_elapsed_time(first, last)


class Tier(ByCupy):
    """Epochs as `fit` has them done, ``unit`` of them before the losses are read."""

    def __init__(self, tier, place, case, unit=UNIT):
        self.place, self.unit, self.name = place, unit, NAMES[tier]
        backend = place.backend()
        self.engine = make_engine(tier, case.net, backend, *case.data)
        self.params = {name: backend.asarray(weight) for name, weight in case.weights.items()}
        self.state = ADAM.init(self.params)
        self.losses = None

    def run(self, epochs):
        while epochs:
            now = min(epochs, self.unit)
            self.params, self.state, self.losses = self.engine.run(self.params, self.state, now)
            epochs -= now

    def loss(self):
        return float(self.losses[-1])

    def gradient(self):
        to_numpy = self.engine.backend.to_numpy
        return first_gradient({name: to_numpy(m) for name, m in self.state.slots["m"].items()})


def contenders(place, cases, tf32, left):
    """All tiers for all cases: the case, a name, and what makes the contender.

    Beyond the first size the fused engine comes first in all cases: the other tiers take long.
    """
    tiers = [(NAMES[tier], tier, UNIT) for tier in NAMES]
    tiers.append((f"{NAMES[FUSED]}, {LONG_UNIT} epochs a call", FUSED, LONG_UNIT))
    found = [
        (case, name, functools.partial(Tier, tier, place, case, unit))
        for later in (False, True) for case in cases for name, tier, unit in tiers
        if later == (tier != FUSED and case.size != cases[0].size)
    ]  # fmt: skip
    yield from found
