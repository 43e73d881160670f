"""Initial weights, drawn on the host so that every backend starts from the same numbers.

Draws are float64 from a seeded NumPy generator and are cast afterwards: a float32 run starts from
the rounded float64 weights, on every library and device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rnn_xp._checks import choice
from rnn_xp.cells.gates import Parameter
from rnn_xp.network.streams import Purpose, stream

__all__ = ["glorot_uniform", "initial_weights", "orthogonal"]

_FloatArray = NDArray[np.float64]


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, int]) -> _FloatArray:
    """Draw Glorot (Xavier) uniform weights: U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    They keep the variance of activations and of gradients about equal from layer to layer.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (int, int)
        (fan_out, fan_in): rows are outputs.

    Returns
    -------
    ndarray of float64

    References
    ----------
    .. [1] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward
           neural networks", AISTATS 2010.

    Examples
    --------
    >>> w = glorot_uniform(np.random.default_rng(0), (50, 1))
    >>> w.shape, bool(np.abs(w).max() < math.sqrt(6 / 51))
    ((50, 1), True)
    """
    limit = math.sqrt(6.0 / (shape[0] + shape[1]))
    return rng.uniform(-limit, limit, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, int]) -> _FloatArray:
    """Draw a random orthogonal matrix, uniform over the orthogonal group.

    As ``w_hh`` it neither shrinks nor stretches h, so gradients start neither vanishing nor
    exploding: every singular value is 1.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (int, int)
        Numbers of rows and columns, which are equal.

    Returns
    -------
    ndarray of float64

    References
    ----------
    .. [1] A. M. Saxe, J. L. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics
           of learning in deep linear neural networks", ICLR 2014.
    .. [2] F. Mezzadri, "How to generate random matrices from the classical compact groups",
           Notices of the AMS 54 (2007): the signs of R's diagonal make the draw uniform.

    Examples
    --------
    >>> q = orthogonal(np.random.default_rng(0), (4, 4))
    >>> bool(np.allclose(q @ q.T, np.eye(4)))
    True
    """
    q, r = np.linalg.qr(rng.standard_normal(shape))
    return np.asarray(q * np.sign(np.diagonal(r)))


def initial_weights(parameters: Mapping[str, Parameter], seed: int) -> dict[str, _FloatArray]:
    """Draw the initial values of parameters, in their order.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        Shapes and kinds of initial values, such as `rnn_xp.Network.parameters`.
    seed : int
        Seed >= 0. Equal seeds give equal numbers.

    Returns
    -------
    dict of str to ndarray of float64

    Examples
    --------
    >>> from rnn_xp.cells.gates import Parameter
    >>> weights = initial_weights({"w": Parameter((1, 50), "glorot"), "b": Parameter((1,))}, seed=0)
    >>> weights["w"].shape, weights["b"].tolist()
    ((1, 50), [0.0])
    >>> initial_weights({"b_h": Parameter((4,), (0.0, 1.0))}, seed=0)["b_h"].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    rng = stream(seed, Purpose.WEIGHTS)
    return {name: _draw(rng, parameter) for name, parameter in parameters.items()}


def _draw(rng: np.random.Generator, parameter: Parameter) -> _FloatArray:
    shape, initial, gates = parameter
    if not isinstance(initial, str):
        constants = np.repeat(np.asarray(initial, dtype=np.float64), shape[0] // len(initial))
        columns = constants.reshape(-1, *(1,) * (len(shape) - 1))
        return np.array(np.broadcast_to(columns, shape))
    rows = shape[0] // gates
    draw = choice("initial", initial, {"glorot": glorot_uniform, "orthogonal": orthogonal})
    return np.concatenate([draw(rng, (rows, shape[1])) for _ in range(gates)])
