"""An elementwise function of many arrays as one launch, recorded by running it once.

A function such as an optimiser's rule consists of a dozen operations, each of which would be a
launch for every array. Run on names instead of arrays, it produces a list of C statements; Python
numbers become arguments, so a rate that changes at every step needs no new kernel::

    m = 0.9 * m + 0.1 * g        const T t0 = s0 * x1;  const T t1 = s1 * x2;  const T t2 = t0 + t1;

The arrays of all sets go to one kernel as a table of addresses, which is one of its arguments. A
block computes some entries of one set.

The arguments of a kernel in a CUDA graph are those of its capture. There the numbers are read from
the device, see `reading`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import cupy

from rnn_xp._typing import Array
from rnn_xp.kernels.cuda.arguments import address, by_value, contiguous

__all__ = ["numbers_of", "reading", "run"]


class _Program:
    """The statements so far and their numbers; the function receives the program as ``xp``."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.numbers: list[float] = []

    def assign(self, expression: str) -> _Value:
        name = f"t{len(self.statements)}"
        self.statements.append(f"const T {name} = {expression};")
        return _Value(self, name)

    def name(self, operand: _Value | float) -> str:
        if isinstance(operand, _Value):
            return operand.name
        self.numbers.append(float(operand))
        return f"s{len(self.numbers) - 1}"

    def sqrt(self, x: _Value) -> _Value:
        return self.assign(f"sqrt({x.name})")


class _Value:
    """A stand-in for an array: the name of an argument or of an earlier result."""

    def __init__(self, program: _Program, name: str) -> None:
        self.program, self.name = program, name

    def _combine(self, sign: str, left: _Value | float, right: _Value | float) -> _Value:
        named = self.program.name
        return self.program.assign(f"{named(left)} {sign} {named(right)}")

    def __add__(self, other: _Value | float) -> _Value:
        return self._combine("+", self, other)

    def __radd__(self, other: float) -> _Value:
        return self._combine("+", other, self)

    def __sub__(self, other: _Value | float) -> _Value:
        return self._combine("-", self, other)

    def __rsub__(self, other: float) -> _Value:
        return self._combine("-", other, self)

    def __mul__(self, other: _Value | float) -> _Value:
        return self._combine("*", self, other)

    def __rmul__(self, other: float) -> _Value:
        return self._combine("*", other, self)

    def __truediv__(self, other: _Value | float) -> _Value:
        return self._combine("/", self, other)

    def __rtruediv__(self, other: float) -> _Value:
        return self._combine("/", other, self)


def run(
    function: Callable[..., Sequence[Any]], operands: Iterable[Sequence[Array]]
) -> list[tuple[Array, ...]]:
    """Apply an elementwise function to each of several sets of arrays.

    One launch computes as many sets as have room in the arguments of a kernel, 64 of 4 arrays.

    Parameters
    ----------
    function : callable
        ``function(*arrays, xp=xp)`` computes a sequence of arrays by + - * / and ``xp.sqrt`` from
        its arguments and from Python numbers.
    operands : iterable of sequences of arrays
        Every set has the same number of arrays, and all arrays one dtype; within a set all have one
        shape.

    Returns
    -------
    list of tuples of arrays
        The results for each set; the results of all sets are views of one array.
    """
    sets = [[contiguous(array) for array in arrays] for arrays in operands]
    if not sets:
        return []
    count, dtype = len(sets[0]), sets[0][0].dtype
    program, results = _traced(function, count)
    numbers: Sequence[Any]
    if (read := _read.get()) is not None:
        numbers = [read.next(len(program.numbers))]
    else:
        numbers = [*map(cupy.float32 if dtype == "float32" else cupy.float64, program.numbers)]
    kind = "float" if dtype == "float32" else "double"
    text = _text(kind, program, count, results, read is not None)
    at_once = _at_once(count)
    return [
        made
        for first in range(0, len(sets), at_once)
        for made in _launch(text, sets[first : first + at_once], len(results), numbers)
    ]


class _Numbers:
    """Numbers on the device, of which each call takes those that follow."""

    def __init__(self, numbers: Array) -> None:
        self.numbers, self.taken = numbers, 0

    def next(self, count: int) -> Array:
        self.taken += count
        return self.numbers[self.taken - count : self.taken]


_read: ContextVar[_Numbers | None] = ContextVar("_read", default=None)  # of each thread


@contextlib.contextmanager
def reading(numbers: Array) -> Iterator[None]:
    """Let `run` read the numbers of its functions from an array, one call after the other.

    Those that the functions contain are not used. They only have to be as many.
    """
    token = _read.set(_Numbers(numbers))
    try:
        yield
    finally:
        _read.reset(token)


def numbers_of(function: Callable[..., Sequence[Any]], count: int) -> tuple[list[float], str]:
    """Return the numbers of a function of so many arrays, and what it computes with them."""
    program, results = _traced(function, count)
    return program.numbers, "".join((*program.statements, *results))


def _traced(function: Callable[..., Sequence[Any]], count: int) -> tuple[_Program, tuple[str, ...]]:
    """Run a function on names; return its statements, and the names of its results."""
    program = _Program()
    results = function(*(_Value(program, f"x{k}") for k in range(count)), xp=program)
    return program, tuple(result.name for result in results)


_TABLE_BYTES = 3584  # of the arguments of a kernel, which may have 4096 bytes
_THREADS, _ENTRIES = 256, 4  # of a block, of a thread


def _at_once(arrays: int) -> int:
    """Return how many sets a launch computes at most: a power of two."""
    return 1 << (_TABLE_BYTES // (8 * arrays + 12)).bit_length() - 1


def _launch(
    text: str, sets: Sequence[Sequence[Array]], results: int, numbers: Sequence[Any]
) -> list[tuple[Array, ...]]:
    """Compute as many sets as one launch can."""
    dtype, count = sets[0][0].dtype, len(sets[0])
    sizes = [math.prod(arrays[0].shape) for arrays in sets]
    ends = [0, *itertools.accumulate(sizes)]
    blocks = [0, *itertools.accumulate(-(-size // (_THREADS * _ENTRIES)) for size in sizes)]
    room = 1 << (len(sets) - 1).bit_length()  # a power of two, so that few kernels are compiled
    table = struct.pack(
        f"{room * count}P{room}q{room}i0q",
        *(address(a) for arrays in sets for a in arrays), *[0] * (count * (room - len(sets))),
        *_padded(ends[:-1], room), *_padded(blocks[:-1], room),
    )  # fmt: skip
    whole = [cupy.empty(ends[-1], dtype=dtype) for _ in range(results)]
    kernel = _kernel(text.replace("SETS", str(room)))
    kernel(
        (max(1, blocks[-1]),), (_THREADS,),
        (by_value(table), cupy.int32(len(sets)), cupy.int64(ends[-1]), *whole, *numbers),
    )  # fmt: skip
    return [
        tuple(y[first:last].reshape(arrays[0].shape) for y in whole)
        for arrays, (first, last) in zip(sets, itertools.pairwise(ends), strict=True)
    ]


def _padded(numbers: list[int], room: int) -> list[int]:
    return [*numbers, *[0] * (room - len(numbers))]


def _text(
    kind: str, program: _Program, count: int, results: tuple[str, ...], reads_numbers: bool
) -> str:
    reads = "".join(f"const T x{k} = table.arrays[set][{k}][i];\n" for k in range(count))
    stores = "".join(f"y{k}[at + i] = {name};\n" for k, name in enumerate(results))
    arguments = "".join(f", T* y{k}" for k in range(len(results)))
    numbers = range(len(program.numbers))
    arguments += ", const T* numbers" if reads_numbers else "".join(f", T s{k}" for k in numbers)
    if reads_numbers:
        reads += "".join(f"const T s{k} = numbers[{k}];\n" for k in numbers)
    return f"""
typedef {kind} T;
struct Table {{
  const T* arrays[SETS][{count}];
  long long first[SETS];  // entry of each set in the results
  int first_block[SETS];
}};
extern "C" __global__ void rnn_xp_elementwise(
  const __grid_constant__ Table table, int count, long long entries{arguments})
{{
  int set = 0;
  while (set + 1 < count && (int)blockIdx.x >= table.first_block[set + 1]) ++set;
  const long long at = table.first[set];
  const long long size = (set + 1 < count ? table.first[set + 1] : entries) - at;
  const long long begin = (long long)(blockIdx.x - table.first_block[set]) * {_THREADS * _ENTRIES};
  for (int k = 0; k < {_ENTRIES}; ++k) {{
    const long long i = begin + k * {_THREADS} + threadIdx.x;
    if (i >= size) return;
    {reads}{chr(10).join(program.statements)}
    {stores}
  }}
}}
"""


@functools.cache
def _kernel(text: str) -> Any:
    return cupy.RawModule(code=text, options=("-std=c++17",)).get_function("rnn_xp_elementwise")
