"""CUDA graphs on the stand-in for CuPy: what would be launched in a capture is noted, not done.

A graph does it later with the same arrays, whatever they hold then. Results of a capture hold
nothing that may be used: NaN, or zeros where there is no NaN. What CuPy or CUDA refuse in a
capture, or what a graph would repeat with memory that has gone, is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = [
    "CaptureError",
    "Graph",
    "Pool",
    "Stream",
    "current",
    "do",
    "make",
    "own",
    "refuse",
    "using",
]

_noted: list[Callable[[], Any]] | None = None
_pools: list[Pool] = []


class CaptureError(RuntimeError):
    """What a capture does not allow."""


def refuse(what: str) -> None:
    """Raise an error if there is a capture."""
    if _noted is not None:
        raise CaptureError(f"{what} in a capture")


def do(work: Callable[[], Any]) -> None:
    """Do what writes to arrays that exist, or note it."""
    if _noted is None:
        work()
    else:
        _noted.append(work)


def own(array: np.ndarray) -> np.ndarray:
    """Return an array whose memory stays that of the pool in use, if there is one."""
    if _pools:
        _pools[-1].arrays.append(array)
    elif _noted is not None:
        raise CaptureError("memory of which others may become owners")
    return array


def make(work: Callable[[], Any]) -> np.ndarray:
    """Make a new array, which a graph makes anew in the same memory."""
    made = own(np.asarray(work()))
    if _noted is not None:

        def again() -> None:
            made[...] = work()

        _noted.append(again)
        made[...] = np.nan if made.dtype.kind == "f" else 0
    return made


class Graph:
    def __init__(self, work: list[Callable[[], Any]]) -> None:
        self.work, self.launches = work, 0

    def upload(self, stream: Stream) -> None:
        pass

    def launch(self, stream: Stream) -> None:
        assert current() is stream
        assert _noted is None
        self.launches += 1
        for work in self.work:
            work()


class Stream:
    """Work on it is done at once, but only if it has waited for the others."""

    refuses = False  # a device on which no stream can be captured
    graphs: list[Graph] = []  # noqa: RUF012  all that were captured

    def __init__(self, non_blocking: bool = False) -> None:
        self.waited = not non_blocking

    def __enter__(self) -> Stream:
        assert self.waited, "the memory may not have been written yet: wait for an event first"
        _streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _streams.pop()

    def is_capturing(self) -> bool:
        return _noted is not None

    def record(self) -> Stream:
        return self

    def wait_event(self, event: Stream) -> None:
        self.waited = True

    def begin_capture(self) -> None:
        global _noted
        if self.refuses:
            raise RuntimeError("the stream cannot be captured")
        assert current() is self
        _noted = []

    def end_capture(self) -> Graph:
        global _noted
        noted, _noted = _noted, None
        if noted is None:
            raise RuntimeError("the stream is not capturing")
        graph = Graph(noted)
        self.graphs.append(graph)
        return graph


_streams = [Stream()]


def current() -> Stream:
    return _streams[-1]


class CudaError(RuntimeError):
    """An error of the CUDA runtime, of which 2 says that there is no more memory."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}")
        self.status = status


class OutOfMemoryError(MemoryError):
    """What CuPy's pools raise at last."""

    def __init__(self, size: int, total: int) -> None:
        super().__init__(f"Out of memory allocating {size} bytes")


class Memory:
    """Memory of the device, of which there is as much as `left` says."""

    left = 2**40

    def __init__(self, size: int) -> None:
        if size > Memory.left:
            raise CudaError(2)
        Memory.left -= size


class Pool:
    """Memory of one owner, which keeps all of it, or gives its free blocks back if it runs out."""

    def __init__(self, allocator: Callable[[int], Any] | None = None) -> None:
        self.arrays: list[np.ndarray] = []
        self.allocator, self.limit, self.free = allocator or Memory, 2**30, 0

    def set_limit(self, size: int) -> None:
        self.limit = size

    def free_all_blocks(self) -> None:
        refuse("memory that a graph uses, given back")
        Memory.left, self.free = Memory.left + self.free, 0

    def malloc(self, size: int) -> Any:
        for _ in range(2):
            try:
                return self.allocator(size)
            except CudaError:
                self.free_all_blocks()
        raise OutOfMemoryError(size, 0)


default_pool = Pool()


@contextlib.contextmanager
def using(malloc: Any) -> Iterator[None]:
    """Take memory of a pool."""
    pool = malloc.__self__
    assert pool.limit == 0, "a pool with a limit gives blocks back that a graph uses"
    assert pool.allocator is not Memory, "it gives blocks back when memory runs out"
    _pools.append(pool)
    try:
        yield
    finally:
        _pools.pop()
