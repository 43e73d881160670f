"""Limits on the size of gradients."""

from __future__ import annotations

from rnn_xp._typing import Params
from rnn_xp.backend import array_namespace
from rnn_xp.optim.flat import flatten, unflatten

__all__ = ["clip_entries", "clip_to_norm"]


def clip_entries(grads: Params, limit: float) -> Params:
    """Return the gradient with every entry cut to [-limit, limit].

    Examples
    --------
    >>> import numpy as np
    >>> clip_entries({"w": np.asarray([-3.0, 0.5])}, 1.0)["w"].tolist()
    [-1.0, 0.5]
    """
    xp, flat = array_namespace(*grads.values()), flatten(grads)  # one vector, see `clip_to_norm`
    # Not xp.clip: for CuPy, array_api_compat makes it of masked reads, which wait for the device.
    return unflatten(xp.where(flat > limit, limit, xp.where(flat < -limit, -limit, flat)), grads)


def clip_to_norm(grads: Params, limit: float) -> Params:
    """Return the gradient, with all arrays taken as one vector, shortened to a norm of ``limit``.

    ::

        g = g * limit / |g|      if |g| > limit

    The direction stays the same. A gradient that is short enough, or zero, keeps its bits.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural
           networks", ICML 2013, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> grads = {"w": np.asarray([[3.0]]), "b": np.asarray([4.0])}
    >>> {name: round(float(g.sum()), 12) for name, g in clip_to_norm(grads, 1.0).items()}
    {'w': 0.6, 'b': 0.8}
    """
    xp = array_namespace(*grads.values())
    # As one vector, since for some libraries every operation on an array costs a launch.
    # |g| = unit * size. Squares of entries relative to the unit cannot overflow, nor can 1 / unit,
    # by which some libraries multiply, become subnormal and be taken for zero; and size is at
    # least 8, so that nothing here is out of range where the gradient is not.
    flat = flatten(grads)
    eighth = 0.125 * xp.max(xp.abs(flat))
    one = xp.ones_like(eighth)
    unit = xp.where(eighth > 0.0, eighth, one)
    relative = flat / unit
    size = xp.where(eighth > 0.0, xp.sqrt(xp.sum(relative * relative)), one)
    allowed = limit / size  # for the unit
    return unflatten(xp.where(eighth > allowed, relative * allowed, flat), grads)
