"""L-BFGS with a strong Wolfe line search, for full batches.

A full-batch gradient is exact and repeats to the bit, as a quasi-Newton method requires: the
differences of successive gradients then measure curvature and not noise.

The vectors stay on the device of the parameters. The host reads scalars only (values and slopes
along a line).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

from rnn_xp._typing import Array, Namespace, Params, ValueAndGrad
from rnn_xp.backend import array_namespace, to_numpy
from rnn_xp.kernels import two_loop
from rnn_xp.optim.base import NotFiniteError, Optimizer
from rnn_xp.optim.checks import Saved
from rnn_xp.optim.flat import flatten, unflatten
from rnn_xp.optim.line_search import Point, strong_wolfe

__all__ = ["LBFGS", "LBFGSState"]


class LBFGSState(NamedTuple):
    """State of `LBFGS`.

    Attributes
    ----------
    steps, changes : tuple of Array (P,)
        The latest steps s_k, and the changes y_k of the gradient along them, oldest first.
    message : str
        The reason why no further progress is possible; empty while it is.
    """

    steps: tuple[Array, ...]
    changes: tuple[Array, ...]
    message: str


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """Limited-memory BFGS: a quasi-Newton step from the last ``history`` gradient differences.

    ::

        d = -H g            H from the pairs (s_k, y_k) by the two-loop recursion
        t = strong Wolfe step along d, first trial 1 (1 / |g|_1 without history)
        p = p + t * d

    One update is one iteration, which usually takes one or two evaluations of the full batch.

    Parameters
    ----------
    history : int
        Number of pairs to remember, >= 1. Each pair needs twice the memory of the parameters.
    max_evaluations : int
        Maximum number of evaluations in one line search, >= 1.
    tolerance : float
        Training ends when no entry of the gradient is larger than this; >= 0.

    Notes
    -----
    If a line search finds no lower point, the history is cleared and steepest descent is tried
    once. If that fails too, the parameters stay the same and the state's ``message`` says so. In
    float32, training ends this way when the loss cannot be resolved any further.

    References
    ----------
    .. [1] J. Nocedal, S. J. Wright, "Numerical Optimization", 2nd ed., Algorithms 7.4 and 7.5.
    .. [2] D. C. Liu, J. Nocedal, "On the limited memory BFGS method for large scale
           optimization", Math. Programming 45 (1989), 503-528.

    Examples
    --------
    >>> import numpy as np
    >>> def value_and_grad(params):
    ...     return np.sum(params["w"] ** 2), {"w": 2 * params["w"]}
    >>> opt, params = LBFGS(), {"w": np.asarray([3.0, -4.0])}
    >>> state = opt.init(params)
    >>> for _ in range(5):
    ...     value, grads = value_and_grad(params)
    ...     params, state = opt.update(
    ...         grads, state, params, value=value, value_and_grad=value_and_grad
    ...     )
    >>> bool(np.abs(params["w"]).max() < 1e-12)
    True
    """

    history: int = 20
    max_evaluations: int = 25
    tolerance: float = 0.0

    full_batch_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ValueError(f"LBFGS: history must be >= 1, got {self.history!r}.")
        if self.max_evaluations < 1:
            raise ValueError(f"LBFGS: max_evaluations must be >= 1, got {self.max_evaluations!r}.")
        if not self.tolerance >= 0.0:
            raise ValueError(f"LBFGS: tolerance must be >= 0, got {self.tolerance!r}.")

    def init(self, params: Params) -> LBFGSState:
        """Return the state before the first update."""
        return LBFGSState((), (), "")

    def update(
        self,
        grads: Params,
        state: LBFGSState,
        params: Params,
        *,
        value: Array | None = None,
        value_and_grad: ValueAndGrad | None = None,
    ) -> tuple[Params, LBFGSState]:
        """Perform one iteration.

        Parameters
        ----------
        grads : Params
            The gradient at ``params``.
        state : LBFGSState
        params : Params
        value : Array ()
            The loss at ``params``.
        value_and_grad : callable
            ``value_and_grad(params) -> (value, grads)`` on the same full batch.

        Returns
        -------
        params : Params
            The same dict that ``value_and_grad`` was given for the accepted point, so that a
            caller can recognise it by identity and reuse its value and gradient.
        state : LBFGSState

        Raises
        ------
        ValueError
            Without ``value`` and ``value_and_grad``.
        NotFiniteError
            If the gradient is not finite.
        """
        objective = self.objective(value, value_and_grad)
        xp = array_namespace(*params.values())
        gradient = flatten(grads)
        search = _Search(params, gradient, cast(Array, value), objective, self.max_evaluations, xp)
        line = search.line(_direction(gradient, state, xp=xp))
        if not math.isfinite(line.largest):
            raise NotFiniteError("LBFGS: the gradient is not finite.")
        if line.largest <= self.tolerance:
            return params, state._replace(message="the gradient is within the tolerance")
        lower = search.along(line, first=not state.steps)
        if lower is None and state.steps:
            state = self.init(params)
            lower = search.along(search.line(-gradient), first=True)
        if lower is None:
            return params, state._replace(
                message="the line search found no lower loss, not even along the gradient"
            )
        return lower.params, self._remember(state, lower)

    def message(self, state: LBFGSState) -> str:
        """Return the reason why no further progress is possible; empty while it is."""
        return state.message

    def restart(self, state: LBFGSState) -> LBFGSState:
        """Return the state for the start of another training, without a message."""
        return state._replace(message="")

    def pack(self, state: LBFGSState) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the state as arrays ``"steps.0"``, ``"changes.0"``, ..., and values for JSON."""
        arrays = {f"steps.{k}": step for k, step in enumerate(state.steps)}
        arrays |= {f"changes.{k}": change for k, change in enumerate(state.changes)}
        return arrays, {"pairs": len(state.steps), "message": state.message}

    def unpack(
        self, arrays: Mapping[str, Array], values: Mapping[str, Any], params: Params
    ) -> LBFGSState:
        """Rebuild a state from what `pack` returned.

        Raises
        ------
        ValueError
            If anything is missing, unknown, or does not fit these parameters.
        """
        saved = Saved("LBFGS", arrays, values, ("pairs", "message"))
        pairs, message = saved.count("pairs", values["pairs"], self.history), values["message"]
        saved.require(isinstance(message, str), f"message must be a string, got {message!r}")
        size = sum(math.prod(p.shape) for p in params.values())
        dtype = next(iter(params.values())).dtype
        steps, changes = ([f"{kind}.{k}" for k in range(pairs)] for kind in ("steps", "changes"))
        taken = saved.take(dict.fromkeys((*steps, *changes), ((size,), dtype)))
        return LBFGSState(
            tuple(taken[name] for name in steps), tuple(taken[name] for name in changes), message
        )

    def _remember(self, state: LBFGSState, lower: _Lower) -> LBFGSState:
        # The curvature along the step, s.y, must be positive beyond rounding, or H would not be
        # positive definite and the next direction might not descend.
        if not lower.cosine > float(array_namespace(lower.step).finfo(lower.step.dtype).eps):
            return state
        keep = slice(-self.history, None)
        return LBFGSState(
            (*state.steps, lower.step)[keep], (*state.changes, lower.change)[keep], ""
        )


class _Line(NamedTuple):
    """A direction from the search's origin, and what the host must know before a step.

    Attributes
    ----------
    direction : Array (P,)
    value, slope : float
        The loss at the origin, and its slope there.
    largest, norm1 : float
        The largest size of an entry of the gradient, and the sum of all sizes.
    length, longest : float
        The direction's norm, and the largest size of an entry.
    """

    direction: Array
    value: float
    slope: float
    largest: float
    norm1: float
    length: float
    longest: float


class _Lower(NamedTuple):
    """A point with a lower loss: the step to it, the gradient's change, and their cosine."""

    params: Params
    step: Array
    change: Array
    cosine: float


@dataclass(frozen=True)
class _Search:
    """The loss along lines that start from one point.

    The host reads once for a line and once for each evaluation.
    """

    params: Params
    gradient: Array
    value: Array
    value_and_grad: ValueAndGrad
    max_evaluations: int
    xp: Namespace

    def line(self, direction: Array) -> _Line:
        xp, gradient = self.xp, self.gradient
        sizes, along = xp.abs(gradient), xp.vecdot(direction, direction)
        read = self._read(
            self.value, xp.vecdot(gradient, direction), xp.max(sizes), xp.sum(sizes),
            along, xp.max(xp.abs(direction)),
        )  # fmt: skip
        value, slope, largest, norm1, square, longest = read
        return _Line(direction, value, slope, largest, norm1, math.sqrt(max(square, 0.0)), longest)

    def along(self, line: _Line, *, first: bool) -> _Lower | None:
        """Return a lower point on a line; None if none was found."""
        xp, direction, origin = self.xp, line.direction, flatten(self.params)
        if not line.slope < 0.0:
            return None

        def evaluate(step: float) -> Point:
            trial = unflatten(origin + step * direction, self.params)
            value, grads = self.value_and_grad(trial)
            flat = flatten(grads)
            change = flat - self.gradient
            read = self._read(
                value, xp.vecdot(flat, direction), xp.vecdot(change, direction),
                xp.vecdot(change, change),
            )  # fmt: skip
            size = line.length * math.sqrt(max(read[3], 0.0))
            cosine = read[2] / size if size > 0.0 else 0.0
            return Point(step, read[0], read[1], (trial, change, cosine))

        # Without history the gradient's length says nothing about the distance to go.
        point = strong_wolfe(
            evaluate,
            Point(0.0, line.value, line.slope),
            min(1.0, 1.0 / line.norm1) if first else 1.0,
            max_evaluations=self.max_evaluations,
            min_width=1e-9 / line.longest,
        )
        if not point.value < line.value:
            return None
        trial, change, cosine = point.payload
        return _Lower(trial, point.step * direction, change, cosine)

    def _read(self, *scalars: Array) -> list[float]:
        """Return numbers of the device in one transfer."""
        return [float(number) for number in to_numpy(self.xp.stack(scalars))]


def _direction(gradient: Array, state: LBFGSState, *, xp: Namespace) -> Array:
    """Return -H g by the two-loop recursion (Nocedal and Wright, Algorithm 7.4).

    The scalars stay arrays of shape (), so that the host reads nothing.
    """
    if state.steps:
        direction = two_loop(gradient, state.steps, state.changes, xp=xp)
        if direction is not None:
            return direction
    pairs = [(s, y, xp.vecdot(s, y)) for s, y in zip(state.steps, state.changes, strict=True)]
    q, alphas = -gradient, []
    for s, y, curvature in reversed(pairs):
        alpha = xp.vecdot(s, q) / curvature
        alphas.append(alpha)
        q = q - alpha * y
    if pairs:
        _, y, curvature = pairs[-1]
        q = q * (curvature / xp.vecdot(y, y))
    for (s, y, curvature), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + (alpha - xp.vecdot(y, q) / curvature) * s
    return q
