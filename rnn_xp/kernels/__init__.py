"""Pointwise mathematics and whole layers: the one place where speed may differ by library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rnn_xp._typing import Array, Namespace, Workspace
from rnn_xp.backend import Backend
from rnn_xp.backend.arrays import library_name

__all__ = ["make_workspace", "pointwise"]


def make_workspace(backend: Backend) -> Workspace | None:
    """Make a workspace for one thread, with the library's own kernels; None if it has none."""
    if backend.name == "numpy":
        from rnn_xp.kernels import numpy

        return numpy.Workspace(backend.dtype_name)
    if backend.name == "cupy":
        from rnn_xp.kernels import cupy

        return cupy.Workspace(backend.dtype_name)
    return None


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
