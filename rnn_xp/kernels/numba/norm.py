"""Layer normalisation of the compiled layers, beside the plain products of a step.

The mean is taken out of the weights once for a whole sequence, and what is left are factors of the
inputs and states that enter a plain product, as in `rnn_xp.kernels.numpy.norm`, which has the
equations. They need the deviations |R h| and |R x|, and the way back two more products of H
columns; R is a triangle and S symmetric, so that a good quarter of all three is left out.

Where a state's product has no more than H columns, in a simple cell, it is normalised itself. That
takes no further product, but it is kept beside the states. Products of several gates would be
too much to keep.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.kernels.numba.lanes import columns, lanewise, shared, singles
from rnn_xp.kernels.numba.layer import (
    TILE,
    Tape,
    chunk,
    collect,
    collect_columns,
    project,
    pull_back,
    turn_of,
)
from rnn_xp.kernels.numba.product import PANEL, compiled, multiply, pack, padded, spaced
from rnn_xp.kernels.numpy.norm import centred, triangle, unscaled

__all__ = [
    "Norm",
    "NormBack",
    "norm_grads",
    "normalise",
    "normalise_back",
    "normalise_product",
    "normalise_product_back",
    "plain",
    "straighten",
]

_EPS = 1e-5  # as in `rnn_xp.kernels.portable.normalise`
_BLOCK = 2 * PANEL  # columns of a triangle that have their zeros left out

_Floats = NDArray[np.floating[Any]]


def _empty(*axes: int) -> list[_Floats]:
    """Return empty arrays with so many axes, which compiled code is told instead of None."""
    return [np.zeros((0,) * count, np.float32) for count in axes]


def plain(params: Any) -> Any:
    """Return the weights of plain products: without their means and with their gains, if any.

    Those without their means come with them, as c_xh and c_hh. A product that is normalised itself
    has these for its weights.
    """
    if "g_hh" not in params:
        return params
    made = {name: np.asarray(param) for name, param in params.items()}
    c_x, c_h = made["c_xh"], made["c_hh"] = centred(made["w_xh"]), centred(made["w_hh"])
    made["w_xh"] = made["g_xh"][:, None] * c_x
    made["w_hh"] = made["g_hh"][:, None] * c_h if len(c_h) > c_h.shape[1] else c_h
    return made


class Norm(NamedTuple):
    """What normalised products need; the arrays are empty if there is no normalisation.

    Attributes
    ----------
    r_x, r_h : ndarray, packed
        The triangles R of both weights; r_h is empty if the state's product is normalised itself.
    w_h, gain_h : ndarray (H, H), packed, and (H,)
        Its weights without their means, and its gains; otherwise empty.
    q_x, q_h : ndarray (TILE, ~I), (TILE, ~H)
        R x and R h of the step at hand.
    c_h : ndarray (T, N, ~H)
        The state's products before they are normalised, one step if nothing goes back; or empty.
    inv : ndarray (2, T, N)
        The inverse deviations of both.
    """

    r_x: _Floats
    r_h: _Floats
    w_h: _Floats
    gain_h: _Floats
    q_x: _Floats
    q_h: _Floats
    c_h: _Floats
    inv: _Floats

    @classmethod
    def of(cls, weights: Any, tape: Any, kept: int) -> Norm:
        """Prepare a pass that keeps so many steps; empty unless the weights have gains."""
        if "g_hh" not in weights:
            return cls(*_empty(3, 3, 3, 1, 2, 2, 3, 3))
        c_x, c_h = weights["c_xh"], weights["c_hh"]
        take, (steps, rows, size) = tape.workspace.take, tape.hs[1:].shape
        r_x = pack(triangle(c_x).T)
        q_x, q_h = take("q_x", TILE, spaced(c_x.shape[1])), take("q_h", TILE, spaced(size))
        inv = take(f"{tape.name}inverses", 2, steps, rows)
        if len(c_h) > size:
            r_h = pack(triangle(c_h).T)
            return cls(*[r_x, r_h, *_empty(3, 1), q_x, q_h, *_empty(3), inv])
        products = take(f"{tape.name}products", kept, rows, spaced(size))
        gain = np.array(weights["g_hh"])
        return cls(*[r_x, *_empty(3), pack(c_h.T), gain, q_x, q_h, products, inv])


class NormBack(NamedTuple):
    """What the way back through normalised products needs.

    Attributes
    ----------
    gram_x, gram_h : ndarray, packed
        K of both, which take the gradient of a deviation to the input or, negative, to the state.
    w_x : ndarray
        Weights of plain products of inputs, packed for the way back.
    dgain_h : ndarray (H,)
        Gradient of the gains of a state's product that is normalised itself.
    d_h : ndarray (S, TILE, ~H)
        Gradients of the latter before it is normalised, of the steps of a chunk.
    dx : ndarray (2, TILE, ~I)
        Of the step at hand: K times e k of the inputs, and where they are not beside dh the
        gradients of the inputs.
    along_x, along_h : ndarray (S, TILE, ~I), (S, TILE, ~H)
        e k of the inputs and of the states, of the steps of a chunk.
    sum_x, sum_h : ndarray (1 + I, ~I), (1 + I + H, ~H)
        S of both, below rows that are not used, and of the second no more than the triangle.
    sums : ndarray (TILE,)
        Sums of the step's rows.
    """

    gram_x: _Floats
    gram_h: _Floats
    w_x: _Floats
    dgain_h: _Floats
    d_h: _Floats
    dx: _Floats
    along_x: _Floats
    along_h: _Floats
    sum_x: _Floats
    sum_h: _Floats
    sums: _Floats

    @classmethod
    def of(cls, tape: Tape) -> NormBack:
        """Prepare the way back; empty unless the weights have gains."""
        weights = tape.weights
        if "g_hh" not in weights:
            return cls(*_empty(3, 3, 3, 1, 3, 3, 3, 3, 2, 2, 1))
        c_x, c_h = weights["c_xh"], weights["c_hh"]
        gates, inputs, size = np.float32(len(c_h)), c_x.shape[1], c_h.shape[1]
        gram_h = c_h.T @ c_h if gates > size else np.empty((0, 0), np.float32)
        dx = tape.workspace.take("dx_norm", 2, TILE, spaced(inputs))
        dx[...] = 0.0
        d_h = chunk(tape, "d_h", 0 if gates > size else size)
        along_x, along_h = chunk(tape, "along_x", inputs), chunk(tape, "along_h", size)
        return cls(
            pack(c_x.T @ c_x / np.float32(len(c_x))), pack(-gram_h / gates), pack(weights["w_xh"]),
            np.zeros(size, np.float32), d_h, dx, along_x, along_h,
            np.zeros((1 + inputs, along_x.shape[2]), np.float32),
            np.zeros((1 + inputs + size, along_h.shape[2]), np.float32),
            tape.workspace.take("sums", TILE),
        )  # fmt: skip


def norm_grads(weights: Any, grads: dict[str, _Floats], back: NormBack) -> dict[str, _Floats]:
    """Return the gradients of weights and gains, given those of plain products."""
    if not back.sums.size:
        return grads

    def of_both(which: str, sums: _Floats) -> dict[str, _Floats]:
        c, gain = weights[f"c_{which}"], weights[f"g_{which}"][:, None]
        dw, dgain = unscaled(grads[f"w_{which}"], c, gain, sums)
        return {f"w_{which}": dw, f"g_{which}": dgain}

    made = {**grads, **of_both("xh", back.sum_x[1:, : len(back.sum_x) - 1])}
    if not back.gram_h.size:
        return {**made, "w_hh": centred(grads["w_hh"]), "g_hh": back.dgain_h}
    sum_h = back.sum_h[len(back.sum_x) :]
    lower = np.tril(sum_h[:, : len(sum_h)])
    return {**made, **of_both("hh", lower + np.tril(lower, -1).T)}


@compiled
def normalise(entering, states, turns, s, start, tile, norm):
    """Scale the inputs and states of a tile that enter a step, if they are to be normalised."""
    if not norm.inv.shape[0]:
        return
    size, inputs = states.shape[2], entering.shape[2] - 1 - states.shape[2]
    stop, q_x = start + tile, norm.q_x[:tile]
    inv_x, x = norm.inv[0, s, start:stop], columns(entering[s, start:stop], 1)
    project(entering, s, start, 1, inputs, norm.r_x, q_x)
    _inverses(min(inputs, norm.r_x.shape[0] * PANEL), q_x, 1, inv_x)
    _scale(tile, inputs, x + singles(inv_x) + x)
    if norm.r_h.shape[0] and (s or turns.begun):
        entered, q_h = columns(entering[s, start:stop], 1 + inputs), norm.q_h[:tile]
        h = entered if turns.keep.shape[0] else columns(states[s, start:stop], 0)
        inv_h = norm.inv[1, s, start:stop]
        _by_triangle(h, norm.r_h, size, q_h)
        _inverses(size, q_h, 1, inv_h)
        _scale(tile, size, h + singles(inv_h) + entered)


@compiled
def normalise_product(entering, s, start, kept, tile, norm):
    """Compute a state's product that is normalised itself; return what is to be added to z.

    These are the places of the product and the gain, and of the inverse deviation.
    """
    size = norm.gain_h.shape[0]
    stop, skip = start + tile, entering.shape[2] - size
    c_h, inv_h = norm.c_h[kept, start:stop], norm.inv[1, s, start:stop]
    project(entering, s, start, skip, size, norm.w_h, c_h)
    _inverses(size, c_h, size, inv_h)
    return columns(c_h, 0) + shared(norm.gain_h) + singles(inv_h)


@compiled
def _inverses(size, q, count, inv):
    """Compute the inverse roots of the sums of squares of rows, as means of ``count`` numbers.

    In float64, since where a deviation is small its error is that of everything behind it.
    """
    _squares(q.shape[0], size, columns(q, 0) + singles(inv))
    for i in range(len(inv)):
        inv[i] = 1.0 / np.sqrt(np.float64(inv[i]) / count + _EPS)


@compiled
def _by_triangle(h, r_h, size, q):
    """Compute R h, without the zeros of R but those of its blocks on the diagonal."""
    tile, row = q.shape
    address, h_row = h
    for first in range(0, size, _BLOCK):
        block = r_h.ctypes.data + 4 * PANEL * (first // PANEL * size + first)
        multiply(
            address + 4 * first, h_row, 1, block, PANEL, PANEL * size, q.ctypes.data + 4 * first,
            row, tile, min(_BLOCK, padded(size) - first), size - first, False,
        )  # fmt: skip


@compiled
def normalise_product_back(
    entering, active, s, start, used, norm, back, ds, d, d_h, dw, wanted
):  # fmt: skip
    """Make d_h the gradient of a state's product that is normalised itself, and collect weights'.

    The gradient of the inputs is left in the last part of ``dx``.
    """
    size, width, dx = norm.gain_h.shape[0], entering.shape[2], back.dx[1, : d.shape[0]]
    skip = width - size
    collect(entering, active, s, start, (0, skip, skip), ds, size, dw)
    pull_back(d, size, back.w_x, dx, False)
    _inputs_back(entering, active, s, start, norm, back, columns(dx, 0), wanted)
    straighten(s, start, norm, back, d, d_h)
    collect(entering, active, s, start, (skip, width, used), back.d_h, size, dw)


@compiled
def straighten(s, start, norm, back, d, d_h):
    """Make d_h the gradient of the product before it was normalised, and add to its gain's."""
    tile, size = d.shape[0], norm.gain_h.shape[0]
    stop, sums = start + tile, back.sums
    c_h, inv_h = norm.c_h[s, start:stop], norm.inv[1, s, start:stop]
    gain, dgain = shared(norm.gain_h), shared(back.dgain_h)
    places, per_row = columns(d, 0) + columns(c_h, 0) + gain, singles(inv_h)
    _along_product(tile, size, places + dgain + per_row + dgain + singles(sums))
    for i in range(tile):
        sums[i] = sums[i] * inv_h[i] / np.float32(size)
    _through_product(tile, size, places + singles(sums) + per_row + columns(d_h, 0))


@compiled
def normalise_back(entering, active, turns, s, start, norm, back, through, dx, first, wanted):
    """Turn the gradients of a step's scaled states and inputs into those of the unscaled.

    Those of the inputs are the columns of ``dx`` from ``first`` on.
    """
    if not norm.inv.shape[0]:
        return
    tile, inputs = through.shape[0], back.sum_x.shape[0] - 1
    size = back.sum_h.shape[0] - 1 - inputs
    _inputs_back(entering, active, s, start, norm, back, columns(dx, first), wanted)
    if s or turns.begun:
        stop, sums = start + tile, singles(back.sums)
        dk, k = columns(through, 0), columns(entering[s, start:stop], 1 + inputs)
        _, place = turn_of(active, back.along_h, s)
        along, inv_h = back.along_h[place, :tile], norm.inv[1, s, start:stop]
        _products(tile, size, dk + k + sums)
        _scale(tile, size, k + sums + columns(along, 0))
        pull_back(along, size, back.gram_h, through, True)
        _scale(tile, size, dk + singles(inv_h) + dk)
    # Of a sum of e k k.T over the rows, half is the same as the other half.
    end = 1 + inputs + size
    for left in range(0, size, _BLOCK):
        first, right = 1 + inputs + left, min(left + _BLOCK, size)
        rows = (first, end, end if turns.begun else first)
        collect_columns(entering, active, s, start, rows, back.along_h, left, right, back.sum_h)


@compiled
def _inputs_back(entering, active, s, start, norm, back, dk, wanted):
    """Add to S of the inputs, and turn the gradient of scaled ones into that of the unscaled."""
    inputs, sums = back.sum_x.shape[0] - 1, singles(back.sums)
    tile, place = turn_of(active, back.along_x, s)
    stop, along = start + tile, back.along_x[place, :tile]
    k = columns(entering[s, start:stop], 1)
    _products(tile, inputs, dk + k + sums)
    _scale(tile, inputs, k + sums + columns(along, 0))
    end = 1 + inputs
    collect(entering, active, s, start, (1, end, end), back.along_x, inputs, back.sum_x)
    if wanted:
        to_x, inv_x = back.dx[0, :tile], norm.inv[0, s, start:stop]
        pull_back(along, inputs, back.gram_x, to_x, False)
        _difference(tile, inputs, dk + columns(to_x, 0) + singles(inv_x) + dk)


@functools.partial(lanewise, summed=True)
def _squares(a):
    return a * a


@functools.partial(lanewise, summed=True)
def _products(a, b):
    return a * b


@functools.partial(lanewise, of_rows=1)
def _scale(a, factor):
    return a * factor


@functools.partial(lanewise, of_rows=1)
def _difference(a, b, factor):
    return (a - b) * factor


@functools.partial(lanewise, of_rows=1, summed=True)
def _along_product(dout, c, gain, dgain, inv):
    term = dout * c * inv
    return dgain + term, gain * term


@functools.partial(lanewise, of_rows=2)
def _through_product(dout, c, gain, mean, inv):
    return (gain * dout - mean * c) * inv
