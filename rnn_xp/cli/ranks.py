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
    """Return a line with the number of ranks; no line for a single one."""
    return [] if comm is None else [f"ranks    {comm.size}, {comm.sharing} of them on these cores"]


def follow(
    forecaster: Forecaster, prepared: Prepared, computing: dict[str, Any], resume: Path | None
) -> int:
    """Train with the first rank, which does everything else.

    Parameters
    ----------
    forecaster : Forecaster
    prepared : Prepared
    computing : dict
        Further arguments of its fit, the ranks among them.
    resume : path, optional
        Folder of the run to go on with.

    Returns
    -------
    int
        Exit status: 0 for everything that happens to all ranks together. The first rank reports
        it; a launcher may end the others as soon as one rank has another status.
    """
    with Interrupts(silent=True) as interrupts, contextlib.suppress(DivergenceError):
        forecaster.fit_prepared(
            prepared,
            **computing,
            resume=None if resume is None else resume / "last.safetensors",
            callbacks=[interrupts],
        )
    return 0


def let_the_first_speak() -> None:
    """Wait, on other ranks, for the first to tell an error that all of them have met."""
    if _joined and _joined[0].rank:
        time.sleep(_FIRST)


def end_all(status: int) -> None:
    """End all ranks because of an error on this one; the others would wait for it."""
    if _joined:
        _joined[0].abort(status)
