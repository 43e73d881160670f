"""The reset-before GRU on NumPy; see `rnn_xp.cells.gru`.

Beside the product for r and z, the candidate has one of [1; x] and, after the reset, one of
s = r h_{t-1}, which is kept.
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
from rnn_xp.kernels.numpy.norm import Floats, Norm, NormBack, Params, by_product, centred
from rnn_xp.kernels.subnormal import without_subnormals

__all__ = ["GRUBefore"]


class _Tape(Tape):
    """A forward pass, with the weights of the product of s and its normalisation, if any."""

    w_hn: Floats
    candidate: Norm | None = None


class GRUBefore:
    """A layer of GRU cells that reset the state before its product."""

    @np.errstate(over="ignore")
    def forward(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Compute r, z = sigmoid(...); n = tanh(p_n + w_hn (r h)); h_t = n + z (h_{t-1} - n)."""
        size, (of_rz, of_n) = params["w_hh"].shape[1], by_product(params)
        tape = _Tape(of_rz, xs, course, workspace, name)
        gates, resets = tape.take("gates", 3 * size), tape.take("resets", size)
        tape.w_hn = of_n["w_hh"]
        if "g_hh" in params:
            norm = tape.candidate = Norm(of_n, workspace.dtype)
            norm.lay_out_states(tape, resets, "candidate ")
            tape.w_hn, gain = norm.params["w_hh"], 2.0 * norm.gains["w_hh"]
        joined = ("w_hh", "b_h", "w_xh")
        w_rz = -join({key: tape.params[key][: 2 * size] for key in joined})
        w_n = 2.0 * join(
            {**{key: tape.params[key][2 * size :] for key in joined}, "w_hh": tape.w_hn}
        )
        w_s, w_x = w_n[:, :size], w_n[:, size:]
        tape.kept, (field,) = (gates, resets), tape.fields
        used = (tape.entering, gates, resets, field.before, field.after)
        each = [*zip(*(arrays.each for arrays in used), strict=True)]
        for s in tape.computed():
            entered, rzn, reset, before, h = each[s]
            rz = rzn[: 2 * size]
            r, z, n = rzn.reshape(3, *h.shape)
            product(w_rz, tape, s, out=rz)
            sigmoid_of_negative(rz)
            np.multiply(r, before, out=reset)
            if course.keep is not None:
                reset *= tape.keep[:, : h.shape[1]]
            np.matmul(w_x, entered[size:], out=n)
            if tape.candidate is not None:
                tape.candidate.add(s, gain, n)
            elif s or tape.begun:
                n += np.matmul(w_s, reset, out=workspace.take("q_n", *h.shape))
            tanh_of_half(n)
            np.subtract(before, n, out=h)
            h *= z
            h += n
        return tape.forwarded()

    @without_subnormals
    def backward(
        self,
        params: Params,
        tape: _Tape,
        dhs: Sequence[Floats | None],
        dfinal: tuple[Floats, ...] | None,
        *,
        wrt_input: bool,
    ) -> tuple[Params, Floats | None, tuple[Floats, ...] | None]:
        """Compute the adjoint; rows dp_r, dp_z of d are for h, and all three for x."""
        (gates, resets), hs = tape.kept, tape.fields[0].before
        back, size, take = Back(tape, dhs, dfinal, wrt_input), tape.size, tape.workspace.take
        norm = None if tape.candidate is None else NormBack(tape.candidate, tape)
        w_hn, dw_n = tape.w_hn.T, np.zeros_like(tape.w_hn)
        for part in back.parts(10 * size):
            rzn, reset = tape.part(gates, part), tape.part(resets, part)
            steps, _, rows = rzn.shape
            d, b = take("dz", *rzn.shape), take("b", steps, size, rows)
            by_gate, ds = (steps, 3, size, rows), take("ds", size, rows)
            r, z, n = np.moveaxis(rzn.reshape(by_gate), 1, 0)
            dp_r, dp_z, dp_n = np.moveaxis(d.reshape(by_gate), 1, 0)
            np.multiply(n, n, out=dp_n)
            np.subtract(1.0, dp_n, out=dp_n)
            np.subtract(1.0, z, out=b)
            dp_n *= b  # (1 - z) (1 - n^2)
            np.subtract(tape.part(hs, part), n, out=dp_z)
            dp_z *= b
            dp_z *= z  # (h_{t-1} - n) z (1 - z)
            np.subtract(1.0, r, out=dp_r)
            dp_r *= reset  # h r (1 - r), of ds
            back.skip(part, d, one=z)
            dq = dp_n if norm is None else take("dq", steps, size, rows)
            if norm is not None:
                norm.begin(part)
            for s in back.steps(part, d):
                (dh,), k = back.now, s - part.start
                dz = d[k].reshape(3, size, rows)
                dz[1:] *= dh
                if norm is not None:
                    norm.straighten(s, dz[2], dq[k])
                np.matmul(w_hn, dq[k], out=ds)
                dz[0] *= ds
                ds *= r[k]
                if tape.course.keep is not None:
                    ds *= back.keep
                dh *= z[k]
                dh += ds
                back.through(s, d[k, : 2 * size], beside=True)
            if norm is not None:
                norm.add_gain()
            back.add_products(dq, reset, dw_n)
            back.collect(part, d[:, : 2 * size], d)
        grads = back.grads()
        grads["w_hh"] = grads["w_hh"][: 2 * size]
        grads, dxs, dinitial = back.results(grads)
        of_n = {"w_hh": dw_n} if norm is None else {"w_hh": centred(dw_n), "g_hh": norm.dgain[:, 0]}
        grads |= {key: np.concatenate([grads[key], grad]) for key, grad in of_n.items()}
        return grads, dxs, dinitial
