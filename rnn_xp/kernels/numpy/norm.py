"""Layer normalisation of NumPy's layers, as factors of what enters a plain product.

The mean over the G*H rows of w h is that of w, times h, so it is taken out of the weights once for
a whole sequence. What is left of the normalisation is a number for each column, and the gains,
which are put into the weights::

    c = w - mean(w)      inv = 1 / sqrt(mean((c h)^2) + eps)
    gain * (c h * inv) = (gain c) (h inv)

Nor does that number need the product: with c = Q R, mean((c h)^2) is the sum of (R h)^2 over G*H,
and R has no more than H rows. With W = gain c, k = h inv, the dW of the plain product, and
K = c.T c / (G*H), the adjoint is::

    dk = W.T d         e = sum(dk * k)                    dh = inv * (dk - K (e k))
    dgain = sum(dW c)  S = sum over columns of e k k.T    dw = gain dW - mean(gain dW) - c S / (G*H)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Norm", "NormBack", "Params", "centred", "triangle", "unscaled"]

Floats = NDArray[np.floating[Any]]
Params = dict[str, Floats]

_EPS = 1e-5  # as in `rnn_xp.kernels.portable.normalise`


class Norm:
    """The factors of a layer's inputs and states, and the weights that they enter.

    Parameters
    ----------
    params : Params
        With the gains g_xh and g_hh.
    xs : ndarray (T, N, I)
        In the order of the steps.
    workspace : Workspace
    name : str
        Prefix of the layer's buffers.

    Attributes
    ----------
    centred : Params
        The weights without their means.
    params : Params
        The same with the gains in the weights, for plain products.
    inv_x : ndarray (T, N, 1)
    xs : ndarray (T, N, I)
        The inputs, times these.
    inv_h : ndarray (T, 1, N)
        Of the rows that compute each step.
    """

    def __init__(self, params: Params, xs: Floats, workspace: Any, name: str) -> None:
        xs = np.asarray(xs)
        steps, rows, _ = xs.shape
        given = {key: np.asarray(param) for key, param in params.items()}
        self.centred = {w: centred(given[w]) for w in ("w_xh", "w_hh")}
        self.gains = {"w_xh": given["g_xh"][:, None], "w_hh": given["g_hh"][:, None]}
        scaled = {w: self.gains[w] * c for w, c in self.centred.items()}
        self.params = {**given, **scaled}
        self.workspace, self.gates = workspace, len(params["b_h"])
        r_x, self.r_h = (triangle(self.centred[w], self.gates) for w in ("w_xh", "w_hh"))
        products = np.matmul(xs, r_x.T)
        mean = np.sum(products * products, axis=2, keepdims=True)
        self.inv_x = 1.0 / np.sqrt(mean + _EPS)
        self.xs = xs * self.inv_x
        self.inv_h: Floats = workspace.take(f"{name}inverses", steps, 1, rows)
        self.ones = np.ones((1, len(self.r_h)), self.r_h.dtype)

    def scale(self, s: int, h: Floats, out: Floats) -> None:
        """Multiply the state that enters a step, (H, n), by its factors."""
        inv, q = self.inv_h[s, :, : h.shape[1]], self.workspace.take("q", *h.shape)
        np.matmul(self.r_h, h, out=q)
        q *= q
        np.matmul(self.ones, q, out=inv)
        inv += _EPS
        np.sqrt(inv, out=inv)
        np.reciprocal(inv, out=inv)
        np.multiply(h, inv, out=out)


class NormBack:
    """The adjoint of `Norm`, step by step for the states and at the end for the inputs."""

    def __init__(self, norm: Norm) -> None:
        self.norm = norm
        self.gram_h, self.gram_x = (
            np.matmul(c.T, c) / np.asarray(norm.gates, c.dtype)
            for c in (norm.centred["w_hh"], norm.centred["w_xh"])
        )
        self.sums = {"w_hh": np.zeros_like(self.gram_h), "w_xh": np.zeros_like(self.gram_x)}

    def through(self, s: int, dk: Floats, k: Floats) -> None:
        """Turn the gradient of a scaled state into that of the state, in place."""
        norm, take = self.norm, self.norm.workspace.take
        a, e = take("a", *k.shape), take("e", 1, k.shape[1])
        np.multiply(dk, k, out=a)
        np.matmul(norm.ones, a, out=e)
        np.multiply(k, e, out=a)
        self.sums["w_hh"] += np.matmul(a, k.T)
        dk -= np.matmul(self.gram_h, a, out=take("q", *k.shape))
        dk *= norm.inv_h[s, :, : k.shape[1]]

    def inputs(self, dks: Floats) -> Floats:
        """Turn the gradients of all scaled inputs, (T, N, I), into those of the inputs."""
        ks = self.norm.xs
        a = ks * np.sum(dks * ks, axis=2, keepdims=True)
        inputs = ks.shape[2]
        self.sums["w_xh"] += np.matmul(a.reshape(-1, inputs).T, ks.reshape(-1, inputs))
        dxs: Floats = (dks - np.matmul(a, self.gram_x)) * self.norm.inv_x
        return dxs

    def grads(self, grads: Params) -> Params:
        """Return the gradients of the weights and gains, given those of the plain products."""
        norm, made = self.norm, dict(grads)
        for w, gain in (("w_xh", "g_xh"), ("w_hh", "g_hh")):
            c, gains = norm.centred[w], norm.gains[w]
            made[w], made[gain] = unscaled(grads[w], c, gains, self.sums[w])
        return made


def centred(w: Floats) -> Floats:
    """Take the mean over its rows out of a matrix, of weights or of their gradients."""
    return np.asarray(w - np.mean(w, axis=0), w.dtype)


def triangle(c: Floats, gates: int) -> Floats:
    """Return R, such that the mean of (c h)^2 is the sum of (R h)^2."""
    return np.asarray(np.linalg.qr(c, mode="r") / np.sqrt(gates), c.dtype)


def unscaled(dw: Floats, c: Floats, gain: Floats, sums: Floats) -> tuple[Floats, Floats]:
    """Return the gradients of w and of its gain (G*H, 1), given dW of W = gain c, and S."""
    through = np.matmul(c, sums) / np.asarray(len(c), c.dtype)
    return centred(gain * dw) - through, np.sum(dw * c, axis=1)
