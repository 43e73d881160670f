"""`cupy.RawModule` without a GPU: kernels of the layers, by g++ over the shim of the fused engine.

Checked at every launch: the number, the types and the sizes of arguments, what a real launch would
take without complaint and compute nonsense from. Threads run in another order at every launch, and
shared memory is poisoned.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from shim_build import build

NAMES = ("forward", "backward", "centre")
ENTRIES = dict.fromkeys(NAMES, "CLUSTERED(forward),CLUSTERED(backward),ENTRY(centre)")
ENTRIES |= dict.fromkeys(("collect", "add_up"), "ENTRY(collect),ENTRY(add_up)")
DTYPES = {
    "r": np.float32, "w": np.float32, "R": np.float64, "W": np.float64,
    "c": np.int32, "n": np.int32, "b": np.bool_,
}  # fmt: skip
NUMBERS = {
    "i": (np.int32, ctypes.c_int), "l": (np.int64, ctypes.c_longlong),
    "f": (np.float32, ctypes.c_float), "d": (np.float64, ctypes.c_double),
}  # fmt: skip


made: dict[tuple[str, tuple[str, ...]], None] = {}
"""All sources with their options, to be compiled for a GPU where that can be done."""


class LaunchError(AssertionError):
    """A launch that would hang or fail on a GPU."""


class Device:
    """What decides how kernels are built and launched here; tests change it for a while."""

    shared_limit = 232448
    clusters = True
    shuffled = True
    options: tuple[str, ...] = ()
    launches = 0

    @staticmethod
    def edit(code: str) -> str:
        return code


@contextlib.contextmanager
def device_as(**changes: Any) -> Iterator[None]:
    """Change how kernels are built and launched, for a while."""
    before = {name: Device.__dict__[name] for name in changes}
    for name, value in changes.items():
        setattr(Device, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(Device, name, value)


class Kernel:
    def __init__(self, code: str, options: tuple[str, ...], note: Any, name: str) -> None:
        self.code, self.options, self.note, self.name = code, options, note, name
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
        entries = ENTRIES.get(self.name, f"ENTRY({self.name})")
        options = ("-O1", f"-DENTRIES={entries}", *self.options, *Device.options)
        library = build(Device.edit(self.code), options)
        codes = library.parameters(self.name.encode()).decode()
        assert len(args) == len(codes), self.name
        assert len(grid) == len(block) == 1
        assert shared_mem <= min(self.max_dynamic_shared_size_bytes, Device.shared_limit)
        values: list[Any] = []
        for place, (code, given) in enumerate(zip(codes, args, strict=True)):
            where = f"argument {place} of {self.name}"
            if code in NUMBERS:
                wanted, passed = NUMBERS[code]
                assert type(given) is wanted, where
                values.append(passed(given.item()))
            elif code == "?":  # CuPy takes arrays of one entry, of any type
                assert given.shape == (1,), where
                assert given.dtype.fields, where
                values.append((ctypes.c_char * given.itemsize).from_buffer_copy(given.tobytes()))
            elif type(given) is np.uintp:
                assert given == 0, where
                values.append(ctypes.c_void_p(None))
            else:
                assert isinstance(given, np.ndarray), where
                assert given.dtype == DTYPES[code], f"{where}: {given.dtype} for {code}"
                values.append(ctypes.c_void_p(np.asarray(given).ctypes.data))
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        Device.launches += 1
        self.note(self.name)
        ended = library.launch(
            self.name.encode(), grid[0], block[0], ctypes.c_size_t(shared_mem),
            Device.launches if Device.shuffled else 0, pointers,
        )  # fmt: skip
        if not ended:
            raise LaunchError(
                f"{self.name}: some threads ended while others waited at a barrier, or a block "
                "looked into another of its cluster that had not begun or was over"
            )


def module(note: Any, *, code: str, options: tuple[str, ...]) -> SimpleNamespace:
    made[code, options] = None
    return SimpleNamespace(get_function=functools.partial(Kernel, code, options, note))


def device(number: int = 0) -> SimpleNamespace:
    attributes = {"MaxSharedMemoryPerBlockOptin": Device.shared_limit}
    capability = "90" if Device.clusters else "80"
    return SimpleNamespace(id=number, attributes=attributes, compute_capability=capability)
