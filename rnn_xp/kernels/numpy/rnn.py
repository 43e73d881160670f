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
        tape.bounded = self.tanh
        single, hs, norm = workspace.dtype == np.float32, tape.fields[0].after.each, tape.norm
        double = 2.0 if self.tanh and not single else 1.0
        w = join(tape.params)
        w *= double
        if norm is not None:
            gain, w_x = double * norm.gains["w_hh"], w[:, tape.size :].copy()
        for s in tape.computed():
            h = hs[s]
            if norm is None:
                product(w, tape, s, out=h)
            else:
                np.matmul(w_x, tape.entering.each[s][tape.size :], out=h)
                norm.add(s, gain, h)
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
        norm = back.norm
        for part in back.parts((2 if norm is None else 6) * back.size):
            h = tape.part(hs, part)
            dz = tape.workspace.take("dz", *h.shape)
            if self.tanh:
                np.multiply(h, h, out=dz)
            else:
                # 1 where h > 0, and where it is NaN, which must not look like an idle unit.
                np.less_equal(h, 0.0, out=dz, casting="unsafe")
            np.subtract(1.0, dz, out=dz)
            back.skip(part, dz)
            dq = dz if norm is None else tape.workspace.take("dq", *h.shape)
            for s in back.steps(part, dz):
                dz_s, dq_s = dz[s - part.start], dq[s - part.start]
                dz_s *= back.now[0]
                if norm is not None:
                    norm.straighten(s, dz_s, dq_s)
                back.through(s, dq_s)
            if norm is not None:
                norm.add_gain()
            back.collect(part, dq, dz)
        return back.results(back.grads())
