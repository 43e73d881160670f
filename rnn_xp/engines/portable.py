"""The portable engine: an epoch as a fixed binary tree of sums over blocks of rows.

A gradient is a sum over samples, so the batch may be cut anywhere. Where it *is* cut, and the
order in which the blocks' gradients are added, are fixed here and are part of the result::

    rows      0..1039   1040..2079   2080..3119   ...
    gradients    g0          g1           g2          g3     ...
    tree         (g0 + g1)                (g2 + g3)          ...
                        ((g0 + g1) + (g2 + g3))              ...

The result does not depend on who computes a block: any number of threads, and of ranks on other
machines, gives the same bits. Only the blocks in progress and a few gradients are in memory at
once, regardless of the number of rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rnn_xp._typing import Array, Loss, Params, Workspace
from rnn_xp.backend import Backend
from rnn_xp.distributed import Ranks, Shares, Subtree, fold, join, tree_sum
from rnn_xp.engines.blocks import Batch, Blocks, weights_of
from rnn_xp.engines.curvature import GaussNewton
from rnn_xp.engines.evaluations import Evaluations, FullBatch, ValueAndGrads, WeightedMean
from rnn_xp.engines.ranks import sum_of_ranks, weight_of_ranks
from rnn_xp.kernels import make_workspace
from rnn_xp.losses import total_weight
from rnn_xp.network import Network, sequence
from rnn_xp.network.passes import Carry
from rnn_xp.optim import Optimizer

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["PortableEngine"]

_T = TypeVar("_T")


def _add(a: ValueAndGrads, b: ValueAndGrads) -> ValueAndGrads:
    return a[0] + b[0], {name: grad + b[1][name] for name, grad in a[1].items()}


@dataclass
class PortableEngine:
    """Epochs of training on any backend.

    Parameters
    ----------
    net : Network
    loss : callable
    optimizer : Optimizer
    backend : Backend
        The library and device that hold the data.
    data : Batch
        The rows to train on.
    block_rows : int
        Number of rows of a block, which is part of the definition of the result.
    batches : callable, optional
        ``batches(epoch)`` gives the epoch's minibatches as index arrays. By default every update
        uses the full batch.
    truncate : (int, int), optional
        (k1, k2) for truncated backpropagation, with one update for each segment of the full batch.
    noise : callable, optional
        ``noise(step, block)`` gives the generator for the dropout of a block in an update. By
        default there is no dropout.
    workers : int
        Number of threads. More than one is useful on NumPy only.
    block_budget : int, optional
        Memory for the activations of a block; see `rnn_xp.Network.value_and_grad`.
    ranks : Ranks, optional
        The ranks that share the blocks; by default there is one.
    shares : callable, optional
        The blocks of each rank if ``data`` holds the rows of this rank only, which requires the
        full batch. By default ``data`` holds all rows.
    reason : str
        The reason why a faster engine is not used; empty if there is none.
    """

    name: ClassVar[str] = "portable"

    net: Network
    loss: Loss
    optimizer: Optimizer
    backend: Backend
    data: Batch
    block_rows: int
    batches: Callable[[int], Sequence[Any]] | None = None
    truncate: tuple[int, int] | None = None
    noise: Callable[[int, int], Any] | None = None
    workers: int = 1
    block_budget: int | None = None
    ranks: Ranks | None = None
    shares: Shares | None = None
    reason: str = ""
    _evaluated: Evaluations = field(default_factory=Evaluations, init=False)
    # By the number of a segment; under None for all steps.
    _totals: dict[int | None, Any] = field(default_factory=dict, init=False)
    _pool: ThreadPoolExecutor | None = field(default=None, init=False)
    _workspaces: list[Workspace | None] = field(default_factory=list, init=False)

    @property
    def evaluations(self) -> int:
        """Number of times the loss and its gradient have been computed."""
        return self._evaluated.count

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the threads, for the duration of one training."""
        if self.workers == 1:
            yield
            return
        from concurrent.futures import ThreadPoolExecutor  # only for those who use threads

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
        opt_state : object
            The optimiser's state.
        losses : Array (epochs,)
            With the full batch, the loss before each update. With minibatches or segments, the
            mean of their losses over each epoch, weighted by their total weights.
        """
        losses = []
        for epoch in range(first_epoch, first_epoch + epochs):
            if self.truncate is not None:
                params, opt_state, value = self._segments(params, opt_state, epoch, self.truncate)
            elif self.batches is not None:
                index = self.batches(epoch)
                params, opt_state, value = self._minibatches(params, opt_state, epoch, index)
            else:
                params, opt_state, value = self._full_batch(params, opt_state, epoch)
            losses.append(value)
        return params, opt_state, self.backend.xp.stack(losses)

    def value_and_grad(self, params: Params) -> ValueAndGrads:
        """Return the loss and its gradient over all rows, without dropout.

        L-BFGS ends each line search on parameters that it has already evaluated and comes back
        with the same dict, so the latest results are kept and recognised by identity.
        """
        return self._evaluated.value_and_grad(params, self._gradient)

    def loss_value(self, params: Params, batch: Batch) -> Array:
        """Return the loss of any rows, such as validation rows, without dropout and gradients.

        Returns
        -------
        Array ()
            The same bits as the loss that `value_and_grad` computes for the same rows.
        """
        return self._loss(params, self.cut(batch), self.total(batch))

    def _loss(self, params: Params, blocks: Blocks, total: Any) -> Array:
        steps = blocks.batch.y.shape[1] if self.net.topology == "one_to_many" else None

        def block(number: int) -> ValueAndGrads:
            rows = blocks[number]
            with self._workspace() as workspace:
                pred, _ = self.net.forward(
                    params, rows.x, steps=steps, workspace=workspace, **rows.options
                )
                weight = weights_of(self.net, rows, self.backend)
                return self.loss(pred, rows.y, weight, total)[0], {}

        return self._sum(block, blocks, {})[0]

    @property
    def full_batch(self) -> FullBatch:
        """The loss over all rows to train on, as optimisers are given it."""
        second = GaussNewton(
            self.net, self.loss, self.backend, self.blocks, self.number_of_blocks,
            self.total_of_data, self._sum, self._map,
        )  # fmt: skip
        return FullBatch(self._gradient, self._value, second.matrix, second.factor, second.product)

    def _value(self, params: Params) -> Array:
        return self._loss(params, self.blocks, self.total_of_data)

    def _full_batch(self, params: Params, opt_state: Any, epoch: int) -> tuple[Params, Any, Array]:
        if self.noise is None:
            return self._evaluated.update(self.optimizer, params, opt_state, self.full_batch)
        value, grads = self._evaluate(params, self.blocks, self.total_of_data, epoch)
        params, opt_state = self.optimizer.update(grads, opt_state, params, value=value)
        return params, opt_state, value

    def _gradient(self, params: Params) -> ValueAndGrads:
        return self._evaluate(params, self.blocks, self.total_of_data, 0)

    def _minibatches(
        self, params: Params, opt_state: Any, epoch: int, batches: Sequence[Any]
    ) -> tuple[Params, Any, Array]:
        mean = WeightedMean()
        for number, rows in enumerate(batches):
            batch = self.data.take(self.backend.asarray(rows), xp=self.backend.xp)
            total, step = self.total(batch), epoch * len(batches) + number
            value, grads = self._evaluate(params, self.cut(batch), total, step)
            params, opt_state = self.optimizer.update(grads, opt_state, params, value=value)
            mean.add(value, total)
        return params, opt_state, mean.value

    def _segments(
        self, params: Params, opt_state: Any, epoch: int, truncate: tuple[int, int]
    ) -> tuple[Params, Any, Array]:
        """Train on segments (truncated backpropagation): states carry over, gradients do not."""
        topology = self.net.topology
        steps = (self.data.y if topology == "one_to_many" else self.data.x).shape[1]
        pieces = sequence.segments(steps, *truncate)
        if topology == "many_to_one":  # only the last segment has a loss
            pieces = pieces[-1:]
        carries = {
            number: self._before(params, number, pieces[0].start) for number in self.blocks.own
        }
        mean = WeightedMean()
        for number, piece in enumerate(pieces):
            batch = self.data.steps(piece.start, piece.stop, topology)
            blocks = dataclasses.replace(self.blocks, batch=batch)
            following = pieces[number + 1].start if number + 1 < len(pieces) else piece.stop
            context = piece.first - piece.start
            if number not in self._totals:  # the same in every epoch; ranks exchange them once
                self._totals[number] = self._total(blocks, context)
            total, step = self._totals[number], epoch * len(pieces) + number
            value, grads = self._evaluate_segment(
                params, blocks, total, step, carries, following - piece.start, context
            )
            params, opt_state = self.optimizer.update(grads, opt_state, params, value=value)
            mean.add(value, total)
        return params, opt_state, mean.value

    def _before(self, params: Params, number: int, step: int) -> Carry | None:
        """Return the state of a block of rows before a step; None before the first step."""
        if not step:
            return None
        rows = self.blocks[number].steps(0, step, self.net.topology)
        _, state = self.net.forward(params, rows.x, mask=rows.mask, reset=rows.reset)
        return Carry(state, None)

    def _evaluate(self, params: Params, blocks: Blocks, total: Any, step: int) -> ValueAndGrads:
        """Return the loss and the gradient over the given rows, computed block by block."""
        self._evaluated.count += 1
        computed = self.backend.adapter.computed

        def block(number: int) -> ValueAndGrads:
            rows = blocks[number]
            with self._workspace() as workspace:
                value, grads = self.net.value_and_grad(
                    params, rows.x, rows.y, self.loss, rows.sample_weight,
                    rng=self._rng(step, number), total=total, workspace=workspace,
                    memory_budget=self.block_budget, **rows.options,
                )  # fmt: skip
            return computed((value, grads))

        return self._sum(block, blocks, params)

    def _evaluate_segment(
        self,
        params: Params,
        blocks: Blocks,
        total: Any,
        step: int,
        carries: dict[int, Carry | None],
        following: int,
        context: int,
    ) -> ValueAndGrads:
        """Like `_evaluate`, but start from each block's state in ``carries``, and update it."""
        self._evaluated.count += 1
        computed = self.backend.adapter.computed

        def block(number: int) -> ValueAndGrads:
            rows, before = blocks[number], carries[number]
            x = rows.x if before is None or before.x is None else before.x
            value, grads, carries[number] = self.net.segment_value_and_grad(
                params, x, rows.y, self.loss, weights_of(self.net, rows, self.backend, context),
                total=total, carry=following, state=None if before is None else before.state,
                mask=rows.mask, reset=rows.reset, rng=self._rng(step, number),
            )  # fmt: skip
            return computed((value, grads))

        return self._sum(block, blocks, params)

    @property
    def number_of_blocks(self) -> int:
        """Number of blocks of the rows to train on, over all ranks."""
        if self.ranks is None or self.blocks.shares is None:
            return self.blocks.own.stop
        return self.blocks.shares(self.ranks.comm.size - 1).stop

    def _sum(
        self,
        block: Callable[[int], ValueAndGrads],
        blocks: Blocks,
        like: Params,
        add: Callable[[ValueAndGrads, ValueAndGrads], ValueAndGrads] = _add,
    ) -> ValueAndGrads:
        """Return the sum over all blocks, some of which other ranks may compute."""
        computed = self._map(block, blocks.own)
        if self.ranks is None or blocks.shares is None:
            return tree_sum(computed, add)
        leaves = zip(blocks.own, computed, strict=True)
        sums = join((Subtree(number, 0, leaf) for number, leaf in leaves), add)
        return sum_of_ranks(self.ranks, self.backend, blocks.shares, sums, like)

    def _map(self, block: Callable[[int], _T], numbers: range) -> Iterable[_T]:
        """Compute blocks, on threads if there are several of both; return the results in order."""
        if self._pool is None or len(numbers) == 1:  # to wake a thread takes longer than a step
            return map(block, numbers)
        from rnn_xp.engines.threads import in_order

        return in_order(self._pool, block, numbers, ahead=2 * self.workers)

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Workspace | None]:
        """Lend a thread a workspace that another has returned, or a new one."""
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = make_workspace(self.backend)
        yield workspace
        self._workspaces.append(workspace)

    def cut(self, batch: Batch) -> Blocks:
        """Cut rows into blocks, if this rank holds all rows."""
        numbers = range(-(-batch.x.shape[0] // self.block_rows))
        if self.ranks is None:
            return Blocks(batch, self.block_rows, numbers, numbers)
        shares = self.ranks.shares(len(numbers))
        return Blocks(batch, self.block_rows, numbers, shares(self.ranks.comm.rank), shares)

    @functools.cached_property
    def blocks(self) -> Blocks:
        """The blocks of the rows to train on."""
        if self.ranks is None or self.shares is None:
            return self.cut(self.data)
        numbers = self.shares(self.ranks.comm.rank)
        return Blocks(self.data, self.block_rows, numbers, numbers, self.shares, scattered=True)

    def _rng(self, step: int, number: int) -> Any:
        return None if self.noise is None else self.noise(step, number)

    @property
    def total_of_data(self) -> Any:
        """Total weight of the rows to train on; all ranks must first request it together."""
        # No cached_property: of Python 3.11 it holds a lock over the class, and ranks that are
        # threads would wait for each other's.
        if None not in self._totals:
            self._totals[None] = self._total(self.blocks)
        return self._totals[None]

    def total(self, batch: Batch) -> Any:
        """Return the total weight of rows that this rank holds completely."""
        return self._total(self.cut(batch))

    def _total(self, blocks: Blocks, context: int = 0) -> Any:
        """Return a total weight, summed by blocks, because all weights can be as large as x."""

        def block(number: int) -> Any:
            rows = blocks[number]
            return total_weight(rows.y, weights_of(self.net, rows, self.backend, context))

        leaves = ((number, block(number)) for number in blocks.held)
        sums = join((Subtree(number, 0, leaf) for number, leaf in leaves), operator.add)
        if self.ranks is None or blocks.shares is None or not blocks.scattered:
            return fold(sums, operator.add)
        weighted = weights_of(self.net, blocks.batch.rows(0, 0), self.backend, context) is not None
        return weight_of_ranks(self.ranks, self.backend, blocks.shares, sums, weighted)
