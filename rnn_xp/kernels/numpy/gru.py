"""The reset-after GRU on NumPy; see `rnn_xp.cells.gru`.

Apart from the gates r and z, there are two separate products: q = w_hn h_{t-1} + b_hn, and the
candidate's input p_n = w_xn x_t + b_n.
"""

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
from rnn_xp.kernels.numpy.norm import Floats, Norm, Params

__all__ = ["GRU"]


class GRU:
    """A layer of GRU cells."""

    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute r, z = sigmoid(...); n = tanh(p_n + r q); h_t = n + z (h_{t-1} - n)."""
        size = params["w_hh"].shape[1]
        tape = Tape(xs, size, course, workspace, name)
        w = join(params)
        w_rz, w_pn = -w[: 2 * size], w[2 * size :, size:]
        w_q = np.concatenate([params["w_hh"][2 * size :], params["b_hn"][:, None]], axis=1)
        gates = tape.take("gates", 4, size)
        if "g_hh" in params:
            factors = -np.ones_like(params["b_h"])
            factors[2 * size :] = 1.0
            tape.norm = Norm(params, factors, tape)
        tape.kept, (field,) = (gates,), tape.fields
        for s in tape.computed():
            entered, rzqn = tape.entering[s], gates[s]
            rz, (r, z, q, n) = rzqn[:2].reshape(2 * size, -1), rzqn
            if tape.norm is None:
                product(w_rz, tape, s, out=rz)
                product(w_q, tape, s, out=q, stop=size + 1)
                p_n = np.matmul(w_pn, entered[size:], out=workspace.take("p_n", *n.shape))
            else:
                p, a = tape.norm.products(s)
                np.add(p[: 2 * size], a[: 2 * size], out=rz)
                np.add(a[2 * size :], params["b_hn"][:, None], out=q)
                p_n = p[2 * size :]
            sigmoid_of_negative(rz)
            np.multiply(r, q, out=n)
            n += p_n
            n *= 2.0
            tanh_of_half(n)
            h = field.after[s]
            np.subtract(field.before[s], n, out=h)
            h *= z
            h += n
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
        """Compute the adjoint; rows dq, dp_r, dp_z of d are for h, and dp_r, dp_z, dp_n for x."""
        (gates,), entering = tape.kept, tape.entering
        back = Back(params, tape, dhs, dfinal, wrt_input)
        size, normed = back.size, tape.norm is not None
        if not normed:
            back.w_hh = np.concatenate(
                [back.w_hh[:, 2 * size :], back.w_hh[:, : 2 * size]], axis=1
            )  # fmt: skip
        db_hn = np.zeros_like(params["b_hn"])
        take = tape.workspace.take
        for s in back.steps():
            (dh,), (r, z, q, n) = back.now, gates[s]
            d, a, b = take("dz", 4 * size, back.n), take("a", *dh.shape), take("b", *dh.shape)
            dq, dp_r, dp_z, dp_n = d.reshape(4, *dh.shape)
            np.multiply(n, n, out=a)
            np.subtract(1.0, a, out=a)
            np.subtract(1.0, z, out=b)
            a *= b
            np.multiply(a, dh, out=dp_n)  # dh (1 - z) (1 - n^2)
            np.multiply(dp_n, r, out=dq)
            np.subtract(1.0, r, out=a)
            a *= q
            np.multiply(a, dq, out=dp_r)  # dp_n q r (1 - r)
            np.subtract(tape.fields[0].before[s], n, out=a)
            a *= b
            a *= z
            np.multiply(a, dh, out=dp_z)  # dh (h_{t-1} - n) z (1 - z)
            db_hn += np.matmul(dq, entering[s][size])
            dh *= z
            d_h = d[: 3 * size]
            if normed:  # the mean is over the rows in the order of the gains
                d_h = np.concatenate([dp_r, dp_z, dq], out=take("d_h", 3 * size, back.n))
            back.finish(s, d_h, d[size:], beside=True)
        grads = back.grads()
        if not normed:
            grads["w_hh"] = np.concatenate([grads["w_hh"][size:], grads["w_hh"][:size]])
        return {**grads, "b_hn": db_hn}, back.dxs(), back.dinitial()
