"""What `rnn_xp.kernels.cupy` and `rnn_xp.kernels.fusion` use of CuPy, on a machine without a GPU.

Arrays are NumPy's. The C text of an `ElementwiseKernel` is compiled by the host's C++ compiler as
it stands, inside a loop in place of CuPy's; an index out of range is an error. `matmul` accepts
only what CuPy passes on to cuBLAS as it is, without a copy. Everything that would be a launch on a
GPU is noted: see `launches`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import capturing
import numpy as np
import raw_kernels

import rnn_xp

_FREE = {
    "reshape",
    "transpose",
    "swapaxes",
    "matrix_transpose",
    "real",
    "broadcast_to",
    "shape",
    "may_share_memory",
}
_BY_CUBLAS = {"matmul", "dot", "vdot", "inner", "outer", "tensordot", "einsum", "vecdot"}
_WAITS = {  # for the device: the shape of a result, or a sort
    "nonzero", "argwhere", "flatnonzero", "unique", "extract", "compress", "sort", "argsort",
    "partition", "median", "percentile", "quantile",
}  # fmt: skip
_noted: list[str] = []


@contextlib.contextmanager
def launches() -> Iterator[list[str]]:
    """Collect what would be launches; arrays that take part must be `counted`."""
    _noted.clear()
    yield _noted


def _note(what: str, times: int = 1) -> None:
    _noted.extend([what] * times)
    if what in _BY_CUBLAS:
        capturing.refuse("a call of cuBLAS")
    if what in _WAITS:
        capturing.refuse(f"{what}, which waits for the device,")


class Counted(np.ndarray):
    """Every operation on it that makes or writes an array is noted."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        _note(ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}")
        plain = [np.asarray(a) if isinstance(a, Counted) else a for a in inputs]
        if out:
            options["out"] = tuple(np.asarray(a) for a in out)
            capturing.do(lambda: getattr(ufunc, method)(*plain, **options))
            return out[0]
        return counted(capturing.make(lambda: getattr(ufunc, method)(*plain, **options)))

    def __array_function__(self, function, types, args, options):
        name = function.__name__
        if name in ("concatenate", "concat", "stack"):
            # CuPy has one kernel for more than eight arrays, and of fewer it copies each.
            _note(name, len(args[0]) if len(args[0]) <= 8 else 1)
            if len(args[0]) > 8:
                capturing.refuse("a table of addresses from the host")
        elif name not in _FREE:
            _note(name)
        plain, options = _plain(args), _plain(options)
        result = function(*plain, **options)
        if not isinstance(result, np.ndarray | np.generic):
            return result
        first = next((a for a in plain if isinstance(a, np.ndarray)), None)
        if first is not None and np.may_share_memory(result, first):
            return counted(result)  # a view
        if name == "reshape":
            _note("copy")
        return counted(capturing.make(lambda: function(*plain, **options)))

    @property
    def data(self) -> SimpleNamespace:
        """The address, as CuPy's arrays have it."""
        return SimpleNamespace(ptr=np.asarray(self).ctypes.data)

    def __getitem__(self, index):
        places = index if isinstance(index, tuple) else (index,)
        if all(isinstance(k, int | np.integer) for k in places):
            index = (*places, ...)  # an array () and no number
        found = np.asarray(self)[index]
        if np.may_share_memory(found, np.asarray(self)):
            return counted(found)
        _note("take")
        if any(getattr(k, "dtype", None) == np.bool_ for k in places):
            capturing.refuse("a masked read, which waits for the device,")
        if any(isinstance(k, list) for k in places):
            capturing.refuse("a transfer")
        return counted(capturing.make(lambda: np.asarray(self)[index]))

    def __setitem__(self, index, value):
        _note("set")
        if not isinstance(value, np.ndarray | float | int):
            capturing.refuse("a transfer")
        capturing.do(lambda: np.asarray(self).__setitem__(index, np.asarray(value)))

    def copy(self, *args):
        _note("copy")
        return counted(capturing.make(lambda: np.asarray(self).copy(*args)))

    def astype(self, dtype, **options):
        _note("astype")
        return counted(capturing.make(lambda: np.asarray(self).astype(dtype)))

    def reshape(self, *shape, **options):
        return np.reshape(self, shape[0] if isinstance(shape[0], tuple) else shape)

    def _read(self, how):
        capturing.refuse("a read by the host")
        return how(np.asarray(self))

    def __float__(self):
        return self._read(float)

    def __int__(self):
        return self._read(int)

    def __bool__(self):
        return self._read(bool)

    def item(self):
        return self._read(np.ndarray.item)

    def tolist(self):
        return self._read(np.ndarray.tolist)


def _plain(value: Any) -> Any:
    """The arguments of a function, with NumPy's own arrays."""
    if isinstance(value, Counted):
        return np.asarray(value)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {name: _plain(a) for name, a in value.items()}
    return value


def counted(array: Any) -> Counted:
    return np.asarray(array).view(Counted)


def empty(shape: Any, dtype: Any) -> np.ndarray:
    """Not zeros, so that what is read before it is written shows."""
    return counted(capturing.own(np.full(shape, np.nan, dtype)))


def full(shape: Any, value: Any, dtype: Any) -> np.ndarray:
    _note("full")
    return counted(capturing.make(lambda: np.full(shape, value, dtype)))


def ones(shape: Any, dtype: Any) -> np.ndarray:
    _note("ones")
    return counted(capturing.make(lambda: np.ones(shape, dtype)))


def zeros(shape: Any, dtype: Any) -> np.ndarray:
    _note("zeros")
    return counted(capturing.make(lambda: np.zeros(shape, dtype)))


def asarray(host: Any, dtype: Any) -> np.ndarray:
    if isinstance(host, Counted):
        return host if host.dtype == dtype else host.astype(dtype)
    if isinstance(host, float | int):
        return full((), host, dtype)  # CuPy fills it, without a transfer
    _note("transfer")
    capturing.refuse("a transfer")
    return counted(np.asarray(host, dtype))


def ascontiguousarray(a: np.ndarray) -> np.ndarray:
    _note("copy")
    return counted(capturing.make(lambda: np.array(np.asarray(a), order="C")))


def stack(arrays: list[np.ndarray]) -> np.ndarray:
    _note("stack", len(arrays) if len(arrays) <= 8 else 1)
    if len(arrays) > 8:
        capturing.refuse("a table of addresses from the host")
    plain = [np.asarray(a) for a in arrays]
    return counted(capturing.make(lambda: np.stack(plain)))


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    _note("matmul")
    for operand in (a, b):
        assert operand.ndim == 2, "CuPy makes a batched product of it"
        flags = operand.flags
        assert flags.c_contiguous or flags.f_contiguous, "CuPy copies it on every call"
        if out is not None:
            assert out.dtype == operand.dtype
            assert not np.may_share_memory(out, operand), "CuPy makes a temporary"
    assert out is None or out.flags.c_contiguous, "CuPy makes a temporary"
    return counted(
        np.matmul(np.asarray(a), np.asarray(b), out=None if out is None else np.asarray(out))
    )


class ElementwiseKernel:
    """As CuPy's: ``T`` is the arrays' dtype; ``raw`` ones are indexed, others taken entry by entry.

    In `made` are all kernels, to be compiled for a GPU where that can be done.
    """

    made: ClassVar[dict[tuple[str, str, str, str], ElementwiseKernel]] = {}

    def __init__(self, reads, writes, operation, name, preamble="", return_tuple=False):
        self.reads, self.writes = (self._split(params) for params in (reads, writes))
        self.operation, self.name, self.preamble = operation, name, preamble
        self.return_tuple = return_tuple
        self.made[reads, writes, operation, name] = self

    @staticmethod
    def _split(params: str) -> list[tuple[bool, str, str]]:
        """(raw, type, name) of each parameter."""
        return [
            ("raw" in words, *words[-2:]) for words in (p.split() for p in params.split(","))
        ]  # fmt: skip

    def __call__(self, *args, size=None):
        wanted = len(self.reads) + len(self.writes)
        assert len(args) in (len(self.reads), wanted)
        given = dict(zip((name for _, _, name in self.reads + self.writes), args, strict=False))
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        dtype, shape = arrays[0].dtype, arrays[0].shape
        assert {a.dtype for a in arrays} == {dtype}
        raw_only = all(raw or type == "int32" for raw, type, _ in self.reads + self.writes)
        assert raw_only == (size is not None), "CuPy wants a size for raw arrays only"
        for _, _, name in self.writes:
            given.setdefault(name, counted(np.empty(shape, dtype)))
            assert given[name].flags.c_contiguous
        if size is None:
            size = int(np.prod(shape))
            assert all(a.shape == shape for a in arrays)
        values = []
        for _, type, name in self.reads + self.writes:
            value = given[name]
            if isinstance(value, np.ndarray):
                value = np.ascontiguousarray(value)  # CuPy follows the strides
                values += [ctypes.c_void_p(value.ctypes.data), ctypes.c_ssize_t(value.size)]
                given[f"_{name}"] = value  # lives until the call is over
            else:
                number = ctypes.c_float if dtype == np.float32 else ctypes.c_double
                values.append((ctypes.c_int if type == "int32" else number)(value))
        is_array = tuple(isinstance(given[n], np.ndarray) for _, _, n in self.reads + self.writes)
        _note(self.name)
        run = _compile(self.text(dtype, is_array))

        def launch() -> None:
            if run(ctypes.c_ssize_t(size), *values):
                raise IndexError(f"{self.name} reads or writes beyond an array")

        capturing.do(launch)
        results = tuple(given[name] for _, _, name in self.writes)
        return results if self.return_tuple or len(results) > 1 else results[0]

    def text(self, dtype: np.dtype, is_array: tuple[bool, ...]) -> str:
        """The kernel as a function of C++."""
        params, before, inside = [], [], []
        constant = [True] * len(self.reads) + [False] * len(self.writes)
        every = zip(self.reads + self.writes, is_array, constant, strict=True)
        for (raw, type, name), array, const in every:
            if not array:
                params.append(f"{'int' if type == 'int32' else 'T'} {name}")
                continue
            kind = "const T" if const else "T"
            params.append(f"{kind}* {name}_data, ptrdiff_t {name}_size")
            view = f"{name}_array" if not raw else name
            before.append(f"Checked<{kind}> {view}{{{name}_data, {name}_size}};")
            if not raw:
                inside.append(f"{kind}& {name} = {view}[i];")
        return f"""
            #include <cmath>
            #include <cstddef>
            #define __device__
            using namespace std;
            typedef {"float" if dtype == np.float32 else "double"} T;
            static int beyond;
            template <typename U> struct Checked {{
              U* data; ptrdiff_t size;
              U& operator[](ptrdiff_t i) const {{
                if (i < 0 || i >= size) {{ beyond = 1; i = 0; }}
                return data[i];
              }}
            }};
            {self.preamble}
            extern "C" int run(ptrdiff_t n, {", ".join(params)}) {{
              beyond = 0;
              {" ".join(before)}
              for (ptrdiff_t i = 0; i < n; ++i) {{ {" ".join(inside)} {self.operation} }}
              return beyond;
            }}
        """


@functools.cache
def _compile(text: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        source.write_text(text)
        compiler = os.environ.get("CXX", "c++")
        command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-o", library, source]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library)).run


class _RawKernel:
    """A kernel of `raw_kernels`, whose arrays live as long as a graph that launches it."""

    def __init__(self, kernel: Any) -> None:
        vars(self).update(kernel=kernel)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.kernel, name, value)

    def __call__(self, *args: Any, **options: Any) -> None:
        capturing.do(lambda: self.kernel(*args, **options))


def _raw_module(**options: Any) -> SimpleNamespace:
    module = raw_kernels.module(_note, **options)
    return SimpleNamespace(get_function=lambda name: _RawKernel(module.get_function(name)))


def stand_in() -> SimpleNamespace:
    return SimpleNamespace(
        __version__="0.0", ElementwiseKernel=ElementwiseKernel, RawModule=_raw_module,
        empty=empty, ones=ones, zeros=zeros, asarray=asarray, ascontiguousarray=ascontiguousarray,
        stack=stack, matmul=matmul, full=full,
        dtype=np.dtype, float32=np.float32, float64=np.float64,
        int32=np.int32, int64=np.int64, uintp=np.uintp,
        cuda=SimpleNamespace(
            Device=raw_kernels.device, Stream=capturing.Stream,
            get_current_stream=capturing.current, MemoryPool=capturing.Pool,
            using_allocator=capturing.using, is_available=lambda: True,
            Memory=capturing.Memory, MemoryPointer=lambda memory, offset: memory,
            memory=SimpleNamespace(OutOfMemoryError=capturing.OutOfMemoryError),
            runtime=SimpleNamespace(
                getDeviceProperties=lambda number: {"name": b"none"},
                CUDARuntimeError=capturing.CudaError, errorMemoryAllocation=2,
            ),
        ),
        get_default_memory_pool=lambda: capturing.default_pool,
    )  # fmt: skip


@functools.cache
def load(name: str) -> ModuleType:
    """A module of `rnn_xp.kernels`, with this in place of CuPy there and in what it imports."""
    path = Path(rnn_xp.__file__).parent / "kernels" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_on_a_stand_in", path)
    module = importlib.util.module_from_spec(spec)
    package = "rnn_xp.kernels.cuda"
    before = {n: m for n, m in sys.modules.items() if n == "cupy" or n.startswith(package)}
    for known in before:
        del sys.modules[known]
    sys.modules["cupy"] = stand_in()
    try:
        # Some of NumPy's functions return plain arrays, without `data.ptr`.
        arguments = importlib.import_module(f"{package}.arguments")
        arguments.address = lambda a: 0 if a is None else np.asarray(a).ctypes.data
        spec.loader.exec_module(module)
    finally:
        for made in [n for n in sys.modules if n == "cupy" or n.startswith(package)]:
            del sys.modules[made]
        sys.modules.update(before)
        if package in before:
            rnn_xp.kernels.cuda = before[package]
        elif hasattr(rnn_xp.kernels, "cuda"):
            del rnn_xp.kernels.cuda
    return module
