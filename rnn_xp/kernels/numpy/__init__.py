"""Kernels for NumPy: a layer over a whole sequence, computed in buffers that are reused.

The portable code creates a new array for every result, and at the sizes of recurrent networks the
allocation of memory, page by page, costs more than the arithmetic. Here the equations of
`rnn_xp.cells` write to a `Workspace`. Further differences:

- Samples are in columns, as books write it: z = W x. Each gate, (H, N), is then contiguous.
- The input of a step is one array [h_{t-1}; 1; x_t], so that one product with [w_hh, b_h, w_xh]
  gives z, and one product with dz gives all weight gradients of the step.
- tanh(z) = 1 - 2 / (1 + exp(2 z)) and sigmoid(z) = 1 / (1 + exp(-z)), with the weights doubled
  and negated beforehand, so that all gates go through one exp. A simple cell in float32 takes
  NumPy's tanh, which costs less than the passes over memory of the quotient.
- A sequence starts from zeros: the first step multiplies no h, and the last one back makes no dh.

Results agree with the portable code to rounding. `layer` has the arrays of a pass, in `pieces` of
steps, and `back` the way back, which all cells share; `norm` normalises products; `feedback` makes
predictions the next input; `rnn`, `gru`, `gru_before` and `lstm` have the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rnn_xp._typing import Kernel
from rnn_xp.kernels import portable
from rnn_xp.kernels.buffers import Buffers
from rnn_xp.kernels.numpy.gru import GRU
from rnn_xp.kernels.numpy.gru_before import GRUBefore
from rnn_xp.kernels.numpy.lstm import LSTM
from rnn_xp.kernels.numpy.rnn import RNN

__all__ = ["GRU", "KERNELS", "LSTM", "RNN", "GRUBefore", "Workspace"]

_Floats = NDArray[np.floating[Any]]

KERNELS: dict[str, Kernel] = {
    "rnn-tanh": RNN("tanh"),
    "rnn-relu": RNN("relu"),
    "gru": GRU(),
    "gru-before": GRUBefore(),
    "lstm": LSTM(),
}
"""Kernels by the names that cells give (``cell.kernel``)."""


_LINE = 64  # bytes of a cache line, and of the longest vectors


class Workspace(Buffers):
    """Buffers of one worker, and the kernels that compute in them.

    Examples
    --------
    >>> workspace = Workspace(np.float32)
    >>> workspace.take("h", 3, 2).shape
    (3, 2)
    """

    knows: ClassVar[frozenset[str]] = frozenset(
        ("counts", "idle", "reset", "keep", "initial", "norm", "feedback")
    )

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        super().__init__(self._aligned)

    def _aligned(self, size: int) -> _Floats:
        """Return a new vector that begins at a cache line, where those of the system do not."""
        memory = np.empty(size * self.dtype.itemsize + _LINE, np.uint8)
        start = -memory.ctypes.data % _LINE
        return memory[start : start + size * self.dtype.itemsize].view(self.dtype)

    def matmul(self, name: str, a: _Floats, b: _Floats) -> _Floats:
        """Multiply two matrices into the named buffer."""
        product: _Floats = np.matmul(a, b, out=self.take(name, a.shape[0], b.shape[1]))
        return product

    def weight_grads(
        self, left: _Floats, rights: Sequence[_Floats]
    ) -> tuple[list[_Floats], _Floats]:
        """Return left.T @ right for each, and the sum of the rows of ``left``."""
        return portable.weight_grads(left, rights, xp=np)

    def rows(self, name: str, hs: _Floats) -> _Floats:
        """Copy (T, N, H) to T*N rows in the named buffer."""
        rows: _Floats = self.take(name, *hs.shape)
        rows[...] = hs
        return rows.reshape(-1, hs.shape[2])

    def kernel(self, name: str | None) -> Kernel | None:
        """Return the kernel with the name ``cell.kernel``; None if there is none."""
        return None if name is None else KERNELS.get(name)
