"""Optimisers that scale the step of every parameter by the size of its past gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend import array_namespace
from rnn_xp.optim.checks import number
from rnn_xp.optim.first_order import FirstOrder
from rnn_xp.optim.schedules import ReduceOnPlateau, Schedule

__all__ = ["Adagrad", "Adam", "AdamW", "RMSprop"]


@dataclass(frozen=True)
class Adam(FirstOrder):
    """Adam: steps scaled by running means of the gradient and of its square.

    ::

        m = beta1 * m + (1 - beta1) * g          m_hat = m / (1 - beta1**t)
        v = beta2 * v + (1 - beta2) * g**2       v_hat = v / (1 - beta2**t)
        p = p - learning_rate * m_hat / (sqrt(v_hat) + eps)

    Parameters
    ----------
    learning_rate : float, callable or ReduceOnPlateau
        The learning rate, > 0, or its schedule.
    beta1, beta2 : float
        The decay of the running means of the gradient and of its square, in [0, 1).
    eps : float
        A number > 0, added outside the square root so that nothing is divided by zero.
    weight_decay, decay_biases, clip_value, clip_norm
        See `FirstOrder`; keyword arguments.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015,
           Algorithm 1.

    Examples
    --------
    The first step has length ``learning_rate`` whatever the gradient's size:

    >>> import numpy as np
    >>> opt, params = Adam(0.1), {"w": np.asarray([1.0])}
    >>> params, state = opt.update({"w": np.asarray([123.0])}, opt.init(params), params)
    >>> round(float(params["w"][0]), 6)
    0.9
    """

    learning_rate: float | Schedule | ReduceOnPlateau = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        number(self, "beta1", "[0, 1)")
        number(self, "beta2", "[0, 1)")
        number(self, "eps", "(0, inf)")

    def _slots(self) -> dict[str, float]:
        return {"m": 0.0, "v": 0.0}

    def _rule(
        self, g: Array, slots: dict[str, Array], rate: float, t: int, *, xp: Namespace
    ) -> tuple[Array, dict[str, Array]]:
        m = self.beta1 * slots["m"] + (1.0 - self.beta1) * g
        v = self.beta2 * slots["v"] + (1.0 - self.beta2) * (g * g)
        # The corrections are divided by as scalars, m's together with the rate.
        share, root = self._corrections(t)
        return rate / share * m / (xp.sqrt(v) / root + self.eps), {"m": m, "v": v}

    def _corrections(self, t: int) -> tuple[Any, Any]:
        """Return the total weight of t gradients in m, and the root of their total weight in v."""
        if hasattr(t, "dtype"):  # compiled by JAX, perhaps in float32, where 1 - beta**t is coarse
            xp = array_namespace(t)
            weights = [
                -xp.expm1(t * math.log(beta)) if beta else 1.0 for beta in (self.beta1, self.beta2)
            ]
            return weights[0], weights[1] ** 0.5
        return 1.0 - self.beta1**t, math.sqrt(1.0 - self.beta2**t)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: the weights shrink by a factor, whatever the gradient.

    ::

        p = p * (1 - learning_rate * weight_decay)
        p = p - learning_rate * m_hat / (sqrt(v_hat) + eps)          m_hat, v_hat as in Adam

    In Adam itself the decay is part of the gradient and is divided by its size, so that weights
    with large gradients hardly decay at all.

    Parameters
    ----------
    learning_rate, beta1, beta2, eps
        See `Adam`.
    weight_decay : float
        The decay, >= 0; a keyword argument.
    decay_biases, clip_value, clip_norm
        See `FirstOrder`; keyword arguments.

    References
    ----------
    .. [1] I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019,
           Algorithm 2. The learning rate here is their schedule multiplier times alpha, and
           their decay is learning_rate * weight_decay, as in PyTorch.

    Examples
    --------
    A weight without gradient shrinks, a bias does not:

    >>> import numpy as np
    >>> params = {"w": np.asarray([[1.0]]), "b": np.asarray([1.0])}
    >>> grads = {"w": np.asarray([[0.0]]), "b": np.asarray([0.0])}
    >>> opt = AdamW(0.1, weight_decay=0.5)
    >>> params, state = opt.update(grads, opt.init(params), params)
    >>> params["w"].tolist(), params["b"].tolist()
    ([[0.95]], [1.0])
    """

    weight_decay: float = field(default=0.01, kw_only=True)

    decoupled_decay: ClassVar[bool] = True


@dataclass(frozen=True)
class RMSprop(FirstOrder):
    """RMSprop: gradients divided by the root of a running mean of their squares.

    ::

        v = alpha * v + (1 - alpha) * g**2
        u = momentum * u + g / (sqrt(v) + eps)
        p = p - learning_rate * u

    Parameters
    ----------
    learning_rate : float, callable or ReduceOnPlateau
        The learning rate, > 0, or its schedule.
    alpha : float
        The decay of the running mean, in [0, 1).
    eps : float
        A number > 0, added outside the square root so that nothing is divided by zero.
    momentum : float
        The share of the velocity that remains after an update, in [0, 1).
    weight_decay, decay_biases, clip_value, clip_norm
        See `FirstOrder`; keyword arguments.

    References
    ----------
    .. [1] T. Tieleman, G. Hinton, "Lecture 6.5: RMSprop", Coursera, Neural networks for machine
           learning (2012).

    Examples
    --------
    >>> import numpy as np
    >>> opt, params = RMSprop(0.1, alpha=0.75), {"w": np.asarray([1.0])}
    >>> params, state = opt.update({"w": np.asarray([123.0])}, opt.init(params), params)
    >>> round(float(params["w"][0]), 6)
    0.8
    """

    learning_rate: float | Schedule | ReduceOnPlateau = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number(self, "alpha", "[0, 1)")
        number(self, "eps", "(0, inf)")
        number(self, "momentum", "[0, 1)")

    def _slots(self) -> dict[str, float]:
        return {"v": 0.0, "velocity": 0.0} if self.momentum else {"v": 0.0}

    def _rule(
        self, g: Array, slots: dict[str, Array], rate: float, t: int, *, xp: Namespace
    ) -> tuple[Array, dict[str, Array]]:
        v = self.alpha * slots["v"] + (1.0 - self.alpha) * (g * g)
        u = g / (xp.sqrt(v) + self.eps)
        if not self.momentum:
            return rate * u, {"v": v}
        u = self.momentum * slots["velocity"] + u
        return rate * u, {"v": v, "velocity": u}


@dataclass(frozen=True)
class Adagrad(FirstOrder):
    """Adagrad: gradients divided by the root of the sum of all their squares so far.

    ::

        v = v + g**2                     starting from initial
        p = p - learning_rate * g / (sqrt(v) + eps)

    Parameters
    ----------
    learning_rate : float, callable or ReduceOnPlateau
        The learning rate, > 0, or its schedule.
    eps : float
        A number > 0, added outside the square root so that nothing is divided by zero.
    initial : float
        The initial value of the sum, >= 0.
    weight_decay, decay_biases, clip_value, clip_norm
        See `FirstOrder`; keyword arguments.

    References
    ----------
    .. [1] J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and
           stochastic optimization", JMLR 12 (2011), 2121-2159, Figure 1, diagonal case.

    Examples
    --------
    >>> import numpy as np
    >>> opt, params = Adagrad(0.1), {"w": np.asarray([1.0])}
    >>> params, state = opt.update({"w": np.asarray([123.0])}, opt.init(params), params)
    >>> round(float(params["w"][0]), 6)
    0.9
    """

    learning_rate: float | Schedule | ReduceOnPlateau = 0.01
    eps: float = 1e-10
    initial: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number(self, "eps", "(0, inf)")
        number(self, "initial", "[0, inf)")

    def _slots(self) -> dict[str, float]:
        return {"v": self.initial}

    def _rule(
        self, g: Array, slots: dict[str, Array], rate: float, t: int, *, xp: Namespace
    ) -> tuple[Array, dict[str, Array]]:
        v = slots["v"] + g * g
        return rate * g / (xp.sqrt(v) + self.eps), {"v": v}
