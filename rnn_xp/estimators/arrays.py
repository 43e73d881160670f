"""Windows, targets and weights of estimators, in NumPy or in the library of the windows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, check_consistent_length

from rnn_xp._checks import readable
from rnn_xp._typing import Array
from rnn_xp.backend import array_namespace, backend_of, device_of, to_numpy
from rnn_xp.training.inputs import on_host

__all__ = [
    "Data",
    "Scaling",
    "beside",
    "check_weights",
    "elsewhere",
    "most_probable",
    "patched",
    "scaled",
    "scaling_of",
    "softmax",
    "take",
]

Scaling = tuple[NDArray[Any], NDArray[Any]]  # mean and standard deviation of each feature


class Data(NamedTuple):
    """Checked windows, targets, weights and numbers of steps, as `rnn_xp.fit` takes them."""

    x: Any
    y: Any
    sample_weight: Any
    lengths: Any


def elsewhere(X: Any) -> bool:
    """Return True if X is an array of a library other than NumPy, which then computes."""
    import array_api_compat

    return array_api_compat.is_array_api_obj(X) and not array_api_compat.is_numpy_array(X)


def beside(x: Any, values: Any, dtype: Any) -> Array:
    """Bring y or weights to the library and device of x."""
    xp, device = array_namespace(x), device_of(x)
    if not elsewhere(values):
        values = xp.asarray(np.array(values), device=device)  # its own, to be written to
    elif array_namespace(values) is not xp or device_of(values) != device:
        values = xp.asarray(np.array(to_numpy(values)), device=device)
    return xp.astype(values, dtype, copy=False)


def check_weights(sample_weight: Any, x: Any, *, per_step: bool = False) -> Any:
    """Check the weights of the rows (or steps) of x; those of host data must not be negative."""
    sample_weight = readable("sample_weight", sample_weight)
    if not on_host(x):
        return beside(x, sample_weight, x.dtype)
    weights = check_array(
        sample_weight, ensure_2d=False, dtype=x.dtype, ensure_non_negative=True,
        input_name="sample_weight",
    )  # fmt: skip
    if per_step:
        return weights
    if weights.ndim != 1:
        raise ValueError(f"sample_weight must have shape (n,), got {weights.shape}.")
    check_consistent_length(x, weights)
    if not weights.any():
        raise ValueError("sample_weight is zero for every row; at least one must be positive.")
    return weights


def scaling_of(data: Data, rows: int) -> Scaling:
    """Return the mean and standard deviation of each feature over the steps of the first rows.

    Rows count by their weights, unless each step has one; a feature that does not vary has the
    deviation 1.
    """
    x = to_numpy(data.x)[:rows]
    counts = np.ones(x.shape[:2])
    if data.lengths is not None:
        counts *= np.arange(x.shape[1]) < to_numpy(data.lengths)[:rows, None]
    if data.sample_weight is not None and len(data.sample_weight.shape) == 1:
        counts *= to_numpy(data.sample_weight)[:rows, None]
    with np.errstate(over="ignore", invalid="ignore"):  # values that are refused later
        total = counts.sum() or 1.0
        mean = np.einsum("nt,nti->i", counts, x) / total
        deviation = np.sqrt(np.einsum("nt,nti->i", counts, (x - mean) ** 2) / total)
    flat = ~(deviation > 1e-12 * np.abs(mean)) | ~np.isfinite(deviation)
    return np.where(np.isfinite(mean), mean, 0.0), np.where(flat, 1.0, deviation)


def scaled(x: Any, scaling: Scaling) -> Any:
    """Return x (n, T, I) with each feature standardised, in its own dtype."""
    mean, deviation = (beside(x, part, x.dtype) for part in scaling)
    return (x - mean) / deviation


def patched(x: Any, lengths: Any, size: int) -> tuple[Any, Any]:
    """Join each ``size`` consecutive steps of x (n, T, I) to one, with as many times I features.

    What is missing of the last patch of a row is 0; lengths count patches then.
    """
    if size == 1:
        return x, lengths
    xp, (n, steps, features) = array_namespace(x), x.shape
    if lengths is not None:
        ends = xp.asarray(lengths) if on_host(x) else lengths
        inside = xp.arange(steps, device=device_of(x)) < ends[:, None]
        x = xp.where(inside[:, :, None], x, xp.zeros_like(x))
        lengths = (ends + (size - 1)) // size
    count = -(-steps // size)
    rest = xp.zeros((n, count * size - steps, features), dtype=x.dtype, device=device_of(x))
    return xp.reshape(xp.concat([x, rest], axis=1), (n, count, size * features)), lengths


def softmax(logits: Array) -> Array:
    """Return probabilities over the last axis, each row with the sum 1."""
    xp = array_namespace(logits)
    power = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return power / xp.sum(power, axis=-1, keepdims=True)


def most_probable(probable: Array, classes: NDArray[Any]) -> Any:
    """Return the most probable class of each row, for numbers in the library of the rows."""
    if on_host(probable) or classes.dtype.kind not in "biuf":
        return classes[np.argmax(to_numpy(probable), axis=-1)]
    backend = backend_of(probable)
    index = backend.xp.argmax(probable, axis=-1)
    flat = backend.xp.take(backend.asarray(classes), backend.xp.reshape(index, (-1,)))
    return backend.xp.reshape(flat, index.shape)


def take(data: Data, rows: Any) -> Data:
    """Return some rows of the data, in the library that holds them."""
    if on_host(data.x):
        return Data(*(None if array is None else np.asarray(array)[rows] for array in data))
    backend = backend_of(data.x)
    index = backend.asarray(rows)
    return Data(*(None if a is None else backend.xp.take(a, index, axis=0) for a in data))
