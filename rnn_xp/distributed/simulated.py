"""Ranks that are threads of one process, for tests without MPI and a launcher."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnn_xp.distributed.comm import Comm, CommError

__all__ = ["Simulated", "simulate"]

_T = TypeVar("_T")


class _Post:
    """Messages in transit between the ranks."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.arrived = threading.Condition()
        self.messages: dict[tuple[int, int], deque[NDArray[Any]]] = defaultdict(deque)
        self.failed: int | None = None

    def send(self, source: int, to: int, row: NDArray[Any]) -> None:
        with self.arrived:
            self.messages[source, to].append(row.copy())
            self.arrived.notify_all()

    def receive(self, source: int, to: int) -> NDArray[Any]:
        limit = time.monotonic() + self.deadline
        with self.arrived:
            while not self.messages[source, to]:
                if self.failed is not None:
                    raise CommError(f"rank {self.failed} has failed.")
                if not self.arrived.wait(limit - time.monotonic()):
                    raise CommError(
                        f"rank {to}: no answer of rank {source} in {self.deadline:g} s."
                    )
            return self.messages[source, to].popleft()

    def fail(self, rank: int) -> None:
        with self.arrived:
            self.failed = rank if self.failed is None else self.failed
            self.arrived.notify_all()


class Simulated:
    """A rank that is a thread; see `simulate`."""

    def __init__(self, rank: int, size: int, post: _Post) -> None:
        self.rank, self.size, self.sharing = rank, size, size
        self.local_rank, self.device_buffers = rank, False
        self.messages = 0
        self.bytes = 0
        self._post = post

    def exchange(
        self, partner: int, send: NDArray[Any] | None, receive: NDArray[Any] | None
    ) -> None:
        """Send a copy, and wait for what the partner sends."""
        if send is not None:
            self.messages, self.bytes = self.messages + 1, self.bytes + send.nbytes
            self._post.send(self.rank, partner, send)
        if receive is not None:
            row = self._post.receive(partner, self.rank)
            if row.shape != receive.shape or row.dtype != receive.dtype:
                raise CommError(
                    f"rank {self.rank} awaits {receive.dtype} {receive.shape} of rank {partner}, "
                    f"which sent {row.dtype} {row.shape}."
                )
            receive[...] = row

    def total(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return the sum, in the order of the ranks."""
        total: NDArray[Any] = self.gather(row).sum(axis=0, dtype=row.dtype)
        return total

    def gather(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of all ranks as an array (size, length)."""
        rows = np.empty((self.size, row.size), row.dtype)
        rows[self.rank] = row
        others = [rank for rank in range(self.size) if rank != self.rank]
        for rank in others:
            self.exchange(rank, row, None)
        for rank in others:
            self.exchange(rank, None, rows[rank])
        return rows


def simulate(size: int, work: Callable[[Comm], _T], *, deadline: float = 10.0) -> list[_T]:
    """Run a function on several ranks, each of which is a thread.

    Parameters
    ----------
    size : int
        Number of ranks, >= 1.
    work : callable
        ``work(comm)`` is called on every rank.
    deadline : float
        Seconds that a rank waits for another.

    Returns
    -------
    list
        The results, by rank.

    Raises
    ------
    Exception
        The exception of the rank that failed first.

    Examples
    --------
    >>> simulate(3, lambda comm: float(comm.total(np.ones(1) * comm.rank)[0]))
    [3.0, 3.0, 3.0]
    """
    post = _Post(deadline)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(Simulated(rank, size, post))
        except BaseException as error:
            errors.append(error)
            post.fail(rank)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(run, rank), daemon=True)
        for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
