"""Which cases of a product are enough: every pair of values, or every value, in few of them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Sequence

Row = dict[str, Hashable]


def parts(row: Row, what: str) -> set[Hashable]:
    """Values of a row, each with its name, or the pairs of them where there are two or more."""
    size = min(2, len(row)) if what == "pairs" else 1
    return set(itertools.combinations(sorted(row.items(), key=lambda item: item[0]), size))


def covering(
    rows: Sequence[Row], what: str = "pairs", costs: Sequence[float] | None = None
) -> list[int]:
    """Choose rows in which all pairs of values occur that occur in any row.

    Greedily the one with the most new pairs for its cost; of equals the first.

    Parameters
    ----------
    rows
        Values by the names of their factors. A row may lack a factor.
    what : {"pairs", "values"}
        What has to occur.
    costs
        Of each row; all the same by default.

    Returns
    -------
    list of int
        Indices of the chosen rows, in ascending order.
    """
    if what not in ("pairs", "values"):
        raise ValueError(f"a cover is of 'pairs' or of 'values', got {what!r}")
    holds = [parts(row, what) for row in rows]
    costs = [1.0] * len(rows) if costs is None else costs
    missing: set[Hashable] = set().union(*holds)
    # What a row adds only shrinks: one whose gain is still the largest need not be compared.
    heap = [(-len(held) / cost, k) for k, (held, cost) in enumerate(zip(holds, costs, strict=True))]
    heapq.heapify(heap)
    chosen = []
    while missing:
        _, k = heapq.heappop(heap)
        entry = (-len(holds[k] & missing) / costs[k], k)
        if heap and entry > heap[0]:
            heapq.heappush(heap, entry)
            continue
        missing -= holds[k]
        chosen.append(k)
    return sorted(chosen)
