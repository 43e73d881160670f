"""The way back over the steps of NumPy's layers, which all cells share.

What does not depend on the gradient that comes back, the factors of a cell's equations, is computed
for a stretch of steps at once, and so are weight gradients: few rows cost fewer and larger calls.
Where rows are many, a stretch is a single step, whose arrays stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rnn_xp.kernels.numpy.layer import Tape
from rnn_xp.kernels.numpy.norm import Floats, NormBack, Params

__all__ = ["Back"]

_CACHED = 2**18  # numbers in the arrays of a stretch


class Back:
    """The backward pass over the steps of a layer, which all kernels share.

    While step t is computed, ``fields`` hold the gradients of the state after it, (H, N) each; the
    first is dL/dh_t, summed over both of its sources: the loss at step t and the later steps.

    Attributes
    ----------
    n : int
        Number of leading rows that compute the step at hand.
    now : list of ndarray (H, n)
        The gradients of their states.
    """

    def __init__(
        self,
        tape: Tape,
        dhs: Sequence[Floats | None],
        dfinal: tuple[Floats, ...] | None,
        wrt_input: bool,
        fields: int = 1,
    ) -> None:
        self.tape, self.dhs, self.given = tape, tape.course.in_order(dhs), dfinal is not None
        gates, self.size = tape.params["w_hh"].shape
        take = self.take = tape.workspace.take
        self.fields = [take(f"dstate{k}", self.size, tape.rows) for k in range(fields)]
        for k, field in enumerate(self.fields):
            field[...] = 0.0 if dfinal is None else dfinal[k].T
        self.w_hh, self.w_xh = tape.params["w_hh"].T, tape.params["w_xh"].T
        self.dw = take("dw", gates, tape.width)
        self.dw[...] = 0.0
        self.dx: Floats | None = None
        self.norm = None if tape.norm is None else NormBack(tape.norm)
        self.wrt_input = wrt_input
        if wrt_input or self.norm is not None:
            self.dx = take(f"{tape.name}dx", tape.steps, self.w_xh.shape[0], tape.rows)

    def parts(self, numbers: int) -> Iterator[slice]:
        """Yield stretches of steps, the last first, whose arrays are computed at once.

        ``numbers`` is how many a row of a step has in all of them, which stay in the cache. For
        each stretch call `steps`, and then `collect`.
        """
        tape, first = self.tape, 0 if self.tape.begun else 1
        length = 1 if tape.apart else max(1, _CACHED // (numbers * tape.rows))
        for stop in range(tape.steps, first, -length):
            yield slice(max(first, stop - length), stop)
        if first:
            yield slice(0, first)

    def steps(self, part: slice) -> Iterator[int]:
        """Yield the steps in reverse order; before each, the loss's gradient is added to dh."""
        tape, last = self.tape, self.tape.steps - 1
        for s in range(part.stop - 1, part.start - 1, -1):
            n = self.n = tape.counts[s]
            if self.dhs[s] is not None:
                if s == last and not self.given:
                    self.fields[0][...] = self.dhs[s].T
                else:
                    self.fields[0] += self.dhs[s].T
            if not tape.apart and tape.idle[s] is None:
                self.now = self.fields
                yield s
                continue
            self._arrive(s, n)
            if n:
                yield s
            self._leave(s, n)

    def _arrive(self, s: int, n: int) -> None:
        """Take the gradients of the rows that compute a step, side by side and contiguous."""
        tape, idle = self.tape, self.tape.idle[s]
        self.now = self.fields
        if n < tape.rows or idle is not None:
            self.now = [self.take(f"now{k}", self.size, n) for k in range(len(self.fields))]
            for field, now in zip(self.fields, self.now, strict=True):
                if idle is None:
                    now[...] = field[:, :n]
                else:
                    tape.keep_bits(field[:, :n], tape.busy[s][:n], now)
                    tape.keep_bits(field[:, :n], idle[:n])

    def _leave(self, s: int, n: int) -> None:
        """Put the gradients before the step into place, beside those that passed by it."""
        tape, idle, reset = self.tape, self.tape.idle[s], self.tape.reset[s]
        if self.now is not self.fields:
            for field, now in zip(self.fields, self.now, strict=True):
                if idle is None:
                    field[:, :n] = now
                else:
                    field[:, :n] += now
        if self.dx is not None and n < tape.rows:
            self.dx[s][:, n:] = 0.0
        if reset is not None:
            for field in self.fields:
                tape.keep_bits(field, reset)

    def collect(self, steps: slice, d: Floats, d_x: Floats | None = None) -> None:
        """Add the weight gradients of some steps, and compute their dx.

        ``d`` (k, G*H, n) are the gradients of the recurrent products; ``d_x`` those of the inputs'
        products, if they differ.
        """
        tape, size, n = self.tape, self.size, d.shape[2]
        if not n:
            return
        entered, first = tape.part(tape.entering, steps), not (steps.start or tape.begun)
        if d_x is None:
            d_x, skip = d, size if first else 0  # h_0 is zero
            self._add_products(d, entered[:, skip:], self.dw[:, skip:])
        else:
            self._add_products(d_x, entered[:, size:], self.dw[:, size:])
            if not first:
                self._add_products(d, entered[:, :size], self.dw[:, :size])
        if self.dx is not None:
            np.matmul(self.w_xh, d_x, out=self.dx[steps][..., :n])

    def _add_products(self, d: Floats, entered: Floats, dw: Floats) -> None:
        """Add d (G*H, n) times entered.T (n, W) of each step, the last first."""
        steps, width, n = entered.shape
        if steps == 1:
            dw += np.matmul(d[0], entered[0].T, out=self.take("terms", *dw.shape))
        elif n < width:  # one product over all steps costs less than its terms
            left, right = (a.transpose(1, 0, 2).reshape(-1, steps * n) for a in (d, entered))
            dw += np.matmul(left, right.T)
        else:
            terms = self.take("terms", steps + 1, *dw.shape)
            terms[0] = dw
            np.matmul(d[::-1], entered[::-1].transpose(0, 2, 1), out=terms[1:])
            np.add.reduce(terms, axis=0, out=dw)

    def through(self, s: int, d: Floats, beside: bool = False) -> None:
        """Make dh that of the state before a step, by w_hh.T d, the adjoint of its product.

        With ``beside``, that is added to dh.
        """
        if s == 0 and not self.tape.begun:
            return
        dh, kept = self.now[0], self.tape.course.keep is not None
        if not (beside or kept or self.norm is not None):
            np.matmul(self.w_hh, d, out=dh)
            return
        through = np.matmul(self.w_hh, d, out=self.take("through", *dh.shape))
        if self.norm is not None:
            self.norm.through(s, through, self.tape.entering[s][: self.size])
        if kept:
            out = through if beside else dh
            through = np.multiply(through, self.tape.keep[:, : self.n], out=out)
        if beside:
            dh += through
        elif not kept:
            dh[...] = through

    def grads(self) -> Params:
        """Return the weight gradients, summed over all steps."""
        w_hh, b_h, w_xh = np.split(self.dw, (self.size, self.size + 1), axis=1)
        return {"w_hh": w_hh.copy(), "b_h": b_h[:, 0].copy(), "w_xh": w_xh.copy()}

    def results(self, grads: Params) -> tuple[Params, Floats | None, tuple[Floats, ...] | None]:
        """Return the gradients of the weights, of xs (T, N, I) and of a given initial state.

        The last two are None if they are not needed, or if no state was given.
        """
        dxs = None if self.dx is None else self.dx.transpose(0, 2, 1)
        if self.norm is not None and dxs is not None:
            dxs = self.norm.inputs(dxs)
            grads = self.norm.grads(grads)
        dxs = self.tape.course.in_order(dxs) if self.wrt_input else None
        dinitial: tuple[Floats, ...] | None = None
        if self.tape.begun:
            dinitial = tuple(field.T.copy() for field in self.fields)
        return grads, dxs, dinitial
