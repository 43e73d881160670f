"""Losses and gradients as rows of host memory, in which ranks exchange them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rnn_xp._typing import Array, Params
from rnn_xp.backend import Backend
from rnn_xp.distributed import Ranks, Subtree

__all__ = ["sum_of_ranks"]


def sum_of_ranks(
    ranks: Ranks,
    backend: Backend,
    blocks: int,
    sums: Sequence[Subtree[tuple[Array, Params]]],
    like: Params,
) -> tuple[Array, Params]:
    """Add up what the ranks have of a loss and its gradient.

    Parameters
    ----------
    ranks : Ranks
    backend : Backend
    blocks : int
        Of all ranks together.
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
        blocks,
        [Subtree(part.start, part.height, row) for part, row in zip(sums, rows, strict=True)],
        width,
        backend.dtype_name,
    )
    row, grads, end = backend.asarray(found, copy=False), {}, 1
    for name, array in like.items():
        begin, end = end, end + math.prod(array.shape)
        grads[name] = xp.reshape(row[begin:end], array.shape)
    return xp.reshape(row[0:1], ()), grads
