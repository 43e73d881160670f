"""Layer normalisation of the compiled layers: both products of a step, and their adjoints.

The mean is taken out of the weights once for a whole sequence. Inputs are then divided by the
deviations of their products before a plain product, as `rnn_xp.kernels.numpy.norm` does, which has
the equations. The products of states are normalised themselves, over their G*H columns: with the
tiles in the cache that is less than two more products of H columns.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.kernels.numba.lanes import columns, lanewise
from rnn_xp.kernels.numba.layer import TILE, collect, give_dx, project, pull_back
from rnn_xp.kernels.numba.product import compiled, pack, reordered, spaced
from rnn_xp.kernels.numpy.norm import centred, triangle, unscaled

__all__ = [
    "Norm",
    "NormBack",
    "norm_grads",
    "normalised",
    "normalised_back",
    "through_norm",
]

_EPS = np.float32(1e-5)  # as in `rnn_xp.kernels.portable.normalise`

_Floats = NDArray[np.floating[Any]]


def _empty(*axes: int) -> list[_Floats]:
    """Return empty arrays with so many axes, which compiled code is told instead of None."""
    return [np.zeros((0,) * count, np.float32) for count in axes]


class Norm(NamedTuple):
    """What normalised products need; the arrays are empty if there is no normalisation.

    Attributes
    ----------
    r_x : ndarray
        The triangle R of the inputs' weights, packed: |R x| is the deviation of their product.
    w_x : ndarray
        Weights of [1, x], packed: the bias, and those of inputs without their mean and with their
        gains, all times the factors that the pointwise functions expect.
    w_xn : ndarray
        Those of its last columns that are not added to the state's product.
    w_h : ndarray
        The weights of the states without their means, packed.
    gain_h : ndarray (G*H,)
        The gains of the state's product, times the factors.
    b_hn : ndarray (H,)
        The bias of a state's product that is not added to the input's; empty for other cells.
    q_x : ndarray (TILE, ~I)
        R x of the step at hand.
    c_h : ndarray (T, N, ~G*H)
        The state's products before they are normalised; (1, N, ~G*H) if nothing goes back.
    inv : ndarray (2, T, N)
        The inverse deviations of both.
    """

    r_x: _Floats
    w_x: _Floats
    w_xn: _Floats
    w_h: _Floats
    gain_h: _Floats
    b_hn: _Floats
    q_x: _Floats
    c_h: _Floats
    inv: _Floats

    @classmethod
    def of(cls, params: Any, factors: Any, tape: Any, kept: int) -> Norm:
        """Prepare a pass that keeps so many steps; empty unless the parameters have gains."""
        if "g_hh" not in params:
            return cls(*_empty(3, 3, 3, 3, 1, 1, 2, 3, 3))
        c_x, c_h = (centred(np.asarray(params[w])) for w in ("w_xh", "w_hh"))
        take, (steps, rows, _) = tape.workspace.take, tape.hs[1:].shape
        b_hn = np.array(params.get("b_hn", ()), np.float32)
        w_x = np.asarray(params["g_xh"])[:, None] * c_x
        w_x = (np.concatenate([np.asarray(params["b_h"])[:, None], w_x], axis=1).T) * factors
        both = len(factors) - len(b_hn)
        return cls(
            pack(triangle(c_x, len(factors)).T),
            pack(w_x[:, :both]),
            pack(w_x[:, both:]),
            pack(c_h.T),
            np.asarray(params["g_hh"]) * factors,
            b_hn,
            take("q_x", TILE, spaced(c_x.shape[1])),
            take(f"{tape.name}products", kept, rows, spaced(len(factors))),
            take(f"{tape.name}inverses", 2, steps, rows),
        )


class NormBack(NamedTuple):
    """What the way back through normalised products needs.

    Attributes
    ----------
    w_x, w_h : ndarray
        Weights of the inputs without their mean and with their gains, and of the states without
        their mean, packed for the way back.
    gram_x : ndarray (I, I), packed
        K, which takes the gradient of a deviation to the input.
    gain_h, dgain_h : ndarray (G*H,)
        The gains of the state's product, and their gradient.
    d_x : ndarray (TILE, ~G*H)
        Room for the gradients of the input's normalised product where they are not those of the
        state's.
    dx : ndarray (3, TILE, ~I)
        Of the step at hand: the gradient of the scaled inputs, these times e, and K times that.
    sum_x : ndarray (1 + I, ~I)
        A row that is not used, and S, the sum over all rows of e k k.T.
    means : ndarray (TILE,)
        The means of the step's rows.
    db : ndarray (1, ~G*H)
        Gradient of the biases of a state's product that is not added to the input's.
    """

    w_x: _Floats
    w_h: _Floats
    gram_x: _Floats
    gain_h: _Floats
    dgain_h: _Floats
    d_x: _Floats
    dx: _Floats
    sum_x: _Floats
    means: _Floats
    db: _Floats

    @classmethod
    def of(cls, params: Any, workspace: Any) -> NormBack:
        """Prepare the way back; empty unless the parameters have gains."""
        if "g_hh" not in params:
            return cls(*_empty(3, 3, 3, 1, 1, 2, 3, 2, 1, 2))
        c_x, c_h = (centred(np.asarray(params[w])) for w in ("w_xh", "w_hh"))
        gates, inputs = c_x.shape
        d_x = workspace.take("dnorm", TILE, spaced(gates))
        dx = workspace.take("dx_norm", 3, TILE, spaced(inputs))
        d_x[...] = dx[...] = 0.0
        return cls(
            pack(np.asarray(params["g_xh"])[:, None] * c_x),
            pack(c_h),
            pack((c_x.T @ c_x) / np.float32(gates)),
            np.array(params["g_hh"]), np.zeros(gates, np.float32), d_x, dx,
            np.zeros((1 + inputs, dx.shape[2]), np.float32), workspace.take("means", TILE),
            np.zeros((1, d_x.shape[1]), np.float32),
        )  # fmt: skip


def norm_grads(params: Any, grads: dict[str, _Floats], back: NormBack) -> dict[str, _Floats]:
    """Return the gradients of weights and gains, given those of the products' own weights."""
    if not back.gain_h.size:
        return grads
    c_x, gain = centred(np.asarray(params["w_xh"])), np.asarray(params["g_xh"])[:, None]
    sums = back.sum_x[1:, : c_x.shape[1]]
    w_xh, g_xh = unscaled(grads["w_xh"], c_x, gain, sums)
    return {**grads, "w_hh": centred(grads["w_hh"]), "w_xh": w_xh, "g_xh": g_xh,
            "g_hh": back.dgain_h}  # fmt: skip


@compiled
def normalised(entering, s, start, norm, z, p_n, apart):
    """Compute z of a tile: the normalised products of a step, and their biases.

    The last ``apart`` columns are not added: the input's go to ``p_n``, the state's to z.
    """
    inputs, size, tile = norm.r_x.shape[1], norm.w_h.shape[1], len(z)
    gates, stop = len(norm.gain_h), start + len(z)
    both = gates - apart
    q_x, c_h = norm.q_x[:tile], norm.c_h[min(s, norm.c_h.shape[0] - 1), start:stop]
    inv_x, inv_h = norm.inv[0, s, start:stop], norm.inv[1, s, start:stop]
    project(entering, s, start, 1, inputs, norm.r_x, q_x)
    _inverses(q_x, min(inputs, gates), 1, inv_x)
    x, per_row = columns(entering[s, start:stop], 1), (inv_x.ctypes.data, 1)
    _scale(tile, inputs, x + per_row + x)
    project(entering, s, start, 0, 1 + inputs, norm.w_x, z)
    project(entering, s, start, 1 + inputs, size, norm.w_h, c_h)
    _inverses(c_h, gates, gates, inv_h)
    gain, per_row = norm.gain_h.ctypes.data, (inv_h.ctypes.data, 1)
    places = columns(z, 0) + columns(c_h, 0) + (gain, 0)
    _add_normalised(tile, both, places + per_row + columns(z, 0))
    if apart:
        project(entering, s, start, 0, 1 + inputs, norm.w_xn, p_n)
        weights = (gain + 4 * both, 0, norm.b_hn.ctypes.data, 0)
        places = columns(c_h, both) + weights
        _normalise(tile, apart, places + per_row + columns(z, both))


@functools.partial(lanewise, of_rows=1)
def _add_normalised(z, c_h, gain, inv):
    return z + gain * (c_h * inv)


@functools.partial(lanewise, of_rows=1)
def _normalise(c_h, gain, b_hn, inv):
    return gain * (c_h * inv) + b_hn


@reordered
def _inverses(c, size, count, inv):
    """Compute the inverse roots of the sums of squares of rows, as means of ``count`` numbers."""
    for i in range(len(inv)):
        total = np.float32(0.0)
        for j in range(size):
            total += c[i, j] * c[i, j]
        inv[i] = np.float32(1.0) / np.sqrt(total / np.float32(count) + _EPS)


@compiled
def normalised_back(entering, s, start, norm, back, d_x, d_h, dw, wanted):
    """Make d_h the gradient of the product before it is normalised, and add to those of weights.

    Rows of ``d_x`` and ``d_h`` are the gradients of the two normalised products of a tile; they may
    be the same.
    """
    gates, inputs, size = len(norm.gain_h), norm.r_x.shape[1], norm.w_h.shape[1]
    tile, stop = d_x.shape[0], start + d_x.shape[0]
    collect(entering, s, start, 0, 1 + inputs, d_x, gates, dw)
    dk, along, means = back.dx[0, :tile], back.dx[1, :tile], back.means[:tile]
    pull_back(d_x, gates, back.w_x, dk, False)
    k, per_row = entering[s, start:stop, 1 : 1 + inputs], (means.ctypes.data, 1)
    _products(dk, k, means)
    _scale(tile, inputs, columns(k, 0) + per_row + columns(along, 0))
    collect(entering, s, start, 1, inputs, along, inputs, back.sum_x)
    if wanted:
        through, inv_x = back.dx[2, :tile], norm.inv[0, s, start:stop]
        pull_back(along, inputs, back.gram_x, through, False)
        places = columns(dk, 0) + columns(through, 0) + (inv_x.ctypes.data, 1)
        _difference(tile, inputs, places + columns(dk, 0))
    c_h, inv_h = norm.c_h[s, start:stop], norm.inv[1, s, start:stop]
    _means(d_h, c_h, inv_h, back.gain_h, back.dgain_h, means)
    places = columns(d_h, 0) + columns(c_h, 0) + (back.gain_h.ctypes.data, 0)
    _normalise_back(tile, gates, places + per_row + (inv_h.ctypes.data, 1) + columns(d_h, 0))
    collect(entering, s, start, 1 + inputs, size, d_h, gates, dw)


@compiled
def through_norm(d_h, back, gates, dh, dxs, s, start, stop, add):
    """Compute dh of a step, or add to it, and give dx, from what `normalised_back` left."""
    tile = dh.shape[0]
    pull_back(d_h, gates, back.w_h, dh, add)
    give_dx(back.dx[0, :tile], 0, dxs, s, start, stop)


@reordered
def _products(a, b, sums):
    """Sum the products of rows."""
    for i in range(len(sums)):
        total = np.float32(0.0)
        for j in range(b.shape[1]):
            total += a[i, j] * b[i, j]
        sums[i] = total


@reordered
def _means(dout, c, inv, gain, dgain, means):
    """Compute the means of dn * n of rows, times inv, and add to the gradient of the gain."""
    size = len(gain)
    for i in range(len(means)):
        total, factor = np.float32(0.0), inv[i]
        for j in range(size):
            term = dout[i, j] * c[i, j] * factor
            dgain[j] += term
            total += gain[j] * term
        means[i] = total * factor / np.float32(size)


@functools.partial(lanewise, of_rows=2)
def _normalise_back(dout, c, gain, mean, inv):
    return (gain * dout - mean * c) * inv


@functools.partial(lanewise, of_rows=1)
def _scale(a, factor):
    return a * factor


@functools.partial(lanewise, of_rows=1)
def _difference(a, b, factor):
    return (a - b) * factor
