"""Move the data to the backend, and check their values, once.

Shapes have been checked before, see `rnn_xp.training.checks`. No computation looks at a value
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import readable
from rnn_xp._typing import Array, Loss
from rnn_xp.backend import Backend, array_namespace, device_of, to_numpy
from rnn_xp.backend.arrays import detached, library_name
from rnn_xp.data.shards import Shards
from rnn_xp.data.windows import cast_windows
from rnn_xp.engines.blocks import Batch
from rnn_xp.losses import name_of, takes_classes, valid_targets
from rnn_xp.network import Network
from rnn_xp.network.streams import Purpose, stream

__all__ = ["enter", "on_host", "read_batch", "seeded", "shuffled", "split_rows"]

_PIECE = 2**20  # entries


def on_host(array: Any) -> bool:
    """Return True for data of the host, which are moved to the backend.

    These are NumPy arrays, lists, tuples, Shards, and objects with a method ``to_numpy``, such as
    those of pandas.
    """
    return isinstance(array, np.ndarray | list | tuple | Shards) or hasattr(array, "to_numpy")


def read_batch(data: Batch) -> Batch:
    """Refuse masked arrays, and lists of sequences of unequal length; detach tensors."""
    data = Batch(*(readable(f"fit: {name}", array) for name, array in data._asdict().items()))
    for name, array in data._asdict().items():
        if isinstance(array, list | tuple):
            try:
                np.shape(array)
            except ValueError:
                raise ValueError(
                    f"fit: {name} is a list of sequences of unequal length. Pad them to one "
                    "length, for instance with zeros, and give their true lengths with lengths=."
                ) from None
    return data


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
    given = {"x": x, "y": y, "sample_weight": sample_weight, "lengths": lengths, "mask": mask}
    _check_library(backend, {**given, "reset": reset})
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
    if entered.lengths is not None:
        rule = f"a number of steps is 0..{steps}."
        _check_range("lengths", to_numpy(entered.lengths), (0, steps), rule, rows.start)
    _check_targets(net, loss, entered, rows.start)
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


def _check_library(backend: Backend, arrays: dict[str, Any]) -> None:
    """Refuse arrays of another library or device than the backend's, unless on the host."""
    wanted = library_name(backend.xp)
    for name, array in arrays.items():
        if array is None or on_host(array):
            continue
        if (library := library_name(array_namespace(array))) != wanted:
            raise TypeError(
                f"fit: arrays of one library are required, but {name} is an array of {library} and "
                f"the training is on {wanted}. Give all of them as NumPy arrays, for instance "
                f"rnn_xp.backend.to_numpy({name}), or all as arrays of {library}."
            )
        if (place := backend.adapter.device_name(device_of(array))) != backend.device_name:
            raise ValueError(
                f"fit: arrays on one device are required, but {name} is on {place} and the "
                f"training is on {backend.device_name}. Move them to one device, or give NumPy "
                "arrays, which are moved."
            )


def _some(array: Any, rows: range) -> Any:
    """Return the given rows of an array, as a view if its library has views."""
    if isinstance(array, Shards):
        return array.rows(rows.start, rows.stop)
    array = np.asarray(array) if on_host(array) else array
    return array if len(rows) == array.shape[0] else array[rows.start : rows.stop, ...]


def _floats(backend: Backend, name: str, array: Any) -> Array:
    given = array
    if on_host(array) and array.dtype.kind in "biuf":  # whole numbers are fine as data
        array = _cast(backend, array)
    if on_host(array) and not (isinstance(array, Shards) and array.dtype.kind == "f"):
        array = backend.asarray(np.asarray(array), copy=False)
    if not on_host(array):
        array = detached(array)  # or every epoch would be added to its graph
    xp = backend.xp
    if xp.isdtype(array.dtype, "real floating") and not _all_finite(array, xp=xp):
        if on_host(given) and _all_finite(np.asarray(given), xp=np):
            raise ValueError(
                f"fit: {name} has values that are too large for {backend.dtype_name}, up to "
                f"{np.max(np.abs(np.asarray(given))):.3g}. Scale them, or compute in float64 with "
                "backend=rnn_xp.get_backend(dtype='float64')."
            )
        raise ValueError(
            f"fit: {name} has values that are not finite. Remove or fill the gaps first, or leave "
            "steps out with mask= and a placeholder such as 0."
        )
    return array


def _cast(backend: Backend, host: Any) -> Any:
    """Cast to the backend's dtype; on NumPy, data in files stay there and are cast when read."""
    if not isinstance(host, Shards):
        with np.errstate(over="ignore"):  # it is an error of its own
            return cast_windows(host, backend.dtype_name)
    host = host.astype(backend.dtype_name)
    return host if backend.name == "numpy" else np.asarray(host)


def _all_finite(array: Array, *, xp: Any) -> bool:
    """Return True if all values are finite, checked in pieces because windows share memory."""
    size = math.prod(array.shape)
    if size <= _PIECE:
        try:
            return bool(xp.all(xp.isfinite(array)))
        except ValueError as error:
            raise TypeError(
                f"an array of {library_name(xp)} cannot be read by the host: it has no values yet "
                f"({error}). Give arrays that have values."
            ) from error
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


def _check_targets(net: Network, loss: Loss, batch: Batch, first: int) -> None:
    """Check that the loss has a meaning for all targets that count."""
    limits = valid_targets(loss)
    if takes_classes(loss):
        limits = (0, net.output_size - 1)
        rule = f"a class of the network's outputs is 0..{limits[1]}."
    elif limits is None:
        return
    else:
        rule = f"{name_of(loss)} takes targets in {limits[0]:g}..{limits[1]:g}."
        if limits == (0.0, 1.0):
            rule += " For targets of -1 and +1 give (y + 1) / 2, for 0..255 give y / 255."
    rule += " Entries that do not count can be given the weight 0."
    host = to_numpy(batch.y)
    counted = _counted(batch, host.shape, per_step=net.topology != "many_to_one")
    _check_range("y", host, limits, rule, first, counted)


def _check_range(
    name: str,
    host: NDArray[Any],
    limits: tuple[float, float],
    rule: str,
    first: int,
    counted: NDArray[np.bool_] | None = None,
) -> None:
    """Check that the values that count lie within limits; ``first`` is the number of row 0."""
    outside = (host < limits[0]) | (host > limits[1])
    if counted is not None:
        outside &= counted
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        where = ", ".join(map(str, (first + index[0], *index[1:])))
        raise ValueError(f"fit: {name}[{where}] is {host[index]}, but {rule}")


def _counted(batch: Batch, shape: tuple[int, ...], *, per_step: bool) -> NDArray[np.bool_]:
    """Return True for the entries of y, of the given shape, that count in the loss."""
    counted = np.ones(shape, bool)

    def among(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return part.reshape(part.shape + (1,) * (len(shape) - part.ndim))

    if batch.sample_weight is not None:
        counted &= among(to_numpy(batch.sample_weight) != 0)
    if not per_step:
        return counted
    if batch.mask is not None:
        counted &= among(to_numpy(batch.mask))
    if batch.lengths is not None:
        counted &= among(np.arange(shape[1]) < to_numpy(batch.lengths)[:, None])
    return counted
