"""A matrix product for the thin shapes of recurrent networks, made of register tiles.

A BLAS rearranges its operands in every call, which for the rows of one step costs as much as the
product itself. Here the weights are rearranged once for a whole sequence, and the other operand is
read in place. The innermost loop is written for LLVM: a tile of C stays in registers while it
computes

    c[i, :] += a[i, k] * b[k, :]        for all k, with a[i, k] in every lane of a vector.

With AVX-512, which has 32 registers of sixteen numbers, a tile has twelve rows of 32 columns, and
otherwise six rows of sixteen: two registers with AVX, four with NEON. Every sum has its terms in
the order of k, one after the other, so it has the same bits whatever tile computes it.
"""

# Signatures are left to numba, which reads no annotations.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import contextlib
import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.registry import cpu_target
from numba.extending import intrinsic, register_jitable

__all__ = [
    "PANEL",
    "VECTORS",
    "compiled",
    "multiply",
    "pack",
    "padded",
    "reordered",
    "spaced",
]

PANEL = 16  # columns of a tile, and of a panel of packed weights
_LANES = 8  # of a vector; a last tile of so many columns if these are enough
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[-1]  # of the CPU compiled for
_WIDE = "+avx512f" in _FEATURES.split(",")
VECTORS = (16, 8) if _WIDE else (8,)  # numbers of lanes, the most first
_MOST = VECTORS[0]
_FLOAT, _INDEX = ir.FloatType(), ir.IntType(64)
_DIGEST = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()[:16]


class _Files(CompileResultCacheImpl):  # type: ignore[misc]
    @property
    def filename_base(self) -> str:
        return f"{super().filename_base}-{_DIGEST}"


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's own cache in its usual place, but in files named after all of the sources.

    numba itself notices a change of the function's own file only, and would continue to use code
    that was compiled into it from the other files of this package. And it numbers the files of a
    function's signatures, so of two processes that compile two of them at once, each takes the same
    number, and the index may give one signature the machine code of the other (0.68.1).
    """

    _impl_class = _Files

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        unique = f"{self._impl.filename_base}-{uuid.uuid4().hex[:16]}"
        self._cache_file._data_name_pattern = f"{unique}.{{number:d}}.nbc"


def compiled(function: Any, *more: str) -> Any:
    """Compile without the interpreter's lock, and keep the result for the next process.

    ``contract`` lets a product and a sum become one instruction; no other operation is reordered.
    """
    fastmath = {"contract", *more}
    dispatcher = njit(nogil=True, fastmath=fastmath, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):  # there is no folder that can be written to
        dispatcher._cache = _Cache(function)
    return dispatcher


def reordered(function: Any) -> Any:
    """Compile, and let the terms of a sum be added in any order, so that a loop has vectors."""
    return compiled(function, "reassoc", "nsz")


def padded(columns: int) -> int:
    """Return the number of columns that a product writes: the next multiple of 8."""
    return -(-columns // _LANES) * _LANES


def spaced(columns: int) -> int:
    """Return a row length at which rows do not compete for the same places in a cache.

    They do so if their distance is a multiple of 1 KiB, as it is for many common hidden sizes.
    """
    length = padded(columns)
    return length + PANEL if length % 256 == 0 else length


def pack(b: Any) -> Any:
    """Lay out B (K, J) in panels of 16 columns, (ceil(J / 16), K, 16), the last padded by zeros."""
    steps, columns = b.shape
    panels = np.zeros((-(-columns // PANEL), steps, PANEL), b.dtype)
    for number, panel in enumerate(panels):
        part = b[:, number * PANEL : (number + 1) * PANEL]
        panel[:, : part.shape[1]] = part
    return panels


def _tile_of(builder: Any, addresses: tuple[Any, ...], rows: int, columns: int) -> None:
    """Write the product of one tile; addresses are in bytes, strides in floats."""
    a, a_row, a_k, b, b_k, b_panel, c, c_row, steps, add = addresses
    a, b, c = (builder.inttoptr(p, _FLOAT.as_pointer()) for p in (a, b, c))
    starts = [*range(0, columns - _MOST + 1, _MOST)]
    starts += [columns - _LANES] if columns % _MOST else []  # one vector of half the lanes

    def vector(start: int) -> Any:
        return ir.VectorType(_FLOAT, _MOST if start + _MOST <= columns else _LANES)

    def at(base: Any, offset: Any, start: int) -> Any:
        return builder.bitcast(builder.gep(base, [offset]), vector(start).as_pointer())

    def in_panel(offset: Any, start: int) -> Any:
        panel, part = divmod(start, PANEL)
        offset = builder.add(offset, builder.mul(b_panel, _INDEX(panel)))
        return at(b, builder.add(offset, _INDEX(part)), start)

    def in_every_lane(value: Any, kind: Any) -> Any:
        zeros, lanes = ir.Constant(kind, None), ir.VectorType(ir.IntType(32), kind.count)
        one = builder.insert_element(zeros, value, ir.IntType(32)(0))
        return builder.shuffle_vector(one, zeros, ir.Constant(lanes, None))

    a_rows = [builder.gep(a, [builder.mul(a_row, _INDEX(i))]) for i in range(rows)]
    c_rows = [builder.mul(c_row, _INDEX(i)) for i in range(rows)]
    places = [[at(c, builder.add(row, _INDEX(start)), start) for start in starts] for row in c_rows]

    def begin(place: Any) -> Any:
        zeros = ir.Constant(place.type.pointee, None)
        before = builder.select(add, builder.load(place, align=4), zeros)
        return cgutils.alloca_once_value(builder, before)

    sums = [[begin(place) for place in row] for row in places]
    with cgutils.for_range(builder, steps) as loop:
        b_row, a_column = builder.mul(loop.index, b_k), builder.mul(loop.index, a_k)
        bs = [builder.load(in_panel(b_row, start), align=4) for start in starts]
        for a_i, row in zip(a_rows, sums, strict=True):
            value = builder.load(builder.gep(a_i, [a_column]))
            for b_j, total in zip(bs, row, strict=True):
                term = builder.fmul(in_every_lane(value, b_j.type), b_j, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), term, flags=("contract",)), total)
    for row, row_places in zip(sums, places, strict=True):
        for total, place in zip(row, row_places, strict=True):
            builder.store(builder.load(total), place, align=4)


def _tile(rows: int, columns: int) -> Any:
    """Compile the product of one tile; more than 16 columns are those of several panels."""

    @intrinsic
    def tile(typing, a, a_row, a_k, b, b_k, b_panel, c, c_row, steps, add):
        def generate(context, builder, signature, arguments):
            _tile_of(builder, arguments, rows, columns)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9, types.boolean), generate

    return tile


@intrinsic
def _row(typing, a, a_k, b, b_k, b_panel, c, count, steps, add):
    """Compute ``count`` times 8 columns of one row, 1 to _ROW, each count by code of its own."""

    def generate(context, builder, signature, arguments):
        a, a_k, b, b_k, b_panel, c, count, steps, add = arguments
        none, after = _INDEX(0), builder.append_basic_block("after")
        switch = builder.switch(count, after)
        for number in range(1, _ROW + 1):
            block = builder.append_basic_block(f"row{number}")
            switch.add_case(_INDEX(number), block)
            with builder.goto_block(block):
                tile = (a, none, a_k, b, b_k, b_panel, c, none, steps, add)
                _tile_of(builder, tile, 1, number * _LANES)
                builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 8, types.boolean), generate


def _strip(rows: int, columns: int) -> Any:
    """Compile the product of a strip of columns, by tiles of so many rows, and of two at its end.

    An odd last row is left out.
    """
    tall, low = _tile(rows, columns), _tile(2, columns)

    def strip(a, a_row, a_k, b, b_k, b_panel, c, c_row, count, steps, add):
        i = 0
        while i + rows <= count:
            a_i, c_i = a + 4 * i * a_row, c + 4 * i * c_row
            tall(a_i, a_row, a_k, b, b_k, b_panel, c_i, c_row, steps, add)
            i += rows
        while i + 2 <= count:
            a_i, c_i = a + 4 * i * a_row, c + 4 * i * c_row
            low(a_i, a_row, a_k, b, b_k, b_panel, c_i, c_row, steps, add)
            i += 2

    # Linkers tell functions apart by this name, the types of arguments, and a number that another
    # process may have given to another strip (numba 0.68.1).
    strip.__qualname__ = f"strip_{rows}_by_{columns}"
    return register_jitable(strip)


# As many rows as registers can hold.
_broad = _strip(12, 2 * PANEL)  # with AVX-512 alone
_panel = _strip(12 if _WIDE else 6, PANEL)
_slim = _strip(12, _LANES)
# A single row goes over many columns at once, since each sum waits for its previous term.
_ROW = 8 * _MOST // _LANES


@compiled
def _multiply_row(a, a_k, b, b_k, b_panel, c, columns, steps, add):
    """Compute one row of C, up to eight vectors of it at once, and all equally many."""
    left = columns // _LANES
    parts = (left + _ROW - 1) // _ROW
    column = 0
    while left:
        count = (left + parts - 1) // parts
        if parts > 1:  # whole panels
            count += count % 2
        b_j, c_j = b + 4 * (column // PANEL * b_panel), c + 4 * column
        _row(a, a_k, b_j, b_k, b_panel, c_j, count, steps, add)
        column, left, parts = column + count * _LANES, left - count, parts - 1


@compiled
def multiply(a, a_row, a_k, b, b_k, b_panel, c, c_row, rows, columns, steps, add):
    """Compute C = A B, or C += A B.

    Parameters
    ----------
    a, a_row, a_k : int
        Address of A (rows, steps), and distances in floats between rows and between columns.
    b, b_k, b_panel : int
        Address of B (steps, columns), and distances between rows and between panels of 16 columns.
    c, c_row : int
        Address of C (rows, columns), and the distance between rows.
    rows, columns, steps : int
        Sizes of the matrices; ``columns`` is a multiple of 8.
    add : bool
        If True, the product is added to C.
    """
    if rows % 2:
        a_i, c_i = a + 4 * (rows - 1) * a_row, c + 4 * (rows - 1) * c_row
        _multiply_row(a_i, a_k, b, b_k, b_panel, c_i, columns, steps, add)
    j = 0
    while j < columns and rows > 1:
        b_j, c_j, left = b + 4 * (j // PANEL * b_panel), c + 4 * j, columns - j
        if _WIDE and left >= 2 * PANEL:
            _broad(a, a_row, a_k, b_j, b_k, b_panel, c_j, c_row, rows, steps, add)
            j += 2 * PANEL
        elif left >= PANEL:
            _panel(a, a_row, a_k, b_j, b_k, b_panel, c_j, c_row, rows, steps, add)
            j += PANEL
        else:
            _slim(a, a_row, a_k, b_j, b_k, b_panel, c_j, c_row, rows, steps, add)
            j += _LANES
