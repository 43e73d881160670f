"""CuPy's own kernels: a layer in one launch each way, or one product and one kernel for each step.

On a GPU the number of launches limits the speed, and the portable code needs one for each
operation. `rnn_xp.kernels.cuda` computes a layer in one launch each way, if it meets the
requirements of `rnn_xp.kernels.cuda.plan.SUPPORTED`. For other layers the equations of
`rnn_xp.cells` are written here in C, with one kernel for a step forward and one for a step back::

    before the loop   Z = X @ w_xh.T                  all T*N rows
    step forward      A_t = h_{t-1} @ w_hh.T          then h_t, of A_t, Z_t and the biases
    step back         dz_t, of dh_t and what is kept  then dh_{t-1} = dz_t @ w_hh
    after the loop    dw_hh = dZ.T @ H   dw_xh = dZ.T @ X   db_h = 1 @ dZ   dX = dZ @ w_xh

Matrices are two-dimensional and contiguous, since CuPy copies others on every call. Products are
those of cuBLAS, or of `rnn_xp.kernels.cuda.matmul`, see `Workspace`. Samples are in rows, and
arrays of all steps, (T, N, .), are in the order in which the steps are done. They are kept in a
`Workspace`, so that no array of their size is allocated again, and are used twice: the forward pass
overwrites Z with the gates, and the backward pass overwrites the gates with their gradients.

Results agree with the portable code to rounding. The kernels of single steps know plain full
sequences alone; the portable code then computes lengths, masks, resets, given states, recurrent
dropout and layer normalisation.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import cupy

from rnn_xp._typing import Array, Kernel, Params, Stack
from rnn_xp.kernels.buffers import Buffers
from rnn_xp.kernels.course import Course
from rnn_xp.kernels.cuda import layer, stack
from rnn_xp.kernels.cuda.matmul import CUBLAS, OWN, Products, supports

__all__ = ["GRU", "KERNELS", "LSTM", "RNN", "Workspace"]


class Workspace(Buffers):
    """Buffers of one worker, and the kernels that compute in them.

    Attributes
    ----------
    own_products : bool
        If True, a layer that is computed step by step in float32 takes its products from
        `rnn_xp.kernels.cuda.matmul`, so that a CUDA graph can record it; otherwise from cuBLAS,
        which is faster. Other products in float32 are never those of cuBLAS.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        super().__init__(lambda size: cupy.empty(size, dtype=dtype))
        self._ones = cupy.ones(1, dtype=dtype)
        self.own_products = False
        self._products = OWN if supports(dtype) else CUBLAS

    def apart(self, number: int) -> Self:
        """Return a workspace with the same products and other buffers."""
        other = super().apart(number)
        other.own_products = self.own_products
        return other

    def matmul(self, name: str, a: Array, b: Array) -> Array:
        """Multiply two matrices into the named buffer; those of float32 without cuBLAS."""
        return self._products.multiply(a, b, self.take(name, a.shape[0], b.shape[1]))

    def weight_grads(self, left: Array, rights: Sequence[Array]) -> tuple[list[Array], Array]:
        """Return left.T @ right for each, and the sum of the rows of ``left``; as `matmul` does."""
        return self._products.weight_grads(left, rights, self)

    @property
    def products(self) -> Products:
        """The products of a layer that is computed step by step."""
        return self._products if self.own_products else CUBLAS

    def ones(self, count: int) -> Array:
        """Return a row of ones, (1, count)."""
        if self._ones.size < count:
            self._ones = cupy.ones(count, dtype=self.dtype)
        return self._ones[:count].reshape(1, count)

    def rows(self, name: str, hs: Array) -> Array:
        """Return (T, N, H) as T*N rows, copied into the named buffer only if necessary."""
        steps, rows, size = hs.shape
        if not hs.flags.c_contiguous:
            copied = self.take(name, steps, rows, size)
            copied[...] = hs
            hs = copied
        return hs.reshape(steps * rows, size)

    def kernel(self, name: str | None) -> Kernel | None:
        """Return the kernel with the name ``cell.kernel``; None if there is none."""
        return None if name is None else KERNELS.get(name)

    def knows_for(self, name: str | None, hidden_size: int) -> frozenset[str]:
        """Return what the kernel of a layer with so many hidden units computes."""
        if name not in KERNELS:
            return self.knows
        return self.knows | layer.known(name, self.dtype, hidden_size)

    def stack(self, name: str | None, params: Sequence[Params]) -> Stack | None:
        """Return the kernels for a whole stack of layers; None if they do not compute it."""
        return stack.stack(name, params, self.dtype) if name in KERNELS else None


class _Tape(NamedTuple):
    """Arrays that a forward pass leaves in the workspace for one backward pass.

    Attributes
    ----------
    x : Array (T*N, I)
    h : Array (T + 1, N, H)
        The state before each step, zeros before the first; the last entry is h_T.
    z : Array (T, N, G*H)
        The gates; undefined for the simple cell.
    a : Array (1, N, G*H)
        The recurrent product; for a GRU the products of all steps, (T, N, 3H), with q in the last
        third.
    c : Array (T + 1, N, H)
        The cell state of an LSTM, like ``h``; None for other cells.
    """

    x: Array
    h: Array
    z: Array
    a: Array
    c: Array
    reverse: bool
    workspace: Workspace
    name: str


class _Shares(NamedTuple):
    """Further arguments of a step back; the flags say which gradients to add up.

    Attributes
    ----------
    own : Array (N, H)
        Gradient of the loss at step t with respect to h_t, if ``read``.
    dh, beside : Array (N, H)
        If ``through``, the gradients that came back through the next step's product and past it:
        a part of dL/dh_t for the GRU, dL/dc_t for the LSTM. The step overwrites ``beside`` with the
        gradient that goes past its own product.
    """

    own: Array
    read: int
    dh: Array
    beside: Array
    through: int


# In a kernel ``i`` counts the entries of (N, H). Of arrays with G gates side by side, (N, G*H), an
# entry's first gate is at ``k`` and the others are H apart; its first bias is at ``j``.
_PLACE = "const ptrdiff_t j = i % H, k = (i - j) * {gates} + j;\n"
_DH = "const T d = (read ? own[i] : T(0)) + (through ? {came} : T(0));\n"
_SIGMOID = """
template <typename U> __device__ U sigmoid(U z) { return U(0.5) * tanh(U(0.5) * z) + U(0.5); }
"""


def _forward_kernel(name: str, reads: str, writes: str, gates: int, body: str) -> Any:
    return cupy.ElementwiseKernel(
        f"{_raw(reads)}, int32 H",
        _raw(writes),
        _PLACE.format(gates=gates) + body,
        f"rnn_xp_{name}",
        preamble=_SIGMOID,
    )


def _backward_kernel(
    name: str, reads: str, writes: str, gates: int, body: str, came: str = "dh[i]"
) -> Any:
    return cupy.ElementwiseKernel(
        f"{_raw(reads)}, raw T own, raw T dh, int32 read, int32 through, int32 H",
        _raw(writes),
        _PLACE.format(gates=gates) + _DH.format(came=came) + body,
        f"rnn_xp_{name}_back",
    )


def _raw(names: str) -> str:
    return ", ".join(f"raw T {name}" for name in names.split())


class _Cell(abc.ABC):
    """A layer over a sequence and its adjoint; subclasses define the steps."""

    keeps_products: ClassVar[bool] = False
    has_c: ClassVar[bool] = False

    @abc.abstractmethod
    def step(self, s: int, tape: _Tape, params: Params) -> None:
        """Compute step ``s`` from its products; write h and the arrays that the step back needs."""

    @abc.abstractmethod
    def step_back(self, s: int, tape: _Tape, shares: _Shares) -> Array:
        """Overwrite the gates of step ``s`` with dZ; return the recurrent product's gradient."""

    def forward(
        self, params: Params, xs: Array, course: Course, workspace: Workspace, name: str
    ) -> tuple[Array, tuple[Array, ...], _Tape]:
        """Run over xs (T, N, I) from a state of zeros, see `rnn_xp._typing.Kernel`."""
        reverse = course.reverse
        steps, rows, _ = xs.shape
        width, size = params["w_hh"].shape
        take = workspace.take
        x = workspace.rows(f"{name}x", xs[::-1] if reverse else xs)
        multiply = workspace.products.multiply
        z = multiply(x, params["w_xh"].T, take(f"{name}z", steps * rows, width))
        z = z.reshape(steps, rows, width)
        h = take(f"{name}h", steps + 1, rows, size)
        h[0, ...] = 0.0
        c = take(f"{name}c", steps + 1, rows, size) if self.has_c else None
        if c is not None:
            c[0, ...] = 0.0
        kept, count = (f"{name}a", steps) if self.keeps_products else ("a", 1)
        a = take(kept, count, rows, width)
        tape = _Tape(x, h, z, a, c, reverse, workspace, name)
        w_hh = params["w_hh"].T
        for s in range(steps):
            multiply(h[s], w_hh, a[s % count])
            self.step(s, tape, params)
        hs = h[:0:-1] if reverse else h[1:]
        return hs, (h[-1],) if c is None else (h[-1], c[-1]), tape

    def backward(
        self,
        params: Params,
        tape: _Tape,
        dhs: Sequence[Array | None],
        dfinal: tuple[Array, ...] | None = None,
        *,
        wrt_input: bool,
    ) -> tuple[Params, Array | None, None]:
        """Return the weight gradients and dL/dxs (T, N, I), see `rnn_xp._typing.Kernel`."""
        x, h, z, _, _, reverse, workspace, name = tape
        steps, rows, width = z.shape
        size, last, multiply = h.shape[2], steps - 1, workspace.products.multiply
        dh, beside = (workspace.take(what, rows, size) for what in ("dh", "beside"))
        if dfinal is not None:  # as if it had come back through one step more
            dh[...], beside[...] = (*dfinal, 0.0)[:2]
        for s in range(last, -1, -1):
            loss_dh = dhs[last - s if reverse else s]
            read = loss_dh is not None
            through = int(s < last or dfinal is not None)
            shares = _Shares(loss_dh if read else dh, int(read), dh, beside, through)
            da = self.step_back(s, tape, shares)
            if s:
                multiply(da, params["w_hh"], dh)
        dz = z.reshape(steps * rows, width)
        grads = self.collect(tape, dz, h[:-1].reshape(steps * rows, size))
        if not wrt_input:
            return grads, None, None
        dx = multiply(dz, params["w_xh"], workspace.take(f"{name}dx", *x.shape))
        dx = dx.reshape(steps, rows, x.shape[1])
        return grads, dx[::-1] if reverse else dx, None

    def collect(self, tape: _Tape, dz: Array, h: Array) -> Params:
        """Return the weight gradients, each computed as one product over T*N rows."""
        (dw_xh, dw_hh), db = tape.workspace.products.weight_grads(dz, [tape.x, h], tape.workspace)
        return {"w_xh": dw_xh, "w_hh": dw_hh, "b_h": db}


class RNN(_Cell):
    """The simple cell, see `rnn_xp.cells.rnn`; f is tanh or relu."""

    def __init__(self, activation: str) -> None:
        # Where h is NaN, relu lets the gradient pass: it must not look like an idle unit.
        f, slope = {
            "tanh": ("tanh(p)", "d * (1 - h[i] * h[i])"),
            "relu": ("p <= 0 ? T(0) : p", "h[i] <= 0 ? T(0) : d"),
        }[activation]
        self._forward = _forward_kernel(
            activation, "a z b", "h", 1, f"const T p = z[k] + a[k] + b[j]; h[i] = {f};"
        )
        self._backward = _backward_kernel(activation, "h", "z", 1, f"z[k] = {slope};")

    def step(self, s: int, tape: _Tape, params: Params) -> None:
        """Write h = f(z + a + b)."""
        h = tape.h[s + 1]
        self._forward(tape.a[0], tape.z[s], params["b_h"], h.shape[1], h, size=h.size)

    def step_back(self, s: int, tape: _Tape, shares: _Shares) -> Array:
        """Write dz = dh * f'(z)."""
        h, dz = tape.h[s + 1], tape.z[s]
        loss_dh, read, dh, _, through = shares
        self._backward(h, loss_dh, dh, read, through, h.shape[1], dz, size=h.size)
        return dz


class GRU(_Cell):
    """The reset-after GRU, see `rnn_xp.cells.gru`; gates r, z (here u, for update), n.

    The candidate's two products have different gradients. The gradient of the recurrent product
    overwrites the product, da = [dp_r, dp_u, dq]; the other is dz = [dp_r, dp_u, dp_n].
    """

    keeps_products: ClassVar[bool] = True

    def __init__(self) -> None:
        self._forward = _forward_kernel("gru", "b b_n before", "a z h", 3, """
            const T r = sigmoid(z[k] + a[k] + b[j]);
            const T u = sigmoid(z[k + H] + a[k + H] + b[j + H]);
            const T q = a[k + 2 * H] + b_n[j];
            const T n = tanh(z[k + 2 * H] + b[j + 2 * H] + r * q);
            h[i] = (1 - u) * n + u * before[i];
            z[k] = r; z[k + H] = u; z[k + 2 * H] = n; a[k + 2 * H] = q;
        """)  # fmt: skip
        self._backward = _backward_kernel("gru", "before", "a z beside", 3, """
            const T r = z[k], u = z[k + H], n = z[k + 2 * H], q = a[k + 2 * H];
            const T dp_n = d * (1 - u) * (1 - n * n);
            const T dp_r = dp_n * q * r * (1 - r), dp_u = d * (before[i] - n) * u * (1 - u);
            z[k] = dp_r; z[k + H] = dp_u; z[k + 2 * H] = dp_n;
            a[k] = dp_r; a[k + H] = dp_u; a[k + 2 * H] = dp_n * r;
            beside[i] = d * u;
        """, came="dh[i] + beside[i]")  # fmt: skip

    def step(self, s: int, tape: _Tape, params: Params) -> None:
        """Compute r, u, q = a_n + b_n, n = tanh(z_n + r q) and h = (1 - u) n + u h_{t-1}."""
        h = tape.h[s + 1]
        self._forward(
            params["b_h"], params["b_hn"], tape.h[s], h.shape[1], tape.a[s], tape.z[s], h,
            size=h.size,
        )  # fmt: skip

    def step_back(self, s: int, tape: _Tape, shares: _Shares) -> Array:
        """Compute the adjoint, in which dh u bypasses the product."""
        before, da = tape.h[s], tape.a[s]
        loss_dh, read, dh, beside, through = shares
        self._backward(
            before, loss_dh, dh, read, through, before.shape[1], da, tape.z[s], beside,
            size=before.size,
        )  # fmt: skip
        return da

    def collect(self, tape: _Tape, dz: Array, h: Array) -> Params:
        """Return the weight gradients; da gives the recurrent ones, its last third also db_hn."""
        workspace, da = tape.workspace, tape.a.reshape(dz.shape)
        (dw_xh,), db = workspace.products.weight_grads(dz, [tape.x], workspace)
        (dw_hh,), db_n = workspace.products.weight_grads(da, [h], workspace)
        return {"w_xh": dw_xh, "w_hh": dw_hh, "b_h": db, "b_hn": db_n[2 * h.shape[1] :]}


class LSTM(_Cell):
    """The LSTM, see `rnn_xp.cells.lstm`; gates i, f, g, o."""

    has_c: ClassVar[bool] = True

    def __init__(self) -> None:
        self._forward = _forward_kernel("lstm", "a b before", "z c h", 4, """
            const T gi = sigmoid(z[k] + a[k] + b[j]);
            const T gf = sigmoid(z[k + H] + a[k + H] + b[j + H]);
            const T gg = tanh(z[k + 2 * H] + a[k + 2 * H] + b[j + 2 * H]);
            const T go = sigmoid(z[k + 3 * H] + a[k + 3 * H] + b[j + 3 * H]);
            const T next = gf * before[i] + gi * gg;
            c[i] = next; h[i] = go * tanh(next);
            z[k] = gi; z[k + H] = gf; z[k + 2 * H] = gg; z[k + 3 * H] = go;
        """)  # fmt: skip
        self._backward = _backward_kernel("lstm", "before c", "z beside", 4, """
            const T gi = z[k], gf = z[k + H], gg = z[k + 2 * H], go = z[k + 3 * H];
            const T tanh_c = tanh(c[i]);
            const T dc = (through ? beside[i] : T(0)) + d * go * (1 - tanh_c * tanh_c);
            z[k] = dc * gg * gi * (1 - gi);
            z[k + H] = dc * before[i] * gf * (1 - gf);
            z[k + 2 * H] = dc * gi * (1 - gg * gg);
            z[k + 3 * H] = d * tanh_c * go * (1 - go);
            beside[i] = dc * gf;
        """)  # fmt: skip

    def step(self, s: int, tape: _Tape, params: Params) -> None:
        """Compute the gates i, f, o and g, then c = f c_{t-1} + i g and h = o tanh(c)."""
        h, c = tape.h[s + 1], tape.c
        self._forward(
            tape.a[0], params["b_h"], c[s], h.shape[1], tape.z[s], c[s + 1], h, size=h.size
        )

    def step_back(self, s: int, tape: _Tape, shares: _Shares) -> Array:
        """Compute the adjoint, in which dc f bypasses the product."""
        c, dz = tape.c, tape.z[s]
        loss_dh, read, dh, beside, through = shares
        before, after = c[s], c[s + 1]
        self._backward(
            before, after, loss_dh, dh, read, through, after.shape[1], dz, beside, size=after.size
        )
        return dz


KERNELS: dict[str, Kernel] = {
    "rnn-tanh": RNN("tanh"),
    "rnn-relu": RNN("relu"),
    "gru": GRU(),
    "lstm": LSTM(),
}
"""By the names that cells give (``cell.kernel``)."""
