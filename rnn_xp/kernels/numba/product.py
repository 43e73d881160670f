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
    "multiply_parts",
    "pack",
    "padded",
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


def compiled(function: Any) -> Any:
    """Compile without the interpreter's lock, and keep the result for the next process.

    ``contract`` lets a product and a sum become one instruction; no other operation is reordered.
    Nothing is allocated, so without numba's runtime nobody counts the references to arrays, which
    takes as long as a step of few rows.
    """
    settings = {"fastmath": {"contract"}, "error_model": "numpy", "_nrt": False}
    dispatcher = njit(nogil=True, **settings)(function)
    with contextlib.suppress(RuntimeError):  # there is no folder that can be written to
        dispatcher._cache = _Cache(function)
    return dispatcher


@register_jitable  # type: ignore[untyped-decorator]
def padded(columns: int) -> int:
    """Return the number of columns that a product writes: the next multiple of 8."""
    return -(-columns // _LANES) * _LANES


def spaced(columns: int) -> int:
    """Return a row length at which rows do not compete for the same places in a cache.

    They do so if their distance is a multiple of 1 KiB, as it is for many common hidden sizes.
    """
    length: int = padded(columns)
    return length + PANEL if length % 256 == 0 else length


def pack(b: Any) -> Any:
    """Lay out B (K, J) in panels of 16 columns, (ceil(J / 16), K, 16), the last padded by zeros."""
    steps, columns = b.shape
    panels = np.zeros((-(-columns // PANEL), steps, PANEL), b.dtype)
    for number, panel in enumerate(panels):
        part = b[:, number * PANEL : (number + 1) * PANEL]
        panel[:, : part.shape[1]] = part
    return panels


def _tile_of(builder: Any, places: Any, shared: Any, rows: int, columns: int) -> None:
    """Write the product of one tile; addresses are in bytes, distances in floats."""
    a, b, c = (builder.inttoptr(place, _FLOAT.as_pointer()) for place in places)
    a_row, a_k, a_part, b_k, b_panel, b_part, c_row, parts, counts, add = shared
    counts, add = builder.inttoptr(counts, _INDEX.as_pointer()), builder.trunc(add, ir.IntType(1))
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

    sums = [[cgutils.alloca_once(builder, place.type.pointee) for place in row] for row in places]
    for row, row_places in zip(sums, places, strict=True):
        for total, place in zip(row, row_places, strict=True):
            builder.store(ir.Constant(place.type.pointee, None), total)
    with builder.if_then(add):
        for row, row_places in zip(sums, places, strict=True):
            for total, place in zip(row, row_places, strict=True):
                builder.store(builder.load(place, align=4), total)
    with cgutils.for_range(builder, parts) as part:
        b_first, a_first = (builder.mul(part.index, distance) for distance in (b_part, a_part))
        with cgutils.for_range(builder, builder.load(builder.gep(counts, [part.index]))) as loop:
            b_row = builder.add(b_first, builder.mul(loop.index, b_k))
            a_column = builder.add(a_first, builder.mul(loop.index, a_k))
            bs = [builder.load(in_panel(b_row, start), align=4) for start in starts]
            for a_i, row in zip(a_rows, sums, strict=True):
                value = builder.load(builder.gep(a_i, [a_column]))
                for b_j, total in zip(bs, row, strict=True):
                    term = builder.fmul(in_every_lane(value, b_j.type), b_j, flags=("contract",))
                    more = builder.fadd(builder.load(total), term, flags=("contract",))
                    builder.store(more, total)
    for row, row_places in zip(sums, places, strict=True):
        for total, place in zip(row, row_places, strict=True):
            builder.store(builder.load(total), place, align=4)


_FEWER = (8, 4, 2, 1)  # rows of smaller tiles; more kinds of them take long to compile
_SHARED = types.UniTuple(types.intp, 10)  # what all tiles of a product have in common


def _one_of(tiles: Any) -> Any:
    """Compile the products of tiles, {number: (rows, columns)}; a number says which is meant.

    More than 16 columns are those of several panels.
    """

    @intrinsic
    def one(typing, number, a, b, c, shared):
        def generate(context, builder, signature, arguments):
            number, *places, shared = arguments
            shared = cgutils.unpack_tuple(builder, shared)
            after = builder.append_basic_block("after")
            switch = builder.switch(number, after)
            for case, (rows, columns) in tiles.items():
                block = builder.append_basic_block(f"tile{case}")
                switch.add_case(_INDEX(case), block)
                with builder.goto_block(block):
                    _tile_of(builder, places, shared, rows, columns)
                    builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4, _SHARED), generate

    return one


def _strip(rows: int, columns: int) -> Any:
    """Compile the product of a strip of columns, by tiles of so many rows and some of the rest."""
    tile = _one_of({number: (number, columns) for number in (rows, *_FEWER)})

    def strip(a, b, c, count, shared):
        i, number = 0, rows
        while i < count:
            while number > count - i:
                number = 8 if number > 8 else 4 if number > 4 else number // 2
            tile(number, a + 4 * i * shared[0], b, c + 4 * i * shared[6], shared)
            i += number

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
_row = _one_of({count: (1, count * _LANES) for count in range(1, _ROW + 1)})


@intrinsic
def _place_of(typing, number):
    """Return the address of a number on the stack of the calling function."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(cgutils.alloca_once_value(builder, arguments[0]), _INDEX)

    return types.intp(types.intp), generate


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
    multiply_parts(
        a, b, c, rows, columns,
        (a_row, a_k, 0, b_k, b_panel, 0, c_row, 1, _place_of(steps), 1 if add else 0),
    )  # fmt: skip


@compiled
def multiply_parts(a, b, c, rows, columns, shared):
    """Compute a sum of products, C = sum of A_p B_p or C += the same, in one pass over C.

    Parameters
    ----------
    a, b, c, rows, columns : int
        As `multiply` has them, A and B of the first product.
    shared : tuple of int
        (a_row, a_k, a_part, b_k, b_panel, b_part, c_row, parts, counts, add): distances as there,
        and between the matrices of one product and the next; the number of products; the address
        of their numbers of steps; 1 if they are added to C, otherwise 0.
    """
    j = 0
    while j < columns:
        left, b_j, c_j = columns - j, b + 4 * (j // PANEL * shared[4]), c + 4 * j
        if rows == 1:
            # Strips of equally many vectors, and whole panels.
            strips = (left + _ROW * _LANES - 1) // (_ROW * _LANES)
            count = (left // _LANES + strips - 1) // strips
            if strips > 1:
                count += count % 2
            _row(count, a, b_j, c_j, shared)
            j += count * _LANES
        elif _WIDE and left >= 2 * PANEL:
            _broad(a, b_j, c_j, rows, shared)
            j += 2 * PANEL
        elif left >= PANEL:
            _panel(a, b_j, c_j, rows, shared)
            j += PANEL
        else:
            _slim(a, b_j, c_j, rows, shared)
            j += _LANES
