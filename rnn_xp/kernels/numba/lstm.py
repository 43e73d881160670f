"""The LSTM, compiled; see `rnn_xp.cells.lstm`. Gates i, f, g, o."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numba.feedback import (
    enter_prediction,
    enter_prediction_back,
    read_out,
    read_out_back,
)
from rnn_xp.kernels.numba.lanes import columns, lanewise, sigmoid, tanh
from rnn_xp.kernels.numba.layer import (
    TILE,
    Back,
    Layout,
    Tape,
    add_own_share,
    collect,
    count_rows,
    enter,
    forwarded,
    give_dx,
    join,
    project,
    pull_back,
    split,
    turn_of,
)
from rnn_xp.kernels.numba.norm import (
    Norm,
    NormBack,
    norm_grads,
    normalise,
    normalise_back,
    plain,
)
from rnn_xp.kernels.numba.product import compiled, pack, spaced
from rnn_xp.kernels.numba.turns import (
    arrive,
    begin_back,
    clear,
    end_back,
    keep_state,
    rejoin,
    scale,
    stand_aside,
)
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["LSTM"]


class LSTM:
    """A layer of LSTM cells."""

    def forward(self, params: Any, xs: Any, course: Course, workspace: Any, name: str) -> Any:
        """Compute the gates i, f, o and g, then c_t = f c_{t-1} + i g and h_t = o tanh(c_t)."""
        layout = self.lay_out(params, xs, course, workspace, name)
        _forward(*layout.arguments)
        return forwarded(layout.tape, layout.fields[1][-1])

    def lay_out(self, params: Any, xs: Any, course: Course, workspace: Any, name: str) -> Layout:
        """Prepare a forward pass."""
        (gates, size), (steps, rows, _) = params["w_hh"].shape, xs.shape
        tape = enter(xs, size, course, workspace, name, scaled="g_hh" in params)
        factors = np.full(gates, 0.5, np.float32)
        factors[2 * size : 3 * size] = 1.0
        weights = plain(params)
        w = join(weights) * factors
        kept = steps if course.keeps else 1
        z = workspace.take(f"{name}gates", kept, rows, spaced(gates))
        cells = workspace.take(f"{name}cells", steps + 1, rows, size)
        tanh_cells = workspace.take(f"{name}tanh_cells", kept, rows, size)
        cells[0] = 0.0 if course.initial is None else course.initial[1]
        tape = tape._replace(
            kept=(z, cells, tanh_cells), weights=weights, norm=Norm.of(weights, tape, kept)
        )
        arguments = (
            tape.entering, tape.states, tape.hs, tape.turns, tape.norm, tape.readout, pack(w),
            *tape.kept,
        )  # fmt: skip
        return Layout(tape, (tape.hs, cells), _forward, arguments)

    @without_subnormals
    def backward(self, params: Any, tape: Tape, dhs: Any, dfinal: Any, *, wrt_input: bool) -> Any:
        """Compute the adjoint, in which dc goes back alongside dh."""
        gates, size = params["w_hh"].shape
        back = Back(params, tape, dhs, dfinal, wrt_input, fields=2)
        w = [tape.weights[name] for name in ("w_hh", "w_xh")]
        w = w if wrt_input or tape.norm.inv.size else w[:1]
        dc = tape.workspace.take("dc", TILE, size)
        norm = NormBack.of(tape)
        _backward(
            tape.entering, *tape.kept, tape.turns, tape.norm, norm, back.readout,
            pack(np.concatenate(w, axis=1)), back.own, back.which, back.dfinal, back.dinitial,
            back.through, dc, back.aside, back.active, back.d, back.dw, back.dxs,
        )  # fmt: skip
        grads = norm_grads(tape.weights, split(back.dw, gates, back.inputs), norm)
        return {**grads, **back.of_readout()}, back.by_time(), back.at_start()


@compiled
def _forward(entering, states, hs, turns, norm, readout, w, gates, cells, tanh_cells):
    (steps, rows, size), width = hs[1:].shape, entering.shape[2]
    skip, last = width - size, gates.shape[0] - 1
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        for s in range(steps):
            tile = arrive(entering, states, hs, turns, s, start, stop)
            clear(cells[s, start:stop], turns.reset, s, start)
            if tile:
                kept = min(s, last)
                z = gates[kept, start : start + tile]
                enter_prediction(entering, turns, readout, s, start, stop)
                normalise(entering, states, turns, s, start, tile, norm)
                used = width if s or turns.begun else skip  # h_0 is zero
                project(entering, s, start, 0, used, w, z)
                at, c_prev = _by_gate(z, size), columns(cells[s, start:stop], 0)
                c = columns(cells[s + 1, start:stop], 0) + columns(tanh_cells[kept, start:stop], 0)
                h = columns(hs[s + 1, start:stop], 0)
                _step(tile, size, at + c_prev + at + c + h)
            keep_state(states, hs, turns, s, start, stop, tile, turns.brief)
            read_out(hs, turns, readout, s, start, stop)
            keep_state(cells, cells, turns, s, start, stop, tile, True)


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
def _backward(
    entering, gates, cells, tanh_cells, turns, norm, norm_back, readout, back, own, which,
    dfinal, dinitial, through, dcs, aside, active, d, dw, dxs,
):  # fmt: skip
    (steps, rows, size), width = tanh_cells.shape, entering.shape[2]
    used, wanted = width if turns.begun else width - size, dxs.shape[2] > 0  # h_0 may be zero
    all_steps = wanted or turns.begun or norm.inv.shape[0] > 0
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        all_dh, all_dc = through[: stop - start], dcs[: stop - start]
        all_dc[...] = 0.0
        count_rows(active, turns, start, stop)
        given = begin_back(all_dh, dfinal, 0, start)
        begin_back(all_dc, dfinal, 1, start)
        for s in range(steps - 1, -1, -1):
            add_own_share(all_dh, own, which[s], start, size, s == steps - 1 and not given)
            read_out_back(all_dh, turns, readout, dxs, s, start)
            tile, place = turn_of(active, d, s)
            dh, dz, dc = through[:tile], d[place, :tile], dcs[:tile]
            stand_aside(dh, aside[0], turns, s, start)
            stand_aside(dc, aside[1], turns, s, start)
            state = columns(cells[s, start:stop], 0) + columns(tanh_cells[s, start:stop], 0)
            dstate = columns(dh, 0) + columns(dc, 0)
            taken = _by_gate(gates[s, start:stop], size) + state + dstate
            _step_back(tile, size, taken + _by_gate(dz, size) + columns(dc, 0))
            collect(entering, active, s, start, (0, width, used), d, 4 * size, dw)
            if s or all_steps:
                pull_back(dz, 4 * size, back, dh, False)
                normalise_back(
                    entering, active, turns, s, start, norm, norm_back, dh, dh, size, wanted
                )  # fmt: skip
                give_dx(dh, size, dxs, s, start, stop)
            scale(dh, turns, start)
            rejoin(dh, aside[0], turns, s, start)
            rejoin(dc, aside[1], turns, s, start)
            clear(all_dh, turns.reset, s, start)
            clear(all_dc, turns.reset, s, start)
            enter_prediction_back(dxs, turns, readout, s, start, stop)
        end_back(all_dh, dinitial, 0, start)
        end_back(all_dc, dinitial, 1, start)


@lanewise
def _step_back(s_i, s_f, g, s_o, c_prev, tanh_c, dh, dc):
    dc = dc + dh * sigmoid(s_o) * (1.0 - tanh_c * tanh_c)
    dz_i = dc * g * 0.25 * (1.0 - s_i * s_i)
    dz_f = dc * c_prev * 0.25 * (1.0 - s_f * s_f)
    dz_g = dc * sigmoid(s_i) * (1.0 - g * g)
    dz_o = dh * tanh_c * 0.25 * (1.0 - s_o * s_o)
    return dz_i, dz_f, dz_g, dz_o, dc * sigmoid(s_f)
