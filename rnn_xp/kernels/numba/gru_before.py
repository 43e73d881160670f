"""The reset-before GRU, compiled; see `rnn_xp.cells.gru`.

One product of [1, x, h] gives the gates r and z, and one of [1, x] the candidate's p_n. Its state
s = r h_{t-1} is kept beside them and has a product of its own, q = w_hn s.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import functools
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
    normalise_product,
    plain,
    straighten,
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
from rnn_xp.kernels.numpy.norm import by_product, centred
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["GRUBefore"]


class GRUBefore:
    """A layer of GRU cells that reset the state before its product."""

    def forward(self, params: Any, xs: Any, course: Course, workspace: Any, name: str) -> Any:
        """Compute r, z = sigmoid(...); n = tanh(p_n + w_hn (r h)); h_t = n + z (h_{t-1} - n)."""
        layout = self.lay_out(params, xs, course, workspace, name)
        _forward(*layout.arguments)
        return forwarded(layout.tape)

    def lay_out(self, params: Any, xs: Any, course: Course, workspace: Any, name: str) -> Layout:
        """Prepare a forward pass."""
        size, (steps, rows, inputs) = params["w_hh"].shape[1], xs.shape
        tape = enter(xs, size, course, workspace, name, scaled="g_hh" in params)
        of_rz, of_n = (plain(part) for part in by_product(params))
        joined = ("b_h", "w_xh", "w_hh")
        w = np.float32(0.5) * join({key: of_rz[key][: 2 * size] for key in joined})
        w_n = join({key: of_n[key][-size:] for key in joined})
        kept = steps if course.keeps else 1
        rz = workspace.take(f"{name}gates", kept, rows, spaced(2 * size))
        n = workspace.take(f"{name}candidates", kept, rows, spaced(size))
        resets = workspace.take(f"{name}resets", kept, rows, 1 + size)  # s in its last columns
        candidate = tape._replace(name=f"{name}candidate.", weights=of_n)
        candidate = candidate._replace(norm=Norm.of(of_n, candidate, kept))
        norm = Norm.of(of_rz, tape, kept)
        tape = tape._replace(kept=(rz, n, resets, candidate), weights=of_rz, norm=norm)
        arguments = (
            tape.entering, tape.states, tape.hs, tape.turns, norm, candidate.norm, tape.readout,
            pack(w), pack(w_n[: 1 + inputs]), pack(w_n[1 + inputs :]), rz, n, resets,
            workspace.take("q", TILE, spaced(size)), _ones(size),
        )  # fmt: skip
        return Layout(tape, (tape.hs,), _forward, arguments)

    @without_subnormals
    def backward(self, params: Any, tape: Tape, dhs: Any, dfinal: Any, *, wrt_input: bool) -> Any:
        """Compute the adjoint; the gradients of the three products give those of the weights."""
        *kept, candidate = tape.kept
        weights, size, inputs = tape.weights, params["w_hh"].shape[1], params["w_xh"].shape[1]
        back = Back(weights, tape, dhs, dfinal, wrt_input)
        norm, norm_n = NormBack.of(tape), NormBack.of(candidate)
        w_back, w_x, normed = weights["w_hh"], weights["w_xh"], tape.norm.inv.size > 0
        if wrt_input or normed:
            w_back = np.concatenate([w_back, w_x[: 2 * size]], axis=1)
        take, d_n = tape.workspace.take, chunk(tape, "d_n", size)
        dx, dw_n = take("dx", TILE, spaced(inputs)), take("dw_n", len(back.dw), spaced(size))
        dx[...] = dw_n[...] = 0.0
        _backward(
            tape.entering, tape.states, *kept, tape.turns, tape.norm, candidate.norm, norm, norm_n,
            back.readout, pack(w_back), pack(candidate.weights["w_hh"]), pack(w_x[2 * size :]),
            back.own, back.which, back.dfinal, back.dinitial, back.through,
            take("past", TILE, size), take("ds", TILE, spaced(size)), back.aside, back.active,
            back.d, d_n, norm_n.d_h if normed else d_n, back.dw, dw_n, dx, back.dxs, _ones(size),
        )  # fmt: skip
        grads, of_n = split(back.dw, 2 * size, inputs), split(dw_n, size, inputs)
        for key in ("b_h", "w_xh"):
            grads[key] = np.concatenate([grads[key], of_n[key]])
        grads = norm_grads(weights, grads, norm)
        if normed:
            of_n |= {"w_hh": centred(of_n["w_hh"]), "g_hh": norm_n.dgain_h}
        for key in ("w_hh", "g_hh") if normed else ("w_hh",):
            grads[key] = np.concatenate([grads[key], of_n[key]])
        return {**grads, **back.of_readout()}, back.by_time(), back.at_start()


def _ones(size: int) -> Any:
    """Return the factors of every row of a tile where there are none."""
    return np.broadcast_to(np.ones(size, np.float32), (TILE, size))


@compiled
def _forward(
    entering, states, hs, turns, norm, norm_n, readout, w, w_x, w_s, gates, candidates, resets, q,
    ones,
):  # fmt: skip
    (steps, rows, size), width = hs[1:].shape, entering.shape[2]
    skip, last = width - size, gates.shape[0] - 1
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        for s in range(steps):
            tile = arrive(entering, states, hs, turns, s, start, stop)
            if tile:
                kept, end = min(s, last), start + tile
                rz, n = gates[kept, start:end], candidates[kept, start:end]
                enter_prediction(entering, turns, readout, s, start, stop)
                normalise(entering, states, turns, s, start, tile, norm)
                used = width if s or turns.begun else skip  # h_0 is zero
                project(entering, s, start, 0, used, w, rz)
                project(entering, s, start, 0, skip, w_x, n)
                h_prev, z_r = columns(states[s, start:stop], 0), columns(rz, 0)
                factors, reset = _factors(turns, start, ones), columns(resets[kept, start:stop], 1)
                _reset(tile, size, z_r + h_prev + factors + z_r + reset)
                made = columns(rz, size) + columns(n, 0)
                taken, made = made + h_prev, made + columns(hs[s + 1, start:stop], 0)
                if norm_n.inv.shape[0]:
                    added = normalise_product(resets, kept, start, kept, tile, norm_n)
                    _step_normed(tile, size, taken + added + made)
                else:
                    project(resets, kept, start, 1, used - skip, w_s, q[:tile])
                    _step(tile, size, taken + columns(q, 0) + made)
            keep_state(states, hs, turns, s, start, stop, tile, turns.brief)
            read_out(hs, turns, readout, s, start, stop)


@compiled
def _factors(turns, start, ones):
    """Return the place of the factors of the state that enters a product."""
    if turns.keep.shape[0]:
        return columns(turns.keep[start:], 0)
    return columns(ones, 0)


@lanewise
def _reset(z_r, h_prev, keep):
    s_r = tanh(z_r)
    return s_r, sigmoid(s_r) * (h_prev * keep)


@lanewise
def _step(z_z, p_n, h_prev, q):
    s_z, n = tanh(z_z), tanh(p_n + q)
    return s_z, n, n + sigmoid(s_z) * (h_prev - n)


@functools.partial(lanewise, of_rows=1)
def _step_normed(z_z, p_n, h_prev, c_h, gain, inv):
    s_z, n = tanh(z_z), tanh(p_n + gain * (c_h * inv))
    return s_z, n, n + sigmoid(s_z) * (h_prev - n)


@compiled
def _backward(
    entering, states, gates, candidates, resets, turns, norm, norm_n, norm_back, norm_back_n,
    readout, back, back_s, back_x, own, which, dfinal, dinitial, through, past, ds, aside, active,
    d, d_n, d_q, dw, dw_n, dx_n, dxs, ones,
):  # fmt: skip
    (steps, rows, size), width = states[1:].shape, entering.shape[2]
    skip, wanted, normed = width - size, dxs.shape[2] > 0, norm.inv.shape[0] > 0
    to_inputs, used = wanted or normed, width if turns.begun else skip  # h_0 may be zero
    dw_s = dw_n[skip - 1 :]  # of resets, whose first column is nothing
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        all_dh = through[: stop - start]
        count_rows(active, turns, start, stop)
        given = begin_back(all_dh, dfinal, 0, start)
        for s in range(steps - 1, -1, -1):
            add_own_share(all_dh, own, which[s], start, size, s == steps - 1 and not given)
            read_out_back(all_dh, turns, readout, dxs, s, start)
            tile, place = turn_of(active, d, s)
            dh, d_rz = through[:tile], d[place, :tile]
            dp_n, dq = d_n[place, :tile], d_q[place, :tile]
            stand_aside(dh, aside[0], turns, s, start)
            s_r, s_z = columns(gates[s, start:stop], 0), columns(gates[s, start:stop], size)
            h_prev, beside = columns(states[s, start:stop], 0), columns(past, 0)
            taken = s_z + columns(candidates[s, start:stop], 0) + h_prev + columns(dh, 0)
            _step_back(tile, size, taken + columns(d_rz, size) + columns(dp_n, 0) + beside)
            if normed:
                straighten(s, start, norm_n, norm_back_n, dp_n, dq)
            pull_back(dq, size, back_s, ds[:tile], False)
            taken = s_r + h_prev + _factors(turns, start, ones) + columns(ds, 0) + beside
            _reset_back(tile, size, taken + columns(d_rz, 0) + beside)
            collect(entering, active, s, start, (0, width, used), d, 2 * size, dw)
            collect(entering, active, s, start, (0, skip, skip), d_n, size, dw_n)
            collect(resets, active, s, start, (1, 1 + size, 1 + used - skip), d_q, size, dw_s)
            if s or to_inputs or turns.begun:
                pull_back(d_rz, 2 * size, back, dh, False)
            if to_inputs:
                dx = dx_n[:tile]
                copy_lanes(tile, skip - 1, columns(dh, size) + columns(dx, 0))
                pull_back(dp_n, size, back_x, dx, True)
                normalise_back(
                    entering, active, turns, s, start, norm, norm_back, dh, dx, 0, wanted
                )  # fmt: skip
                give_dx(dx, 0, dxs, s, start, stop)
            scale_beside(dh, past[:tile], turns, start)
            rejoin(dh, aside[0], turns, s, start)
            clear(all_dh, turns.reset, s, start)
            enter_prediction_back(dxs, turns, readout, s, start, stop)
        end_back(all_dh, dinitial, 0, start)


@lanewise
def _step_back(s_z, n, h_prev, dh):
    z = sigmoid(s_z)
    dz_z = dh * (h_prev - n) * 0.25 * (1.0 - s_z * s_z)
    return dz_z, dh * (1.0 - z) * (1.0 - n * n), dh * z


@lanewise
def _reset_back(s_r, h_prev, keep, ds, beside):
    ds = ds * keep
    return ds * h_prev * 0.25 * (1.0 - s_r * s_r), beside + ds * sigmoid(s_r)
