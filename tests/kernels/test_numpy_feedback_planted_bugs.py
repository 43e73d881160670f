"""Mistakes in the feedback of NumPy's layers, planted line by line, and all caught."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_planting import check, fed_back, named, plant

MISTAKES = [  # module, old line, new line, option, and where needed output, cell
    ("feedback", "np.matmul(self.w, self.hs.each[s]",
     "np.matmul(self.w, self.hs.each[s - 1]", "plain"),
    ("feedback", "y += self.b", "pass", "plain"),
    ("feedback", "if self.g is not IDENTITY:", "if False:", "plain", "tanh"),
    ("feedback", "y[...] = self.g.forward(y.T, xp=np).T", "y[...] = self.g.forward(y, xp=np)",
     "plain", "softmax"),
    ("feedback", '"sigmoid": SIGMOID', '"sigmoid": TANH', "plain", "sigmoid"),
    ("feedback", "self.norm.enter(s, self.before.each[s])", "pass", "layer norm"),
    ("feedback", "self.dpreds[...] = by_step", "self.dpreds[...] = 0.0", "plain"),
    ("feedback", "dy[...] = g.backward(dpred.T, self.readout.preds.each[s].T, xp=np).T",
     "dy[...] = dpred", "plain", "sigmoid"),
    ("feedback", "self.tape.keep_bits(dy, ~skipping)", "pass", "mask"),
    ("feedback", "dh += np.matmul(self.w, dy, out=self.share)", "pass", "plain"),
    ("feedback", "self.norm.inputs(slice(s, s + 1), dx[None])", "pass", "layer norm", "tanh",
     "gru"),
    ("feedback", "tape.keep_bits(self.dpreds[s], skipping)", "pass", "mask"),
    ("feedback", "dx += self.dpreds[s]", "pass", "mask"),
    ("feedback", "tape.keep_bits(dx, tape.lasting[s])", "pass", "reset"),
    ("feedback", "self.dpreds[s - 1] += dx", "self.dpreds[s - 1] = dx", "plain"),
    ("feedback", "self.dys.sum(axis=(0, 2))", "self.dys[1:].sum(axis=(0, 2))", "plain"),
    ("layer", "fields = [*self.fields, self.preds] if self.readout else self.fields",
     "fields = self.fields", "mask"),
    ("layer", "fields = [*self.fields, self.preds] if self.readout else self.fields",
     "fields = self.fields", "reset"),
    ("layer", "scaled = self.norm is not None", "scaled = False", "layer norm"),
    ("layer", "inputs, scaled, xs[0].T)", "inputs, scaled, 0.0)", "plain"),
    ("layer", "hs = self.preds.hs if", "hs = self.preds.states.pieces[0] if", "plain"),
    ("back", "self.readout.enter(s, d_x[s - part.start])", "pass", "plain"),
    ("back", "self.readout.predict(s, self.now[0])", "pass", "plain"),
    ("back", "self.readout.dys[steps], tape.part", "0 * self.readout.dys[steps], tape.part",
     "plain"),
    ("back", "grads | self.readout.grads(), self.readout.dx.T",
     "grads | self.readout.grads(), -self.readout.dx.T", "plain"),
    ("gru", "back.steps(part, d[:, size:])", "back.steps(part, d[:, : 3 * size])", "plain",
     "identity", "gru"),
    ("rnn", "back.steps(part, dz)", "back.steps(part, dq)", "layer norm", "identity", "rnn-tanh"),
    ("lstm", "back.steps(part, d)", "back.steps(part, 0 * d)", "plain", "identity", "lstm"),
    ("gru_before", "back.steps(part, d)", "back.steps(part, 0 * d)", "plain", "identity",
     "gru-before"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", named(MISTAKES))
def test_every_mistake_in_the_feedback_of_columns_is_caught(mistake, monkeypatch):
    module, old, new, *what = mistake
    check("numpy", *fed_back(*what))  # unchanged, it passes
    plant(monkeypatch, f"numpy.{module}", old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check("numpy", *fed_back(*what))
