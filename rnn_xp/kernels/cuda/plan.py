"""Layers that the fused kernels compute, and the sizes of their compilation and launch.

The kernels are compiled for a cell and a number of hidden units; steps, rows and inputs are
arguments. ``layer.cu`` verifies with ``static_assert`` that it counts memory as this module does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["OPTIONS", "SUPPORTED", "Plan", "Size", "make_plan", "unsupported"]

OPTIONS = frozenset({"counts", "idle", "reset", "keep", "initial"})
"""The fields of `rnn_xp.kernels.course.Course` that the fused kernels compute.

Layer normalisation is not among them: a layer that has it needs more memory, see `Size`.
"""

_MAX_HIDDEN = 128
# By the kernel that a cell declares: its gates, and the largest number of rows of a block up to and
# above H = 64, for which there are registers. A block has as few rows as let 132 blocks share all,
# which are the multiprocessors of an H100.
_CELLS: dict[str, tuple[int, int, int]] = {
    "rnn-tanh": (1, 8, 8),
    "rnn-relu": (1, 8, 8),
    "gru": (3, 4, 2),
    "lstm": (4, 4, 2),
}
_ROWS, _BLOCKS = (1, 2, 4, 8), 132
_MAX_BLOCKS = 4 * _BLOCKS  # further rows are taken by the same blocks, which keep their weights
_SLICES = 8
_HELD_TERMS = 8  # of a slice in registers, if there are several gates; of one gate all


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
    """

    kernel: str
    dtype: str
    hidden_size: int
    shared_limit: int
    norm: bool = False


class Plan(NamedTuple):
    """Compilation and launch of the kernels for one layer.

    Attributes
    ----------
    macros : tuple of pairs
        Macros for the compiler.
    rows : int
        Rows that a block computes at once, R.
    threads : int
    forward_bytes, backward_bytes : int
        Dynamic shared memory of a block.
    """

    macros: tuple[tuple[str, str | int], ...]
    rows: int
    threads: int
    forward_bytes: int
    backward_bytes: int

    @property
    def options(self) -> tuple[str, ...]:
        """Command-line options for the compiler."""
        return ("-std=c++17", *(f"-D{name}={value}" for name, value in self.macros))

    def blocks(self, rows: int) -> int:
        """Return the number of blocks for N rows."""
        return min(-(-rows // self.rows), _MAX_BLOCKS)


SUPPORTED: tuple[tuple[str, Callable[[Size], bool]], ...] = (
    ("the dtype float32", lambda s: s.dtype == "float32"),
    (f"hidden_size <= {_MAX_HIDDEN}", lambda s: s.hidden_size <= _MAX_HIDDEN),
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
    >>> unsupported(Size("lstm", "float32", 200, shared_limit=232448))
    'hidden_size <= 128'
    """
    if unsupported(size):
        return None
    most = _CELLS[size.kernel][1 if size.hidden_size <= 64 else 2]
    wanted = next((n for n in _ROWS if n * _BLOCKS >= rows), most)
    plans = (_sizes(size, n) for n in reversed(_ROWS) if n <= min(wanted, most))
    return next(plan for plan in plans if plan is not None)


def _sizes(size: Size, rows: int) -> Plan | None:
    """Return the plan for blocks of R rows, or None if their memory does not fit."""
    hidden, gates = size.hidden_size, _CELLS[size.kernel][0]
    pairs = (hidden + 1) // 2
    threads = pairs * _SLICES
    terms = -(-hidden // (4 * _SLICES)) * 4
    held = terms if gates == 1 else min(terms, _HELD_TERMS)
    weights = (terms - held) * gates * 2 * threads
    padded = terms * _SLICES
    biases = gates + (size.kernel == "gru")
    columns = 2 * pairs
    forward = weights + rows * padded + (_SLICES * rows * gates + biases) * columns
    backward = weights + rows * gates * padded + _SLICES * rows * columns
    if size.norm:  # sums over a row's columns; gains, and their gradients
        parts = -(-pairs // 4) * 4
        forward += rows * parts + gates * columns
        backward += rows * parts + (1 + rows) * biases * columns
    forward, backward = 4 * forward, 4 * backward
    if max(forward, backward) > size.shared_limit:
        return None
    macros: dict[str, str | int] = {
        "CELL": size.kernel.upper().replace("-", "_"),
        "HIDDEN": hidden,
        "NORM": int(size.norm),
        "ROWS": rows,
        "SLICES": _SLICES,
        "HELD_TERMS": held,
        "PLAN_THREADS": threads,
        "PLAN_FORWARD_BYTES": forward,
        "PLAN_BACKWARD_BYTES": backward,
    }
    return Plan(tuple(macros.items()), rows, threads, forward, backward)
