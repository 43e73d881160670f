"""Mistakes in what kernels do for options, planted line by line, and all caught.

Each entry is a line of the source as it stands and as a tired engineer might have written it; the
package is made anew with that one change, and the comparison with the portable code must fail.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from kernel_options import OPTIONS, STACKS, compare
from kernel_planting import plant as plant_in_kernels
from kernel_problems import CELLS
from planting import plant
from problems import TOPOLOGIES, Problem

LAYER = [  # old line, new line, option, and where needed cell, stack, topology
    ("self.before[s][...] = state[:, :n]", "self.before[s][...] = 0.0", "lengths"),
    ("self.tape.keep_bits(state[:, :n], reset[:n], self.before[s])",
     "self.before[s][...] = state[:, :n]", "reset"),
    ("change &= idle[:n]", "change &= ~idle[:n]", "mask"),
    ("change &= idle[:n]", "change &= idle[:n]; self.before[s][...] = after", "mask", "gru"),
    ("bool(course.needs - {\"initial\", \"idle\"})", "False", "reset"),
    ("if self.idle[s] is None:\n", "if True:\n", "mask"),
    ("following[:, n:] = state[:, n:]", "following[:, n:] = 0.0", "lengths"),
    ("tape.keep_bits(state[:, n:], reset[n:], following[:, n:])", "following[:, n:] = state[:, n:]",
     "lengths, reset and state"),
    ("np.multiply(h, self.keep[:, :n], out=entered)",
     "entered[...] = h", "recurrent dropout"),
    ("0.0 if course.initial is None else course.initial[place].T", "0.0", "state"),
    ("course.initial[place].T", "course.initial[0].T", "state", "lstm"),
    ("int(n) for n in course.in_order(course.counts)", "int(n) for n in course.counts", "lengths",
     "gru", "two directions"),
    ("ordered = self.course.in_order(by_time)", "ordered = by_time", "mask", "gru",
     "two directions"),
]  # fmt: skip
BACK = [
    ("tape.keep_bits(field[:, :n], tape.busy[s][:n], now)", "now[...] = field[:, :n]", "mask"),
    ("tape.keep_bits(field[:, :n], idle[:n])", "field[:, :n] = 0.0", "mask"),
    ("field[:, :n] += now", "field[:, :n] = now", "mask", "lstm"),
    ("now[...] = field[:, :n]", "now[...] = field[:, -n:]", "lengths"),
    ("field[:, :n] = now", "field[...] = 0.0; field[:, :n] = now", "lengths"),
    ("tape.keep_bits(field, reset)", "pass", "reset", "lstm"),
    ("tape.keep_bits(field, reset)", "tape.keep_bits(field[:, :n], reset[:n])",
     "lengths, reset and state"),
    ("np.multiply(through, self.tape.keep[:, : self.n], out=out)",
     "np.multiply(through, 1.0, out=out)", "recurrent dropout"),
    ("if not (beside or kept or", "if not (beside or", "recurrent dropout"),
    ("self.dx[s][:, n:] = 0.0", "self.dx[s][:, n:] = 1.0", "lengths"),
    ("0.0 if dfinal is None else dfinal[k].T", "0.0", "state"),
    ("if s == last and not self.given:", "if s == last:", "lengths"),
    ("tuple(field.T.copy()", "tuple(-field.T.copy()", "state"),
    ("s == 0 and not self.tape.begun", "s == 0", "state"),
    ("not (steps.start or tape.begun)", "not steps.start", "state"),
    ("yield slice(0, first)", "pass", "lengths", "rnn-tanh", "one layer"),
    ("dw += np.matmul(d[0],", "dw[...] = np.matmul(d[0],", "lengths"),
]  # fmt: skip
NORM = [
    ("inv += _EPS", "inv += 2.0 * _EPS"),
    ("(mean + _EPS)", "(mean + 2.0 * _EPS)"),
    ("np.multiply(h, inv, out=out)", "out[...] = h"),
    ("self.xs = xs * self.inv_x", "self.xs = xs"),
    ("/ np.sqrt(gates), c.dtype)", ", c.dtype)"),
    ("dk -= np.matmul(self.gram_h", "dk += np.matmul(self.gram_h"),
    ("dk *= norm.inv_h[s, :, : k.shape[1]]", "pass"),
    ('self.sums["w_hh"] += np.matmul(a, k.T)', 'self.sums["w_hh"] = np.matmul(a, k.T)'),
    ("(dks - np.matmul(a, self.gram_x)) * self.norm.inv_x", "dks * self.norm.inv_x"),
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
    ("_copy_rows(states, s, hs, s + 1, row, row + 1)", "hs[s + 1, row] = 0.0", "mask"),
    ("_copy_rows(states, s, hs, s + 1, end, stop)", "_copy_rows(states, 0, hs, s + 1, end, stop)",
     "lengths"),
    ("_copy_rows(hs, s + 1, hs, last, following, end)", "pass", "lengths", "rnn-tanh", "one layer",
     "many-to-one"),
    ("_copy_rows(hs, 0, hs, s + 1, end, following)", "pass", "lengths and state", "lstm",
     "two directions", "many-to-one"),
    ("dh[row, :size] = 0.0", "pass", "mask"),
    ("copy_lanes(1, size, _row(aside, row) + _row(dh, row))", "pass", "mask"),
    ("if turns.keep.shape[0]:\n        tile, size", "if False:\n        tile, size",
     "recurrent dropout"),
    ("rows[row] = 0.0", "rows[row] = rows[row]", "reset"),
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
    ('"w_hh": centred(grads["w_hh"])', '"w_hh": grads["w_hh"]', "layer norm"),
    ("dw, dgain = unscaled(grads[f\"w_{which}\"], c, gain, sums)",
     "dw, dgain = unscaled(grads[f\"w_{which}\"], c, gain, 0 * sums)", "layer norm"),
    ("lower + np.tril(lower, -1).T", "lower", "layer norm", "gru"),
    ("return (a - b) * factor", "return a * factor", "layer norm"),
    ("pack(-gram_h / gates)", "pack(gram_h / gates)", "layer norm", "lstm"),
    ("_scale(tile, size, dk + singles(inv_h) + dk)", "pass", "layer norm", "lstm"),
    ("_add_symmetric(k, along, back.sum_h)", "pass", "layer norm", "lstm"),
    ("total.ctypes.data + 4 * (first * row + first)", "total.ctypes.data + 4 * first * row",
     "layer norm", "wide gru"),
    ("collect(entering, s, start, 0, skip, d, size, dw)",
     "collect(entering, s, start, 0, 1, d, size, dw)", "layer norm"),
]  # fmt: skip
LANES = [
    ("builder.sub(_INDEX(0), first)", "builder.sub(_INDEX(1), first)", "layer norm", "wide gru"),
    ("total.add(store(starts, last, kind, final), last)",
     "total.add(store(starts, last, kind, final))", "layer norm", "wide gru"),
]  # fmt: skip
CELL = [
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

HERE = bool(importlib.util.find_spec("numba"))
IN_NUMPY = [("numpy.layer", *row) for row in LAYER]
IN_NUMPY += [("numpy.back", *row) for row in BACK]
IN_NUMPY += [("numpy.norm", *row, "layer norm") for row in NORM]
IN_NUMPY += [row for row in CELL if row[0].startswith("numpy")]
IN_NUMBA = [("numba.turns", *row) for row in TURNS] + [
    ("numba.norm", *row) for row in COMPILED_NORM
]
IN_NUMBA += [("numba.lanes", *row) for row in LANES]
IN_NUMBA += [row for row in CELL if row[0].startswith("numba")]


def check(kind, option, cell="rnn-tanh", stack="one layer", topology="many-to-many"):
    options, with_ = OPTIONS[option]
    if "dropout" in STACKS[stack]:
        with_ = (*with_, "rng")
    wide, cell = {"hidden": 37} if cell.startswith("wide ") else {}, cell.removeprefix("wide ")
    settings = {**CELLS[cell], **TOPOLOGIES[topology], **options, **STACKS[stack], **wide}
    scale = 0.2 if wide else 0.5
    compare(kind, lambda: Problem(with_=with_, rows=9, steps=6, scale=scale, **settings))


def named(rows):
    return [pytest.param(row, id=f"{row[0]}: {row[1]} -> {row[2]}"[:90]) for row in rows]


@pytest.mark.parametrize("row", named(IN_NUMPY))
def test_every_mistake_in_the_kernels_of_numpy_is_caught(row, monkeypatch):
    where, old, new, *what = row
    check("numpy", *what)  # unchanged, it passes
    plant_in_kernels(monkeypatch, where, old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check("numpy", *what)


@pytest.mark.full
@pytest.mark.skipif(not HERE, reason="numba is not installed")
@pytest.mark.parametrize("row", named(IN_NUMBA))
def test_every_mistake_in_the_compiled_kernels_is_caught(row, monkeypatch):
    """Each is compiled, which takes some seconds."""
    where, old, new, *what = row
    check("numba", *what)
    plant_in_kernels(monkeypatch, where, old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check("numba", *what)


@pytest.mark.skipif(not HERE, reason="numba is not installed")
@pytest.mark.parametrize("row", named(IN_NUMBA))
def test_every_planted_line_of_the_compiled_kernels_is_still_there(row):
    where, old, *_ = row
    spec = importlib.util.find_spec(f"rnn_xp.kernels.{where}")
    with open(spec.origin, encoding="utf-8") as source:
        assert old in source.read()


@pytest.mark.parametrize("row", named(ELSEWHERE))
def test_every_mistake_in_the_order_of_rows_is_caught(row, monkeypatch):
    where, old, new, *what = row
    check("numpy", *what)
    plant(monkeypatch, where, old, new)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        check("numpy", *what)
