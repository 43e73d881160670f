"""Parts of NumPy's layers: the arrays of a pass and of each of its steps.

Samples are in columns. A pass is cut into pieces of steps that are computed with equally many
columns: a single piece unless rows have lengths. In a piece, what a step keeps is an array (H, n),
and all steps have theirs in one array (steps, H, n), so that the way back computes many at once.
The state after a step is written where the next step reads it; only where something comes between
the two, such as a factor of recurrent dropout, do the states have an array of their own.

Rows that do not compute a step of a course with lengths are held aside. A piece may have a few more
columns than rows that compute a step; nobody reads what they hold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rnn_xp.kernels.course import Course
from rnn_xp.kernels.numpy.feedback import Readout
from rnn_xp.kernels.numpy.norm import Floats, Norm, Params
from rnn_xp.kernels.numpy.pieces import ByStep, Piece, cut

__all__ = [
    "Field",
    "Tape",
    "join",
    "product",
    "sigmoid_of_negative",
    "tanh_of_half",
    "tanh_of_sigmoid",
]


class Tape:
    """A forward pass: its arrays, which the backward pass reads, in the order of computation.

    Parameters
    ----------
    params : Params
    xs : ndarray (T, N, I)
    course : Course
    workspace : Workspace
    name : str
        Prefix of the layer's buffers.

    Attributes
    ----------
    counts : list of T int
        Number of leading rows that compute each step.
    pieces : list of Piece
    entering, entering_h, entering_x : T ndarray each
        [h; 1; x] of each step, (H + 1 + I, n), its h and its x.
    bounded : bool
        If True, h cannot become infinite, whatever it was in the columns that no row computes.
    idle, reset : ndarray (T, 1, N) of int, or None
        All bits where a row skips a step, and where its state becomes zero.
    fields : list of Field
        The fields of the state; the first is h.
    kept : tuple of T arrays each
        Further arrays of each step, which depend on the cell.
    norm : Norm or None
        The normalisation of the layer's products.
    readout : Readout or None
        What makes the predictions that are the inputs; they are one more field.
    params : Params
        The weights of plain products.
    """

    def __init__(
        self, params: Params, xs: Floats, course: Course, workspace: Any, name: str
    ) -> None:
        self.steps, self.rows, inputs = xs.shape
        size = self.size = params["w_hh"].shape[1]
        self.width, self.course, self.params = size + 1 + inputs, course, params
        self.workspace, self.name = workspace, name
        self.kept: tuple[ByStep, ...] = ()
        self.bounded = True
        self.bits = np.dtype(f"i{workspace.dtype.itemsize}")
        self.begun, self.ragged = course.initial is not None, course.counts is not None
        self.counts = [self.rows] * self.steps
        self.pieces = [Piece(slice(0, self.steps), self.rows)]
        if course.counts is not None:
            self.counts = [int(n) for n in course.in_order(course.counts)]
            self.pieces = cut(self.counts, self.rows)
        ordered, self.norm = course.in_order(xs), None
        if "g_hh" in params:
            self.norm = Norm(params, workspace.dtype)
            self.params = self.norm.params
        self.idle, self.reset = (self._bits(flags) for flags in (course.idle, course.reset))
        self.skipping = self._by_step(self.idle)
        self.lasting = self._by_step(self.reset, complement=True)
        if course.keep is not None:
            self.keep = workspace.take(f"{name}keep", size, self.rows)
            self.keep[...] = course.keep.T
        norm = self.norm is not None and not self.norm.direct
        self.scaled = norm or course.keep is not None
        blocks = self.take("entering", self.width, more=1).pieces
        self.entering = ByStep([block[:-1] for block in blocks])
        self.entering_h = ByStep([block[:-1, :size] for block in blocks])
        self.entering_x = ByStep([block[:-1, size + 1 :] for block in blocks])
        for piece, entered in zip(self.pieces, self.entering.pieces, strict=True):
            entered[:, size] = 1.0
            if course.feedback is None:
                entered[:, size + 1 :] = ordered[piece.steps, : piece.columns].transpose(0, 2, 1)
            if self.ragged:
                self._clear_unused(entered[:, size + 1 :], piece.steps)  # even of a NaN
        if self.norm is not None:
            self.norm.lay_out(self)
        first = 0.0 if course.initial is None else course.initial[0].T
        self.fields = [
            self._entering("", [block[:, :size] for block in blocks], self.scaled, first)
        ]
        self.readout: Readout | None = None
        if course.feedback is not None:
            inputs = [block[:, size + 1 :] for block in blocks]
            scaled = self.norm is not None
            self.preds = self._entering(" of predictions", inputs, scaled, xs[0].T)
            self.readout = Readout(course.feedback, self.fields[0], self.preds, self.norm)

    def _bits(self, by_time: Any) -> Any:
        """Return all bits of a number for True, and none for False; a step's are contiguous."""
        if by_time is None:
            return None
        return -self.course.in_order(by_time)[:, None].astype(self.bits, order="C")

    def _by_step(self, bits: Any, complement: bool = False) -> list[Any]:
        """Return the bits, or those that remain, of each step's columns; None if it has none."""
        if bits is None:
            return [None] * self.steps
        some, rows = bits.any(axis=(1, 2)), ~bits[:, 0] if complement else bits[:, 0]
        return [
            rows[s, : piece.columns] if some[s] else None
            for piece in self.pieces
            for s in range(self.steps)[piece.steps]
        ]

    def _clear_unused(self, array: Floats, steps: slice) -> None:
        """Set columns of the steps of a piece to zero where no row computes the step."""
        counts, columns = self.counts[steps], array.shape[2]
        least = min(counts)
        if least < columns:
            used = np.arange(least, columns) < np.asarray(counts)[:, None]
            self.keep_bits(array[..., least:], -used.astype(self.bits)[:, None])

    def part(self, arrays: ByStep, steps: slice) -> Floats:
        """Return the arrays of some steps of a piece as one."""
        number, start = 0, 0
        while steps.start >= self.pieces[number].steps.stop:
            start = self.pieces[number].steps.stop
            number += 1
        return arrays.pieces[number][steps.start - start : steps.stop - start]

    def take(self, what: str, *shape: int, more: int = 0, shared: bool | None = None) -> ByStep:
        """Return an array (*shape, n) for each step, in the named buffer of the layer.

        Each piece has so many ``more`` at its end. If ``shared``, it is the same memory for all
        steps, as by default where nothing goes back and there are no more.
        """
        size = math.prod(shape)
        if shared is None:
            shared = not (more or self.course.keeps)
        if not self.ragged:
            length = 1 if shared else self.steps + more
            buffer = self.workspace.take(f"{self.name}{what}", length, *shape, self.rows)
            return ByStep([buffer], [self.steps] if shared else None)
        lengths = [len(range(self.steps)[piece.steps]) for piece in self.pieces]
        blocks = [1 if shared else length + more for length in lengths]
        sizes = [size * piece.columns for piece in self.pieces]
        ends = [0, *itertools.accumulate(k * n for k, n in zip(blocks, sizes, strict=True))]
        buffer = self.workspace.take(f"{self.name}{what}", ends[-1])
        pieces = [
            buffer[start : start + block * n].reshape(block, *shape, piece.columns)
            for start, block, n, piece in zip(ends, blocks, sizes, self.pieces, strict=False)
        ]
        return ByStep(pieces, lengths if shared else None)

    def _entering(self, what: str, blocks: list[Floats], scaled: bool, first: Any) -> Field:
        """Return a field that enters the product: as it is, or scaled, or zero after resets."""
        # Resets change the states themselves, unless somebody reads what they were.
        apart = self.reset is not None and not self.course.brief
        entering = ByStep([block[:-1] for block in blocks])
        size = blocks[0].shape[1]
        if scaled or apart:
            blocks = self.take(f"states{what}", size, more=1).pieces
        if scaled and apart:
            entering = self.take(f"before{what}", size)
        return Field(self, what, blocks, first, entering if apart else None)

    def add_field(self) -> Field:
        """Add a field to the state, which does not enter the product."""
        place = len(self.fields)
        first = 0.0 if self.course.initial is None else self.course.initial[place].T
        blocks = self.take(f"states{place}", self.size, more=1).pieces
        self.fields.append(Field(self, str(place), blocks, first))
        return self.fields[-1]

    def computed(self) -> Iterator[int]:
        """Yield the steps; what comes before and after each is done here."""
        plain = self.idle is None and self.reset is None
        if plain and not (self.ragged or self.scaled or self.readout):
            yield from range(self.steps)
            return
        moving, moved = self._moves()
        fields = [*self.fields, self.preds] if self.readout else self.fields
        for s, n in enumerate(self.counts):
            if moving[s]:
                for field in fields:
                    field.arrive(self, s, n)
            if n:
                if self.scaled:
                    self._enter(s)
                if self.readout:
                    self.readout.enter(s)
                yield s
                if self.readout:
                    self.readout.predict(s)
            if moved[s]:
                for field in fields:
                    field.leave(self, s, n)

    def _moves(self) -> tuple[list[bool], list[bool]]:
        """Tell before and after which steps a state is moved or changed."""
        always, skipping = self.fields[0].apart, [bits is not None for bits in self.skipping]
        if not self.ragged:
            return [always or bits is not None for bits in self.lasting], skipping
        counts, starts = [0, *self.counts, 0], {piece.steps.start for piece in self.pieces}
        before = [
            always or after > past or s in starts or self.lasting[s] is not None
            for s, (past, after) in enumerate(itertools.pairwise(counts[:-1]))
        ]
        every = self.fields[0].every or not self.bounded
        falls = [following < n for n, following in itertools.pairwise(counts[1:])]
        return before, [every or any(pair) for pair in zip(falls, skipping, strict=True)]

    def _enter(self, s: int) -> None:
        """Apply the factors of the state that enters the product."""
        h, entered = self.fields[0].before.each[s], self.entering_h.each[s]
        if self.course.keep is not None:
            np.multiply(h, self.keep[:, : h.shape[1]], out=entered)
            h = entered
        if self.norm is not None and not self.norm.direct:
            self.norm.scale(s, h, entered)

    def keep_bits(self, a: Floats, bits: Any, out: Floats | None = None) -> None:
        """Set columns of an array to zero, whatever they hold, where no bits are to be kept."""
        a = a.view(self.bits)
        np.bitwise_and(a, bits, out=a if out is None else out.view(self.bits))

    def forwarded(self) -> tuple[Floats, tuple[Floats, ...], Tape]:
        """Return the results of a forward pass by rows and time, from columns in step order."""
        hs = self.preds.hs if self.readout else self.fields[0].hs
        final = tuple(field.held.T for field in self.fields)
        return self.course.in_order(hs).transpose(0, 2, 1), final, self


class Field:
    """A field of the state, such as h, before and after each step.

    Attributes
    ----------
    before, after : T ndarray (H, n)
        The field in the columns of each step.
    hs : ndarray (T, H, N)
        The field in all rows after each step; where nobody reads it, the final one instead.
    held : ndarray (H, N)
        The field in the rows that do not compute the step at hand, and in the end in all of them.
    """

    def __init__(
        self,
        tape: Tape,
        place: str,
        blocks: list[Floats],
        first: Any,
        entering: ByStep | None = None,
    ) -> None:
        size = blocks[0].shape[1]
        self.states = ByStep([block[:-1] for block in blocks])
        self.after = ByStep([block[1:] for block in blocks])
        self.apart = entering is not None
        self.before = self.states if entering is None else entering
        self.every = not (place or tape.course.brief)
        if tape.idle is not None:
            change = tape.take("change", size, shared=True)
            views = (a.view(tape.bits).each for a in (self.before, self.after, change))
            self.changing = [*zip(*views, strict=True)]
        if tape.ragged:
            self.held = tape.workspace.take(f"{tape.name}held{place}", size, tape.rows)
            shape = (tape.steps, size, tape.rows)
            self.hs = (
                tape.workspace.take(f"{tape.name}hs", *shape)
                if self.every
                else np.broadcast_to(self.held, shape)
            )
        else:
            self.hs, self.held = self.after.pieces[0], self.after.pieces[0][-1]
        begun = self.held if tape.ragged else self.states.pieces[0][0]
        begun[...] = first

    def arrive(self, tape: Tape, s: int, n: int) -> None:
        """Make the state before a step what the course says."""
        state, lasting = self.states.each[s], tape.lasting[s]
        if tape.ragged:
            self._move(tape, s, n)
        if lasting is not None:
            tape.keep_bits(state, lasting, self.before.each[s])
        elif self.apart:
            self.before.each[s][...] = state

    def _move(self, tape: Tape, s: int, n: int) -> None:
        """Take the rows that compute a step from where they are."""
        state, stay = self.states.each[s], tape.counts[s - 1] if s else 0
        if tape.lasting[s] is not None:
            tape.keep_bits(self.held, ~tape.reset[s])
        if not s or state.shape != self.after.each[s - 1].shape:  # another piece
            stay = min(stay, n)
            state[:, :stay] = self.after.each[s - 1][:, :stay]
            state[:, stay:] = 0.0
        if stay < n:
            state[:, stay:n] = self.held[:, stay:n]

    def leave(self, tape: Tape, s: int, n: int) -> None:
        """Put the state before a step into place where a row skipped it, and hold rows that end."""
        skipping = tape.skipping[s]
        if skipping is not None:
            before, after, change = self.changing[s]
            np.bitwise_xor(before, after, out=change)
            np.bitwise_and(change, skipping, out=change)
            np.bitwise_xor(after, change, out=after)
        if tape.ragged:
            after = self.after.each[s]
            if not tape.bounded:
                after[:, n:] = 0.0  # it would grow, and gradients of zero are multiplied by it
            stay = tape.counts[s + 1] if s + 1 < tape.steps else 0
            if stay < n:
                self.held[:, stay:n] = after[:, stay:n]
            if self.every:
                self.hs[s][:, :n] = after[:, :n]
                self.hs[s][:, n:] = self.held[:, n:]


def join(params: Params) -> Floats:
    """Join the weights to [w_hh, b_h, w_xh], in the order of a step's input."""
    w_hh, b_h, w_xh = (np.asarray(params[name]) for name in ("w_hh", "b_h", "w_xh"))
    return np.concatenate([w_hh, b_h[:, None], w_xh], axis=1)


def product(w: Floats, tape: Tape, s: int, out: Floats, stop: int | None = None) -> Floats:
    """Multiply the joined weights by the input of a step; h may be zero before the first."""
    skip = 0 if s or tape.begun else tape.size
    product: Floats = np.matmul(w[:, skip:], tape.entering.each[s][skip:stop], out=out)
    return product


def tanh_of_half(z: Floats) -> None:
    """Compute tanh(z / 2) in place, with an error of at most three units in the last place of 1."""
    _one_plus_exp(z)
    np.divide(-2.0, z, out=z)
    z += 1.0


def tanh_of_sigmoid(s: Floats) -> None:
    """Compute tanh(z / 2) in place, given s = sigmoid(-z); the bits are those of `tanh_of_half`."""
    s *= -2.0
    s += 1.0


def sigmoid_of_negative(z: Floats) -> None:
    """Compute sigmoid(-z) in place."""
    _one_plus_exp(z)
    np.reciprocal(z, out=z)


def _one_plus_exp(z: Floats) -> None:
    """Compute 1 + exp(z) in place; it may be infinite, and quotients by it are then 0."""
    np.exp(z, out=z)
    z += 1.0
