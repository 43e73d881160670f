"""Random streams: one generator for each purpose of a run, and none that two purposes share.

All randomness of a run follows from its seed. Numbers from ``default_rng((seed, k))`` could be
those of another purpose: NumPy pads the entropy with zeros, so that s, (s, 0) and (s, 0, 0) are one
stream. Spawn keys are made to keep streams apart, whatever the seed is [1]_.

References
----------
.. [1] NumPy, "Parallel random number generation", SeedSequence spawning.
"""

from __future__ import annotations

import enum

import numpy as np

__all__ = ["Purpose", "stream"]


class Purpose(enum.IntEnum):
    """What a stream is for, and the numbers that tell its streams apart."""

    WEIGHTS = 0
    """Initial weights."""
    SHUFFLE = 1
    """The order of the rows in an epoch: (epoch,)."""
    DROPOUT = 2
    """The masks of a block of rows in an update: (update, block)."""


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Return the generator of one purpose.

    Parameters
    ----------
    seed : int
        Seed of the run, >= 0.
    purpose : Purpose
    *key : int
        The numbers that `Purpose` names, each >= 0.

    Examples
    --------
    >>> one, other = (stream(7, Purpose.SHUFFLE, epoch) for epoch in (0, 1))
    >>> one.random() == other.random()
    False
    >>> stream(7, Purpose.WEIGHTS).random() == np.random.default_rng(7).random()
    True
    """
    spawn_key = (int(purpose), *key) if purpose else ()
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=spawn_key))
