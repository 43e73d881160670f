"""The LSTM on NumPy; see `rnn_xp.cells.lstm`. Gates i, f, g, o."""

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
    sigmoid_of_negative,
    tanh_of_half,
    tanh_of_sigmoid,
)
from rnn_xp.kernels.numpy.norm import Floats, Params
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["LSTM"]


class LSTM:
    """A layer of LSTM cells."""

    @np.errstate(over="ignore")
    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute the gates i, f, o and g, then c_t = f c_{t-1} + i g and h_t = o tanh(c_t)."""
        size = params["w_hh"].shape[1]
        tape = Tape(params, xs, course, workspace, name)
        w = -join(tape.params)
        w[2 * size : 3 * size] *= -2.0
        gates, tanh_cells = tape.take("gates", 4 * size), tape.take("tanh_cells", size)
        hs, cells = tape.fields[0], tape.add_field()
        tape.kept = (gates, tanh_cells)
        used = (gates, tanh_cells, cells.before, cells.after, hs.after)
        each = [*zip(*(arrays.each for arrays in used), strict=True)]
        for s in tape.computed():
            z, tanh_c, before, c, h = each[s]
            product(w, tape, s, out=z)
            sigmoid_of_negative(z)
            i, f, g, o = z.reshape(4, *c.shape)
            tanh_of_sigmoid(g)
            np.multiply(f, before, out=c)
            c += np.multiply(i, g, out=tanh_c)
            np.multiply(c, 2.0, out=tanh_c)
            tanh_of_half(tanh_c)
            np.multiply(o, tanh_c, out=h)
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
        """Compute the adjoint, in which dc goes back alongside dh."""
        (gates, tanh_cells), cells = tape.kept, tape.fields[1]
        back = Back(tape, dhs, dfinal, wrt_input, fields=2)
        size, take = back.size, tape.workspace.take
        for part in back.parts(10 * size):
            z, tanh_c = tape.part(gates, part), tape.part(tanh_cells, part)
            steps, _, n = z.shape
            d, a, b = take("dz", *z.shape), take("a", steps, size, n), take("b", size, n)
            by_gate = (steps, 4, size, n)
            i, f, g, o = np.moveaxis(z.reshape(by_gate), 1, 0)
            d_i, d_f, d_g, d_o = np.moveaxis(d.reshape(by_gate), 1, 0)
            np.multiply(tanh_c, tanh_c, out=a)
            np.subtract(1.0, a, out=a)
            a *= o  # of dc, by dh
            np.subtract(1.0, z, out=d)  # 1 - i, 1 - f, 1 - g, 1 - o
            d *= z  # of g this is g - g^2, put right below
            d_i *= g
            d_f *= tape.part(cells.before, part)
            np.multiply(g, g, out=d_g)
            np.subtract(1.0, d_g, out=d_g)
            d_g *= i
            d_o *= tanh_c
            back.skip(part, d, one=f)
            back.skip(part, a)
            for s in back.steps(part, d):
                (dh, dc), k = back.now, s - part.start
                dc += np.multiply(a[k], dh, out=b)
                dz = d[k].reshape(4, size, n)
                dz[:3] *= dc
                dz[3] *= dh
                dc *= f[k]
                back.through(s, d[k])
            back.collect(part, d)
        return back.results(back.grads())
