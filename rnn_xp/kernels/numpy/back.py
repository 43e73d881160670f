"""The way back over the steps of NumPy's layers, which all cells share.

What does not depend on the gradient that comes back, the factors of a cell's equations, is computed
for a stretch of steps at once, and so are weight gradients: few rows cost fewer and larger calls.
Where rows are many, a stretch is a single step, whose arrays stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rnn_xp.kernels.numpy.feedback import ReadoutBack
from rnn_xp.kernels.numpy.layer import Tape
from rnn_xp.kernels.numpy.norm import Floats, NormBack, Params

__all__ = ["Back"]

_CACHED = 2**18  # numbers in the arrays of a stretch


class Back:
    """The backward pass over the steps of a layer, which all kernels share.

    Attributes
    ----------
    now : list of ndarray (H, n)
        The gradients of the fields of the state after the step at hand, in the columns that compute
        it; the first is dL/dh_t, the sum of those of the loss at step t and of the later steps.
    held : list of ndarray (H, N)
        The gradients that pass by, of rows that do not compute the step.
    n : int
        The number of those that do, or until they are moved, of the step before it.
    """

    def __init__(
        self,
        tape: Tape,
        dhs: Any,
        dfinal: tuple[Floats, ...] | None,
        wrt_input: bool,
        fields: int = 1,
    ) -> None:
        self.tape, self.dhs, self.given = tape, tape.course.in_order(dhs), dfinal is not None
        gates, self.size = len(tape.params["w_xh"]), tape.size
        take = self.take = tape.workspace.take
        self.held = [take(f"dstate{k}", self.size, tape.rows) for k in range(fields)]
        for k, field in enumerate(self.held):
            field[...] = 0.0 if dfinal is None else dfinal[k].T
        # Unless rows have lengths, none is ever held aside.
        self.now, self.n = self.held, 0 if tape.ragged else tape.rows
        self.w_hh, self.w_xh = tape.params["w_hh"].T, tape.params["w_xh"].T
        self.dw = take("dw", gates, tape.width)
        self.dw[...] = 0.0
        self.dx: Floats | None = None
        self.norm = None if tape.norm is None else NormBack(tape.norm, tape)
        self.wrt_input = wrt_input
        if self.norm is not None:
            self.w_xh = self.w_xh.copy()
        self.readout: ReadoutBack | None = None
        if tape.readout is not None:
            self.readout = ReadoutBack(tape, dhs, self.w_xh, self.norm)
        elif wrt_input or self.norm is not None:
            self.dx = take(f"{tape.name}dx", tape.steps, self.w_xh.shape[0], tape.rows)
        self.busy = None if tape.idle is None else ~tape.idle
        self._lay_out(tape.rows)

    def parts(self, numbers: int) -> Iterator[slice]:
        """Yield stretches of steps, the last first, whose arrays are computed at once.

        ``numbers`` is how many a row of a step has in all of them, which stay in the cache. For
        each stretch call `steps`, and then `collect`.
        """
        tape, first = self.tape, 0 if self.tape.begun else 1
        for number, piece in reversed([*enumerate(tape.pieces)]):
            start, end = max(first, piece.steps.start), piece.steps.stop
            if tape.ragged:
                self._turn(number, piece.columns)
            length = max(1, _CACHED // max(1, numbers * piece.columns))
            for stop in range(end, start, -length):
                yield slice(max(start, stop - length), stop)
            if piece.steps.start < first:
                yield slice(0, first)

    def _turn(self, number: int, columns: int) -> None:
        """Go on to the columns of another piece."""
        past = self.now
        self.now = [self.take(f"now{k}{number % 2}", self.size, columns) for k in range(len(past))]
        for old, new in zip(past, self.now, strict=True):
            new[:, : self.n] = old[:, : self.n]
            new[:, self.n :] = 0.0
        self._lay_out(columns)

    def _lay_out(self, columns: int) -> None:
        """Make views of the arrays of every step."""
        tape, self.beside = self.tape, self.take("through", self.size, columns)
        if self.busy is not None or tape.reset is not None:
            self.now_bits = [field.view(tape.bits) for field in self.now]
        if tape.course.keep is not None:
            self.keep = tape.keep[:, :columns]

    def skip(self, steps: slice, zero: Floats, one: Floats | None = None) -> None:
        """Set factors of some steps, (k, ., n), to zero, or to one, where rows skip a step."""
        if self.busy is not None:
            columns = zero.shape[2]
            self.tape.keep_bits(zero, self.busy[steps, :, :columns])
            if one is not None:
                self.tape.keep_bits(one, self.busy[steps, :, :columns])
                one += self.tape.idle[steps, :, :columns] != 0

    def steps(self, part: slice, d_x: Floats) -> Iterator[int]:
        """Yield the steps in reverse order; before each, the loss's gradient is added to dh.

        In the end of each, ``d_x`` (k, G*H, n) must hold the gradient of the input's product.
        """
        tape = self.tape
        plain = not (tape.ragged or self.readout) and tape.reset is None
        past = tape.counts if plain else [0 if tape.ragged else tape.rows, *tape.counts]
        if self.norm is not None:
            self.norm.begin(part)
        for s in range(part.stop - 1, part.start - 1, -1):
            if self.readout is not None:
                self.readout.predict(s, self.now[0])
            elif self.dhs[s] is not None:
                self._add_loss(s, self.dhs[s].T)
            if plain:
                yield s
                continue
            n = tape.counts[s]
            if self.n < n:
                self._move(self.n, n)
                self.n = n
            if n:
                yield s
                if self.readout is not None:
                    self.readout.enter(s, d_x[s - part.start])
            if past[s] < n or tape.lasting[s] is not None:
                self._leave(s, past[s])

    def _add_loss(self, s: int, dh: Floats) -> None:
        """Add the loss's gradient of the states after a step, of rows that compute it or not."""
        (held, *_), (now, *_), n = self.held, self.now, self.n
        if s == self.tape.steps - 1 and not self.given:
            held[...] = dh
        elif now is held:
            held += dh
        else:
            now[:, :n] += dh[:, :n]
            held[:, n:] += dh[:, n:]

    def _move(self, start: int, stop: int, aside: bool = False) -> None:
        """Take the gradients of rows that compute from where they are held, or put them there."""
        for held, now in zip(self.held, self.now, strict=True):
            if aside:
                held[:, start:stop] = now[:, start:stop]
                now[:, start:stop] = 0.0  # of columns that no row computes, until others come
            else:
                now[:, start:stop] = held[:, start:stop]

    def _leave(self, s: int, past: int) -> None:
        """Let no gradient pass a reset, and hold those of rows that began with the step."""
        tape, lasting = self.tape, self.tape.lasting[s]
        if lasting is not None:
            for bits in self.now_bits:
                np.bitwise_and(bits, lasting, out=bits)
            if tape.ragged:
                for field in self.held:
                    tape.keep_bits(field, ~tape.reset[s])
        if past < self.n:
            self._move(past, self.n, aside=True)
            self.n = past

    def collect(self, steps: slice, d: Floats, d_x: Floats | None = None) -> None:
        """Add the weight gradients of some steps, and compute their dx.

        ``d`` (k, G*H, n) are the gradients of the recurrent products; ``d_x`` those of the inputs'
        products, if they differ.
        """
        tape, size, n = self.tape, self.size, d.shape[2]
        if self.dx is not None:
            self.dx[steps][..., n:] = 0.0
        if not n:
            return
        if self.norm is not None and not self.norm.direct:
            self.add_products(*self.norm.sum_of(), self.norm.sums["w_hh"])
        entered, first = tape.part(tape.entering, steps), not (steps.start or tape.begun)
        if d_x is None or d_x is d:
            d_x, skip = d, size if first else 0  # h_0 is zero
            self.add_products(d, entered[:, skip:], self.dw[:, skip:])
        else:
            self.add_products(d_x, entered[:, size:], self.dw[:, size:])
            if not first:
                self.add_products(d, entered[:, :size], self.dw[: d.shape[1], :size])
        if self.dx is not None:
            np.matmul(self.w_xh, d_x, out=self.dx[steps][..., :n])
        if self.readout is not None:
            self.add_products(
                self.readout.dys[steps], tape.part(self.readout.hs, steps), self.readout.dw
            )

    def add_products(self, d: Floats, entered: Floats, dw: Floats) -> None:
        """Add d (G*H, n) times entered.T (n, W) of each step, the last first."""
        steps, width, n = entered.shape
        if steps == 1:
            dw += np.matmul(d[0], entered[0].T, out=self.take("terms", *dw.shape))
        elif n < width:  # one product over all steps costs less than its terms
            left = self._side_by_side("left", d)
            right = self._side_by_side("right", entered)
            dw += np.matmul(left, right.T, out=self.take("terms", *dw.shape))
        else:
            terms = self.take("terms", steps + 1, *dw.shape)
            terms[0] = dw
            np.matmul(d[::-1], entered[::-1].transpose(0, 2, 1), out=terms[1:])
            np.add.reduce(terms, axis=0, out=dw)

    def _side_by_side(self, name: str, a: Floats) -> Floats:
        """Return (k, W, n) as (W, k * n)."""
        steps, width, n = a.shape
        if n == 1:
            return a[..., 0].T
        joined: Floats = self.take(name, width, steps, n)
        joined[...] = a.transpose(1, 0, 2)
        return joined.reshape(width, steps * n)

    def through(self, s: int, d: Floats, beside: bool = False) -> None:
        """Make dh that of the state before a step, by w_hh.T d, the adjoint of its product.

        With ``beside``, that is added to dh.
        """
        tape, skipping, dh = self.tape, self.tape.skipping[s], self.now[0]
        if s == 0 and not tape.begun:
            return
        if skipping is not None and not beside:
            bits, beside = self.now_bits[0], True
            np.bitwise_and(bits, skipping, out=bits)
        out = self.beside if beside else dh
        np.matmul(self.w_hh, d, out=out)
        if self.norm is not None and not self.norm.direct:
            self.norm.through(s, out)
        if tape.course.keep is not None:
            out *= self.keep
        if beside:
            dh += out

    def grads(self) -> Params:
        """Return the weight gradients, summed over all steps."""
        w_hh, b_h, w_xh = np.split(self.dw, (self.size, self.size + 1), axis=1)
        return {"w_hh": w_hh.copy(), "b_h": b_h[:, 0].copy(), "w_xh": w_xh.copy()}

    def results(self, grads: Params) -> tuple[Params, Floats | None, tuple[Floats, ...] | None]:
        """Return the gradients of the weights, of xs (T, N, I) and of a given initial state.

        The last two are None if they are not needed, or if no state was given.
        """
        if self.norm is not None:
            if self.dx is not None:
                for steps, columns in self.tape.pieces:
                    self.norm.inputs(steps, self.dx[steps][..., :columns])
            grads = self.norm.grads(grads)
        dxs = None
        if self.readout is not None:
            grads, dxs = grads | self.readout.grads(), self.readout.dx.T[None].copy()
        elif self.wrt_input and self.dx is not None:
            dxs = self.tape.course.in_order(self.dx.transpose(0, 2, 1))
        dinitial: tuple[Floats, ...] | None = None
        if self.tape.begun:
            dinitial = tuple(field.T.copy() for field in self.held)
        return grads, dxs, dinitial
