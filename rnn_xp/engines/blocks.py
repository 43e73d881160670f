"""Rows, cut into blocks of a fixed size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend import Backend
from rnn_xp.data.shards import Shards
from rnn_xp.distributed import Shares
from rnn_xp.kernels.rows import ACCELERATOR_ROWS, CPU_ROWS, on_accelerator
from rnn_xp.network import Network
from rnn_xp.network.call import Options
from rnn_xp.network.pipeline import loss_weight

__all__ = ["Batch", "Blocks", "default_block_rows", "weights_of"]

_WORTH_A_THREAD = 8192  # numbers in the state of a block, or
_WORTH_A_THREAD_IN_ALL = 2**18  # in its states of all steps, with rows enough for the calls
_ENOUGH_ROWS = 32


def default_block_rows(backend: Backend, rows: int, hidden_size: int, steps: int = 1) -> int:
    """Return the default number of rows of a block: 1040 on a CPU, 65,536 on an accelerator.

    On a CPU the arrays of a block should stay in the cache, and there should be blocks for all
    threads; the 8317 rows of the reference workload make 8 blocks. A single block is cut in two if
    each half is enough work for a thread. On an accelerator, every additional block repeats all
    kernel launches.

    Parameters
    ----------
    backend : Backend
    rows : int
        Number of rows of an update.
    hidden_size : int
        Number of hidden units.
    steps : int
        Number of steps of a sequence.

    Examples
    --------
    >>> from rnn_xp.backend import get_backend
    >>> numpy = get_backend("numpy", device="cpu")
    >>> default_block_rows(numpy, 8317, 50), default_block_rows(numpy, 64, 128, steps=100)
    (1040, 32)
    """
    if on_accelerator(backend):
        return ACCELERATOR_ROWS
    half = -(-rows // 2)
    state = half * hidden_size
    long = half >= _ENOUGH_ROWS and steps * state >= _WORTH_A_THREAD_IN_ALL
    worth_it = state >= _WORTH_A_THREAD or long
    return half if rows <= CPU_ROWS and worth_it else CPU_ROWS


class Batch(NamedTuple):
    """Rows of data. Every array that is not None has N rows; `rnn_xp.fit` documents them."""

    x: Array
    y: Array
    sample_weight: Array | None = None
    lengths: Array | None = None
    mask: Array | None = None
    reset: Array | None = None

    def rows(self, start: int, stop: int) -> Batch:
        """Return rows start..stop-1, or fewer at the end, as views if the library has views."""
        stop = min(stop, self.x.shape[0])
        return Batch(*(None if a is None else a[start:stop, ...] for a in self))

    def every(self, step: int, first: int) -> Batch:
        """Return the rows first, first + step, ..., which may be none."""
        return Batch(*(None if a is None else a[first::step, ...] for a in self))

    def take(self, index: Array, *, xp: Namespace) -> Batch:
        """Return the rows with these indices."""

        def take(array: Array) -> Array:
            return array[index] if isinstance(array, Shards) else xp.take(array, index, axis=0)

        return Batch(*(None if a is None else take(a) for a in self))

    def steps(self, start: int, stop: int, topology: str) -> Batch:
        """Return the steps start..stop-1 of the arrays that have a time axis.

        x has none in one_to_many, and y has none in many_to_one.
        """
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
        """Arguments lengths, mask and reset for the network's methods."""
        return {"lengths": self.lengths, "mask": self.mask, "reset": self.reset}


def weights_of(net: Network, batch: Batch, backend: Backend, context: int = 0) -> Array | None:
    """Return the weights of the losses of some rows; None if all are 1.

    Parameters
    ----------
    net : Network
    batch : Batch
    backend : Backend
    context : int
        Number of first steps whose losses have the weight 0.

    Returns
    -------
    Array (N,) or (N, T), or None
    """
    xp, options = backend.xp, Options(lengths=batch.lengths, mask=batch.mask)
    weight = loss_weight(net, batch.x, batch.y, batch.sample_weight, options)
    if not context or net.topology == "many_to_one":
        return weight
    counts = xp.arange(batch.y.shape[1], device=backend.device) >= context
    counts = xp.astype(counts, batch.x.dtype)[None, :]
    if weight is None:
        return xp.ones_like(batch.x[:, 0:1, 0]) * counts
    return (weight if len(weight.shape) == 2 else weight[:, None]) * counts


@dataclass(frozen=True)
class Blocks:
    """Rows cut into blocks, which are numbered across all ranks.

    Attributes
    ----------
    batch : Batch
        The rows that this rank holds.
    block_rows : int
        Number of rows of a block; the last block may have fewer.
    held : range
        Numbers of the blocks that this rank holds.
    own : range
        Numbers of the blocks that this rank computes.
    shares : callable or None
        ``shares(rank)`` gives the numbers of the blocks that each rank computes; None for a single
        rank.
    scattered : bool
        True if each rank holds only the blocks that it computes.
    """

    batch: Batch
    block_rows: int
    held: range
    own: range
    shares: Shares | None = None
    scattered: bool = False

    def __getitem__(self, number: int) -> Batch:
        """Return the rows of a block."""
        start = (number - self.held.start) * self.block_rows
        return self.batch.rows(start, start + self.block_rows)
