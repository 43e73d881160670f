"""Feedback in NumPy's layers: the readout's prediction is the next step's input.

The prediction, in columns as everything, is one more field of a layer's state, which is moved where
the others are, see `rnn_xp.kernels.numpy.layer`. What is done at each step besides::

    Forward                                       Backward
    x_t = pred_{t-1}                              dpred_{t-1} += dx_t
    the layer's step, to h_t                      the layer's step back, from dh_t
    pred_t = g(w_hy h_t + b_y)                    dy_t = dpred_t * g'(y_t);  dh_t += w_hy.T dy_t
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnn_xp.kernels.course import Feedback
from rnn_xp.kernels.numpy.norm import Floats, Norm, NormBack, Params
from rnn_xp.kernels.portable import IDENTITY, SIGMOID, SOFTMAX, TANH

__all__ = ["Readout", "ReadoutBack"]

_OUTPUTS = {"identity": IDENTITY, "tanh": TANH, "sigmoid": SIGMOID, "softmax": SOFTMAX}


class Readout:
    """The readout of a layer, whose columns are samples.

    Parameters
    ----------
    feedback : Feedback
    h, pred : Field
        The first field of the layer's state, and the prediction.
    norm : Norm or None
        The normalisation of the layer's products.
    """

    def __init__(self, feedback: Feedback, h: Any, pred: Any, norm: Norm | None) -> None:
        self.w, self.b = np.asarray(feedback.w_hy), np.asarray(feedback.b_y)[:, None]
        self.g, self.norm, self.before = _OUTPUTS[feedback.output], norm, pred.before
        self.hs, self.preds = h.after, pred.after

    def enter(self, s: int) -> None:
        """Multiply the input of a step by its factors, if it has any."""
        if self.norm is not None:
            self.norm.enter(s, self.before.each[s])

    def predict(self, s: int) -> None:
        """Compute the predictions after a step."""
        y = np.matmul(self.w, self.hs.each[s], out=self.preds.each[s])
        y += self.b
        if self.g is not IDENTITY:
            y[...] = self.g.forward(y.T, xp=np).T


class ReadoutBack:
    """The adjoint of `Readout`.

    Attributes
    ----------
    dpreds : ndarray (T, O, N)
        Gradients of the predictions; that of each step is complete once the step is reached.
    dys : ndarray (T, O, N)
        Those of what g is applied to, zero where a row skips the step.
    hs : T ndarray (H, n)
        The state after each step.
    dw : ndarray (O, H)
        The gradient of w_hy, to which the layer adds.
    dx : ndarray (O, N)
        In the end, the gradient of the first input.
    """

    def __init__(self, tape: Any, dpreds: Any, w_xh: Floats, norm: NormBack | None) -> None:
        self.tape, self.readout, self.w_xh, self.norm = tape, tape.readout, w_xh, norm
        self.hs = self.readout.hs
        take = tape.workspace.take
        by_step = np.asarray(dpreds).transpose(0, 2, 1)
        self.dpreds, self.dys = take("dpreds", *by_step.shape), take("dys", *by_step.shape)
        self.dpreds[...] = by_step
        self.w = self.readout.w.T
        self.dw = np.zeros_like(self.readout.w)
        self.dx = take("dx of a step", *by_step.shape[1:])
        self.share = take("dh of a prediction", tape.size, tape.rows)

    def predict(self, s: int, dh: Floats) -> None:
        """Add to the gradient of the state after a step what comes from its predictions."""
        dy, dpred, skipping, g = self.dys[s], self.dpreds[s], self.tape.skipping[s], self.readout.g
        dy[...] = g.backward(dpred.T, self.readout.preds.each[s].T, xp=np).T
        if skipping is not None:
            self.tape.keep_bits(dy, ~skipping)
        dh += np.matmul(self.w, dy, out=self.share)

    def enter(self, s: int, d: Floats) -> None:
        """Add the gradient of a step's input, by that of its product, to the predictions before."""
        tape, skipping, dx = self.tape, self.tape.skipping[s], self.dx
        np.matmul(self.w_xh, d, out=dx)
        if self.norm is not None:
            self.norm.inputs(slice(s, s + 1), dx[None])
        if skipping is not None:
            tape.keep_bits(self.dpreds[s], skipping)
            dx += self.dpreds[s]
        if tape.lasting[s] is not None:
            tape.keep_bits(dx, tape.lasting[s])
        if s:
            self.dpreds[s - 1] += dx

    def grads(self) -> Params:
        """Return the gradients of the readout's weights."""
        return {"w_hy": self.dw, "b_y": self.dys.sum(axis=(0, 2))}
