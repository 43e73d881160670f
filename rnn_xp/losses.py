"""Losses: the value and, in the same function, its gradient with respect to the prediction.

Every loss has the signature ``(pred, target, weight=None, total=None) -> (value, dpred)`` with::

    value = sum(w * l) / total        dpred = w * dl/dpred / total

where l is the loss of one entry: of one number of the target or, for `cross_entropy`, of one class.
``total`` is the weight of *all* counted entries. Whoever cuts a batch into blocks computes it once
over all rows and passes it to each block; then the blocks' values and gradients simply add up to
those of the whole batch, and a ragged last block is right without further thought.

A weight of exactly 0 hides an entry: whatever stands there, a class such as -1 or a NaN, reaches
neither value nor gradient. If all weights are 0, so are both of them.

Shapes must match exactly. Nothing is broadcast, because (N, 1) against (N,) would quietly become
(N, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rnn_xp._typing import Array, Loss, Namespace
from rnn_xp.backend import array_namespace, device_of, float_dtype
from rnn_xp.kernels.portable import sign

__all__ = [
    "Huber",
    "Pinball",
    "binary_cross_entropy",
    "cross_entropy",
    "mae",
    "mse",
    "takes_logits",
    "total_weight",
]


def mse(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Mean squared error and its gradient.

    ::

        value = sum(w * (pred - target)**2) / total
        dpred = 2 * w * (pred - target) / total

    Parameters
    ----------
    pred, target : Array (N, O) or (N, T, O)
        Same shape; nothing is broadcast.
    weight : Array (N,) or (N, T), optional
        One weight per sample, which for sequences holds at all its steps, or one per step.
    total : float or Array (), optional
        See `total_weight`, the default.

    Returns
    -------
    value : Array ()
    dpred : Array, shape of pred
        d value / d pred.

    Raises
    ------
    ValueError, TypeError
        If a shape is not as above; if the arrays differ in library or floating dtype.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = mse(np.asarray([[1.0], [3.0]]), np.asarray([[0.0], [3.0]]))
    >>> float(value), dpred.tolist()
    (0.5, [[1.0], [0.0]])
    """
    xp, pred, target, share = _enter("mse", pred, target, weight, total)
    error = pred - target
    dpred = share(2.0 * error)
    return xp.sum(dpred * (0.5 * error)), dpred


def mae(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Mean absolute error and its subgradient, 0 where the error is 0.

    ::

        value = sum(w * abs(pred - target)) / total
        dpred = w * sign(pred - target) / total

    Parameters, results and errors are those of `mse`.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = mae(np.asarray([[1.0], [3.0]]), np.asarray([[5.0], [3.0]]))
    >>> float(value), dpred.tolist()
    (2.0, [[-0.5], [0.0]])
    """
    xp, pred, target, share = _enter("mae", pred, target, weight, total)
    error = pred - target
    dpred = share(sign(xp.real(error), xp=xp))
    return xp.sum(dpred * error), dpred


@dataclass(frozen=True)
class Huber:
    """Huber loss: squared for small errors, absolute for large ones, which so count for less.

    With e = pred - target, and d = delta::

        value = sum(w * l) / total        l = e**2 / 2 if abs(e) <= d, else d * (abs(e) - d / 2)
        dpred = w * clip(e, -d, d) / total

    Parameters
    ----------
    delta : float
        > 0: the error, in units of the target, from which the loss grows linearly.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical
           Statistics 35 (1964), 73-101.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = Huber(1.0)(np.asarray([[1.0], [3.0]]), np.asarray([[0.5], [0.0]]))
    >>> float(value), dpred.tolist()
    (1.3125, [[0.25], [0.5]])
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < math.inf:
            raise ValueError(f"Huber: delta must be a finite number > 0, got {self.delta!r}.")
        object.__setattr__(self, "delta", float(self.delta))

    def __call__(
        self, pred: Array, target: Array, weight: Array | None = None, total: Any = None
    ) -> tuple[Array, Array]:
        """Return value and dpred; parameters and errors are those of `mse`."""
        xp, pred, target, share = _enter("Huber", pred, target, weight, total)
        error = pred - target
        real = xp.real(error)
        slope = xp.where(xp.abs(real) <= self.delta, error, self.delta * sign(real, xp=xp))
        dpred = share(slope)
        return xp.sum(dpred * (error - 0.5 * slope)), dpred


@dataclass(frozen=True)
class Pinball:
    """Pinball loss: each output column learns a quantile of the target's distribution.

    With q the column's quantile, and the subgradient 0 where pred = target::

        value = sum(w * l) / total        l = max(q * (target - pred), (1 - q) * (pred - target))
        dpred = w * (-q if pred < target, else 1 - q) / total

    Parameters
    ----------
    quantiles : sequence of float
        Between 0 and 1, one per output column. The target has as many columns, all alike where
        the quantiles are those of one quantity.

    References
    ----------
    .. [1] R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46 (1978), 33-50.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = Pinball((0.25, 0.75))(np.asarray([[1.0, 4.0]]), np.asarray([[2.0, 2.0]]))
    >>> float(value), dpred.tolist()
    (0.375, [[-0.125, 0.125]])
    """

    quantiles: Sequence[float]

    def __post_init__(self) -> None:
        quantiles = tuple(self.quantiles) if isinstance(self.quantiles, Sequence) else ()
        if not quantiles or not all(0.0 < q < 1.0 for q in quantiles):
            raise ValueError(
                "Pinball: quantiles must be a sequence of numbers between 0 and 1, one per output "
                f"column, such as (0.1, 0.5, 0.9); got {self.quantiles!r}."
            )
        object.__setattr__(self, "quantiles", tuple(map(float, quantiles)))

    def __call__(
        self, pred: Array, target: Array, weight: Array | None = None, total: Any = None
    ) -> tuple[Array, Array]:
        """Return value and dpred; parameters and errors are those of `mse`."""
        xp, pred, target, share = _enter("Pinball", pred, target, weight, total)
        if pred.shape[-1] != len(self.quantiles):
            raise ValueError(
                f"Pinball: pred and target must have a column for each of the quantiles "
                f"{self.quantiles}, got {pred.shape[-1]}. Set the network's output_size."
            )
        error = pred - target
        real = xp.real(error)
        q = xp.asarray(self.quantiles, dtype=real.dtype, device=device_of(pred))
        dpred = share(sign(real, xp=xp) * xp.where(real > 0, 1.0 - q, q))
        return xp.sum(dpred * error), dpred


def cross_entropy(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Cross-entropy of softmax(pred) against classes, and its gradient.

    ::

        p = exp(pred) / sum(exp(pred))                      over the last axis, the C classes
        value = -sum(w * log(p[target])) / total
        dpred = w * (p - (1 at the target, else 0)) / total

    Weight, total, results and errors are those of `mse`.

    Parameters
    ----------
    pred : Array (N, C) or (N, T, C)
        Logits of any size, C >= 2.
    target : Array (N,) or (N, T)
        Integers 0..C-1, else TypeError. Another class gives NaN, unless its weight is 0.

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
    xp, pred, target, share = _enter("cross_entropy", pred, target, weight, total, classes=True)
    # int32 holds any number of classes, which the target's own type, such as int8, may not.
    classes = xp.arange(pred.shape[-1], dtype=xp.int32, device=device_of(pred))
    chosen = xp.astype(target, xp.int32) == classes
    shifted = pred - xp.max(xp.real(pred), axis=-1, keepdims=True)
    power = xp.exp(shifted)
    norm = xp.sum(power, axis=-1, keepdims=True)
    # An unknown class cannot raise without a read by the host; but it must not pass for a number.
    known = xp.any(chosen, axis=-1, keepdims=True)
    norm = xp.where(known, norm, xp.full_like(norm, math.nan))
    at_target = xp.sum(xp.where(chosen, shifted, xp.zeros_like(pred)), axis=-1, keepdims=True)
    value = xp.sum(share(xp.log(norm) - at_target))
    return value, share(power / norm - xp.astype(chosen, pred.dtype))


def binary_cross_entropy(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Cross-entropy of sigmoid(pred) against probabilities, entry by entry, and its gradient.

    ::

        p = 1 / (1 + exp(-pred))
        value = -sum(w * (target * log(p) + (1 - target) * log(1 - p))) / total
        dpred = w * (p - target) / total

    Parameters, results and errors are those of `mse`; ``pred`` are logits of any size and
    ``target`` lies between 0 and 1, in pred's floating dtype.

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
    xp, pred, target, share = _enter("binary_cross_entropy", pred, target, weight, total)
    # With s = 1 for pred > 0, else 0: l = (s - target) * pred + log(1 + exp(-abs(pred))) and
    # p = s -+ exp(-abs(pred)) / (1 + exp(-abs(pred))). Nothing overflows, nothing cancels.
    positive = xp.real(pred) > 0
    gap = xp.where(positive, 1.0 - target, -target)
    power = xp.exp(xp.where(positive, -pred, pred))
    tail = power / (1.0 + power)
    value = xp.sum(share(gap * pred + xp.log1p(power)))
    return value, share(gap + xp.where(positive, -tail, tail))


def total_weight(target: Array, weight: Array | None = None) -> Any:
    """Weight of all counted entries: what a mean over them divides by.

    Parameters
    ----------
    target, weight : as for any of the losses

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
    covered = tuple(target.shape)[0 if weight is None else len(weight.shape) :]
    size = float(math.prod(covered))
    return size if weight is None else array_namespace(weight).sum(weight) * size


def takes_logits(loss: Loss) -> bool:
    """Tell whether a loss applies softmax or sigmoid itself, so that the network must not.

    >>> takes_logits(cross_entropy), takes_logits(mse)
    (True, False)
    """
    return loss in (cross_entropy, binary_cross_entropy)


def _enter(
    name: str, pred: Array, target: Array, weight: Array | None, total: Any, classes: bool = False
) -> tuple[Namespace, Array, Array, Callable[[Array], Array]]:
    """Check shapes and dtypes; hide what has weight 0; return xp, pred, target, a -> a * w / total.

    Classes become (N, 1) or (N, T, 1), so that every array has the axes of pred.
    """
    xp = array_namespace(pred, target, weight)
    _check_shapes(name, pred, target, weight, classes)
    if classes and not xp.isdtype(target.dtype, "integral"):
        raise TypeError(
            f"{name}: target must be class indices of an integer dtype, got {target.dtype}. Whole "
            "numbers of another dtype can be given as xp.astype(target, xp.int64)."
        )
    if not xp.isdtype(pred.dtype, "complex floating"):  # the complex step shifts nothing but pred
        float_dtype(pred=pred, target=None if classes else target, sample_weight=weight)
    total = total_weight(target, weight) if total is None else total
    target = xp.expand_dims(target, axis=-1) if classes else target
    if weight is None:
        return xp, pred, target, lambda a: a / total
    ones = (1,) * (len(pred.shape) - len(weight.shape))
    weight = xp.reshape(weight, (*weight.shape, *ones))
    # Hidden on the way in, not in the result: 0 * nan is nan. And 0 / 0 is to be 0.
    counts = weight != 0
    pred = xp.where(counts, pred, xp.zeros_like(pred))
    target = xp.where(counts, target, xp.zeros_like(target))
    if hasattr(total, "dtype"):
        total = xp.where(total != 0, total, xp.ones_like(total))
    return xp, pred, target, lambda a: a * weight / total


def _check_shapes(
    name: str, pred: Array, target: Array, weight: Array | None, classes: bool
) -> None:
    shape, given = tuple(pred.shape), tuple(target.shape)
    lead = shape[:-1]
    if given != (lead if classes else shape):
        rule, hint = "have the same shape", "one output give y[..., None]"
        if classes:
            rule = f"be logits and their classes, of shape {lead}"
            hint = "one-hot y give argmax(y, -1), for (N, 1) y[:, 0]"
        raise ValueError(
            f"{name}: pred {shape} and target {given} must {rule}. Nothing is squeezed or "
            f"broadcast; for {hint}."
        )
    if classes and shape[-1] < 2:
        raise ValueError(
            f"{name}: pred must have two or more columns, one per class, got {shape}. For a "
            "single logit use binary_cross_entropy."
        )
    if weight is not None and tuple(weight.shape) not in (lead, lead[:1]):
        steps = f", or {lead}, one per step" if lead[1:] else ""
        raise ValueError(
            f"{name}: sample_weight must have shape {lead[:1]}, one weight per sample{steps}; got "
            f"{tuple(weight.shape)}."
        )
