"""The LSTM on NumPy; see `rnn_xp.cells.lstm`. Gates i, f, g, o."""

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
    sigmoid_of_negative,
    tanh_of_half,
)
from rnn_xp.kernels.numpy.norm import Floats, Params
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["LSTM"]


class LSTM:
    """A layer of LSTM cells."""

    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute the gates i, f, o and g, then c_t = f c_{t-1} + i g and h_t = o tanh(c_t)."""
        size = params["w_hh"].shape[1]
        tape = Tape(params, xs, course, workspace, name)
        w = -join(tape.params)
        w[2 * size : 3 * size] *= -2.0
        gates, tanh_cells = tape.take("gates", 4, size), tape.take("tanh_cells", size)
        hs, cells = tape.fields[0], tape.add_field("cells")
        tape.kept = (gates, tanh_cells)
        for s in tape.computed():
            z, c = gates[s], cells.after[s]
            product(w, tape, s, out=z.reshape(4 * size, -1))
            i, f, g, o = z
            for sigmoids in (z[:2], o):
                sigmoid_of_negative(sigmoids)
            tanh_of_half(g)
            np.multiply(f, cells.before[s], out=c)
            c += np.multiply(i, g, out=workspace.take("a", *c.shape))
            tanh_c = tanh_cells[s]
            np.multiply(c, 2.0, out=tanh_c)
            tanh_of_half(tanh_c)
            np.multiply(o, tanh_c, out=hs.after[s])
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
        for s in back.steps():
            (dh, dc), (i, f, g, o), tanh_c = back.now, gates[s], tanh_cells[s]
            dz, a = take("dz", 4 * size, back.n), take("a", *dh.shape)
            d = dz.reshape(4, *dh.shape)
            d_i, d_f, d_g, d_o = d
            np.multiply(tanh_c, tanh_c, out=a)
            np.subtract(1.0, a, out=a)
            a *= o
            a *= dh
            dc += a
            np.subtract(1.0, gates[s], out=d)  # 1 - i, 1 - f, 1 - g, 1 - o
            d *= gates[s]  # of g this is g - g^2, put right below
            d_o *= tanh_c
            d_o *= dh
            d_i *= g
            d_i *= dc
            d_f *= cells.before[s]
            d_f *= dc
            np.multiply(g, g, out=a)
            np.subtract(1.0, a, out=a)
            a *= i
            np.multiply(a, dc, out=d_g)
            dc *= f
            back.finish(s, dz)
        return back.results(back.grads())
