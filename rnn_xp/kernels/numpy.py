"""Kernels for NumPy: a layer over a whole sequence, computed in buffers that are reused.

The portable code creates a new array for every result, and at the sizes of recurrent networks the
allocation of memory, page by page, costs more than the arithmetic. Here the equations of
`rnn_xp.cells` write to a `Workspace`. Further differences:

- Samples are in columns, as books write it: z = W x. Each gate, (H, N), is then contiguous.
- The input of a step is one array [h_{t-1}; 1; x_t], so that one product with [w_hh, b_h, w_xh]
  gives z, and one product with dz gives all weight gradients of the step.
- tanh(z) = 1 - 2 / (1 + exp(2 z)) and sigmoid(z) = 1 / (1 + exp(-z)), with the weights doubled
  and negated beforehand: NumPy's exp is about twice as fast as its tanh, in float64 more.
- A sequence starts from zeros: the first step multiplies no h, and the last one back makes no dh.

Results agree with the portable code to rounding. Kernels do not support masks, layer normalisation,
recurrent dropout or initial states; the portable code computes these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Kernel
from rnn_xp.kernels.buffers import Buffers

__all__ = ["GRU", "KERNELS", "LSTM", "RNN", "Workspace"]

_Floats = NDArray[np.floating[Any]]
_Params = dict[str, _Floats]
_Shares = Sequence[_Floats | None]


class Workspace(Buffers):
    """Buffers of one worker, and the kernels that compute in them.

    Examples
    --------
    >>> workspace = Workspace(np.float32)
    >>> workspace.take("h", 3, 2).shape
    (3, 2)
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        super().__init__(lambda size: np.empty(size, self.dtype))

    def matmul(self, name: str, a: _Floats, b: _Floats) -> _Floats:
        """Multiply two matrices into the named buffer."""
        product: _Floats = np.matmul(a, b, out=self.take(name, a.shape[0], b.shape[1]))
        return product

    def rows(self, name: str, hs: _Floats) -> _Floats:
        """Copy (T, N, H) to T*N rows in the named buffer."""
        rows: _Floats = self.take(name, *hs.shape)
        rows[...] = hs
        return rows.reshape(-1, hs.shape[2])

    def kernel(self, name: str | None) -> Kernel | None:
        """Return the kernel with the name ``cell.kernel``; None if there is none."""
        return None if name is None else KERNELS.get(name)


class _Tape(NamedTuple):
    """Arrays that a forward pass leaves in the workspace for its backward pass.

    Attributes
    ----------
    entering : ndarray (T + 1, H + 1 + I, N)
        [h; 1; x] of each step, in the order of computation; h_T is in the last.
    kept : tuple of ndarray
        Further arrays of the kernel, in the same order.
    """

    entering: _Floats
    kept: tuple[_Floats, ...]
    reverse: bool
    workspace: Workspace
    name: str


class RNN:
    """The simple cell, see `rnn_xp.cells.rnn`; f is tanh or relu."""

    def __init__(self, activation: str) -> None:
        self.tanh = activation == "tanh"

    def forward(
        self, params: _Params, xs: _Floats, reverse: bool, workspace: Workspace, name: str
    ) -> tuple[_Floats, tuple[_Floats, ...], _Tape]:
        """Compute h_t = f(w_hh h_{t-1} + b_h + w_xh x_t)."""
        steps, _, _ = xs.shape
        size = params["w_hh"].shape[0]
        entering = _enter(xs, size, reverse, workspace, name)
        w = _join(params)
        if self.tanh:
            w *= 2.0
        for s in range(steps):
            h = _product(w, entering[s], size, first=s == 0, out=entering[s + 1, :size])
            if self.tanh:
                _tanh_of_half(h)
            else:
                np.maximum(h, 0.0, out=h)
        return _forwarded(size, (), _Tape(entering, (), reverse, workspace, name))

    def backward(
        self, params: _Params, tape: _Tape, dhs: _Shares, *, wrt_input: bool
    ) -> tuple[_Params, _Floats | None]:
        """Compute dz = dh * f'(z); dh_{t-1} = w_hh.T dz."""
        back = _Back(params, tape, dhs, wrt_input)
        dz = tape.workspace.take("dz", back.size, back.rows)
        for s in back.steps():
            h = tape.entering[s + 1, : back.size]
            if self.tanh:
                np.multiply(h, h, out=dz)
                np.subtract(1.0, dz, out=dz)
            else:
                # 1 where h > 0, and where it is NaN, which must not look like an idle unit.
                np.less_equal(h, 0.0, out=dz, casting="unsafe")
                np.subtract(1.0, dz, out=dz)
            dz *= back.dh
            back.finish(s, dz)
            back.dh, back.through = back.through, back.dh
        return back.grads(), back.dxs()


class GRU:
    """The reset-after GRU, see `rnn_xp.cells.gru`.

    Apart from the gates r and z, there are two separate products: q = w_hn h_{t-1} + b_hn, and the
    candidate's input p_n = w_xn x_t + b_n.
    """

    def forward(
        self, params: _Params, xs: _Floats, reverse: bool, workspace: Workspace, name: str
    ) -> tuple[_Floats, tuple[_Floats, ...], _Tape]:
        """Compute r, z = sigmoid(...); n = tanh(p_n + r q); h_t = n + z (h_{t-1} - n)."""
        steps, rows, _ = xs.shape
        size = params["w_hh"].shape[1]
        entering = _enter(xs, size, reverse, workspace, name)
        w = _join(params)
        w_rz = -w[: 2 * size]
        w_q = np.concatenate([params["w_hh"][2 * size :], params["b_hn"][:, None]], axis=1)
        p_n = workspace.take("p_n", steps, size, rows)
        np.matmul(w[2 * size :, size:], entering[:steps, size:], out=p_n)
        gates = workspace.take(f"{name}gates", steps, 4, size, rows)
        entering[0, :size] = 0.0
        for s in range(steps):
            rz = gates[s, :2].reshape(2 * size, rows)
            r, z, q, n = gates[s]
            _product(w_rz, entering[s], size, first=s == 0, out=rz)
            _sigmoid_of_negative(rz)
            _product(w_q, entering[s, : size + 1], size, first=s == 0, out=q)
            np.multiply(r, q, out=n)
            n += p_n[s]
            n *= 2.0
            _tanh_of_half(n)
            h = entering[s + 1, :size]
            np.subtract(entering[s, :size], n, out=h)
            h *= z
            h += n
        return _forwarded(size, (), _Tape(entering, (gates,), reverse, workspace, name))

    def backward(
        self, params: _Params, tape: _Tape, dhs: _Shares, *, wrt_input: bool
    ) -> tuple[_Params, _Floats | None]:
        """Compute the adjoint; rows dq, dp_r, dp_z of d are for h, and dp_r, dp_z, dp_n for x."""
        (gates,), entering = tape.kept, tape.entering
        back = _Back(params, tape, dhs, wrt_input)
        size, dh = back.size, back.dh
        back.w_hh = np.concatenate([back.w_hh[:, 2 * size :], back.w_hh[:, : 2 * size]], axis=1)
        db_hn = np.zeros_like(params["b_hn"])
        workspace = tape.workspace
        d = workspace.take("dz", 4 * size, back.rows)
        dq, dp_r, dp_z, dp_n = d.reshape(4, size, back.rows)
        a, b = workspace.take("a", size, back.rows), workspace.take("b", size, back.rows)
        for s in back.steps():
            r, z, q, n = gates[s]
            np.multiply(n, n, out=a)
            np.subtract(1.0, a, out=a)
            np.subtract(1.0, z, out=b)
            a *= b
            np.multiply(a, dh, out=dp_n)  # dh (1 - z) (1 - n^2)
            np.multiply(dp_n, r, out=dq)
            np.subtract(1.0, r, out=a)
            a *= q
            np.multiply(a, dq, out=dp_r)  # dp_n q r (1 - r)
            np.subtract(entering[s, :size], n, out=a)
            a *= b
            a *= z
            np.multiply(a, dh, out=dp_z)  # dh (h_{t-1} - n) z (1 - z)
            db_hn += np.matmul(dq, entering[s, size])
            back.finish(s, d[: 3 * size], d[size:])
            dh *= z
            if s:
                dh += back.through
        grads = back.grads()
        grads["w_hh"] = np.concatenate([grads["w_hh"][size:], grads["w_hh"][:size]])
        return {**grads, "b_hn": db_hn}, back.dxs()


class LSTM:
    """The LSTM, see `rnn_xp.cells.lstm`; gates i, f, g, o."""

    def forward(
        self, params: _Params, xs: _Floats, reverse: bool, workspace: Workspace, name: str
    ) -> tuple[_Floats, tuple[_Floats, ...], _Tape]:
        """Compute the gates i, f, o and g, then c_t = f c_{t-1} + i g and h_t = o tanh(c_t)."""
        steps, rows, _ = xs.shape
        size = params["w_hh"].shape[1]
        entering = _enter(xs, size, reverse, workspace, name)
        w = -_join(params)
        w[2 * size : 3 * size] *= -2.0
        gates = workspace.take(f"{name}gates", steps, 4, size, rows)
        cells = workspace.take(f"{name}cells", steps + 1, size, rows)
        tanh_cells = workspace.take(f"{name}tanh_cells", steps, size, rows)
        ig = workspace.take("a", size, rows)
        cells[0] = 0.0
        for s in range(steps):
            z, c = gates[s], cells[s + 1]
            _product(w, entering[s], size, first=s == 0, out=z.reshape(4 * size, rows))
            i, f, g, o = z
            for sigmoids in (z[:2], o):
                _sigmoid_of_negative(sigmoids)
            _tanh_of_half(g)
            np.multiply(f, cells[s], out=c)
            np.multiply(i, g, out=ig)
            c += ig
            tanh_c = tanh_cells[s]
            np.multiply(c, 2.0, out=tanh_c)
            _tanh_of_half(tanh_c)
            np.multiply(o, tanh_c, out=entering[s + 1, :size])
        kept = (gates, cells, tanh_cells)
        return _forwarded(size, (cells[-1],), _Tape(entering, kept, reverse, workspace, name))

    def backward(
        self, params: _Params, tape: _Tape, dhs: _Shares, *, wrt_input: bool
    ) -> tuple[_Params, _Floats | None]:
        """Compute the adjoint, in which dc goes back alongside dh."""
        (gates, cells, tanh_cells), workspace = tape.kept, tape.workspace
        back = _Back(params, tape, dhs, wrt_input)
        size, dh = back.size, back.dh
        dz = workspace.take("dz", 4 * size, back.rows)
        d = dz.reshape(4, size, back.rows)
        d_i, d_f, d_g, d_o = d
        a, dc = workspace.take("a", size, back.rows), workspace.take("b", size, back.rows)
        dc[...] = 0.0
        for s in back.steps():
            i, f, g, o = gates[s]
            tanh_c = tanh_cells[s]
            np.multiply(tanh_c, tanh_c, out=a)
            np.subtract(1.0, a, out=a)
            a *= o
            a *= dh
            dc += a
            np.subtract(1.0, gates[s], out=d)  # 1 - i, 1 - f, 1 - g, 1 - o
            d *= gates[s]  # of g this is g - g^2, put right below
            d_o *= tanh_c
            d_o *= dh
            d_i *= g
            d_i *= dc
            d_f *= cells[s]
            d_f *= dc
            np.multiply(g, g, out=a)
            np.subtract(1.0, a, out=a)
            a *= i
            np.multiply(a, dc, out=d_g)
            dc *= f
            back.finish(s, dz)
            dh, back.dh, back.through = back.through, back.through, dh
        return back.grads(), back.dxs()


KERNELS: dict[str, Kernel] = {
    "rnn-tanh": RNN("tanh"),
    "rnn-relu": RNN("relu"),
    "gru": GRU(),
    "lstm": LSTM(),
}
"""Kernels by the names that cells give (``cell.kernel``)."""


class _Back:
    """The backward pass over the steps of a layer, which all kernels share.

    While step t is computed, ``dh`` (H, N) holds dL/dh_t, summed over both of its sources: the loss
    at step t and the later steps.
    """

    def __init__(self, params: _Params, tape: _Tape, dhs: _Shares, wrt_input: bool) -> None:
        self.entering, self.dhs, self.reverse = tape.entering, dhs, tape.reverse
        gates, self.size = params["w_hh"].shape
        _, width, self.rows = tape.entering.shape
        take = tape.workspace.take
        self.dh, self.through = (take(name, self.size, self.rows) for name in ("dh", "through"))
        self.w_hh, self.w_xh = params["w_hh"].T, params["w_xh"].T
        self.dw, self.term = (take(name, gates, width) for name in ("dw", "term"))
        self.dw[...] = 0.0
        self.dx: _Floats | None = None
        if wrt_input:
            self.dx = take(f"{tape.name}dx", len(dhs), self.w_xh.shape[0], self.rows)

    def steps(self) -> Iterator[int]:
        """Yield the steps in reverse order; before each, the loss's gradient is added to dh."""
        last = len(self.dhs) - 1
        for s in range(last, -1, -1):
            loss_dh = self.dhs[last - s if self.reverse else s]
            if s == last:
                self.dh[...] = 0.0 if loss_dh is None else loss_dh.T
            elif loss_dh is not None:
                self.dh += loss_dh.T
            yield s

    def finish(self, s: int, d: _Floats, d_x: _Floats | None = None) -> None:
        """Add a step's weight gradients, and compute its dx and the recurrent part of dh_{t-1}.

        ``d`` (G*H, N) is the gradient of the recurrent product; ``d_x`` is the gradient of the
        input's product, if the two differ.
        """
        entered, size = self.entering[s], self.size
        if d_x is None:
            d_x, skip = d, 0 if s else size
            np.matmul(d, entered[skip:].T, out=self.term[:, skip:])
        else:
            np.matmul(d_x, entered[size:].T, out=self.term[:, size:])
            if s:
                np.matmul(d, entered[:size].T, out=self.term[:, :size])
        if s:
            self.dw += self.term
            np.matmul(self.w_hh, d, out=self.through)
        else:  # h_0 is zero
            self.dw[:, size:] += self.term[:, size:]
        if self.dx is not None:
            t = len(self.dhs) - 1 - s if self.reverse else s
            np.matmul(self.w_xh, d_x, out=self.dx[t])

    def grads(self) -> _Params:
        """Return the weight gradients, summed over all steps."""
        w_hh, b_h, w_xh = np.split(self.dw, (self.size, self.size + 1), axis=1)
        return {"w_hh": w_hh.copy(), "b_h": b_h[:, 0].copy(), "w_xh": w_xh.copy()}

    def dxs(self) -> _Floats | None:
        """Return the gradient of the input (T, N, I), or None if it is not needed."""
        return None if self.dx is None else self.dx.transpose(0, 2, 1)


def _enter(xs: _Floats, size: int, reverse: bool, workspace: Workspace, name: str) -> _Floats:
    """Lay out [h; 1; x] for all steps in the order of computation; h is filled in later."""
    steps, rows, inputs = xs.shape
    entering: _Floats = workspace.take(f"{name}entering", steps + 1, size + 1 + inputs, rows)
    entering[:steps, size] = 1.0
    entering[:steps, size + 1 :] = (xs[::-1] if reverse else xs).transpose(0, 2, 1)
    return entering


def _join(params: _Params) -> _Floats:
    """Join the weights to [w_hh, b_h, w_xh], in the order of `_enter`."""
    w_hh, b_h, w_xh = (np.asarray(params[name]) for name in ("w_hh", "b_h", "w_xh"))
    return np.concatenate([w_hh, b_h[:, None], w_xh], axis=1)


def _product(w: _Floats, entered: _Floats, size: int, *, first: bool, out: _Floats) -> _Floats:
    """Multiply the joined weights by the input of a step; h is zero before the first."""
    skip = size if first else 0
    return np.matmul(w[:, skip:], entered[skip:], out=out)


def _tanh_of_half(z: _Floats) -> None:
    """Compute tanh(z / 2) in place, with an error of at most three units in the last place of 1."""
    _one_plus_exp(z)
    np.divide(-2.0, z, out=z)
    z += 1.0


def _sigmoid_of_negative(z: _Floats) -> None:
    """Compute sigmoid(-z) in place."""
    _one_plus_exp(z)
    np.reciprocal(z, out=z)


def _one_plus_exp(z: _Floats) -> None:
    """Compute 1 + exp(z) in place; it may be infinite, and quotients by it are then 0."""
    with np.errstate(over="ignore"):
        np.exp(z, out=z)
    z += 1.0


def _forwarded(
    size: int, more: tuple[_Floats, ...], tape: _Tape
) -> tuple[_Floats, tuple[_Floats, ...], _Tape]:
    """Return the results of a forward pass by rows and time, from columns in step order."""
    hs = tape.entering[1:, :size]
    final = (hs[-1].T, *(field.T for field in more))
    return (hs[::-1] if tape.reverse else hs).transpose(0, 2, 1), final, tape
