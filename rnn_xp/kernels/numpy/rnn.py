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
from rnn_xp.kernels.numpy.norm import Floats, Norm, Params

__all__ = ["RNN"]


class RNN:
    """A layer of simple cells; f is tanh or relu."""

    def __init__(self, activation: str) -> None:
        self.tanh = activation == "tanh"

    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute h_t = f(w_hh h_{t-1} + b_h + w_xh x_t)."""
        size = params["w_hh"].shape[0]
        tape = Tape(xs, size, course, workspace, name)
        w, factor = join(params), 2.0 if self.tanh else 1.0
        w *= factor
        if "g_hh" in params:
            tape.norm = Norm(params, np.full_like(params["b_h"], factor), tape)
        for s in tape.computed():
            h = tape.fields[0].after[s]
            if tape.norm is None:
                product(w, tape, s, out=h)
            else:
                np.add(*tape.norm.products(s), out=h)
            if self.tanh:
                tanh_of_half(h)
            else:
                np.maximum(h, 0.0, out=h)
        return tape.forwarded()

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
        back = Back(params, tape, dhs, dfinal, wrt_input)
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
        return back.grads(), back.dxs(), back.dinitial()
