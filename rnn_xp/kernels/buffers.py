"""Named buffers that are reused; every workspace is built on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from rnn_xp._typing import Array, Params, Stack

__all__ = ["Buffers"]


class Buffers:
    """Arrays by name. Each grows to the largest size requested and is never released.

    Parameters
    ----------
    empty : callable
        ``empty(size)`` makes a new vector; its library and dtype are those of every buffer.

    Examples
    --------
    >>> import numpy as np
    >>> buffers = Buffers(np.empty)
    >>> buffers.take("h", 3, 2).shape
    (3, 2)
    """

    knows: ClassVar[frozenset[str]] = frozenset()
    """What the kernels of a workspace compute: fields of `Course`, and "norm" for normalisation."""

    def __init__(self, empty: Callable[[int], Array]) -> None:
        self._empty = empty
        self._buffers: dict[str, Array] = {}
        self._others: dict[int, Self] = {}

    def apart(self, number: int) -> Self:
        """Return a workspace of the same kind with other buffers, which are kept as well."""
        if number not in self._others:
            other = copy.copy(self)
            other._buffers, other._others = {}, {}
            self._others[number] = other
        return self._others[number]

    def prepare(self, *layers: Any) -> Any:
        """Prepare layers for many calls, see `rnn_xp.kernels.numba`; None if it brings nothing."""
        return None

    def take(self, name: str, *shape: int) -> Array:
        """Return the named buffer in the given shape; its contents are undefined."""
        size = 1
        for length in shape:
            size *= length
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = self._empty(size)
        return buffer[:size].reshape(shape)

    def knows_for(self, name: str | None, hidden_size: int) -> frozenset[str]:
        """Return what the kernel of a layer with so many hidden units computes."""
        return self.knows

    def stack(self, name: str | None, params: Sequence[Params]) -> Stack | None:
        """Return the kernels for a whole stack of layers; None if layers go one by one."""
        return None
