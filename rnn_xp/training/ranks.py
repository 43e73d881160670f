"""The exchange between ranks before they train: their rows, and a check of the shared data."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from rnn_xp.backend import to_numpy
from rnn_xp.distributed import Ranks, Shares, agree, fingerprint
from rnn_xp.engines.blocks import Batch, Blocks

__all__ = ["agree_on_data", "check_sharded", "digest", "part_of_rank", "rows_of_shards"]

_ROWS = 1000  # of a sample: windows repeat each value T times
_DIGESTS = 2**256


def check_sharded(x: Any, batch_size: int | None, validation: Any) -> None:
    """Refuse settings that need rows which only another rank can read."""
    if batch_size is not None:
        raise ValueError(
            "fit: sharded=True needs the full batch: a minibatch has rows of all ranks, and no "
            "rank can read the rows of another."
        )
    if isinstance(validation, float | np.floating):
        raise ValueError(
            "fit: sharded=True has no last rows that all ranks could validate on. Give them as "
            "validation=(x, y), the same on all ranks."
        )
    if 0 in np.shape(x)[:1]:
        raise ValueError("fit: with sharded=True each rank needs a row, and this one has none.")


def agree_on_data(
    ranks: Ranks, data: Batch, sharded: bool, batch_size: int | None, validation: Any
) -> None:
    """Check that all ranks were given the same data, before they exchange anything else.

    Shapes are always compared. If all ranks can read all data, a sample of a thousand rows is
    compared as well; the digest of the run covers all other rows that a rank reads.

    Parameters
    ----------
    ranks : Ranks
    data : Batch
        All data, as given to this rank.
    sharded, batch_size, validation
        The arguments of `rnn_xp.fit`.

    Raises
    ------
    CommError
        If the ranks differ.
    """
    arrays = {name: array for name, array in data._asdict().items() if array is not None}
    first = 1 if sharded else 0
    ways = {"sharded": sharded, "reduction": ranks.reduction, "full batch": batch_size is None}
    shapes = {f"shape of {name}": np.shape(array)[first:] for name, array in arrays.items()}
    agree(ranks.comm, {**ways, "validation": validation is not None, **shapes})
    if not sharded:
        agree(ranks.comm, {f"sample of {name}": _sample(array) for name, array in arrays.items()})


def rows_of_shards(ranks: Ranks | None, rows: int, sharded: bool) -> list[int]:
    """Return the number of rows of each shard: one for each rank, or a single one for all."""
    if ranks is None or not sharded:
        return [rows]
    counts: list[int] = ranks.comm.gather(np.asarray([rows]))[:, 0].tolist()
    return counts


def part_of_rank(
    ranks: Ranks, rows: range, block_rows: int, counts: list[int]
) -> tuple[range, Shares]:
    """Return the rows of the full batch that this rank brings in, and the blocks of all ranks.

    Parameters
    ----------
    ranks : Ranks
    rows : range
        The rows to train on, among the data that this rank is given.
    block_rows : int
        Number of rows of a block; blocks begin at every ``block_rows`` rows of a shard.
    counts : list of int
        Number of rows of each shard, see `rows_of_shards`.
    """
    if len(counts) == 1:
        shares = ranks.shares(-(-len(rows) // block_rows))
        blocks = shares(ranks.comm.rank)
        return rows[blocks.start * block_rows : blocks.stop * block_rows], shares
    ends = np.cumsum([0, *(-(-count // block_rows) for count in counts)]).tolist()
    return rows, lambda rank: range(ends[rank], ends[rank + 1])


def digest(blocks: Blocks, rows: int, ranks: Ranks | None) -> str:
    """Return a digest of the data: the sum of the sha256 of all blocks, whichever rank has them.

    All arrays are digested completely except x, of which a thousand rows are sampled, at least one
    of each block, because copying all of x back from a device takes long.
    """
    total = sum(_digest_of_block(blocks, number, -(-rows // _ROWS)) for number in blocks.held)
    if ranks is not None and blocks.scattered:
        mine = np.frombuffer((total % _DIGESTS).to_bytes(32), np.uint8)
        total = sum(int.from_bytes(row.tobytes()) for row in ranks.comm.gather(mine))
    return f"{total % _DIGESTS:064x}"


def _sample(array: Any) -> str:
    array = np.asarray(array) if isinstance(array, list | tuple) else array
    return fingerprint({"": to_numpy(array[:: -(-array.shape[0] // _ROWS), ...])})


def _digest_of_block(blocks: Blocks, number: int, stride: int) -> int:
    digest, batch = hashlib.sha256(str(number).encode()), blocks[number]
    for name, array in batch._replace(x=batch.x[::stride, ...])._asdict().items():
        if array is not None:
            host = np.asarray(to_numpy(array), order="C")
            host = host.astype(np.int64) if host.dtype.kind in "iu" else host  # of any library
            digest.update(f"|{name}|{host.dtype.str}|{host.shape}|".encode())
            digest.update(host.data if host.size else b"")
    return int.from_bytes(digest.digest())
