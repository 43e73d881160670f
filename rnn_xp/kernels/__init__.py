"""Pointwise mathematics and whole layers: the one place where speed may differ by library.

`portable` is what everything runs on. Training computes whole layers in kernels of the library's
own: on CuPy in `cupy`, and on NumPy in `numpy` or, where numba is installed and the precision is
float32, in `numba`. The environment variable ``RNN_XP_KERNELS`` = numba | numpy | portable decides
otherwise. All agree to rounding, not to the bit, so a run records which it was computed by.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Sequence

from rnn_xp._typing import Array, Namespace, Workspace
from rnn_xp.backend import Backend, BackendError
from rnn_xp.backend.arrays import library_name

__all__ = ["kernels_of", "make_workspace", "pointwise"]

_VARIABLE = "RNN_XP_KERNELS"
_CHOICES = ("numba", "numpy", "portable")


def make_workspace(backend: Backend) -> Workspace | None:
    """Make a workspace for one thread, with the library's own kernels; None if it has none."""
    name = kernels_of(backend).partition(" ")[0]
    if name == "portable":
        return None
    module = importlib.import_module(f"rnn_xp.kernels.{name}")
    workspace: Workspace = module.Workspace(backend.dtype_name)
    return workspace


def kernels_of(backend: Backend) -> str:
    """Name the kernels that training with a backend uses, with the version of what compiled them.

    Raises
    ------
    BackendError
        If RNN_XP_KERNELS names none, or numba where it cannot be used.

    Examples
    --------
    >>> from rnn_xp.backend import get_backend
    >>> kernels_of(get_backend("array_api_strict"))
    'portable'
    """
    chosen = os.environ.get(_VARIABLE, "").strip()
    if chosen and chosen not in _CHOICES:
        raise BackendError(
            f"{_VARIABLE}={chosen} is not known. Choose one of: {', '.join(_CHOICES)}."
        )
    if backend.name not in ("numpy", "cupy") or chosen == "portable":
        return "portable"
    if backend.name == "cupy":
        return "cupy"
    if chosen == "numpy" or backend.dtype_name != "float32":
        return "numpy"
    version, reason = _numba()
    if chosen and reason:
        raise BackendError(
            f"{_VARIABLE}=numba cannot be had: {reason}. Install it with: "
            f"pip install 'rnn-xp[numba]', or leave {_VARIABLE} empty."
        )
    return f"numba {version}" if version else "numpy"


def pointwise(
    function: Callable[..., Sequence[Array]],
    operands: Iterable[Sequence[Array]],
    *,
    xp: Namespace,
) -> list[Sequence[Array]]:
    """Compute an elementwise function of each of several sets of arrays.

    Where every operation is a launch, as on CuPy, it becomes one kernel.

    Parameters
    ----------
    function : callable
        ``function(*arrays, xp=xp)`` gives a sequence of arrays, by + - * / and ``xp.sqrt`` from
        those and from Python's numbers; the same numbers for each set.
    operands : iterable of sequences of arrays
        As many in each, of one shape within it.
    xp : Namespace

    Examples
    --------
    >>> import numpy as np
    >>> pointwise(lambda a, b, xp: (a + 2.0 * b,), [(np.ones(2), np.ones(2))], xp=np)
    [(array([3., 3.]),)]
    """
    if library_name(xp) == "cupy":
        from rnn_xp.kernels import fusion

        return [*fusion.run(function, operands)]
    return [function(*arrays, xp=xp) for arrays in operands]


@functools.cache
def _numba() -> tuple[str, str]:
    """Version of numba, or why it cannot be used."""
    try:
        return str(importlib.import_module("numba").__version__), ""
    except ImportError as error:  # not there, or not for this version of NumPy
        return "", str(error)
