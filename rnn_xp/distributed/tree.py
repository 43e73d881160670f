"""The fixed binary tree in which sums over blocks are added, on any number of ranks.

The tree over n leaves splits at the largest power of two below n. An aligned run of leaves,
``k * 2**h .. (k + 1) * 2**h - 1``, is a subtree of height h of every tree that contains them,
however many leaves follow. Its sum can therefore be computed anywhere, with the same bits. An
example with seven leaves, of which one rank holds 0..2 and another 3..6::

    (((0 1) (2 3)) ((4 5) 6))        the tree
      (0 1)  2                       the sums of the first rank
                3   (4 5) 6          the sums of the second rank

A rank joins two sums only if they are the halves of a subtree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

__all__ = ["Shares", "Subtree", "aligned", "fold", "join", "share", "tree_sum"]

_T = TypeVar("_T")

Shares: TypeAlias = Callable[[int], range]
"""``shares(rank)`` is the run of leaves of a rank; the runs follow each other."""


class Subtree(NamedTuple, Generic[_T]):
    """The sum over the leaves ``start .. start + 2**height - 1``, where start is aligned."""

    start: int
    height: int
    total: _T


def join(parts: Iterable[Subtree[_T]], add: Callable[[_T, _T], _T]) -> list[Subtree[_T]]:
    """Join neighbouring subtrees wherever both halves of the next higher subtree are present.

    Parameters
    ----------
    parts : iterable of Subtree
        Subtrees in order, without a gap.
    add : callable
        ``add(left, right)`` returns the sum of two totals.

    Returns
    -------
    list of Subtree
        The subtrees that `aligned` lists for all leaves of the parts, at most two of each height.

    Examples
    --------
    >>> parts = [Subtree(start, 0, str(start)) for start in range(3, 9)]
    >>> for part in join(parts, lambda a, b: f"({a}{b})"):
    ...     print(part.start, part.height, part.total)
    3 0 3
    4 2 ((45)(67))
    8 0 8
    """
    joined: list[Subtree[_T]] = []
    for part in parts:
        start, height, total = part
        # The left half of a subtree begins at an even multiple of its size.
        while joined and joined[-1].height == height and not (joined[-1].start >> height) % 2:
            left = joined.pop()
            start, height, total = left.start, height + 1, add(left.total, total)
        joined.append(Subtree(start, height, total))
    return joined


def fold(parts: Sequence[Subtree[_T]], add: Callable[[_T, _T], _T]) -> _T:
    """Add up the subtrees that `join` returns for all leaves from 0 on, starting from the last.

    Examples
    --------
    >>> parts = join([Subtree(k, 0, str(k)) for k in range(7)], lambda a, b: f"({a}{b})")
    >>> fold(parts, lambda a, b: f"({a}{b})")
    '(((01)(23))((45)6))'
    """
    if not parts:
        raise ValueError("tree_sum needs at least one leaf.")
    *others, last = parts
    total = last.total
    for part in reversed(others):
        total = add(part.total, total)
    return total


def tree_sum(leaves: Iterable[_T], add: Callable[[_T, _T], _T]) -> _T:
    """Return the sum in the order of the fixed binary tree, with log2(n) partial sums in memory.

    The tree over n leaves splits at the largest power of two below n, so the subtree over an
    aligned run of leaves does not depend on the number of later leaves.

    Parameters
    ----------
    leaves : iterable
        At least one leaf, in order.
    add : callable
        ``add(left, right)`` returns the sum of two.

    Returns
    -------
    object
        The sum.

    Examples
    --------
    >>> tree_sum("abcdefg", lambda a, b: f"({a}{b})")
    '(((ab)(cd))((ef)g))'
    """
    return fold(join((Subtree(k, 0, leaf) for k, leaf in enumerate(leaves)), add), add)


def share(leaves: int, size: int, rank: int) -> range:
    """Return the leaves of a rank, a run whose length differs by at most one between ranks.

    Parameters
    ----------
    leaves : int
        Number of leaves.
    size : int
        Number of ranks. If there are more ranks than leaves, some have none.
    rank : int
        Number of the rank, 0..size-1.

    Examples
    --------
    >>> [share(8, 3, rank) for rank in range(3)]
    [range(0, 2), range(2, 5), range(5, 8)]
    """
    return range(rank * leaves // size, (rank + 1) * leaves // size)


def aligned(leaves: range) -> list[tuple[int, int]]:
    """Return (start, height) of the largest aligned subtrees of a run of leaves, in order.

    Examples
    --------
    >>> aligned(range(3, 9))
    [(3, 0), (4, 2), (8, 0)]
    """
    subtrees, start = [], leaves.start
    while start < leaves.stop:
        room = (leaves.stop - start).bit_length() - 1
        height = min(room, (start & -start).bit_length() - 1) if start else room
        subtrees.append((start, height))
        start += 1 << height
    return subtrees
