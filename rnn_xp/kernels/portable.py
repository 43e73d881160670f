"""Kernels in pure Array API: activations with their adjoints, and the sum over rows.

Everything here also runs on complex arrays, because the gradient tests evaluate the forward pass
at ``params + 1e-30j * direction``. Hence no comparison of ``z`` itself, only of ``real(z)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rnn_xp._typing import Array, Namespace

__all__ = ["RELU", "TANH", "Activation", "sum_rows"]


class Activation(NamedTuple):
    """A pointwise function and its adjoint.

    Attributes
    ----------
    forward : callable
        ``h = forward(z, xp=xp)``.
    backward : callable
        ``dz = backward(dh, h, xp=xp)``. It takes the *output* ``h``, not ``z``: for every
        activation here f'(z) is a function of f(z), so ``z`` need not be kept.
    """

    forward: Callable[..., Array]
    backward: Callable[..., Array]


def _tanh(z: Array, *, xp: Namespace) -> Array:
    return xp.tanh(z)


def _tanh_back(dh: Array, h: Array, *, xp: Namespace) -> Array:
    return dh * (1.0 - h * h)


def _relu(z: Array, *, xp: Namespace) -> Array:
    return xp.where(xp.real(z) > 0, z, xp.zeros_like(z))


def _relu_back(dh: Array, h: Array, *, xp: Namespace) -> Array:
    # f'(0) = 0, the usual choice of subgradient.
    return xp.where(xp.real(h) > 0, dh, xp.zeros_like(dh))


TANH = Activation(_tanh, _tanh_back)
RELU = Activation(_relu, _relu_back)


def sum_rows(a: Array, *, xp: Namespace) -> Array:
    """Sum over axis 0 of a matrix, written as a matrix product with a row of ones.

    The gradient of a bias is the sum over all rows of ``dz``. As a product it takes the same fast
    path as the weight gradients on every library; a plain reduction over the first axis occupies
    only a few of a GPU's multiprocessors.

    Parameters
    ----------
    a : Array (M, K)
    xp : Namespace

    Returns
    -------
    Array (K,)

    Examples
    --------
    >>> import numpy as np
    >>> sum_rows(np.asarray([[1.0, 2.0], [3.0, 4.0]]), xp=np).tolist()
    [4.0, 6.0]
    """
    ones = xp.ones_like(xp.matrix_transpose(a[:, 0:1]))
    return xp.reshape(xp.matmul(ones, a), (a.shape[1],))
