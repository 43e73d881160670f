"""What a layer is made of, alone and on one thread: the product of a step, and tanh."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.cpu.contenders import kinds_of_kernels

# (rows, [1, x, h], gates): a tile of the reference RNN, and of the largest LSTM measured.
SHAPES = ((36, 52, 50), (36, 289, 1024))
ENTRIES = 36 * 56
SECONDS = 0.2


REPEAT = 200


def seconds_of(function, *args):
    """Median seconds of one of many calls in a row."""
    taken, end = [], time.perf_counter() + SECONDS
    while len(taken) < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        function(*args)
        taken.append((time.perf_counter() - began) / REPEAT)
    return float(np.median(taken))


def by_numpy(function, *args):
    """Call a function of NumPy many times."""
    for _ in range(REPEAT):
        function(*args)


def pieces():
    """Yield {what, numpy, numba}: GFLOP/s of a product, nanoseconds of tanh of an entry."""
    compiled = _compiled() if "numba" in kinds_of_kernels() else None
    rng = np.random.default_rng(0)
    for rows, width, gates in SHAPES:
        a = rng.standard_normal((rows, width), dtype=np.float32)
        b = rng.standard_normal((gates, width), dtype=np.float32)
        out, gflop = np.empty((rows, gates), np.float32), 2e-9 * rows * width * gates
        found = {"numpy": gflop / seconds_of(by_numpy, np.matmul, a, b.T, out)}
        if compiled is not None:
            found["numba"] = gflop / compiled.product(a, b)
        yield {"what": f"({rows}, {width}) x ({width}, {gates}), GFLOP/s", **found}
    z = rng.standard_normal((1, ENTRIES), dtype=np.float32)
    found = {"numpy": 1e9 * seconds_of(by_numpy, np.tanh, z, np.empty_like(z)) / ENTRIES}
    if compiled is not None:
        found["numba"] = 1e9 * compiled.tanh(z) / ENTRIES
    yield {"what": "tanh of an entry, ns", **found}


def _compiled():
    """The same by the compiled kernels' own pieces, repeated without Python in between."""
    from types import SimpleNamespace

    from rnn_xp.kernels.numba import lanes
    from rnn_xp.kernels.numba.product import compiled, multiply, pack, spaced

    @lanes.lanewise
    def over_lanes(z):
        return lanes.tanh(z)

    @compiled
    def products(a, w, out, times):
        (rows, width), row = a.shape, out.shape[1]
        for _ in range(times):
            multiply(
                a.ctypes.data, width, 1, w.ctypes.data, 16, 16 * width, out.ctypes.data, row,
                rows, min(row, 16 * w.shape[0]), width, False,
            )  # fmt: skip

    @compiled
    def tanhs(z, times):
        for _ in range(times):
            over_lanes(z.shape[0], z.shape[1], lanes.columns(z, 0) + lanes.columns(z, 0))

    def product(a, b):
        w, out = pack(b.T), np.empty((a.shape[0], spaced(b.shape[0])), np.float32)
        products(a, w, out, 1)
        np.testing.assert_allclose(out[:, : b.shape[0]], a @ b.T, rtol=0, atol=1e-3)
        return seconds_of(products, a, w, out, REPEAT)

    def tanh(z):
        found = z.copy()
        tanhs(found, 1)
        np.testing.assert_allclose(found, np.tanh(z), rtol=1e-6)
        return seconds_of(tanhs, found, REPEAT)

    return SimpleNamespace(product=product, tanh=tanh)
