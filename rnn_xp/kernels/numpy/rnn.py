"""The simple cell on NumPy; see `rnn_xp.cells.rnn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numpy.back import Back
from rnn_xp.kernels.numpy.layer import (
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

    @np.errstate(over="ignore")
    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute h_t = f(w_hh h_{t-1} + b_h + w_xh x_t)."""
        tape = Tape(params, xs, course, workspace, name)
        w, single = join(tape.params), workspace.dtype == np.float32
        if self.tanh and not single:
            w *= 2.0
        for s in tape.computed():
            h = product(w, tape, s, out=tape.fields[0].after[s])
            if self.tanh and single:
                np.tanh(h, out=h)  # in vectors for float32 alone
            elif self.tanh:
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
        back, hs = Back(tape, dhs, dfinal, wrt_input), tape.fields[0].after
        for part in back.parts(2 * back.size):
            h = tape.part(hs, part)
            dz = tape.workspace.take("dz", *h.shape)
            if self.tanh:
                np.multiply(h, h, out=dz)
            else:
                # 1 where h > 0, and where it is NaN, which must not look like an idle unit.
                np.less_equal(h, 0.0, out=dz, casting="unsafe")
            np.subtract(1.0, dz, out=dz)
            for s in back.steps(part):
                dz_s = dz[s - part.start]
                dz_s *= back.now[0]
                back.through(s, dz_s)
            back.collect(part, dz)
        return back.results(back.grads())
