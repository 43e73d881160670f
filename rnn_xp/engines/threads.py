"""Work on threads, a few items ahead of whoever takes the results, never all of them at once."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["in_order"]

_Item = TypeVar("_Item")
_T = TypeVar("_T")


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
