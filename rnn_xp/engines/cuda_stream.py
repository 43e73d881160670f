"""A CUDA stream of an engine's own, and work on it that becomes a graph."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["OwnStream", "Repeatable", "lasting_pool"]


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
        except (RuntimeError, MemoryError) as error:  # all by which CuPy refuses a capture
            lines = str(error).splitlines() or [type(error).__name__]
            return Repeatable(
                work, f"launched kernel by kernel, as there is no CUDA graph: {lines[0]}"
            )
        return Repeatable(functools.partial(graph.launch, self._stream), "")


def lasting_pool() -> Any:
    """Return a memory pool for a graph, from which no block goes back to the device in a capture.

    A pool whose limit is reached, or that is told that memory has run out, gives its free blocks
    back and asks again (``SingleDeviceMemoryPool._try_malloc`` of CuPy 14). In a capture they are
    those of temporary arrays, which kernels that are captured already will read and write.
    """
    import cupy

    pool = cupy.cuda.MemoryPool(_allocate)
    pool.set_limit(size=0)  # none; a new pool has that of CUPY_GPU_MEMORY_LIMIT
    return pool


def _allocate(size: int) -> Any:
    """Return new memory of the device, where others' free blocks may make room for it."""
    import cupy

    cuda = cupy.cuda
    try:
        return cuda.MemoryPointer(cuda.Memory(size), 0)
    except cuda.runtime.CUDARuntimeError as error:
        if error.status != cuda.runtime.errorMemoryAllocation:
            raise
        if cuda.get_current_stream().is_capturing():
            raise cuda.memory.OutOfMemoryError(size, 0) from error  # ends the capture
    cupy.get_default_memory_pool().free_all_blocks()
    return cuda.MemoryPointer(cuda.Memory(size), 0)
