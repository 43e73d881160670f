"""Parts of the compiled layers for feedback: the readout's prediction is the next step's input.

Each does nothing if it is told None in place of a readout, and code compiled for that has nothing
of it. A row that skips a step keeps what would have entered it, see `rnn_xp.kernels.course`::

    Forward                                       Backward
    x_t = pred_{t-1}                              dpred_{t-1} += dx_t
    the layer's step, to h_t                      the layer's step back, from dh_t
    pred_t = g(h_t @ w_hy.T + b_y)                dy_t = dpred_t * g'(y_t);  dh_t += dy_t @ w_hy
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numba.lanes import columns, lanewise, shared, sigmoid, tanh
from rnn_xp.kernels.numba.product import PANEL, compiled, multiply, pack, padded
from rnn_xp.kernels.numba.turns import add_lanes, clear, copy_lanes, copy_rows

__all__ = [
    "Readout",
    "ReadoutBack",
    "enter_prediction",
    "enter_prediction_back",
    "make_readout",
    "read_out",
    "read_out_back",
    "readout_grads",
]

_OUTPUTS = ("identity", "tanh", "sigmoid", "softmax")
_IDENTITY, _TANH, _SIGMOID, _SOFTMAX = range(len(_OUTPUTS))

_Floats = NDArray[np.floating[Any]]


class Readout(NamedTuple):
    """A `rnn_xp.kernels.course.Feedback` for compiled code.

    Attributes
    ----------
    w : ndarray (H, O), packed
        w_hy.T
    b : ndarray (O,)
    preds : ndarray (T + 1, N, ~O)
        The prediction before the first step, which is the first input, and after each.
    output : int
        The number of g.
    """

    w: _Floats
    b: _Floats
    preds: _Floats
    output: int


class ReadoutBack(NamedTuple):
    """The way back of a `Readout`.

    Attributes
    ----------
    w : ndarray (O, H), packed
        w_hy
    preds : ndarray (T + 1, N, ~O)
    dpreds : ndarray (T, N, O)
        Gradients of the predictions; that of each step is complete once the step is reached.
    dys : ndarray (T, N, O)
        Those of what g is applied to, zero where a row skips the step.
    output : int
    """

    w: _Floats
    preds: _Floats
    dpreds: _Floats
    dys: _Floats
    output: int

    @classmethod
    def of(cls, course: Course, readout: Readout, dpreds: Any, workspace: Any) -> ReadoutBack:
        """Prepare a backward pass."""
        given, dys = (workspace.take(name, *dpreds.shape) for name in ("dpreds", "dys"))
        given[...] = dpreds
        w = pack(np.asarray(course.feedback.w_hy, np.float32))  # type: ignore[union-attr]
        return cls(w, readout.preds, given, dys, readout.output)


def make_readout(xs: _Floats, course: Course, workspace: Any, name: str) -> Readout | None:
    """Convert the feedback of a course, if it has any, and note the first input."""
    if course.feedback is None:
        return None
    (steps, rows, size), (w_hy, b_y, output) = xs.shape, course.feedback
    preds = workspace.take(f"{name}preds", steps + 1, rows, padded(size))
    preds[0, :, :size] = xs[0]
    return Readout(
        pack(np.asarray(w_hy, np.float32).T), np.array(b_y, np.float32), preds,
        _OUTPUTS.index(output),
    )  # fmt: skip


def readout_grads(back: ReadoutBack, hs: _Floats, workspace: Any) -> dict[str, _Floats]:
    """Return the gradients of the readout's weights, given all states (T, N, H)."""
    dys = back.dys.reshape(-1, back.dys.shape[2])
    (dw_hy,), db_y = workspace.weight_grads(dys, [workspace.rows("read", hs)])
    return {"w_hy": dw_hy, "b_y": db_y}


@compiled
def enter_prediction(entering, turns, readout, s, start, stop):
    """Make x in `entering` the prediction before the step, or zero for rows that begin anew."""
    if readout is not None:
        size = readout.b.shape[0]
        before, x = readout.preds[s, start:stop], entering[s, start:stop]
        copy_lanes(stop - start, size, columns(before, 0) + columns(x, 1))
        clear(x[:, 1 : 1 + size], turns.reset, s, start)


@compiled
def read_out(hs, turns, readout, s, start, stop):
    """Compute the predictions of a tile after the step."""
    if readout is not None:
        tile, size = stop - start, readout.b.shape[0]
        made, (h, h_row) = readout.preds[s + 1, start:stop], columns(hs[s + 1, start:stop], 0)
        panel, y = PANEL * hs.shape[2], columns(made, 0)
        multiply(
            h, h_row, 1, readout.w.ctypes.data, PANEL, panel, y[0], y[1], tile, padded(size),
            hs.shape[2], False,
        )  # fmt: skip
        places = y + shared(readout.b) + y
        if readout.output == _TANH:
            _tanh(tile, size, places)
        elif readout.output == _SIGMOID:
            _sigmoid(tile, size, places)
        else:
            add_lanes(tile, size, places)
        if readout.output == _SOFTMAX:
            for row in range(tile):
                _softmax(made[row], size)
        if turns.idle.shape[0]:
            for row in range(start, stop):
                if turns.idle[s, row]:
                    copy_rows(readout.preds, s, readout.preds, s + 1, row, row + 1)
                    clear(readout.preds[s + 1, row : row + 1], turns.reset, s, row)


@compiled
def _softmax(y, size):
    largest, total = y[0], np.float32(0.0)
    for j in range(1, size):
        largest = max(largest, y[j])
    for j in range(size):
        y[j] = math.exp(y[j] - largest)
        total += y[j]
    for j in range(size):
        y[j] /= total


@lanewise
def _tanh(y, b):
    return tanh(y + b)


@lanewise
def _sigmoid(y, b):
    return sigmoid(tanh(0.5 * (y + b)))


@compiled
def read_out_back(dh, turns, back, dxs, s, start):
    """Complete the gradients of a tile's predictions, and add to dh what comes from them."""
    if back is not None:
        tile, size = dh.shape[0], dxs.shape[2]
        stop = start + tile
        dpred, dy = columns(back.dpreds[s, start:stop], 0), back.dys[s, start:stop]
        if s + 1 < dxs.shape[0]:
            add_lanes(tile, size, dpred + columns(dxs[s + 1, start:stop], 0) + dpred)
        places = dpred + columns(back.preds[s + 1, start:stop], 0) + columns(dy, 0)
        if back.output == _IDENTITY:
            copy_lanes(tile, size, dpred + columns(dy, 0))
        elif back.output == _TANH:
            _tanh_back(tile, size, places)
        elif back.output == _SIGMOID:
            _sigmoid_back(tile, size, places)
        else:
            for row in range(start, stop):
                _softmax_back(back.dpreds[s, row], back.preds[s + 1, row], back.dys[s, row])
        clear(dy, turns.idle, s, start)
        panel, width = PANEL * size, min(PANEL * back.w.shape[0], dh.shape[1])
        multiply(
            dy.ctypes.data, size, 1, back.w.ctypes.data, PANEL, panel, dh.ctypes.data, dh.shape[1],
            tile, width, size, True,
        )  # fmt: skip


@lanewise
def _tanh_back(dpred, pred):
    return dpred * (1.0 - pred * pred)


@lanewise
def _sigmoid_back(dpred, pred):
    return dpred * pred * (1.0 - pred)


@compiled
def _softmax_back(dpred, pred, dy):
    along = np.float32(0.0)
    for j in range(len(dy)):
        along += dpred[j] * pred[j]
    for j in range(len(dy)):
        dy[j] = pred[j] * (dpred[j] - along)


@compiled
def enter_prediction_back(dxs, turns, back, s, start, stop):
    """Make dx of a tile the gradient of the prediction before the step."""
    if back is not None:
        if turns.idle.shape[0]:
            for row in range(start, stop):
                if turns.idle[s, row]:
                    copy_rows(back.dpreds, s, dxs, s, row, row + 1)
        clear(dxs[s, start:stop], turns.reset, s, start)
