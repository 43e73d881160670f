"""Pointwise mathematics and whole layers: the one place where speed may differ by library."""

from rnn_xp._typing import Workspace
from rnn_xp.backend import Backend

__all__ = ["make_workspace"]


def make_workspace(backend: Backend) -> Workspace | None:
    """Make a workspace for one thread, with the library's own kernels; None if it has none."""
    if backend.name != "numpy":
        return None
    from rnn_xp.kernels import numpy

    return numpy.Workspace(backend.dtype_name)
