"""Levenberg-Marquardt: damped Gauss-Newton steps, for small networks and full batches.

Before they are added up, the gradients of the samples' predictions are the rows of the Jacobian J.
Where the residuals are small, J^T J is the curvature of the loss, and a step that uses it is far
better than one that uses the sum alone. It costs N * P**2 operations for N rows and P parameters;
with the rows of a part of the samples, and a matrix as small as their number, it costs far less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rnn_xp._typing import Array, Params, ValueAndGrad
from rnn_xp.backend import array_namespace, device_of
from rnn_xp.optim.base import NotFiniteError, Optimizer
from rnn_xp.optim.checks import integer, number
from rnn_xp.optim.cholesky import cholesky, solve
from rnn_xp.optim.flat import flatten, unflatten

__all__ = ["LevenbergMarquardt", "LevenbergMarquardtState"]

_MATRICES = 4  # of P**2 numbers that are in memory at once, at least


class LevenbergMarquardtState(NamedTuple):
    """State of `LevenbergMarquardt`.

    Attributes
    ----------
    damping : float or None
        Damping of the next step, relative to ``scale``.
    scale : Array ()
        Mean curvature before the first update, the unit of the damping; 0 before it. It stays on
        the device, where nothing waits for it.
    updates : int
        Number of updates, which says whose turn it is among the samples.
    message : str
        The reason why no further progress is possible; empty while it is.
    """

    damping: float
    scale: Array
    updates: int
    message: str


@dataclass(frozen=True)
class LevenbergMarquardt(Optimizer):
    """Damped Gauss-Newton steps, which are accepted only if the loss falls.

    ::

        A = sum_n J_n^T L_n J_n          J_n = d pred_n / d params, L_n = d2 loss / d pred_n**2
        d = -(A + damping * scale * I)^-1 g
        the loss at p + d is lower:      p = p + d, damping = damping * decrease
        otherwise:                       damping = damping * increase, and d is computed again

    One update is one accepted step. It needs a single product of N * P**2 operations for A and, for
    each trial, a Cholesky decomposition and the loss of the full batch. The scale is the mean of
    A's diagonal before the first update, so that the damping has no unit.

    With ``subsample`` = 1/8, A is estimated from every eighth sample, and from other ones in each
    of eight successive updates; gradient and losses are exact as before. If these n samples give
    fewer rows R of the weighted Jacobian than there are parameters, no matrix of P**2 numbers is
    needed, because ``(R^T R + m I)^-1 g = (g - R^T (R R^T + m I)^-1 R g) / m``.

    The loss must declare its curvature, as `rnn_xp.losses.mse`, `rnn_xp.losses.cross_entropy` and
    `rnn_xp.losses.binary_cross_entropy` do. With the squared error A is J^T J, times 2 / N; with
    the others, this is the generalised Gauss-Newton method.

    Parameters
    ----------
    damping : float
        Damping of the first step, > 0.
    decrease : float
        Factor of the damping after a step that was accepted, in (0, 1).
    increase : float
        Factor of the damping after a step that was rejected, > 1.
    subsample : float
        Fraction of the samples from which the curvature is estimated, in (0, 1]; rounded so that
        one in a whole number of samples is taken.
    weight_decay : float
        Factor of half the squared length of the parameters, which is added to the loss, >= 0.
    max_trials : int
        Largest number of trials in one update, >= 1.
    tolerance : float
        Training ends when no entry of the gradient is larger than this; >= 0.
    max_bytes : int
        Largest memory for square matrices, of which four are needed at once.

    Notes
    -----
    float64 is recommended, because A has the square of J's condition number.

    A series without noise deserves little damping, such as 1e-4, and all samples: the Mackey-Glass
    series of `benchmarks.learn.series` is then learned to a squared error of 4e-14. With noise, and
    with many parameters, start at 1 and take ``decrease=0.5`` and a part of the samples.

    References
    ----------
    .. [1] D. W. Marquardt, "An algorithm for least-squares estimation of nonlinear parameters",
           SIAM J. Appl. Math. 11 (1963), 431-441.
    .. [2] N. N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient
           descent", Neural Computation 14 (2002), 1723-1738.
    .. [3] R. H. Byrd, G. M. Chin, W. Neveitt and J. Nocedal, "On the use of stochastic Hessian
           information in optimization methods for machine learning", SIAM J. Optim. 21 (2011),
           977-995.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows(np.sin(np.arange(60) / 3.0), seq_length=5)
    >>> net = rx.Network(hidden_size=4)
    >>> optimizer = rx.optim.levenberg_marquardt()
    >>> float64 = rx.get_backend("numpy", dtype="float64")
    >>> result = rx.fit(net, x, y, optimizer=optimizer, epochs=30, backend=float64)
    >>> result.history["loss"][-1] < 1e-6
    True
    """

    damping: float = 1e-2
    decrease: float = 0.2
    increase: float = 2.0
    subsample: float = 1.0
    weight_decay: float = 0.0
    max_trials: int = 30
    tolerance: float = 0.0
    max_bytes: int = 2**33

    full_batch_only: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("value", "curvature", "curvature_factor")

    def __post_init__(self) -> None:
        for name, interval in (
            ("damping", "(0, inf)"), ("decrease", "(0, 1)"), ("increase", "(1, inf)"),
            ("subsample", "(0, 1]"),
            ("weight_decay", "[0, inf)"), ("tolerance", "[0, inf)"),
        ):  # fmt: skip
            number(self, name, interval)
        integer(self, "max_trials", 1)
        integer(self, "max_bytes", 1)

    def init(self, params: Params) -> LevenbergMarquardtState:
        """Return the state before the first update.

        Raises
        ------
        ValueError
            If matrices of P**2 numbers need more than ``max_bytes``.
        """
        if self._every == 1:
            size = sum(math.prod(array.shape) for array in params.values())
            self._check_memory(size, f"{size} parameters", next(iter(params.values())))
        like = next(iter(params.values()))
        zero = array_namespace(like).zeros((), dtype=like.dtype, device=device_of(like))
        return LevenbergMarquardtState(self.damping, zero, 0, "")

    @property
    def _every(self) -> int:
        return round(1.0 / self.subsample)

    def _check_memory(self, size: int, what: str, like: Array) -> None:
        needed = _MATRICES * size**2 * (array_namespace(like).finfo(like.dtype).bits // 8)
        if needed > self.max_bytes:
            raise ValueError(
                f"LevenbergMarquardt: {what} need {_MATRICES} matrices of {size} x "
                f"{size} numbers, {needed / 2**30:.1f} GiB, which is more than max_bytes="
                f"{self.max_bytes}. Allow more, take a smaller subsample, or use "
                "rnn_xp.optim.hessian_free() or rnn_xp.optim.lbfgs(), which need no matrix."
            )

    def update(
        self,
        grads: Params,
        state: LevenbergMarquardtState,
        params: Params,
        *,
        value: Array | None = None,
        value_and_grad: ValueAndGrad | None = None,
    ) -> tuple[Params, LevenbergMarquardtState]:
        """Take one step that lowers the loss.

        Parameters
        ----------
        grads : Params
            The gradient at ``params``.
        state : LevenbergMarquardtState
        params : Params
        value : Array ()
            The loss at ``params``.
        value_and_grad : Objective
            The loss of the full batch, with its curvature; `rnn_xp.fit` provides it.

        Raises
        ------
        ValueError
            Without ``value``, or if ``value_and_grad`` has no curvature.
        NotFiniteError
            If the gradient is not finite.
        """
        objective = self.objective(value, value_and_grad)
        xp, origin = array_namespace(*params.values()), flatten(params)
        gradient = flatten(grads) + self.weight_decay * origin
        if self.tolerance and float(xp.max(xp.abs(gradient))) <= self.tolerance:
            return params, state._replace(message="the gradient is within the tolerance")
        if self._every == 1:
            system: _Primal | _Dual = _Primal(objective.curvature(params))
        else:
            first = state.updates % self._every
            system = self._estimated(objective.curvature_factor(params, self._every, first))
        first_mean = system.mean_curvature
        first_mean = xp.where(first_mean == 0.0, xp.ones_like(first_mean), first_mean)
        scale = xp.where(state.scale == 0.0, first_mean, state.scale)

        def penalised(loss: Array, flat: Array) -> float:
            return float(loss + 0.5 * self.weight_decay * xp.vecdot(flat, flat))

        start, damping, updates = penalised(value, origin), state.damping, state.updates + 1
        for _ in range(self.max_trials):  # the host reads nothing but the losses
            step = system.solve(damping * scale + self.weight_decay, -gradient)
            if step is not None:
                trial = unflatten(origin + step, params)
                if penalised(objective.value(trial), origin + step) < start:
                    damping *= self.decrease
                    return trial, LevenbergMarquardtState(damping, scale, updates, "")
            damping *= self.increase
        if not math.isfinite(float(xp.max(xp.abs(gradient)))):
            raise NotFiniteError("LevenbergMarquardt: the gradient is not finite.")
        message = f"no step lowers the loss, up to a damping of {damping:.1e}"
        return params, LevenbergMarquardtState(state.damping, scale, updates, message)

    def _estimated(self, factor: Array) -> _Primal | _Dual:
        """Return the smaller one of the two systems of a factor R (n, P)."""
        rows, size = factor.shape
        xp = array_namespace(factor)
        transposed = xp.matrix_transpose(factor)
        if rows < size:
            self._check_memory(rows, f"{rows} rows of the Jacobian", factor)
            return _Dual(factor, xp.matmul(factor, transposed))
        self._check_memory(size, f"{size} parameters", factor)
        return _Primal(xp.matmul(transposed, factor))

    def message(self, state: LevenbergMarquardtState) -> str:
        """Return the reason why no further progress is possible; empty while it is."""
        return state.message

    def restart(self, state: LevenbergMarquardtState) -> LevenbergMarquardtState:
        """Return the state for the start of another training, without a message."""
        return state._replace(message="")


class _Primal:
    """Steps from A (P, P) itself."""

    def __init__(self, matrix: Array) -> None:
        self.matrix, self.xp = matrix, array_namespace(matrix)
        self.mean_curvature = self.xp.mean(self.xp.linalg.diagonal(matrix))

    def solve(self, shift: Array, right: Array) -> Array | None:
        """Return (A + shift * I)^-1 right (P,); None if the matrix is not positive definite."""
        triangle = cholesky(self.matrix, shift, xp=self.xp)
        return None if triangle is None else solve(triangle, right, xp=self.xp)


class _Dual:
    """Steps from R (n, P) and K = R R^T (n, n), where A = R^T R and n < P."""

    def __init__(self, factor: Array, kernel: Array) -> None:
        self.factor, self.kernel = factor, _Primal(kernel)
        # The traces of R R^T and of R^T R are equal.
        self.mean_curvature = self.kernel.mean_curvature * factor.shape[0] / factor.shape[1]

    def solve(self, shift: Array, right: Array) -> Array | None:
        """Return (A + shift * I)^-1 right (P,); None if K + shift * I is not positive definite.

        Where A is much larger than the shift, the difference below cancels. One refinement of the
        solution, by its residual, makes up for that.
        """
        xp, factor = self.kernel.xp, self.factor
        transposed = xp.matrix_transpose(factor)
        triangle = cholesky(self.kernel.matrix, shift, xp=xp)
        if triangle is None:
            return None

        def once(right: Array) -> Array:
            inner = solve(triangle, xp.matmul(factor, right), xp=xp)
            return (right - xp.matmul(transposed, inner)) / shift

        step = once(right)
        return step + once(right - xp.matmul(transposed, xp.matmul(factor, step)) - shift * step)
