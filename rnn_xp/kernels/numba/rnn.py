"""The simple cell, compiled; see `rnn_xp.cells.rnn`."""

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
from rnn_xp.kernels.numba.lanes import columns, lanewise, tanh, where
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
    normalise_product,
    normalise_product_back,
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

__all__ = ["RNN"]


class RNN:
    """A layer of simple cells; f is tanh or relu."""

    def __init__(self, activation: str) -> None:
        self.tanh = activation == "tanh"

    def forward(self, params: Any, xs: Any, course: Course, workspace: Any, name: str) -> Any:
        """Compute h_t = f(w_hh h_{t-1} + b_h + w_xh x_t)."""
        layout = self.lay_out(params, xs, course, workspace, name)
        _forward(*layout.arguments)
        return forwarded(layout.tape)

    def lay_out(self, params: Any, xs: Any, course: Course, workspace: Any, name: str) -> Layout:
        """Prepare a forward pass."""
        size = params["w_hh"].shape[0]
        tape = enter(xs, size, course, workspace, name)
        z = workspace.take("z", TILE, spaced(size))
        weights, kept = plain(params), len(xs) if course.keeps else 1
        tape = tape._replace(weights=weights, norm=Norm.of(weights, tape, kept))
        w = join(weights)
        arguments = (
            tape.entering, tape.states, tape.hs, tape.turns, tape.norm, tape.readout, pack(w),
            z, self.tanh,
        )  # fmt: skip
        return Layout(tape, (tape.hs,), _forward, arguments)

    @without_subnormals
    def backward(self, params: Any, tape: Tape, dhs: Any, dfinal: Any, *, wrt_input: bool) -> Any:
        """Compute dz = dh * f'(z); dh_{t-1} = w_hh.T dz."""
        size = params["w_hh"].shape[0]
        back = Back(params, tape, dhs, dfinal, wrt_input)
        w = [tape.weights[name] for name in ("w_hh", "w_xh")]
        norm = NormBack.of(tape)
        w = w if wrt_input and tape.norm.inv.size == 0 else w[:1]
        _backward(
            tape.entering, tape.hs, tape.turns, tape.norm, norm, back.readout,
            pack(np.concatenate(w, axis=1)), back.own, back.which, back.dfinal, back.dinitial,
            back.through, back.aside, back.active, back.d, back.dw, back.dxs, self.tanh,
        )  # fmt: skip
        grads = norm_grads(tape.weights, split(back.dw, size, back.inputs), norm)
        return {**grads, **back.of_readout()}, back.by_time(), back.at_start()


@compiled
def _forward(entering, states, hs, turns, norm, readout, w, z, is_tanh):
    (steps, rows, size), width = hs[1:].shape, entering.shape[2]
    skip, normed, last = width - size, norm.inv.shape[0] > 0, norm.c_h.shape[0] - 1
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        for s in range(steps):
            tile = arrive(entering, states, hs, turns, s, start, stop)
            if tile:
                enter_prediction(entering, turns, readout, s, start, stop)
                normalise(entering, states, turns, s, start, tile, norm)
                used = width if (s or turns.begun) and not normed else skip  # h_0 is zero
                project(entering, s, start, 0, used, w, z[:tile])
                taken, h = columns(z, 0), columns(hs[s + 1, start:stop], 0)
                if normed:
                    added = normalise_product(entering, s, start, min(s, last), tile, norm)
                    if is_tanh:
                        _tanh_normed(tile, size, taken + added + h)
                    else:
                        _relu_normed(tile, size, taken + added + h)
                elif is_tanh:
                    _tanh(tile, size, taken + h)
                else:
                    _relu(tile, size, taken + h)
            keep_state(states, hs, turns, s, start, stop, tile, turns.brief)
            read_out(hs, turns, readout, s, start, stop)


@lanewise
def _tanh(z):
    return tanh(z)


@lanewise
def _relu(z):
    return where(z, "<=", 0.0, 0.0, z)


@functools.partial(lanewise, of_rows=1)
def _tanh_normed(z, c_h, gain, inv):
    return tanh(z + gain * (c_h * inv))


@functools.partial(lanewise, of_rows=1)
def _relu_normed(z, c_h, gain, inv):
    z = z + gain * (c_h * inv)
    return where(z, "<=", 0.0, 0.0, z)


@compiled
def _backward(
    entering, hs, turns, norm, norm_back, readout, back, own, which, dfinal, dinitial, through,
    aside, active, d, dw, dxs, is_tanh,
):  # fmt: skip
    (steps, rows, size), width = hs[1:].shape, entering.shape[2]
    used, wanted = width if turns.begun else width - size, dxs.shape[2] > 0  # h_0 may be zero
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        all_dh = through[: stop - start]
        count_rows(active, turns, start, stop)
        given = begin_back(all_dh, dfinal, 0, start)
        for s in range(steps - 1, -1, -1):
            add_own_share(all_dh, own, which[s], start, size, s == steps - 1 and not given)
            read_out_back(all_dh, turns, readout, dxs, s, start)
            tile, place = turn_of(active, d, s)
            dh, dz = through[:tile], d[place, :tile]
            stand_aside(dh, aside[0], turns, s, start)
            h = columns(hs[s + 1, start:stop], 0)
            places = h + columns(dh, 0) + columns(dz, 0)
            if is_tanh:
                _tanh_back(tile, size, places)
            else:
                _relu_back(tile, size, places)
            if norm.inv.shape[0]:
                d_h = norm_back.d_h[place, :tile]
                normalise_product_back(
                    entering, active, s, start, used, norm, norm_back, d, dz, d_h, dw, wanted
                )
                pull_back(d_h, size, back, dh, False)
                give_dx(norm_back.dx[1, :tile], 0, dxs, s, start, stop)
            else:
                collect(entering, active, s, start, (0, width, used), d, size, dw)
                if s or wanted or turns.begun:
                    pull_back(dz, size, back, dh, False)
                    give_dx(dh, size, dxs, s, start, stop)
            scale(dh, turns, start)
            rejoin(dh, aside[0], turns, s, start)
            clear(all_dh, turns.reset, s, start)
            enter_prediction_back(dxs, turns, readout, s, start, stop)
        end_back(all_dh, dinitial, 0, start)


@lanewise
def _tanh_back(h, dh):
    return (1.0 - h * h) * dh


@lanewise
def _relu_back(h, dh):
    return where(h, "<=", 0.0, 0.0, dh)
