"""Layer normalisation of NumPy's layers: both products of a step, and their adjoints.

A product is normalised over its G*H rows, in each column. The mean is taken out of the weights once
for the whole sequence, since the mean over the rows of w h is that of w, times h::

    c = (w - mean(w)) h      inv = 1 / sqrt(mean(c * c) + eps)      n = c * inv      out = gain * n
    dc = inv * (dn - n * mean(dn * n))     dn = dout * gain         dw = dc h.T - mean(dc h.T)

The first product is that of the input, the second that of the state; both lie in one array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Norm", "NormBack", "Params"]

Floats = NDArray[np.floating[Any]]
Params = dict[str, Floats]

_EPS = 1e-5  # as in `rnn_xp.kernels.portable.normalise`


class Norm:
    """The normalised products of a layer's steps.

    Parameters
    ----------
    params : Params
    factors : ndarray (G*H,)
        Factors of the results, which the pointwise functions expect.
    tape : Tape

    Attributes
    ----------
    w_hh, w_xh : ndarray
        The weights without their means.
    gains : ndarray (2, G*H)
    n : list of T ndarray (2, G*H, n)
    inv : list of T ndarray (2, n)
    """

    def __init__(self, params: Params, factors: Floats, tape: Any) -> None:
        self.w_hh, self.w_xh = (_centred(params[name]) for name in ("w_hh", "w_xh"))
        self.gains = np.stack([params["g_xh"], params["g_hh"]])
        self.scaled = (self.gains * factors)[:, :, None]
        self.b_h, self.tape = (params["b_h"] * factors)[:, None], tape
        self.n, self.inv = tape.take("normalised", 2, len(self.b_h)), tape.take("inverses", 2)

    def products(self, s: int) -> tuple[Floats, Floats]:
        """Return the input's part with the bias, and the state's part, times the factors."""
        tape, n, inv = self.tape, self.n[s], self.inv[s]
        entered, size, take = tape.entering[s], tape.size, tape.workspace.take
        np.matmul(self.w_xh, entered[size + 1 :], out=n[0])
        np.matmul(self.w_hh, entered[:size], out=n[1])
        out: Floats = take("products", *n.shape)
        np.multiply(n, n, out=out)
        np.matmul(_share(n), out, out=inv[:, None, :])
        inv += _EPS
        np.sqrt(inv, out=inv)
        np.reciprocal(inv, out=inv)
        n *= inv[:, None, :]
        np.multiply(n, self.scaled, out=out)
        out[0] += self.b_h
        return out[0], out[1]


class NormBack:
    """The adjoint of `Norm`, step by step, with the sums of its own gradients."""

    def __init__(self, norm: Norm, wrt_input: bool) -> None:
        self.norm, self.dgains = norm, np.zeros_like(norm.gains)
        self.db_h = np.zeros_like(norm.gains[0])

    def back(self, s: int, d: Floats, d_x: Floats) -> tuple[Floats, Floats]:
        """Return the gradients of the recurrent product and of the input's, without their gains."""
        norm, n, inv = self.norm, self.norm.n[s], self.norm.inv[s]
        take, ones = norm.tape.workspace.take, np.ones(n.shape[2], n.dtype)
        dc, along = take("dc", *n.shape), take("along", *n.shape)
        self.db_h += np.matmul(d_x, ones)
        for k, out in enumerate((d_x, d)):
            np.multiply(out, n[k], out=along[k])
            np.multiply(out, norm.gains[k][:, None], out=dc[k])
        self.dgains += np.matmul(along, ones)
        means = np.matmul(norm.gains[:, None, :] * _share(n), along)
        np.multiply(n, means, out=along)
        dc -= along
        dc *= inv[:, None, :]
        return dc[1], dc[0]

    def grads(self, grads: Params) -> Params:
        """Take the means out of the gradients of the weights, and add those of the gains."""
        return {
            "w_hh": _centred(grads["w_hh"]),
            "b_h": self.db_h,
            "w_xh": _centred(grads["w_xh"]),
            "g_xh": self.dgains[0],
            "g_hh": self.dgains[1],
        }


def _centred(w: Floats) -> Floats:
    """Take the mean over the rows out of a matrix."""
    return np.asarray(w - np.mean(w, axis=0), w.dtype)


def _share(n: Floats) -> Floats:
    """Return the row whose product with a matrix is the mean over its rows."""
    rows = n.shape[1]
    return np.full((1, rows), 1.0 / rows, n.dtype)
