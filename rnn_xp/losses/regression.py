"""Losses for numbers: squared error, absolute error, Huber loss, and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rnn_xp._typing import Array
from rnn_xp.backend import device_of
from rnn_xp.kernels.portable import sign
from rnn_xp.losses.entries import declare, enter

__all__ = ["Huber", "Pinball", "mae", "mse"]


def _mse_rows(pred: Array, target: Array, weight: Any, total: Any, jacobian: Array) -> Array:
    """Return sqrt(2 w / total) J."""
    xp, pred, _, mean = enter("mse", pred, target, weight, total)
    return xp.expand_dims(xp.sqrt(mean(2.0 * xp.ones_like(pred))), axis=-1) * jacobian


@declare(curvature_rows=_mse_rows)
def mse(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Return the mean squared error and its gradient.

    ::

        value = sum(w * (pred - target)**2) / total
        dpred = 2 * w * (pred - target) / total

    Parameters
    ----------
    pred, target : Array (N, O) or (N, T, O)
        Same shape; nothing is broadcast.
    weight : Array (N,) or (N, T), optional
        One weight per sample, used at all steps of a sequence, or one weight per step.
    total : float or Array (), optional
        Weight to divide by; `total_weight` of these rows by default.

    Returns
    -------
    value : Array ()
    dpred : Array, shape of pred
        d value / d pred.

    Raises
    ------
    ValueError, TypeError
        If a shape is not as above, or if the arrays differ in library or floating dtype.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = mse(np.asarray([[1.0], [3.0]]), np.asarray([[0.0], [3.0]]))
    >>> float(value), dpred.tolist()
    (0.5, [[1.0], [0.0]])
    """
    xp, pred, target, mean = enter("mse", pred, target, weight, total)
    error = pred - target
    dpred = mean(2.0 * error)
    return xp.sum(dpred * (0.5 * error)), dpred


def mae(
    pred: Array, target: Array, weight: Array | None = None, total: Any = None
) -> tuple[Array, Array]:
    """Return the mean absolute error and its subgradient, which is 0 where the error is 0.

    ::

        value = sum(w * abs(pred - target)) / total
        dpred = w * sign(pred - target) / total

    Parameters, results and errors are as for `mse`.

    Examples
    --------
    >>> import numpy as np
    >>> value, dpred = mae(np.asarray([[1.0], [3.0]]), np.asarray([[5.0], [3.0]]))
    >>> float(value), dpred.tolist()
    (2.0, [[-0.5], [0.0]])
    """
    xp, pred, target, mean = enter("mae", pred, target, weight, total)
    error = pred - target
    dpred = mean(sign(xp.real(error), xp=xp))
    return xp.sum(dpred * error), dpred


@dataclass(frozen=True)
class Huber:
    """Huber loss: squared for small errors, absolute for large ones, so that outliers count less.

    With e = pred - target, and d = delta::

        value = sum(w * l) / total        l = e**2 / 2 if abs(e) <= d, else d * (abs(e) - d / 2)
        dpred = w * clip(e, -d, d) / total

    Parameters
    ----------
    delta : float
        Error, in units of the target and > 0, above which the loss grows linearly.

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
        """Return value and dpred; parameters and errors are as for `mse`."""
        xp, pred, target, mean = enter("Huber", pred, target, weight, total)
        error = pred - target
        real = xp.real(error)
        slope = xp.where(xp.abs(real) <= self.delta, error, self.delta * sign(real, xp=xp))
        dpred = mean(slope)
        return xp.sum(dpred * (error - 0.5 * slope)), dpred


@dataclass(frozen=True)
class Pinball:
    """Pinball loss: each output column learns a quantile of the target's distribution.

    With q the quantile of the column; the subgradient is 0 where pred = target::

        value = sum(w * l) / total        l = max(q * (target - pred), (1 - q) * (pred - target))
        dpred = w * (-q if pred < target, else 1 - q) / total

    Parameters
    ----------
    quantiles : sequence of float
        Between 0 and 1, one per output column. The target has the same number of columns; for
        several quantiles of one quantity they are equal.

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
        """Return value and dpred; parameters and errors are as for `mse`."""
        xp, pred, target, mean = enter("Pinball", pred, target, weight, total)
        if pred.shape[-1] != len(self.quantiles):
            raise ValueError(
                f"Pinball: pred and target must have a column for each of the quantiles "
                f"{self.quantiles}, got {pred.shape[-1]}. Set the network's output_size."
            )
        error = pred - target
        real = xp.real(error)
        place = device_of(pred)
        columns = xp.arange(pred.shape[-1], dtype=xp.int32, device=place)
        q = xp.zeros(columns.shape, dtype=real.dtype, device=place)
        for k, quantile in enumerate(self.quantiles):  # numbers are arguments of calls: no transfer
            q = xp.where(columns == k, quantile, q)
        dpred = mean(sign(real, xp=xp) * xp.where(real > 0, 1.0 - q, q))
        return xp.sum(dpred * error), dpred
