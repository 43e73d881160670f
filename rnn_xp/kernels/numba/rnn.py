"""The simple cell, compiled; see `rnn_xp.cells.rnn`."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from rnn_xp.kernels.numba.lanes import columns, lanewise, tanh, where
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

__all__ = ["RNN"]


class RNN:
    """A layer of simple cells; f is tanh or relu."""

    def __init__(self, activation: str) -> None:
        self.tanh = activation == "tanh"

    def forward(self, params: Any, xs: Any, reverse: bool, workspace: Any, name: str) -> Any:
        """Compute h_t = f(w_hh h_{t-1} + b_h + w_xh x_t)."""
        size = params["w_hh"].shape[0]
        entering = enter(xs, size, reverse, workspace, name)
        z = workspace.take("z", TILE, spaced(size))
        _forward(entering, pack(join(params)), z, size, self.tanh)
        return forwarded(size, (), Tape(entering, (), reverse, workspace, name))

    def backward(self, params: Any, tape: Tape, dhs: Any, *, wrt_input: bool) -> Any:
        """Compute dz = dh * f'(z); dh_{t-1} = w_hh.T dz."""
        size = params["w_hh"].shape[0]
        back = Back(params, tape, dhs, wrt_input)
        w = [params["w_hh"], params["w_xh"]] if wrt_input else [params["w_hh"]]
        _backward(
            tape.entering, pack(np.concatenate(w, axis=1)), back.own, back.which, back.through,
            back.d, back.dw, back.dxs, size, self.tanh,
        )  # fmt: skip
        return split(back.dw, size, back.inputs), back.by_time()


@compiled
def _forward(entering, w, z, size, is_tanh):
    steps, rows, width = entering.shape[0] - 1, entering.shape[1], entering.shape[2]
    skip = width - size
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        tile = stop - start
        for s in range(steps):
            project(entering, s, start, width if s else skip, w, z[:tile])  # h_0 is zero
            places = columns(z, 0) + columns(entering[s + 1, start:stop], skip)
            if is_tanh:
                _tanh(tile, size, places)
            else:
                _relu(tile, size, places)


@lanewise
def _tanh(z):
    return tanh(z)


@lanewise
def _relu(z):
    return where(z, "<=", 0.0, 0.0, z)


@compiled
def _backward(entering, back, own, which, through, d, dw, dxs, size, is_tanh):
    steps, rows, width = entering.shape[0] - 1, entering.shape[1], entering.shape[2]
    skip, wanted = width - size, dxs.shape[2] > 0
    for start in range(0, rows, TILE):
        stop = min(start + TILE, rows)
        tile = stop - start
        dh, dz = through[:tile], d[:tile]
        for s in range(steps - 1, -1, -1):
            add_own_share(dh, own, which[s], start, size, s == steps - 1)
            h = columns(entering[s + 1, start:stop], skip)
            places = h + columns(dh, 0) + columns(dz, 0)
            if is_tanh:
                _tanh_back(tile, size, places)
            else:
                _relu_back(tile, size, places)
            collect(entering, s, start, width if s else skip, dz, size, dw)
            if s or wanted:
                pull_back(dz, size, back, dh, False)
                give_dx(dh, size, dxs, s, start)


@lanewise
def _tanh_back(h, dh):
    return (1.0 - h * h) * dh


@lanewise
def _relu_back(h, dh):
    return where(h, "<=", 0.0, 0.0, dh)
