"""`fit`: from host data to trained parameters."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Loss, Optimizer, Params
from rnn_xp.backend import Backend, backend_of, get_backend
from rnn_xp.callbacks import Callback
from rnn_xp.engines.portable import PortableEngine, default_block_rows, on_accelerator
from rnn_xp.network import Network, resolve_loss

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

    def __init__(self, epoch: int, params: Params, history: dict[str, list[float]]) -> None:
        self.epoch, self.params, self.history = epoch, params, history
        super().__init__(
            f"training diverged: the loss is not finite at epoch {epoch}. Lower the learning "
            "rate, or scale the data; the parameters before that epoch are kept."
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
    y : array (N, O)
    optimizer : Optimizer
        Such as ``rnn_xp.optim.lbfgs()`` for a full batch or ``rnn_xp.optim.adam(0.01)``.
    epochs : int
        Passes over the data, >= 1. With a full batch each is one update.
    loss : str or callable
    batch_size : int, optional
        Rows per update, 1..N; the full batch by default. Smaller batches are drawn anew in every
        epoch, by (seed, epoch) alone.
    sample_weight : array (N,), optional
        Non-negative.
    params : Params, optional
        Where to start; ``net.init(seed)`` by default.
    seed : int
        Of the initial weights and of the order of minibatches.
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
    ValueError
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
    backend = _resolve_backend(x, backend)
    rows = _check_sizes(x, y, epochs, batch_size)
    x, y, sample_weight = _enter(backend, x=x, y=y, sample_weight=sample_weight)
    if sample_weight is not None:
        _check_weights(backend, sample_weight, rows)
    full_batch = batch_size is None or batch_size == rows
    if not full_batch and _full_batch_only(optimizer):
        raise ValueError(
            f"{type(optimizer).__name__} needs the full batch: its line search compares losses, "
            f"and those of different minibatches cannot be compared. Leave out "
            f"batch_size={batch_size}, or use rnn_xp.optim.adam()."
        )
    engine = PortableEngine(
        net=net,
        loss=resolve_loss(loss),
        optimizer=optimizer,
        backend=backend,
        x=x,
        y=y,
        sample_weight=sample_weight,
        block_rows=default_block_rows(backend),
        batches=None if full_batch else _shuffled(rows, batch_size or rows, seed),
        workers=_resolve_workers(workers, backend),
    )
    loop = _Loop(engine, epochs, callbacks)
    params = net.init(seed, backend) if params is None else dict(params)
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
    losses: list[float] = field(default_factory=list)
    stopped: str = ""

    def train(self, params: Params) -> Params:
        # Each read of the losses waits for the device. A line search reads them anyway.
        reads_anyway = _full_batch_only(self.engine.optimizer)
        chunk = 10 if on_accelerator(self.engine.backend) and not reads_anyway else 1
        # Where this chunk starts, and where the one before did: (params, state, epochs done).
        start = before = (params, self.engine.optimizer.init(params), 0)
        while start[2] < self.epochs and not self.stopped:
            params, opt_state, done = start
            k = min(chunk, self.epochs - done)
            params, opt_state, losses = self.engine.run(params, opt_state, k, done)
            values = [float(value) for value in self.engine.backend.to_numpy(losses)]
            if not all(map(math.isfinite, values)):
                if chunk == 1:
                    raise DivergenceError(done + 1, before[0], {"loss": self.losses})
                # Go back far enough to meet the last good parameters, and find the epoch.
                chunk, start = 1, before
                continue
            before, start = start, (params, opt_state, done + k)
            self._report(values, done)
            self.stopped = getattr(opt_state, "message", "")
        if not self._finite(params):
            raise DivergenceError(len(self.losses), before[0], {"loss": self.losses})
        return params

    def _report(self, values: list[float], done: int) -> None:
        """Record and tell the losses after epoch ``done``; those replayed are known already."""
        new = values[len(self.losses) - done :]
        for value in new:
            self.losses.append(value)
            for callback in self.callbacks:
                callback(len(self.losses), self.epochs, value)

    def _finite(self, params: Params) -> bool:
        xp = self.engine.backend.xp
        return all(bool(xp.all(xp.isfinite(p))) for p in params.values())


def _full_batch_only(optimizer: Optimizer) -> bool:
    return getattr(optimizer, "full_batch_only", False)


def _resolve_backend(x: Any, backend: Backend | None) -> Backend:
    """Arrays of another library stay where they are; host data go where the user says."""
    on_host = isinstance(x, np.ndarray | list | tuple)
    if not on_host and backend is None:
        return backend_of(x)
    return get_backend() if backend is None else backend


def _resolve_workers(workers: int | None, backend: Backend) -> int:
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise ValueError(f"fit: workers must be >= 1, or None for all cores, got {workers!r}.")
    if backend.name != "numpy":
        return 1
    if workers is None:  # the cores this process may use, where the system can tell
        affinity = getattr(os, "sched_getaffinity", None)
        count: int | None = len(affinity(0)) if affinity else os.cpu_count()
        return count or 1
    return workers


def _check_sizes(x: Array, y: Array, epochs: int, batch_size: int | None) -> int:
    x_shape, y_shape = np.shape(x), np.shape(y)
    if len(x_shape) != 3 or 0 in x_shape:
        raise ValueError(f"fit: x must have shape (N, T, I) with N, T, I >= 1, got {x_shape}.")
    rows: int = x_shape[0]
    if len(y_shape) != 2 or y_shape[0] != rows:
        raise ValueError(
            f"fit: y must have shape ({rows}, O), one row per window of x, got {y_shape}."
        )
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"fit: epochs must be an integer >= 1, got {epochs!r}.")
    if batch_size is not None and not (
        isinstance(batch_size, int) and not isinstance(batch_size, bool) and 1 <= batch_size <= rows
    ):
        raise ValueError(
            f"fit: batch_size must be an integer in 1..{rows} (N), or None for the full batch, "
            f"got {batch_size!r}."
        )
    return rows


def _enter(backend: Backend, **arrays: Any) -> Iterator[Array | None]:
    """Let data in: host arrays go to the backend, and finiteness is checked once, here."""
    for name, array in arrays.items():
        if array is None:
            yield None
            continue
        if isinstance(array, np.ndarray | list | tuple):
            array = backend.asarray(array, copy=False)
        xp = backend.xp
        if not bool(xp.all(xp.isfinite(array))):
            raise ValueError(
                f"fit: {name} has values that are not finite. Remove or fill the gaps first."
            )
        yield array


def _check_weights(backend: Backend, weight: Array, rows: int) -> None:
    if tuple(weight.shape) != (rows,):
        raise ValueError(
            f"fit: sample_weight must have shape ({rows},), one weight per window, got "
            f"{tuple(weight.shape)}."
        )
    xp = backend.xp
    if bool(xp.any(weight < 0)) or not bool(xp.any(weight > 0)):
        raise ValueError("fit: sample_weight must be >= 0, with at least one weight > 0.")


def _shuffled(rows: int, batch_size: int, seed: int) -> Callable[[int], Iterator[Any]]:
    """Minibatches of an epoch, a function of (seed, epoch) alone; the last may be short."""

    def batches(epoch: int) -> Iterator[Any]:
        order = np.random.default_rng((seed, epoch)).permutation(rows)
        for start in range(0, rows, batch_size):
            yield order[start : start + batch_size]

    return batches


def _one_blas_thread(backend: Backend) -> contextlib.AbstractContextManager[Any]:
    """One BLAS thread for the whole fit: a GEMM has other bits with two.

    Blocks run on threads of their own, so nothing is lost.
    """
    if backend.name != "numpy":
        return contextlib.nullcontext()
    from threadpoolctl import threadpool_limits

    limits: contextlib.AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits
