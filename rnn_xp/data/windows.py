"""Cut a series into windows and their targets, and split it in time.

A series of n values gives N windows of T = ``seq_length`` steps. Window k is the values k .. k+T-1
and its target the ``horizon`` values of column 0 that follow::

    series   v0 v1 v2 v3 v4 ...          x[0] = v0 v1 v2     y[0] = v3
             -------- --                 x[1] = v1 v2 v3     y[1] = v4
             x[0]     y[0]

Everything here is a view: 8317 windows of 10 steps cost no more memory than the 8327 values.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rnn_xp._checks import Argument, ParameterError, index_of, readable

__all__ = ["as_series", "cast_windows", "make_windows", "num_windows", "time_split"]

_Floats: TypeAlias = NDArray[np.floating[Any]]


def as_series(values: ArrayLike, name: str = "series") -> _Floats:
    """Check a series and view it as columns.

    Parameters
    ----------
    values : (n,) or (n, I)
        Real numbers in time order, all finite. A float array keeps its dtype and is not copied;
        integers and lists become float64.
    name : str
        Name of the values in error messages.

    Returns
    -------
    (n, I) array
        I is 1 for a series of shape (n,).

    Raises
    ------
    TypeError
        If the values are not real numbers (complex, boolean, text, objects, masked arrays).
    ValueError
        If the rank is not 1 or 2, there are no columns, or a value is NaN or infinite.

    Examples
    --------
    >>> as_series([1, 2, 3]).tolist()
    [[1.0], [2.0], [3.0]]
    """
    array = _on_host(name, values)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}.")
    if array.ndim not in (1, 2) or array.shape[1:] == (0,):
        raise ValueError(f"{name} must have shape (n,) or (n, I), got {array.shape}.")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = ", ".join(str(i) for i in bad[0])
        raise ValueError(
            f"{name}[{index}] is {array[tuple(bad[0])]}: all values must be finite "
            f"({len(bad)} are not). Drop or fill the gaps first."
        )
    return array[:, None] if array.ndim == 1 else array


def num_windows(n: int, seq_length: int, horizon: int = 1) -> int:
    """Count the windows of a series: n - seq_length - horizon + 1.

    Parameters
    ----------
    n : int
        Number of values in the series.
    seq_length : int
        Steps per window (T), at least 1.
    horizon : int
        Target values per window, at least 1.

    Returns
    -------
    int
        N, at least 1.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If `seq_length` or `horizon` is below 1, or the series is too short for one window.

    Examples
    --------
    >>> num_windows(8327, 10)
    8317
    """
    n = _integer("n", n)
    seq_length = _integer("seq_length", seq_length, at_least=1)
    horizon = _integer("horizon", horizon, at_least=1)
    needed = seq_length + horizon
    if n < needed:
        raise ParameterError(
            f"a series of {n} values is too short for {{0}} and {{1}}: at least {needed} values "
            f"are required, {needed - n} more. Give a longer series or a smaller {{0:name}} or "
            "{1:name}.",
            Argument("seq_length", seq_length),
            Argument("horizon", horizon),
        )
    return n - needed + 1


def make_windows(series: ArrayLike, seq_length: int, horizon: int = 1) -> tuple[_Floats, _Floats]:
    """Cut a series into windows x and the values y that follow each of them.

    Parameters
    ----------
    series : (n,) or (n, I)
        Finite real numbers in time order; column 0 is the target.
    seq_length : int
        Steps per window (T), at least 1.
    horizon : int
        Target values per window, at least 1.

    Returns
    -------
    x : (N, seq_length, I) array
        ``x[k, t]`` is ``series[k + t]``: a read-only view of the series.
    y : (N, horizon) array
        ``y[k, j]`` is column 0 of ``series[k + seq_length + j]``: a read-only view of the series.

    Raises
    ------
    TypeError
        If the values are not real numbers or a length is not an integer.
    ValueError
        If a value is NaN or infinite, the rank is wrong, a length is below 1, or the series is
        too short for one window.

    See Also
    --------
    num_windows : N, and the errors for lengths.

    Examples
    --------
    >>> x, y = make_windows([1, 2, 3, 4, 5], seq_length=3)
    >>> x.shape, x[:, :, 0].tolist()
    ((2, 3, 1), [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])
    >>> y.tolist()
    [[4.0], [5.0]]
    """
    columns = as_series(series)
    count = num_windows(len(columns), seq_length, horizon)
    # The window axis comes last, (n-T+1, I, T); the library wants time before input.
    x = np.moveaxis(sliding_window_view(columns, seq_length, axis=0), -1, 1)[:count]
    y = sliding_window_view(columns[seq_length:, 0], horizon)
    return x, y


def cast_windows(windows: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Cast windows without making a copy of each: the series is cast and cut again.

    Parameters
    ----------
    windows : (N, T, ...) array
        x or y of `make_windows`, or rows of them. Other arrays are cast directly.
    dtype : dtype

    Returns
    -------
    (N, T, ...) array
        The values of ``windows.astype(dtype)``; read-only where it is a view, and `windows`
        itself if it has this dtype.

    Examples
    --------
    >>> x, _ = make_windows([1.0, 2.0, 3.0, 4.0], seq_length=2)
    >>> narrow = cast_windows(x, "float32")
    >>> narrow.dtype.name, narrow.strides, narrow[:, :, 0].tolist()
    ('float32', (4, 4, 4), [[1.0, 2.0], [2.0, 3.0]])
    """
    # In windows entry (k, t) is value k + t of the series, so a step along either axis is one
    # along the series. Only what the windows show is read, so nothing else needs to be known.
    if windows.ndim < 2 or 0 in windows.shape or windows.strides[0] != windows.strides[1]:
        return windows.astype(dtype, copy=False)
    if windows.dtype == dtype:
        return windows
    count, steps = windows.shape[:2]
    shape, strides = (count + steps - 1, *windows.shape[2:]), windows.strides[1:]
    series = as_strided(windows, shape, strides, writeable=False).astype(dtype)
    return np.moveaxis(sliding_window_view(series, steps, axis=0), -1, 1)


def time_split(values: ArrayLike, fraction: float = 0.8) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split a series in time: the first ``int(fraction * n)`` values train, the rest tests.

    Split before cutting windows, so that no window straddles the two parts.

    Parameters
    ----------
    values : (n, ...)
        Values in time order.
    fraction : float
        Fraction of the values that train, between 0 and 1 (both excluded).

    Returns
    -------
    train, test : arrays
        Views of `values`; neither is empty.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1, `values` is a scalar, or a part would be empty.
    TypeError
        If the values are a masked array.

    Examples
    --------
    >>> train, test = time_split([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> train.tolist(), test.tolist()
    ([1.0, 2.0, 3.0, 4.0], [5.0])
    """
    if not 0 < fraction < 1:
        raise ParameterError(
            "{0:name} must lie between 0 and 1 (both excluded), got {0:value}.",
            Argument("fraction", fraction),
        )
    array = _on_host("values", values)
    if array.ndim == 0:
        raise ValueError("values must have a time axis, got a scalar.")
    cut = int(fraction * len(array))
    if cut in (0, len(array)):
        raise ParameterError(
            f"{{0}} of {len(array)} values leaves {cut} for training and {len(array) - cut} for "
            "testing: both parts need at least 1.",
            Argument("fraction", fraction),
        )
    return array[:cut], array[cut:]


def _integer(name: str, value: int, at_least: int | None = None) -> int:
    """Check that `value` is an integer, not a bool, and no smaller than `at_least`."""
    number = index_of(value)
    if number is None:
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__}).")
    if at_least is not None and number < at_least:
        raise ParameterError(
            f"{{0:name}} must be at least {at_least}, got {{0:value}}.", Argument(name, number)
        )
    return number


def _on_host(name: str, values: Any) -> NDArray[Any]:
    """Return values as a NumPy array; libraries refuse this by errors of their own."""
    values = readable(name, values)
    try:
        return np.asarray(values)
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        raise TypeError(
            f"{name}: numpy.asarray does not take a {type(values).__qualname__} ({error}). Give "
            "its values as a NumPy array or a list."
        ) from None
