"""What differs between the updates of a graph: tables on the device, of which each reads a row.

::

    rows     the minibatch, sorted by length            numbers   of the optimiser's rule
    offsets  where the rows of each step begin          values    losses, which are written
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from rnn_xp._typing import Array
from rnn_xp.backend import to_numpy
from rnn_xp.engines.cuda_graph.supported import rows_of
from rnn_xp.engines.portable import PortableEngine

__all__ = ["Planned", "Row", "Tables"]

_NUMBERS = 64  # of an optimiser's rule, at first


class Planned(NamedTuple):
    """An update before it is launched, on the host.

    Attributes
    ----------
    step : int
        Its number in the training.
    rows : ndarray (B,) of int or None
        Rows of the data, the longest first; None for all as they are.
    order : ndarray (B,) of int or None
        How they were sorted.
    offsets : list of T + 1 int or None
        Where the rows of each step begin.
    """

    step: int
    rows: Any
    order: Any
    offsets: list[int] | None


class Row(NamedTuple):
    """The places to which a row of the tables is copied; None for what there is not.

    Attributes
    ----------
    rows : Array (B,) of int32 or None
    offsets : Array (T + 1,) of int32 or None
    numbers : Array (K,)
    """

    rows: Array | None
    offsets: Array | None
    numbers: Array


class Tables:
    """Tables of so many updates of a training.

    Attributes
    ----------
    at : Array (1,) of int32
        Number of the next update.
    values, totals : Array (updates,)
        Losses and their total weights.
    """

    def __init__(self, portable: PortableEngine, updates: int) -> None:
        import cupy

        data = portable.data
        self._lengths = None if data.lengths is None else to_numpy(data.lengths)
        self._steps = data.x.shape[1]
        self._gathers = portable.batches is not None or data.lengths is not None
        self._sorted: Planned | None = None
        ints, floats = (functools.partial(cupy.zeros, dtype=t) for t in ("int32", "float32"))
        self.at, self.values, self.totals = ints(1), floats(updates), floats(updates)
        self._rows = ints((updates, rows_of(portable))) if self._gathers else None
        self._offsets = None if self._lengths is None else ints((updates, self._steps + 1))
        self._numbers = floats((updates, _NUMBERS))

    def plan(self, step: int, rows: Any) -> Planned:
        """Return an update of some rows, or of all if None."""
        if self._lengths is None:
            return Planned(step, rows, None, None)
        if rows is None and self._sorted is not None:  # they are the same in every update
            return self._sorted._replace(step=step)
        lengths = self._lengths if rows is None else self._lengths[rows]
        order = (-lengths.astype("int64")).argsort(kind="stable")
        rising = lengths[order[::-1]]
        ended = rising.searchsorted(range(self._steps), side="right")
        offsets = [0, *(len(rising) - ended).cumsum().tolist()]
        planned = Planned(step, order if rows is None else rows[order], order, offsets)
        if rows is None:
            self._sorted = planned
        return planned

    def row(self, rows: int) -> Row:
        """Return new places for an update of so many rows."""
        import cupy

        return Row(
            None if self._rows is None else cupy.zeros(rows, dtype="int32"),
            None if self._offsets is None else cupy.zeros(self._steps + 1, dtype="int32"),
            cupy.zeros(self._numbers.shape[1], dtype="float32"),
        )

    def widen(self, numbers: int) -> bool:
        """Make room for so many numbers; return True if that took another table."""
        import cupy

        updates, width = self._numbers.shape
        if numbers <= width:
            return False
        self._numbers = cupy.zeros((updates, numbers), dtype="float32")
        return True

    def fill(self, planned: Sequence[Planned], numbers: Sequence[list[float]]) -> None:
        """Write the tables; the first of these updates is the next one."""
        import cupy

        self.at[...] = 0
        count, width = len(planned), self._numbers.shape[1]
        wide = [[*of_update, *[0.0] * (width - len(of_update))] for of_update in numbers]
        self._numbers[:count] = cupy.asarray(wide, dtype=cupy.float32)
        if self._rows is not None:
            width = self._rows.shape[1]
            rows = [  # a short last minibatch is filled up
                plan.rows if len(plan.rows) == width else plan.rows.take(range(width), mode="clip")
                for plan in planned
            ]
            self._rows[:count] = cupy.asarray(rows, dtype=cupy.int32)
        if self._offsets is not None:
            offsets = [plan.offsets for plan in planned]
            self._offsets[:count] = cupy.asarray(offsets, dtype=cupy.int32)

    def read(self, row: Row) -> None:
        """Copy the row of the next update to its places, in one launch."""
        from rnn_xp.kernels.cuda import update

        tables = (self._rows, self._offsets, self._numbers)
        pairs = [
            (table, place) for table, place in zip(tables, row, strict=True) if place is not None
        ]
        update.copy(pairs, self.at)

    def record(self, value: Array, total: Array) -> None:
        """Write the loss of the update and its total weight, and go on to the next."""
        import cupy

        from rnn_xp.kernels.cuda import update

        value = cupy.asarray(value, dtype=cupy.float32)  # a loss of one's own may give a number
        update.record(value, total, self.values, self.totals, self.at)
