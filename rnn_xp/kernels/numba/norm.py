"""Layer normalisation of the compiled layers: both products of a step, and their adjoints.

A product is normalised over its G*H columns, in each row. The mean is taken out of the weights once
for the whole sequence, see `rnn_xp.kernels.numpy.norm`, which has the equations.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.kernels.numba.layer import TILE, collect, give_dx, project, pull_back
from rnn_xp.kernels.numba.product import PANEL, compiled, pack, reordered, spaced

__all__ = [
    "Norm",
    "NormBack",
    "add_rows",
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
    n : ndarray (2, T, N, ~G*H)
        The normalised products.
    inv : ndarray (2, T, N)
        The inverse deviations.
    """

    w_x: _Floats
    w_h: _Floats
    gains: _Floats
    b_h: _Floats
    b_hn: _Floats
    n: _Floats
    inv: _Floats

    @classmethod
    def of(
        cls, params: Any, factors: Any, workspace: Any, name: str, steps: int, rows: int
    ) -> Norm:
        """Prepare a pass; empty unless the parameters have gains."""
        if "g_hh" not in params:
            shapes = ((0, 0, PANEL), (0, 0, PANEL), (0, 0), (0,), (0,), (0, 0, 0, 0), (0, 0, 0))
            return cls(*(np.zeros(shape, np.float32) for shape in shapes))
        gates = len(factors)
        return cls(
            pack(_centred(params["w_xh"].T)),
            pack(_centred(params["w_hh"].T)),
            np.stack([params["g_xh"], params["g_hh"]]) * factors,
            params["b_h"] * factors,
            params.get("b_hn", np.zeros(0, np.float32)),
            workspace.take(f"{name}normalised", 2, steps, rows, spaced(gates)),
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
    """

    w_x: _Floats
    w_h: _Floats
    gains: _Floats
    dgains: _Floats
    d: _Floats
    dx: _Floats

    @classmethod
    def of(cls, params: Any, workspace: Any) -> NormBack:
        """Prepare the way back; empty unless the parameters have gains."""
        if "g_hh" not in params:
            shapes = ((0, 0, PANEL), (0, 0, PANEL), (0, 0), (0, 0), (0, 0, 0), (0, 0))
            return cls(*(np.zeros(shape, np.float32) for shape in shapes))
        gains = np.stack([params["g_xh"], params["g_hh"]])
        d = workspace.take("dnorm", 3, TILE, spaced(gains.shape[1]))
        d[...] = 0.0
        return cls(
            pack(_centred(params["w_xh"].T).T),
            pack(_centred(params["w_hh"].T).T),
            gains, np.zeros_like(gains), d,
            workspace.take("dx_norm", TILE, spaced(params["w_xh"].shape[1])),
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
    inputs, size, stop = norm.w_x.shape[1], norm.w_h.shape[1], start + z.shape[0]
    n_x, n_h = norm.n[0, s, start:stop], norm.n[1, s, start:stop]
    project(entering, s, start, 1, inputs, norm.w_x, n_x)
    project(entering, s, start, 1 + inputs, size, norm.w_h, n_h)
    gates = len(norm.b_h)
    _normalise(n_x, gates, norm.inv[0, s, start:stop])
    _normalise(n_h, gates, norm.inv[1, s, start:stop])
    _combine(n_x, n_h, norm.gains[0], norm.gains[1], norm.b_h, z, gates - apart)
    if apart:
        _keep_apart(n_x, norm.gains[0], norm.b_h, 0, p_n, gates - apart, 0)
        _keep_apart(n_h, norm.gains[1], norm.b_hn, gates - apart, z, gates - apart, gates - apart)


@reordered
def _normalise(n, gates, inv):
    """Divide rows by their root mean squares, in place, and keep the inverses of these."""
    for i in range(len(inv)):
        total = np.float32(0.0)
        for j in range(gates):
            total += n[i, j] * n[i, j]
        factor = np.float32(1.0) / np.sqrt(total / np.float32(gates) + _EPS)
        for j in range(gates):
            n[i, j] *= factor
        inv[i] = factor


@reordered
def _combine(n_x, n_h, gain_x, gain_h, b_h, z, stop):
    for i in range(len(z)):
        for j in range(stop):
            z[i, j] = gain_x[j] * n_x[i, j] + gain_h[j] * n_h[i, j] + b_h[j]


@reordered
def _keep_apart(n, gain, bias, before, out, first, place):
    """Scale the columns of n from ``first`` on; the bias lacks ``before`` columns."""
    for i in range(len(n)):
        for j in range(len(gain) - first):
            column = first + j
            out[i, place + j] = gain[column] * n[i, column] + bias[column - before]


@compiled
def normalised_back(entering, s, start, norm, back, d_x, d_h, dw):
    """Compute the gradients of a step's products without their gains, and add to those of weights.

    Rows of ``d_x`` and ``d_h`` are the gradients of the two normalised products of a tile.
    """
    gates, inputs, size = len(norm.b_h), norm.w_x.shape[1], norm.w_h.shape[1]
    tile, stop = d_x.shape[0], start + d_x.shape[0]
    dc_x, dc_h = back.d[0, :tile], back.d[1, :tile]
    add_rows(d_x, gates, dw[0])
    _normalise_back(
        d_x, norm.n[0, s, start:stop], norm.inv[0, s, start:stop], back.gains[0], back.dgains[0],
        dc_x,
    )  # fmt: skip
    _normalise_back(
        d_h, norm.n[1, s, start:stop], norm.inv[1, s, start:stop], back.gains[1], back.dgains[1],
        dc_h,
    )  # fmt: skip
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
def add_rows(rows, size, total):
    """Add the sum over rows to a total."""
    for i in range(len(rows)):
        for j in range(size):
            total[j] += rows[i, j]


@reordered
def _normalise_back(dout, n, inv, gain, dgain, dc):
    """Write the gradients of rows before their normalisation, and add that of the gain."""
    size = len(gain)
    for i in range(len(inv)):
        along = np.float32(0.0)
        for j in range(size):
            term = dout[i, j] * n[i, j]
            dgain[j] += term
            along += gain[j] * term
        along /= np.float32(size)
        for j in range(size):
            dc[i, j] = inv[i] * (gain[j] * dout[i, j] - along * n[i, j])
