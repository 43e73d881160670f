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

A simple cell has one gate, and R h as many rows as its product. There the product q = c h itself is
normalised, to y = q inv, and multiplied by its gain, which saves three of six products::

    dq = inv * (gain d - y mean(gain d y))    dh = c.T dq    dgain = sum(d y)    dw = dq h.T - mean
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Floats",
    "Norm",
    "NormBack",
    "Params",
    "by_product",
    "centred",
    "triangle",
    "unscaled",
]

Floats = NDArray[np.floating[Any]]
Params = dict[str, Floats]

_EPS = 1e-5  # as in `rnn_xp.kernels.portable.normalise`


class Norm:
    """The factors of a layer's inputs and states, and the weights that they enter.

    Parameters
    ----------
    params : Params
        With the gains g_xh and g_hh.
    dtype : dtype

    Attributes
    ----------
    centred : Params
        The weights without their means.
    params : Params
        The same with the gains in the weights, for plain products.
    inv_x, inv_h : T ndarray (1, n)
        The factors of the columns of each step.
    direct : bool
        If True, products of states are normalised themselves.
    normal : T ndarray (H, n)
        These, without their gains.
    """

    def __init__(self, params: Params, dtype: Any) -> None:
        given = {key: np.asarray(param) for key, param in params.items()}
        self.centred = {w: centred(given[w]) for w in ("w_xh", "w_hh")}
        self.gains = {"w_xh": given["g_xh"][:, None], "w_hh": given["g_hh"][:, None]}
        self.gates, size = given["w_hh"].shape
        self.direct = self.gates == size
        scaled = {w: self.gains[w] * c for w, c in self.centred.items()}
        self.params = {**given, **scaled}
        self.r_h, terms = self.centred["w_hh"], 1.0 / self.gates
        if self.direct:
            self.params["w_hh"] = self.r_h
        else:
            self.r_h, terms = triangle(self.r_h), 1.0
        self.sum = np.full((1, len(self.r_h) + 1), terms, dtype)
        self.sum[0, -1] = _EPS

    def lay_out(self, tape: Any) -> None:
        """Take the arrays of all steps, and multiply all inputs that are known by their factors."""
        self.inv_x = tape.take("inverses of inputs", 1, shared=False)
        self.r_x, self.entering_x = triangle(self.centred["w_xh"]), tape.entering_x
        self.ones, self.take = np.ones((1, len(self.r_x)), self.r_x.dtype), tape.workspace.take
        if tape.course.feedback is None:
            for x, inv in zip(tape.entering_x.pieces, self.inv_x.pieces, strict=True):
                self._scale_inputs(x, inv, x)
        self.lay_out_states(tape, tape.entering_h)

    def lay_out_states(self, tape: Any, entering_h: Any, name: str = "") -> None:
        """Take the arrays of all steps for what enters the product, T arrays (H, n)."""
        rows = len(self.r_h)
        self.inv_h = tape.take(f"{name}inverses", 1)
        self.squares = tape.take(f"{name}q", rows + 1, shared=True)
        for squares in self.squares.pieces:
            squares[:, rows] = 1.0  # times eps
        self.normal = tape.take(f"{name}normal", rows) if self.direct else self.squares
        self.entering_h = entering_h

    def _scale_inputs(self, x: Floats, inv: Floats, out: Floats) -> None:
        """Multiply inputs of one step or several, (..., I, n), by their factors."""
        *steps, _, columns = x.shape
        q = np.matmul(self.r_x, x, out=self.take("q_x", *steps, len(self.r_x), columns))
        np.multiply(q, q, out=q)
        np.matmul(self.ones, q, out=inv)
        inv += _EPS
        _invert(inv)
        np.multiply(x, inv, out=out)

    def enter(self, s: int, x: Floats) -> None:
        """Multiply the input of a step, (I, n), by its factors."""
        self._scale_inputs(x, self.inv_x.each[s], self.entering_x.each[s])

    def scale(self, s: int, h: Floats, out: Floats) -> None:
        """Multiply the state that enters a step, (H, n), by its factors."""
        inv, squares = self.inv_h.each[s], self.squares.each[s]
        q = squares[:-1]
        np.matmul(self.r_h, h, out=q)
        np.multiply(q, q, out=q)
        _invert(np.matmul(self.sum, squares, out=inv))
        np.multiply(h, inv, out=out)

    def add(self, s: int, gain: Floats, z: Floats) -> None:
        """Add the normalised product of the state that enters a step, times a gain."""
        inv, squares, y = self.inv_h.each[s], self.squares.each[s], self.normal.each[s]
        term = squares[:-1]
        np.matmul(self.r_h, self.entering_h.each[s], out=y)
        np.multiply(y, y, out=term)
        _invert(np.matmul(self.sum, squares, out=inv))
        np.multiply(y, inv, out=y)
        np.multiply(y, gain, out=term)
        z += term


class NormBack:
    """The adjoint of `Norm`: of stretches of steps, of each step, and in the end of all inputs."""

    def __init__(self, norm: Norm, tape: Any) -> None:
        self.norm, self.tape, self.take = norm, tape, tape.workspace.take
        self.direct = norm.direct
        self.gram_h, self.gram_x = (
            np.matmul(c.T, c) / np.asarray(len(c), c.dtype)
            for c in (norm.centred["w_hh"], norm.centred["w_xh"])
        )
        self.sums = {"w_hh": np.zeros_like(self.gram_h), "w_xh": np.zeros_like(self.gram_x)}
        self.dgain = np.zeros_like(norm.gains["w_hh"])
        self.ones = np.ones((1, tape.size), norm.r_h.dtype)
        self.mean = np.asarray(norm.gains["w_hh"].T / norm.gates, norm.r_h.dtype)

    def begin(self, steps: slice) -> None:
        """Compute what the steps of a stretch need."""
        self.start, tape = steps.start, self.tape
        k = self.k = tape.part(self.norm.entering_h, steps)
        length, size, columns = k.shape
        self.a = self.take("e k", size, columns)
        if self.direct:
            self.e = self.take("mean of terms", 1, columns)
            self.terms = self.take("terms of gains", *k.shape)
        else:
            self.e = self.take("e", length, 1, columns)
            self.gram_k = np.matmul(self.gram_h, k, out=self.take("gram k", *k.shape))

    def through(self, s: int, dk: Floats) -> None:
        """Turn the gradient of a scaled state into that of the state, in place."""
        at, a = s - self.start, self.a
        np.multiply(dk, self.k[at], out=a)
        e = np.matmul(self.ones, a, out=self.e[at])
        np.multiply(self.gram_k[at], e, out=a)
        dk -= a
        dk *= self.norm.inv_h.each[s]

    def sum_of(self) -> tuple[Floats, Floats]:
        """Return the two factors, e k and k, of the sum S of a stretch."""
        return np.multiply(self.k, self.e, out=self.gram_k), self.k

    def straighten(self, s: int, d: Floats, dq: Floats) -> None:
        """Turn d, the gradient of a step's gain * y, into that of the product, dq."""
        norm, terms, e, a = self.norm, self.terms[s - self.start], self.e, self.a
        y = norm.normal.each[s]
        np.multiply(d, y, out=terms)
        np.matmul(self.mean, terms, out=e)
        np.multiply(y, e, out=a)
        np.multiply(d, norm.gains["w_hh"], out=dq)
        dq -= a
        dq *= norm.inv_h.each[s]

    def add_gain(self) -> None:
        """Add the gradient of the gain of a stretch."""
        ones = np.ones((self.terms.shape[2], 1), self.terms.dtype)
        self.dgain += np.matmul(self.terms, ones).sum(axis=0)

    def inputs(self, steps: slice, dk: Floats) -> None:
        """Turn the gradients of scaled inputs, (k, I, n), into those of the inputs, in place."""
        k, inv = (
            self.tape.part(arrays, steps) for arrays in (self.tape.entering_x, self.norm.inv_x)
        )
        ones = np.ones((1, k.shape[1]), dk.dtype)
        a = np.multiply(dk, k, out=self.take("e k_x", *k.shape))
        e = np.matmul(ones, a, out=self.take("e_x", *inv.shape))
        np.multiply(k, e, out=a)
        self.sums["w_xh"] += np.matmul(a, k.transpose(0, 2, 1)).sum(axis=0)
        dk -= np.matmul(self.gram_x, a, out=self.take("gram k_x", *k.shape))
        dk *= inv

    def grads(self, grads: Params) -> Params:
        """Return the gradients of the weights and gains, given those of the plain products."""
        norm, made = self.norm, dict(grads)
        for w, gain in (("w_xh", "g_xh"), ("w_hh", "g_hh")):
            c, gains = norm.centred[w], norm.gains[w]
            if norm.direct and w == "w_hh":
                made[w], made[gain] = centred(grads[w]), self.dgain[:, 0]
            else:
                made[w], made[gain] = unscaled(grads[w], c, gains, self.sums[w])
        return made


def _invert(mean: Floats) -> None:
    """Replace a mean of squares by one divided by its root."""
    np.sqrt(mean, out=mean)
    np.reciprocal(mean, out=mean)


def centred(w: Floats) -> Floats:
    """Take the mean over its rows out of a matrix, of weights or of their gradients."""
    return np.asarray(w - np.mean(w, axis=0), w.dtype)


def triangle(c: Floats) -> Floats:
    """Return R, such that the mean of (c h)^2 is the sum of (R h)^2."""
    return np.asarray(np.linalg.qr(c, mode="r") / np.sqrt(len(c)), c.dtype)


def unscaled(dw: Floats, c: Floats, gain: Floats, sums: Floats) -> tuple[Floats, Floats]:
    """Return the gradients of w and of its gain (G*H, 1), given dW of W = gain c, and S."""
    through = np.matmul(c, sums) / np.asarray(len(c), c.dtype)
    return centred(gain * dw) - through, np.sum(dw * c, axis=1)


def by_product(params: Params) -> tuple[Params, Params]:
    """Return a GRU's parameters with the rows of w_hh for r and z, and with those for n."""
    parts = dict(params), dict(params)
    for key in {"w_hh", "g_hh"} & params.keys():
        size = params["w_hh"].shape[1]
        parts[0][key], parts[1][key] = np.split(np.asarray(params[key]), [2 * size])
    return parts
