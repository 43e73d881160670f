"""Aliases, protocols and dimension letters that every module shares.

Dimension letters, the same everywhere in code, docstrings and error messages::

    N  samples (windows) in the batch        I  inputs per time step
    T  time steps of a window                H  hidden units
    O  outputs per prediction                G  gates of a cell (RNN 1, GRU 3, LSTM 4)
    L  layers                                D  directions (2 if bidirectional)

The gradient of the loss with respect to ``h`` is called ``dh``, the gradient with respect to
``w_hh`` is called ``dw_hh``, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

__all__ = [
    "Array",
    "Engine",
    "Kernel",
    "Loss",
    "Namespace",
    "Objective",
    "Params",
    "Stack",
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


class Objective(Protocol):
    """The loss of the full batch, with its second derivatives, as optimisers are given it."""

    def __call__(self, params: Params) -> tuple[Array, Params]:
        """Return the loss () and its gradient."""

    def value(self, params: Params) -> Array:
        """Return the loss () alone."""

    def curvature(self, params: Params) -> Array:
        """Return the Gauss-Newton matrix (P, P), the parameters sorted by name.

        It is the sum over all samples of J^T L J, with J = d pred / d params and
        L = d2 loss / d pred**2.
        """

    def curvature_factor(self, params: Params, every: int, first: int) -> Array:
        """Return R (n, P), so that R^T R estimates `curvature` from the samples first::every.

        The samples are counted from the start of each block. R may end in rows of zeros.
        """

    def curvature_product(self, params: Params, vector: Params) -> Params:
        """Return the product of the Gauss-Newton matrix with a vector, without the matrix."""


class Stepper(Protocol):
    """An object with one step forward and one step back, which is all that the time loop needs."""

    def step(
        self, params: Params, projected: Any, state: State, keep: Any = None, *, xp: Namespace
    ) -> tuple[State, Any]:
        """Compute one step; return the new state and a cache for `step_back`."""

    def step_back(
        self, params: Params, dstate: State, cache: Any, *, xp: Namespace
    ) -> tuple[Any, State]:
        """Back-propagate one step; return its share in the weight gradients, and dstate."""


class Kernel(Protocol):
    """A layer in one direction over a whole sequence, in a library-specific implementation."""

    def forward(
        self, params: Params, xs: Array, course: Any, workspace: Any, name: str
    ) -> tuple[Array, tuple[Array, ...], Any]:
        """Run over xs (T, N, I) as ``course``, a `rnn_xp.kernels.course.Course`, says.

        Returns
        -------
        hs : Array (T, N, H)
            The hidden states, ordered by time; with ``course.feedback`` the predictions (T, N, O).
        final : tuple of Array (N, H)
            Fields of the state after the last computed step.
        tape : object
            The tape, for one call of `backward`. All results are in the workspace, under ``name``.
        """

    def backward(
        self,
        params: Params,
        tape: Any,
        dhs: Sequence[Array | None],
        dfinal: tuple[Array, ...] | None,
        *,
        wrt_input: bool,
    ) -> tuple[Params, Array | None, tuple[Array, ...] | None]:
        """Return weight gradients, dL/dxs (T, N, I) if wanted, and that of a given initial state.

        Given are dL/dh_t of all read steps and, if the loss depends on it, that of the final state.
        With feedback, see `rnn_xp.kernels.course.Feedback`.
        """


class Stack(Protocol):
    """All layers and directions of a network at once; lists are by layer, then by direction."""

    def forward(
        self,
        params: Sequence[Params],
        xs: Array,
        courses: Sequence[Any],
        workspace: Any,
        *,
        residual: bool,
    ) -> tuple[list[Array], list[tuple[Array, ...]], Any]:
        """Run over xs (T, N, I); with ``residual`` layers but the first add their input.

        Returns
        -------
        outs : list of D arrays (T, N, H)
            Outputs of the top layer, by direction, ordered by time.
        finals : list of L*D tuples of Array (N, H)
            Fields of the states after the last computed step.
        tape : object
            The tape, for one call of `backward`. All results are in the workspace.
        """

    def backward(
        self,
        params: Sequence[Params],
        tape: Any,
        douts: Sequence[Sequence[Array | None]],
        dfinals: Sequence[tuple[Array, ...] | None],
        *,
        wrt_input: bool,
    ) -> tuple[list[Params], Array | None, list[tuple[Array, ...] | None]]:
        """Return weight gradients, dL/dxs (T, N, I) if wanted, and those of given initial states.

        Given are the gradients of ``outs`` at all read steps, and those of the final states.
        """


class Workspace(Protocol):
    """Reused memory of one thread, and the kernels that compute in it."""

    def apart(self, number: int) -> Workspace:
        """Return the workspace with other memory, and the same one for the same number."""

    def knows_for(self, name: str | None, hidden_size: int) -> frozenset[str]:
        """Return what the kernel of a layer with so many hidden units computes.

        These are fields of `rnn_xp.kernels.course.Course`, and "norm" for layer normalisation.
        """

    def kernel(self, name: str | None) -> Kernel | None:
        """Return the kernel with the name ``cell.kernel``; None if there is none."""

    def stack(self, name: str | None, params: Sequence[Params]) -> Stack | None:
        """Return the kernels for a whole stack of such layers; None if layers go one by one."""

    def prepare(
        self,
        names: Sequence[str | None],
        weights: Sequence[Params],
        rows: int,
        fields: int,
        residual: bool,
    ) -> Any:
        """Prepare layers for many calls on few rows; None if that brings nothing."""

    def matmul(self, name: str, a: Array, b: Array) -> Array:
        """Multiply two matrices into the named memory."""

    def weight_grads(self, left: Array, rights: Sequence[Array]) -> tuple[list[Array], Array]:
        """Return left.T @ right for each, and the sum of the rows of ``left``; all are new."""

    def rows(self, name: str, hs: Array) -> Array:
        """Copy (T, N, H) to T*N rows in the named memory."""


class Engine(Protocol):
    """The computation of whole epochs, as training requires it of every engine.

    Attributes
    ----------
    name : str
        Name of the engine, such as "portable".
    reason : str
        The reason why a faster engine is not used, or only in part; otherwise empty.
    backend : Backend
        The library and device that the engine computes on.
    optimizer : Optimizer
        The optimiser that updates the parameters.
    ranks : Ranks or None
        The ranks that share the work; None for a single rank.
    block_rows : int
        Number of rows of a block.
    workers : int
        Number of threads.
    evaluations : int
        Number of times the loss and its gradient have been computed.
    """

    @property
    def name(self) -> str:
        """Name of the engine."""

    @property
    def reason(self) -> str:
        """The reason why a faster engine is not used; otherwise empty."""

    @property
    def backend(self) -> Any:
        """The `rnn_xp.Backend` that the engine computes on."""

    @property
    def optimizer(self) -> Any:
        """The `rnn_xp.optim.Optimizer` that updates the parameters."""

    @property
    def ranks(self) -> Any:
        """The `rnn_xp.distributed.Ranks` that share the work; None for a single rank."""

    @property
    def block_rows(self) -> int:
        """Number of rows of a block."""

    @property
    def workers(self) -> int:
        """Number of threads."""

    @property
    def evaluations(self) -> int:
        """Number of times the loss and its gradient have been computed."""

    def running(self) -> AbstractContextManager[None]:
        """Hold the threads, for the duration of one training."""

    def run(
        self, params: Params, opt_state: Any, epochs: int, first_epoch: int = 0
    ) -> tuple[Params, Any, Array]:
        """Train for some epochs without reading anything back to the host.

        Returns
        -------
        params : Params
        opt_state : object
            The optimiser's state.
        losses : Array (epochs,)
            The loss before each update; with several updates in an epoch, their weighted mean.
        """

    def loss_value(self, params: Params, batch: Any) -> Array:
        """Return the loss () of any `Batch` of rows, without dropout and without gradients."""

    def total(self, batch: Any) -> Any:
        """Return the sum of the weights of all rows of a `Batch`."""
