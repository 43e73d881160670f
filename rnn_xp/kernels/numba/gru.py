"""The reset-after GRU, compiled; see `rnn_xp.cells.gru`.

One product of [1, x, h] gives the gates r and z and q = w_hn h_{t-1} + b_hn, with zeros for x in q.
A second product gives the candidate's input p_n = w_xn x_t + b_n.
"""

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
    chunk,
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
    copy_lanes,
    end_back,
    keep_state,
    rejoin,
    scale_beside,
    stand_aside,
)
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["GRU"]


class GRU:
    """A layer of GRU cells."""

    def forward(self, params: Any, xs: Any, course: Course, workspace: Any, name: str) -> Any:
        """Compute r, z = sigmoid(...); n = tanh(p_n + r q); h_t = n + z (h_{t-1} - n)."""
        layout = self.lay_out(params, xs, course, workspace, name)
        _forward(*layout.arguments)
        return forwarded(layout.tape)

    def lay_out(self, params: Any, xs: Any, course: Course, workspace: Any, name: str) -> Layout:
        """Prepare a forward pass."""
        (gates, size), (steps, rows, inputs) = params["w_hh"].shape, xs.shape
        tape = enter(xs, size, course, workspace, name, scaled="g_hh" in params)
        weights = plain(params)
        w = join(weights)
        w_n = w[: 1 + inputs, 2 * size :].copy()
        factors = np.ones(gates, np.float32)
        factors[: 2 * size] = 0.5
        w *= factors
        w[0, 2 * size :], w[1 : 1 + inputs, 2 * size :] = params["b_hn"], 0.0
        kept = steps if course.keeps else 1
        rzq = workspace.take(f"{name}gates", kept, rows, spaced(gates))
        n = workspace.take(f"{name}candidates", kept, rows, spaced(size))
        norm = Norm.of(weights, tape, kept)
        tape = tape._replace(kept=(rzq, n), weights=weights, norm=norm)
        arguments = (
            tape.entering, tape.states, tape.hs, tape.turns, tape.norm, tape.readout, pack(w),
            pack(w_n), *tape.kept,
        )  # fmt: skip
        return Layout(tape, (tape.hs,), _forward, arguments)

    @without_subnormals
    def backward(self, params: Any, tape: Tape, dhs: Any, dfinal: Any, *, wrt_input: bool) -> Any:
        """Compute the adjoint; the gradient of p_n and [1, x] give separate weight gradients."""
        (gates, size), inputs = params["w_hh"].shape, params["w_xh"].shape[1]
        back = Back(params, tape, dhs, dfinal, wrt_input)
        w_back, w_x = tape.weights["w_hh"], tape.weights["w_xh"].copy()
        w_n = w_x[2 * size :].copy()
        if wrt_input or tape.norm.inv.size:
            w_x[2 * size :] = 0.0
            w_back = np.concatenate([w_back, w_x], axis=1)
        take = tape.workspace.take
        dp_n, dw_n = chunk(tape, "dp_n", size), take("dw_n", 1 + inputs, spaced(size))
        dx = take("dx", TILE, spaced(inputs))
        dw_n[...] = dx[...] = 0.0
        norm = NormBack.of(tape)
        _backward(
            tape.entering, tape.states, *tape.kept, tape.turns, tape.norm, norm, back.readout,
            pack(w_back), pack(w_n), back.own, back.which, back.dfinal, back.dinitial, back.through,
            take("past", TILE, size), back.aside, back.active, back.d, dp_n, back.dw, dw_n, dx,
            back.dxs,
        )  # fmt: skip
        db_hn = back.dw[0, 2 * size : gates].copy()
        back.dw[: 1 + inputs, 2 * size : gates] = dw_n[:, :size]
        grads = norm_grads(tape.weights, split(back.dw, gates, inputs), norm)
        grads |= {"b_hn": db_hn, **back.of_readout()}
        return grads, back.by_time(), back.at_start()


@compiled
def _forward(entering, states, hs, turns, norm, readout, w, w_n, gates, candidates):
    (steps, rows, size), width = hs[1:].shape, entering.shape[2]
    skip, last = width - size, gates.shape[0] - 1
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        for s in range(steps):
            tile = arrive(entering, states, hs, turns, s, start, stop)
            if tile:
                kept, end = min(s, last), start + tile
                rzq, n = gates[kept, start:end], candidates[kept, start:end]
                enter_prediction(entering, turns, readout, s, start, stop)
                normalise(entering, states, turns, s, start, tile, norm)
                used = width if s or turns.begun else skip  # h_0 is zero
                project(entering, s, start, 0, used, w, rzq)
                project(entering, s, start, 0, skip, w_n, n)
                h_prev = columns(states[s, start:stop], 0)
                h = columns(hs[s + 1, start:stop], 0)
                taken = _by_gate(rzq, size) + columns(n, 0) + h_prev
                made = columns(rzq, 0) + columns(rzq, size) + columns(n, 0) + h
                _step(tile, size, taken + made)
            keep_state(states, hs, turns, s, start, stop, tile, turns.brief)
            read_out(hs, turns, readout, s, start, stop)


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
    entering, states, gates, candidates, turns, norm, norm_back, readout, back, back_n, own, which,
    dfinal, dinitial, through, past, aside, active, d, d_n, dw, dw_n, dx_n, dxs,
):  # fmt: skip
    (steps, rows, size), width = states[1:].shape, entering.shape[2]
    skip, wanted, normed = width - size, dxs.shape[2] > 0, norm.inv.shape[0] > 0
    scaled, to_inputs = normed or turns.keep.shape[0] > 0, wanted or normed
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        all_dh = through[: stop - start]
        count_rows(active, turns, start, stop)
        given = begin_back(all_dh, dfinal, 0, start)
        for s in range(steps - 1, -1, -1):
            add_own_share(all_dh, own, which[s], start, size, s == steps - 1 and not given)
            read_out_back(all_dh, turns, readout, dxs, s, start)
            tile, place = turn_of(active, d, s)
            dh, d_rzq, dp_n = through[:tile], d[place, :tile], d_n[place, :tile]
            stand_aside(dh, aside[0], turns, s, start)
            n = columns(candidates[s, start:stop], 0)
            h_prev = columns(states[s, start:stop], 0)
            taken = _by_gate(gates[s, start:stop], size) + n + h_prev + columns(dh, 0)
            # What goes past the product has no factors of the state that entered it.
            beside = columns(past, 0) if scaled else columns(dh, 0)
            _step_back(tile, size, taken + _by_gate(d_rzq, size) + columns(dp_n, 0) + beside)
            used = width if turns.begun else skip  # h_0 may be zero
            collect(entering, active, s, start, (0, width, used), d, 3 * size, dw)
            collect(entering, active, s, start, (0, skip, skip), d_n, size, dw_n)
            if wanted and not scaled:
                dh[:, size:] = 0.0
            if s or to_inputs or turns.begun:
                pull_back(d_rzq, 3 * size, back, dh, not scaled)
            if to_inputs:
                dx = dx_n[:tile]
                copy_lanes(tile, width - 1 - size, columns(dh, size) + columns(dx, 0))
                pull_back(dp_n, size, back_n, dx, True)
                normalise_back(
                    entering, active, turns, s, start, norm, norm_back, dh, dx, 0, wanted
                )  # fmt: skip
                give_dx(dx, 0, dxs, s, start, stop)
            if scaled:
                scale_beside(dh, past[:tile], turns, start)
            rejoin(dh, aside[0], turns, s, start)
            clear(all_dh, turns.reset, s, start)
            enter_prediction_back(dxs, turns, readout, s, start, stop)
        end_back(all_dh, dinitial, 0, start)


@lanewise
def _step_back(s_r, s_z, q, n, h_prev, dh):
    z = sigmoid(s_z)
    dp_n = dh * (1.0 - z) * (1.0 - n * n)
    dz_r = dp_n * q * 0.25 * (1.0 - s_r * s_r)
    dz_z = dh * (h_prev - n) * 0.25 * (1.0 - s_z * s_z)
    return dz_r, dz_z, dp_n * sigmoid(s_r), dp_n, dh * z
