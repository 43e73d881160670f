"""The door of `rnn_xp.fit`: everything it is given is checked here, values too, once.

Afterwards the arrays live on the backend, and no computation looks at a value again.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Loss
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.configuration import takes_classes
from rnn_xp.engines.blocks import Batch
from rnn_xp.network import Network
from rnn_xp.windows import cast_windows

__all__ = [
    "check_optimizer",
    "check_shapes",
    "digest",
    "enter",
    "on_host",
    "seeded",
    "shuffled",
    "split_rows",
    "split_validation",
    "whole",
]

_PIECE = 2**20  # entries


def on_host(array: Any) -> bool:
    """Whether an argument is host data, which goes where the user says."""
    return isinstance(array, np.ndarray | list | tuple)


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Check a whole number, NumPy's included, and its range."""
    bounds = f">= {low}" if high is None else f"in {low}..{high} (N), or None for the full batch"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"fit: {name} must be an integer {bounds}, got {value!r}.") from None
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        raise ValueError(f"fit: {name} must be an integer {bounds}, got {value!r}.")
    return number


def check_optimizer(optimizer: Any) -> bool:
    """Check that it is an optimiser; whether it works on the full batch only."""
    if isinstance(optimizer, type) or not (
        callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))
    ):
        raise TypeError(
            f"fit: optimizer must be an object such as rnn_xp.optim.adam(0.01) or "
            f"rnn_xp.optim.lbfgs(), got {optimizer!r}."
        )
    return bool(getattr(optimizer, "full_batch_only", False))


def check_shapes(net: Network, x: Any, y: Any, classes: bool) -> int:
    """Check the shapes of x and y; the number of rows."""
    x_shape, y_shape = np.shape(x), np.shape(y)
    one_to_many = net.topology == "one_to_many"
    if len(x_shape) != 3 or 0 in x_shape or (one_to_many and x_shape[1] != 1):
        wanted = "(N, 1, I)" if one_to_many else "(N, T, I)"
        raise ValueError(
            f"fit: x must have shape {wanted} with no axis empty, got {x_shape}. For windows of a "
            "single series give x[:, :, None]."
        )
    rows: int = x_shape[0]
    lead = ["N"] if net.topology == "many_to_one" else ["N", "T"]
    letters = lead if classes else [*lead, "O"]
    sizes = {"N": rows, "O": net.output_size}
    if net.topology == "many_to_many":
        sizes["T"] = x_shape[1]
    fits = len(y_shape) == len(letters) and all(
        sizes.get(letter, size) == size for letter, size in zip(letters, y_shape, strict=False)
    )
    if not fits or 0 in y_shape:
        wanted = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
        wanted = f"({wanted},)" if len(letters) == 1 else f"({wanted})"
        kind = "class indices of shape" if classes else "shape"
        hint = " For one output give y[..., None]." if len(y_shape) == len(letters) - 1 else ""
        raise ValueError(
            f"fit: y must have {kind} {wanted} for {net.topology}, got {y_shape}.{hint}"
        )
    return rows


def enter(
    net: Network,
    loss: Loss,
    backend: Backend,
    *,
    x: Any,
    y: Any,
    sample_weight: Any,
    lengths: Any,
    mask: Any,
    reset: Any,
    own: Callable[[int], range] | None = None,
) -> Batch:
    """Bring the data to the backend and check their values.

    With ``own(N)``, the rows for which a rank is responsible, it looks for values of x that are
    not finite in these alone, and so does not read what it does not compute.
    """
    classes = takes_classes(loss)
    rows, steps = np.shape(x)[0], np.shape(x)[1]
    if net.topology == "one_to_many":
        steps = np.shape(y)[1]
    found = Batch(
        x=_floats(backend, "x", x, own),
        y=_integers(backend, "y", y) if classes else _floats(backend, "y", y),
        sample_weight=None
        if sample_weight is None
        else _floats(backend, "sample_weight", sample_weight),
        lengths=None if lengths is None else _integers(backend, "lengths", lengths),
        mask=None if mask is None else _bools(backend, "mask", mask, (rows, steps)),
        reset=None if reset is None else _bools(backend, "reset", reset, (rows, steps)),
    )
    if classes:
        _check_range(
            backend, "y", found.y, net.output_size - 1, "a class of the network's outputs", found
        )
    if found.lengths is not None:
        if tuple(found.lengths.shape) != (rows,):
            raise ValueError(
                f"fit: lengths must have shape ({rows},), one per row, got {found.lengths.shape}."
            )
        _check_range(backend, "lengths", found.lengths, steps, "a number of steps", None)
    if found.sample_weight is not None:
        _check_weights(net, backend, found.sample_weight, rows, steps)
    return found


def split_validation(
    net: Network,
    loss: Loss,
    backend: Backend,
    validation: Any,
    gap: Any,
    own: Callable[[int], range] | None = None,
    **arrays: Any,
) -> tuple[Batch, Batch | None]:
    """Bring the data to the backend, and take from them or from elsewhere what to validate on.

    A share of the data is their last block of rows, after a gap: rows are in order of time, and
    windows next to each other share values.
    """
    share = isinstance(validation, float | np.floating)
    if gap is not None and not share:
        raise ValueError("fit: gap= goes with a share of the rows, such as validation=0.2.")
    data = enter(net, loss, backend, own=own, **arrays)
    if validation is None:
        return data, None
    if not share:
        return data, _own_validation(net, loss, backend, validation)
    rows = data.x.shape[0]
    if gap is None:
        steps = (data.y if net.topology == "one_to_many" else data.x).shape[1]
        gap = steps if takes_classes(loss) else steps + net.output_size - 1
    trained, held_out = split_rows(rows, validation, whole("gap", gap, 0))
    parts = data.rows(0, trained), data.rows(rows - held_out, rows)
    for what, part in zip(("training", "validation"), parts, strict=True):
        weight = part.sample_weight
        if weight is not None and not bool(backend.xp.any(weight > 0)):
            raise ValueError(f"fit: sample_weight is 0 in all {what} rows.")
    return parts


def split_rows(rows: int, share: float, gap: int) -> tuple[int, int]:
    """Return how many of the rows are trained on, and how many are validated on."""
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


def _own_validation(net: Network, loss: Loss, backend: Backend, validation: Any) -> Batch:
    if isinstance(validation, tuple) and len(validation) == 2:
        validation = {"x": validation[0], "y": validation[1]}
    known = Batch._fields
    if not (isinstance(validation, Mapping) and {"x", "y"} <= validation.keys() <= set(known)):
        given = list(validation) if isinstance(validation, Mapping) else type(validation).__name__
        raise TypeError(
            "fit: validation must be a share such as 0.2, a pair (x, y), or a mapping with x, y "
            f"and any of {', '.join(known[2:])}; got {given}."
        )
    try:
        check_shapes(net, validation["x"], validation["y"], takes_classes(loss))
        arrays = {name: validation.get(name) for name in known}
        return enter(net, loss, backend, **arrays)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("fit: ", "fit: validation: ", 1)) from error


def shuffled(rows: int, batch_size: int, seed: int) -> Callable[[int], list[Any]]:
    """Minibatches of an epoch, a function of (seed, epoch) alone; the last may be short."""

    def batches(epoch: int) -> list[Any]:
        order = np.random.default_rng((seed, epoch)).permutation(rows)
        return [order[start : start + batch_size] for start in range(0, rows, batch_size)]

    return batches


def seeded(seed: int) -> Callable[[int, int], np.random.Generator]:
    """Generators for dropout, one for each block in each update."""
    return lambda step, block: np.random.default_rng((seed, step, block))


def digest(data: Batch) -> str:
    """Tell data apart: the sha256 of all arrays but x, of which some thousand rows must do.

    Windows repeat each value T times, and bringing all of x back from a device takes long.
    """
    found = hashlib.sha256()
    stride = -(-data.x.shape[0] // 1000)
    for name, array in data._replace(x=data.x[::stride, ...])._asdict().items():
        if array is not None:
            host = np.asarray(to_numpy(array), order="C")
            host = host.astype(np.int64) if host.dtype.kind in "iu" else host  # of any library
            found.update(f"|{name}|{host.dtype.str}|{host.shape}|".encode())
            found.update(host.data if host.size else b"")
    return found.hexdigest()


def _floats(
    backend: Backend, name: str, array: Any, own: Callable[[int], range] | None = None
) -> Array:
    if on_host(array):
        host = np.asarray(array)
        # Whole numbers are fine as data; the network computes with floats.
        if host.dtype.kind in "biuf":
            host = cast_windows(host, backend.dtype_name)
        array = backend.asarray(host, copy=False)
    xp, checked = backend.xp, array
    if own is not None:
        part = own(array.shape[0])
        checked = array[part.start : part.stop, ...]
    if xp.isdtype(array.dtype, "real floating") and not _all_finite(checked, xp=xp):
        raise ValueError(
            f"fit: {name} has values that are not finite. Remove or fill the gaps first, or leave "
            "steps out with mask= and a placeholder such as 0."
        )
    return array


def _all_finite(array: Array, *, xp: Any) -> bool:
    """Whether all values are finite, looked at in pieces: windows are far larger than they seem."""
    size = math.prod(array.shape)
    if size <= _PIECE:
        return bool(xp.all(xp.isfinite(array)))
    rows = max(1, _PIECE * array.shape[0] // size)
    starts = range(0, array.shape[0], rows)
    pieces = [xp.all(xp.isfinite(array[start : start + rows, ...])) for start in starts]
    return bool(xp.all(xp.stack(pieces)))


def _integers(backend: Backend, name: str, array: Any) -> Array:
    array = backend.asarray(array, copy=False) if on_host(array) else array
    if not backend.xp.isdtype(array.dtype, "integral"):
        raise TypeError(f"fit: {name} must be integers, got {array.dtype}.")
    return array


def _bools(backend: Backend, name: str, array: Any, shape: tuple[int, int]) -> Array:
    array = backend.asarray(array, copy=False) if on_host(array) else array
    if not backend.xp.isdtype(array.dtype, "bool"):
        raise TypeError(f"fit: {name} must be bool, got {array.dtype}.")
    if tuple(array.shape) != shape:
        raise ValueError(f"fit: {name} must have shape {shape}, (N, T), got {tuple(array.shape)}.")
    return array


def _check_range(
    backend: Backend, name: str, array: Array, high: int, what: str, weighted: Batch | None
) -> None:
    """Values 0..high; with ``weighted``, entries of weight 0 may hold anything."""
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
        where = ", ".join(map(str, index))
        raise ValueError(
            f"fit: {name}[{where}] is {host[index]}, but {what} is 0..{high}. Entries that do not "
            "count can be given the weight 0."
            if name == "y"
            else f"fit: {name}[{where}] is {host[index]}, but {what} is 0..{high}."
        )


def _check_weights(net: Network, backend: Backend, weight: Array, rows: int, steps: int) -> None:
    shapes = [(rows,)] if net.topology == "many_to_one" else [(rows,), (rows, steps)]
    if tuple(weight.shape) not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(
            f"fit: sample_weight must have shape {wanted}, one weight per row or per step, got "
            f"{tuple(weight.shape)}."
        )
    xp = backend.xp
    if bool(xp.any(weight < 0)) or not bool(xp.any(weight > 0)):
        raise ValueError("fit: sample_weight must be >= 0, with at least one weight > 0.")
