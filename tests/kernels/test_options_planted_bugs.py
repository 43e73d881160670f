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
    ("hs[s + 1, row] = states[s, row]", "hs[s + 1, row] = 0.0", "mask"),
    ("_copy_rows(states, s, hs, s + 1, end, stop)", "_copy_rows(states, 0, hs, s + 1, end, stop)",
     "lengths"),
    ("_copy_rows(hs, s + 1, hs, last, following, end)", "pass", "lengths", "rnn-tanh", "one layer",
     "many-to-one"),
    ("_copy_rows(hs, 0, hs, s + 1, end, following)", "pass", "lengths and state", "lstm",
     "two directions", "many-to-one"),
    ("dh[row, :size] = 0.0", "pass", "mask"),
    ("dh[row, :size] = aside[row]", "pass", "mask"),
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
    ("_inverses(q_x, min(inputs, gates), 1, inv_x)", "_inverses(q_x, 1, 1, inv_x)", "layer norm"),
    ("_scale(tile, inputs, x + per_row + x)", "pass", "layer norm"),
    ("return z + gain * (c_h * inv)", "return z + gain * c_h", "layer norm"),
    ("- mean * c) * inv", ") * inv", "layer norm"),
    ("dgain[j] += term", "dgain[j] = term", "layer norm"),
    ("means[i] = total * factor", "means[i] = total", "layer norm"),
    ('"w_hh": centred(grads["w_hh"])', '"w_hh": grads["w_hh"]', "layer norm"),
    ("unscaled(grads[\"w_xh\"], c_x, gain, sums)", "unscaled(grads[\"w_xh\"], c_x, gain, 0 * sums)",
     "layer norm"),
    ("return (a - b) * factor", "return a * factor", "layer norm"),
    ("0, 1 + inputs, d_x, gates, dw)", "0, 1 + inputs, d_h, gates, dw)", "layer norm", "gru"),
    ("pull_back(d_x, gates, back.w_x", "pull_back(d_h, gates, back.w_x", "layer norm", "gru"),
    ("(gain + 4 * both, 0,", "(gain, 0,", "layer norm", "gru"),
    ("columns(c_h, both) + weights", "columns(c_h, 0) + weights", "layer norm", "gru"),
]  # fmt: skip
CELL = [
    ("numpy.gru", "back.results({**grads", "back.results({**back.grads()", "layer norm", "gru"),
    ("numba.gru", "beside = columns(past, 0) if scaled else columns(dh, 0)",
     "beside = columns(dh, 0)", "recurrent dropout", "gru"),
    ("numba.gru", "copy_lanes(tile, size, columns(dp_n, 0) + columns(d_x, 2 * size))", "pass",
     "layer norm", "gru"),
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
IN_NUMBA += [row for row in CELL if row[0].startswith("numba")]


def check(kind, option, cell="rnn-tanh", stack="one layer", topology="many-to-many"):
    options, with_ = OPTIONS[option]
    if "dropout" in STACKS[stack]:
        with_ = (*with_, "rng")
    settings = {**CELLS[cell], **TOPOLOGIES[topology], **options, **STACKS[stack]}
    compare(kind, lambda: Problem(with_=with_, rows=9, steps=6, scale=0.5, **settings))


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
