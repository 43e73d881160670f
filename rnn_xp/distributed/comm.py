"""The communication that ranks need to train together, and the single rank that needs none."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from rnn_xp._typing import Array

__all__ = ["Comm", "CommError", "Serial"]


class CommError(RuntimeError):
    """The ranks cannot continue together: one has gone, or they do different things."""


class Comm(Protocol):
    """The communication between ranks, by flat buffers. All ranks make the same calls.

    Attributes
    ----------
    rank : int
        Number of this rank, 0..size-1.
    size : int
        Number of ranks.
    local_rank : int
        Number of this rank among the ranks of its machine, from 0.
    sharing : int
        Number of ranks, this one included, that share this rank's cores.
    device_buffers : bool
        True if `exchange` and `total` also take buffers in the memory of a GPU.
    """

    @property
    def rank(self) -> int:
        """Number of this rank, 0..size-1."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    @property
    def local_rank(self) -> int:
        """Number of this rank among the ranks of its machine, from 0."""

    @property
    def device_buffers(self) -> bool:
        """True if buffers may be in the memory of a GPU."""

    @property
    def sharing(self) -> int:
        """Number of ranks, this one included, that share this rank's cores."""

    def exchange(self, partner: int, send: Array | None, receive: Array | None) -> None:
        """Send a buffer to another rank, and receive one into a buffer; either may be None."""

    def total(self, row: Array) -> Array:
        """Return the sum of all ranks' rows, in any order."""

    def gather(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of all ranks, which have the same length, as an array (size, length)."""


class Serial:
    """A single rank without others."""

    rank, size, sharing = 0, 1, 1
    local_rank, device_buffers = 0, False

    def exchange(self, partner: int, send: Array | None, receive: Array | None) -> None:
        """Raise, because there is no other rank."""
        raise CommError(f"a rank that is alone has no partner {partner}.")

    def total(self, row: Array) -> Array:
        """Return a copy of the row."""
        return row.copy()

    def gather(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return the row as an array (1, length)."""
        return row[None, :].copy()
