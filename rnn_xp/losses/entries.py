"""The common entry of all losses: check shapes and dtypes, hide entries of weight 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from rnn_xp._typing import Array, Namespace
from rnn_xp.backend import array_namespace, float_dtype
from rnn_xp.backend.arrays import require_arrays

__all__ = ["declare", "enter", "total_weight"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def declare(
    *,
    takes_classes: bool = False,
    takes_logits: bool = False,
    targets: tuple[float, float] | None = None,
    curvature_rows: Callable[..., Array] | None = None,
) -> Callable[[_Function], _Function]:
    """Declare a loss: a decorator that sets its attributes.

    Parameters
    ----------
    takes_classes : bool
        If True, the targets are class indices (N,) or (N, T); otherwise they have the shape of the
        prediction.
    takes_logits : bool
        If True, the loss applies softmax or sigmoid itself. A network whose output has an
        activation is then refused.
    targets : tuple of two floats, optional
        The smallest and the largest target that the loss has a meaning for, both included; either
        may be infinite. `rnn_xp.fit` refuses targets outside. By default all numbers are targets.
    curvature_rows : callable, optional
        ``curvature_rows(pred, target, weight, total, jacobian)`` gives rows R of the shape of
        ``jacobian``, which is (N, O, P) or (N, T, O, P), so that R^T R, summed over all rows, is
        J^T L J with L = d2 value / d pred**2. Optimisers such as
        `rnn_xp.optim.levenberg_marquardt` need it.

    Examples
    --------
    >>> @declare(takes_classes=True)
    ... def loss(pred, target, weight=None, total=None): ...
    >>> loss.takes_classes, loss.takes_logits
    (True, False)
    >>> @declare(targets=(0.0, math.inf))
    ... def poisson(pred, target, weight=None, total=None): ...
    >>> poisson.targets
    (0.0, inf)
    """

    def mark(loss: _Function) -> _Function:
        vars(loss).update(
            takes_classes=takes_classes, takes_logits=takes_logits, targets=targets,
            curvature_rows=curvature_rows,
        )  # fmt: skip
        return loss

    return mark


def total_weight(target: Array, weight: Array | None = None) -> Any:
    """Return the total weight of all counted entries, the divisor of a mean over them.

    Parameters
    ----------
    target, weight : Array
        As for `mse`; the target may also be class indices.

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
    require_arrays("loss", target=target)
    covered = tuple(target.shape)[0 if weight is None else len(weight.shape) :]
    size = float(math.prod(covered))
    return size if weight is None else array_namespace(weight).sum(weight) * size


def enter(
    name: str, pred: Array, target: Array, weight: Array | None, total: Any, classes: bool = False
) -> tuple[Namespace, Array, Array, Callable[[Array], Array]]:
    """Check the arguments of a loss, and hide the entries that have weight 0.

    Every loss starts with this call; a loss of your own should, too.

    Parameters
    ----------
    name : str
        Name of the loss, for messages.
    pred, target, weight, total
        The arguments of the loss, see `mse`.
    classes : bool
        If True, the targets are class indices.

    Returns
    -------
    xp : Namespace
    pred : Array
        Zero where the weight is 0.
    target : Array
        Zero where the weight is 0. Classes have the shape (N, 1) or (N, T, 1), so that all arrays
        have the same number of axes.
    mean : callable
        ``mean(a)`` is a * weight / total: each entry's part of the weighted mean.

    Raises
    ------
    ValueError, TypeError
        If a shape or dtype does not fit.
    """
    xp = require_arrays(name, pred=pred, target=target)
    if weight is not None:
        require_arrays(name, pred=pred, weight=weight)
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
    # Hidden in the arguments, not in the result: 0 * nan is nan. And 0 / 0 shall be 0.
    counts = weight != 0
    pred = xp.where(counts, pred, xp.zeros_like(pred))
    target = xp.where(counts, target, xp.zeros_like(target))
    if hasattr(total, "dtype"):
        total = xp.where(total != 0, total, xp.ones_like(total))
    return xp, pred, target, lambda a: a * weight / total


def _check_shapes(
    name: str, pred: Array, target: Array, weight: Array | None, classes: bool
) -> None:
    shape, target_shape = tuple(pred.shape), tuple(target.shape)
    lead = shape[:-1]
    if target_shape != (lead if classes else shape):
        rule, hint = "have the same shape", "one output give y[..., None]"
        if classes:
            rule = f"be logits and their classes, of shape {lead}"
            hint = "one-hot y give argmax(y, -1), for (N, 1) y[:, 0]"
        raise ValueError(
            f"{name}: pred {shape} and target {target_shape} must {rule}. Nothing is squeezed or "
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
