"""`rnn_xp.backends`: which libraries can be used here, and what one of them can do."""

from __future__ import annotations

from typing import overload

from rnn_xp._typing import Array
from rnn_xp.backend import BackendStatus
from rnn_xp.backend import backends as statuses
from rnn_xp.training.probing import Probe, run_probe
from rnn_xp.training.trainer import fit

__all__ = ["backends"]


@overload
def backends(probe: None = None) -> tuple[BackendStatus, ...]: ...
@overload
def backends(probe: Array) -> Probe: ...


def backends(probe: Array | None = None) -> tuple[BackendStatus, ...] | Probe:
    """Report which libraries are installed and usable here, or probe the library of an array.

    Parameters
    ----------
    probe : Array, optional
        An array of dtype float32 or float64 of any library. Its library is tried, on its device and
        in its dtype: every function that is used here, and tiny networks, beside NumPy.

    Returns
    -------
    tuple of BackendStatus, or Probe
        Without `probe`, one status for each library that has an adapter, see
        `rnn_xp.backend.backends`; with it, what works to which error, and what is missing.

    Raises
    ------
    TypeError
        If `probe` is not an array of a library with an Array API namespace, or has another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> [status.name for status in backends()][:2]
    ['numpy', 'cupy']
    >>> probed = backends(probe=np.zeros(1))
    >>> probed.works, probed.missing
    (True, {})
    """
    return statuses() if probe is None else run_probe(probe, fit)
