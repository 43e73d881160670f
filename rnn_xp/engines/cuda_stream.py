"""A CUDA stream of an engine's own, and work on it that becomes a graph."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["OwnStream", "Repeatable"]


class Repeatable(NamedTuple):
    """Work that can be done again.

    Attributes
    ----------
    launch : callable
        Does the work on the stream.
    reason : str
        The reason why it is launched kernel by kernel; empty if it is a graph.
    """

    launch: Callable[[], None]
    reason: str


class OwnStream:
    """A stream on the current device, ordered with the work on other streams."""

    def __init__(self) -> None:
        import cupy

        self._stream = cupy.cuda.Stream(non_blocking=True)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Let CuPy work on this stream: after what was there before, and before what comes."""
        import cupy

        current = cupy.cuda.get_current_stream()
        self._stream.wait_event(current.record())
        with self._stream:
            yield
        current.wait_event(self._stream.record())

    def repeatable(self, work: Callable[[], None]) -> Repeatable:
        """Do the work twice while CuPy works on this stream, the second time to capture a graph.

        A graph keeps the addresses and numbers that it was captured with.
        """
        work()  # modules are loaded at the first launch, which a capture does not allow
        try:
            self._stream.begin_capture()
            try:
                work()
            finally:
                graph = self._stream.end_capture()
            graph.upload(self._stream)
        except RuntimeError as error:  # CuPy's own errors, and NotImplementedError
            lines = str(error).splitlines() or [type(error).__name__]
            return Repeatable(
                work, f"launched kernel by kernel, as there is no CUDA graph: {lines[0]}"
            )
        return Repeatable(functools.partial(graph.launch, self._stream), "")
