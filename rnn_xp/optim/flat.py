"""Parameters as one vector, and back."""

from __future__ import annotations

import itertools
import math

from rnn_xp._typing import Array, Params
from rnn_xp.backend import array_namespace
from rnn_xp.kernels import joined

__all__ = ["flatten", "unflatten"]


def flatten(params: Params) -> Array:
    """Return all parameters as one vector (P,), sorted by name."""
    xp = array_namespace(*params.values())
    return joined([params[name] for name in sorted(params)], xp=xp)


def unflatten(flat: Array, like: Params) -> Params:
    """Return a vector (P,) as a dict with the names, the shapes and the order of another.

    Examples
    --------
    >>> import numpy as np
    >>> like = {"w": np.zeros((2, 1)), "b": np.zeros(1)}
    >>> unflatten(flatten({"w": np.asarray([[1.0], [2.0]]), "b": np.asarray([3.0])}), like)["b"]
    array([3.])
    """
    xp, names = array_namespace(flat), sorted(like)
    ends = list(itertools.accumulate(math.prod(like[name].shape) for name in names))
    spans = dict(zip(names, itertools.pairwise([0, *ends]), strict=True))
    return {
        name: xp.reshape(flat[slice(*spans[name])], array.shape) for name, array in like.items()
    }
