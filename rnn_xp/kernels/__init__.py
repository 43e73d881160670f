"""Pointwise mathematics and whole layers: the one place where speed may differ by library.

`portable` is what everything runs on. On NumPy, training computes whole layers in kernels of its
own: `numpy`, or, where numba is installed and the precision is float32, `numba`. The environment
variable ``RNN_XP_KERNELS`` = numba | numpy | portable decides otherwise. They agree to rounding,
not to the bit, so a run records which of them it was computed by.
"""

import functools
import importlib
import os
from typing import Any

from rnn_xp._typing import Workspace
from rnn_xp.backend import Backend, BackendError

__all__ = ["kernels_of", "make_workspace"]

_VARIABLE = "RNN_XP_KERNELS"
_CHOICES = ("numba", "numpy", "portable")


def make_workspace(backend: Backend) -> Workspace | None:
    """Make a workspace for one thread, with the library's own kernels; None if it has none."""
    name = kernels_of(backend).partition(" ")[0]
    if name == "portable":
        return None
    workspace: Workspace = _module(name).Workspace(backend.dtype_name)
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
    if backend.name != "numpy" or chosen == "portable":
        return "portable"
    if chosen == "numpy" or backend.dtype_name != "float32":
        return "numpy"
    version, reason = _numba()
    if chosen and reason:
        raise BackendError(
            f"{_VARIABLE}=numba cannot be had: {reason}. Install it with: "
            f"pip install 'rnn-xp[numba]', or leave {_VARIABLE} empty."
        )
    return f"numba {version}" if version else "numpy"


@functools.cache
def _numba() -> tuple[str, str]:
    """Version of numba, or why it cannot be used."""
    try:
        return str(importlib.import_module("numba").__version__), ""
    except ImportError as error:  # not there, or not for this version of NumPy
        return "", str(error)


def _module(name: str) -> Any:
    return importlib.import_module(f"rnn_xp.kernels.{name}")
