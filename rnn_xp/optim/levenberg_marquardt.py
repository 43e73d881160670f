"""Levenberg-Marquardt: damped Gauss-Newton steps, for small networks and full batches.

Before they are added up, the gradients of the samples' predictions are the rows of the Jacobian J.
Where the residuals are small, J^T J is the curvature of the loss, and a step that uses it is far
better than one that uses the sum alone. It costs N * P**2 operations for N rows and P parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rnn_xp._typing import Array, Namespace, Params, ValueAndGrad
from rnn_xp.backend import array_namespace, device_of
from rnn_xp.optim.base import NotFiniteError, Optimizer
from rnn_xp.optim.checks import integer, number
from rnn_xp.optim.flat import flatten, unflatten

__all__ = ["LevenbergMarquardt", "LevenbergMarquardtState", "solve_positive"]

_TRIANGLE = 128  # rows that a triangular system is solved by at a time
_MATRICES = 4  # of P**2 numbers that are in memory at once, at least


class LevenbergMarquardtState(NamedTuple):
    """State of `LevenbergMarquardt`.

    Attributes
    ----------
    damping : float or None
        Damping of the next step, relative to ``scale``.
    scale : float or None
        Mean curvature before the first update, the unit of the damping; None before it.
    message : str
        The reason why no further progress is possible; empty while it is.
    """

    damping: float
    scale: float | None
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
    weight_decay : float
        Factor of half the squared length of the parameters, which is added to the loss, >= 0.
    max_trials : int
        Largest number of trials in one update, >= 1.
    tolerance : float
        Training ends when no entry of the gradient is larger than this; >= 0.
    max_bytes : int
        Largest memory for matrices of P**2 numbers, of which four are needed at once.

    Notes
    -----
    float64 is recommended, because A has the square of J's condition number.

    References
    ----------
    .. [1] D. W. Marquardt, "An algorithm for least-squares estimation of nonlinear parameters",
           SIAM J. Appl. Math. 11 (1963), 431-441.
    .. [2] N. N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient
           descent", Neural Computation 14 (2002), 1723-1738.

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
    weight_decay: float = 0.0
    max_trials: int = 30
    tolerance: float = 0.0
    max_bytes: int = 2**33

    full_batch_only: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("value", "curvature")

    def __post_init__(self) -> None:
        for name, interval in (
            ("damping", "(0, inf)"), ("decrease", "(0, 1)"), ("increase", "(1, inf)"),
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
        size = sum(math.prod(array.shape) for array in params.values())
        dtype = next(iter(params.values())).dtype
        itemsize = array_namespace(*params.values()).finfo(dtype).bits // 8
        needed = _MATRICES * size**2 * itemsize
        if needed > self.max_bytes:
            raise ValueError(
                f"LevenbergMarquardt: {size} parameters need {_MATRICES} matrices of {size} x "
                f"{size} numbers, {needed / 2**30:.1f} GiB, which is more than max_bytes="
                f"{self.max_bytes}. Allow more, or use rnn_xp.optim.hessian_free() or "
                "rnn_xp.optim.lbfgs(), which need no matrix."
            )
        return LevenbergMarquardtState(self.damping, None, "")

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
        matrix = objective.curvature(params)
        scale = state.scale
        if scale is None:
            scale = float(xp.mean(xp.linalg.diagonal(matrix))) or 1.0
        identity = xp.eye(matrix.shape[0], dtype=matrix.dtype, device=device_of(matrix))

        def penalised(loss: Array, flat: Array) -> float:
            return float(loss + 0.5 * self.weight_decay * xp.vecdot(flat, flat))

        start, damping = penalised(value, origin), state.damping
        for _ in range(self.max_trials):  # the host reads nothing but the losses
            shift = damping * scale + self.weight_decay
            step = solve_positive(matrix + shift * identity, -gradient, xp=xp)
            if step is not None:
                trial = unflatten(origin + step, params)
                if penalised(objective.value(trial), origin + step) < start:
                    return trial, LevenbergMarquardtState(damping * self.decrease, scale, "")
            damping *= self.increase
        if not math.isfinite(float(xp.max(xp.abs(gradient)))):
            raise NotFiniteError("LevenbergMarquardt: the gradient is not finite.")
        message = f"no step lowers the loss, up to a damping of {damping:.1e}"
        return params, LevenbergMarquardtState(state.damping, scale, message)

    def message(self, state: LevenbergMarquardtState) -> str:
        """Return the reason why no further progress is possible; empty while it is."""
        return state.message

    def restart(self, state: LevenbergMarquardtState) -> LevenbergMarquardtState:
        """Return the state for the start of another training, without a message."""
        return state._replace(message="")


def solve_positive(matrix: Array, right: Array, *, xp: Namespace) -> Array | None:
    """Solve a symmetric positive definite system by its Cholesky decomposition.

    Parameters
    ----------
    matrix : Array (P, P)
    right : Array (P,)

    Returns
    -------
    Array (P,) or None
        None if the library finds that the matrix is not positive definite. Libraries that report
        nothing, such as CuPy and JAX, return NaN.
    """
    try:
        lower = xp.linalg.cholesky(matrix)
    except (ValueError, RuntimeError):  # LinAlgError of NumPy, of torch
        return None
    return _solve_upper(lower, _solve_lower(lower, right, xp=xp), xp=xp)


def _solve_lower(lower: Array, right: Array, *, xp: Namespace) -> Array:
    """Solve lower @ y = right, some rows at a time; the standard has no triangular solve."""
    solved = right[:0]
    for start in range(0, right.shape[0], _TRIANGLE):
        rows = slice(start, min(start + _TRIANGLE, right.shape[0]))
        rest = right[rows] - xp.matmul(lower[rows, :start], solved)
        solved = xp.concat([solved, xp.linalg.solve(lower[rows, rows], rest[:, None])[:, 0]])
    return solved


def _solve_upper(lower: Array, right: Array, *, xp: Namespace) -> Array:
    """Solve lower.T @ y = right, from the last rows to the first."""
    solved = right[:0]
    for start in reversed(range(0, right.shape[0], _TRIANGLE)):
        rows = slice(start, min(start + _TRIANGLE, right.shape[0]))
        below = xp.matrix_transpose(lower[rows.stop :, rows])
        rest = right[rows] - xp.matmul(below, solved)
        block = xp.matrix_transpose(lower[rows, rows])
        solved = xp.concat([xp.linalg.solve(block, rest[:, None])[:, 0], solved])
    return solved
