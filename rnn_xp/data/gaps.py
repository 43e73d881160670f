"""What happens to missing values of a sequence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import Argument, ParameterError

__all__ = ["check_policy", "filled"]

_POLICIES = ("error", "drop", "interpolate")


def check_policy(missing: str) -> None:
    """Raise ValueError if it is not known what is to happen to missing values."""
    if missing not in _POLICIES:
        raise ValueError(f"missing={missing!r} is not known. Valid: {', '.join(_POLICIES)}.")


def filled(
    sequence: NDArray[np.float64], missing: str, where: Callable[[int], str]
) -> NDArray[np.float64]:
    """Return a sequence (T, F) without missing values.

    Parameters
    ----------
    sequence : array (T, F)
        NaN where a value is missing.
    missing : {"error", "drop", "interpolate"}
        An error, steps that lack a value are left out, or values are interpolated linearly.
    where : callable
        ``where(step)`` names a step in messages.

    Raises
    ------
    ValueError
        If a value is missing and cannot be filled.

    Examples
    --------
    >>> filled(np.array([[1.0], [np.nan], [3.0]]), "interpolate", str).tolist()
    [[1.0], [2.0], [3.0]]
    """
    gaps = np.isnan(sequence)
    if not gaps.any():
        return sequence
    step = int(np.argwhere(gaps)[0, 0])
    drop, fill = Argument("missing", "drop"), Argument("missing", "interpolate")
    if missing == "error":
        words = "Pass {0} to leave such steps out or {1} to fill them."
        raise ParameterError(words, drop, fill).within(f"{where(step)}: a value is missing. ")
    if missing == "drop":
        kept = sequence[~gaps.any(axis=1)]
        if not len(kept):
            raise ValueError(f"{where(step)}: each step of this sequence lacks a value.")
        return kept
    for end in (0, -1):
        if gaps[end].any():
            raise ParameterError(
                "it cannot be interpolated. Pass {0} to leave such steps out.", drop
            ).within(f"{where(end % len(gaps))}: a value is missing at an end of the sequence, so ")
    steps = np.arange(len(sequence))
    columns = [
        np.interp(steps, steps[~gap], column[~gap])
        for gap, column in zip(gaps.T, sequence.T, strict=True)
    ]
    return np.stack(columns, axis=1)
