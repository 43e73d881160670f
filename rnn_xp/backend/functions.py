"""Every function of the Array API standard that is used here, tried on a small array.

A test reads the names off the code and holds this list to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend.adapters import ADAPTERS, adapter_of
from rnn_xp.backend.arrays import array_namespace, device_of, dtype_name
from rnn_xp.backend.libraries import first_line

__all__ = ["FUNCTIONS", "Trial", "require_basics", "try_functions"]

Trial = Callable[[Namespace, Array, Mapping[str, Any]], Any]
"""``trial(xp, x, new)`` computes an array from x (3, 3), positive, with ``new`` for creation."""


def _rows(xp: Namespace, x: Array, new: Mapping[str, Any]) -> Array:
    """Return the numbers of rows, in another order."""
    return xp.asarray(np.asarray([2, 0]), device=new["device"])


def _definite(xp: Namespace, x: Array, new: Mapping[str, Any]) -> Array:
    return xp.matmul(x, xp.matrix_transpose(x)) + xp.eye(3, **new)


FUNCTIONS: dict[str, Trial] = {
    "abs": lambda xp, x, new: xp.abs(-x),
    "all": lambda xp, x, new: xp.all(x > 0.0),
    "any": lambda xp, x, new: xp.any(x < 0.0),
    "arange": lambda xp, x, new: xp.arange(3, device=new["device"]),
    "argmax": lambda xp, x, new: xp.argmax(x, axis=-1),
    "argsort": lambda xp, x, new: xp.astype(xp.argsort(x[0, :]), x.dtype),
    "asarray": lambda xp, x, new: xp.asarray([0.5, 2.0], **new),
    "astype": lambda xp, x, new: xp.astype(x > 0.5, x.dtype),
    "concat": lambda xp, x, new: xp.concat([x, -x], axis=1),
    "cos": lambda xp, x, new: xp.cos(x),
    "empty": lambda xp, x, new: 0.0 * xp.ones_like(xp.empty((2,), **new)),
    "empty_like": lambda xp, x, new: xp.zeros_like(xp.empty_like(x)),
    "exp": lambda xp, x, new: xp.exp(x),
    "expand_dims": lambda xp, x, new: xp.expand_dims(x, axis=1),
    "expm1": lambda xp, x, new: xp.expm1(x),
    "eye": lambda xp, x, new: xp.eye(3, **new),
    "finfo": lambda xp, x, new: xp.full((), float(xp.finfo(x.dtype).eps), **new),
    "full": lambda xp, x, new: xp.full((2,), 0.5, **new),
    "full_like": lambda xp, x, new: xp.full_like(x, 0.5),
    "imag": lambda xp, x, new: xp.imag(x * 1j),
    "int32": lambda xp, x, new: xp.astype(x * 9.0, xp.int32),
    "int64": lambda xp, x, new: xp.astype(x * 9.0, xp.int64),
    "isdtype": lambda xp, x, new: xp.full((), float(xp.isdtype(x.dtype, "real floating")), **new),
    "isfinite": lambda xp, x, new: xp.isfinite(x),
    "isnan": lambda xp, x, new: xp.isnan(x),
    "linalg.cholesky": lambda xp, x, new: xp.linalg.cholesky(_definite(xp, x, new)),
    "linalg.diagonal": lambda xp, x, new: xp.linalg.diagonal(x),
    "linalg.solve": lambda xp, x, new: xp.linalg.solve(_definite(xp, x, new), x),
    "linalg.vector_norm": lambda xp, x, new: xp.linalg.vector_norm(x[0, ...]),
    "log": lambda xp, x, new: xp.log(x),
    "log1p": lambda xp, x, new: xp.log1p(x),
    "matmul": lambda xp, x, new: xp.matmul(xp.stack([x, -x]), x),
    "matrix_transpose": lambda xp, x, new: xp.matrix_transpose(xp.stack([x, -x])),
    "max": lambda xp, x, new: xp.max(x, axis=-1, keepdims=True),
    "maximum": lambda xp, x, new: xp.maximum(x, 1.0 - x),
    "mean": lambda xp, x, new: xp.mean(x),
    "ones": lambda xp, x, new: xp.ones((2, 3), **new),
    "ones_like": lambda xp, x, new: xp.ones_like(x),
    "permute_dims": lambda xp, x, new: xp.permute_dims(xp.stack([x, -x]), (1, 0, 2)),
    "real": lambda xp, x, new: xp.real(x),
    "reshape": lambda xp, x, new: xp.reshape(x, (-1, 1)),
    "sqrt": lambda xp, x, new: xp.sqrt(x),
    "stack": lambda xp, x, new: xp.stack([x, -x]),
    "sum": lambda xp, x, new: xp.sum(x, axis=(0, 1)),
    "take": lambda xp, x, new: xp.take(x, _rows(xp, x, new), axis=0),
    "tanh": lambda xp, x, new: xp.tanh(x),
    "vecdot": lambda xp, x, new: xp.vecdot(x, x + 1.0, axis=-1),
    "where": lambda xp, x, new: xp.where(x > 0.5, x, 0.0),
    "zeros": lambda xp, x, new: xp.zeros((2, 3), **new),
    "zeros_like": lambda xp, x, new: xp.zeros_like(x),
    "arithmetic": lambda xp, x, new: (1.0 - x) * 2.0 / (x + 3.0) - x**2,
    "comparison": lambda xp, x, new: ~((x > 0.4) & (x <= 0.9)) | (x == 0.0),
    "slices": lambda xp, x, new: x[1:, ..., 0] - x[:2, 1],
    "a number for the host": lambda xp, x, new: xp.full((), float(xp.sum(x)), **new),
}
"""A trial of each function by its name, and of what arrays do without one."""


def require_basics(owner: str, x: Array) -> None:
    """Refuse an array of a library without an adapter in which the simplest operations fail.

    They are tried once for each library, device and dtype.

    Parameters
    ----------
    owner : str
        Whose argument it is, as error messages show it.
    x : Array

    Raises
    ------
    TypeError
        With the operation that fails, and its error.

    Examples
    --------
    >>> require_basics("Network", np.zeros(1))
    """
    adapter = adapter_of(array_namespace(x))
    if adapter.name in ADAPTERS or dtype_name(x.dtype) not in ("float32", "float64"):
        return
    key = (adapter.name, adapter.device_name(device_of(x)), dtype_name(x.dtype))
    if key not in _FAILING:
        _FAILING[key] = {k: v for k, v in try_functions(x, 1e-4, _BASICS).items() if v}
    for name, reason in _FAILING[key].items():
        raise TypeError(
            f"{owner}: arrays of {adapter.name} cannot be computed with: {name}: {reason}. "
            "rnn_xp.backends(probe=x) prints all that fails. Give NumPy arrays, or arrays of one "
            f"of: {', '.join(ADAPTERS)}."
        )


_BASICS = ("arithmetic", "astype", "expand_dims", "reshape", "slices", "where")
_FAILING: dict[tuple[str, ...], dict[str, str]] = {}


def try_functions(
    like: Array, tolerance: float, names: Iterable[str] | None = None
) -> dict[str, str]:
    """Try every function beside NumPy, on the library, the device and in the dtype of an array.

    Parameters
    ----------
    like : Array
        An array of dtype float32 or float64.
    tolerance : float
        Largest difference that is allowed, relative to the largest entry.
    names : iterable of str, optional
        The functions to try; all by default.

    Returns
    -------
    dict of str to str
        For each name, the reason why the function cannot be used; empty if it can.

    Examples
    --------
    >>> set(try_functions(np.zeros(1), 1e-12).values())
    {''}
    """
    xp, device = array_namespace(like), device_of(like)
    adapter, kind = adapter_of(xp), np.dtype(dtype_name(like.dtype))
    host = np.linspace(0.1, 1.3, 9, dtype=kind).reshape(3, 3)
    numpy = array_namespace(host)
    reasons = {}
    for name in FUNCTIONS if names is None else names:
        trial = FUNCTIONS[name]
        try:
            x = adapter.asarray(host, kind, device, True, xp=xp)
            got = adapter.to_numpy(trial(xp, x, {"dtype": x.dtype, "device": device}))
        except Exception as error:  # a library may lack anything, and says so by any error
            reasons[name] = first_line(error)
            continue
        want = np.asarray(trial(numpy, host, {"dtype": kind, "device": "cpu"}))
        reasons[name] = _difference(got, want, tolerance)
    return reasons


def _difference(got: np.ndarray, want: np.ndarray, tolerance: float) -> str:
    if got.shape != want.shape:
        return f"has the shape {got.shape}, and NumPy's has {want.shape}"
    if got.dtype.kind != want.dtype.kind and {got.dtype.kind, want.dtype.kind} != {"i", "u"}:
        return f"is {got.dtype}, and NumPy's is {want.dtype}"
    if want.dtype.kind == "f" and got.dtype != want.dtype:
        return f"is {got.dtype}, and NumPy's is {want.dtype}"
    got, want = got.astype(float), want.astype(float)
    if not np.all(np.isfinite(got)):
        return "has values that are not finite"
    error = float(np.max(np.abs(got - want)) / max(np.max(np.abs(want)), 1e-300))
    return "" if error <= tolerance else f"differs from NumPy's by {error:.0e}"
