"""Optimisers that use one gradient per update: SGD and Adam.

Scalars such as bias corrections are Python floats, never NumPy scalars, so that float32
parameters stay float32 on every library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from rnn_xp._typing import Array, Params, ValueAndGrad
from rnn_xp.backend import array_namespace

__all__ = ["SGD", "Adam", "AdamState", "SGDState"]


class SGDState(NamedTuple):
    """State of `SGD`: ``velocity``, a dict like the parameters (empty without momentum)."""

    velocity: Params


@dataclass(frozen=True)
class SGD:
    """Gradient descent, with momentum if asked for.

    ::

        v = momentum * v + g
        p = p - learning_rate * v

    Parameters
    ----------
    learning_rate : float
        > 0.
    momentum : float
        In [0, 1).

    References
    ----------
    .. [1] B. T. Polyak, "Some methods of speeding up the convergence of iteration methods",
           USSR Comp. Math. and Math. Physics 4 (1964).

    Examples
    --------
    >>> import numpy as np
    >>> opt, params = SGD(0.5), {"w": np.asarray([1.0])}
    >>> params, state = opt.update({"w": np.asarray([2.0])}, opt.init(params), params)
    >>> params["w"].tolist()
    [0.0]
    """

    learning_rate: float = 0.01
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _check("SGD", "learning_rate", self.learning_rate, 0.0, math.inf, low_open=True)
        _check("SGD", "momentum", self.momentum, 0.0, 1.0)

    def init(self, params: Params) -> SGDState:
        """Return the state before the first update."""
        if not self.momentum:
            return SGDState({})
        return SGDState({name: array_namespace(p).zeros_like(p) for name, p in params.items()})

    def update(
        self,
        grads: Params,
        state: SGDState,
        params: Params,
        *,
        value: Array | None = None,
        value_and_grad: ValueAndGrad | None = None,
    ) -> tuple[Params, SGDState]:
        """Return new parameters and a new state."""
        velocity, step = {}, grads
        if self.momentum:
            step = {name: self.momentum * state.velocity[name] + g for name, g in grads.items()}
            velocity = step
        new = {name: p - self.learning_rate * step[name] for name, p in params.items()}
        return new, SGDState(velocity)


class AdamState(NamedTuple):
    """State of `Adam`: updates done, and running means of g (``m``) and of g**2 (``v``)."""

    step: int
    m: Params
    v: Params


@dataclass(frozen=True)
class Adam:
    """Adam: steps scaled by running means of the gradient and of its square.

    ::

        m = beta1 * m + (1 - beta1) * g          m_hat = m / (1 - beta1**t)
        v = beta2 * v + (1 - beta2) * g**2       v_hat = v / (1 - beta2**t)
        p = p - learning_rate * m_hat / (sqrt(v_hat) + eps)

    Parameters
    ----------
    learning_rate : float
        > 0.
    beta1, beta2 : float
        In [0, 1).
    eps : float
        > 0; added outside the square root.

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

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check("Adam", "learning_rate", self.learning_rate, 0.0, math.inf, low_open=True)
        _check("Adam", "beta1", self.beta1, 0.0, 1.0)
        _check("Adam", "beta2", self.beta2, 0.0, 1.0)
        _check("Adam", "eps", self.eps, 0.0, math.inf, low_open=True)

    def init(self, params: Params) -> AdamState:
        """Return the state before the first update."""
        zeros = {name: array_namespace(p).zeros_like(p) for name, p in params.items()}
        return AdamState(0, zeros, zeros)

    def update(
        self,
        grads: Params,
        state: AdamState,
        params: Params,
        *,
        value: Array | None = None,
        value_and_grad: ValueAndGrad | None = None,
    ) -> tuple[Params, AdamState]:
        """Return new parameters and a new state."""
        t = state.step + 1
        m = {k: self.beta1 * state.m[k] + (1.0 - self.beta1) * g for k, g in grads.items()}
        v = {k: self.beta2 * state.v[k] + (1.0 - self.beta2) * (g * g) for k, g in grads.items()}
        rate = self.learning_rate / (1.0 - self.beta1**t)
        root = math.sqrt(1.0 - self.beta2**t)
        new = {}
        for k, p in params.items():
            xp = array_namespace(p)
            new[k] = p - rate * m[k] / (xp.sqrt(v[k]) / root + self.eps)
        return new, AdamState(t, m, v)


def _check(
    owner: str, name: str, value: float, low: float, high: float, *, low_open: bool = False
) -> None:
    inside = (low < value if low_open else low <= value) and value < high
    if not inside:
        bounds = f"{'(' if low_open else '['}{low:g}, {high:g})"
        raise ValueError(f"{owner}: {name} must be in {bounds}, got {value!r}.")
