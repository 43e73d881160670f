"""NumPy's layers, compiled by numba: a whole sequence in one call that holds no lock; float32.

These kernels compute the same as `rnn_xp.kernels.numpy`, but without separate calls between two
products, so neither the interpreter nor passes over memory delay the arithmetic units. The modules,
from the bottom up:

- `product`: a matrix product made of register tiles;
- `lanes`: pointwise equations, traced to vector instructions;
- `turns`: which rows of a tile compute a step, and what becomes of the others;
- `feedback`: predictions that are the next input;
- `layer`: buffers and the pieces of a step, which all cells share;
- `rnn`, `gru`, `gru_before`, `lstm`: the loops over tiles of rows and over time;
- `prepared`: layers for many calls on few rows.

Every sum has its terms in one order, in whatever tile it is computed, so a row of a forward pass
has the same bits alone and among any others. No BLAS promises that: not even two equal rows of one
product have to be equal.
"""

from collections.abc import Sequence
from typing import Any

from rnn_xp._typing import Kernel, Params
from rnn_xp.kernels import numpy
from rnn_xp.kernels.numba import product
from rnn_xp.kernels.numba.gru import GRU
from rnn_xp.kernels.numba.gru_before import GRUBefore
from rnn_xp.kernels.numba.lstm import LSTM
from rnn_xp.kernels.numba.prepared import Prepared
from rnn_xp.kernels.numba.rnn import RNN

__all__ = ["GRU", "KERNELS", "LSTM", "RNN", "GRUBefore", "Prepared", "Workspace"]

KERNELS: dict[str, Kernel] = {
    "rnn-tanh": RNN("tanh"),
    "rnn-relu": RNN("relu"),
    "gru": GRU(),
    "gru-before": GRUBefore(),
    "lstm": LSTM(),
}
"""Kernels by the names that cells give (``cell.kernel``)."""


class Workspace(numpy.Workspace):
    """Buffers of one worker, and the compiled layers that compute in them.

    Examples
    --------
    >>> Workspace("float32").kernel("gru") is KERNELS["gru"]
    True
    """

    def matmul(self, name: str, a: Any, b: Any) -> Any:
        """Multiply two matrices into the named buffer, each row alike however many there are."""
        (rows, steps), columns, packed = a.shape, b.shape[1], product.pack(b)
        out = self.take(name, rows, product.padded(columns))
        # By addresses, since code is compiled for every layout of an array.
        product.multiply(
            a.ctypes.data, a.strides[0] // 4, a.strides[1] // 4, packed.ctypes.data, product.PANEL,
            product.PANEL * steps, out.ctypes.data, out.shape[1], rows, out.shape[1], steps, False,
        )  # fmt: skip
        return out[:, :columns]

    def kernel(self, name: str | None) -> Kernel | None:
        """Return the kernel with the name ``cell.kernel``; None if there is none."""
        return None if name is None else KERNELS.get(name)

    def prepare(
        self,
        names: Sequence[str | None],
        weights: Sequence[Params],
        rows: int,
        fields: int,
        residual: bool,
    ) -> Prepared | None:
        """Prepare layers in one direction for many calls; None if one has no kernel."""
        kernels = [self.kernel(name) for name in names]
        if None in kernels:
            return None
        return Prepared(kernels, weights, rows, fields, residual, self)
