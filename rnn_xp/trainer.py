"""`fit`: from host data to trained parameters."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnn_xp import sequence, training_data
from rnn_xp._typing import Array, Loss, Optimizer, Params
from rnn_xp.backend import Backend, backend_of, get_backend
from rnn_xp.callbacks import Callback
from rnn_xp.configuration import resolve_loss, takes_classes
from rnn_xp.engines.portable import PortableEngine, default_block_rows, on_accelerator
from rnn_xp.network import Network

__all__ = ["DivergenceError", "FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Attributes
    ----------
    params : Params
        The last parameters, on the backend that trained them.
    history : dict of str to list of float
        ``history["loss"][k]`` is the loss before update k (with minibatches: epoch k's mean over
        its batches).
    stopped : str
        Why training ended before the last epoch; empty if it did not.
    evaluations : int
        How many times a loss and its gradient were computed, line searches included.
    seconds : float
        Wall time of the epochs.
    backend : Backend
    block_rows, workers : int
    """

    params: Params
    history: dict[str, list[float]]
    stopped: str
    evaluations: int
    seconds: float
    backend: Backend
    block_rows: int
    workers: int


class DivergenceError(FloatingPointError):
    """The loss or the parameters are no longer finite.

    Attributes
    ----------
    epoch : int
        The epoch, counted from 1, whose loss was not finite or whose update broke the parameters.
    params : Params
        The last good parameters: those of the latest finite loss.
    history : dict of str to list of float
        The losses up to there.
    """

    def __init__(
        self, epoch: int, params: Params, history: dict[str, list[float]], what: str = "loss is"
    ) -> None:
        self.epoch, self.params, self.history = epoch, params, history
        super().__init__(
            f"training diverged: the {what} not finite at epoch {epoch}. Scale the data, or lower "
            "the learning rate; the last good parameters are kept."
        )


def fit(
    net: Network,
    x: Array,
    y: Array,
    *,
    optimizer: Optimizer,
    epochs: int,
    loss: str | Loss = "mse",
    batch_size: int | None = None,
    sample_weight: Array | None = None,
    lengths: Array | None = None,
    mask: Array | None = None,
    reset: Array | None = None,
    truncate: tuple[int, int] | None = None,
    params: Params | None = None,
    seed: int = 0,
    workers: int | None = None,
    backend: Backend | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train a network.

    NumPy data go to the selected backend; arrays of another library stay where they are and
    decide. Equal seed, backend, device, kind of CPU and versions give equal bits, whatever the
    number of workers.

    Parameters
    ----------
    net : Network
    x : array (N, T, I)
        For one_to_many (N, 1, I).
    y : array (N, O) or (N, T, O); class indices (N,) or (N, T)
    optimizer : Optimizer
        Such as ``rnn_xp.optim.lbfgs()`` for a full batch or ``rnn_xp.optim.adam(0.01)``.
    epochs : int
        Passes over the data, >= 1. With a full batch each is one update.
    loss : str or callable
        See `rnn_xp.Network.value_and_grad`.
    batch_size : int, optional
        Rows per update, 1..N; the full batch by default. Smaller batches are drawn anew in every
        epoch, by (seed, epoch) alone.
    sample_weight : array (N,) or (N, T), optional
        Non-negative.
    lengths, mask, reset : arrays, optional
        See `rnn_xp.Network`.
    truncate : (int, int), optional
        (k1, k2) of truncated backpropagation through time: an update after every k1 steps, whose
        gradient reaches back k2 >= k1 steps. Rows are then streams that run side by side, and the
        batch is full.
    params : Params, optional
        Where to start; ``net.init(seed)`` by default.
    seed : int
        Non-negative. Of the initial weights, the order of minibatches, and dropout, whose masks
        are a function of (seed, update, block).
    workers : int, optional
        Threads, on NumPy only; all cores by default.
    backend : Backend, optional
        `rnn_xp.get_backend` by default.
    callbacks : sequence of callable
        Each is called as ``callback(epoch, epochs, loss)`` after every epoch.

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError, TypeError
        For shapes, sizes or values that cannot be trained on.
    DivergenceError
        If the loss stops being finite; it carries the last good parameters.

    Examples
    --------
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows([i % 7 / 7 for i in range(100)], seq_length=10)
    >>> net = rx.Network(input_size=1, hidden_size=8, output_size=1)
    >>> result = rx.fit(net, x, y, optimizer=rx.optim.lbfgs(), epochs=30)
    >>> result.history["loss"][-1] < 0.01 * result.history["loss"][0]
    True
    """
    function = resolve_loss(loss, net.output_activation)
    full_batch_only = training_data.check_optimizer(optimizer)
    backend = _resolve_backend(x, backend)
    epochs = training_data.whole("epochs", epochs, 1)
    seed = training_data.whole("seed", seed, 0)
    rows = training_data.check_shapes(net, x, y, takes_classes(function))
    if batch_size is not None:
        batch_size = training_data.whole("batch_size", batch_size, 1, rows)
    full_batch = batch_size is None or batch_size == rows
    noisy = bool(net.dropout or net.recurrent_dropout)
    if full_batch_only and not (full_batch and truncate is None and not noisy):
        raise ValueError(
            f"{type(optimizer).__name__} needs the full batch, without truncation or dropout: its "
            "line search compares losses, which must be those of one function. Leave these out, "
            "or use rnn_xp.optim.adam()."
        )
    if truncate is not None:
        if not full_batch or lengths is not None:
            raise ValueError(
                "truncate= goes with the full batch and with mask= instead of lengths=: rows are "
                "streams whose states are carried on."
            )
        if net.bidirectional:
            raise ValueError("truncate= needs bidirectional=False.")
        sequence.segments(1, *truncate)
    data = training_data.enter(
        net, function, backend,
        x=x, y=y, sample_weight=sample_weight, lengths=lengths, mask=mask, reset=reset,
    )  # fmt: skip
    engine = PortableEngine(
        net=net,
        loss=function,
        optimizer=optimizer,
        backend=backend,
        data=data,
        block_rows=default_block_rows(backend),
        batches=None if full_batch else _shuffled(rows, batch_size or rows, seed),
        truncate=truncate,
        noise=_seeded(seed) if noisy else None,
        workers=_resolve_workers(workers, backend),
    )
    loop = _Loop(engine, epochs, callbacks, one_by_one=full_batch_only)
    params = net.init(seed, backend) if params is None else dict(params)
    if not _finite(backend, params):
        raise ValueError("fit: the given params have values that are not finite.")
    start = time.perf_counter()
    # Overflow is reported once, as a DivergenceError, and not by a warning from each operation.
    quiet = np.errstate(over="ignore", invalid="ignore")
    with quiet, _one_blas_thread(backend), engine.running():
        params = loop.train(params)
    return FitResult(
        params=params,
        history={"loss": loop.losses},
        stopped=loop.stopped,
        evaluations=engine.evaluations,
        seconds=time.perf_counter() - start,
        backend=backend,
        block_rows=engine.block_rows,
        workers=engine.workers,
    )


@dataclass
class _Loop:
    """The epochs, in chunks between two reads of the device."""

    engine: PortableEngine
    epochs: int
    callbacks: Sequence[Callback]
    one_by_one: bool  # for an optimiser that reads its losses itself
    losses: list[float] = field(default_factory=list)
    stopped: str = ""

    def train(self, params: Params) -> Params:
        # Each read of the losses waits for the device. A line search reads them anyway.
        chunk = 10 if on_accelerator(self.engine.backend) and not self.one_by_one else 1
        # Where this chunk starts, and where the one before did: (params, state, epochs done).
        start = before = (params, self.engine.optimizer.init(params), 0)
        while start[2] < self.epochs and not self.stopped:
            params, opt_state, done = start
            k = min(chunk, self.epochs - done)
            try:
                params, opt_state, losses = self.engine.run(params, opt_state, k, done)
                values = [float(value) for value in self.engine.backend.to_numpy(losses)]
            except FloatingPointError:  # an optimiser found its gradient broken
                values = [math.nan]
            finite = all(map(math.isfinite, values))
            # What the very last update leaves is seen by no further loss.
            broken = done + k == self.epochs and not _finite(self.engine.backend, params)
            if chunk > 1 and (broken or not finite):
                # Go back far enough to meet the last good parameters, and find the epoch.
                chunk, start = 1, start if finite else before
                continue
            if not finite:
                raise DivergenceError(done + 1, before[0], {"loss": self.losses})
            self._report(values, done)
            if broken:
                history = {"loss": self.losses}
                raise DivergenceError(done + 1, start[0], history, "updated parameters are")
            before, start = start, (params, opt_state, done + k)
            self.stopped = getattr(opt_state, "message", "")
        return params

    def _report(self, values: list[float], done: int) -> None:
        """Record and tell the losses after epoch ``done``; those replayed are known already."""
        new = values[len(self.losses) - done :]
        for value in new:
            self.losses.append(value)
            for callback in self.callbacks:
                callback(len(self.losses), self.epochs, value)


def _finite(backend: Backend, params: Params) -> bool:
    return all(bool(backend.xp.all(backend.xp.isfinite(p))) for p in params.values())


def _resolve_backend(x: Any, backend: Backend | None) -> Backend:
    """Arrays of another library stay where they are; host data go where the user says."""
    if backend is not None:
        if not isinstance(backend, Backend):
            raise TypeError(
                f"fit: backend must be what rnn_xp.get_backend returns, got {backend!r}."
            )
        if not training_data.on_host(x) and backend_of(x).name != backend.name:
            raise TypeError(
                f"fit: x is an array of another library ({backend_of(x).name}) than backend= "
                f"({backend.name}). Leave out backend=, or give x as a NumPy array."
            )
        return backend
    return get_backend() if training_data.on_host(x) else backend_of(x)


def _resolve_workers(workers: int | None, backend: Backend) -> int:
    if workers is not None:
        workers = training_data.whole("workers", workers, 1)
    if backend.name != "numpy":
        return 1
    if workers is None:  # the cores this process may use, where the system can tell
        affinity = getattr(os, "sched_getaffinity", None)
        count: int | None = len(affinity(0)) if affinity else os.cpu_count()
        return count or 1
    return workers


def _shuffled(rows: int, batch_size: int, seed: int) -> Callable[[int], list[Any]]:
    """Minibatches of an epoch, a function of (seed, epoch) alone; the last may be short."""

    def batches(epoch: int) -> list[Any]:
        order = np.random.default_rng((seed, epoch)).permutation(rows)
        return [order[start : start + batch_size] for start in range(0, rows, batch_size)]

    return batches


def _seeded(seed: int) -> Callable[[int, int], np.random.Generator]:
    """Generators for dropout, one for each block in each update."""
    return lambda step, block: np.random.default_rng((seed, step, block))


def _one_blas_thread(backend: Backend) -> contextlib.AbstractContextManager[Any]:
    """One BLAS thread for the whole fit: a GEMM has other bits with two.

    Blocks run on threads of their own, so nothing is lost.
    """
    if backend.name != "numpy":
        return contextlib.nullcontext()
    from threadpoolctl import threadpool_limits

    limits: contextlib.AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits
