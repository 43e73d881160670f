"""Aliases, protocols and dimension letters that every module shares.

Dimension letters, the same everywhere in code, docstrings and error messages::

    N  samples (windows) in the batch        I  inputs per time step
    T  time steps of a window                H  hidden units
    O  outputs per prediction                G  gates of a cell (RNN 1, GRU 3, LSTM 4)
    L  layers                                D  directions (2 if bidirectional)

Gradients are named after what they belong to: the gradient of the loss with respect to ``h`` is
``dh``, that of ``w_hh`` is ``dw_hh``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

__all__ = [
    "Array",
    "Kernel",
    "Loss",
    "Namespace",
    "Optimizer",
    "Params",
    "State",
    "Stepper",
    "ValueAndGrad",
    "Workspace",
]

Array: TypeAlias = Any
"""An array of any Array API library. The standard has no static type for it yet."""

Namespace: TypeAlias = Any
"""An Array API namespace, such as ``array_api_compat.numpy``; always called ``xp``."""

Params: TypeAlias = dict[str, Array]
"""Parameters or their gradients: a flat dict from a name such as ``"layer0.w_hh"`` to an array."""

State: TypeAlias = Any
"""A NamedTuple of arrays whose first field is ``h``, such as ``RNNState``."""

ValueAndGrad: TypeAlias = Callable[[Params], tuple[Array, Params]]
"""The loss and its gradient at given parameters."""


class Loss(Protocol):
    """``(pred, target, weight, total) -> (value, dpred)``, see `rnn_xp.losses`."""

    def __call__(
        self, pred: Array, target: Array, weight: Array | None = None, total: Any = None
    ) -> tuple[Array, Array]:
        """Return the value and its gradient with respect to ``pred``."""


class Stepper(Protocol):
    """Anything with one step forward and one back, which is all that the time loop needs."""

    def step(
        self, params: Params, projected: Any, state: State, keep: Any = None, *, xp: Namespace
    ) -> tuple[State, Any]:
        """One step forward: the new state, and a cache for `step_back`."""

    def step_back(
        self, params: Params, dstate: State, cache: Any, *, xp: Namespace
    ) -> tuple[Any, State]:
        """One step back: the step's share in the weight gradients, and the state's gradient."""


class Kernel(Protocol):
    """A layer in one direction over a whole sequence, computed in a library's own way."""

    def forward(
        self, params: Params, xs: Array, reverse: bool, workspace: Any, name: str
    ) -> tuple[Array, tuple[Array, ...], Any]:
        """Run over xs (T, N, I) from a state of zeros.

        Returns
        -------
        hs : Array (T, N, H)
            By time.
        final : tuple of Array (N, H)
            Fields of the state after the last step done.
        tape : object
            For one `backward`. All lie in the workspace, under a name of this layer's.
        """

    def backward(
        self,
        params: Params,
        tape: Any,
        dhs: Sequence[Array | None],
        *,
        wrt_input: bool,
    ) -> tuple[Params, Array | None]:
        """Weight gradients, and dL/dxs (T, N, I), given dL/dh_t as far as step t is read."""


class Workspace(Protocol):
    """Memory of one thread that is used again and again, and the kernels that compute in it."""

    def kernel(self, name: str | None) -> Kernel | None:
        """Give the kernel of a cell, by ``cell.kernel``; None if there is none."""

    def matmul(self, name: str, a: Array, b: Array) -> Array:
        """Multiply two matrices into memory of this name."""

    def rows(self, name: str, hs: Array) -> Array:
        """Copy (T, N, H) to T*N rows, into memory of this name."""


class Optimizer(Protocol):
    """Two pure functions over flat dicts, see `rnn_xp.optim`.

    What an optimiser may have beside them is used where it is there: ``pack`` and ``unpack`` of its
    state for files, ``rate`` to report, ``watches_loss`` and ``observe`` to learn of each epoch's
    loss, and ``full_batch_only``.
    """

    def init(self, params: Params) -> Any:
        """Return the state before the first update."""

    def update(
        self,
        grads: Params,
        state: Any,
        params: Params,
        *,
        value: Array | None = None,
        value_and_grad: ValueAndGrad | None = None,
    ) -> tuple[Params, Any]:
        """Return new parameters and a new state; nothing given is changed."""
