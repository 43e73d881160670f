"""The direction of L-BFGS in one launch, where array by array it takes seven for each pair."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cupy

from rnn_xp._typing import Array
from rnn_xp.kernels.cuda.arguments import text

__all__ = ["MAX_SIZE", "source", "two_loop"]

MAX_SIZE = 1 << 17
"""Entries of a vector. One block computes, and for larger vectors launches no longer count."""

_THREADS, _GROUPS = 512, 16  # of ``two_loop.cu``


def source() -> str:
    """Return the CUDA source."""
    return text("block.cu", "two_loop.cu")


def two_loop(gradient: Array, steps: Sequence[Array], changes: Sequence[Array]) -> Array | None:
    """Return -H g of `rnn_xp.optim.LBFGS`; None if the kernel does not compute it.

    Parameters
    ----------
    gradient : Array (P,)
        It must be float32, with P at most `MAX_SIZE`.
    steps, changes : sequences of Array (P,)
        At least one pair, oldest first.
    """
    size, pairs = gradient.shape[0], len(steps)
    if gradient.dtype != "float32" or size > MAX_SIZE:
        return None
    q = cupy.empty(size, dtype=gradient.dtype)
    args = (gradient, cupy.stack([*steps]), cupy.stack([*changes]), q)
    _kernel()(
        (1,), (_THREADS,), (*args, cupy.int32(pairs), cupy.int32(size)),
        shared_mem=4 * (_THREADS + _GROUPS + 2 * pairs),
    )  # fmt: skip
    return q


@functools.cache
def _kernel() -> Any:
    return cupy.RawModule(code=source(), options=("-std=c++17",)).get_function("two_loop")
