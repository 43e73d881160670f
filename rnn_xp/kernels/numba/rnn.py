"""The simple cell, compiled; see `rnn_xp.cells.rnn`."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numba.lanes import columns, lanewise, tanh, where
from rnn_xp.kernels.numba.layer import (
    TILE,
    Back,
    Layout,
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
from rnn_xp.kernels.numba.norm import (
    Norm,
    NormBack,
    norm_grads,
    normalised,
    normalised_back,
    through_norm,
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
        factors = np.ones(size, np.float32)
        tape = tape._replace(norm=Norm.of(params, factors, tape, len(xs) if course.keeps else 1))
        arguments = (
            tape.entering, tape.states, tape.hs, tape.turns, tape.norm, pack(join(params)), z,
            self.tanh,
        )  # fmt: skip
        return Layout(tape, (tape.hs,), _forward, arguments)

    @without_subnormals
    def backward(self, params: Any, tape: Tape, dhs: Any, dfinal: Any, *, wrt_input: bool) -> Any:
        """Compute dz = dh * f'(z); dh_{t-1} = w_hh.T dz."""
        size = params["w_hh"].shape[0]
        back = Back(params, tape, dhs, dfinal, wrt_input)
        w = [params["w_hh"], params["w_xh"]] if wrt_input else [params["w_hh"]]
        norm = NormBack.of(params, tape.workspace)
        _backward(
            tape.entering, tape.hs, tape.turns, tape.norm, norm, pack(np.concatenate(w, axis=1)),
            back.own, back.which, back.dfinal, back.dinitial, back.through, back.aside, back.d,
            back.dw, back.dxs, self.tanh,
        )  # fmt: skip
        grads = norm_grads(params, split(back.dw, size, back.inputs), norm)
        return grads, back.by_time(), back.at_start()


@compiled
def _forward(entering, states, hs, turns, norm, w, z, is_tanh):
    (steps, rows, size), width = hs[1:].shape, entering.shape[2]
    skip = width - size
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        for s in range(steps):
            tile = arrive(entering, states, hs, turns, s, start, stop)
            if tile:
                if norm.w_h.shape[0]:
                    normalised(entering, s, start, norm, z[:tile], z, 0)
                else:
                    used = width if s or turns.begun else skip  # h_0 is zero
                    project(entering, s, start, 0, used, w, z[:tile])
                places = columns(z, 0) + columns(hs[s + 1, start:stop], 0)
                if is_tanh:
                    _tanh(tile, size, places)
                else:
                    _relu(tile, size, places)
            keep_state(states, hs, turns, s, start, stop, tile, turns.brief)


@lanewise
def _tanh(z):
    return tanh(z)


@lanewise
def _relu(z):
    return where(z, "<=", 0.0, 0.0, z)


@compiled
def _backward(
    entering, hs, turns, norm, norm_back, back, own, which, dfinal, dinitial, through, aside, d,
    dw, dxs, is_tanh,
):  # fmt: skip
    (steps, rows, size), width = hs[1:].shape, entering.shape[2]
    skip, wanted = width - size, dxs.shape[2] > 0
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        all_dh = through[: stop - start]
        given = begin_back(all_dh, dfinal, 0, start)
        for s in range(steps - 1, -1, -1):
            add_own_share(all_dh, own, which[s], start, size, s == steps - 1 and not given)
            tile = max(min(stop, turns.counts[s]) - start, 0)
            dh, dz = through[:tile], d[:tile]
            stand_aside(dh, aside[0], turns, s, start)
            h = columns(hs[s + 1, start:stop], 0)
            places = h + columns(dh, 0) + columns(dz, 0)
            if is_tanh:
                _tanh_back(tile, size, places)
            else:
                _relu_back(tile, size, places)
            if norm.w_h.shape[0]:
                normalised_back(entering, s, start, norm, norm_back, dz, dz, dw, wanted)
                through_norm(dz, norm_back, size, dh, dxs, s, start, stop, False)
            else:
                collect(entering, s, start, 0, width if s or turns.begun else skip, dz, size, dw)
                if s or wanted or turns.begun:
                    pull_back(dz, size, back, dh, False)
                    give_dx(dh, size, dxs, s, start, stop)
            scale(dh, turns, start)
            rejoin(dh, aside[0], turns, s, start)
            clear(all_dh, turns.reset, s, start)
        end_back(all_dh, dinitial, 0, start)


@lanewise
def _tanh_back(h, dh):
    return (1.0 - h * h) * dh


@lanewise
def _relu_back(h, dh):
    return where(h, "<=", 0.0, 0.0, dh)
