"""Hessian-free optimisation: Gauss-Newton steps without a matrix, for full batches.

The damped Gauss-Newton system of `rnn_xp.optim.levenberg_marquardt` is solved here by conjugate
gradients, which need nothing but products of the matrix with vectors. One product costs about as
much as three gradients, and memory stays at a few vectors of P numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rnn_xp._typing import Array, Namespace, Params, ValueAndGrad
from rnn_xp.backend import array_namespace
from rnn_xp.optim.base import NotFiniteError, Optimizer
from rnn_xp.optim.checks import integer, number
from rnn_xp.optim.flat import flatten, unflatten

__all__ = ["HessianFree", "HessianFreeState", "conjugate_gradients"]

_KEPT = 0.95  # of the last solution, with which the next one starts
_LEAST, _SHARE, _PROGRESS = 10, 0.1, 5e-4  # when conjugate gradients end (Martens 2010, 4.4)
_SHORTER, _LENGTHS = 0.5, 10  # lengths to try: 1, 1/2, 1/4, ...


class HessianFreeState(NamedTuple):
    """State of `HessianFree`.

    Attributes
    ----------
    damping : float
        Damping of the next step, relative to ``scale``.
    scale : float or None
        Curvature along the first gradient, the unit of the damping; None before the first update.
    direction : Array (P,)
        Solution of the last linear system.
    message : str
        The reason why no further progress is possible; empty while it is.
    """

    damping: float
    scale: float | None
    direction: Array
    message: str


@dataclass(frozen=True)
class HessianFree(Optimizer):
    """Truncated Gauss-Newton steps with damping, by conjugate gradients.

    ::

        (G + damping * scale * I) d = -g     by conjugate gradients, from 0.95 times the last d,
                                             until the progress of 10 iterations is small
        p = p + t * d                        t = 1, 1/2, 1/4, ...: the first that lowers the loss
        ratio = fall of the loss / fall of the quadratic model at d
        ratio < 1/4: damping * 3/2           ratio > 3/4: damping * 2/3

    G is the generalised Gauss-Newton matrix, see `rnn_xp.Network.gnvp`. The scale is the curvature
    g^T G g / g^T g along the first gradient, so that the damping has no unit.

    Parameters
    ----------
    damping : float
        Damping of the first step, > 0.
    max_products : int
        Largest number of products with G in one update, >= 1.
    weight_decay : float
        Factor of half the squared length of the parameters, which is added to the loss, >= 0.
    tolerance : float
        Training ends when no entry of the gradient is larger than this; >= 0.

    References
    ----------
    .. [1] J. Martens, "Deep learning via Hessian-free optimization", ICML 2010.
    .. [2] J. Martens, I. Sutskever, "Learning recurrent neural networks with Hessian-free
           optimization", ICML 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import rnn_xp as rx
    >>> x, y = rx.make_windows(np.sin(np.arange(60) / 3.0), seq_length=5)
    >>> float64 = rx.get_backend("numpy", dtype="float64")
    >>> optimizer = rx.optim.hessian_free()
    >>> net = rx.Network(hidden_size=4)
    >>> result = rx.fit(net, x, y, optimizer=optimizer, epochs=30, backend=float64)
    >>> result.history["loss"][-1] < 1e-4
    True
    """

    damping: float = 1e-2
    max_products: int = 100
    weight_decay: float = 0.0
    tolerance: float = 0.0

    full_batch_only: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("value", "curvature_product")

    def __post_init__(self) -> None:
        for name, interval in (
            ("damping", "(0, inf)"), ("weight_decay", "[0, inf)"), ("tolerance", "[0, inf)"),
        ):  # fmt: skip
            number(self, name, interval)
        integer(self, "max_products", 1)

    def init(self, params: Params) -> HessianFreeState:
        """Return the state before the first update."""
        return HessianFreeState(self.damping, None, 0.0 * flatten(params), "")

    def update(
        self,
        grads: Params,
        state: HessianFreeState,
        params: Params,
        *,
        value: Array | None = None,
        value_and_grad: ValueAndGrad | None = None,
    ) -> tuple[Params, HessianFreeState]:
        """Take one step that lowers the loss.

        Parameters
        ----------
        grads : Params
            The gradient at ``params``.
        state : HessianFreeState
        params : Params
        value : Array ()
            The loss at ``params``.
        value_and_grad : Objective
            The loss of the full batch, with its products; `rnn_xp.fit` provides it.

        Raises
        ------
        ValueError
            Without ``value``, or if ``value_and_grad`` has no products.
        NotFiniteError
            If the gradient is not finite.
        """
        objective = self.objective(value, value_and_grad)
        xp, origin = array_namespace(*params.values()), flatten(params)
        gradient = flatten(grads) + self.weight_decay * origin
        largest = float(xp.max(xp.abs(gradient)))
        if not math.isfinite(largest):
            raise NotFiniteError("HessianFree: the gradient is not finite.")
        if largest <= self.tolerance:
            return params, state._replace(message="the gradient is within the tolerance")

        def curvature(vector: Array) -> Array:
            return flatten(objective.curvature_product(params, unflatten(vector, params)))

        def loss(flat: Array) -> float:
            value = objective.value(unflatten(flat, params))
            return float(value + 0.5 * self.weight_decay * xp.vecdot(flat, flat))

        scale = state.scale
        if scale is None:
            squared = float(xp.vecdot(gradient, gradient))  # 0 if it is lost in rounding
            along = float(xp.vecdot(gradient, curvature(gradient)))
            scale = along / squared if along * squared else 1.0
        shift = state.damping * scale + self.weight_decay

        def damped(vector: Array) -> Array:
            return curvature(vector) + shift * vector

        start = float(value + 0.5 * self.weight_decay * xp.vecdot(origin, origin))
        direction, model = conjugate_gradients(
            damped, -gradient, _KEPT * state.direction, self.max_products, xp=xp
        )
        damping = state.damping
        full = loss(origin + direction) - start  # as the model, below 0 for a fall
        if full < 0.75 * model:
            damping *= 2 / 3
        elif not full <= 0.25 * model:  # NaN included
            damping *= 3 / 2
        for shorter in range(_LENGTHS):
            step = _SHORTER**shorter * direction
            if (full if not shorter else loss(origin + step) - start) < 0.0:
                trial = unflatten(origin + step, params)
                return trial, HessianFreeState(damping, scale, direction, "")
        return params, HessianFreeState(
            damping,
            scale,
            0.0 * direction,
            "no step along the Gauss-Newton direction lowers the loss",
        )

    def message(self, state: HessianFreeState) -> str:
        """Return the reason why no further progress is possible; empty while it is."""
        return state.message

    def restart(self, state: HessianFreeState) -> HessianFreeState:
        """Return the state for the start of another training, without a message."""
        return state._replace(message="")


def conjugate_gradients(
    product: Callable[[Array], Array], right: Array, start: Array, limit: int, *, xp: Namespace
) -> tuple[Array, float]:
    """Solve a symmetric positive definite system roughly.

    Iteration i ends the search if the model fell by less than a share of k * 5e-4 over the last
    k = max(10, i / 10) iterations.

    Parameters
    ----------
    product : callable
        ``product(v)`` is A v.
    right, start : Array (P,)
        b, and the solution to start from.
    limit : int
        Largest number of products.

    Returns
    -------
    solution : Array (P,)
    model : float
        x^T A x / 2 - b^T x at the solution, the value that it makes small.
    """
    solution = start
    residual = right - product(start)
    search, squared = residual, xp.vecdot(residual, residual)
    models: list[float] = []
    for i in range(1, limit):
        image = product(search)
        along = xp.vecdot(search, image)
        if not float(along) > 0.0:  # the residual is 0, or is lost in rounding
            break
        length = squared / along
        solution, residual = solution + length * search, residual - length * image
        models.append(float(-0.5 * xp.vecdot(solution, right + residual)))
        k = max(_LEAST, int(_SHARE * i))
        if i > k and models[-1] < 0.0 and models[-1] - models[-1 - k] > k * _PROGRESS * models[-1]:
            break
        before, squared = squared, xp.vecdot(residual, residual)
        search = residual + (squared / before) * search
    return solution, models[-1] if models else 0.0
