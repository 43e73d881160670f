"""Pointwise functions over rows, written as Python equations and traced to vector instructions.

A compiler vectorises a loop only if it can prove that no two of its arrays overlap, and the step of
an LSTM has thirteen arrays. The vectors are therefore explicit: `lanewise` calls a function once
with `Lanes`, which record every operation for LLVM, and puts the result into a loop over eight
columns at a time, or over sixteen with AVX-512. The last vector of a row may overlap the previous
one; it is read first, so that results may overwrite their arguments.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rnn_xp.kernels.numba.product import VECTORS, compiled

__all__ = ["Lanes", "columns", "lanewise", "shared", "sigmoid", "singles", "tanh", "where"]

_FLOAT, _INDEX = ir.FloatType(), ir.IntType(64)

# tanh(x) = x P(x^2) / Q(x^2): minimax on [-9, 9], off by at most 6e-8 of tanh.
_P = (0.99999994, 0.12919224, 2.9207569e-3, 9.2673785e-6, -1.2780327e-8, 1.8254985e-11)
_Q = (1.0, 0.46252508, 2.3763148e-2, 2.2809953e-4)
_EDGE = 9.0  # beyond, tanh is 1 in float32


@dataclasses.dataclass(frozen=True)
class Lanes:
    """A vector of numbers, or a single number, in a function that is being traced."""

    builder: Any
    value: Any

    def __add__(self, other: Lanes | float) -> Lanes:
        return self._apply("fadd", self, other)

    def __sub__(self, other: Lanes | float) -> Lanes:
        return self._apply("fsub", self, other)

    def __mul__(self, other: Lanes | float) -> Lanes:
        return self._apply("fmul", self, other)

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return self._apply("fdiv", self, other)

    def __radd__(self, other: float) -> Lanes:
        return self._apply("fadd", other, self)

    def __rsub__(self, other: float) -> Lanes:
        return self._apply("fsub", other, self)

    def __rmul__(self, other: float) -> Lanes:
        return self._apply("fmul", other, self)

    def _apply(self, operation: str, a: Lanes | float, b: Lanes | float) -> Lanes:
        a, b = self.value_of(a), self.value_of(b)
        # A product and a sum may become one instruction.
        made = getattr(self.builder, operation)(a, b, flags=("contract",))
        return Lanes(self.builder, made)

    def value_of(self, other: Lanes | float) -> Any:
        """Return the LLVM value of a number or of other lanes."""
        if isinstance(other, Lanes):
            return other.value
        kind = self.value.type
        return ir.Constant(kind, other if kind == _FLOAT else [other] * kind.count)


def where(x: Lanes, relation: str, bound: float, a: Lanes | float, b: Lanes) -> Lanes:
    """Select a where the relation of x to the bound holds, and b elsewhere or where x is NaN."""
    holds = x.builder.fcmp_ordered(relation, x.value, x.value_of(bound))
    return Lanes(x.builder, x.builder.select(holds, x.value_of(a), b.value))


def tanh(x: Lanes) -> Lanes:
    """Return the hyperbolic tangent; a NaN stays a NaN."""
    x = where(x, "<", -_EDGE, -_EDGE, x)
    x = where(x, ">", _EDGE, _EDGE, x)
    u = x * x
    p, q = u * _P[-1], u * _Q[-1]
    for a in _P[-2:0:-1]:
        p = (p + a) * u
    for a in _Q[-2:0:-1]:
        q = (q + a) * u
    y = x * (p + _P[0]) / (q + _Q[0])
    y = where(y, "<", -1.0, -1.0, y)
    return where(y, ">", 1.0, 1.0, y)


def sigmoid(s: Lanes) -> Lanes:
    """Return sigmoid(z), given s = tanh(z / 2); its derivative is (1 - s^2) / 4."""
    return 0.5 + 0.5 * s


def lanewise(function: Callable[..., Any], of_rows: int = 0, summed: bool = False) -> Any:
    """Turn a function of Lanes into a function of rows that compiled code can call.

    Parameters
    ----------
    function : callable
        A function of Lanes that returns Lanes or a tuple of Lanes.
    of_rows : int
        Number of its last arguments of which each row has a single number, for all its columns.
    summed : bool
        If True, the function's last result is summed over the columns of each row.

    Returns
    -------
    callable
        ``f(rows, size, places)`` computes ``size`` columns of ``rows`` rows. ``places`` joins
        results of `columns`, `singles` and `shared` by ``+``: one for each argument of the
        function, then one for each of its results. A result may be written over an argument.
    """
    count = len(inspect.signature(function).parameters)
    # Vectors of one length everywhere, so that the terms of a sum have one order.
    widths = (16, 8) if summed else VECTORS

    @intrinsic
    def over_rows(typing, rows, size, places):
        def generate(context, builder, signature, arguments):
            rows, size, places = arguments
            numbers = cgutils.unpack_tuple(builder, places)
            bases = [builder.inttoptr(p, _FLOAT.as_pointer()) for p in numbers[::2]]

            def load(starts: list[Any], j: Any, kind: Any) -> list[Lanes]:
                places = [at(start, j, kind) for start in starts[: count - of_rows]]
                taken = [Lanes(builder, builder.load(place, align=4)) for place in places]
                singles = [builder.load(start) for start in starts[count - of_rows : count]]
                return taken + [Lanes(builder, _in_every(builder, one, kind)) for one in singles]

            def store(starts: list[Any], j: Any, kind: Any, taken: list[Lanes]) -> Any:
                """Put the results into place; return what is to be summed."""
                made = function(*taken)
                made = list(made) if isinstance(made, tuple) else [made]
                term = made.pop().value if summed else None
                for start, lanes in zip(starts[count : count + len(made)], made, strict=True):
                    builder.store(lanes.value, at(start, j, kind), align=4)
                return term

            def at(start: Any, j: Any, kind: Any) -> Any:
                return builder.bitcast(builder.gep(start, [j]), kind.as_pointer())

            def go_over(starts: list[Any], vectors: Sequence[int]) -> None:
                """Compute the columns of a row in the widest vectors that fit, or one by one."""
                if not vectors:
                    total = _Sum(builder, _FLOAT)
                    with cgutils.for_range(builder, size) as column:
                        taken = load(starts, column.index, _FLOAT)
                        total.add(store(starts, column.index, _FLOAT, taken))
                    total.put(starts[-1])
                    return
                kind, lanes = ir.VectorType(_FLOAT, vectors[0]), _INDEX(vectors[0])
                last = builder.sub(size, lanes)
                enough = builder.icmp_signed(">=", last, _INDEX(0))
                with builder.if_else(enough) as (fits, not_enough):
                    with fits:
                        total, final = _Sum(builder, kind), load(starts, last, kind)
                        begun = cgutils.for_range_slice(builder, _INDEX(0), last, lanes)
                        with begun as (j, _):
                            total.add(store(starts, j, kind, load(starts, j, kind)))
                        total.add(store(starts, last, kind, final), last)
                        total.put(starts[-1])
                    with not_enough:
                        go_over(starts, vectors[1:])

            with cgutils.for_range(builder, rows) as row:
                starts = [
                    builder.gep(base, [builder.mul(stride, row.index)])
                    for base, stride in zip(bases, numbers[1::2], strict=True)
                ]
                go_over(starts, widths)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, places), generate

    return over_rows


def _in_every(builder: Any, one: Any, kind: Any) -> Any:
    """Return a vector of one number, or the number itself if the kind is that of numbers."""
    if kind == one.type:
        return one
    first = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
    none = ir.Constant(kind, None)
    return builder.shuffle_vector(
        builder.insert_element(none, one, ir.IntType(32)(0)), none, first
    )  # fmt: skip


class _Sum:
    """A sum over the columns of a row, lane by lane; terms that are None make it do nothing."""

    def __init__(self, builder: Any, kind: Any) -> None:
        self.builder, self.kind = builder, kind
        self.total = cgutils.alloca_once_value(builder, ir.Constant(kind, None))
        self.begun = False

    def add(self, term: Any, first: Any = None) -> None:
        """Add a vector of terms; one that begins at ``first`` leaves out what was added before."""
        if term is None:
            return
        builder, self.begun = self.builder, True
        if first is not None:
            count, index = self.kind.count, ir.VectorType(ir.IntType(32), self.kind.count)
            # As many columns as the vectors before are too few for a multiple of their length.
            twice = builder.and_(builder.sub(_INDEX(0), first), _INDEX(count - 1))
            zeros = ir.Constant(self.kind, None)
            every = _in_every(builder, builder.trunc(twice, ir.IntType(32)), index)
            new = builder.icmp_signed(">=", ir.Constant(index, list(range(count))), every)
            term = builder.select(new, term, zeros)
        builder.store(builder.fadd(builder.load(self.total), term), self.total)

    def put(self, place: Any) -> None:
        """Store the sum of all lanes, added by halves."""
        if not self.begun:
            return
        builder, total = self.builder, self.builder.load(self.total)
        count = getattr(self.kind, "count", 1)
        while count > 1:
            count //= 2
            parts = (
                ir.Constant(ir.VectorType(ir.IntType(32), count), [*range(at, at + count)])
                for at in (0, count)
            )
            low, high = (builder.shuffle_vector(total, total, part) for part in parts)
            total = builder.fadd(low, high)
        if self.kind != _FLOAT:
            total = builder.extract_element(total, ir.IntType(32)(0))
        builder.store(total, place)


@compiled
def columns(rows, first):
    """Return the address of a matrix from column `first` on, and the length of its rows."""
    length = rows.strides[0] // 4
    return rows.ctypes.data + 4 * first, length


@compiled
def singles(numbers):
    """Return the place of a vector that has one number for each row."""
    return numbers.ctypes.data, 1


@compiled
def shared(numbers):
    """Return the place of a vector that has the columns of all rows."""
    return numbers.ctypes.data, 0
