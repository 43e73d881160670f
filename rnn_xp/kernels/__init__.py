"""Pointwise mathematics and whole layers: the one place where speed may differ by library.

`portable` runs on every library. Training computes whole layers in kernels for the library: on CuPy
in `cupy`, and on NumPy in `numpy` or, if numba is installed and the precision is float32, in
`numba`. The environment variable ``RNN_XP_KERNELS`` = numba | numpy | portable overrides this
choice. The kernels agree to rounding, not to the bit, so a training records which it used.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rnn_xp._checks import install
from rnn_xp._typing import Array, Namespace, Workspace
from rnn_xp.backend import Backend, BackendError
from rnn_xp.backend.arrays import library_name

__all__ = ["Kernels", "joined", "kernels_of", "make_workspace", "pointwise", "two_loop"]

_VARIABLE = "RNN_XP_KERNELS"
_CHOICES = ("numba", "numpy", "portable")


class Kernels(NamedTuple):
    """The kernels that compute whole layers.

    Attributes
    ----------
    name : {"numba", "numpy", "cupy", "portable"}
        Module of this package.
    version : str
        Version of the compiler that made them; empty if there is no separate compiler.

    Examples
    --------
    >>> str(Kernels("numba", "0.61.0")), str(Kernels("numpy"))
    ('numba 0.61.0', 'numpy')
    """

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


def make_workspace(backend: Backend) -> Workspace | None:
    """Make a workspace for one thread, with the kernels for the library.

    Parameters
    ----------
    backend : Backend

    Returns
    -------
    Workspace or None
        The workspace; None if the portable code computes.

    Raises
    ------
    BackendError
        As `kernels_of` does.
    """
    kernels = kernels_of(backend)
    if kernels.name == "portable":
        return None
    module = importlib.import_module(f"rnn_xp.kernels.{kernels.name}")
    workspace: Workspace = module.Workspace(backend.dtype_name)
    return workspace


def kernels_of(backend: Backend) -> Kernels:
    """Choose the kernels that training with a backend uses.

    Parameters
    ----------
    backend : Backend
        The backend of the training. On NumPy there are several kernels; for other libraries
        RNN_XP_KERNELS selects between their own kernels, if any, and ``portable``.

    Returns
    -------
    Kernels

    Raises
    ------
    BackendError
        If RNN_XP_KERNELS has an unknown value, or names numba although numba is not usable or the
        backend does not compute in float32.

    Examples
    --------
    >>> from rnn_xp.backend import get_backend
    >>> kernels_of(get_backend("array_api_strict")).name
    'portable'
    """
    chosen = os.environ.get(_VARIABLE, "").strip()
    if chosen and chosen not in _CHOICES:
        raise BackendError(
            f"{_VARIABLE}={chosen} is not known. Choose one of: {', '.join(_CHOICES)}."
        )
    if backend.name not in ("numpy", "cupy") or chosen == "portable":
        return Kernels("portable")
    if backend.name == "cupy":
        return Kernels("cupy")
    single = backend.dtype_name == "float32"
    if chosen == "numba" and not single:
        raise BackendError(
            f"{_VARIABLE}=numba needs the dtype float32; the backend is {backend}. Choose float32, "
            f"or leave {_VARIABLE} empty: NumPy's own kernels then compute in float64."
        )
    if chosen == "numpy" or not single:
        return Kernels("numpy")
    version, reason = _numba()
    if chosen and reason:
        raise BackendError(
            f"{_VARIABLE}=numba is not available: {reason}. Install it with: "
            f"{install('numba')}, or leave {_VARIABLE} empty."
        )
    return Kernels("numba", version) if version else Kernels("numpy")


def pointwise(
    function: Callable[..., Sequence[Array]],
    operands: Iterable[Sequence[Array]],
    *,
    xp: Namespace,
) -> list[Sequence[Array]]:
    """Apply an elementwise function to each of several sets of arrays.

    On CuPy, where every operation is a launch, the function becomes one kernel.

    Parameters
    ----------
    function : callable
        ``function(*arrays, xp=xp)`` computes a sequence of arrays by + - * / and ``xp.sqrt`` from
        its arguments and from Python numbers, which are the same for each set.
    operands : iterable of sequences of arrays
        Every set has the same number of arrays; within a set all have one shape.
    xp : Namespace

    Returns
    -------
    list of sequences of arrays
        The results for each set.

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


def joined(arrays: Sequence[Array], *, xp: Namespace) -> Array:
    """Return several arrays of one dtype as one vector; on CuPy in one launch.

    Examples
    --------
    >>> import numpy as np
    >>> joined([np.ones((1, 2)), np.zeros(1)], xp=np)
    array([1., 1., 0.])
    """
    if library_name(xp) == "cupy":
        from rnn_xp.kernels.cuda import update

        return update.joined(arrays)
    return xp.concat([xp.reshape(array, (-1,)) for array in arrays])


def two_loop(
    gradient: Array, steps: Sequence[Array], changes: Sequence[Array], *, xp: Namespace
) -> Array | None:
    """Return the direction of `rnn_xp.optim.LBFGS` from at least one pair, or None.

    None says that there is no kernel for these arrays; on CuPy there is one for float32.

    Examples
    --------
    >>> import numpy as np
    >>> two_loop(np.ones(2), [np.ones(2)], [np.ones(2)], xp=np) is None
    True
    """
    if library_name(xp) != "cupy":
        return None
    from rnn_xp.kernels.cuda import two_loop as kernel

    return kernel.two_loop(gradient, steps, changes)


@functools.cache
def _numba() -> tuple[str, str]:
    """Return the version of numba and the reason why it is not usable, one of which is empty."""
    try:
        return str(importlib.import_module("numba").__version__), ""
    except ImportError as error:  # not installed, or not for this version of NumPy
        return "", str(error)
