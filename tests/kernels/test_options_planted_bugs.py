"""Mistakes in what kernels do for options, planted line by line, and all caught.

Each entry is a line of the source as it stands and as a tired engineer might have written it; the
package is made anew with that one change, and the comparison with the portable code must fail.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from kernel_planting import check, fed_back, named
from kernel_planting import plant as plant_in_kernels
from planting import plant

LAYER = [  # old line, new line, option, and where needed cell, stack, topology
    ("state[:, stay:n] = self.held[:, stay:n]", "pass", "lengths and state"),
    ("state[:, :stay] = self.after.each[s - 1][:, :stay]", "state[:, :stay] = 0.0", "lengths"),
    ("stay = min(stay, n)", "stay = 0", "lengths"),
    ("self.held[:, stay:n] = after[:, stay:n]", "pass", "lengths"),
    ("tape.keep_bits(state, lasting, self.before.each[s])", "self.before.each[s][...] = state",
     "reset"),
    ("if scaled or apart:", "if scaled:", "reset"),
    ("if scaled and apart:", "if False:", "all", "gru"),
    ("self.reset, complement=True", "self.reset", "reset"),
    ("(change, skipping, out=change)", "(change, ~skipping, out=change)", "mask"),
    ("np.bitwise_xor(after, change, out=after)", "np.bitwise_xor(before, change, out=before)",
     "mask", "gru"),
    ("(self.before, self.after, change)", "(self.before, self.after, self.after)", "mask"),
    ("if moved[s]:", "if False:", "mask"),
    ("self.hs[s][:, n:] = self.held[:, n:]", "self.hs[s][:, n:] = 0.0", "lengths"),
    ("self.hs[s][:, :n] = after[:, :n]", "self.hs[s][:, :n] = 0.0", "lengths"),
    ("tape.keep_bits(self.held, ~tape.reset[s])", "pass", "lengths, reset and state"),
    ("np.multiply(h, self.keep[:, : h.shape[1]], out=entered)",
     "entered[...] = h", "recurrent dropout"),
    ("0.0 if course.initial is None else course.initial[0].T", "0.0", "state"),
    ("course.initial[place].T", "course.initial[0].T", "state", "lstm"),
    ("int(n) for n in course.in_order(course.counts)", "int(n) for n in course.counts", "lengths",
     "gru", "two directions"),
    ("-self.course.in_order(by_time)", "-by_time", "mask", "gru", "two directions"),
]  # fmt: skip
BACK = [
    ("self.tape.keep_bits(zero, self.busy[steps, :, :columns])", "pass", "mask"),
    ("self.tape.keep_bits(one, self.busy[steps, :, :columns])", "pass", "mask", "lstm"),
    ("one += self.tape.idle[steps, :, :columns] != 0", "pass", "mask", "gru"),
    ("np.bitwise_and(bits, skipping, out=bits)", "pass", "mask"),
    ("np.bitwise_and(bits, skipping, out=bits)", "bits[...] = 0", "mask"),
    ("bits, beside = self.now_bits[0], True", "bits = self.now_bits[0]", "mask"),
    ("new[:, : self.n] = old[:, : self.n]", "new[:, : self.n] = 0.0", "lengths"),
    ("new[:, self.n :] = 0.0", "new[:, self.n :] = 1.0", "lengths"),
    ("now[:, start:stop] = held[:, start:stop]", "now[:, start:stop] = 0.0", "lengths"),
    ("held[:, start:stop] = now[:, start:stop]", "pass", "lengths and state"),
    ("now[:, start:stop] = 0.0", "pass", "lengths", "gru", "two directions"),
    ("held[:, n:] += dh[:, n:]", "pass", "lengths"),
    ("now[:, :n] += dh[:, :n]", "now[:, :n] = dh[:, :n]", "lengths"),
    ("np.bitwise_and(bits, lasting, out=bits)", "pass", "reset", "lstm"),
    ("tape.keep_bits(field, ~tape.reset[s])", "pass", "lengths, reset and state"),
    ("out *= self.keep", "pass", "recurrent dropout"),
    ("self.dx[steps][..., n:] = 0.0", "self.dx[steps][..., n:] = 1.0", "lengths"),
    ("0.0 if dfinal is None else dfinal[k].T", "0.0", "state"),
    ("self.tape.steps - 1 and not self.given:", "self.tape.steps - 1:", "lengths"),
    ("tuple(field.T.copy()", "tuple(-field.T.copy()", "state"),
    ("s == 0 and not tape.begun", "s == 0", "state"),
    ("not (steps.start or tape.begun)", "not steps.start", "state"),
    ("yield slice(0, first)", "pass", "lengths", "rnn-tanh", "one layer"),
    ("dw += np.matmul(d[0],", "dw[...] = np.matmul(d[0],", "lengths"),
]  # fmt: skip
NORM = [  # and where needed cell
    ("self.sum[0, -1] = _EPS", "self.sum[0, -1] = 2.0 * _EPS"),
    ("self.sum[0, -1] = _EPS", "self.sum[0, -1] = 2.0 * _EPS", "gru"),
    ("inv += _EPS", "inv += 2.0 * _EPS"),
    ("np.multiply(h, inv, out=out)", "out[...] = h", "gru"),
    ("np.multiply(x, inv, out=out)", "out[...] = x"),
    ("/ np.sqrt(len(c)), c.dtype)", ", c.dtype)"),
    ("np.asarray(len(c), c.dtype)", "np.asarray(norm.gates, c.dtype)", "gru-before"),
    ('tape.take(f"{name}inverses", 1)', 'tape.take("inverses", 1)', "gru-before"),
    ("np.multiply(y, gain, out=term)", "term[...] = y"),
    ("squares[:, rows] = 1.0", "squares[:, rows] = 2.0"),
    ("np.multiply(self.gram_k[at], e, out=a)", "np.multiply(self.k[at], e, out=a)", "gru"),
    ("dk *= self.norm.inv_h.each[s]", "pass", "lstm"),
    ("np.multiply(self.k, self.e, out=self.gram_k), self.k", "self.k, self.k", "gru"),
    ("dq -= a", "pass"),
    ("dq *= norm.inv_h.each[s]", "pass"),
    ('norm.gains["w_hh"].T / norm.gates', 'norm.gains["w_hh"].T'),
    ("self.dgain += np.matmul", "self.dgain = np.matmul"),
    ("centred(grads[w]), self.dgain", "grads[w], self.dgain"),
    ("dk -= np.matmul(self.gram_x", "dk += np.matmul(self.gram_x"),
    ("dk *= inv", "pass"),
    ('self.sums["w_xh"] += np', 'self.sums["w_xh"] -= np'),
    ("centred(gain * dw) - through", "gain * dw - through"),
    ("centred(gain * dw) - through", "centred(gain * dw)"),
    ("np.sum(dw * c, axis=1)", "np.sum(dw, axis=1)"),
    ("w - np.mean(w, axis=0)", "w - np.mean(w)"),
]
CELL = [
    ("numpy.rnn", "back.skip(part, dz)", "pass", "mask"),
    ("numpy.rnn", "double * norm.gains", "norm.gains", "layer norm"),
    ("numpy.gru", "back.skip(part, d[:, 2 * size :], one=z)", "pass", "mask", "gru"),
    ("numpy.lstm", "back.skip(part, a)", "pass", "mask", "lstm"),
    ("numpy.lstm", "back.skip(part, d, one=f)", "pass", "mask", "lstm"),
    ("numpy.gru", "back.results({**grads", "back.results({**back.grads()", "layer norm", "gru"),
]  # fmt: skip
BEFORE = [
    ("w_rz = -join", "w_rz = join", "state"),
    ("w_n = 2.0 * join", "w_n = join", "state"),
    ("np.multiply(r, before, out=reset)", "np.multiply(z, before, out=reset)", "state"),
    ("reset *= tape.keep[:, : h.shape[1]]", "pass", "recurrent dropout"),
    ("tape.candidate.add(s, gain, n)", "tape.candidate.add(s, gain / 2.0, n)", "layer norm"),
    ('tape.w_hn, gain = norm.params["w_hh"]', 'tape.w_hn, gain = of_n["w_hh"]', "layer norm"),
    ("elif s or tape.begun:", "elif s:", "state"),
    ("h *= z", "pass", "state"),
    ("dp_n *= b", "pass", "lengths"),
    ("dp_z *= b", "pass", "lengths"),
    ("dp_z *= z", "pass", "lengths"),
    ("dp_r *= reset", "dp_r *= tape.part(hs, part)", "state"),
    ("back.skip(part, d, one=z)", "pass", "mask"),
    ("dz[1:] *= dh", "dz[1] *= dh", "lengths"),
    ("norm.straighten(s, dz[2], dq[k])", "dq[k] = dz[2]", "layer norm"),
    ("np.matmul(w_hn, dq[k], out=ds)", "np.matmul(w_hn.T, dq[k], out=ds)", "lengths"),
    ("dz[0] *= ds", "pass", "lengths"),
    ("ds *= r[k]", "pass", "lengths"),
    ("ds *= back.keep", "pass", "recurrent dropout"),
    ("dh *= z[k]", "pass", "lengths"),
    ("dh += ds", "pass", "lengths"),
    ("norm.add_gain()", "pass", "layer norm"),
    ("back.add_products(dq, reset, dw_n)", "back.add_products(dp_n, reset, dw_n)", "layer norm"),
    ("back.add_products(dq, reset, dw_n)", "pass", "lengths"),
    ('{"w_hh": centred(dw_n)', '{"w_hh": dw_n', "layer norm"),
]
ELSEWHERE = [  # of the package `network`
    ("turns", "xp.matrix_transpose(~idle)", "xp.matrix_transpose(idle)", "mask"),
    ("turns", "mask=take(options.mask)", "mask=options.mask", "lengths and mask"),
    ("turns", "reset=take(options.reset)", "reset=options.reset", "lengths, reset and state"),
    ("turns", "options.state, order.ranked", "options.state, order.places",
     "lengths, reset and state"),
    ("turns", "[take(keep) for keep in noise.recurrent]", "noise.recurrent", "all"),
    ("turns", "[take(keep, axis=1) for keep in noise.between]", "noise.between", "lengths", "gru",
     "two layers and directions"),
    ("pipeline", "xp.take(dpred, order.ranked, axis=0)", "dpred", "lengths"),
    ("pipeline", "xp.take(pred, forward.order.places, axis=0)", "pred", "lengths"),
    ("pipeline", "take_rows(dstate, order.ranked", "take_rows(dstate, order.places", "lengths"),
    ("pipeline", "take_rows(final, forward.order.places", "take_rows(final, forward.order.ranked",
     "lengths"),
    ("pipeline", "xp.take(dx, places, axis=0)", "dx", "lengths"),
    ("pipeline", "lambda a: xp.take(a, places, axis=0), d)", "lambda a: a, d)",
     "lengths, reset and state"),
]  # fmt: skip
AROUND_FEEDBACK = [  # in the package `network`
    ("pipeline", "net.feedback or (options.mask", "(options.mask", *fed_back("mask")),
    ("pipeline", "[dpreds], dfinals", "[0.0 * dpreds], dfinals", *fed_back("plain")),
    ("turns", 'params["readout.w_hy"], params["readout.b_y"]',
     'params["readout.w_hy"], 0.0 * params["readout.b_y"]', *fed_back("plain")),
    ("turns", "net.output_activation)", '"tanh")', *fed_back("plain")),
]  # fmt: skip

IN_NUMPY = [("numpy.layer", *row) for row in LAYER]
IN_NUMPY += [("numpy.back", *row) for row in BACK]
IN_NUMPY += [("numpy.norm", *row[:2], "layer norm", *row[2:]) for row in NORM]
IN_NUMPY += CELL
IN_NUMPY += [("numpy.gru_before", *row, "gru-before") for row in BEFORE]


@pytest.mark.parametrize("row", named(IN_NUMPY))
def test_every_mistake_in_the_kernels_of_numpy_is_caught(row, monkeypatch):
    where, old, new, *what = row
    check("numpy", *what)  # unchanged, it passes
    plant_in_kernels(monkeypatch, where, old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check("numpy", *what)


@pytest.mark.skipif(not importlib.util.find_spec("numba"), reason="numba is not installed")
@pytest.mark.parametrize("row", named(AROUND_FEEDBACK))
def test_every_mistake_around_feedback_is_caught(row, monkeypatch):
    where, old, new, *what = row
    check("numba", *what)
    plant(monkeypatch, where, old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check("numba", *what)


@pytest.mark.parametrize("row", named(ELSEWHERE))
def test_every_mistake_in_the_order_of_rows_is_caught(row, monkeypatch):
    where, old, new, *what = row
    check("numpy", *what)
    plant(monkeypatch, where, old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check("numpy", *what)
