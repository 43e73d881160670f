"""Losses: the value and, in the same function, its gradient with respect to the prediction.

Every loss has the signature ``(pred, target, weight=None, total=None) -> (value, dpred)`` with::

    value = sum(w * l) / total        dpred = w * dl/dpred / total

``total`` is the weight of *all* counted entries. Whoever cuts a batch into blocks computes it once
over all rows and passes it to each block; then the blocks' values and gradients simply add up to
those of the whole batch, and a ragged last block is right without further thought.

Shapes must match exactly. Nothing is broadcast, because (N, 1) against (N,) would quietly become
(N, N).
"""

from __future__ import annotations

import math
from typing import Any

from rnn_xp._typing import Array
from rnn_xp.backend import array_namespace

__all__ = ["mse", "total_weight"]


def total_weight(target: Array, weight: Array | None = None) -> Any:
    """Weight of all counted entries: what a mean over them divides by.

    Parameters
    ----------
    target : Array
        (N, O), or any shape.
    weight : Array (N,), optional
        One weight per sample; without it every entry counts 1.

    Returns
    -------
    float or Array ()
        ``target.size`` without weights, otherwise the sum of the weights times the number of
        target entries that each weight covers.

    Examples
    --------
    >>> import numpy as np
    >>> total_weight(np.zeros((8317, 1)))
    8317.0
    >>> float(total_weight(np.zeros((3, 2)), np.asarray([1.0, 0.0, 0.5])))
    3.0
    """
    size = float(math.prod(target.shape))
    if weight is None:
        return size
    return array_namespace(weight).sum(weight) * (size / math.prod(weight.shape))


def mse(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Mean squared error and its gradient.

    ::

        value = sum(w * (pred - target)**2) / total
        dpred = 2 * w * (pred - target) / total

    Parameters
    ----------
    pred, target : Array (N, O)
        Same shape; nothing is broadcast.
    weight : Array (N,), optional
        One weight per sample.
    total : float or Array (), optional
        See `total_weight`, the default.

    Returns
    -------
    value : Array ()
    dpred : Array (N, O)
        d value / d pred.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = mse(np.asarray([[1.0], [3.0]]), np.asarray([[0.0], [3.0]]))
    >>> float(value), dpred.tolist()
    (0.5, [[1.0], [0.0]])
    """
    _check_shapes("mse", pred, target, weight)
    xp = array_namespace(pred, target, weight)
    if total is None:
        total = total_weight(target, weight)
    error = pred - target
    # Divide before summing: `total` may count far more rows than this block has.
    scaled = error / total if weight is None else error * xp.reshape(weight, (-1, 1)) / total
    # error * error, not abs(error)**2: the complex-step test needs an analytic function.
    return xp.sum(error * scaled), 2.0 * scaled


def _check_shapes(name: str, pred: Array, target: Array, weight: Array | None) -> None:
    if pred.shape != target.shape:
        raise ValueError(
            f"{name}: pred {pred.shape} and target {target.shape} must have the same shape. "
            "Targets are (N, O); for one output give y[:, None]."
        )
    if weight is not None and weight.shape != pred.shape[:1]:
        raise ValueError(
            f"{name}: sample_weight must have shape {pred.shape[:1]}, one weight per sample, "
            f"got {weight.shape}."
        )
