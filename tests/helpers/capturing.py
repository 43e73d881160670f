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


class Pool:
    """Memory of one owner, which keeps all of it."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def malloc(self, size: int) -> None:
        raise AssertionError("nobody asks for bytes here")


@contextlib.contextmanager
def using(malloc: Any) -> Iterator[None]:
    """Take memory of a pool."""
    _pools.append(malloc.__self__)
    try:
        yield
    finally:
        _pools.pop()
