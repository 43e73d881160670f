"""Which steps the loss sees: how hidden states are read, each read beside its adjoint.

many_to_one   the last step is read: pred (N, O) from h_T
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rnn_xp._typing import Array, State

__all__ = ["MANY_TO_ONE", "Topology"]


class Topology(NamedTuple):
    """A way of reading a sequence of states, with its adjoint.

    Attributes
    ----------
    read : callable
        ``h = read(states)`` from the states after step 1, ..., T.
    read_back : callable
        ``dhs = read_back(dh, steps)``: a list of T gradients, None where nothing was read.
    """

    read: Callable[[Sequence[State]], Array]
    read_back: Callable[[Array, int], list[Array | None]]


def _read_last(states: Sequence[State]) -> Array:
    return states[-1].h


def _read_last_back(dh: Array, steps: int) -> list[Array | None]:
    # Every other step reaches the loss through h_T alone, so it has no share of its own.
    return [None] * (steps - 1) + [dh]


MANY_TO_ONE = Topology(_read_last, _read_last_back)
