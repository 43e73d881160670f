"""Ranks of a launcher such as mpiexec: the first prints and writes, the others only compute."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from rnn_xp.cli.interrupts import Interrupts
from rnn_xp.distributed import MPI, launched_ranks, mpi
from rnn_xp.forecasting import Forecaster
from rnn_xp.forecasting.prepared import Prepared
from rnn_xp.training.watch import DivergenceError

__all__ = ["describe", "end_all", "follow", "join", "let_the_first_speak"]

_FIRST = 1.0  # seconds; an error of all ranks is told by the first, which ends the others

_joined: list[MPI] = []


def join() -> MPI | None:
    """Join the ranks that a launcher has started; return None without a launcher."""
    if launched_ranks() == 1:
        return None
    try:
        _joined[:] = [mpi()]
    except ImportError as error:  # something for the user to repair
        raise ValueError(str(error)) from error
    return _joined[0]


def describe(comm: MPI | None) -> list[str]:
    """Return a line with the number of ranks, or no line for a single rank."""
    return [] if comm is None else [f"ranks    {comm.size}, {comm.sharing} of them on these cores"]


def follow(
    forecaster: Forecaster, prepared: Prepared, computing: dict[str, Any], resume: Path | None
) -> int:
    """Take part in the training of the first rank, which does everything else.

    Parameters
    ----------
    forecaster : Forecaster
    prepared : Prepared
    computing : dict
        Further arguments of `Forecaster.fit`, including the ranks.
    resume : path, optional
        Folder of the run to resume.

    Returns
    -------
    int
        Exit status: 0 for every outcome that all ranks share. The first rank reports such an
        outcome; a launcher may end the other ranks as soon as one returns another status.
    """
    with Interrupts(silent=True) as interrupts, contextlib.suppress(DivergenceError):
        forecaster.fit_prepared(
            prepared,
            **computing,
            resume=None if resume is None else resume / "last.safetensors",
            stop=interrupts,
        )
    return 0


def let_the_first_speak() -> None:
    """Wait, on all other ranks, until the first rank has reported an error common to all."""
    if _joined and _joined[0].rank:
        time.sleep(_FIRST)


def end_all(status: int) -> None:
    """End all ranks because of an error on this rank, for which the others would wait."""
    if _joined:
        _joined[0].abort(status)
