"""Stands in for CuPy and a GPU: the few calls of the fused engine, on NumPy arrays and CPU kernels.

Kernels are compiled by g++ over cpu_shim.h. Checked at every launch: the number, the types and the
sizes of arguments, what a real launch would take without complaint and compute nonsense from.
Work on a stream that nobody has waited for has not happened yet.
"""

from __future__ import annotations

import ctypes
import functools
import types
from typing import Any

import array_api_compat.numpy
import numpy as np
from shim_build import CompileError, build

from rnn_xp.backend import Backend

SHARED_LIMIT = {"sm_80": 166912, "sm_86": 101376, "sm_90": 232448}
OPTIMISED = ("-O2", "-march=native")
GUARD, GUARD_VALUE = 64, 12345.0  # numbers beyond the end of each array
DTYPES = {"r": np.float32, "w": np.float32, "c": np.int32, "i": np.int32, "f": np.float32}


class Kernel:
    def __init__(self, cupy: FakeCupy, library: ctypes.CDLL, name: str) -> None:
        self.cupy, self.library, self.name = cupy, library, name
        self.parameters = library.parameters(name.encode()).decode()
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
        assert len(args) == len(self.parameters), self.name
        for code, given in zip(self.parameters, args, strict=True):
            if code in "rwc":
                assert isinstance(given, np.ndarray)
                assert given.dtype == DTYPES[code], f"{self.name}: {given.dtype} for {code}"
                assert given.flags.c_contiguous
            else:
                assert type(given) is DTYPES[code], f"{given!r} would be passed as 8 bytes"
        assert shared_mem <= min(self.max_dynamic_shared_size_bytes, self.cupy.shared_limit)
        assert len(grid) == len(block) == 1
        work = functools.partial(self.launch, grid[0], block[0], args, shared_mem)
        self.cupy.current.submit(work)

    def launch(self, blocks: int, threads: int, args: tuple, shared_mem: int) -> None:
        numbers = {"i": ctypes.c_int, "f": ctypes.c_float}
        values = [
            numbers[code](given) if code in numbers else ctypes.c_void_p(given.ctypes.data)
            for code, given in zip(self.parameters, args, strict=True)
        ]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        seed = self.cupy.next_seed()
        ended = self.library.launch(
            self.name.encode(), blocks, threads, ctypes.c_size_t(shared_mem), seed, pointers
        )
        assert ended, f"{self.name}: some threads ended while others waited at a barrier"
        self.cupy.check_guards()


class Event:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class Stream:
    """Work is queued, and done when another stream waits for it."""

    def __init__(self, cupy: FakeCupy, non_blocking: bool = False) -> None:
        self.cupy, self.non_blocking = cupy, non_blocking
        self.queue: list[Any] = []
        self.captured: list[Any] | None = None
        self.waited = False

    def __enter__(self) -> Stream:
        assert self.cupy.current is self.cupy.default
        self.cupy.current = self
        return self

    def __exit__(self, *error: object) -> None:
        self.cupy.current = self.cupy.default

    def submit(self, work: Any) -> None:
        if self.captured is not None:
            self.captured.append(work)
            return
        assert self.waited, "the memory may not have been written yet: wait for an event first"
        self.queue.append(work)

    def record(self) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        while event.stream.queue:
            event.stream.queue.pop(0)()
        event.stream.waited = False  # what comes later on this stream is to be waited for again
        self.waited = True

    def begin_capture(self) -> None:
        if not self.cupy.graphs:
            raise RuntimeError("the stream cannot be captured")
        assert self is self.cupy.current
        assert self.non_blocking
        self.captured = []

    def end_capture(self) -> Graph:
        captured, self.captured = self.captured, None
        if captured is None:
            raise RuntimeError("the stream is not capturing")
        return Graph(captured)


class Graph:
    def __init__(self, work: list[Any]) -> None:
        self.work = work

    def upload(self, stream: Stream) -> None:
        pass

    def launch(self, stream: Stream) -> None:
        for work in self.work:
            stream.submit(work)


class Device(str):
    """NumPy's device, which calls itself cpu, with what CuPy's has."""

    id = 0
    attributes: dict[str, int]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class FakeCupy(types.ModuleType):
    """What the engine uses of CuPy.

    Parameters
    ----------
    shared_limit : int
        Bytes of shared memory that a block may have.
    shuffled : bool
        Whether threads run in random orders.
    graphs : bool
        Whether streams can be captured.
    edit : callable, optional
        Changes the kernels' source.
    options : tuple of str
        More of them for the compiler.
    """

    __version__ = "0.0"
    float32, int32 = np.float32, np.int32

    def __init__(
        self,
        shared_limit: int = SHARED_LIMIT["sm_90"],
        *,
        shuffled: bool = True,
        graphs: bool = True,
        available: bool = True,
        edit: Any = None,
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__("cupy")
        self.shared_limit, self.shuffled, self.graphs = shared_limit, shuffled, graphs
        self.edit, self.options = edit, options
        self.launches = 0
        self.arrays: list[np.ndarray] = []
        self.default = self.current = Stream(self)
        self.cuda = types.SimpleNamespace(
            Stream=functools.partial(Stream, self),
            get_current_stream=lambda: self.current,
            is_available=lambda: available,
            runtime=types.SimpleNamespace(getDeviceProperties=lambda number: {"name": b"none"}),
            compiler=types.SimpleNamespace(CompileException=CompileError),
        )
        device = Device("cpu")
        device.attributes = {"MaxSharedMemoryPerBlockOptin": shared_limit}
        self.backend = Backend("cupy", array_api_compat.numpy, device, np.dtype(np.float32))

    def next_seed(self) -> int:
        self.launches += 1
        return self.launches if self.shuffled else 0

    def allocate(self, shape: int | tuple[int, ...], dtype: Any, value: float) -> np.ndarray:
        assert self.current.captured is None, "a graph keeps addresses: allocate before"
        whole = np.full(int(np.prod(shape)) + GUARD, value, dtype)
        whole[-GUARD:] = GUARD_VALUE
        self.arrays.append(whole)
        return whole[:-GUARD].reshape(shape)

    def check_guards(self) -> None:
        assert all(np.all(whole[-GUARD:] == GUARD_VALUE) for whole in self.arrays)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        return self.allocate(shape, dtype, np.nan)

    def zeros(self, shape: Any, dtype: Any) -> np.ndarray:
        return self.allocate(shape, dtype, 0)

    def ones(self, shape: Any, dtype: Any) -> np.ndarray:
        return self.allocate(shape, dtype, 1)

    def asarray(self, host: Any, dtype: Any) -> np.ndarray:
        assert self.current.captured is None
        return np.asarray(host, dtype=dtype)

    def ascontiguousarray(self, array: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        found = self.allocate(array.shape, dtype, 0)
        found[...] = array
        return found

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> Any:  # noqa: N802
        self.source = code
        code = self.edit(code) if self.edit else code
        library = build(code, (*OPTIMISED, *options, *self.options))
        return types.SimpleNamespace(get_function=functools.partial(Kernel, self, library))
