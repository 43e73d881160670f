"""The reset-after GRU, compiled; see `rnn_xp.cells.gru`.

One product of [1, x, h] gives the gates r and z and q = w_hn h_{t-1} + b_hn, with zeros for x in q.
A second product gives the candidate's input p_n = w_xn x_t + b_n.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from rnn_xp.kernels.numba.lanes import columns, lanewise, sigmoid, tanh
from rnn_xp.kernels.numba.layer import (
    TILE,
    Back,
    Tape,
    add_own_share,
    collect,
    enter,
    forwarded,
    give_dx,
    join,
    project,
    pull_back,
    split,
)
from rnn_xp.kernels.numba.product import compiled, pack, spaced

__all__ = ["GRU"]


class GRU:
    """A layer of GRU cells."""

    def forward(self, params: Any, xs: Any, reverse: bool, workspace: Any, name: str) -> Any:
        """Compute r, z = sigmoid(...); n = tanh(p_n + r q); h_t = n + z (h_{t-1} - n)."""
        (gates, size), (steps, rows, inputs) = params["w_hh"].shape, xs.shape
        entering = enter(xs, size, reverse, workspace, name)
        entering[0, :, 1 + inputs :] = 0.0
        w = join(params)
        w_n = w[: 1 + inputs, 2 * size :].copy()
        w[:, : 2 * size] *= 0.5
        w[0, 2 * size :], w[1 : 1 + inputs, 2 * size :] = params["b_hn"], 0.0
        rzq = workspace.take(f"{name}gates", steps, rows, spaced(gates))
        n = workspace.take(f"{name}candidates", steps, rows, spaced(size))
        _forward(entering, pack(w), pack(w_n), rzq, n, size)
        return forwarded(size, (), Tape(entering, (rzq, n), reverse, workspace, name))

    def backward(self, params: Any, tape: Tape, dhs: Any, *, wrt_input: bool) -> Any:
        """Compute the adjoint; the gradient of p_n and [1, x] give separate weight gradients."""
        (gates, size), inputs = params["w_hh"].shape, params["w_xh"].shape[1]
        back = Back(params, tape, dhs, wrt_input)
        w_back, w_n = params["w_hh"], np.zeros_like(params["w_hh"][:size])
        if wrt_input:
            w_x = params["w_xh"].copy()
            w_x[2 * size :] = 0.0
            w_back = np.concatenate([w_back, w_x], axis=1)
            w_n = np.concatenate([w_n, params["w_xh"][2 * size :]], axis=1)
        take = tape.workspace.take
        dp_n, dw_n = take("dp_n", TILE, spaced(size)), take("dw_n", 1 + inputs, spaced(size))
        dp_n[...] = dw_n[...] = 0.0
        _backward(
            tape.entering, *tape.kept, pack(w_back), pack(w_n), back.own, back.which, back.through,
            back.d, dp_n, back.dw, dw_n, back.dxs, size,
        )  # fmt: skip
        db_hn = back.dw[0, 2 * size : gates].copy()
        back.dw[: 1 + inputs, 2 * size : gates] = dw_n[:, :size]
        return {**split(back.dw, gates, inputs), "b_hn": db_hn}, back.by_time()


@compiled
def _forward(entering, w, w_n, gates, candidates, size):
    steps, rows, width = entering.shape[0] - 1, entering.shape[1], entering.shape[2]
    skip = width - size
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        for s in range(steps):
            rzq, n = gates[s, start:stop], candidates[s, start:stop]
            project(entering, s, start, width if s else skip, w, rzq)  # h_0 is zero
            project(entering, s, start, skip, w_n, n)
            h_prev = columns(entering[s, start:stop], skip)
            h = columns(entering[s + 1, start:stop], skip)
            taken = _by_gate(rzq, size) + columns(n, 0) + h_prev
            made = columns(rzq, 0) + columns(rzq, size) + columns(n, 0) + h
            _step(stop - start, size, taken + made)


@compiled
def _by_gate(rzq, size):
    return columns(rzq, 0) + columns(rzq, size) + columns(rzq, 2 * size)


@lanewise
def _step(z_r, z_z, q, p_n, h_prev):
    s_r, s_z = tanh(z_r), tanh(z_z)
    n = tanh(p_n + sigmoid(s_r) * q)
    return s_r, s_z, n, n + sigmoid(s_z) * (h_prev - n)


@compiled
def _backward(
    entering, gates, candidates, back, back_n, own, which, through, d, d_n, dw, dw_n, dxs, size
):
    steps, rows, width = entering.shape[0] - 1, entering.shape[1], entering.shape[2]
    skip, wanted = width - size, dxs.shape[2] > 0
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        tile = stop - start
        dh, d_rzq, dp_n = through[:tile], d[:tile], d_n[:tile]
        for s in range(steps - 1, -1, -1):
            add_own_share(dh, own, which[s], start, size, s == steps - 1)
            n = columns(candidates[s, start:stop], 0)
            h_prev = columns(entering[s, start:stop], skip)
            taken = _by_gate(gates[s, start:stop], size) + n + h_prev + columns(dh, 0)
            made = _by_gate(d_rzq, size) + columns(dp_n, 0) + columns(dh, 0)
            _step_back(tile, size, taken + made)
            collect(entering, s, start, width if s else skip, d_rzq, 3 * size, dw)
            collect(entering, s, start, skip, dp_n, size, dw_n)
            if wanted:
                dh[:, size:] = 0.0
            if s or wanted:
                pull_back(d_rzq, 3 * size, back, dh, True)
            if wanted:
                pull_back(dp_n, size, back_n, dh, True)
                give_dx(dh, size, dxs, s, start)


@lanewise
def _step_back(s_r, s_z, q, n, h_prev, dh):
    z = sigmoid(s_z)
    dp_n = dh * (1.0 - z) * (1.0 - n * n)
    dz_r = dp_n * q * 0.25 * (1.0 - s_r * s_r)
    dz_z = dh * (h_prev - n) * 0.25 * (1.0 - s_z * s_z)
    return dz_r, dz_z, dp_n * sigmoid(s_r), dp_n, dh * z
