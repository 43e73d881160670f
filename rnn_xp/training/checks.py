"""Checks of the settings and shapes given to `rnn_xp.fit`, made before any data move."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rnn_xp._checks import index_of
from rnn_xp._typing import Loss, Params
from rnn_xp.backend import Backend, backend_of, get_backend
from rnn_xp.backend.arrays import require_arrays
from rnn_xp.engines.blocks import Batch
from rnn_xp.losses import curvature_rows
from rnn_xp.network import Network, sequence
from rnn_xp.optim import Optimizer
from rnn_xp.training.inputs import on_host, read_batch, split_rows
from rnn_xp.training.state import all_finite

__all__ = [
    "check_arrays",
    "check_curvature",
    "check_full_batch",
    "check_optimizer",
    "check_params",
    "check_truncation",
    "of_validation",
    "plan_validation",
    "resolve_backend",
    "steps_of",
    "whole",
]


def resolve_backend(x: Any, backend: Backend | None) -> Backend:
    """Return the backend of x or, for host data, the given or the selected backend."""
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
    """Check that an argument is a Python or NumPy integer within a range, and return it."""
    bounds = f">= {low}" if high is None else f"in {low}..{high} (N), or None for the full batch"
    number = index_of(value)
    if number is None:
        raise TypeError(f"fit: {name} must be an integer {bounds}, got {value!r}.")
    if number < low or (high is not None and number > high):
        raise ValueError(f"fit: {name} must be an integer {bounds}, got {value!r}.")
    return number


def check_optimizer(optimizer: Any) -> None:
    """Refuse anything that is not an optimiser."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            "fit: optimizer must be an object such as rnn_xp.optim.adam(0.01) or "
            "rnn_xp.optim.lbfgs(), or of your own class, derived from rnn_xp.optim.Optimizer; got "
            f"{optimizer!r}."
        )


def check_full_batch(
    optimizer: Optimizer, batch_size: int | None, truncate: Any, noisy: bool
) -> None:
    """Refuse settings that do not suit an optimiser which needs the full batch."""
    if optimizer.full_batch_only and (batch_size or truncate or noisy):
        raise ValueError(
            f"{type(optimizer).__name__} needs the full batch, without truncation or dropout: its "
            "line search compares losses, which must belong to one function. Leave these out, "
            "or use rnn_xp.optim.adam()."
        )


def check_curvature(optimizer: Optimizer, loss: Loss) -> None:
    """Refuse a loss without the second derivatives that the optimiser needs."""
    if "curvature" in optimizer.needs and curvature_rows(loss) is None:
        raise ValueError(
            f"{type(optimizer).__name__} needs a loss that declares its curvature, as mse, "
            "cross_entropy and binary_cross_entropy do (rnn_xp.losses.declare); "
            f"{getattr(loss, '__name__', loss)} does not. Use rnn_xp.optim.lbfgs() for it."
        )


def check_params(net: Network, params: Params) -> None:
    """Refuse initial parameters of another network, and values that are not finite."""
    if not isinstance(params, Mapping):
        raise TypeError(
            "fit: params must be a dict of arrays, as Network.init returns it, got "
            f"{type(params).__name__}."
        )
    if params:
        require_arrays("fit: params", **params)
    shapes = {name: tuple(np.shape(array)) for name, array in params.items()}
    if shapes != net.shapes:
        name = min(
            name
            for name in shapes.keys() | net.shapes.keys()
            if shapes.get(name) != net.shapes.get(name)
        )
        raise ValueError(
            f"fit: params must be those of the network: {name} has the shape "
            f"{net.shapes.get(name, 'of no parameter')}, got {shapes.get(name, 'none')}. "
            "Start from net.init(), or from another result of the same network."
        )
    if not all_finite(params):
        raise ValueError("fit: the given params have values that are not finite.")


def check_truncation(
    net: Network, truncate: tuple[int, int], batch_size: int | None, lengths: Any
) -> None:
    """Refuse settings that truncated backpropagation does not support."""
    if batch_size is not None or lengths is not None:
        raise ValueError(
            "truncate= goes with the full batch and with mask= instead of lengths=: rows are "
            "streams whose states are carried on."
        )
    if net.bidirectional:
        raise ValueError("truncate= needs bidirectional=False.")
    sequence.segments(1, *truncate)


def check_arrays(net: Network, data: Batch, classes: bool) -> None:
    """Check the shapes of all arrays.

    Parameters
    ----------
    net : Network
    data : Batch
        Arrays of any kind, as given to `rnn_xp.fit`.
    classes : bool
        If True, y holds class indices.

    Raises
    ------
    ValueError
        If the network cannot be trained on these shapes.
    """
    rows = _check_x_and_y(net, data.x, data.y, classes)
    steps = steps_of(net, data)
    shapes = [(rows,)] if net.topology == "many_to_one" else [(rows,), (rows, steps)]
    if data.sample_weight is not None and np.shape(data.sample_weight) not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(
            f"fit: sample_weight must have shape {wanted}, one weight per row or per step, got "
            f"{np.shape(data.sample_weight)}."
        )
    if data.lengths is not None and np.shape(data.lengths) != (rows,):
        raise ValueError(
            f"fit: lengths must have shape ({rows},), one per row, got {np.shape(data.lengths)}."
        )
    for name, array in (("mask", data.mask), ("reset", data.reset)):
        if array is not None and np.shape(array) != (rows, steps):
            raise ValueError(
                f"fit: {name} must have shape ({rows}, {steps}), (N, T), got {np.shape(array)}."
            )


def steps_of(net: Network, data: Batch) -> int:
    """Return the number of steps T, which for one_to_many is that of y."""
    steps: int = np.shape(data.y if net.topology == "one_to_many" else data.x)[1]
    return steps


def _check_x_and_y(net: Network, x: Any, y: Any, classes: bool) -> int:
    """Check the shapes of x and y, and return the number of rows."""
    x_shape, y_shape = np.shape(x), np.shape(y)
    one_to_many = net.topology == "one_to_many"
    if len(x_shape) != 3 or 0 in x_shape or (one_to_many and x_shape[1] != 1):
        wanted = "(N, 1, I)" if one_to_many else "(N, T, I)"
        values = "x.to_numpy()" if hasattr(x, "to_numpy") else "x"
        raise ValueError(
            f"fit: x must have shape {wanted} with no axis empty, got {x_shape}. For windows of a "
            f"single series give {values}[:, :, None]."
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
        values = "y.to_numpy()" if hasattr(y, "to_numpy") else "y"
        column = len(y_shape) == len(letters) - 1
        hint = f" For one output give {values}[..., None]." if column else ""
        raise ValueError(
            f"fit: y must have {kind} {wanted} for {net.topology}, got {y_shape}.{hint}"
        )
    return rows


def plan_validation(
    net: Network, data: Batch, classes: bool, validation: Any, gap: Any
) -> tuple[range, range | Batch | None]:
    """Choose the rows to train on and the rows to validate on.

    Rows are in time order, and neighbouring windows share values.

    Parameters
    ----------
    net : Network
    data : Batch
        All data, as given.
    classes : bool
        If True, y holds class indices.
    validation, gap
        The arguments of `rnn_xp.fit`.

    Returns
    -------
    trained : range
        The rows of ``data`` to train on.
    held_out : range, Batch or None
        Further rows of ``data``, or separate data of checked shapes; None without validation.
    """
    rows: int = np.shape(data.x)[0]
    if isinstance(validation, float | np.floating):
        if gap is None:
            gap = steps_of(net, data) + (0 if classes else net.output_size - 1)
        trained, held_out = split_rows(rows, float(validation), whole("gap", gap, 0))
        return range(trained), range(rows - held_out, rows)
    if gap is not None:
        raise ValueError("fit: gap= goes with a share of the rows, such as validation=0.2.")
    return range(rows), None if validation is None else _separate(net, classes, validation)


def _separate(net: Network, classes: bool, validation: Any) -> Batch:
    """Return separate validation data as a batch of checked shapes."""
    if isinstance(validation, tuple) and len(validation) == 2:
        validation = {"x": validation[0], "y": validation[1]}
    known = Batch._fields
    if not (isinstance(validation, Mapping) and {"x", "y"} <= validation.keys() <= set(known)):
        got = list(validation) if isinstance(validation, Mapping) else type(validation).__name__
        raise TypeError(
            "fit: validation must be a share such as 0.2, a pair (x, y), or a mapping with x, y "
            f"and any of {', '.join(known[2:])}; got {got}."
        )
    with of_validation():
        data = read_batch(Batch(**{name: validation.get(name) for name in known}))
        check_arrays(net, data, classes)
    return data


@contextlib.contextmanager
def of_validation() -> Iterator[None]:
    """Let errors raised within the context say that they concern the validation data."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("fit: ", "fit: validation: ", 1)) from error
