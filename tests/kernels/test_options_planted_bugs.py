"""Mistakes in what kernels do for options, planted line by line, and all caught.

Each entry is a line of the source as it stands and as a tired engineer might have written it; the
package is made anew with that one change, and the comparison with the portable code must fail.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import multiprocessing

import numpy as np
import pytest
from kernel_options import ONE_TO_MANY, OPTIONS, STACKS, compare, enlarge
from kernel_planting import plant as plant_in_kernels
from kernel_problems import CELLS
from planting import plant
from problems import TOPOLOGIES, Problem

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
TURNS = [
    ("clear(before, turns.reset, s, start)", "pass", "reset"),
    ("active = max(min(stop, turns.counts[s]) - start, 0)", "active = stop - start", "lengths",
     "gru", "two directions"),
    ("copy_rows(states, s, hs, s + 1, row, row + 1)", "hs[s + 1, row] = 0.0", "mask"),
    ("copy_rows(states, s, hs, s + 1, end, stop)", "copy_rows(states, 0, hs, s + 1, end, stop)",
     "lengths"),
    ("copy_rows(hs, s + 1, hs, last, following, end)", "pass", "lengths", "rnn-tanh", "one layer",
     "many-to-one"),
    ("copy_rows(hs, 0, hs, s + 1, end, following)", "pass", "lengths and state", "lstm",
     "two directions", "many-to-one"),
    ("dh[row, :size] = 0.0", "pass", "mask"),
    ("copy_lanes(1, size, _row(aside, row) + _row(dh, row))", "pass", "mask"),
    ("if turns.keep.shape[0]:\n        tile, size", "if False:\n        tile, size",
     "recurrent dropout"),
    ("rows[row] = 0.0", "rows[row] = 1.0", "reset"),
    ("given = len(dfinal) > 0", "given = False", "state"),
    ("if len(dinitial):", "if len(dinitial) > 9:", "state"),
    ("not brief or turns.reset.shape[0]", "not brief", "lengths, reset and state", "rnn-tanh",
     "one layer", "many-to-one"),
]  # fmt: skip
COMPILED_NORM = [
    ("+ _EPS)", "+ 2.0 * _EPS)", "layer norm"),
    ("_inverses(min(inputs, norm.r_x.shape[0] * PANEL), q_x", "_inverses(1, q_x", "layer norm"),
    ("_scale(tile, inputs, x + singles(inv_x) + x)", "pass", "layer norm"),
    ("_scale(tile, size, h + singles(inv_h) + entered)",
     "_scale(tile, size, h + singles(inv_x) + entered)", "layer norm", "gru"),
    ("h = entered if turns.keep.shape[0] else columns(states[s, start:stop], 0)",
     "h = columns(states[s, start:stop], 0)", "all", "lstm"),
    ("norm.r_h.shape[0] and (s or turns.begun)", "norm.r_h.shape[0] and s", "all", "gru"),
    ("address + 4 * first, h_row, 1, block", "address, h_row, 1, block", "layer norm", "wide gru"),
    ("+ 4 * PANEL * (first // PANEL * size + first)", "+ 4 * PANEL * (first // PANEL * size)",
     "layer norm", "wide gru"),
    ("_inverses(size, c_h, size, inv_h)", "_inverses(size, c_h, 1, inv_h)", "layer norm"),
    ("return dgain + term, gain * term", "return term, gain * term", "layer norm"),
    ("return dgain + term, gain * term", "return dgain + term, term", "layer norm"),
    ("sums[i] = sums[i] * inv_h[i] / np.float32(size)", "sums[i] = sums[i] / np.float32(size)",
     "layer norm"),
    ("- mean * c) * inv", ") * inv", "layer norm"),
    ("np.float32(len(c_h)), c_x.shape[1]", "np.float32(len(c_x)), c_x.shape[1]", "layer norm",
     "gru-before"),
    ("c_x.T @ c_x / np.float32(len(c_x))", "c_x.T @ c_x / gates", "layer norm", "gru-before"),
    ('"w_hh": centred(grads["w_hh"])', '"w_hh": grads["w_hh"]', "layer norm"),
    ("dw, dgain = unscaled(grads[f\"w_{which}\"], c, gain, sums)",
     "dw, dgain = unscaled(grads[f\"w_{which}\"], c, gain, 0 * sums)", "layer norm"),
    ("lower + np.tril(lower, -1).T", "lower", "layer norm", "gru"),
    ("return (a - b) * factor", "return a * factor", "layer norm"),
    ("pack(-gram_h / gates)", "pack(gram_h / gates)", "layer norm", "lstm"),
    ("_scale(tile, size, dk + singles(inv_h) + dk)", "pass", "layer norm", "lstm"),
    ("collect_columns(entering, active, s, start, rows, back.along_h, left, right, back.sum_h)",
     "pass", "layer norm", "lstm"),
    ("1 + inputs + left, min(left + _BLOCK, size)", "1 + inputs + left + 1, min(left + 32, size)",
     "layer norm", "wide gru"),
    ("(0, skip, skip), ds, size, dw)", "(0, 1, 1), ds, size, dw)", "layer norm"),
    ("(skip, width, used), back.d_h, size, dw)", "(skip, width, used), ds, size, dw)",
     "layer norm"),
]  # fmt: skip
COLLECT = [
    ("parts = place % d.shape[0] + 1", "parts = max(place % d.shape[0], 1)", "lengths"),
    ("if parts < d.shape[0] and s > 0:", "if parts < d.shape[0]:", "lengths", "tall gru"),
    ("return active[place], place % d.shape[0]", "return active[place], 0", "lengths"),
    ("turns.counts[steps - 1 - place]", "turns.counts[place]", "lengths", "tall gru"),
    ("turns.counts[steps - 1 - place]", "turns.counts[0]", "lengths", "tall lstm"),
    ("active.ctypes.data + 8 * (len(active) - 1 - s)", "active.ctypes.data", "lengths",
     "tall lstm"),
    ("-samples * width, d_row", "-width, d_row", "state"),
    ("d.shape[1] * d_row, dw_row", "d_row, dw_row", "state"),
    ("(until, end), d, sides, dw, parts - 1)", "(until, end), d, sides, dw, parts)", "lengths",
     "tall lstm"),
    ("if until < end:", "if until > end:", "lengths"),
    ("d.ctypes.data + 4 * left", "d.ctypes.data", "layer norm", "wide gru"),
    ("4 * (first * dw_row + left)", "4 * first * dw_row", "layer norm", "wide gru"),
]  # fmt: skip
LANES = [
    ("builder.sub(_INDEX(0), first)", "builder.sub(_INDEX(1), first)", "layer norm", "wide gru"),
    ("total.add(store(starts, last, kind, final), last)",
     "total.add(store(starts, last, kind, final))", "layer norm", "wide gru"),
]  # fmt: skip
CELL = [
    ("numpy.rnn", "back.skip(part, dz)", "pass", "mask"),
    ("numpy.rnn", "double * norm.gains", "norm.gains", "layer norm"),
    ("numpy.gru", "back.skip(part, d[:, 2 * size :], one=z)", "pass", "mask", "gru"),
    ("numpy.lstm", "back.skip(part, a)", "pass", "mask", "lstm"),
    ("numpy.lstm", "back.skip(part, d, one=f)", "pass", "mask", "lstm"),
    ("numpy.gru", "back.results({**grads", "back.results({**back.grads()", "layer norm", "gru"),
    ("numba.gru", "beside = columns(past, 0) if scaled else columns(dh, 0)",
     "beside = columns(dh, 0)", "recurrent dropout", "gru"),
    ("numba.gru", "pull_back(dp_n, size, back_n, dx, True)", "pass", "layer norm", "gru"),
    ("numba.gru", "copy_lanes(tile, width - 1 - size, columns(dh, size) + columns(dx, 0))", "pass",
     "layer norm", "gru"),
    ("numba.gru", "scale_beside(dh, past[:tile], turns, start)", "pass", "layer norm", "gru"),
    ("numba.turns", "return a * factor + b", "return a + b", "recurrent dropout", "gru"),
    ("numba.lstm", "keep_state(cells, cells, turns, s, start, stop, tile, True)", "pass", "mask",
     "lstm"),
    ("numba.lstm", "stand_aside(dc, aside[1], turns, s, start)", "pass", "mask", "lstm"),
    ("numba.lstm", "clear(all_dc, turns.reset, s, start)", "pass", "reset", "lstm"),
]  # fmt: skip
FED_BACK = [
    ("rnn", "rnn-relu"), ("gru", "gru"), ("gru_before", "gru-before"), ("lstm", "lstm"),
]  # fmt: skip
FEEDBACK = [  # module, old line, new line, option, and where needed output, cell
    ("feedback", "preds[0, :, :size] = xs[0]", "preds[0] = 0.0", "plain"),
    ("feedback", "copy_lanes(stop - start, size, columns(before, 0) + columns(x, 1))", "pass",
     "plain"),
    ("feedback", "clear(x[:, 1 : 1 + size], turns.reset, s, start)", "pass", "reset"),
    ("feedback", "columns(hs[s + 1, start:stop], 0)", "columns(hs[s, start:stop], 0)", "plain"),
    ("feedback", "tile, padded(size),\n            hs.shape[2], False",
     "tile, padded(size),\n            hs.shape[2] - 1, False", "plain"),
    ("feedback", "if readout.output == _TANH:", "if False:", "plain", "tanh"),
    ("feedback", "elif readout.output == _SIGMOID:", "elif False:", "plain", "sigmoid"),
    ("feedback", "if readout.output == _SOFTMAX:", "if False:", "plain", "softmax"),
    ("feedback", "return tanh(y + b)", "return tanh(y)", "plain", "tanh"),
    ("feedback", "sigmoid(tanh(0.5 * (y + b)))", "sigmoid(tanh(y + b))", "plain", "sigmoid"),
    ("feedback", "            add_lanes(tile, size, places)", "            pass", "plain"),
    ("feedback", "total += y[j]", "total = y[j]", "plain", "softmax"),
    ("feedback", "math.exp(y[j] - largest)", "math.exp(y[j])", "plain, large", "softmax"),
    ("feedback", "largest = max(largest, y[j])", "pass", "plain, large", "softmax"),
    ("feedback", "copy_rows(readout.preds, s, readout.preds, s + 1, row, row + 1)", "pass", "mask"),
    ("feedback", "clear(readout.preds[s + 1, row : row + 1], turns.reset, s, row)", "pass",
     "mask and reset"),
    ("feedback", "given[...] = dpreds", "given[...] = 0.0", "plain"),
    ("feedback", "if s + 1 < dxs.shape[0]:", "if False:", "plain"),
    ("feedback", "dpred + columns(back.preds[s + 1, start:stop], 0)",
     "dpred + columns(back.preds[s, start:stop], 0)", "plain", "tanh"),
    ("feedback", "copy_lanes(tile, size, dpred + columns(dy, 0))",
     "pass", "plain"),
    ("feedback", "elif back.output == _TANH:", "elif False:", "plain", "tanh"),
    ("feedback", "elif back.output == _SIGMOID:", "elif False:", "plain", "sigmoid"),
    ("feedback", "dpred * (1.0 - pred * pred)", "dpred * (1.0 - pred)", "plain", "tanh"),
    ("feedback", "dpred * pred * (1.0 - pred)", "dpred * pred", "plain", "sigmoid"),
    ("feedback", "along += dpred[j] * pred[j]", "along = dpred[j] * pred[j]", "plain", "softmax"),
    ("feedback", "pred[j] * (dpred[j] - along)", "pred[j] * dpred[j]", "plain", "softmax"),
    ("feedback", "clear(dy, turns.idle, s, start)", "pass", "mask"),
    ("feedback", "tile, width, size, True,", "tile, width, size, False,", "plain"),
    ("feedback", "copy_rows(back.dpreds, s, dxs, s, row, row + 1)", "pass", "mask"),
    ("feedback", "clear(dxs[s, start:stop], turns.reset, s, start)", "pass", "reset"),
    ("feedback", '"b_y": db_y}', '"b_y": 0 * db_y}', "plain"),
    ("layer", "outs = tape.readout.preds[1:,", "outs = tape.readout.preds[:-1,", "plain"),
    ("layer", "readout_grads(self.readout, self._tape.hs[1:]",
     "readout_grads(self.readout, self._tape.hs[:-1]", "plain"),
    ("layer", "return dxs if self.readout is None else dxs[:1]",
     "return dxs if self.readout is None else dxs[-1:]", "plain"),
    *((cell, line, "pass", "plain", "identity", name)
      for cell, name in FED_BACK
      for line in ("enter_prediction(entering, turns, readout, s, start, stop)",
                   "read_out(hs, turns, readout, s, start, stop)",
                   "read_out_back(all_dh, turns, readout, dxs, s, start)")),
    *((cell, "enter_prediction_back(dxs, turns, readout, s, start, stop)", "pass", option,
       "identity", name)
      for cell, name in FED_BACK
      for option in ("mask", "reset")),
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
COMPILED_BEFORE = [  # and where needed the form of the problem
    ("np.float32(0.5) * join", "join", "state"),
    ('name=f"{name}candidate."', "name=name", "layer norm"),
    ("used = width if s or turns.begun else skip", "used = width if s else skip", "state"),
    ("_factors(turns, start, ones), columns(resets", "columns(ones, 0), columns(resets",
     "recurrent dropout"),
    ("columns(turns.keep[start:], 0)", "columns(turns.keep, 0)", "recurrent dropout", "many "),
    ("sigmoid(s_r) * (h_prev * keep)", "sigmoid(s_r) * h_prev", "recurrent dropout"),
    ("normalise(entering, states, turns, s, start, tile, norm)", "pass", "layer norm"),
    ("tanh(p_n + gain * (c_h * inv))", "tanh(p_n + c_h * inv)", "layer norm"),
    ("tanh(p_n + q)", "tanh(q)", "lengths"),
    ("n + sigmoid(s_z) * (h_prev - n)", "n + sigmoid(s_z) * h_prev", "lengths"),
    ("project(resets, kept, start, 1, used - skip", "project(resets, kept, start, 1, 0", "lengths"),
    ("keep_state(states, hs, turns, s, start, stop, tile, turns.brief)", "pass", "mask"),
    ("given = begin_back(all_dh, dfinal, 0, start)", "given = False", "state"),
    ("stand_aside(dh, aside[0], turns, s, start)", "pass", "mask"),
    ("dh * (h_prev - n) * 0.25", "dh * (h_prev - n)", "lengths"),
    ("dh * (1.0 - z) * (1.0 - n * n)", "dh * (1.0 - n * n)", "lengths"),
    ("straighten(s, start, norm_n, norm_back_n, dp_n, dq)",
     "copy_lanes(tile, size, columns(dp_n, 0) + columns(dq, 0))", "layer norm"),
    ("norm_n.d_h if normed else d_n", "d_n", "layer norm"),
    ("pull_back(dq, size, back_s, ds[:tile], False)",
     "pull_back(dq, size, back_s, ds[:tile], True)", "lengths"),
    ("ds = ds * keep", "ds = ds * 1.0", "recurrent dropout"),
    ("return ds * h_prev * 0.25", "return ds * 0.25", "lengths"),
    ("beside + ds * sigmoid(s_r)", "beside + ds", "lengths"),
    ("d, 2 * size, dw)", "d, size, dw)", "lengths", "wide "),
    ("(0, skip, skip), d_n, size, dw_n)", "(0, 1, 1), d_n, size, dw_n)", "lengths"),
    ("(1, 1 + size, 1 + used - skip)", "(1, 1 + size, 1)", "state"),
    ("if s or to_inputs or turns.begun:", "if s:", "state"),
    ("copy_lanes(tile, skip - 1, columns(dh, size) + columns(dx, 0))", "pass", "lengths"),
    ("pull_back(dp_n, size, back_x, dx, True)", "pass", "lengths"),
    ("give_dx(dx, 0, dxs, s, start, stop)", "give_dx(dh, 0, dxs, s, start, stop)", "lengths"),
    ("scale_beside(dh, past[:tile], turns, start)", "pass", "lengths"),
    ("rejoin(dh, aside[0], turns, s, start)", "pass", "mask"),
    ("clear(all_dh, turns.reset, s, start)", "pass", "reset"),
    ("end_back(all_dh, dinitial, 0, start)", "dinitial[...] = 0.0", "state"),
    ('"w_hh": centred(of_n["w_hh"])', '"w_hh": of_n["w_hh"]', "layer norm"),
    ('"g_hh": norm_n.dgain_h', '"g_hh": 0 * norm_n.dgain_h', "layer norm"),
]  # fmt: skip
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


def fed_back(option, output="identity", cell="rnn-tanh"):
    """Arguments of `check`."""
    return option, cell, "one layer", "one-to-many-feedback", output


AROUND_FEEDBACK = [  # in the package `network`
    ("pipeline", "net.feedback or (options.mask", "(options.mask", *fed_back("mask")),
    ("pipeline", "[dpreds], dfinals", "[0.0 * dpreds], dfinals", *fed_back("plain")),
    ("turns", 'params["readout.w_hy"], params["readout.b_y"]',
     'params["readout.w_hy"], 0.0 * params["readout.b_y"]', *fed_back("plain")),
    ("turns", "net.output_activation)", '"tanh")', *fed_back("plain")),
]  # fmt: skip

HERE = bool(importlib.util.find_spec("numba"))
IN_NUMPY = [("numpy.layer", *row) for row in LAYER]
IN_NUMPY += [("numpy.back", *row) for row in BACK]
IN_NUMPY += [("numpy.norm", *row[:2], "layer norm", *row[2:]) for row in NORM]
IN_NUMPY += [row for row in CELL if row[0].startswith("numpy")]
IN_NUMPY += [("numpy.gru_before", *row, "gru-before") for row in BEFORE]
IN_NUMBA = [("numba.turns", *row) for row in TURNS] + [
    ("numba.norm", *row) for row in COMPILED_NORM
]
IN_NUMBA += [("numba.layer", *row) for row in COLLECT]
IN_NUMBA += [("numba.lanes", *row) for row in LANES]
IN_NUMBA += [row for row in CELL if row[0].startswith("numba")]
IN_NUMBA += [(f"numba.{row[0]}", *row[1:3], *fed_back(*row[3:])) for row in FEEDBACK]
IN_NUMBA += [
    ("numba.gru_before", *row[:3], f"{''.join(row[3:])}gru-before") for row in COMPILED_BEFORE
]


ROWS = {"numpy": 40, "numba": 9}  # in NumPy's kernels for several pieces of columns


def check(
    kind, option, cell="rnn-tanh", stack="one layer", topology="many-to-many", output="identity"
):
    options, with_ = (OPTIONS | ONE_TO_MANY)[option.removesuffix(", large")]
    if "dropout" in STACKS[stack]:
        with_ = (*with_, "rng")
    # More columns than a block of a triangle, and rows for more than a chunk of steps.
    *form, cell = cell.split()
    sizes = {"wide": {"hidden": 37, "scale": 0.2}, "tall": {"rows": 30}, "many": {"rows": 90}}.get(
        "".join(form), {}
    )
    settings = {**CELLS[cell], **TOPOLOGIES[topology], **options, **STACKS[stack]}
    small = {"rows": ROWS[kind], "steps": 6, "scale": 0.5, "output_activation": output}

    def build():
        problem = Problem(with_=with_, **{**small, **sizes}, **settings)
        if option.endswith(", large"):
            enlarge(problem)
        return problem

    compare(kind, build)


def named(rows):
    return [pytest.param(row, id=f"{row[0]}: {row[1]} -> {row[2]}"[:90]) for row in rows]


@pytest.mark.parametrize("row", named(IN_NUMPY))
def test_every_mistake_in_the_kernels_of_numpy_is_caught(row, monkeypatch):
    where, old, new, *what = row
    check("numpy", *what)  # unchanged, it passes
    plant_in_kernels(monkeypatch, where, old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check("numpy", *what)


@pytest.fixture(scope="module")
def processes():
    """Run functions in another process, a new one now and then: machine code is never freed."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, max_tasks_per_child=8) as pool:
        yield pool


def is_caught(row):
    """Tell whether a comparison passes without the mistake and fails with it."""
    import numba

    where, old, new, *what = row
    check("numba", *what)
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        plant_in_kernels(patch, where, old, new)
        patch.setattr(numba.config, "OPT", type(numba.config.OPT)(0))  # it compiles sooner
        try:
            check("numba", *what)
        except AssertionError:
            return True
    return False


@pytest.mark.full
@pytest.mark.skipif(not HERE, reason="numba is not installed")
@pytest.mark.parametrize("row", named(IN_NUMBA))
def test_every_mistake_in_the_compiled_kernels_is_caught(row, processes):
    """Each is compiled, which takes some seconds."""
    assert processes.submit(is_caught, row).result()


@pytest.mark.skipif(not HERE, reason="numba is not installed")
@pytest.mark.parametrize("row", named(IN_NUMBA))
def test_every_planted_line_of_the_compiled_kernels_is_still_there(row):
    where, old, *_ = row
    spec = importlib.util.find_spec(f"rnn_xp.kernels.{where}")
    with open(spec.origin, encoding="utf-8") as source:
        assert old in source.read()


@pytest.mark.skipif(not HERE, reason="numba is not installed")
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
