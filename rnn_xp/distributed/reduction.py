"""The sum over all ranks in each update, of gradients, loss and a request to stop.

``exact``: each rank sends the sums of its aligned subtrees (at most two of each height, usually one
in total) to a partner that holds the neighbouring subtrees. Both join the sums, and continue with
partners twice as far away. After log2(size) exchanges all ranks hold the sum over the whole tree,
with the bits of a single rank. The messages do not grow with the data.

``fast``: each rank adds up its own blocks, and the MPI library adds the ranks in its own order.
The bits repeat for the same number of ranks, and differ between numbers of ranks.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from rnn_xp._typing import Array
from rnn_xp.distributed.comm import Comm, CommError
from rnn_xp.distributed.tree import Shares, Subtree, aligned, fold, join, share

__all__ = ["Empty", "Ranks"]

Empty: TypeAlias = Callable[[int], Array]
_Row = Array
_HEAD = 2  # entries of a message before its rows: whether to stop, and the number of the sum
_ROUND = 128  # numbers of sums repeat: that of all ranks together is exact in any float
_REASON = 256  # bytes


class _Part(NamedTuple):
    """The part of a sum that a rank and its previous partners know."""

    leaves: range
    sums: list[Subtree[_Row]]
    stop: float


class Ranks:
    """The ranks of a training, seen from one of them.

    A NaN needs no flag: it survives any sum, so every rank receives it and reacts as a single rank
    would.

    Parameters
    ----------
    comm : Comm
    reduction : {"exact", "fast"}
        How sums are made, see `rnn_xp.distributed.reduction`.

    Attributes
    ----------
    stopped : str
        The reason why all ranks stop after this epoch, the same on all ranks; empty if they do not.
    """

    def __init__(self, comm: Comm, reduction: str = "exact") -> None:
        if reduction not in ("exact", "fast"):
            raise ValueError(f"reduction must be 'exact' or 'fast', got {reduction!r}.")
        self.comm, self.reduction = comm, reduction
        self.stopped = ""
        self._wish = ""
        self._number = 0

    def shares(self, leaves: int) -> Shares:
        """Return a function that assigns the leaves evenly to the ranks."""
        return functools.partial(share, leaves, self.comm.size)

    @staticmethod
    def on_host(dtype: str) -> Empty:
        """Return a function that makes buffers in host memory."""
        return functools.partial(np.empty, dtype=dtype)

    def ask_to_stop(self, reason: str) -> None:
        """Ask all ranks to stop after the next epoch, whose sums carry the request."""
        self._wish = self._wish or reason

    def total(
        self, shares: Shares, sums: Sequence[Subtree[_Row]], width: int, empty: Empty
    ) -> _Row:
        """Return the sum over the leaves of all ranks.

        Parameters
        ----------
        shares : callable
            ``shares(rank)`` gives the leaves of each rank, the same on all ranks. There is at least
            one leaf.
        sums : sequence of Subtree
            The sums over this rank's leaves, as `join` returns them; each sum is a row of ``width``
            numbers.
        width : int
            Number of entries of a row.
        empty : callable
            ``empty(n)`` makes a buffer of n numbers with the dtype and in the memory of the rows:
            on the host, or on a device if `Comm.device_buffers` is true.

        Returns
        -------
        array (width,)
            The sum, the same on all ranks.

        Raises
        ------
        ValueError
            If the sums are not over this rank's leaves.
        CommError
            If the ranks are not at the same sum.
        """
        leaves = shares(self.comm.rank)
        if [(part.start, part.height) for part in sums] != aligned(leaves):
            raise ValueError(
                f"rank {self.comm.rank} has to sum over the leaves {leaves}, and no other."
            )
        self._number = (self._number + 1) % _ROUND
        mine = _Part(leaves, list(sums), float(bool(self._wish)))
        make = self._exact if self.reduction == "exact" else self._fast
        row, stop = make(shares, mine, width, empty)
        if stop and not self.stopped:
            self.stopped = self._reason()
        return row

    def _fast(self, shares: Shares, mine: _Part, width: int, empty: Empty) -> tuple[_Row, float]:
        row = empty(_HEAD + width)
        row[0], row[1] = mine.stop, self._number
        row[_HEAD:] = fold(mine.sums, operator.add) if mine.sums else 0.0
        row = self.comm.total(row)
        self._check_number(float(row[1]), self._number * self.comm.size)
        return row[_HEAD:], float(row[0])

    def _exact(self, shares: Shares, mine: _Part, width: int, empty: Empty) -> tuple[_Row, float]:
        size, rank = self.comm.size, self.comm.rank
        power = 1 << (size.bit_length() - 1)
        # Of 2 * extra first ranks each odd one hands all to its left neighbour, and is told the
        # result; then there are `power` ranks left, or places, and every exchange is of two.
        extra = size - power
        if rank < 2 * extra:
            if rank % 2:
                self.comm.exchange(rank - 1, self._message(mine, width, empty), None)
                message = empty(_HEAD + width)
                self.comm.exchange(rank - 1, None, message)
                self._check_number(float(message[1]), self._number)
                return message[_HEAD:], float(message[0])
            theirs = self._receive(rank + 1, None, shares(rank + 1), width, empty)
            mine = _joined(mine, theirs)
        place = rank // 2 if rank < 2 * extra else rank - extra

        def rank_at(place: int) -> int:
            return 2 * place if place < extra else place + extra

        def begin(place: int) -> int:
            return shares(rank_at(place)).start if place < power else shares(size - 1).stop

        reach = 1
        while reach < power:
            other = place ^ reach
            first = other - other % reach
            theirs = self._receive(
                rank_at(other), mine, range(begin(first), begin(first + reach)), width, empty
            )
            mine = _joined(mine, theirs)
            reach *= 2
        total = fold(mine.sums, operator.add)
        if rank < 2 * extra:
            all_of_it = _Part(mine.leaves, [Subtree(0, 0, total)], mine.stop)
            self.comm.exchange(rank + 1, self._message(all_of_it, width, empty), None)
        return total, mine.stop

    def _message(self, part: _Part, width: int, empty: Empty) -> _Row:
        message = empty(_HEAD + len(part.sums) * width)
        message[0], message[1] = part.stop, self._number
        for row, subtree in zip(message[_HEAD:].reshape(-1, width), part.sums, strict=True):
            row[...] = subtree.total
        return message

    def _receive(
        self, partner: int, mine: _Part | None, leaves: range, width: int, empty: Empty
    ) -> _Part:
        """Exchange parts with a partner that holds these leaves, or only receive."""
        places = aligned(leaves)
        message = empty(_HEAD + len(places) * width)
        send = None if mine is None else self._message(mine, width, empty)
        self.comm.exchange(partner, send, message)
        self._check_number(float(message[1]), self._number)
        rows = message[_HEAD:].reshape(-1, width)
        sums = [Subtree(*place, row) for place, row in zip(places, rows, strict=True)]
        return _Part(leaves, sums, float(message[0]))

    def _check_number(self, number: float, expected: int) -> None:
        if number != expected:
            raise CommError(
                f"rank {self.comm.rank} is at another sum than its partner ({expected} and "
                f"{number:g}): the ranks do not do the same. Give all of them the same data, "
                "settings and callbacks."
            )

    def _reason(self) -> str:
        """Return the reason of the first rank that has one; all ranks call this together."""
        text = np.zeros(_REASON, np.uint8)
        mine = self._wish.encode()[:_REASON]
        text[: len(mine)] = np.frombuffer(mine, np.uint8)
        said = [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in self.comm.gather(text)]
        return next(filter(None, said))


def _joined(a: _Part, b: _Part) -> _Part:
    left, right = sorted((a, b), key=lambda part: (part.leaves.start, part.leaves.stop))
    leaves = range(left.leaves.start, right.leaves.stop)
    return _Part(leaves, join([*left.sums, *right.sums], operator.add), max(a.stop, b.stop))
