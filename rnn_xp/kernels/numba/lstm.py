"""The LSTM, compiled; see `rnn_xp.cells.lstm`. Gates i, f, g, o."""

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

__all__ = ["LSTM"]


class LSTM:
    """A layer of LSTM cells."""

    def forward(self, params: Any, xs: Any, reverse: bool, workspace: Any, name: str) -> Any:
        """Compute the gates i, f, o and g, then c_t = f c_{t-1} + i g and h_t = o tanh(c_t)."""
        (gates, size), (steps, rows, _) = params["w_hh"].shape, xs.shape
        entering = enter(xs, size, reverse, workspace, name)
        w = 0.5 * join(params)
        w[:, 2 * size : 3 * size] *= 2.0
        z = workspace.take(f"{name}gates", steps, rows, spaced(gates))
        cells = workspace.take(f"{name}cells", steps + 1, rows, size)
        tanh_cells = workspace.take(f"{name}tanh_cells", steps, rows, size)
        cells[0] = 0.0
        _forward(entering, pack(w), z, cells, tanh_cells)
        tape = Tape(entering, (z, cells, tanh_cells), reverse, workspace, name)
        return forwarded(size, (cells[-1],), tape)

    def backward(self, params: Any, tape: Tape, dhs: Any, *, wrt_input: bool) -> Any:
        """Compute the adjoint, in which dc goes back alongside dh."""
        gates, size = params["w_hh"].shape
        back = Back(params, tape, dhs, wrt_input)
        w = [params["w_hh"], params["w_xh"]] if wrt_input else [params["w_hh"]]
        dc = tape.workspace.take("dc", TILE, size)
        _backward(
            tape.entering, *tape.kept, pack(np.concatenate(w, axis=1)), back.own, back.which,
            back.through, dc, back.d, back.dw, back.dxs,
        )  # fmt: skip
        return split(back.dw, gates, back.inputs), back.by_time()


@compiled
def _forward(entering, w, gates, cells, tanh_cells):
    steps, rows, size = tanh_cells.shape
    width = entering.shape[2]
    skip = width - size
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        for s in range(steps):
            z = gates[s, start:stop]
            project(entering, s, start, width if s else skip, w, z)  # h_0 is zero
            at, c_prev = _by_gate(z, size), columns(cells[s, start:stop], 0)
            c = columns(cells[s + 1, start:stop], 0) + columns(tanh_cells[s, start:stop], 0)
            h = columns(entering[s + 1, start:stop], skip)
            _step(stop - start, size, at + c_prev + at + c + h)


@compiled
def _by_gate(z, size):
    return columns(z, 0) + columns(z, size) + columns(z, 2 * size) + columns(z, 3 * size)


@lanewise
def _step(z_i, z_f, z_g, z_o, c_prev):
    s_i, s_f, g, s_o = tanh(z_i), tanh(z_f), tanh(z_g), tanh(z_o)
    c = sigmoid(s_f) * c_prev + sigmoid(s_i) * g
    tanh_c = tanh(c)
    return s_i, s_f, g, s_o, c, tanh_c, sigmoid(s_o) * tanh_c


@compiled
def _backward(entering, gates, cells, tanh_cells, back, own, which, through, dcs, d, dw, dxs):
    steps, rows, size = tanh_cells.shape
    width = entering.shape[2]
    skip, wanted = width - size, dxs.shape[2] > 0
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        tile = stop - start
        dh, dz, dc = through[:tile], d[:tile], dcs[:tile]
        dc[...] = 0.0
        for s in range(steps - 1, -1, -1):
            add_own_share(dh, own, which[s], start, size, s == steps - 1)
            state = columns(cells[s, start:stop], 0) + columns(tanh_cells[s, start:stop], 0)
            dstate = columns(dh, 0) + columns(dc, 0)
            taken = _by_gate(gates[s, start:stop], size) + state + dstate
            _step_back(tile, size, taken + _by_gate(dz, size) + columns(dc, 0))
            collect(entering, s, start, width if s else skip, dz, 4 * size, dw)
            if s or wanted:
                pull_back(dz, 4 * size, back, dh, False)
                give_dx(dh, size, dxs, s, start)


@lanewise
def _step_back(s_i, s_f, g, s_o, c_prev, tanh_c, dh, dc):
    dc = dc + dh * sigmoid(s_o) * (1.0 - tanh_c * tanh_c)
    dz_i = dc * g * 0.25 * (1.0 - s_i * s_i)
    dz_f = dc * c_prev * 0.25 * (1.0 - s_f * s_f)
    dz_g = dc * sigmoid(s_i) * (1.0 - g * g)
    dz_o = dh * tanh_c * 0.25 * (1.0 - s_o * s_o)
    return dz_i, dz_f, dz_g, dz_o, dc * sigmoid(s_f)
