"""How many blocks of rows may be computed at once within a memory budget."""

from __future__ import annotations

from rnn_xp.network.configuration import Configuration
from rnn_xp.network.memory import block_bytes, fewest_bytes, keep_within, relative_time

__all__ = ["workers_within"]


def workers_within(
    budget: int,
    net: Configuration,
    steps: int,
    rows: int,
    itemsize: int,
    workers: int,
    *,
    again: bool = True,
) -> int:
    """Return the number of threads that may compute blocks at once within a memory budget.

    A thread that computes pieces of a long sequence again needs less memory and more time, see
    `rnn_xp.network.pieces`. The number is the one with which the work is done first.

    Parameters
    ----------
    budget : int
        Number of bytes for activations; data, parameters and the optimiser's state are excluded.
    net, steps, rows, itemsize
        See `rnn_xp.network.memory.block_bytes`.
    workers : int
        Largest number of threads to return.
    again : bool
        If False, nothing may be computed again.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If the budget is too small for one block.
    """
    all_of_it = block_bytes(net, steps, rows, itemsize)
    needed = fewest_bytes(net, steps, rows, itemsize) if again else all_of_it
    if budget < min(needed, all_of_it):
        raise ValueError(
            f"fit: memory_budget={budget} bytes is too little: one block of {rows} rows and "
            f"{steps} steps needs about {needed} bytes. Give at least that, or a smaller "
            "block_rows=, which is part of the definition of the result."
        )
    if not again:
        return min(workers, budget // all_of_it)

    def time(threads: int) -> float:
        keep = keep_within(net, steps, rows, itemsize, budget // threads)
        return relative_time(net, steps, keep) / threads

    return min(range(1, min(workers, max(1, budget // needed)) + 1), key=time)
