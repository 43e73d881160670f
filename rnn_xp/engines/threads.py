"""Work on threads: how many there are, and what they are given, never all of it at once."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from rnn_xp.backend import Backend

__all__ = ["count_workers", "in_order", "one_blas_thread"]

_Item = TypeVar("_Item")
_T = TypeVar("_T")


def count_workers(workers: int | None, backend: Backend, sharing: int = 1) -> int:
    """How many threads to use.

    Parameters
    ----------
    workers : int, optional
        As the user says; by default all cores.
    backend : Backend
        More than one thread is of use on NumPy alone.
    sharing : int
        How many ranks share the cores.
    """
    if backend.name != "numpy":
        return 1
    if workers is None:  # the cores this process may use, where the system can tell
        affinity = getattr(os, "sched_getaffinity", None)
        count: int | None = len(affinity(0)) if affinity else os.cpu_count()
        return max(1, (count or 1) // sharing)
    return workers


def one_blas_thread(backend: Backend) -> contextlib.AbstractContextManager[Any]:
    """One BLAS thread for the whole fit: a GEMM has other bits with two.

    Blocks run on threads of their own, so nothing is lost.
    """
    if backend.name != "numpy":
        return contextlib.nullcontext()
    from threadpoolctl import threadpool_limits

    limits: contextlib.AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _T], items: Iterable[_Item], ahead: int
) -> Iterator[_T]:
    """Map on threads, like ``Executor.map``, in memory that does not grow with the items.

    Parameters
    ----------
    pool : ThreadPoolExecutor
        Its size is how many items are worked on at once.
    function : callable
    items : iterable
        Read as needed.
    ahead : int
        How many items may be with the threads, waiting, worked on or done, while a result is
        awaited. Twice the threads keeps them busy although items take unequal time.

    Yields
    ------
    The results, in the order of the items. The first item in that order to fail ends the
    iteration with its exception; what had not begun by then never does, and what had is awaited.

    Examples
    --------
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(in_order(pool, abs, [-1, -2, -3], ahead=2))
    [1, 2, 3]
    """
    waiting: deque[Future[_T]] = deque()
    try:
        for item in items:
            # Threads work in the caller's context: NumPy keeps there what to do about overflow.
            waiting.append(pool.submit(contextvars.copy_context().run, function, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        wait([future for future in waiting if not future.cancel()])
