"""Parts of the compiled layers: buffers in rows, tiles of rows, and the pieces of a step.

A tile of rows goes through all steps before the next tile begins, so the arrays of a step stay in
the cache. W is 1 + I + H, and ``~`` marks a number of columns padded to a multiple of 8::

    entering  (T + 1, N, W)     [1, x, h] of each step, in the order in which the steps are done
    hs        (T + 1, N, H)     state before the first step and after each; it is h of `entering`
                                unless reset, keep or normalisation comes between
    w         (W, G*H) packed   [b_h; w_xh.T; w_hh.T], so that one product gives z
    dw        (W, ~G*H)         its gradient
    back      (G*H, H) packed   w_hh, and beside it w_xh where dx is wanted
    through   (TILE, ~(H + I))  [dh, dx] of the step at hand
    d         (S, TILE, ~G*H)   dz of the steps of a chunk

The sigmoid is computed as (1 + s) / 2 with s = tanh(z / 2): the weights of sigmoids are halved
beforehand, and s is kept.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numba.feedback import Readout, ReadoutBack, make_readout, readout_grads
from rnn_xp.kernels.numba.lanes import columns
from rnn_xp.kernels.numba.product import (
    PANEL,
    compiled,
    multiply,
    multiply_parts,
    padded,
    spaced,
)
from rnn_xp.kernels.numba.turns import Turns, add_lanes, copy_lanes, make_turns

__all__ = [
    "TILE",
    "Back",
    "Layout",
    "Tape",
    "add_own_share",
    "chunk",
    "collect",
    "collect_columns",
    "count_rows",
    "enter",
    "forwarded",
    "give_dx",
    "join",
    "project",
    "pull_back",
    "split",
    "turn_of",
]

TILE = 72  # rows; a multiple of the 12 rows of the product's tiles
_TERMS = 144  # of a sum over the rows and steps of a chunk, for which its strips stay in the cache

_Floats = NDArray[np.floating[Any]]


class Tape(NamedTuple):
    """Arrays that a forward pass keeps for its backward pass; ``kept`` depends on the cell.

    Attributes
    ----------
    entering : ndarray (T + 1, N, W)
        [1, x, h] of each step, with h as it enters the product.
    states : ndarray (T + 1, N, H)
        h before each step; it differs from h of ``entering`` if factors come between.
    hs : ndarray (T + 1, N, H)
        h after each step, behind the one before the first; it differs from ``states`` if ``reset``
        comes between.
    """

    entering: _Floats
    states: _Floats
    hs: _Floats
    kept: tuple[Any, ...]
    course: Course
    turns: Turns
    workspace: Any
    name: str
    readout: Readout | None  # with feedback
    weights: Any = None  # of plain products, see `rnn_xp.kernels.numba.norm.plain`
    norm: Any = None  # a `rnn_xp.kernels.numba.norm.Norm`


class Layout(NamedTuple):
    """A forward pass that is prepared: ``function(*arguments)`` computes it, any number of times.

    Attributes
    ----------
    fields : tuple of ndarray (T + 1, N, H)
        Fields of the state before the first step and after each; h first.
    """

    tape: Tape
    fields: tuple[_Floats, ...]
    function: Any
    arguments: tuple[Any, ...]


def enter(
    xs: _Floats, size: int, course: Course, workspace: Any, name: str, scaled: bool = False
) -> Tape:
    """Lay out [1, x, h] for all steps in the order of computation; h is filled in later.

    It has an array apart if it has factors, those of ``keep`` or others.
    """
    steps, rows, inputs = xs.shape
    entering = workspace.take(f"{name}entering", steps + 1, rows, 1 + inputs + size)
    xs = np.asarray(course.in_order(xs), np.float32)
    if xs.strides[2] != xs.itemsize:
        xs = np.ascontiguousarray(xs)
    # By address and strides, since code is compiled for every layout of an array.
    _fill(entering, xs.ctypes.data, xs.strides[0] // 4, xs.strides[1] // 4, inputs)

    def apart(what: str) -> _Floats:
        # Rows of one more column, so that the layout is that of a part of `entering`.
        buffer: _Floats = workspace.take(f"{name}{what}", steps + 1, rows, size + 1)
        return buffer[:, :, :size]

    inside = entering[:, :, 1 + inputs :]
    scaled = scaled or course.keep is not None
    states = apart("states") if scaled else inside
    hs = states if course.reset is None else apart("hs")
    hs[0] = 0.0 if course.initial is None else course.initial[0]
    if not scaled:
        inside[0] = hs[0]
    turns, readout = make_turns(course, steps, rows), make_readout(xs, course, workspace, name)
    return Tape(entering, states, hs, (), course, turns, workspace, name, readout)


def join(params: dict[str, _Floats]) -> _Floats:
    """Join the weights that multiply the rows of `enter`, (W, G*H)."""
    b_h, w_xh, w_hh = (np.asarray(params[name]) for name in ("b_h", "w_xh", "w_hh"))
    return np.concatenate([b_h[None, :], w_xh.T, w_hh.T])


def split(dw: _Floats, gates: int, inputs: int) -> dict[str, _Floats]:
    """Undo `join`: return the gradients of the parameters as separate arrays."""
    b_h, w_xh, w_hh = np.split(dw[:, :gates], (1, 1 + inputs))
    return {"w_hh": w_hh.T.copy(), "b_h": b_h[0].copy(), "w_xh": w_xh.T.copy()}


def forwarded(tape: Tape, *more: _Floats) -> tuple[_Floats, tuple[_Floats, ...], Tape]:
    """Return states or predictions by time, the fields of the last state, and the tape."""
    outs = hs = tape.hs[1:]
    if tape.readout is not None:
        outs = tape.readout.preds[1:, :, : len(tape.readout.b)]
    return tape.course.in_order(outs), (hs[-1], *more), tape


class Back:
    """Buffers of a backward pass, and the gradients of the loss with respect to the states.

    Attributes
    ----------
    own : ndarray (K, N, H)
        Gradients that come directly from the loss at a step, each distinct array once.
    which : ndarray (T,) of int
        Index into ``own`` for each step, in the order of the steps; -1 if there is none.
    dxs : ndarray (T, N, I)
        Gradients of the input, in the order of the steps; I is 0 if dx is not needed.
    dfinal, dinitial : ndarray (F, N, H)
        Gradients of the fields of the final state, if given, and of a given initial state; F is 0
        if there is none.
    aside : ndarray (F, TILE, H)
        Gradients that pass by the step at hand.
    active : ndarray (T,) of int
        Room for `count_rows`.
    readout : ReadoutBack or None
        With feedback; what is given are then the gradients of the predictions.
    """

    def __init__(
        self,
        params: dict[str, _Floats],
        tape: Tape,
        dhs: Sequence[_Floats | None],
        dfinal: tuple[_Floats, ...] | None,
        wanted: bool,
        fields: int = 1,
    ) -> None:
        gates, size = params["w_hh"].shape
        steps, (_, rows, width) = len(dhs), tape.entering.shape
        self.inputs = params["w_xh"].shape[1]
        inputs = self.inputs if wanted else 0
        beside = self.inputs if wanted or "g_xh" in params else 0
        take, self.readout = tape.workspace.take, None
        if tape.readout is not None:
            self.readout = ReadoutBack.of(tape.course, tape.readout, dhs, tape.workspace)
            dhs = [None] * steps
        distinct = {id(dh): dh for dh in dhs if dh is not None}
        places = {key: place for place, key in enumerate(distinct)}
        self.own = take("own", len(distinct), rows, size)
        for place, dh in enumerate(distinct.values()):
            self.own[place] = dh
        ordered = tape.course.in_order(dhs)
        self.which = np.asarray([-1 if dh is None else places[id(dh)] for dh in ordered])
        self.through = _zeros(take("through", TILE, spaced(size + beside)))
        self.active = np.zeros(steps, np.int64)
        self.d = chunk(tape, "d", gates)
        self.dw = _zeros(take("dw", width, spaced(gates)))
        self.dxs = take(f"{tape.name}dx", steps, rows, inputs)
        self.aside = take("aside", fields, TILE, size)
        self.dfinal = take("dfinal", 0 if dfinal is None else fields, rows, size)
        for place, field in enumerate(dfinal or ()):
            self.dfinal[place] = field
        self.dinitial = take(f"{tape.name}dinitial", fields * tape.turns.begun, rows, size)
        self._tape = tape

    def of_readout(self) -> dict[str, _Floats]:
        """Return the gradients of the readout; none without feedback."""
        if self.readout is None:
            return {}
        return readout_grads(self.readout, self._tape.hs[1:], self._tape.workspace)

    def by_time(self) -> _Floats | None:
        """Return the gradient of the input (T, N, I), or None if it is not needed."""
        if not self.dxs.shape[2]:
            return None
        dxs: _Floats = self._tape.course.in_order(self.dxs)
        return dxs if self.readout is None else dxs[:1]

    def at_start(self) -> tuple[_Floats, ...] | None:
        """Return the gradient of the initial state; None if it was not given."""
        return tuple(self.dinitial) or None


def chunk(tape: Tape, name: str, gates: int) -> _Floats:
    """Return room for the gradients of a chunk of steps, (S, TILE, ~gates).

    If there are fewer rows than in a tile, it has so many, so that there is nothing between them.
    """
    steps, rows = len(tape.hs) - 1, max(1, min(tape.hs.shape[1], TILE))
    count = max(1, min(steps, _TERMS // rows))
    return _zeros(tape.workspace.take(name, count, rows, spaced(gates)))


def _zeros(buffer: _Floats) -> _Floats:
    buffer[...] = 0.0
    return buffer


@compiled
def _fill(entering, xs, by_step, by_row, inputs):
    """Put [1, x] of all steps into place; strides are in floats."""
    steps, rows = entering.shape[0] - 1, entering.shape[1]
    for s in range(steps):
        entering[s, :, 0] = 1.0
        x = (xs + 4 * s * by_step, by_row)
        copy_lanes(rows, inputs, x + columns(entering[s], 1))


@compiled
def project(entering, s, start, first, used, w, z):
    """Compute z (tile, ~J) = ``used`` columns of [1, x, h], times w."""
    _, rows, width = entering.shape
    entered = entering.ctypes.data + 4 * ((s * rows + start) * width + first)
    tile, z_row = z.shape
    panel, columns = PANEL * w.shape[1], min(PANEL * w.shape[0], z_row)
    multiply(
        entered, width, 1, w.ctypes.data, PANEL, panel, z.ctypes.data, z_row, tile, columns, used,
        False,
    )  # fmt: skip


@compiled
def count_rows(active, turns, start, stop):
    """Note how many rows of a tile compute each step, the last step first."""
    steps = len(active)
    for place in range(steps):
        active[place] = max(min(stop, turns.counts[steps - 1 - place]) - start, 0)


@compiled
def turn_of(active, d, s):
    """Return how many rows of a tile compute a step, and the place of the step in its chunk."""
    place = len(active) - 1 - s
    return active[place], place % d.shape[0]


@compiled
def collect(entering, active, s, start, rows, d, gates, dw):
    """Compute all columns of `collect_columns`."""
    collect_columns(entering, active, s, start, rows, d, 0, gates, dw)


@compiled
def collect_columns(entering, active, s, start, rows, d, left, right, dw):
    """Sum over the rows of a tile and the steps of a chunk: dw += [1, x, h].T d.

    Nothing is done before the last step of a chunk, so that dw is read and written once for it.
    Terms are in the order of the way back through the steps, and for each in that of the rows.

    Parameters
    ----------
    rows : (int, int, int)
        The first row of dw, the one behind the last, and the one behind those that the first step
        of all adds to, in which h may be zero.
    d : ndarray (S, TILE, ~G*H)
        Gradients of the steps of a chunk, see `turn_of`.
    left, right : int
        The first column and the one behind the last; ``left`` is a multiple of 8.
    """
    (first, end, used), place = rows, len(active) - 1 - s
    parts = place % d.shape[0] + 1
    if parts < d.shape[0] and s > 0:
        return
    sides, until = (left, right), used if s == 0 else end
    _add_products(entering, active, s, start, (first, until), d, sides, dw, parts)
    if until < end:
        _add_products(entering, active, 1, start, (until, end), d, sides, dw, parts - 1)


@compiled
def _add_products(entering, active, s, start, rows, d, sides, dw, parts):
    (_, samples, width), (first, end), (left, right) = entering.shape, rows, sides
    d_row, dw_row = d.shape[2], dw.shape[1]
    s += parts - 1  # back to the first step of the chunk
    entered = entering.ctypes.data + 4 * ((s * samples + start) * width + first)
    counts = active.ctypes.data + 8 * (len(active) - 1 - s)
    multiply_parts(
        entered, d.ctypes.data + 4 * left, dw.ctypes.data + 4 * (first * dw_row + left),
        end - first, padded(right - left),
        (1, width, -samples * width, d_row, PANEL, d.shape[1] * d_row, dw_row, parts, counts, 1),
    )  # fmt: skip


@compiled
def pull_back(d, gates, back, through, add):
    """Compute [dh, dx], or add to it: [dh, dx] (+)= d [w_hh, w_xh]."""
    (tile, d_row), row = d.shape, through.shape[1]
    panel, columns = PANEL * back.shape[1], min(PANEL * back.shape[0], row)
    multiply(
        d.ctypes.data, d_row, 1, back.ctypes.data, PANEL, panel, through.ctypes.data, row, tile,
        columns, gates, add,
    )  # fmt: skip


@compiled
def add_own_share(dh, own, place, start, size, last):
    """Add the loss's gradient at this step to dh; at the last step it is all of dh."""
    tile = dh.shape[0]
    total = columns(dh, 0)
    if place >= 0:
        share = columns(own[place, start : start + tile], 0)
        if last:
            copy_lanes(tile, size, share + total)
        else:
            add_lanes(tile, size, share + total + total)
    elif last:
        dh[...] = 0.0


@compiled
def give_dx(through, size, dxs, s, start, stop):
    """Copy dx of a step to the caller's array; it is zero for rows that do not compute the step."""
    tile, inputs = through.shape[0], dxs.shape[2]
    if inputs:
        copy_lanes(tile, inputs, columns(through, size) + columns(dxs[s, start : start + tile], 0))
        dxs[s, start + tile : stop] = 0.0
