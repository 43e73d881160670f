"""Products that a CUDA graph can record: CuPy refuses those of cuBLAS while it records one.

Two kernels compute them, in float32 and without atomics: ``matmul.cu`` any product of two matrices
in one launch, and ``collect.cu`` those whose terms are very many rows, as weight gradients have
them, in two.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cupy

from rnn_xp._typing import Array
from rnn_xp.kernels.cuda.arguments import address, contiguous, cut, pointers, table, text
from rnn_xp.kernels.cuda.plan import (
    COLLECT_BYTES,
    COLLECT_OPTIONS,
    JOB,
    JOBS,
    SPAN,
    TILE,
    Tile,
    parts_of,
    tile_of,
)

__all__ = [
    "CUBLAS",
    "OWN",
    "Products",
    "collect",
    "collect_source",
    "multiply",
    "multiply_source",
    "supports",
    "weight_grads",
]

_ITEM = 4  # bytes of a number
_NOTHING = (0, 0, 0, 0, 0, 0)  # a right side that is not there


def supports(dtype: str) -> bool:
    """Return True if the kernels compute in this precision on the current device."""
    return dtype == "float32" and not getattr(cupy.cuda.runtime, "is_hip", False)


@functools.cache
def multiply_source() -> str:
    """Return the CUDA source of `multiply`."""
    return text("block.cu", "matmul.cu")


@functools.cache
def collect_source() -> str:
    """Return the CUDA source of `collect`."""
    return text("block.cu", "collect.cu")


def multiply(a: Array, b: Array, out: Array) -> Array:
    """Compute a @ b in one launch; the bits of a row depend on that row and on ``b`` alone.

    Parameters
    ----------
    a : Array (M, K)
    b : Array (K, N)
        Both float32, with any strides.
    out : Array (M, N)
        Contiguous; it shares no memory with the others.

    Returns
    -------
    Array (M, N)
        ``out``.
    """
    (rows, terms), columns = a.shape, b.shape[1]
    if rows and columns:
        tile = tile_of(rows, columns)
        strides = (stride // _ITEM for stride in (*a.strides, *b.strides))
        _multiply(tile)(
            (tile.blocks(rows, columns),), (SPAN,),
            (a, b, out, *map(cupy.int32, (rows, columns, terms)), *map(cupy.int64, strides)),
            shared_mem=tile.bytes,
        )  # fmt: skip
    return out


def weight_grads(left: Array, rights: Sequence[Array], workspace: Any) -> tuple[list[Array], Array]:
    """Compute left.T @ right for each right side, and the sum of the rows of ``left``.

    Parameters
    ----------
    left : Array (M, K)
    rights : sequence of Array (M, *)
        All float32.
    workspace : Workspace

    Returns
    -------
    products : list of Array (K, *)
    sums : Array (K,)
    """
    rows, lefts = left.shape
    left, sums = contiguous(left), cupy.empty(lefts, dtype=left.dtype)
    rights = [a if a.strides[1] == _ITEM else cupy.ascontiguousarray(a) for a in rights]
    products = [cupy.empty((lefts, a.shape[1]), dtype=left.dtype) for a in rights]
    sides = [
        (address(a), 0, address(product), 0, a.strides[0] // _ITEM, a.shape[1])
        for a, product in zip(rights, products, strict=True)
    ]
    jobs: list[tuple[tuple[int, ...], int]] = []
    for some in cut(sides, 2) or [[]]:
        first, second = (*some, _NOTHING, _NOTHING)[:2]
        to = 0 if jobs else address(sums)
        fields = (address(left), to, *first, *second, lefts, 0, 0)
        jobs.append((fields, first[-1] + second[-1] + bool(to)))
    collect(jobs, None, (1, rows), workspace)
    return products, sums


def collect(
    jobs: Sequence[tuple[tuple[int, ...], int]],
    offsets: Array | None,
    shape: tuple[int, int],
    workspace: Any,
) -> None:
    """Compute the products of ``collect.cu`` over all rows.

    Parameters
    ----------
    jobs : sequence of (fields, width)
        The fields of a job but for the last two, and the number of its columns.
    offsets : Array (T + 1,) or None
        Where the rows of each step begin; by default every step has N.
    shape : (T, N)
    workspace : Workspace
    """
    for some in cut(jobs, JOBS):
        packed, tiles, entries = [], 0, 0
        for fields, width in some:
            lefts = fields[-3]
            packed.append(JOB.pack(*fields, tiles, entries))
            tiles += -(-lefts // TILE) * -(-width // TILE)
            entries += lefts * width
        parts = parts_of(tiles, math.prod(shape))
        partial = workspace.take("partial", parts * entries)
        given = table(packed, JOBS * JOB.size), *map(cupy.int32, (len(some), parts))
        last = cupy.int32(entries)
        _collect("collect")(
            (tiles * parts,), (SPAN,),
            pointers((*given, offsets, *map(cupy.int32, shape), partial, last)),
            shared_mem=COLLECT_BYTES,
        )  # fmt: skip
        _collect("add_up")((-(-entries // SPAN),), (SPAN,), (*given, partial, last))


class Products(NamedTuple):
    """Products of one origin, with the arguments and results of `multiply` and `weight_grads`."""

    multiply: Callable[[Array, Array, Array], Array]
    weight_grads: Callable[[Array, Sequence[Array], Any], tuple[list[Array], Array]]


def _by_cublas(left: Array, rights: Sequence[Array], workspace: Any) -> tuple[list[Array], Array]:
    # The sum is a product as well: a reduction would use two multiprocessors only.
    sums = cupy.matmul(workspace.ones(left.shape[0]), left).reshape(-1)
    return [cupy.matmul(left.T, right) for right in rights], sums


OWN = Products(multiply, weight_grads)
CUBLAS = Products(lambda a, b, out: cupy.matmul(a, b, out=out), _by_cublas)


@functools.cache
def _multiply(tile: Tile) -> Any:
    module = cupy.RawModule(code=multiply_source(), options=tile.options)
    return module.get_function("product_tiles")


@functools.cache
def _collect(name: str) -> Any:
    return _collect_module().get_function(name)


@functools.cache
def _collect_module() -> Any:
    return cupy.RawModule(code=collect_source(), options=COLLECT_OPTIONS)
