"""The simple cell on NumPy; see `rnn_xp.cells.rnn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numpy.layer import (
    Back,
    Tape,
    join,
    product,
    tanh_of_half,
)
from rnn_xp.kernels.numpy.norm import Floats, Params
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["RNN"]


class RNN:
    """A layer of simple cells; f is tanh or relu."""

    def __init__(self, activation: str) -> None:
        self.tanh = activation == "tanh"

    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute h_t = f(w_hh h_{t-1} + b_h + w_xh x_t)."""
        tape = Tape(params, xs, course, workspace, name)
        w = join(tape.params)
        if self.tanh:
            w *= 2.0
        for s in tape.computed():
            h = product(w, tape, s, out=tape.fields[0].after[s])
            if self.tanh:
                tanh_of_half(h)
            else:
                np.maximum(h, 0.0, out=h)
        return tape.forwarded()

    @without_subnormals
    def backward(
        self,
        params: Params,
        tape: Tape,
        dhs: Sequence[Floats | None],
        dfinal: tuple[Floats, ...] | None,
        *,
        wrt_input: bool,
    ) -> tuple[Params, Floats | None, tuple[Floats, ...] | None]:
        """Compute dz = dh * f'(z); dh_{t-1} = w_hh.T dz."""
        back = Back(tape, dhs, dfinal, wrt_input)
        for s in back.steps():
            h, dz = tape.fields[0].after[s], tape.workspace.take("dz", back.size, back.n)
            if self.tanh:
                np.multiply(h, h, out=dz)
                np.subtract(1.0, dz, out=dz)
            else:
                # 1 where h > 0, and where it is NaN, which must not look like an idle unit.
                np.less_equal(h, 0.0, out=dz, casting="unsafe")
                np.subtract(1.0, dz, out=dz)
            dz *= back.now[0]
            back.finish(s, dz)
        return back.results(back.grads())
