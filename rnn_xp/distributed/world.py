"""Ranks of MPI, through mpi4py, which is imported on first use."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import install
from rnn_xp._typing import Array
from rnn_xp.backend import array_namespace, backend_of
from rnn_xp.distributed.comm import CommError

__all__ = ["MPI", "launched_ranks", "mpi"]

_TIMEOUT = "RNN_XP_MPI_TIMEOUT"
_DEVICE_BUFFERS = "RNN_XP_MPI_DEVICE_BUFFERS"
_SECONDS = 30.0
_PATIENT = 10  # times longer for what happens once: ranks read their data at different speeds
_SPIN = 2e-3  # seconds; afterwards the core is given away between two looks
_TO_BE_READ = 0.2  # seconds; a launcher that is told to end all may leave the last words unread
_NO_ANSWER = 75  # exit status, EX_TEMPFAIL: starting again may help

# How launchers tell a process how many there are: hydra, gforker and PMI2; Open MPI; Slurm.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def launched_ranks() -> int:
    """Return the number of ranks that a launcher has started, or 1 without a launcher."""
    for name in _SIZES:
        if (value := os.environ.get(name, "")).isdecimal():
            return int(value)
    return 1


class MPI:
    """A rank of MPI_COMM_WORLD; see `mpi`.

    Parameters
    ----------
    world : mpi4py communicator
    deadline : float
        Seconds to wait for another rank.
    device_buffers : bool
        If True, MPI is given buffers in the memory of a GPU.
    """

    def __init__(self, world: Any, deadline: float, device_buffers: bool = False) -> None:
        self._world = world
        self._comm = world.Dup()  # what others send is none of ours
        self.deadline, self.device_buffers = deadline, device_buffers
        self.rank: int = world.Get_rank()
        self.size: int = world.Get_size()
        here = self._ranks_with(socket.gethostname())
        self.local_rank = here.index(self.rank)
        affinity = getattr(os, "sched_getaffinity", None)
        cores = sorted(affinity(0)) if affinity else os.cpu_count()
        self.sharing = len(self._ranks_with(f"{socket.gethostname()} {cores}"))

    def exchange(self, partner: int, send: Array | None, receive: Array | None) -> None:
        """Send a buffer to another rank, and receive one into a buffer; either may be None."""
        self._settle(send, receive)
        requests = []
        if receive is not None:
            requests.append(self._comm.Irecv(receive, partner))
        if send is not None:
            requests.append(self._comm.Isend(send, partner))
        self._wait(requests, self.deadline)

    def total(self, row: Array) -> Array:
        """Return the sum of all ranks' rows, in the order of MPI."""
        total = array_namespace(row).empty_like(row)
        self._settle(row)
        self._wait([self._comm.Iallreduce(row, total)], self.deadline)
        return total

    def gather(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of all ranks, which have the same length, as an array (size, length)."""
        rows = np.empty((self.size, row.size), row.dtype)
        row = np.ascontiguousarray(row)
        self._wait([self._comm.Iallgather(row, rows)], _PATIENT * self.deadline)
        return rows

    def abort(self, status: int) -> None:
        """End all ranks at once with this exit status."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_TO_BE_READ)
        self._world.Abort(status)

    def _settle(self, *buffers: Array | None) -> None:
        """Wait until the device has finished with the buffers, because MPI knows no streams."""
        for buffer in buffers if self.device_buffers else ():
            if buffer is not None and not isinstance(buffer, np.ndarray):
                backend_of(buffer).synchronize()

    def _wait(self, requests: list[Any], seconds: float) -> None:
        """Wait with a deadline, because a rank that has gone or stalls never answers."""
        begun, waiting = time.monotonic(), requests
        while waiting := [request for request in waiting if not request.Test()]:
            waited = time.monotonic() - begun
            if waited > _SPIN:
                time.sleep(5e-5)
            if waited > seconds:
                sys.stderr.write(
                    f"rank {self.rank}: no answer of another rank in {seconds:g} s, so all ranks "
                    f"end here. Where a step may take so long, set {_TIMEOUT} (seconds).\n"
                )
                self.abort(_NO_ANSWER)

    def _ranks_with(self, what: str) -> list[int]:
        """Return the ranks for which this text is the same."""
        mine = np.frombuffer(hashlib.sha256(what.encode()).digest(), np.uint8)
        same = (self.gather(mine) == mine).all(axis=1)
        return [int(rank) for rank in np.flatnonzero(same)]

    def _end_all_on_error(self) -> None:
        """Let an uncaught exception end all ranks, which would otherwise wait for this one."""
        before = sys.excepthook

        def hook(
            kind: type[BaseException], error: BaseException, trace: TracebackType | None
        ) -> None:
            before(kind, error, trace)
            sys.stderr.write(f"rank {self.rank} has failed, so all {self.size} end here.\n")
            self.abort(1)

        sys.excepthook = hook


_found: list[MPI] = []


def mpi(*, deadline: float | None = None, device_buffers: bool | None = None) -> MPI:
    """Join the ranks that ``mpiexec`` or ``srun`` has started.

    From then on an uncaught exception ends all ranks, with its traceback. (A ``sys.exit`` on one
    rank ends all ranks only under ``python -m mpi4py``; otherwise, the other ranks end at their
    deadline.)

    Parameters
    ----------
    deadline : float, optional
        Seconds to wait for another rank before all ranks are ended; by default the value of the
        environment variable ``RNN_XP_MPI_TIMEOUT``, or 30.
    device_buffers : bool, optional
        If True, sums of CuPy and torch are handed to MPI on the GPU, which requires a CUDA-aware
        MPI; any other MPI crashes. If False, they are copied to the host first. By default True if
        the environment variable ``RNN_XP_MPI_DEVICE_BUFFERS`` is 1.

    Returns
    -------
    MPI
        This rank; every call returns the same object.

    Raises
    ------
    ImportError
        If mpi4py or the MPI library is missing.
    CommError
        If mpi4py does not see the launcher's ranks, because it was built for another MPI.
    """
    if not _found:
        launched = launched_ranks()
        try:
            from mpi4py import MPI as library  # noqa: N811 - its name for itself
        except (ImportError, RuntimeError) as error:
            raise ImportError(
                f"training on several ranks needs mpi4py and an MPI library ({error}). Install "
                f"them with: {install('mpi')} mpich"
            ) from error
        world = library.COMM_WORLD
        if world.Get_size() == 1 < launched:
            raise CommError(
                f"the launcher started {launched} processes, but mpi4py sees one: it uses another "
                f"MPI than the launcher, {library.Get_library_version().splitlines()[0]}. Use that "
                "one's mpiexec, or install mpi4py for this one."
            )
        if device_buffers is None:
            device_buffers = os.environ.get(_DEVICE_BUFFERS, "").strip() == "1"
        _found.append(MPI(world, _seconds(deadline), device_buffers))
        _found[0]._end_all_on_error()
    return _found[0]


def _seconds(deadline: float | None) -> float:
    text = os.environ.get(_TIMEOUT, "").strip()
    try:
        seconds = deadline if deadline is not None else float(text or _SECONDS)
    except ValueError:
        seconds = -1.0
    if not seconds > 0.0:
        raise ValueError(f"{_TIMEOUT} must be a number of seconds > 0, got {text!r}.")
    return seconds
