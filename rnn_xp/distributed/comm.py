"""What ranks have to be able to do to train together, and the one rank that is alone."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from rnn_xp._typing import Array

__all__ = ["Comm", "CommError", "Serial"]


class CommError(RuntimeError):
    """The ranks cannot go on together: one is gone, or they do not do the same."""


class Comm(Protocol):
    """Ranks that exchange flat buffers. All of them make the same calls.

    Attributes
    ----------
    rank, size : int
        0..size-1, and how many there are.
    local_rank : int
        0, 1, ... among the ranks of the same machine.
    sharing : int
        How many ranks, this one included, have to share this rank's cores.
    device_buffers : bool
        Whether `exchange` and `total` take buffers of a GPU's memory too.
    """

    @property
    def rank(self) -> int:
        """Number of this rank."""

    @property
    def size(self) -> int:
        """How many ranks there are."""

    @property
    def local_rank(self) -> int:
        """Number of this rank among those of its machine."""

    @property
    def device_buffers(self) -> bool:
        """Whether buffers may be a GPU's."""

    @property
    def sharing(self) -> int:
        """How many ranks share this rank's cores."""

    def exchange(self, partner: int, send: Array | None, receive: Array | None) -> None:
        """Send a buffer to another rank and fill one with what it sends; either may be None."""

    def total(self, row: Array) -> Array:
        """Sum of all ranks' rows, in whatever order is fastest."""

    def gather(self, row: NDArray[Any]) -> NDArray[Any]:
        """All ranks' rows, which have one length, as (size, length)."""


class Serial:
    """A rank alone."""

    rank, size, sharing = 0, 1, 1
    local_rank, device_buffers = 0, False

    def exchange(self, partner: int, send: Array | None, receive: Array | None) -> None:
        """There is no other rank."""
        raise CommError(f"a rank that is alone has no partner {partner}.")

    def total(self, row: Array) -> Array:
        """The row."""
        return row.copy()

    def gather(self, row: NDArray[Any]) -> NDArray[Any]:
        """The row, as the only one."""
        return row[None, :].copy()
