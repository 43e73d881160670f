"""The number of rows that are worth computing at once."""

from __future__ import annotations

from rnn_xp.backend import Backend

__all__ = ["ACCELERATOR_ROWS", "CPU_ROWS", "on_accelerator", "rows_at_once", "rows_in_cache"]

CPU_ROWS = 1040
"""On a CPU the arrays of a block should stay in the cache."""

ACCELERATOR_ROWS = 65_536
"""On an accelerator every further block repeats all kernel launches."""

_FEWEST_ROWS = 32  # below this the calls of a step cost more than its arithmetic
_CACHED = 2**20  # numbers of a block that stay in the cache of a CPU
_CPU_STATES, _ACCELERATOR_STATES = 2**21, 2**27  # numbers in the hidden states of a block


def on_accelerator(backend: Backend) -> bool:
    """Return True if launches and reads by the host are expensive on the device."""
    return backend.is_accelerator


def rows_at_once(accelerator: bool, states: int) -> int:
    """Return the number of rows in a block of a forward pass.

    It depends on the kind of the device and on the size of the network alone, never on how much
    memory happens to be free, so that the same call cuts the same blocks everywhere.

    Parameters
    ----------
    accelerator : bool
        If True, the rows are computed where launches are expensive.
    states : int
        Hidden state values that one row has over all steps of one layer, T*D*H.

    Returns
    -------
    int
        1040 rows on a CPU and 65,536 on an accelerator; fewer, but at least 32, for sequences so
        long that the hidden states of a block would exceed 2**21 or 2**27 values.

    Examples
    --------
    >>> rows_at_once(False, 10 * 50), rows_at_once(False, 1000 * 50), rows_at_once(True, 10 * 50)
    (1040, 41, 65536)
    """
    rows, limit = CPU_ROWS, _CPU_STATES
    if accelerator:
        rows, limit = ACCELERATOR_ROWS, _ACCELERATOR_STATES
    return max(_FEWEST_ROWS, min(rows, limit // states))


def rows_in_cache(numbers: int) -> int:
    """Return the number of rows of a block, if each has so many numbers and all should be cached.

    Examples
    --------
    >>> rows_in_cache(10 * 50), rows_in_cache(40 * 7 * 64), rows_in_cache(10**6)
    (1040, 58, 32)
    """
    return max(_FEWEST_ROWS, min(CPU_ROWS, _CACHED // numbers))
