"""The reset-after GRU on NumPy; see `rnn_xp.cells.gru`.

Apart from the gates r and z, there are two separate products: q = w_hn h_{t-1} + b_hn, and the
candidate's input p_n = w_xn x_t + b_n.
"""

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
)
from rnn_xp.kernels.numpy.norm import Floats, Params
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["GRU"]


class GRU:
    """A layer of GRU cells."""

    @np.errstate(over="ignore")
    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute r, z = sigmoid(...); n = tanh(p_n + r q); h_t = n + z (h_{t-1} - n)."""
        size = params["w_hh"].shape[1]
        tape = Tape(params, xs, course, workspace, name)
        w = join(tape.params)
        w_rz, w_pn = -w[: 2 * size], w[2 * size :, size:]
        w_q = np.concatenate([w[2 * size :, :size], params["b_hn"][:, None]], axis=1)
        gates = tape.take("gates", 4 * size)
        tape.kept, (field,) = (gates,), tape.fields
        used = (tape.entering, gates, field.before, field.after)
        each = [*zip(*(arrays.each for arrays in used), strict=True)]
        for s in tape.computed():
            entered, rzqn, before, h = each[s]
            rz = rzqn[: 2 * size]
            r, z, q, n = rzqn.reshape(4, *h.shape)
            product(w_rz, tape, s, out=rz)
            sigmoid_of_negative(rz)
            product(w_q, tape, s, out=q, stop=size + 1)
            np.multiply(r, q, out=n)
            n += np.matmul(w_pn, entered[size:], out=workspace.take("p_n", *h.shape))
            n *= 2.0
            tanh_of_half(n)
            np.subtract(before, n, out=h)
            h *= z
            h += n
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
        """Compute the adjoint; rows dq, dp_r, dp_z of d are for h, and dp_r, dp_z, dp_n for x."""
        (gates,), hs, back = tape.kept, tape.fields[0].before, Back(tape, dhs, dfinal, wrt_input)
        size, take = back.size, tape.workspace.take
        back.w_hh = np.concatenate([back.w_hh[:, 2 * size :], back.w_hh[:, : 2 * size]], axis=1)
        db_hn = np.zeros_like(np.asarray(params["b_hn"]))
        for part in back.parts(10 * size):
            rzqn = tape.part(gates, part)
            steps, _, rows = rzqn.shape
            d, b = take("dz", *rzqn.shape), take("b", steps, size, rows)
            by_gate = (steps, 4, size, rows)
            r, z, q, n = np.moveaxis(rzqn.reshape(by_gate), 1, 0)
            dq, dp_r, dp_z, dp_n = np.moveaxis(d.reshape(by_gate), 1, 0)
            np.multiply(n, n, out=dp_n)
            np.subtract(1.0, dp_n, out=dp_n)
            np.subtract(1.0, z, out=b)
            dp_n *= b  # (1 - z) (1 - n^2)
            np.subtract(tape.part(hs, part), n, out=dp_z)
            dp_z *= b
            dp_z *= z  # (h_{t-1} - n) z (1 - z)
            np.subtract(1.0, r, out=dp_r)
            dp_r *= q  # q (1 - r), of dq = dp_n r
            back.skip(part, d[:, 2 * size :], one=z)
            for s in back.steps(part, d[:, size:]):
                (dh,), k = back.now, s - part.start
                dz = d[k].reshape(4, size, rows)
                dz[2:] *= dh
                np.multiply(dz[3], r[k], out=dz[0])
                dz[1] *= dz[0]
                dh *= z[k]
                back.through(s, d[k, : 3 * size], beside=True)
            for share in np.matmul(dq, tape.entering.each[part.start][size])[::-1]:
                db_hn += share
            back.collect(part, d[:, : 3 * size], d[:, size:])
        grads = back.grads()
        grads["w_hh"] = np.concatenate([grads["w_hh"][size:], grads["w_hh"][:size]])
        return back.results({**grads, "b_hn": db_hn})
