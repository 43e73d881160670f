"""What the ranks of test_mpi.py run: ``python mpi_training.py FOLDER KIND EPOCHS [FAULT]``.

Rank 0 keeps a checkpoint of every epoch in the folder and goes on from the one that is there; each
rank leaves a file with the hash of its parameters.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from rank_runs import fit

import rnn_xp as rx
from rnn_xp.distributed import fingerprint, mpi
from rnn_xp.training.callbacks import Checkpoint

AT = 8  # the epoch in which the last rank does what it is told to


class Fault:
    """A callback of the last rank."""

    def __init__(self, what):
        self.what = what

    def __call__(self, epoch):
        if epoch.number < AT:
            return None
        if self.what == "exception":
            raise RuntimeError("the disk is on fire")
        if self.what == "exit":
            sys.exit(3)
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "stall":
            time.sleep(1000)
        return "the last rank is tired" if self.what == "stop" else None


def main(folder, kind, epochs, fault=""):
    comm = mpi()
    if os.environ.get("RNN_XP_TEST_MANAGED"):
        import cupy

        cupy.cuda.set_allocator(cupy.cuda.MemoryPool(cupy.cuda.malloc_managed).malloc)
    last = comm.rank == comm.size - 1
    keep = Checkpoint(folder, every=1)
    callbacks = [] if comm.rank else [keep]
    if fault == "slow":  # long enough for a signal to meet it
        callbacks.append(lambda epoch: time.sleep(0.02))
    elif fault and last and "device buffers" not in fault:
        callbacks.append(Fault(fault))
    options = {"callbacks": callbacks, "resume": keep.last if keep.last.exists() else None}
    if "device buffers" in fault:
        comm.exchange = only_device_buffers(comm.exchange)
    if "fast" in fault:
        options["reduction"] = "fast"
    if fault == "seed":
        options["seed"] = comm.rank
    if fault == "nan" and last:
        options["loss"] = broken_loss()
    elif fault == "nan":
        options["loss"] = named(rx.losses.mse)
    found = fit(kind, comm, int(epochs), **options)
    params = {name: found.backend.to_numpy(param) for name, param in found.params.items()}
    text = f"{fingerprint(params)} {len(found.history['loss'])} {found.stopped}"
    Path(folder, f"rank-{comm.rank}-of-{comm.size}").write_text(text)


def only_device_buffers(exchange):
    """Exchange sums where they lie, in a library's memory; the total weight is a Python float."""

    def checked(partner, *buffers):
        for buffer in buffers:
            there = buffer is not None and not isinstance(buffer, np.ndarray)
            assert buffer is None or there or buffer.dtype == "f8"
        exchange(partner, *buffers)

    return checked


def named(function):
    def loss(*given):
        return function(*given)

    loss.__qualname__ = "loss"
    return loss


def broken_loss():
    calls = []

    def mse(*given):
        calls.append(1)
        value, dpred = rx.losses.mse(*given)
        return (value * np.float32(np.nan), dpred) if len(calls) > 50 else (value, dpred)

    return named(mse)


if __name__ == "__main__":
    main(*sys.argv[1:])
