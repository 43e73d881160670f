"""Mistakes in the compiled kernels, planted line by line, and all caught.

Each entry is as in `test_options_planted_bugs`. What is made anew is compiled, in another process.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import multiprocessing

import numpy as np
import pytest
from kernel_planting import check, fed_back, named, plant

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("numba"), reason="numba is not installed"
)

TURNS = [  # old line, new line, option, and where needed cell, stack, topology
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
NORM = [
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
BEFORE = [  # and where needed the form of the problem
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

MISTAKES = [("numba.turns", *row) for row in TURNS]
MISTAKES += [("numba.norm", *row) for row in NORM]
MISTAKES += [("numba.layer", *row) for row in COLLECT]
MISTAKES += [("numba.lanes", *row) for row in LANES]
MISTAKES += CELL
MISTAKES += [(f"numba.{row[0]}", *row[1:3], *fed_back(*row[3:])) for row in FEEDBACK]
MISTAKES += [("numba.gru_before", *row[:3], f"{''.join(row[3:])}gru-before") for row in BEFORE]


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
        plant(patch, where, old, new)
        patch.setattr(numba.config, "OPT", type(numba.config.OPT)(0))  # it compiles sooner
        try:
            check("numba", *what)
        except AssertionError:
            return True
    return False


@pytest.mark.full
@pytest.mark.parametrize("row", named(MISTAKES))
def test_every_mistake_in_the_compiled_kernels_is_caught(row, processes):
    """Each is compiled, which takes some seconds."""
    assert processes.submit(is_caught, row).result()


@pytest.mark.parametrize("row", named(MISTAKES))
def test_every_planted_line_of_the_compiled_kernels_is_still_there(row):
    where, old, *_ = row
    spec = importlib.util.find_spec(f"rnn_xp.kernels.{where}")
    with open(spec.origin, encoding="utf-8") as source:
        assert old in source.read()
