"""Losses and gradients as rows of host memory, in which ranks exchange them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rnn_xp._typing import Array, Params
from rnn_xp.backend import Backend
from rnn_xp.distributed import Ranks, Shares, Subtree

__all__ = ["sum_of_ranks", "weight_of_ranks"]


def sum_of_ranks(
    ranks: Ranks,
    backend: Backend,
    shares: Shares,
    sums: Sequence[Subtree[tuple[Array, Params]]],
    like: Params,
) -> tuple[Array, Params]:
    """Add up what the ranks have of a loss and its gradient.

    Parameters
    ----------
    ranks : Ranks
    backend : Backend
    shares : callable
        Blocks of each rank.
    sums : sequence of Subtree
        Over this rank's blocks, of (loss, gradients).
    like : Params
        Names and shapes of the gradients: a rank without blocks has none to tell.

    Returns
    -------
    loss : Array ()
    gradients : Params
        The same on all ranks. In "exact" they are, to the bit, those of a single rank.
    """
    xp = backend.xp
    width = 1 + sum(math.prod(array.shape) for array in like.values())
    # One read of the device for all of them: each is a wait there.
    parts = [
        xp.reshape(array, (-1,))
        for _, _, (value, grads) in sums
        for array in (value, *(grads[name] for name in like))
    ]
    rows = backend.to_numpy(xp.concat(parts)).reshape(-1, width) if parts else ()
    found = ranks.total(
        shares,
        [Subtree(part.start, part.height, row) for part, row in zip(sums, rows, strict=True)],
        width,
        backend.dtype_name,
    )
    row, grads, end = backend.asarray(found, copy=False), {}, 1
    for name, array in like.items():
        begin, end = end, end + math.prod(array.shape)
        grads[name] = xp.reshape(row[begin:end], array.shape)
    return xp.reshape(row[0:1], ()), grads


def weight_of_ranks(
    ranks: Ranks,
    backend: Backend,
    shares: Shares,
    sums: Sequence[Subtree[Any]],
    weighted: bool,
) -> Any:
    """Add up what the ranks have of a total weight, which is a float where nothing is weighted.

    Parameters
    ----------
    ranks, backend, shares : as for `sum_of_ranks`
    sums : sequence of Subtree
        Over this rank's blocks, of floats or Array ().
    weighted : bool
        Which of the two: a rank without blocks has none to tell.
    """
    dtype = backend.dtype_name if weighted else "float64"
    rows = [Subtree(start, height, [float(total)]) for start, height, total in sums]
    found = ranks.total(shares, rows, 1, dtype)
    return backend.asarray(found[0]) if weighted else float(found[0])
