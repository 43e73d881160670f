"""Layers that the fused kernels compute, and the sizes of their compilation and launch.

The kernels are compiled for a cell and a number of hidden units; steps, rows and inputs are
arguments. The source verifies with ``static_assert`` that it counts memory as this module does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

__all__ = [
    "CENTRE",
    "COLLECT_BYTES",
    "COLLECT_OPTIONS",
    "JOB",
    "JOBS",
    "OPTIONS",
    "SPAN",
    "SUPPORTED",
    "TILE",
    "WEIGHT",
    "WEIGHTS",
    "Plan",
    "Size",
    "Tile",
    "make_plan",
    "parts_of",
    "tile_of",
    "unsupported",
]

OPTIONS = frozenset({"counts", "idle", "reset", "keep", "initial"})
"""The fields of `rnn_xp.kernels.course.Course` that the fused kernels compute.

Layer normalisation is not among them: a layer that has it needs more memory, see `Size`.
"""

JOB, JOBS = struct.Struct("2P" + 2 * "3P2qi4x" + "5i4x"), 28
"""A product of ``collect.cu``, and how many of them a launch computes at most. Their table is an
argument of the kernel, of which there may be 4 KB."""

WEIGHT, WEIGHTS = struct.Struct("2P3i4x"), 64
"""The same for the weights that ``norm.cu`` centres."""

TILE, SPAN, COLLECT_BYTES, CENTRE = 64, 256, 4 * 2 * 16 * 64, (32, 8)
"""Sizes of ``collect.cu``, and the columns and slices of a block of ``centre``."""

_MAX_HIDDEN, _MAX_OF_BLOCK = 256, 128


def _options(macros: dict[str, str | int]) -> tuple[str, ...]:
    return ("-std=c++17", *(f"-D{name}={value}" for name, value in macros.items()))


COLLECT_OPTIONS = _options(
    {
        "PLAN_COLLECT_BYTES": COLLECT_BYTES,
        "PLAN_TILE": TILE,
        "PLAN_SPAN": SPAN,
        "JOBS": JOBS,
        "PLAN_JOB_TABLE": JOBS * JOB.size,
    }
)
"""Options for the compiler of ``collect.cu``."""


class _Cell(NamedTuple):
    """Sizes for the kernel that a cell declares.

    Attributes
    ----------
    gates : int
    rows : tuple of 3 int
        The largest number of rows of a block up to H = 64, up to 128 and above, for which there are
        registers. A block has as few as let 132 blocks share all rows, which are the
        multiprocessors of an H100.
    cluster : int
        Number of blocks that share the columns of wider layers.
    """

    gates: int
    rows: tuple[int, int, int]
    cluster: int


_CELLS = {
    "rnn-tanh": _Cell(1, (8, 8, 8), 4),
    "rnn-relu": _Cell(1, (8, 8, 8), 4),
    "gru": _Cell(3, (4, 2, 4), 8),
    "lstm": _Cell(4, (4, 2, 4), 8),
}
_ROWS, _BLOCKS = (1, 2, 4, 8), 132
_MAX_BLOCKS = 4 * _BLOCKS  # further rows are taken by the same blocks, which keep their weights
_SLICES, _SLICES_IN_CLUSTER = 8, 16
_CHUNK = 16  # terms of a product that are in shared memory at once
_HELD_TERMS = 8  # of a slice in registers, if there are several gates in one block; otherwise all


class Size(NamedTuple):
    """A layer as the choice of its kernels sees it.

    Attributes
    ----------
    kernel : str
        Name that the cell declares.
    dtype : str
    hidden_size : int
    shared_limit : int
        Bytes of shared memory that a block may have on the device.
    norm : bool
        If True, the layer's products are normalised.
    clusters : bool
        If True, the device has thread block clusters.
    hip : bool
        If True, CuPy computes on ROCm.
    """

    kernel: str
    dtype: str
    hidden_size: int
    shared_limit: int
    norm: bool = False
    clusters: bool = False
    hip: bool = False


class Plan(NamedTuple):
    """Compilation and launch of the kernels for one layer.

    Attributes
    ----------
    macros : tuple of pairs
        Macros for the compiler.
    rows : int
        Rows that a cluster computes at once, R.
    cluster : int
        Blocks of a cluster, 1 if a block has all columns.
    threads : int
    forward_bytes, backward_bytes : int
        Dynamic shared memory of a block.
    """

    macros: tuple[tuple[str, str | int], ...]
    rows: int
    cluster: int
    threads: int
    forward_bytes: int
    backward_bytes: int

    @property
    def options(self) -> tuple[str, ...]:
        """Command-line options for the compiler."""
        return _options(dict(self.macros))

    def blocks(self, rows: int) -> int:
        """Return the number of blocks for N rows."""
        return min(-(-rows // self.rows), _MAX_BLOCKS // self.cluster) * self.cluster


SUPPORTED: tuple[tuple[str, Callable[[Size], bool]], ...] = (
    ("CuPy for CUDA and not for ROCm", lambda s: not s.hip),
    ("the dtype float32", lambda s: s.dtype == "float32"),
    (f"hidden_size <= {_MAX_HIDDEN}", lambda s: s.hidden_size <= _MAX_HIDDEN),
    (
        f"above hidden_size = {_MAX_OF_BLOCK} a GPU with thread block clusters (sm_90 or later)",
        lambda s: s.clusters or s.hidden_size <= _MAX_OF_BLOCK,
    ),
    ("the cell rnn, gru (reset_after=True) or lstm", lambda s: s.kernel in _CELLS),
    (
        "weights that fit in the device's registers and shared memory",
        lambda s: _sizes(s, 1) is not None,
    ),
)
"""Requirements of a layer: each as a sentence and as a test."""


def unsupported(size: Size) -> str:
    """Return the first requirement that a layer does not meet; empty if it meets all."""
    return next((needed for needed, holds in SUPPORTED if not holds(size)), "")


def make_plan(size: Size, rows: int) -> Plan | None:
    """Choose the rows of a block. The choice changes no bit of the result.

    Parameters
    ----------
    size : Size
    rows : int
        Number of rows, N.

    Returns
    -------
    Plan or None
        None if the layer does not meet a requirement of `SUPPORTED`.

    Examples
    --------
    >>> plan = make_plan(Size("lstm", "float32", 128, shared_limit=232448), 256)
    >>> plan.rows, plan.threads, plan.blocks(256)
    (2, 512, 128)
    >>> wide = Size("lstm", "float32", 256, shared_limit=232448, clusters=True)
    >>> plan = make_plan(wide, 64)
    >>> plan.rows, plan.cluster, plan.threads, plan.blocks(64)
    (4, 8, 256, 128)
    >>> unsupported(wide._replace(hidden_size=300))
    'hidden_size <= 256'
    """
    if unsupported(size):
        return None
    cell, hidden = _CELLS[size.kernel], size.hidden_size
    most = cell.rows[0 if hidden <= 64 else 1 if hidden <= _MAX_OF_BLOCK else 2]
    clusters = _BLOCKS if hidden <= _MAX_OF_BLOCK else _BLOCKS // cell.cluster
    wanted = next((n for n in _ROWS if n * clusters >= rows), most)
    plans = (_sizes(size, n) for n in reversed(_ROWS) if n <= min(wanted, most))
    return next(plan for plan in plans if plan is not None)


def _sizes(size: Size, rows: int) -> Plan | None:
    """Return the plan for blocks of R rows, or None if their memory does not fit."""
    hidden, (gates, _, cluster) = size.hidden_size, _CELLS[size.kernel]
    buffers, slices = 2, _SLICES_IN_CLUSTER
    if hidden <= _MAX_OF_BLOCK:
        buffers, slices, cluster = 1, _SLICES, 1
    pairs = (-(-hidden // cluster) + 1) // 2
    threads = pairs * slices
    terms = -(-hidden // (4 * slices)) * 4
    held = terms if gates == 1 or cluster > 1 else min(terms, _HELD_TERMS)
    weights = (terms - held) * gates * 2 * threads
    padded = buffers * terms * slices
    biases = gates + (size.kernel == "gru")
    columns = 2 * pairs
    forward = weights + rows * padded + (slices * rows * gates + biases) * columns
    backward = weights + rows * gates * padded + slices * rows * columns
    rounds = dgains = 0
    if size.norm:  # sums over a row's columns; gains, and their gradients
        parts = -(-pairs // 4) * 4 * cluster
        rounds, dgains = 2 * slices * parts, -(-rows * biases * columns // 4) * 4
        forward += rows * parts + gates * columns
        backward += rows * parts + biases * columns
        backward = max(backward, slices * 2 * gates * columns)
    # The products before and after the steps use the same memory.
    forward = rounds + max(forward, _strip(slices, gates, columns))
    backward = rounds + dgains + max(backward, _strip(slices, 1, columns))
    forward, backward = 4 * forward, 4 * backward
    if max(forward, backward) > size.shared_limit:
        return None
    macros: dict[str, str | int] = {
        "CELL": size.kernel.upper().replace("-", "_"),
        "HIDDEN": hidden,
        "NORM": int(size.norm),
        "ROWS": rows,
        "CLUSTER": cluster,
        "SLICES": slices,
        "HELD_TERMS": held,
        "PLAN_THREADS": threads,
        "PLAN_FORWARD_BYTES": forward,
        "PLAN_BACKWARD_BYTES": backward,
        "WEIGHTS": WEIGHTS,
        "PLAN_WEIGHT_TABLE": WEIGHTS * WEIGHT.size,
    }
    return Plan(tuple(macros.items()), rows, cluster, threads, forward, backward)


def _strip(slices: int, groups: int, columns: int) -> int:
    """Return the numbers of a product's two sides in shared memory."""
    lines = 8 if groups == 1 else 4
    return _CHUNK * (slices * lines + groups * columns)


def parts_of(tiles: int, rows: int) -> int:
    """Return in how many parts the rows of the weight gradients are added.

    Examples
    --------
    >>> parts_of(1, 83170), parts_of(24, 25600), parts_of(24, 100)
    (264, 11, 1)
    """
    return max(1, min(-(-rows // SPAN), -(-2 * _BLOCKS // tiles)))


class Tile(NamedTuple):
    """Compilation and launch of ``matmul.cu``: rows and columns of the result that a block has."""

    tall: int
    wide: int

    @property
    def bytes(self) -> int:
        """Dynamic shared memory of a block."""
        depth = 1024 // max(self)
        return 4 * sum(self) * (depth + 4)

    @property
    def options(self) -> tuple[str, ...]:
        """Command-line options for the compiler."""
        return _options(
            {"TALL": self.tall, "WIDE": self.wide, "PLAN_THREADS": SPAN, "PLAN_BYTES": self.bytes}
        )

    def blocks(self, rows: int, columns: int) -> int:
        """Return the number of blocks for a result."""
        return -(-rows // self.tall) * -(-columns // self.wide)


def tile_of(rows: int, columns: int) -> Tile:
    """Choose the tile for a result: the largest of which there are enough for the multiprocessors.

    The choice changes no bit of the result.

    Examples
    --------
    >>> tile_of(100_000, 512), tile_of(100_000, 4), tile_of(64, 4)
    (Tile(tall=64, wide=64), Tile(tall=64, wide=16), Tile(tall=16, wide=16))
    """
    tall, wide = (next((n for n in (16, 32) if n >= size), 64) for size in (rows, columns))
    while max(tall, wide) > 16 and Tile(tall, wide).blocks(rows, columns) < _BLOCKS:
        tall, wide = (tall // 2, wide) if tall >= wide else (tall, wide // 2)
    return Tile(tall, wide)
