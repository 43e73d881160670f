"""The door of `rnn_xp.fit`: everything it is given is checked here, values too, once.

Afterwards the arrays live on the backend, and no computation looks at a value again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Loss
from rnn_xp.backend import Backend, backend_of, get_backend, to_numpy
from rnn_xp.data.shards import Shards
from rnn_xp.data.windows import cast_windows
from rnn_xp.engines.blocks import Batch
from rnn_xp.losses import takes_classes
from rnn_xp.network import Network, sequence

__all__ = [
    "check_optimizer",
    "check_shapes",
    "check_truncation",
    "enter",
    "enter_validation",
    "on_host",
    "resolve_backend",
    "seeded",
    "shuffled",
    "split_rows",
    "split_validation",
    "whole",
]

_PIECE = 2**20  # entries


def on_host(array: Any) -> bool:
    """Whether an argument is host data, which goes where the user says."""
    return isinstance(array, np.ndarray | list | tuple | Shards)


def resolve_backend(x: Any, backend: Backend | None) -> Backend:
    """Arrays of another library stay where they are; host data go where the user says."""
    if backend is not None:
        if not isinstance(backend, Backend):
            raise TypeError(
                f"fit: backend must be what rnn_xp.get_backend returns, got {backend!r}."
            )
        if not on_host(x) and backend_of(x).name != backend.name:
            raise TypeError(
                f"fit: x is an array of another library ({backend_of(x).name}) than backend= "
                f"({backend.name}). Leave out backend=, or give x as a NumPy array."
            )
        return backend
    return get_backend() if on_host(x) else backend_of(x)


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


def check_truncation(
    net: Network, truncate: tuple[int, int], batch_size: int | None, lengths: Any
) -> None:
    """Refuse what truncated backpropagation does not go with."""
    if batch_size is not None or lengths is not None:
        raise ValueError(
            "truncate= goes with the full batch and with mask= instead of lengths=: rows are "
            "streams whose states are carried on."
        )
    if net.bidirectional:
        raise ValueError("truncate= needs bidirectional=False.")
    sequence.segments(1, *truncate)


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
    sample_weight: Any = None,
    lengths: Any = None,
    mask: Any = None,
    reset: Any = None,
    rows: range | None = None,
) -> Batch:
    """Bring the data, or some rows of them, to the backend and check their values."""
    classes = takes_classes(loss)
    count, steps = np.shape(x)[0], np.shape(y if net.topology == "one_to_many" else x)[1]
    _check_option_shapes(net, count, steps, sample_weight, lengths, mask, reset)
    rows = range(count) if rows is None else rows
    x, y, sample_weight, lengths, mask, reset = (
        None if array is None else _some(array, rows)
        for array in (x, y, sample_weight, lengths, mask, reset)
    )
    if isinstance(sample_weight, Shards):
        sample_weight = np.asarray(sample_weight)
    found = Batch(
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
        _check_range("y", found.y, high, what, rows.start, found)
    if found.lengths is not None:
        _check_range("lengths", found.lengths, steps, "a number of steps", rows.start)
    if found.sample_weight is not None and bool(backend.xp.any(found.sample_weight < 0)):
        raise ValueError("fit: sample_weight must be >= 0.")
    return found


def split_validation(
    net: Network, loss: Loss, x: Any, y: Any, validation: Any, gap: Any
) -> tuple[range, range]:
    """Rows to train on and to validate on, the last of them after a gap; these may be none.

    Rows are in order of time, and windows next to each other share values.
    """
    rows: int = np.shape(x)[0]
    if not isinstance(validation, float | np.floating):
        if gap is not None:
            raise ValueError("fit: gap= goes with a share of the rows, such as validation=0.2.")
        return range(rows), range(0)
    if gap is None:
        steps = np.shape(y if net.topology == "one_to_many" else x)[1]
        gap = steps if takes_classes(loss) else steps + net.output_size - 1
    trained, held_out = split_rows(rows, float(validation), whole("gap", gap, 0))
    return range(trained), range(rows - held_out, rows)


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


def enter_validation(net: Network, loss: Loss, backend: Backend, validation: Any) -> Batch:
    """Bring data of their own to the backend."""
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


def _check_option_shapes(
    net: Network, rows: int, steps: int, weight: Any, lengths: Any, mask: Any, reset: Any
) -> None:
    shapes = [(rows,)] if net.topology == "many_to_one" else [(rows,), (rows, steps)]
    if weight is not None and np.shape(weight) not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(
            f"fit: sample_weight must have shape {wanted}, one weight per row or per step, got "
            f"{np.shape(weight)}."
        )
    if lengths is not None and np.shape(lengths) != (rows,):
        raise ValueError(
            f"fit: lengths must have shape ({rows},), one per row, got {np.shape(lengths)}."
        )
    for name, array in (("mask", mask), ("reset", reset)):
        if array is not None and np.shape(array) != (rows, steps):
            raise ValueError(
                f"fit: {name} must have shape ({rows}, {steps}), (N, T), got {np.shape(array)}."
            )


def _some(array: Any, rows: range) -> Any:
    """Rows of an array of any library, as views where it has them; of a list, as an array."""
    if isinstance(array, Shards):
        return array.rows(rows.start, rows.stop)
    array = np.asarray(array) if on_host(array) else array
    return array if len(rows) == array.shape[0] else array[rows.start : rows.stop, ...]


def _floats(backend: Backend, name: str, array: Any) -> Array:
    if on_host(array) and array.dtype.kind in "biuf":  # whole numbers are fine as data
        array = _cast(backend, array)
    if on_host(array) and not (isinstance(array, Shards) and array.dtype.kind == "f"):
        array = backend.asarray(np.asarray(array), copy=False)
    xp = backend.xp
    if xp.isdtype(array.dtype, "real floating") and not _all_finite(array, xp=xp):
        raise ValueError(
            f"fit: {name} has values that are not finite. Remove or fill the gaps first, or leave "
            "steps out with mask= and a placeholder such as 0."
        )
    return array


def _cast(backend: Backend, host: Any) -> Any:
    """Cast to the floats of the backend; what is in files stays there, if NumPy computes."""
    if not isinstance(host, Shards):
        return cast_windows(host, backend.dtype_name)
    host = host.astype(backend.dtype_name)
    return host if backend.name == "numpy" else np.asarray(host)


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
        where = ", ".join(map(str, (first + index[0], *index[1:])))
        raise ValueError(
            f"fit: {name}[{where}] is {host[index]}, but {what} is 0..{high}. Entries that do not "
            "count can be given the weight 0."
            if name == "y"
            else f"fit: {name}[{where}] is {host[index]}, but {what} is 0..{high}."
        )
