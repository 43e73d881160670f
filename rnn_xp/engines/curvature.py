"""The Gauss-Newton matrix over all rows, from each sample's own gradients.

J = d pred / d params, the parameters sorted by name; L = d2 loss / d pred**2; A = sum of J^T L J.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from rnn_xp._typing import Array, Loss, Namespace, Params
from rnn_xp.backend import Backend, device_of
from rnn_xp.engines.blocks import Batch, Blocks, weights_of
from rnn_xp.engines.evaluations import ValueAndGrads
from rnn_xp.losses import curvature_rows
from rnn_xp.network import Network

__all__ = ["GaussNewton"]

_ENTRIES = 2**22  # numbers of the Jacobian that are in memory at once: 32 MiB in float64


@dataclass(frozen=True)
class GaussNewton:
    """The second derivatives that optimisers are given, see `rnn_xp._typing.Objective`.

    Parameters
    ----------
    net : Network
    loss : callable
        A loss that declares its ``curvature_rows``; `product` needs none.
    backend : Backend
    blocks : Blocks
        The rows to train on.
    number_of_blocks : int
        Number of blocks over all ranks.
    total : float or Array ()
        Total weight of all rows.
    sum : callable
        ``sum(block, blocks, like, add)`` adds the results of ``block(number)``, a loss and a dict
        of arrays as in ``like``, with the same bits on any number of threads and ranks.
    map : callable
        ``map(block, numbers)`` computes blocks of this rank, in order.
    """

    net: Network
    loss: Loss
    backend: Backend
    blocks: Blocks
    number_of_blocks: int
    total: Any
    sum: Callable[..., ValueAndGrads]
    map: Callable[[Callable[[int], Array], range], Iterable[Array]]

    def matrix(self, params: Params) -> Array:
        """Return A (P, P) over all rows.

        The rows of a block are taken a few at a time, so that their Jacobian stays small. How many
        is fixed by the sizes alone, and is part of the definition of the result.
        """
        xp = self.backend.xp
        few = max(1, _ENTRIES // (self._outputs * self._size))
        spare: list[Array] = []  # added to another; new memory takes as long as many sums

        def square(factor: Array) -> Array:
            # A matrix's product with its own transpose: NumPy computes half of it (BLAS syrk).
            out = {"out": spare.pop()} if spare else {}
            return xp.matmul(xp.matrix_transpose(factor), factor, **out)

        def add(a: Array, b: Array) -> Array:
            a += b  # a new array where the library has no other way
            if self.backend.name == "numpy":
                spare.append(b)
            return a

        def block(number: int) -> ValueAndGrads:  # no more than two matrices at a time
            rows = self.blocks[number]
            factors = (
                self._factor(params, rows.rows(start, start + few), self.total)
                for start in range(0, rows.x.shape[0], few)
            )
            return self._zeros(), {"A": functools.reduce(add, map(square, factors))}

        def add_sums(a: ValueAndGrads, b: ValueAndGrads) -> ValueAndGrads:
            return a[0] + b[0], {"A": add(a[1]["A"], b[1]["A"])}

        like = {"A": self._zeros(self._size, self._size)}
        return self.sum(block, self.blocks, like, add_sums)[1]["A"]

    def factor(self, params: Params, every: int, first: int) -> Array:
        """Return R (n, P), so that R^T R estimates A from the rows first::every of each block.

        Blocks with fewer rows are filled up with zeros, so that any number of ranks gives the same
        bits.
        """
        xp = self.backend.xp
        total = self.total / every
        each, count = -(-self.blocks.block_rows // every) * self._outputs, self.number_of_blocks

        def block(number: int) -> Array:
            factor = self._factor(params, self.blocks[number].every(every, first), total)
            return xp.concat([factor, self._zeros(each - factor.shape[0], self._size)], axis=0)

        if self.blocks.shares is None:
            return xp.concat(list(self.map(block, self.blocks.own)), axis=0)

        def among_zeros(number: int) -> ValueAndGrads:
            before, after = number * each, (count - number - 1) * each
            parts = [self._zeros(before, self._size), block(number), self._zeros(after, self._size)]
            return self._zeros(), {"factor": xp.concat(parts, axis=0)}

        like = {"factor": self._zeros(count * each, self._size)}
        return self.sum(among_zeros, self.blocks, like)[1]["factor"]

    def product(self, params: Params, vector: Params) -> Params:
        """Return A times a vector, without A."""

        def block(number: int) -> ValueAndGrads:
            rows = self.blocks[number]
            product = self.net.gnvp(
                params, rows.x, rows.y, vector, self.loss, rows.sample_weight, total=self.total,
                **rows.options,
            )  # fmt: skip
            return self._zeros(), product

        return self.sum(block, self.blocks, params)[1]

    def _factor(self, params: Params, rows: Batch, total: Any) -> Array:
        """Return F (rows * outputs, P) of some rows, so that F^T F is their J^T L J."""
        xp = self.backend.xp
        net, weigh = self.net, cast("Any", curvature_rows(self.loss))  # fit refuses others
        if not rows.x.shape[0]:
            return self._zeros(0, self._size)
        weight = weights_of(net, rows, self.backend)
        steps = rows.y.shape[1] if net.topology == "one_to_many" else None
        pred, _, back = net.vjp(params, rows.x, steps=steps, per_sample=True, **rows.options)
        units = xp.eye(pred.shape[-1], dtype=pred.dtype, device=self.backend.device)
        # The loss turns rows of J into rows of F; of unit rows, it makes the derivatives by pred
        # that back-propagate to rows of F.
        units = units + xp.zeros_like(pred)[..., None]
        shares = weigh(pred, rows.y, weight, total, units)
        factor = []
        for dpred in _one_row_at_a_time(shares, xp=xp):
            grads = back(dpred)
            parts = [xp.reshape(grads[name], (pred.shape[0], -1)) for name in sorted(params)]
            factor.append(xp.concat(parts, axis=1))
        return xp.concat(factor, axis=0) if len(factor) > 1 else factor[0]

    @property
    def _size(self) -> int:
        return self.net.num_parameters

    @property
    def _outputs(self) -> int:
        """Number of predictions of one row."""
        net = self.net
        return net.output_size * (
            1 if net.topology == "many_to_one" else self.blocks.batch.y.shape[1]
        )

    def _zeros(self, *shape: int) -> Array:
        backend = self.backend
        return backend.xp.zeros(shape, dtype=backend.dtype, device=backend.device)


def _one_row_at_a_time(shares: Array, *, xp: Namespace) -> Iterator[Array]:
    """Yield shares[..., k, :] for every output k and, where every step is read, for every step."""
    for k in range(shares.shape[-1]):
        if len(shares.shape) == 3:
            yield shares[:, k, :]
            continue
        steps = xp.arange(shares.shape[1], device=device_of(shares))
        for step in range(shares.shape[1]):
            here = xp.astype(steps == step, shares.dtype)
            yield shares[:, :, k, :] * here[None, :, None]
