"""`cupy.RawModule` without a GPU: kernels of the layers, by g++ over the shim of the fused engine.

Checked at every launch: the number, the types and the sizes of arguments, what a real launch would
take without complaint and compute nonsense from. Threads run in another order at every launch, and
shared memory is poisoned.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

SHIM = Path(__file__).parents[1] / "engines" / "cuda"
ENTRIES = "ENTRY(forward),ENTRY(backward),ENTRY(pack),ENTRY(unpack)"
FLAGS = ("-O1", "-ffp-contract=fast", "-std=c++17", "-fPIC", "-fno-gnu-unique", "-Wall")
DTYPES = {"r": np.float32, "w": np.float32, "c": np.int32, "b": np.bool_}
NUMBERS = {"i": (np.int32, ctypes.c_int), "l": (np.int64, ctypes.c_longlong)}


class Device:
    """What decides how kernels are built and launched here; tests change it for a while."""

    shared_limit = 232448
    shuffled = True
    options: tuple[str, ...] = ()
    launches = 0

    @staticmethod
    def edit(code: str) -> str:
        return code


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return tempfile.TemporaryDirectory(prefix="rnn-xp-layers-")


def _compile(output: str, *arguments: str) -> str:
    path = str(Path(_folder().name) / output)
    more = os.environ.get("CXXFLAGS", "").split()  # see `make sanitize`
    command = ["g++", *FLAGS, *more, f"-I{SHIM}", *arguments, "-o", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return path


@functools.cache
def _scheduler() -> str:
    return _compile("shim.o", "-c", str(SHIM / "cpu_shim.cpp"))


@functools.cache
def _build(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """Compile the kernels; each variant once in a session."""
    name = hashlib.sha256(repr((code, options)).encode()).hexdigest()[:16]
    source = Path(_folder().name) / f"{name}.cu"
    source.write_text(code)
    path = _compile(
        *(f"{name}.so", "-shared", "-Wno-unknown-pragmas", *options, f"-DENTRIES={ENTRIES}"),
        *(f'-DKERNELS="{source}"', str(SHIM / "entry.cpp"), _scheduler()),
    )
    library = ctypes.CDLL(path)
    library.parameters.restype = ctypes.c_char_p
    library.launch.restype = ctypes.c_bool
    return library


class Kernel:
    def __init__(self, code: str, options: tuple[str, ...], note: Any, name: str) -> None:
        self.code, self.options, self.note, self.name = code, options, note, name
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
        library = _build(Device.edit(self.code), (*self.options, *Device.options))
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
                values.append(passed(int(given)))
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
        assert ended, f"{self.name}: some threads ended while others waited at a barrier"


def module(note: Any, *, code: str, options: tuple[str, ...]) -> SimpleNamespace:
    return SimpleNamespace(get_function=functools.partial(Kernel, code, options, note))


def device(number: int = 0) -> SimpleNamespace:
    attributes = {"MaxSharedMemoryPerBlockOptin": Device.shared_limit}
    return SimpleNamespace(id=number, attributes=attributes)
