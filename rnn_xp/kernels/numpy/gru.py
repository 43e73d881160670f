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
from rnn_xp.kernels.numpy.norm import Floats, Params
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["GRU"]


class GRU:
    """A layer of GRU cells."""

    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute r, z = sigmoid(...); n = tanh(p_n + r q); h_t = n + z (h_{t-1} - n)."""
        size = params["w_hh"].shape[1]
        tape = Tape(params, xs, course, workspace, name)
        w = join(tape.params)
        w_rz, w_pn = -w[: 2 * size], w[2 * size :, size:]
        w_q = np.concatenate([w[2 * size :, :size], params["b_hn"][:, None]], axis=1)
        gates = tape.take("gates", 4, size)
        tape.kept, (field,) = (gates,), tape.fields
        for s in tape.computed():
            entered, rzqn = tape.entering[s], gates[s]
            rz, (r, z, q, n) = rzqn[:2].reshape(2 * size, -1), rzqn
            product(w_rz, tape, s, out=rz)
            sigmoid_of_negative(rz)
            product(w_q, tape, s, out=q, stop=size + 1)
            np.multiply(r, q, out=n)
            n += np.matmul(w_pn, entered[size:], out=workspace.take("p_n", *n.shape))
            n *= 2.0
            tanh_of_half(n)
            h = field.after[s]
            np.subtract(field.before[s], n, out=h)
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
        (gates,), entering = tape.kept, tape.entering
        back = Back(tape, dhs, dfinal, wrt_input)
        size = back.size
        back.w_hh = np.concatenate([back.w_hh[:, 2 * size :], back.w_hh[:, : 2 * size]], axis=1)
        db_hn = np.zeros_like(np.asarray(params["b_hn"]))
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
            back.finish(s, d[: 3 * size], d[size:], beside=True)
        grads = back.grads()
        grads["w_hh"] = np.concatenate([grads["w_hh"][size:], grads["w_hh"][:size]])
        return back.results({**grads, "b_hn": db_hn})
