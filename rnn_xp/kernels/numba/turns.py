"""Parts of the compiled layers that follow a course: which rows of a tile compute a step, and how.

Each does nothing where the course has no such field, see `rnn_xp.kernels.course`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numba.lanes import columns, lanewise
from rnn_xp.kernels.numba.product import compiled

__all__ = [
    "Turns",
    "add_lanes",
    "arrive",
    "begin_back",
    "clear",
    "copy_lanes",
    "copy_rows",
    "end_back",
    "keep_state",
    "make_turns",
    "rejoin",
    "scale",
    "scale_beside",
    "stand_aside",
]


class Turns(NamedTuple):
    """A `rnn_xp.kernels.course.Course` for compiled code, in the order of the steps.

    Attributes
    ----------
    counts : ndarray (T,) of int
    idle, reset : ndarray (T, N) of bool, or (0, 0) if there is none
    keep : ndarray (N, H), or (0, 0) if there is none
    begun : bool
        If True, the state before the first step is given; otherwise it is zero.
    brief : bool
        If True, of rows that do not compute a step only the final states are read.
    """

    counts: NDArray[np.int64]
    idle: NDArray[np.bool_]
    reset: NDArray[np.bool_]
    keep: NDArray[np.floating[Any]]
    begun: bool
    brief: bool


def make_turns(course: Course, steps: int, rows: int) -> Turns:
    """Convert a course for compiled code.

    Arrays are copied: what is read-only would be compiled for again.
    """

    def flags(by_time: Any) -> NDArray[np.bool_]:
        if by_time is None:
            return np.zeros((0, 0), np.bool_)
        return np.array(course.in_order(by_time), np.bool_, order="C")

    counts = (rows,) * steps if course.counts is None else course.in_order(course.counts)
    keep = np.zeros((0, 0), np.float32) if course.keep is None else course.keep
    return Turns(
        np.asarray(counts, np.int64), flags(course.idle), flags(course.reset),
        np.array(keep, np.float32, order="C"), course.initial is not None, course.brief,
    )  # fmt: skip


@compiled
def arrive(entering, states, hs, turns, s, start, stop):
    """Make h in `entering` the state before the step; return how many rows of a tile compute it."""
    tile, size = stop - start, hs.shape[2]
    active = max(min(stop, turns.counts[s]) - start, 0)
    if turns.reset.shape[0]:
        before = states[s, start:stop]
        copy_lanes(tile, size, columns(hs[s, start:stop], 0) + columns(before, 0))
        clear(before, turns.reset, s, start)
    if turns.keep.shape[0]:
        places = columns(states[s, start:stop], 0) + columns(turns.keep[start:stop], 0)
        entered = columns(entering[s, start:stop], entering.shape[2] - size)
        _multiply(active, size, places + entered)
    return active


@compiled
def clear(rows, reset, s, start):
    """Set those rows of a tile to zero that begin anew at the step."""
    if reset.shape[0]:
        for row in range(rows.shape[0]):
            if reset[s, start + row]:
                rows[row] = 0.0


@compiled
def keep_state(states, hs, turns, s, start, stop, active, brief):
    """Carry the states of those rows of a tile over the step that do not compute it.

    If it is enough to be brief, the rows are copied only where they begin and where they end.
    """
    end = start + active
    if turns.idle.shape[0]:
        for row in range(start, end):
            if turns.idle[s, row]:
                copy_rows(states, s, hs, s + 1, row, row + 1)
    if not brief or turns.reset.shape[0]:
        copy_rows(states, s, hs, s + 1, end, stop)
        return
    last = hs.shape[0] - 1
    if s == 0:
        copy_rows(hs, 0, hs, last, end, stop)
    if s + 1 < last:
        following = min(max(turns.counts[s + 1], start), stop)
        copy_rows(hs, s + 1, hs, last, following, end)
        copy_rows(hs, 0, hs, s + 1, end, following)


@compiled
def copy_rows(a, at, b, to, first, stop):
    """Copy rows of step ``at`` to those of step ``to`` of another array."""
    if first < stop:
        places = columns(a[at, first:stop], 0) + columns(b[to, first:stop], 0)
        copy_lanes(stop - first, b.shape[2], places)


@compiled
def _row(rows, row):
    return columns(rows[row : row + 1], 0)


@compiled
def begin_back(dh, dfinal, field, start):
    """Set the gradient of a tile's states after the last step; return whether one is given."""
    given = len(dfinal) > 0
    if given:
        tile = dh.shape[0]
        places = columns(dfinal[field, start : start + tile], 0) + columns(dh, 0)
        copy_lanes(tile, dfinal.shape[2], places)
    return given


@compiled
def end_back(dh, dinitial, field, start):
    """Give the gradient of a tile's initial states to the caller, who may not need it."""
    if len(dinitial):
        tile = dh.shape[0]
        places = columns(dh, 0) + columns(dinitial[field, start : start + tile], 0)
        copy_lanes(tile, dinitial.shape[2], places)


@compiled
def stand_aside(dh, aside, turns, s, start):
    """Take the gradients of the rows that skip the step out of its way."""
    if turns.idle.shape[0]:
        size = aside.shape[1]
        for row in range(dh.shape[0]):
            if turns.idle[s, start + row]:
                copy_lanes(1, size, _row(dh, row) + _row(aside, row))
                dh[row, :size] = 0.0


@compiled
def rejoin(dh, aside, turns, s, start):
    """Put the gradients back that passed by the step."""
    if turns.idle.shape[0]:
        size = aside.shape[1]
        for row in range(dh.shape[0]):
            if turns.idle[s, start + row]:
                copy_lanes(1, size, _row(aside, row) + _row(dh, row))


@compiled
def scale(dh, turns, start):
    """Apply the factors of the state that entered the product to its gradient."""
    if turns.keep.shape[0]:
        tile, size = dh.shape[0], turns.keep.shape[1]
        factors = columns(turns.keep[start : start + tile], 0)
        _multiply(tile, size, columns(dh, 0) + factors + columns(dh, 0))


@compiled
def scale_beside(dh, beside, turns, start):
    """The same, and add what went past the product."""
    tile, size = beside.shape
    places = columns(dh, 0) + columns(beside, 0)
    if turns.keep.shape[0]:
        factors = columns(turns.keep[start : start + tile], 0)
        _multiply_add(tile, size, places + factors + columns(dh, 0))
    else:
        add_lanes(tile, size, places + columns(dh, 0))


@lanewise
def copy_lanes(a):
    """Copy rows."""
    return a


@lanewise
def add_lanes(a, b):
    """Add rows."""
    return a + b


@lanewise
def _multiply(a, b):
    return a * b


@lanewise
def _multiply_add(a, b, factor):
    return a * factor + b
