"""Rows, cut into blocks of a fixed size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend import Backend
from rnn_xp.data.shards import Shards
from rnn_xp.distributed import Shares
from rnn_xp.kernels.rows import ACCELERATOR_ROWS, CPU_ROWS, on_accelerator

__all__ = ["Batch", "Blocks", "default_block_rows"]

_WORTH_A_THREAD = 8192  # numbers in the state of a block


def default_block_rows(backend: Backend, rows: int, hidden_size: int) -> int:
    """Rows of a block for an update of so many rows: 1040 on a CPU, 65,536 on an accelerator.

    On a CPU a block's arrays should stay in cache and there should be blocks for all threads;
    the 8317 rows of the reference workload make 8 of 1040. What would be a single block is cut in
    two, if its halves are worth a thread each. On an accelerator every further block repeats all
    kernel launches.

    Parameters
    ----------
    backend : Backend
    rows : int
        N of an update.
    hidden_size : int
        H.

    Examples
    --------
    >>> from rnn_xp.backend import get_backend
    >>> numpy = get_backend("numpy", device="cpu")
    >>> default_block_rows(numpy, 8317, 50), default_block_rows(numpy, 64, 256)
    (1040, 32)
    """
    if on_accelerator(backend):
        return ACCELERATOR_ROWS
    half = -(-rows // 2)
    alone = rows <= CPU_ROWS
    return half if alone and half * hidden_size >= _WORTH_A_THREAD else CPU_ROWS


class Batch(NamedTuple):
    """Rows to train on. Every array that is given has N rows; `rnn_xp.Network` documents them."""

    x: Array
    y: Array
    sample_weight: Array | None = None
    lengths: Array | None = None
    mask: Array | None = None
    reset: Array | None = None

    def rows(self, start: int, stop: int) -> Batch:
        """Rows start..stop-1, as far as there are any; views where the library has them."""
        stop = min(stop, self.x.shape[0])
        return Batch(*(None if a is None else a[start:stop, ...] for a in self))

    def take(self, index: Array, *, xp: Namespace) -> Batch:
        """Rows by index."""

        def take(array: Array) -> Array:
            return array[index] if isinstance(array, Shards) else xp.take(array, index, axis=0)

        return Batch(*(None if a is None else take(a) for a in self))

    def steps(self, start: int, stop: int, topology: str) -> Batch:
        """Steps start..stop-1 of what has steps: x has none in one_to_many, y in many_to_one."""
        cut, weight = slice(start, stop), self.sample_weight

        def of_steps(array: Array) -> Array:
            return array.of_each(cut) if isinstance(array, Shards) else array[:, cut, ...]

        if weight is not None and len(weight.shape) == 2:
            weight = weight[:, cut]
        return Batch(
            self.x if topology == "one_to_many" else of_steps(self.x),
            self.y if topology == "many_to_one" else of_steps(self.y),
            weight,
            None,
            None if self.mask is None else self.mask[:, cut],
            None if self.reset is None else self.reset[:, cut],
        )

    @property
    def options(self) -> dict[str, Array | None]:
        """Arguments of the network's methods beyond x, y and the weights."""
        return {"lengths": self.lengths, "mask": self.mask, "reset": self.reset}


@dataclass(frozen=True)
class Blocks:
    """Rows in blocks, which are numbered over the rows of all ranks.

    Attributes
    ----------
    batch : Batch
        The rows that are here.
    block_rows : int
        Of each block; the last one may have less.
    held : range
        Numbers of the blocks whose rows are here.
    own : range
        Numbers of those that are computed here.
    shares : callable or None
        ``shares(rank)`` is what each rank computes; None without other ranks.
    scattered : bool
        Whether each rank holds its own blocks alone.
    """

    batch: Batch
    block_rows: int
    held: range
    own: range
    shares: Shares | None = None
    scattered: bool = False

    def __getitem__(self, number: int) -> Batch:
        """Rows of a block."""
        start = (number - self.held.start) * self.block_rows
        return self.batch.rows(start, start + self.block_rows)
