"""Losses and gradients as flat rows of numbers, the form in which ranks exchange them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from rnn_xp._typing import Array, Params
from rnn_xp.backend import Backend
from rnn_xp.distributed import Empty, Ranks, Shares, Subtree

__all__ = ["sum_of_ranks", "weight_of_ranks"]


def sum_of_ranks(
    ranks: Ranks,
    backend: Backend,
    shares: Shares,
    sums: Sequence[Subtree[tuple[Array, Params]]],
    like: Params,
) -> tuple[Array, Params]:
    """Return the sum of a loss and its gradient over all ranks.

    Parameters
    ----------
    ranks : Ranks
    backend : Backend
    shares : callable
        ``shares(rank)`` gives the blocks of each rank.
    sums : sequence of Subtree
        The sums of (loss, gradients) over this rank's blocks.
    like : Params
        Arrays with the names and shapes of the gradients, since a rank without blocks has no
        gradient.

    Returns
    -------
    loss : Array ()
    gradients : Params
        The gradients, the same on all ranks; with the reduction "exact" they have the bits of a
        single rank.
    """
    xp = backend.xp
    width = 1 + sum(math.prod(array.shape) for array in like.values())
    on_device = ranks.comm.device_buffers and backend.adapter.device_buffers
    if on_device:
        empty: Empty = functools.partial(xp.empty, dtype=backend.dtype, device=backend.device)
    else:
        empty = ranks.on_host(backend.dtype_name)
    parts = [
        xp.reshape(array, (-1,))
        for _, _, (value, grads) in sums
        for array in (value, *(grads[name] for name in like))
    ]
    rows: Any = ()
    if parts:  # one read of the device for all of them: each is a wait there
        row = xp.concat(parts)
        rows = (row if on_device else backend.to_numpy(row)).reshape(-1, width)
    summed = ranks.total(
        shares,
        [Subtree(part.start, part.height, row) for part, row in zip(sums, rows, strict=True)],
        width,
        empty,
    )
    row, result, end = summed if on_device else backend.asarray(summed, copy=False), {}, 1
    for name, array in like.items():
        begin, end = end, end + math.prod(array.shape)
        result[name] = xp.reshape(row[begin:end], array.shape)
    return xp.reshape(row[0:1], ()), result


def weight_of_ranks(
    ranks: Ranks,
    backend: Backend,
    shares: Shares,
    sums: Sequence[Subtree[Any]],
    weighted: bool,
) -> Any:
    """Return the sum of a total weight over all ranks.

    Parameters
    ----------
    ranks, backend, shares
        See `sum_of_ranks`.
    sums : sequence of Subtree
        The sums over this rank's blocks, floats or arrays ().
    weighted : bool
        True if the sums are arrays, which a rank without blocks could not know otherwise.

    Returns
    -------
    Array () or float
    """
    empty, rows = ranks.on_host(backend.dtype_name if weighted else "float64"), []
    for start, height, weight in sums:
        row = empty(1)
        row[0] = float(weight)
        rows.append(Subtree(start, height, row))
    summed = ranks.total(shares, rows, 1, empty)
    return backend.asarray(summed[0]) if weighted else float(summed[0])
