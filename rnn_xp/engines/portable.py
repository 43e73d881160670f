"""The portable engine: an epoch as a fixed binary tree of sums over blocks of rows.

A gradient is a sum over samples, so the batch may be cut anywhere. Where it *is* cut, and the
order in which the blocks' gradients are added, are fixed here and are part of the result::

    rows      0..1039   1040..2079   2080..3119   ...
    gradients    g0          g1           g2          g3     ...
    tree         (g0 + g1)                (g2 + g3)          ...
                        ((g0 + g1) + (g2 + g3))              ...

Who computes a block is not: any number of threads gives the same bits.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from rnn_xp._typing import Array, Loss, Optimizer, Params
from rnn_xp.backend import Backend
from rnn_xp.losses import total_weight
from rnn_xp.network import Network

__all__ = ["PortableEngine", "default_block_rows", "on_accelerator", "tree_sum"]

_CPU_BLOCK_ROWS = 1040
_ACCELERATOR_BLOCK_ROWS = 65536

_T = TypeVar("_T")
_ValueAndGrads: TypeAlias = tuple[Array, Params]


def on_accelerator(backend: Backend) -> bool:
    """Whether the backend computes on a device where launches and host reads are dear."""
    return backend.device_name.startswith(("cuda", "gpu", "tpu", "mps"))


def default_block_rows(backend: Backend) -> int:
    """Rows of a block: 1040 on a CPU, 65,536 on an accelerator.

    On a CPU a block's arrays should stay in cache and there should be blocks for all threads;
    the 8317 rows of the reference workload make 8 of 1040. On an accelerator every further block
    repeats all kernel launches.
    """
    return _ACCELERATOR_BLOCK_ROWS if on_accelerator(backend) else _CPU_BLOCK_ROWS


def tree_sum(leaves: Iterable[_T], add: Callable[[_T, _T], _T]) -> _T:
    """Sum in the order of a fixed binary tree, holding only log2(n) partial sums.

    The tree over n leaves splits at the largest power of two below n, so the subtree over any
    aligned run of leaves does not depend on how many follow.

    Parameters
    ----------
    leaves : iterable
        In order of their index; at least one.
    add : callable

    Returns
    -------
    The sum.

    Examples
    --------
    >>> tree_sum("abcdefg", lambda a, b: f"({a}{b})")
    '(((ab)(cd))((ef)g))'
    """
    partial: list[tuple[int, _T]] = []  # (height, sum), heights strictly falling
    for leaf in leaves:
        height, total = 0, leaf
        while partial and partial[-1][0] == height:
            total = add(partial.pop()[1], total)
            height += 1
        partial.append((height, total))
    if not partial:
        raise ValueError("tree_sum needs at least one leaf.")
    total = partial.pop()[1]
    while partial:
        total = add(partial.pop()[1], total)
    return total


@dataclass
class PortableEngine:
    """Epochs of training on any backend.

    Parameters
    ----------
    net : Network
    loss : callable
    optimizer : Optimizer
    backend : Backend
        Where the data live.
    x : Array (N, T, I)
    y : Array (N, O)
    sample_weight : Array (N,) or None
    block_rows : int
        Rows of a block, part of the definition of the result.
    batches : callable
        ``batches(epoch)`` gives the epoch's minibatches as index arrays, or is None for the full
        batch.
    workers : int
        Threads; more than one only where several can work at once, which is NumPy.
    """

    net: Network
    loss: Loss
    optimizer: Optimizer
    backend: Backend
    x: Array
    y: Array
    sample_weight: Array | None
    block_rows: int
    batches: Callable[[int], Iterable[Any]] | None = None
    workers: int = 1
    evaluations: int = 0
    _pool: ThreadPoolExecutor | None = None
    _seen: list[tuple[Params, _ValueAndGrads]] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Keep the threads for the time of a fit."""
        if self.workers == 1:
            yield
            return
        with ThreadPoolExecutor(self.workers) as self._pool:
            try:
                yield
            finally:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def run(
        self, params: Params, opt_state: Any, epochs: int, first_epoch: int = 0
    ) -> tuple[Params, Any, Array]:
        """Train for some epochs without reading anything back to the host.

        Returns
        -------
        params : Params
        opt_state : optimiser state
        losses : Array (epochs,)
            Full batch: the loss before each update. Minibatches: each epoch's mean of the
            batches' losses, weighted by what they count.
        """
        losses = []
        for epoch in range(first_epoch, first_epoch + epochs):
            if self.batches is None:
                params, opt_state, value = self._full_batch(params, opt_state)
            else:
                params, opt_state, value = self._minibatches(params, opt_state, epoch)
            losses.append(value)
        return params, opt_state, self.backend.xp.stack(losses)

    def value_and_grad(self, params: Params) -> _ValueAndGrads:
        """Loss and gradient over all rows.

        L-BFGS ends each line search on parameters it has already evaluated and comes back with
        the same dict, so the latest results are kept and recognised by identity.
        """
        for seen, result in self._seen:
            if seen is params:
                return result
        result = self._evaluate(params, self.x, self.y, self.sample_weight)
        self._seen.append((params, result))
        return result

    def _full_batch(self, params: Params, opt_state: Any) -> tuple[Params, Any, Array]:
        self._seen = [entry for entry in self._seen if entry[0] is params]
        value, grads = self.value_and_grad(params)
        params, opt_state = self.optimizer.update(
            grads, opt_state, params, value=value, value_and_grad=self.value_and_grad
        )
        return params, opt_state, value

    def _minibatches(self, params: Params, opt_state: Any, epoch: int) -> tuple[Params, Any, Array]:
        xp, values, totals = self.backend.xp, [], []
        for rows in self.batches(epoch) if self.batches else ():
            index = self.backend.asarray(rows)
            x, y, weight = (
                None if a is None else xp.take(a, index, axis=0)
                for a in (self.x, self.y, self.sample_weight)
            )
            value, grads = self._evaluate(params, x, y, weight)
            params, opt_state = self.optimizer.update(grads, opt_state, params, value=value)
            total = total_weight(y, weight)
            values.append(value * total)
            totals.append(total)
        return params, opt_state, sum(values[1:], values[0]) / sum(totals[1:], totals[0])

    def _evaluate(self, params: Params, x: Array, y: Array, weight: Array | None) -> _ValueAndGrads:
        """Loss and gradient over the given rows, block by block."""
        self.evaluations += 1
        total = total_weight(y, weight)

        def block(start: int) -> _ValueAndGrads:
            rows = slice(start, min(start + self.block_rows, x.shape[0]))
            return self.net.value_and_grad(
                params,
                x[rows, ...],
                y[rows, ...],
                self.loss,
                None if weight is None else weight[rows],
                total=total,
            )

        starts = range(0, x.shape[0], self.block_rows)
        if self._pool is None:
            return tree_sum(map(block, starts), _add)
        # Threads work in the caller's context: NumPy keeps there what to do about overflow.
        contexts = [contextvars.copy_context() for _ in starts]
        parts: Iterable[_ValueAndGrads] = self._pool.map(
            lambda context, start: context.run(block, start), contexts, starts
        )
        return tree_sum(parts, _add)


def _add(a: _ValueAndGrads, b: _ValueAndGrads) -> _ValueAndGrads:
    return a[0] + b[0], {name: grad + b[1][name] for name, grad in a[1].items()}
