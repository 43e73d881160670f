"""Layer normalisation of the compiled layers: both products of a step, and their adjoints.

A product is normalised over its G*H columns, in each row. The mean is taken out of the weights once
for the whole sequence, see `rnn_xp.kernels.numpy.norm`, which has the equations.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.kernels.numba.lanes import columns, lanewise
from rnn_xp.kernels.numba.layer import TILE, collect, give_dx, project, pull_back
from rnn_xp.kernels.numba.product import PANEL, compiled, pack, reordered, spaced

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


class Norm(NamedTuple):
    """What normalised products need; the arrays are empty if there is no normalisation.

    Attributes
    ----------
    w_x, w_h : ndarray
        The weights without their means, packed.
    gains : ndarray (2, G*H)
        Gains of the input's product and of the state's, times the factors that the pointwise
        functions expect.
    b_h : ndarray (G*H,)
        The bias, times these factors.
    b_hn : ndarray (H,)
        The bias of a state's product that is not added to the input's; empty for other cells.
    c_x : ndarray (TILE, ~G*H)
        The input's product of the step at hand. It is computed again on the way back, which costs
        less than to keep it.
    n_h : ndarray (T, N, ~G*H)
        The state's normalised products.
    inv : ndarray (2, T, N)
        The inverse deviations of both.
    """

    w_x: _Floats
    w_h: _Floats
    gains: _Floats
    b_h: _Floats
    b_hn: _Floats
    c_x: _Floats
    n_h: _Floats
    inv: _Floats

    @classmethod
    def of(
        cls, params: Any, factors: Any, workspace: Any, name: str, steps: int, rows: int
    ) -> Norm:
        """Prepare a pass; empty unless the parameters have gains."""
        if "g_hh" not in params:
            shapes = (
                (0, 0, PANEL),
                (0, 0, PANEL),
                (0, 0),
                (0,),
                (0,),
                (0, 0),
                (0, 0, 0),
                (0, 0, 0),
            )
            return cls(*(np.zeros(shape, np.float32) for shape in shapes))
        gates = len(factors)
        return cls(
            pack(_centred(params["w_xh"].T)),
            pack(_centred(params["w_hh"].T)),
            np.stack([np.asarray(params[g]) for g in ("g_xh", "g_hh")]) * factors,
            np.asarray(params["b_h"]) * factors,
            np.array(params.get("b_hn", ()), np.float32),
            workspace.take("c_x", TILE, spaced(gates)),
            workspace.take(f"{name}normalised", steps, rows, spaced(gates)),
            workspace.take(f"{name}inverses", 2, steps, rows),
        )


class NormBack(NamedTuple):
    """What the way back through normalised products needs.

    Attributes
    ----------
    w_x, w_h : ndarray
        The weights without their means, packed for the way back.
    gains : ndarray (2, G*H)
    dgains : ndarray (2, G*H)
        Their gradients.
    d : ndarray (3, TILE, ~G*H)
        Gradients of the input's product and of the state's, of the step at hand, and room for those
        of the input's normalised product where they are not those of the state's.
    dx : ndarray (TILE, ~I)
        dx of the step at hand.
    means : ndarray (TILE,)
        The means of the step's rows.
    db : ndarray (1, ~G*H)
        Gradient of the biases of a state's product that is not added to the input's.
    """

    w_x: _Floats
    w_h: _Floats
    gains: _Floats
    dgains: _Floats
    d: _Floats
    dx: _Floats
    means: _Floats
    db: _Floats

    @classmethod
    def of(cls, params: Any, workspace: Any) -> NormBack:
        """Prepare the way back; empty unless the parameters have gains."""
        if "g_hh" not in params:
            shapes = ((0, 0, PANEL), (0, 0, PANEL), (0, 0), (0, 0), (0, 0, 0), (0, 0), (0,), (0, 0))
            return cls(*(np.zeros(shape, np.float32) for shape in shapes))
        gains = np.stack([np.asarray(params[g]) for g in ("g_xh", "g_hh")])
        d = workspace.take("dnorm", 3, TILE, spaced(gains.shape[1]))
        d[...] = 0.0
        return cls(
            pack(_centred(params["w_xh"].T).T),
            pack(_centred(params["w_hh"].T).T),
            gains, np.zeros_like(gains), d,
            workspace.take("dx_norm", TILE, spaced(params["w_xh"].shape[1])),
            workspace.take("means", TILE), np.zeros((1, d.shape[2]), np.float32),
        )  # fmt: skip


def norm_grads(grads: dict[str, _Floats], back: NormBack) -> dict[str, _Floats]:
    """Take the means out of the gradients of the weights, and add those of the gains."""
    if not back.gains.size:
        return grads
    centred = {name: _centred(grads[name].T).T.copy() for name in ("w_hh", "w_xh")}
    return {**grads, **centred, "g_xh": back.dgains[0], "g_hh": back.dgains[1]}


def _centred(w: _Floats) -> _Floats:
    """Take the mean over its columns out of a matrix."""
    return np.asarray(w - np.mean(w, axis=1, keepdims=True), w.dtype)


@compiled
def normalised(entering, s, start, norm, z, p_n, apart):
    """Compute z of a tile: the normalised products of a step, and their biases.

    The last ``apart`` columns are not added: the input's go to ``p_n``, the state's to z.
    """
    inputs, size, tile = norm.w_x.shape[1], norm.w_h.shape[1], len(z)
    gates, stop = len(norm.b_h), start + len(z)
    c_x, n_h = norm.c_x[:tile], norm.n_h[s, start:stop]
    project(entering, s, start, 1, inputs, norm.w_x, c_x)
    project(entering, s, start, 1 + inputs, size, norm.w_h, n_h)
    inv_x, inv_h = norm.inv[0, s, start:stop], norm.inv[1, s, start:stop]
    _inverses(c_x, gates, inv_x)
    _inverses(n_h, gates, inv_h)
    gain_x, gain_h = norm.gains[0].ctypes.data, norm.gains[1].ctypes.data
    b_h, both = norm.b_h.ctypes.data, gates - apart
    per_row = (inv_x.ctypes.data, 1, inv_h.ctypes.data, 1)
    at_x, at_h = columns(c_x, 0), columns(n_h, 0)
    places = at_x + at_h + (gain_x, 0, gain_h, 0, b_h, 0)
    _both_parts(tile, both, places + per_row + at_h + columns(z, 0))
    if apart:
        at_x, at_h = columns(c_x, both), columns(n_h, both)
        gain_x, gain_h, b_h = gain_x + 4 * both, gain_h + 4 * both, b_h + 4 * both
        places = at_x + at_h + (gain_x, 0, gain_h, 0, b_h, 0, norm.b_hn.ctypes.data, 0)
        _each_part(tile, apart, places + per_row + at_h + columns(p_n, 0) + columns(z, both))


@functools.partial(lanewise, of_rows=2)
def _both_parts(c_x, c_h, gain_x, gain_h, b_h, inv_x, inv_h):
    n_h = c_h * inv_h
    return n_h, gain_x * (c_x * inv_x) + gain_h * n_h + b_h


@functools.partial(lanewise, of_rows=2)
def _each_part(c_x, c_h, gain_x, gain_h, b_h, b_hn, inv_x, inv_h):
    n_h = c_h * inv_h
    return n_h, gain_x * (c_x * inv_x) + b_h, gain_h * n_h + b_hn


@reordered
def _inverses(c, gates, inv):
    """Compute the inverse root mean squares of rows."""
    for i in range(len(inv)):
        total = np.float32(0.0)
        for j in range(gates):
            total += c[i, j] * c[i, j]
        inv[i] = np.float32(1.0) / np.sqrt(total / np.float32(gates) + _EPS)


@compiled
def normalised_back(entering, s, start, norm, back, d_x, d_h, dw):
    """Compute the gradients of a step's products without their gains, and add to those of weights.

    Rows of ``d_x`` and ``d_h`` are the gradients of the two normalised products of a tile.
    """
    gates, inputs, size = len(norm.b_h), norm.w_x.shape[1], norm.w_h.shape[1]
    tile, stop = d_x.shape[0], start + d_x.shape[0]
    c_x, n_h = norm.c_x[:tile], norm.n_h[s, start:stop]
    inv_x, inv_h = norm.inv[0, s, start:stop], norm.inv[1, s, start:stop]
    dc_x, dc_h, means = back.d[0, :tile], back.d[1, :tile], back.means[:tile]
    project(entering, s, start, 1, inputs, norm.w_x, c_x)
    at_x, factors = columns(c_x, 0), (inv_x.ctypes.data, 1)
    _scale(tile, gates, at_x + factors + at_x)
    collect(entering, s, start, 0, 1, d_x, gates, dw)  # of the bias
    for k in range(2):
        dout, n, inv, dc = (d_x, c_x, inv_x, dc_x) if k == 0 else (d_h, n_h, inv_h, dc_h)
        _means(dout, n, back.gains[k], back.dgains[k], means)
        places = columns(dout, 0) + columns(n, 0) + (back.gains[k].ctypes.data, 0)
        per_row = (means.ctypes.data, 1, inv.ctypes.data, 1)
        _normalise_back(tile, gates, places + per_row + columns(dc, 0))
    collect(entering, s, start, 1, inputs, dc_x, gates, dw)
    collect(entering, s, start, 1 + inputs, size, dc_h, gates, dw)


@compiled
def through_norm(back, gates, dh, dxs, s, start, stop, add):
    """Compute dh of a step, or add to it, and give dx, from what `normalised_back` left."""
    tile = dh.shape[0]
    pull_back(back.d[1, :tile], gates, back.w_h, dh, add)
    if dxs.shape[2]:
        pull_back(back.d[0, :tile], gates, back.w_x, back.dx[:tile], False)
        give_dx(back.dx[:tile], 0, dxs, s, start, stop)


@reordered
def _means(dout, n, gain, dgain, means):
    """Compute the means of dn * n of rows, and add to the gradient of the gain."""
    size = len(gain)
    for i in range(len(means)):
        total = np.float32(0.0)
        for j in range(size):
            term = dout[i, j] * n[i, j]
            dgain[j] += term
            total += gain[j] * term
        means[i] = total / np.float32(size)


@functools.partial(lanewise, of_rows=2)
def _normalise_back(dout, n, gain, mean, inv):
    return (gain * dout - mean * n) * inv


@functools.partial(lanewise, of_rows=1)
def _scale(a, factor):
    return a * factor
