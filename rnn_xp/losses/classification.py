"""Losses for classes: cross-entropy, and binary cross-entropy entry by entry."""

from __future__ import annotations

import math
from typing import Any

from rnn_xp._typing import Array
from rnn_xp.backend import device_of
from rnn_xp.losses.entries import declare, enter

__all__ = ["binary_cross_entropy", "cross_entropy"]


def _cross_entropy_rows(
    pred: Array, target: Array, weight: Any, total: Any, jacobian: Array
) -> Array:
    """Return sqrt(w p / total) (J - sum_k p_k J_k): L = w (diag(p) - p p^T) / total."""
    xp, pred, _, mean = enter("cross_entropy", pred, target, weight, total, classes=True)
    power = xp.exp(pred - xp.max(pred, axis=-1, keepdims=True))
    p = xp.expand_dims(power / xp.sum(power, axis=-1, keepdims=True), axis=-1)
    centred = jacobian - xp.sum(p * jacobian, axis=-2, keepdims=True)
    return xp.sqrt(p * xp.expand_dims(mean(xp.ones_like(pred)), axis=-1)) * centred


@declare(takes_classes=True, takes_logits=True, curvature_rows=_cross_entropy_rows)
def cross_entropy(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Return the cross-entropy of softmax(pred) against classes, and its gradient.

    ::

        p = exp(pred) / sum(exp(pred))                      over the last axis, the C classes
        value = -sum(w * log(p[target])) / total
        dpred = w * (p - (1 at the target, else 0)) / total

    Weight, total, results and errors are as for `mse`.

    Parameters
    ----------
    pred : Array (N, C) or (N, T, C)
        Logits of any size, C >= 2.
    target : Array (N,) or (N, T)
        Integers 0..C-1; another dtype is a TypeError. A class outside this range gives NaN, unless
        its weight is 0.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern recognition and machine learning", Springer 2006, 4.3.4.
    .. [2] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and
           softmax functions", IMA Journal of Numerical Analysis 41 (2021), 2311-2330.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = cross_entropy(np.asarray([[7.0, 7.0]]), np.asarray([1]))
    >>> round(float(value), 6), dpred.tolist()
    (0.693147, [[0.5, -0.5]])
    """
    xp, pred, target, mean = enter("cross_entropy", pred, target, weight, total, classes=True)
    # int32 holds any number of classes; the target's own dtype, such as int8, may not.
    classes = xp.arange(pred.shape[-1], dtype=xp.int32, device=device_of(pred))
    chosen = xp.astype(target, xp.int32) == classes
    shifted = pred - xp.max(xp.real(pred), axis=-1, keepdims=True)
    power = xp.exp(shifted)
    norm = xp.sum(power, axis=-1, keepdims=True)
    # To raise for an unknown class the host would have to wait; so it gives NaN, never a number.
    known = xp.any(chosen, axis=-1, keepdims=True)
    norm = xp.where(known, norm, xp.full_like(norm, math.nan))
    at_target = xp.sum(xp.where(chosen, shifted, xp.zeros_like(pred)), axis=-1, keepdims=True)
    value = xp.sum(mean(xp.log(norm) - at_target))
    return value, mean(power / norm - xp.astype(chosen, pred.dtype))


def _binary_rows(pred: Array, target: Array, weight: Any, total: Any, jacobian: Array) -> Array:
    """Return sqrt(w p (1 - p) / total) J."""
    xp, pred, _, mean = enter("binary_cross_entropy", pred, target, weight, total)
    power = xp.exp(-xp.abs(pred))
    root = xp.sqrt(mean(power)) / (1.0 + power)  # p (1 - p) = power / (1 + power)**2
    return xp.expand_dims(root, axis=-1) * jacobian


@declare(takes_logits=True, targets=(0.0, 1.0), curvature_rows=_binary_rows)
def binary_cross_entropy(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Return the cross-entropy of sigmoid(pred) against probabilities, and its gradient.

    ::

        p = 1 / (1 + exp(-pred))
        value = -sum(w * (target * log(p) + (1 - target) * log(1 - p))) / total
        dpred = w * (p - target) / total

    The loss is computed entry by entry. Parameters, results and errors are as for `mse`; ``pred``
    are logits of any size, and ``target`` lies between 0 and 1 in the floating dtype of ``pred``;
    `rnn_xp.fit` refuses targets outside.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern recognition and machine learning", Springer 2006, 4.3.2.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = binary_cross_entropy(np.asarray([[0.0]]), np.asarray([[1.0]]))
    >>> round(float(value), 6), dpred.tolist()
    (0.693147, [[-0.5]])
    """
    xp, pred, target, mean = enter("binary_cross_entropy", pred, target, weight, total)
    # With s = 1 for pred > 0, else 0: l = (s - target) * pred + log(1 + exp(-abs(pred))) and
    # p = s -+ exp(-abs(pred)) / (1 + exp(-abs(pred))). Nothing overflows, nothing cancels.
    positive = xp.real(pred) > 0
    gap = xp.where(positive, 1.0 - target, -target)
    power = xp.exp(xp.where(positive, -pred, pred))
    tail = power / (1.0 + power)
    value = xp.sum(mean(gap * pred + xp.log1p(power)))
    return value, mean(gap + xp.where(positive, -tail, tail))
