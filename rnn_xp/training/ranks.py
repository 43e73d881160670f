"""What ranks tell each other before they train: who has which rows, and that all mean the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnn_xp.backend import to_numpy
from rnn_xp.distributed import Ranks, Shares, agree, fingerprint
from rnn_xp.engines.blocks import Blocks

__all__ = ["agree_on_data", "check_sharded", "digest", "part_of_rank"]

_ROWS = 1000  # that are looked at: windows repeat each value T times
_DIGESTS = 2**256


def check_sharded(x: Any, batch_size: int | None, validation: Any) -> None:
    """Refuse what rows that one rank alone can read are not for."""
    if batch_size is not None:
        raise ValueError(
            "fit: sharded=True needs the full batch: a minibatch has rows of all ranks, and none "
            "of them could read those of another."
        )
    if isinstance(validation, float | np.floating):
        raise ValueError(
            "fit: sharded=True has no last rows that all ranks could validate on. Give them as "
            "validation=(x, y), the same on all ranks."
        )
    if 0 in np.shape(x)[:1]:
        raise ValueError("fit: with sharded=True each rank needs a row, and this one has none.")


def agree_on_data(
    ranks: Ranks,
    arrays: Mapping[str, Any],
    *,
    sharded: bool,
    batch_size: int | None,
    validation: Any,
) -> None:
    """Check that all ranks mean the same data, before they ask each other anything else.

    Of rows that each rank has for itself that is their shape, of others their values too, in a
    thousand rows; what more a rank reads is in the digest of the run.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    first = 1 if sharded else 0
    ways = {"sharded": sharded, "reduction": ranks.reduction, "full batch": batch_size is None}
    shapes = {f"shape of {name}": np.shape(array)[first:] for name, array in given.items()}
    agree(ranks.comm, {**ways, "validation": validation is not None, **shapes})
    if not sharded:
        agree(ranks.comm, {f"sample of {name}": _sample(array) for name, array in given.items()})


def part_of_rank(
    ranks: Ranks, rows: range, block_rows: int, counts: list[int]
) -> tuple[range, Shares]:
    """Rows of the full batch that this rank brings in, and the blocks of all ranks.

    Parameters
    ----------
    ranks : Ranks
    rows : range
        Those that are trained on, of what this rank is given.
    block_rows : int
    counts : list of int
        Rows of each shard: one for each rank, or a single one of which all have the rows. Blocks
        begin at every ``block_rows`` rows of it.
    """
    if len(counts) == 1:
        shares = ranks.shares(-(-len(rows) // block_rows))
        own = shares(ranks.comm.rank)
        return rows[own.start * block_rows : own.stop * block_rows], shares
    ends = np.cumsum([0, *(-(-count // block_rows) for count in counts)]).tolist()
    return rows, lambda rank: range(ends[rank], ends[rank + 1])


def digest(blocks: Blocks, rows: int, ranks: Ranks | None) -> str:
    """Tell data apart: the sum of the sha256 of all blocks, whichever ranks have them.

    Of all arrays but x, of which a thousand of all rows must do, at least one for each block:
    bringing all of x back from a device takes long.
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
    found, batch = hashlib.sha256(str(number).encode()), blocks[number]
    for name, array in batch._replace(x=batch.x[::stride, ...])._asdict().items():
        if array is not None:
            host = np.asarray(to_numpy(array), order="C")
            host = host.astype(np.int64) if host.dtype.kind in "iu" else host  # of any library
            found.update(f"|{name}|{host.dtype.str}|{host.shape}|".encode())
            found.update(host.data if host.size else b"")
    return int.from_bytes(found.digest())
