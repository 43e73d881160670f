"""The door of `rnn_xp.fit`: everything it is given is checked here, values too, once.

Afterwards the arrays live on the backend, and no computation looks at a value again.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Loss
from rnn_xp.backend import Backend, to_numpy
from rnn_xp.configuration import takes_classes
from rnn_xp.engines.portable import Batch
from rnn_xp.network import Network

__all__ = ["check_optimizer", "check_shapes", "enter", "on_host", "whole"]


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
) -> Batch:
    """Bring the data to the backend and check their values."""
    classes = takes_classes(loss)
    rows, steps = np.shape(x)[0], np.shape(x)[1]
    if net.topology == "one_to_many":
        steps = np.shape(y)[1]
    found = Batch(
        x=_floats(backend, "x", x),
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


def _floats(backend: Backend, name: str, array: Any) -> Array:
    if on_host(array):
        host = np.asarray(array)
        # Whole numbers are fine as data; the network computes with floats.
        host = host.astype(backend.dtype_name) if host.dtype.kind in "biu" else host
        array = backend.asarray(host, copy=False)
    xp = backend.xp
    if xp.isdtype(array.dtype, "real floating") and not bool(xp.all(xp.isfinite(array))):
        raise ValueError(
            f"fit: {name} has values that are not finite. Remove or fill the gaps first, or leave "
            "steps out with mask= and a placeholder such as 0."
        )
    return array


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
