"""One GPU of a machine for each of its ranks."""

from __future__ import annotations

import os
from pathlib import Path

from rnn_xp.distributed.comm import Comm

__all__ = ["take_own_gpu"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PRESENT = Path("/proc/driver/nvidia/gpus")  # a folder each; asking CUDA would settle what it shows


def take_own_gpu(comm: Comm, device: str | None = None) -> str:
    """Let this process see one GPU of its machine, by its number among the ranks there.

    To be called before a library first looks for GPUs, such as by `rnn_xp.get_backend`; it then
    has that one as ``cuda:0``. Where a scheduler has shown each rank its own, or there are less
    than two, nothing is done. Ranks that are more than the GPUs share them.

    Parameters
    ----------
    comm : Comm
    device : str, optional
        That the user has chosen; by default that in ``RNN_XP_DEVICE``. One with a number, such as
        ``cuda:1``, is left alone.

    Returns
    -------
    str
        What ``CUDA_VISIBLE_DEVICES`` was set to; empty if it was left alone.
    """
    if ":" in (device or os.environ.get("RNN_XP_DEVICE", "")):
        return ""
    shown = os.environ.get(_VISIBLE)
    if shown is None:
        count = len(list(_PRESENT.iterdir())) if _PRESENT.is_dir() else 0
        gpus = [str(number) for number in range(count)]
    else:
        gpus = [name.strip() for name in shown.split(",") if name.strip()]
    if comm.size == 1 or len(gpus) < 2:
        return ""
    os.environ[_VISIBLE] = gpus[comm.local_rank % len(gpus)]
    return os.environ[_VISIBLE]
