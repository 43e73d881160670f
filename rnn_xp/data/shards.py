"""Windows in several files, read as if they were one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Shards", "open_shards"]


class Shards:
    """Arrays whose rows follow each other and are read lazily, when indexed.

    `rnn_xp.fit` takes them as data. On NumPy each block reads and casts its own rows; on another
    library all rows, or all rows of a rank, are brought to the device at the start.

    Parameters
    ----------
    parts : sequence of array (n, ...)
        Arrays such as ``numpy.load(path, mmap_mode="r")`` returns; their shapes may differ in the
        number of rows only.
    dtype : dtype, optional
        Dtype of the rows that are read; by default one that holds the values of all parts.

    Attributes
    ----------
    shape : tuple of int
        Shape of all parts together.
    dtype : numpy.dtype
        Dtype of the rows that are read.

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
        self.dtype = np.result_type(*parts) if dtype is None else np.dtype(dtype)
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *shapes[0][1:])

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read the rows of a slice or of an index array 0..n-1; further axes may be indexed."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, slice) and rows.step in (None, 1):
            read = self.rows(*rows.indices(len(self))[:2])._parts
            values = read[0] if len(read) == 1 else np.concatenate(read)
        elif isinstance(rows, slice):
            values = self._take(np.arange(*rows.indices(len(self))))
        else:
            values = self._take(np.asarray(rows))
        return values[(slice(None), *rest)].astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all rows."""
        return np.array(self[:], dtype=dtype, copy=copy)

    def rows(self, start: int, stop: int) -> Shards:
        """Select rows start..stop-1 without reading them."""
        bounds = zip(self._parts, self._starts[:-1], strict=True)
        cut = [part[max(0, start - first) : max(0, stop - first)] for part, first in bounds]
        return Shards([part for part in cut if len(part)] or cut[:1], self.dtype)

    def of_each(self, *key: slice) -> Shards:
        """Slice the axes after the first, without reading any row."""
        return Shards([part[(slice(None), *key)] for part in self._parts], self.dtype)

    def astype(self, dtype: DTypeLike) -> Shards:
        """Return the same rows, to be read in another dtype."""
        return Shards(self._parts, dtype)

    def _take(self, index: NDArray[Any]) -> NDArray[Any]:
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise TypeError("rows of shards are read by a slice or a flat array of integers.")
        if index.size and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"rows of these shards are 0..{len(self) - 1}.")
        values = np.empty((index.size, *self.shape[1:]), self.dtype)
        which = np.searchsorted(self._starts, index, side="right") - 1
        for number in np.unique(which):
            here = which == number
            values[here] = self._parts[number][index[here] - self._starts[number]]
        return values


def open_shards(paths: Sequence[str | Path]) -> Shards:
    """Map .npy files to memory; their rows follow each other in the given order.

    Parameters
    ----------
    paths : sequence of path
        For instance ``sorted(Path("data").glob("x-*.npy"))``. Each file keeps a descriptor open.

    Returns
    -------
    Shards

    Raises
    ------
    ValueError
        If the list is empty, a file holds no array, or the shapes do not fit together.
    TypeError
        If `paths` is a single path.
    OSError
        If a file cannot be opened.

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
    if isinstance(paths, str | Path):
        raise TypeError(f"open_shards takes a list of paths, got {str(paths)!r}.")
    return Shards([_map(path) for path in paths])


def _map(path: str | Path) -> NDArray[Any]:
    try:
        values = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be mapped as an array: {error}") from error
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{path} holds several arrays; give .npy files, of one each.")
    return values
