"""Pieces of a pass of NumPy's layers: steps that are computed with equally many columns."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from rnn_xp.kernels.numpy.norm import Floats

__all__ = ["ByStep", "Piece", "cut"]

_COLUMNS = 16  # of which a piece has a multiple, so that its arrays begin where cache lines do
_MOVE = 16  # going on to another piece costs as much as 1/16 of a step


class Piece(NamedTuple):
    """Some steps in a row, which have equally many columns."""

    steps: slice
    columns: int


class ByStep:
    """An array (*shape, n) for each step; those of each piece are one array (steps, *shape, n).

    With ``lengths``, the numbers of steps, all steps of a piece have its first array. ``each`` are
    the arrays of the steps, which are laid out when somebody asks for them.
    """

    each: list[Floats]

    def __init__(self, pieces: list[Floats], lengths: list[int] | None = None) -> None:
        self.pieces, self.lengths = pieces, lengths

    def __getattr__(self, name: str) -> list[Floats]:
        if name != "each":
            raise AttributeError(name)
        if self.lengths is None:
            # By number, which takes half of the time that an array takes to hand out its parts.
            self.each = [array[s] for array in self.pieces for s in range(len(array))]
        else:
            pairs = zip(self.pieces, self.lengths, strict=True)
            self.each = [array[0] for array, length in pairs for _ in range(length)]
        return self.each

    def view(self, dtype: Any) -> ByStep:
        """Return the same memory as numbers of another kind."""
        return ByStep([array.view(dtype) for array in self.pieces], self.lengths)


def cut(counts: list[int], rows: int) -> list[Piece]:
    """Cut steps where idle columns would cost more than going on to fewer.

    Parameters
    ----------
    counts : list of T int
        Number of leading rows that compute each step; they fall, or in reverse order rise.
    rows : int
        Number of all rows.
    """
    rising = counts[0] < counts[-1]
    columns: list[int] = []
    idle = 0
    for n in reversed(counts) if rising else counts:
        fewest = min(rows, -(-n // _COLUMNS) * _COLUMNS)
        idle += columns[-1] - fewest if columns else 0
        if not columns or not n or _MOVE * idle > columns[-1]:
            idle = 0
            columns.append(fewest)
        else:
            columns.append(columns[-1])
    pieces, start = [], 0
    for width, run in itertools.groupby(reversed(columns) if rising else columns):
        stop = start + len(list(run))
        pieces.append(Piece(slice(start, stop), width))
        start = stop
    return pieces
