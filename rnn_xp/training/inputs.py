"""Move the data to the backend, and check their values, once.

Shapes have been checked before, see `rnn_xp.training.checks`. No computation looks at a value
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Loss
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.backend.arrays import detached
from rnn_xp.data.shards import Shards
from rnn_xp.data.windows import cast_windows
from rnn_xp.engines.blocks import Batch
from rnn_xp.losses import takes_classes
from rnn_xp.network import Network
from rnn_xp.network.streams import Purpose, stream

__all__ = ["enter", "on_host", "seeded", "shuffled", "split_rows"]

_PIECE = 2**20  # entries


def on_host(array: Any) -> bool:
    """Return True for NumPy arrays, lists, tuples and Shards, which are moved to the backend."""
    return isinstance(array, np.ndarray | list | tuple | Shards)


def enter(
    net: Network,
    loss: Loss,
    backend: Backend,
    *,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    lengths: Any = None,
    mask: Any = None,
    reset: Any = None,
    rows: range | None = None,
) -> Batch:
    """Bring the data, or some rows of them, to the backend, and check their values.

    Parameters
    ----------
    net : Network
    loss : callable
    backend : Backend
    x, y, sample_weight, lengths, mask, reset : array
        Arrays of shapes that `check_arrays` accepts, which are detached from gradient histories.
    rows : range, optional
        The rows to bring; all by default.

    Returns
    -------
    Batch

    Raises
    ------
    ValueError, TypeError
        If values are not finite or out of range, or a dtype is of the wrong kind.
    """
    classes, steps = takes_classes(loss), np.shape(y if net.topology == "one_to_many" else x)[1]
    rows = range(np.shape(x)[0]) if rows is None else rows
    x, y, sample_weight, lengths, mask, reset = (
        None if array is None else _some(array, rows)
        for array in (x, y, sample_weight, lengths, mask, reset)
    )
    if isinstance(sample_weight, Shards):
        sample_weight = np.asarray(sample_weight)
    entered = Batch(
        x=_floats(backend, "x", x),
        y=_integers(backend, "y", y) if classes else _floats(backend, "y", y),
        sample_weight=None
        if sample_weight is None
        else _floats(backend, "sample_weight", sample_weight),
        lengths=None if lengths is None else _integers(backend, "lengths", lengths),
        mask=None if mask is None else _bools(backend, "mask", mask),
        reset=None if reset is None else _bools(backend, "reset", reset),
    )
    if classes:
        high, what = net.output_size - 1, "a class of the network's outputs"
        _check_range("y", entered.y, high, what, rows.start, entered)
    if entered.lengths is not None:
        _check_range("lengths", entered.lengths, steps, "a number of steps", rows.start)
    if entered.sample_weight is not None and bool(backend.xp.any(entered.sample_weight < 0)):
        raise ValueError("fit: sample_weight must be >= 0.")
    return entered


def split_rows(rows: int, share: float, gap: int) -> tuple[int, int]:
    """Return the number of rows to train on and the number of rows to validate on.

    Parameters
    ----------
    rows : int
        Number of all rows.
    share : float
        The fraction to validate on, in (0, 1).
    gap : int
        Number of rows to leave out between the two parts.

    Raises
    ------
    ValueError
        If no row is left to train on.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"fit: validation must be a share in (0, 1), got {share!r}.")
    held_out = max(1, round(share * rows))
    trained = rows - held_out - gap
    if trained < 1:
        raise ValueError(
            f"fit: of {rows} rows, validation={share:g} takes {held_out} and the gap {gap}, "
            "which leaves none to train on. Give more data, a smaller share or a smaller gap=."
        )
    return trained, held_out


def shuffled(rows: int, batch_size: int, seed: int) -> Callable[[int], list[Any]]:
    """Return a function that draws the minibatches of an epoch from (seed, epoch) alone.

    The last minibatch of an epoch may be shorter.
    """

    def batches(epoch: int) -> list[Any]:
        order = stream(seed, Purpose.SHUFFLE, epoch).permutation(rows)
        return [order[start : start + batch_size] for start in range(0, rows, batch_size)]

    return batches


def seeded(seed: int) -> Callable[[int, int], np.random.Generator]:
    """Return a function that makes the dropout generator of a block in an update."""
    return lambda step, block: stream(seed, Purpose.DROPOUT, step, block)


def _some(array: Any, rows: range) -> Any:
    """Return the given rows of an array, as a view if its library has views."""
    if isinstance(array, Shards):
        return array.rows(rows.start, rows.stop)
    array = np.asarray(array) if on_host(array) else array
    return array if len(rows) == array.shape[0] else array[rows.start : rows.stop, ...]


def _floats(backend: Backend, name: str, array: Any) -> Array:
    if on_host(array) and array.dtype.kind in "biuf":  # whole numbers are fine as data
        array = _cast(backend, array)
    if on_host(array) and not (isinstance(array, Shards) and array.dtype.kind == "f"):
        array = backend.asarray(np.asarray(array), copy=False)
    if not on_host(array):
        array = detached(array)  # or every epoch would be added to its graph
    xp = backend.xp
    if xp.isdtype(array.dtype, "real floating") and not _all_finite(array, xp=xp):
        raise ValueError(
            f"fit: {name} has values that are not finite. Remove or fill the gaps first, or leave "
            "steps out with mask= and a placeholder such as 0."
        )
    return array


def _cast(backend: Backend, host: Any) -> Any:
    """Cast to the backend's dtype; on NumPy, data in files stay there and are cast when read."""
    if not isinstance(host, Shards):
        return cast_windows(host, backend.dtype_name)
    host = host.astype(backend.dtype_name)
    return host if backend.name == "numpy" else np.asarray(host)


def _all_finite(array: Array, *, xp: Any) -> bool:
    """Return True if all values are finite, checked in pieces because windows share memory."""
    size = math.prod(array.shape)
    if size <= _PIECE:
        return bool(xp.all(xp.isfinite(array)))
    rows = max(1, _PIECE * array.shape[0] // size)
    starts = range(0, array.shape[0], rows)
    pieces = [xp.all(xp.isfinite(array[start : start + rows, ...])) for start in starts]
    return bool(xp.all(xp.stack(pieces)))


def _integers(backend: Backend, name: str, array: Any) -> Array:
    array = backend.asarray(np.asarray(array), copy=False) if on_host(array) else array
    if not backend.xp.isdtype(array.dtype, "integral"):
        raise TypeError(f"fit: {name} must be integers, got {array.dtype}.")
    return array


def _bools(backend: Backend, name: str, array: Any) -> Array:
    array = backend.asarray(np.asarray(array), copy=False) if on_host(array) else array
    if not backend.xp.isdtype(array.dtype, "bool"):
        raise TypeError(f"fit: {name} must be bool, got {array.dtype}.")
    return array


def _check_range(
    name: str, array: Array, high: int, what: str, first: int, weighted: Batch | None = None
) -> None:
    """Check that values lie in 0..high; with ``weighted``, entries of weight 0 are ignored."""
    host = to_numpy(array)
    outside = (host < 0) | (host > high)
    if weighted is not None and weighted.sample_weight is not None:
        weight = to_numpy(weighted.sample_weight)
        weight = weight if weight.ndim == host.ndim else weight[:, None]
        outside &= weight != 0
    if weighted is not None and host.ndim == 2:
        if weighted.mask is not None:
            outside &= to_numpy(weighted.mask)
        if weighted.lengths is not None:
            outside &= np.arange(host.shape[1]) < to_numpy(weighted.lengths)[:, None]
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        where = ", ".join(map(str, (first + index[0], *index[1:])))
        raise ValueError(
            f"fit: {name}[{where}] is {host[index]}, but {what} is 0..{high}. Entries that do not "
            "count can be given the weight 0."
            if name == "y"
            else f"fit: {name}[{where}] is {host[index]}, but {what} is 0..{high}."
        )
