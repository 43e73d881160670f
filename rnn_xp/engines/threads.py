"""Threads: their number, a map that limits memory, and the single thread of BLAS."""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from rnn_xp.backend import Backend

__all__ = ["count_workers", "in_order", "one_blas_thread"]

_Item = TypeVar("_Item")
_T = TypeVar("_T")


def count_workers(workers: int | None, backend: Backend, sharing: int = 1) -> int:
    """Return the number of threads to use.

    Parameters
    ----------
    workers : int, optional
        The number that the user requests; by default the number of cores.
    backend : Backend
        Several threads are useful on NumPy only; on any other backend the number is 1.
    sharing : int
        Number of ranks that share the cores.
    """
    if backend.name != "numpy":
        return 1
    if workers is None:  # the cores this process may use, where the system can tell
        affinity = getattr(os, "sched_getaffinity", None)
        count: int | None = len(affinity(0)) if affinity else os.cpu_count()
        return max(1, (count or 1) // sharing)
    return workers


@contextlib.contextmanager
def one_blas_thread(backend: Backend) -> Iterator[None]:
    """Limit BLAS to one thread during a fit, because a GEMM has other bits with two threads.

    Blocks run on threads of their own, so nothing is lost. The limit holds for the whole process,
    so fits that overlap in several threads share it: the last fit to end restores the setting from
    before the first.

    Parameters
    ----------
    backend : Backend
        Only NumPy's BLAS is limited.
    """
    if backend.name != "numpy":
        yield
        return
    _BLAS_LIMIT.acquire()
    try:
        yield
    finally:
        _BLAS_LIMIT.release()


class _BlasLimit:
    """The limit of one BLAS thread, with a count of its users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before: list[list[tuple[Any, int]]] = []  # libraries and their numbers of threads

    def acquire(self) -> None:
        from threadpoolctl import ThreadpoolController

        with self._lock:
            # Looked for by each fit, since a library may have been loaded since the last began.
            libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            self._before.append([(library, library.num_threads) for library in libraries])
            for library in libraries:
                _set_threads(library, 1)
            self._count += 1

    def release(self) -> None:
        with self._lock:
            self._count -= 1
            while not self._count and self._before:
                for library, threads in self._before.pop():
                    _set_threads(library, threads)


def _set_threads(library: Any, threads: int) -> None:
    """Set the number of threads of a BLAS library, from any of our threads."""
    # From 3.8 on, threadpoolctl ignores every thread but the one that has set the number first.
    free = getattr(library, "clear_controlling_thread", None)
    if free is not None:
        free(force=True)
    library.set_num_threads(threads)
    if free is not None:
        free(force=True)


_BLAS_LIMIT = _BlasLimit()


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _T], items: Iterable[_Item], ahead: int
) -> Iterator[_T]:
    """Map on threads, like ``Executor.map``, in memory that does not grow with the items.

    Parameters
    ----------
    pool : ThreadPoolExecutor
        The threads.
    function : callable
    items : iterable
        Arguments of ``function``, read as needed.
    ahead : int
        Maximum number of items that are submitted and whose results have not been yielded. Twice
        the number of threads keeps them busy although items take unequal time.

    Yields
    ------
    object
        The results, in the order of the items.

    Raises
    ------
    Exception
        The exception of the first item in that order that fails. Items that have not begun by then
        are cancelled, and items that have begun are awaited.

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
