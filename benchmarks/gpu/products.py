"""Products that a CUDA graph can record, beside those of the library: errors, bits and times."""

from __future__ import annotations

import functools

import numpy as np

from benchmarks.gpu import attempt
from benchmarks.gpu.tiers import ByCupy
from benchmarks.gpu.timing import measure
from rnn_xp.kernels import make_workspace
from rnn_xp.kernels.portable import weight_grads

SECONDS, DRY_SECONDS = 0.2, 0.01
ERROR_LIMIT = 2e-5  # of a sum of absolute values; float32 rounds each of its terms by 6e-8
MULTIPLY = {  # rows, terms, columns
    "readout of the reference": (8317, 50, 1),
    "readout of every step": (25_600, 128, 8),
    "way back of a readout": (25_600, 8, 128),
    "inputs of a wide layer": (12_800, 32, 1024),
    "step of a wide RNN": (64, 512, 512),
    "step of a wide LSTM": (64, 512, 2048),
    "step back of a wide LSTM": (64, 2048, 512),
}
GRADIENTS = {  # rows, columns on the left, and on each right side
    "readout of the reference": (8317, 1, (50,)),
    "readout of every step": (25_600, 8, (128,)),
    "a wide LSTM": (12_800, 2048, (32, 512)),
}


class Product(ByCupy):
    """A product, computed again and again."""

    def __init__(self, place, compute):
        self.place, self.compute, self.result = place, compute, None

    def run(self, epochs):
        for _ in range(epochs):
            self.result = self.compute()

    def loss(self):
        return 0.0


def exactness(backend, compute, left, rights):
    """The error of left @ right, relative to a sum without signs, and whether bits repeat."""
    first, again = (
        [np.array(backend.to_numpy(a), "f8") for a in compute()] for _ in range(2)
    )  # fmt: skip
    worst = 0.0
    for made, right in zip(first, rights, strict=True):
        a, b = (np.asarray(side, "f8") for side in (left, right))
        scale = np.abs(a) @ np.abs(b)
        worst = max(worst, float(np.max(np.abs(made - a @ b) / scale)))
    same = all(map(np.array_equal, first, again))
    return {"largest error": worst, "same bits": same, "holds": worst <= ERROR_LIMIT and same}


def beside(place, what, ways, seconds):
    """Times of each way, and of the first one as a multiple of the second."""
    walls = []
    for name, compute in ways.items():
        record = attempt(f"{what}, {name}", lambda c=compute: measure(Product(place, c), seconds))
        walls.append(record.get("device") or record.get("wall"))
        yield record
    if all(walls):
        yield {"what": f"{what}: times the library's", "value": f"{walls[0] / walls[1]:.2f}"}


def products(place):
    """All products, each against float64 first."""
    seconds = DRY_SECONDS if place.dry else SECONDS
    backend, rng = place.backend(), np.random.default_rng(0)
    xp, workspace = backend.xp, make_workspace(backend)

    def draw(*shape):
        small = (-(-length // 16) if place.dry else length for length in shape)
        return rng.standard_normal((*small,)).astype("f4")

    for name, (rows, terms, columns) in MULTIPLY.items():
        host = draw(rows, terms), draw(terms, columns)
        a, b = map(backend.asarray, host)
        own = functools.partial(workspace.matmul, "product", a, b)
        what = f"{name}, {a.shape} @ {b.shape}"
        yield attempt(what, exactness, backend, lambda f=own: [f()], host[0], [host[1]])
        library = functools.partial(xp.matmul, a, b)
        yield from beside(place, what, {"own": own, "the library's": library}, seconds)
    for name, (rows, lefts, widths) in GRADIENTS.items():
        left, *rights = (draw(rows, width) for width in (lefts, *widths))
        there = backend.asarray(left), [backend.asarray(right) for right in rights]
        own = functools.partial(workspace.weight_grads, *there)
        shapes = " and ".join(str(right.shape) for right in rights)
        what = f"weight gradients, {name}, {left.shape}.T @ {shapes}"
        yield attempt(what, exactness, backend, lambda f=own: f()[0], left.T, rights)
        library = functools.partial(weight_grads, *there, xp=xp)
        yield from beside(place, what, {"own": own, "the library's": library}, seconds)
