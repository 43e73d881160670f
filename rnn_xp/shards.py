"""Windows in several files, read as if they were one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Shards", "open_shards"]


class Shards:
    """Arrays whose rows follow each other, which are read where they are looked at.

    An argument of `rnn_xp.fit` on NumPy: each block reads its own rows, and casts them. What a
    library of a device computes with is brought there as a whole, or as a rank's part of it.

    Parameters
    ----------
    parts : sequence of array (n, ...)
        Such as ``numpy.load(path, mmap_mode="r")``; of equal shape but for the rows.
    dtype : dtype, optional
        Of what is read; that of the first part by default.

    Attributes
    ----------
    shape : tuple of int
    dtype : NumPy dtype

    Raises
    ------
    ValueError
        If there is no part, or the parts do not fit together.

    Examples
    --------
    >>> shards = Shards([np.zeros((3, 2)), np.ones((4, 2))])
    >>> shards.shape, shards[2:5, 0].tolist()
    ((7, 2), [0.0, 1.0, 1.0])
    """

    def __init__(self, parts: Sequence[NDArray[Any]], dtype: DTypeLike | None = None) -> None:
        shapes = [part.shape for part in parts]
        if not parts or () in shapes or len({shape[1:] for shape in shapes}) > 1:
            raise ValueError(
                f"shards must be arrays of equal shape but for their rows, got {shapes}."
            )
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.dtype = np.dtype(parts[0].dtype if dtype is None else dtype)
        self.shape = (int(self._starts[-1]), *shapes[0][1:])

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read rows, by a slice or an array of indices 0..n-1, and of them what follows."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if not isinstance(rows, slice):
            found = self._take(np.asarray(rows))
        elif rows.step not in (None, 1):
            found = self._take(np.arange(*rows.indices(self.shape[0])))
        else:
            start, stop, _ = rows.indices(self.shape[0])
            read = self.rows(start, stop)._parts
            found = read[0] if len(read) == 1 else np.concatenate(read)
        return found[(slice(None), *rest)].astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of it."""
        return np.array(self[:], dtype=dtype, copy=copy)

    def rows(self, start: int, stop: int) -> Shards:
        """Rows start..stop-1, without reading them."""
        bounds = zip(self._parts, self._starts[:-1], strict=True)
        cut = [part[max(0, start - first) : max(0, stop - first)] for part, first in bounds]
        return Shards([part for part in cut if len(part)] or cut[:1], self.dtype)

    def astype(self, dtype: DTypeLike) -> Shards:
        """Read the same rows in another dtype."""
        return Shards(self._parts, dtype)

    def _take(self, index: NDArray[Any]) -> NDArray[Any]:
        found = np.empty((index.size, *self.shape[1:]), self.dtype)
        which = np.searchsorted(self._starts, index, side="right") - 1
        for number in np.unique(which):
            here = which == number
            found[here] = self._parts[number][index[here] - self._starts[number]]
        return found


def open_shards(paths: Sequence[str | Path]) -> Shards:
    """Map .npy files, whose rows follow each other in the order given.

    Parameters
    ----------
    paths : sequence of path
        Such as ``sorted(Path("data").glob("x-*.npy"))``.

    Returns
    -------
    Shards

    Raises
    ------
    ValueError
        If there is no file, one is none of NumPy's, or their shapes do not fit together.
    OSError

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in range(2):
    ...         np.save(f"{folder}/x-{number}.npy", np.full((5, 10, 1), number, "float32"))
    ...     shards = open_shards(sorted(Path(folder).glob("x-*.npy")))
    >>> shards.shape, shards[4:6, 0, 0].tolist()
    ((10, 10, 1), [0.0, 1.0])
    """
    return Shards([np.load(path, mmap_mode="r") for path in paths])
