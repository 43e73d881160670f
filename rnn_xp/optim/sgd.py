"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from rnn_xp._typing import Array, Namespace
from rnn_xp.optim.checks import flag, number
from rnn_xp.optim.first_order import FirstOrder
from rnn_xp.optim.schedules import ReduceOnPlateau, Schedule

__all__ = ["SGD"]


@dataclass(frozen=True)
class SGD(FirstOrder):
    """Gradient descent, optionally with momentum.

    ::

        v = momentum * v + g
        p = p - learning_rate * v
        p = p - learning_rate * (g + momentum * v)       nesterov

    Parameters
    ----------
    learning_rate : float, callable or ReduceOnPlateau
        The learning rate, > 0, or its schedule.
    momentum : float
        The share of the velocity that remains after an update, in [0, 1).
    nesterov : bool
        If True, the step looks ahead along the velocity, which requires momentum.
    weight_decay, decay_biases, clip_value, clip_norm
        See `FirstOrder`; keyword arguments.

    References
    ----------
    .. [1] B. T. Polyak, "Some methods of speeding up the convergence of iteration methods",
           USSR Comp. Math. and Math. Physics 4 (1964).
    .. [2] Y. Bengio, N. Boulanger-Lewandowski, R. Pascanu, "Advances in optimizing recurrent
           networks", ICASSP 2013, section 3.5, for this form of Nesterov's momentum.

    Examples
    --------
    >>> import numpy as np
    >>> opt, params = SGD(0.5), {"w": np.asarray([1.0])}
    >>> params, state = opt.update({"w": np.asarray([2.0])}, opt.init(params), params)
    >>> params["w"].tolist()
    [0.0]
    """

    learning_rate: float | Schedule | ReduceOnPlateau = 0.01
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        number(self, "momentum", "[0, 1)")
        flag(self, "nesterov")
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs momentum > 0, such as 0.9.")

    def _slots(self) -> dict[str, float]:
        return {"velocity": 0.0} if self.momentum else {}

    def _rule(
        self, g: Array, slots: dict[str, Array], rate: float, t: int, *, xp: Namespace
    ) -> tuple[Array, dict[str, Array]]:
        if not self.momentum:
            return rate * g, {}
        v = self.momentum * slots["velocity"] + g
        step = g + self.momentum * v if self.nesterov else v
        return rate * step, {"velocity": v}
