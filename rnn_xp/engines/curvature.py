"""The Gauss-Newton matrix of a block of rows, from each sample's own gradients."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

from rnn_xp._typing import Array, Loss, Namespace, Params
from rnn_xp.engines.blocks import Batch
from rnn_xp.losses import curvature_rows
from rnn_xp.network import Network

__all__ = ["curvature_of_rows"]

_ENTRIES = 2**22  # numbers of the Jacobian that are in memory at once: 32 MiB in float64


def curvature_of_rows(
    net: Network,
    params: Params,
    rows: Batch,
    loss: Loss,
    weight: Array | None,
    total: Any,
    *,
    xp: Namespace,
) -> Array:
    """Return the sum over some rows of J^T L J.

    The rows are taken a few at a time, so that their Jacobian stays small. How many is fixed by
    the sizes alone, and is part of the definition of the result.

    Parameters
    ----------
    net : Network
    params : Params
    rows : Batch
    loss : callable
        A loss that declares its ``curvature_rows``.
    weight : Array, optional
        Weights of the losses.
    total : float or Array ()
        Total weight of all rows of the update.

    Returns
    -------
    Array (P, P)
        J = d pred / d params, the parameters sorted by name; L = d2 loss / d pred**2.
    """
    weigh: Any = curvature_rows(loss)
    steps = rows.y.shape[1] if net.topology == "one_to_many" else None

    def product(start: int, stop: int) -> Array:
        """Return J^T L J of rows whose Jacobian fits the memory."""
        part = rows.rows(start, stop)
        mine = None if weight is None else weight[start:stop, ...]
        pred, _ = net.forward(params, part.x, steps=steps, **part.options)
        jacobian = net.jacobian(params, part.x, steps=steps, **part.options)
        lead = tuple(pred.shape)
        columns = []
        for name in sorted(jacobian):
            terms = xp.reshape(jacobian.pop(name), (*lead, -1))
            weighed = weigh(pred, part.y, mine, total, terms)
            columns.append(xp.reshape(weighed, (math.prod(lead), -1)))
        joined = xp.concat(columns, axis=1)
        # The product of a matrix with its own transpose: NumPy computes half of it (BLAS syrk).
        return xp.matmul(xp.matrix_transpose(joined), joined)

    outputs = net.output_size * (1 if net.topology == "many_to_one" else rows.y.shape[1])
    few, count = max(1, _ENTRIES // (outputs * net.num_parameters)), rows.x.shape[0]
    products = (product(start, min(start + few, count)) for start in range(0, count, few))
    return functools.reduce(operator.add, products)  # no more than two matrices at a time
