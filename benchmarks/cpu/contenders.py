"""Training steps by rnn_xp, by straightforward NumPy, and the matrix products alone."""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import rnn_xp as rx
from benchmarks.cpu import ADAM, FLOAT32, THREADS
from benchmarks.cpu.timing import Contender
from rnn_xp.engines.blocks import Batch, default_block_rows
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels import kernels_of
from rnn_xp.losses import resolve_loss


def block_rows(case):
    """What `fit` takes."""
    return default_block_rows(FLOAT32, case.N, case.H, case.T)


@contextlib.contextmanager
def kernels(name):
    """Choose the kernels that training uses, as a user would."""
    before = os.environ.get("RNN_XP_KERNELS", "")
    os.environ["RNN_XP_KERNELS"] = name
    try:
        yield
    finally:
        os.environ["RNN_XP_KERNELS"] = before


def kinds_of_kernels():
    """NumPy's own kernels, and the compiled ones where they can be had."""
    return list(dict.fromkeys(["numpy", kernels_of(FLOAT32).name]))


def first_gradient(mean):
    """The gradient of which Adam's mean is made after one update."""
    return {name: np.asarray(values) / (1.0 - ADAM.beta1) for name, values in mean.items()}


class Naive(Contender):
    """The portable code as it stands, over all rows at once."""

    name = "NumPy, portable code"

    def __init__(self, case):
        self.net, self.data = case.net, case.data
        self.params, self.state = case.weights, ADAM.init(case.weights)

    def step(self):
        loss, gradient = self.net.value_and_grad(self.params, *self.data)
        self.params, self.state = ADAM.update(gradient, self.state, self.params)
        return loss

    def gradient(self):
        return first_gradient(self.state.slots["m"])


class Watched(PortableEngine):
    """An engine that knows how long its gradients took."""

    inside = 0.0

    def _gradient(self, params):
        began = time.perf_counter()
        try:
            return super()._gradient(params)
        finally:
            self.inside += time.perf_counter() - began


class Engine(Contender):
    """Epochs of the engine as `fit` runs them, with one BLAS thread."""

    name = "rnn_xp, engine"

    def __init__(self, case, optimizer=ADAM, data=None):
        self.engine = Watched(
            net=case.net, loss=resolve_loss("mse", "identity"), optimizer=optimizer,
            backend=FLOAT32, data=Batch(*(data or case.data)), block_rows=block_rows(case),
            workers=THREADS,
        )  # fmt: skip
        self.running = contextlib.ExitStack()
        self.running.enter_context(self.engine.running())
        self.params, self.state = case.weights, optimizer.init(case.weights)

    def step(self):
        self.params, self.state, losses = self.engine.run(self.params, self.state, 1)
        return losses[0]

    def gradient(self):
        return first_gradient(self.state.slots["m"])

    def close(self):
        self.running.close()


class Fit(Contender):
    """`fit` itself: the time from one call of a callback to the next."""

    def __init__(self, case, kernels="numpy"):
        self.name, self.kernels = f"rnn_xp, fit, {kernels}", kernels
        self.net, self.data = case.net, case.data
        self.params, self.state = case.weights, None

    def train(self, callback):
        with kernels(self.kernels):
            result = rx.fit(
                self.net, *self.data, optimizer=ADAM, epochs=10**6, params=self.params,
                opt_state=self.state, workers=THREADS, backend=FLOAT32, callbacks=[callback],
            )  # fmt: skip
        self.params, self.state = result.params, result.state.opt_state
        return result.history["loss"]

    def step(self):
        return self.train(lambda epoch: "one epoch")[-1]

    def gradient(self):
        return first_gradient(self.state.slots["m"])

    def times(self, seconds, most):
        """The first epoch only starts the clock."""
        told, end = [], time.perf_counter() + seconds

        def tell(epoch):
            told.append(time.perf_counter())
            enough = len(told) > most or (len(told) > 1 and told[-1] > end)
            return "enough" if enough else None

        self.train(tell)
        return np.diff(told).tolist()


class Products(Contender):
    """Nothing but the matrix products of a step, into arrays made beforehand.

    Samples are in columns and [h; x] is one array, as in rnn_xp's kernels. ``threads`` threads
    with one BLAS thread each share blocks of rows; ``blas`` is the number of BLAS threads.
    """

    def __init__(self, case, threads, blas=1):
        self.name = f"products, {threads} x {blas} thread{'s'[: threads * blas > 1]}"
        self.blas, self.pool = blas, ThreadPoolExecutor(threads) if threads > 1 else None
        blocks = threads * -(-case.N // (threads * block_rows(case))) if blas == 1 else 1
        each = -(-case.N // blocks)
        self.rows = [min(each, case.N - start) for start in range(0, case.N, each)]
        spaces = [_Space(case, each) for _ in range(threads)]
        self.shares = [
            (space, self.rows[number::threads]) for number, space in enumerate(spaces)
        ]  # fmt: skip

    def step(self):
        if self.pool is None:
            for space, rows in self.shares:
                space.multiply(rows)
        else:
            list(self.pool.map(lambda share: share[0].multiply(share[1]), self.shares))

    def times(self, seconds, most):
        from threadpoolctl import threadpool_limits

        with threadpool_limits(self.blas, user_api="blas"):
            return super().times(seconds, most)

    def close(self):
        if self.pool is not None:
            self.pool.shutdown()


class _Space:
    """Operands and results of one thread."""

    def __init__(self, case, rows):
        rng = np.random.default_rng(0)
        gates, width = case.gates * case.H, case.H + case.I

        def noise(*shape):
            return rng.standard_normal(shape, dtype=np.float32)

        self.case, self.w = case, noise(gates, width)
        self.w_back = np.ascontiguousarray(self.w[:, : case.H]).T
        self.entering, self.d = noise(case.T, width * rows), noise(gates * rows)
        self.z, self.dh = np.empty_like(self.d), np.empty(case.H * rows, np.float32)
        self.dw, self.dw_first = np.empty_like(self.w), np.empty((gates, case.I), np.float32)
        self.w_out, self.out = noise(1, case.H), np.empty((1, rows), np.float32)
        self.dw_out = np.empty((1, case.H), np.float32)

    def multiply(self, blocks):
        for rows in blocks:
            self._multiply(rows)

    def _multiply(self, n):
        H, T = self.case.H, self.case.T
        gates, width = self.w.shape
        entering = self.entering[:, : width * n].reshape(T, width, n)
        z, d = (array[: gates * n].reshape(gates, n) for array in (self.z, self.d))
        dh, out = self.dh[: H * n].reshape(H, n), self.out[:, :n]
        np.matmul(self.w[:, H:], entering[0, H:], out=z)
        for t in range(1, T):
            np.matmul(self.w, entering[t], out=z)
        np.matmul(self.w_out, entering[0, :H], out=out)
        np.matmul(out, entering[0, :H].T, out=self.dw_out)
        np.matmul(self.w_out.T, out, out=dh)
        for t in range(T - 1, 0, -1):
            np.matmul(d, entering[t].T, out=self.dw)
            np.matmul(self.w_back, d, out=dh)
        np.matmul(d, entering[0, H:].T, out=self.dw_first)


def floors(case):
    """Ways to do the products; the fastest is the floor."""
    ways = [Products(case, 1), Products(case, 1, THREADS)]
    return [*ways, Products(case, THREADS)] if case.N >= THREADS else ways
