"""The assignment of a machine's GPUs to its ranks."""

from __future__ import annotations

import os
from pathlib import Path

from rnn_xp.distributed.comm import Comm

__all__ = ["take_own_gpu"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_PRESENT = Path("/proc/driver/nvidia/gpus")  # a folder each; asking CUDA would settle what it shows


def take_own_gpu(comm: Comm, device: str | None = None) -> str:
    """Restrict this process to one GPU of its machine, chosen by the local rank.

    Call it before a library first looks for GPUs, as `rnn_xp.get_backend` does; the library then
    sees the chosen GPU as ``cuda:0``. Nothing is changed if a scheduler has assigned a GPU to each
    rank already, or if there are fewer than two. If there are more ranks than GPUs, they share
    them.

    Parameters
    ----------
    comm : Comm
    device : str, optional
        The device that the user has chosen; by default the value of ``RNN_XP_DEVICE``. If it has a
        number, such as ``cuda:1``, nothing is changed.

    Returns
    -------
    str
        The new value of ``CUDA_VISIBLE_DEVICES``; empty if it was not changed.
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
