"""Cholesky decompositions whose work is in products of matrices, on any Array API library.

A library's own decomposition may be slow (in float32, NumPy's takes three times as long), and the
standard has no triangular solve. Both come down to products if the matrix is halved::

    [A11  A21^T]   [L11   0 ] [L11^T  L21^T]        L11 L11^T = A11
    [A21  A22  ] = [L21  L22] [  0    L22^T]        L21       = A21 L11^-T
                                                    L22 L22^T = A22 - L21 L21^T
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend import device_of

__all__ = ["Halves", "Triangle", "cholesky", "solve"]

_SMALL = 128  # rows of a matrix that the library decomposes itself


class Halves(NamedTuple):
    """A lower triangular matrix, cut as above.

    Attributes
    ----------
    top, bottom : Halves or Array
        L11 and L22; where they are small, the inverse of each.
    below : Array
        L21.
    """

    top: Any
    below: Array
    bottom: Any


Triangle: TypeAlias = Halves | Array
"""A lower triangular matrix: its halves or, if it is small, its inverse."""


def cholesky(matrix: Array, shift: Any, *, xp: Namespace) -> Triangle | None:
    """Return the lower triangular L with L L^T = matrix + shift * I.

    Parameters
    ----------
    matrix : Array (P, P)
        A symmetric matrix.
    shift : float or Array ()
        What is added to its diagonal.
    xp : Namespace
        The namespace of the matrix's library.

    Returns
    -------
    Triangle or None
        L; None if the library finds that the matrix is not positive definite. Libraries that report
        nothing, such as CuPy and JAX, return NaN.

    References
    ----------
    .. [1] F. G. Gustavson, "Recursion leads to automatic variable blocking for dense linear-algebra
           algorithms", IBM J. Res. Dev. 41 (1997), 737-755.

    Examples
    --------
    >>> import numpy as np
    >>> solve(cholesky(np.asarray([[3.0, 2.0], [2.0, 3.0]]), 1.0, xp=np), np.ones(2), xp=np)
    array([0.16666667, 0.16666667])
    """
    try:
        return _halved(matrix, shift, xp=xp)
    except (ValueError, RuntimeError):  # LinAlgError of NumPy, of torch
        return None


def _halved(matrix: Array, shift: Any, *, xp: Namespace) -> Triangle:
    size = matrix.shape[0]
    if size <= _SMALL:
        unit = xp.eye(size, dtype=matrix.dtype, device=device_of(matrix))
        return xp.linalg.solve(xp.linalg.cholesky(matrix + shift * unit), unit)
    half = size // 2
    top = _halved(matrix[:half, :half], shift, xp=xp)
    below = _solve_from_right(top, matrix[half:, :half], xp=xp)
    rest = matrix[half:, half:] - xp.matmul(below, xp.matrix_transpose(below))
    return Halves(top, below, _halved(rest, shift, xp=xp))


def _solve_from_right(triangle: Triangle, matrix: Array, *, xp: Namespace) -> Array:
    """Return matrix L^-T."""
    if not isinstance(triangle, Halves):
        return xp.matmul(matrix, xp.matrix_transpose(triangle))
    top, below, bottom = triangle
    half = below.shape[1]
    left = _solve_from_right(top, matrix[:, :half], xp=xp)
    rest = matrix[:, half:] - xp.matmul(left, xp.matrix_transpose(below))
    return xp.concat([left, _solve_from_right(bottom, rest, xp=xp)], axis=1)


def solve(triangle: Triangle, right: Array, *, xp: Namespace) -> Array:
    """Return (L L^T)^-1 right.

    Parameters
    ----------
    triangle : Triangle
        L, as `cholesky` returns it.
    right : Array (P,)
    xp : Namespace

    Returns
    -------
    Array (P,)
    """
    return _backward(triangle, _forward(triangle, right, xp=xp), xp=xp)


def _forward(triangle: Triangle, right: Array, *, xp: Namespace) -> Array:
    """Return L^-1 right."""
    if not isinstance(triangle, Halves):
        return xp.matmul(triangle, right)
    top, below, bottom = triangle
    half = below.shape[1]
    first = _forward(top, right[:half], xp=xp)
    rest = right[half:] - xp.matmul(below, first)
    return xp.concat([first, _forward(bottom, rest, xp=xp)])


def _backward(triangle: Triangle, right: Array, *, xp: Namespace) -> Array:
    """Return L^-T right."""
    if not isinstance(triangle, Halves):
        return xp.matmul(xp.matrix_transpose(triangle), right)
    top, below, bottom = triangle
    half = below.shape[1]
    last = _backward(bottom, right[half:], xp=xp)
    rest = right[:half] - xp.matmul(xp.matrix_transpose(below), last)
    return xp.concat([_backward(top, rest, xp=xp), last])
