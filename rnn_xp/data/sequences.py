"""Collections of sequences of unequal length, as people hold them, and as one padded array.

A sequence is an array (T_i, F): T_i steps in order of time, F features at each step; (T_i,) stands
for F = 1. These collections are read:

- a list or tuple of sequences, and a NumPy array of dtype object that holds sequences;
- a pandas frame whose cells hold one series each, a row for each sequence and a column for each
  feature (sktime's "nested_univ");
- a pandas frame with an index of two levels, sequence and time (sktime's "pd-multiindex");
- an array (n, T, F) whose rows end with NaN (tslearn), or with a number of steps for each row.

In arrays of aeon and sktime the features come before the steps, (n, F, T) and (F, T_i). Sequences
of unequal length show which axis is which, see `features_first`, and in frames there is no doubt.
Neither library is imported, nor is pandas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_list", "check_lengths", "features_first", "pad", "padding"]


def as_list(values: Any, rows: int | None = None) -> list[Any] | None:
    """Return the sequences of a collection; None if the values are a plain array or table.

    Parameters
    ----------
    values : object
        Lists of sequences of equal length are plain arrays.
    rows : int, optional
        Number of sequences, if it is known. A frame with an index of two levels is a plain table
        unless it holds as many sequences.

    Returns
    -------
    list of array, or None

    Raises
    ------
    ValueError
        If the cells of a row of a frame hold series of unequal length.

    Examples
    --------
    >>> [len(row) for row in as_list([[1.0, 2.0, 3.0], [4.0]])]
    [3, 1]
    >>> as_list([[1.0, 2.0], [3.0, 4.0]]) is None
    True
    """
    if _is_frame(values):
        if values.index.nlevels == 2 and rows in (None, len(values.index.unique(0))):
            return [part.to_numpy() for _, part in values.groupby(level=0, sort=False)]
        nested = values.size and _is_sequence(values.iloc[0, 0])
        return [_joined(i, row) for i, row in enumerate(values.to_numpy())] if nested else None
    if isinstance(values, np.ndarray):
        nested = values.dtype == object and values.ndim == 1 and values.size
        return list(values) if nested and _is_sequence(values[0]) else None
    if not isinstance(values, list | tuple) or not values or not _is_sequence(values[0]):
        return None
    if len({_shape(row) for row in values}) == 1:
        return None
    return list(values)


def features_first(sequences: list[Any]) -> bool | None:
    """Return True if sequences can only be (F, T_i), False if only (T_i, F), else None.

    The number of features is the same for all sequences, and the number of steps is not.

    Examples
    --------
    >>> features_first([np.ones((2, 5)), np.ones((2, 7))])
    True
    >>> features_first([np.ones((5, 2)), np.ones((7, 2))])
    False
    """
    shapes = {_shape(row) for row in sequences}
    if not all(shape is not None and len(shape) == 2 for shape in shapes):
        return None
    firsts, seconds = (len({shape[axis] for shape in shapes if shape}) for axis in (0, 1))
    return (firsts == 1) if (firsts == 1) != (seconds == 1) else None


def _in_order(i: int, sequence: Any, *, channels_first: bool) -> NDArray[Any]:
    """Return sequence i of a collection as (T_i, F)."""
    try:
        array: NDArray[Any] = np.asarray(sequence)
    except ValueError:
        raise ValueError(f"X[{i}] is not an array: its parts are of unequal length.") from None
    if array.ndim not in (1, 2):
        raise ValueError(
            f"X[{i}] has shape {array.shape}; a sequence has the shape (T,) or (T, F): "
            "steps, and features at each step."
        )
    if array.ndim == 1:
        return array[:, None]
    return array.T if channels_first else array


def _check_features(sequences: list[NDArray[Any]]) -> None:
    """Check that sequences (T_i, F) have steps, and the same features F."""
    first = sequences[0].shape
    for i, sequence in enumerate(sequences):
        if not sequence.shape[0]:
            raise ValueError(f"X[{i}] has no step. Leave the empty sequence out, and its y.")
        if sequence.shape[1] != first[1]:
            raise ValueError(
                "all sequences must have the same number of features at each step, but X[0] has "
                f"{first[1]} and X[{i}] has {sequence.shape[1]}. Give the same features of each."
            )


def pad(sequences: list[Any], *, channels_first: bool = False) -> tuple[NDArray[Any], NDArray[Any]]:
    """Join sequences in one array, with zeros after the end of each.

    Parameters
    ----------
    sequences : list of array (T_i, F) or (T_i,)
    channels_first : bool
        If True, the arrays are (F, T_i).

    Returns
    -------
    x : array (n, T, F)
        float32 if all sequences are, otherwise float64; T is the largest T_i.
    lengths : array (n,)
        The T_i.

    Raises
    ------
    ValueError, TypeError
        If a sequence has no steps, other features, or values that are not numbers or not finite.

    Examples
    --------
    >>> x, lengths = pad([[1.0, 2.0, 3.0], [4.0]])
    >>> x[:, :, 0].tolist(), lengths.tolist()
    ([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]], [3, 1])
    """
    rows = [_in_order(i, row, channels_first=channels_first) for i, row in enumerate(sequences)]
    _check_features(rows)
    for i, row in enumerate(rows):
        if row.dtype.kind not in "buif" and not _numeric(row):
            raise TypeError(f"X[{i}] must hold real numbers, got the dtype {row.dtype}.")
    lengths = np.array([len(row) for row in rows])
    single = all(row.dtype == np.float32 for row in rows)
    x = np.zeros((len(rows), lengths.max(), rows[0].shape[1]), np.float32 if single else np.float64)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
        if not np.isfinite(x[i]).all():
            step = int(np.argwhere(~np.isfinite(x[i]))[0, 0])
            value = "NaN" if np.isnan(x[i, step]).any() else "infinity"
            raise ValueError(
                f"X[{i}] contains {value} at step {step}. Fill it first; a sequence of a list ends "
                "where its array ends, and needs no padding."
            )
    return x, lengths


def padding(missing: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the number of steps of each row before the NaN that it ends with.

    Parameters
    ----------
    missing : array (n, T, F) of bool
        True where x is NaN.

    Returns
    -------
    array (n,) of int

    Raises
    ------
    ValueError
        If a row is all NaN, or has NaN before its end.

    Examples
    --------
    >>> padding(np.isnan(np.array([[[1.0], [2.0]], [[1.0], [np.nan]]]))).tolist()
    [2, 1]
    """
    steps = missing.shape[1]
    ended = missing.all(axis=2)
    lengths: NDArray[Any] = steps - np.where(ended, 1, 0)[:, ::-1].cumprod(axis=1).sum(axis=1)
    if not lengths.all():
        row = int(np.flatnonzero(lengths == 0)[0])
        raise ValueError(f"X[{row}] has no step: it is all NaN. Leave the row out, and its y.")
    inside = missing.any(axis=2) & (np.arange(steps) < lengths[:, None])
    if inside.any():
        row, step = (int(i) for i in np.argwhere(inside)[0])
        raise ValueError(
            f"X[{row}] contains NaN at step {step}, inside its sequence of {lengths[row]} steps. "
            "NaN may stand for all features of the steps after a sequence's end, and nowhere else; "
            "fill the gap first."
        )
    return lengths


def check_lengths(lengths: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Check the numbers of steps of the rows of an array (n, T) or (n, T, F).

    Raises
    ------
    ValueError, TypeError
        If they are not n integers from 1 to T.
    """
    array = np.asarray(lengths)
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, numbers of steps, got the dtype {array.dtype}.")
    if array.shape != shape[:1]:
        raise ValueError(
            f"lengths must have the shape ({shape[0]},), one for each row of X, got {array.shape}."
        )
    bad = np.flatnonzero((array < 1) | (array > shape[1]))
    if bad.size:
        row = int(bad[0])
        raise ValueError(
            f"lengths[{row}] is {array[row]}, but the rows of X have {shape[1]} steps: a length is "
            f"1..{shape[1]}."
        )
    return array


def _is_frame(values: Any) -> bool:
    kind = type(values)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"


def _is_sequence(cell: Any) -> bool:
    """Return True for an array or list, which a number and a text are not."""
    if isinstance(cell, str | bytes):
        return False
    return len(cell.shape) > 0 if hasattr(cell, "shape") else hasattr(cell, "__len__")


def _shape(row: Any) -> tuple[int, ...] | None:
    """Return the shape of an array or nested lists; None if parts are of unequal length."""
    if hasattr(row, "shape"):
        return tuple(row.shape)
    try:
        return tuple(np.shape(row))
    except ValueError:
        return None


def _joined(i: int, cells: Any) -> NDArray[Any]:
    """Return row i of a frame of series as a sequence (T, F)."""
    columns = [np.asarray(cell) for cell in cells]
    sizes = [np.shape(column) for column in columns]
    if len(set(sizes)) > 1 or len(sizes[0]) != 1:
        raise ValueError(
            f"the features of a sequence must be series of equal length, but row {i} of X has "
            f"series of the shapes {', '.join(map(str, sizes))}."
        )
    return np.stack(columns, axis=1)


def _numeric(row: Any) -> bool:
    """Return True if an array of objects holds real numbers."""
    return row.dtype == object and all(
        isinstance(value, int | float | np.number) and not isinstance(value, str)
        for value in row.ravel()
    )
