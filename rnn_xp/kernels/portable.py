"""Kernels in pure Array API: activations with their adjoints, layer normalisation, sums of rows.

Everything here also runs on complex arrays, because the gradient tests evaluate the forward pass
at ``params + 1e-30j * direction``. Hence the code never compares ``z`` itself, only ``real(z)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rnn_xp._typing import Array, Namespace

__all__ = [
    "IDENTITY",
    "RELU",
    "SIGMOID",
    "SOFTMAX",
    "TANH",
    "Activation",
    "normalise",
    "normalise_back",
    "sigmoid",
    "sign",
    "sum_rows",
    "weight_grads",
]


_SUMMED_ROWS = 4096


class Activation(NamedTuple):
    """A function of the last axis or of each entry, and its adjoint.

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


def _identity(z: Array, *, xp: Namespace) -> Array:
    return z


def _identity_back(dh: Array, h: Array, *, xp: Namespace) -> Array:
    return dh


def _tanh(z: Array, *, xp: Namespace) -> Array:
    return xp.tanh(z)


def _tanh_back(dh: Array, h: Array, *, xp: Namespace) -> Array:
    return dh * (1.0 - h * h)


def sigmoid(z: Array, *, xp: Namespace) -> Array:
    """Return the logistic function 1 / (1 + exp(-z)), in a form that cannot overflow.

    ::

        sigmoid(z) = 0.5 * tanh(0.5 * z) + 0.5

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.asarray([-1000.0, 0.0, 1000.0]), xp=np).tolist()
    [0.0, 0.5, 1.0]
    """
    return 0.5 * xp.tanh(0.5 * z) + 0.5


def _sigmoid_back(dh: Array, h: Array, *, xp: Namespace) -> Array:
    return dh * h * (1.0 - h)


def _relu(z: Array, *, xp: Namespace) -> Array:
    # Asked this way round, a NaN stays one: it must not look like an idle unit.
    return xp.where(xp.real(z) <= 0, xp.zeros_like(z), z)


def _relu_back(dh: Array, h: Array, *, xp: Namespace) -> Array:
    # f'(0) = 0, the usual choice of subgradient.
    return xp.where(xp.real(h) <= 0, xp.zeros_like(dh), dh)


def _softmax(z: Array, *, xp: Namespace) -> Array:
    # A shift changes nothing but the risk of overflow, so its derivative may be left out.
    e = xp.exp(z - xp.max(xp.real(z), axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def _softmax_back(dh: Array, h: Array, *, xp: Namespace) -> Array:
    return h * (dh - xp.sum(dh * h, axis=-1, keepdims=True))


IDENTITY = Activation(_identity, _identity_back)
TANH = Activation(_tanh, _tanh_back)
SIGMOID = Activation(sigmoid, _sigmoid_back)
RELU = Activation(_relu, _relu_back)
SOFTMAX = Activation(_softmax, _softmax_back)


def normalise(a: Array, *, eps: float = 1e-5, xp: Namespace) -> tuple[Array, Array]:
    """Normalise each row to mean 0 and variance 1.

    ::

        d = a - mean(a)      inv = 1 / sqrt(mean(d * d) + eps)      n = d * inv

    Parameters
    ----------
    a : Array (..., M, K)
    eps : float
        Small number, added to the variance, that keeps a constant row finite.
    xp : Namespace

    Returns
    -------
    n : Array (..., M, K)
    inv : Array (..., M, 1)
        For `normalise_back`.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv:1607.06450 (2016).

    Examples
    --------
    >>> import numpy as np
    >>> n, inv = normalise(np.asarray([[1.0, 3.0]]), eps=0.0, xp=np)
    >>> n.tolist(), inv.tolist()
    ([[-1.0, 1.0]], [[1.0]])
    """
    size = a.shape[-1]
    d = a - xp.sum(a, axis=-1, keepdims=True) * (1.0 / size)
    inv = 1.0 / xp.sqrt(xp.sum(d * d, axis=-1, keepdims=True) * (1.0 / size) + eps)
    return d * inv, inv


def normalise_back(dn: Array, n: Array, inv: Array, *, xp: Namespace) -> Array:
    """Adjoint of `normalise`: changes of a row's mean or scale have no effect on n.

    ::

        da = inv * (dn - mean(dn) - n * mean(dn * n))

    Parameters
    ----------
    dn : Array (..., M, K)
    n, inv : Array
        Results of `normalise`.
    xp : Namespace

    Returns
    -------
    da : Array (..., M, K)
    """
    share = 1.0 / dn.shape[-1]
    mean = xp.sum(dn, axis=-1, keepdims=True) * share
    along = xp.sum(dn * n, axis=-1, keepdims=True) * share
    return inv * (dn - mean - n * along)


def sign(x: Array, *, xp: Namespace) -> Array:
    """Return the sign of real numbers: -1, 0 or 1; a NaN stays a NaN.

    ``xp.sign`` is not used, because for CuPy array_api_compat writes NaN by a mask, for which the
    host waits.

    Examples
    --------
    >>> import numpy as np
    >>> sign(np.asarray([-2.0, 0.0, 5.0, np.nan]), xp=np).tolist()
    [-1.0, 0.0, 1.0, nan]
    """
    return xp.where(x > 0, 1.0, xp.where(x < 0, -1.0, x))


def sum_rows(a: Array, *, xp: Namespace) -> Array:
    """Sum the rows of a matrix, or of each of many matrices, by products with a row of ones.

    The gradient of a bias is the sum over all rows of ``dz``. As a product it takes the same fast
    path as the weight gradients on every library; a plain reduction over the first axis occupies
    only a few of a GPU's multiprocessors.

    Some libraries add the terms of a product one after the other, which loses digits: 6 % of a sum
    of 1e7 equal terms in float32. So more than 4096 rows are summed in blocks of 4096, then the
    sums of the blocks in the same way.

    Parameters
    ----------
    a : Array (..., M, K)
    xp : Namespace

    Returns
    -------
    Array (..., K)

    Examples
    --------
    >>> import numpy as np
    >>> sum_rows(np.asarray([[1.0, 2.0], [3.0, 4.0]]), xp=np).tolist()
    [4.0, 6.0]
    """
    *lead, rows, columns = a.shape
    if rows <= _SUMMED_ROWS:
        ones = xp.ones_like(xp.matrix_transpose(a[..., :, :1]))
        return xp.reshape(xp.matmul(ones, a), (*lead, columns))
    blocks = rows // _SUMMED_ROWS
    whole = xp.reshape(a[..., : blocks * _SUMMED_ROWS, :], (*lead, blocks, _SUMMED_ROWS, columns))
    sums = sum_rows(whole, xp=xp)
    if blocks * _SUMMED_ROWS < rows:
        rest = sum_rows(a[..., blocks * _SUMMED_ROWS :, :], xp=xp)
        sums = xp.concat([sums, xp.reshape(rest, (*lead, 1, columns))], axis=-2)
    return sum_rows(sums, xp=xp)


def weight_grads(
    left: Array, rights: Sequence[Array], *, xp: Namespace
) -> tuple[list[Array], Array]:
    """Return the gradients of weights, and that of a bias, as sums over rows.

    Parameters
    ----------
    left : Array (..., M, K)
    rights : sequence of Array (..., M, *)
    xp : Namespace

    Returns
    -------
    products : list of Array (..., K, *)
        left.T @ right for each.
    sums : Array (..., K)
        The sum of the rows of ``left``.
    """
    transposed = xp.matrix_transpose(left)
    return [xp.matmul(transposed, right) for right in rights], sum_rows(left, xp=xp)
