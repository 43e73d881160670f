"""Initial weights, drawn on the host so that every backend starts from the same numbers.

Draws are float64 from a seeded NumPy generator and are cast afterwards: a float32 run starts from
the rounded float64 weights, on every library and device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

__all__ = ["glorot_uniform", "initial_weights", "orthogonal"]

_FloatArray = NDArray[np.float64]


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, int]) -> _FloatArray:
    """Glorot (Xavier) uniform weights: U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Keeps the variance of activations and of gradients about equal from layer to layer.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (int, int)
        (fan_out, fan_in), rows are outputs.

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


def orthogonal(rng: np.random.Generator, size: int) -> _FloatArray:
    """Random orthogonal matrix, uniform over the orthogonal group.

    As ``w_hh`` it neither shrinks nor stretches h, so gradients start neither vanishing nor
    exploding: every singular value is 1.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int

    Returns
    -------
    ndarray of float64, (size, size)

    References
    ----------
    .. [1] A. M. Saxe, J. L. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics
           of learning in deep linear neural networks", ICLR 2014.
    .. [2] F. Mezzadri, "How to generate random matrices from the classical compact groups",
           Notices of the AMS 54 (2007): the signs of R's diagonal make the draw uniform.

    Examples
    --------
    >>> q = orthogonal(np.random.default_rng(0), 4)
    >>> bool(np.allclose(q @ q.T, np.eye(4)))
    True
    """
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return np.asarray(q * np.sign(np.diagonal(r)))


def initial_weights(
    shapes: dict[str, tuple[int, ...]],
    seed: int,
    constants: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> dict[str, _FloatArray]:
    """Draw every parameter of a network, in the order of ``shapes``.

    The last part of a name says what it is: ``w_hh`` is orthogonal, ``w_xh`` and ``w_hy`` are
    Glorot uniform, both gate by gate; ``w_xy``, the linear path, is zero; vectors are constant.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Such as ``{"layer0.w_xh": (50, 1), "layer0.w_hh": (50, 50), ...}``.
    seed : int
        Non-negative. Equal seeds give equal numbers.
    constants : mapping of str to sequence of float
        Values of vectors, one for each gate; 0 for those not named.

    Returns
    -------
    dict of str to ndarray of float64

    Examples
    --------
    >>> weights = initial_weights({"readout.w_hy": (1, 50), "readout.b_y": (1,)}, seed=0)
    >>> weights["readout.w_hy"].shape, weights["readout.b_y"].tolist()
    ((1, 50), [0.0])
    >>> initial_weights({"b_h": (4,)}, seed=0, constants={"b_h": (0.0, 1.0)})["b_h"].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, _FloatArray] = {}
    for name, shape in shapes.items():
        prefix, _, kind = name.rpartition(".")
        if len(shape) == 1:
            values = constants.get(name, (0.0,))
            weights[name] = np.repeat(np.asarray(values, dtype=np.float64), shape[0] // len(values))
            continue
        if kind == "w_xy":  # the network starts as the one without this path
            weights[name] = np.zeros(shape)
            continue
        recurrent = shapes.get(f"{prefix}.w_hh")
        gates = recurrent[0] // recurrent[1] if recurrent else 1
        rows, columns = shape[0] // gates, shape[1]
        weights[name] = np.concatenate(
            [
                orthogonal(rng, rows) if kind == "w_hh" else glorot_uniform(rng, (rows, columns))
                for _ in range(gates)
            ]
        )
    return weights
