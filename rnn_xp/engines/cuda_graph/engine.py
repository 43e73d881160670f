"""Updates of training, captured in CUDA graphs.

A graph reads and writes the same memory at every launch, so parameters and the optimiser's memory
have fixed places, to which their new values are copied at the end of an update. The masks of
dropout are drawn by the host, and are copied to theirs before each launch.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Params, Workspace
from rnn_xp.engines.blocks import Batch, weights_of
from rnn_xp.engines.cuda_graph.tables import Planned, Row, Tables
from rnn_xp.engines.cuda_stream import OwnStream, lasting_pool
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels import make_workspace, pointwise
from rnn_xp.kernels.course import Ends
from rnn_xp.losses import total_weight
from rnn_xp.network.call import Options
from rnn_xp.network.dropout import draw_masks, mask_shapes
from rnn_xp.network.gradients import loss_back

__all__ = ["GraphEngine"]

_UPDATES = 64  # of the tables, unless an epoch has more


class _Rule(NamedTuple):
    """The optimiser's rule in an update: its numbers, and the text of what uses them."""

    step: int
    numbers: list[float]
    text: str


class _Update(NamedTuple):
    """The memory of an update of so many rows.

    Attributes
    ----------
    row : Row
    masks : dict of str to Array
        Of dropout.
    total : Array ()
        The total weight, if it depends on the number of rows alone.
    workspace : Workspace
    pool : cupy.cuda.MemoryPool
        All other memory. It is of this graph alone: a pool gives free memory, as that of temporary
        arrays is after the capture, to others, or back to the device if there is none left.
    """

    row: Row
    masks: dict[str, Array]
    total: Array
    workspace: Workspace
    pool: Any


class GraphEngine:
    """Updates of training on a CUDA device, for the trainings that `supported.SUPPORTED` lists.

    Parameters
    ----------
    portable : PortableEngine
        The training. This engine also computes the validation losses.
    reason : str
        The reason why a faster engine is not used.
    """

    name = "cuda_graph"

    def __init__(self, portable: PortableEngine, reason: str = "") -> None:
        self.portable, self.reason, self.ranks = portable, reason, None
        self.backend, self.block_rows = portable.backend, portable.block_rows
        self.workers = portable.workers
        self.optimizer: Any = portable.optimizer
        self.evaluations = 0
        self._per_epoch = 1 if portable.batches is None else len(portable.batches(0))
        self._epochs_at_once = max(1, _UPDATES // self._per_epoch)
        self._launches: dict[tuple[int, str], tuple[_Update, Callable[[], None]]] = {}
        self._params: Params = {}
        one_to_many = portable.net.topology == "one_to_many"
        self._steps = (portable.data.y if one_to_many else portable.data.x).shape[1]
        with self.backend.device:
            self._stream = OwnStream()
            self._tables = Tables(portable, self._epochs_at_once * self._per_epoch)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the threads of the portable engine, for the duration of one training."""
        with self.portable.running():
            yield

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
            With the full batch, the loss before each update. With minibatches, the mean of their
            losses over each epoch, weighted by their total weights.
        """
        xp, losses, optimizer = self.backend.xp, [], self.optimizer
        last = first_epoch + epochs
        with self.backend.device, self._stream.working():
            self._load(params, opt_state)
            for first in range(first_epoch, last, self._epochs_at_once):
                count = min(self._epochs_at_once, last - first)
                losses.append(self._epochs(first, count, opt_state))
                updates = count * self._per_epoch
                opt_state = optimizer.advanced(opt_state, opt_state.slots, updates)
            params, *slots = self._copies()
            opt_state = opt_state._replace(slots=dict(zip(self._state.slots, slots, strict=True)))
            return params, opt_state, losses[0] if len(losses) == 1 else xp.concat(losses)

    def loss_value(self, params: Params, batch: Batch) -> Array:
        """Return the loss of any rows, computed by the portable engine."""
        return self.portable.loss_value(params, batch)

    def total(self, batch: Batch) -> Any:
        """Return the total weight of all rows."""
        return self.portable.total(batch)

    def _epochs(self, first: int, count: int, opt_state: Any) -> Array:
        """Launch the updates of some epochs; return the losses of the epochs."""
        xp, tables, planned = self.backend.xp, self._tables, []
        for epoch in range(first, first + count):
            batches = [None] if self.portable.batches is None else self.portable.batches(epoch)
            step = epoch * self._per_epoch
            planned += [tables.plan(step + k, rows) for k, rows in enumerate(batches)]
        rules = self._rules(opt_state, len(planned))
        if tables.widen(max(len(rule.numbers) for rule in rules)):
            self._launches.clear()  # they read the table from before
        tables.fill(planned, [rule.numbers for rule in rules])
        for plan, rule in zip(planned, rules, strict=True):
            update, launch = self._captured(plan, rule)
            self._draw(plan, update)
            launch()
        self.evaluations += len(planned)
        values, totals = (a[: len(planned)] for a in (tables.values, tables.totals))
        if self._per_epoch == 1:
            return values.copy()
        values, totals = (xp.reshape(a, (count, self._per_epoch)) for a in (values, totals))
        return xp.sum(values * totals, axis=1) / xp.sum(totals, axis=1)

    def _rules(self, opt_state: Any, count: int) -> list[_Rule]:
        """Return the optimiser's rule in each of the next updates."""
        from rnn_xp.kernels import fusion

        rules = []
        for step in range(opt_state.step, opt_state.step + count):
            numbers: list[float] = []
            text = ""
            for _, entry in self.optimizer.rules(opt_state._replace(step=step), self._params):
                more, uses = fusion.numbers_of(entry, 2 + len(opt_state.slots))
                numbers, text = numbers + more, text + uses
            rules.append(_Rule(step, numbers, text))
        return rules

    def _captured(self, plan: Planned, rule: _Rule) -> tuple[_Update, Callable[[], None]]:
        """Return an update with so many rows by such a rule, captured on the first request."""
        import cupy

        rows = self.portable.data.x.shape[0] if plan.rows is None else len(plan.rows)
        key = rows, rule.text
        if key not in self._launches:
            update = self._memory_of(rows)
            self._draw(plan, update)
            memories = [self._tables.at, *(a for memory in self._memories for a in memory.values())]
            kept = [array.copy() for array in memories]
            with cupy.cuda.using_allocator(update.pool.malloc):
                made = self._stream.repeatable(functools.partial(self._work, update, rule))
            for array, before in zip(memories, kept, strict=True):
                array[...] = before
            if made.reason and made.reason != self.reason:
                self.reason = made.reason
                warnings.warn(
                    f"the updates are {made.reason}. They compute the same, but take longer. A "
                    "loss of your own that reads the device, as float() and if do, may be why.",
                    stacklevel=2,
                )
            self._launches[key] = update, made.launch
        return self._launches[key]

    def _memory_of(self, rows: int) -> _Update:
        """Return new memory for an update of so many rows."""
        import cupy

        masks, portable = {}, self.portable
        if portable.noise is not None:
            shapes = mask_shapes(portable.net, rows, self._steps)
            masks = {name: cupy.empty(shape, dtype="float32") for name, shape in shapes.items()}
        workspace: Any = make_workspace(self.backend)
        workspace.own_products = True
        total = cupy.full((), total_weight(portable.data.y[:rows]), dtype="float32")
        return _Update(self._tables.row(rows), masks, total, workspace, lasting_pool())

    def _draw(self, plan: Planned, update: _Update) -> None:
        """Draw the masks of dropout as the portable engine does, and put them into their places."""
        if not update.masks or self.portable.noise is None:
            return
        xp, rng, net = self.backend.xp, self.portable.noise(plan.step, 0), self.portable.net
        rows = next(iter(update.masks.values())).shape[-2]
        drawn = draw_masks(net, self.portable.data.x[:rows], self._steps, rng, xp=xp)
        order = None
        if plan.order is not None:
            order = xp.asarray(plan.order, device=self.backend.device)
        for name, mask in drawn.items():
            sorted_ = mask if order is None else xp.take(mask, order, axis=len(mask.shape) - 2)
            update.masks[name][...] = sorted_

    def _work(self, update: _Update, rule: _Rule) -> None:
        """Compute one update: the work that is captured."""
        from rnn_xp.kernels import fusion
        from rnn_xp.kernels.cuda import update as kernels

        portable, xp, tables, row = self.portable, self.backend.xp, self._tables, update.row
        net, data, ends = portable.net, portable.data, None
        tables.read(row)
        if row.rows is not None:
            data = data.take(row.rows, xp=xp)
        if row.offsets is not None:
            ends = Ends(xp.astype(data.lengths, xp.int32), row.offsets)
        options = Options(
            None, data.lengths, data.mask, data.reset, update.masks or None,
            workspace=update.workspace, ends=ends,
        )  # fmt: skip
        total = total_weight(data.y, weights_of(net, data, self.backend))
        value, back, _ = loss_back(
            net, self._params, data.x, data.y, portable.loss, data.sample_weight, options,
            total=total,
        )  # fmt: skip
        before = self._state._replace(step=rule.step)
        with fusion.reading(row.numbers):
            params, state = self.optimizer.update(back.grads, before, self._params, value=value)
        made = self._ordered(params, state)
        kernels.copy([
            (memory[name], place) for memory, places in zip(made, self._memories, strict=True)
            for name, place in places.items()
        ])  # fmt: skip
        tables.record(value, update.total if isinstance(total, float) else total)

    def _load(self, params: Params, opt_state: Any) -> None:
        """Copy parameters and the optimiser's memory to their places."""
        import cupy

        from rnn_xp.kernels.cuda import update
        from rnn_xp.kernels.cuda.arguments import contiguous

        if not self._params:
            self._params, *slots = (
                {name: cupy.empty(p.shape, dtype="float32") for name, p in params.items()}
                for _ in (params, *opt_state.slots)
            )
            self._state = opt_state._replace(slots=dict(zip(opt_state.slots, slots, strict=True)))
        given = self._ordered(params, opt_state)
        pairs = [
            (contiguous(memory[name]), place)
            for memory, places in zip(given, self._memories, strict=True)
            for name, place in places.items()
        ]
        update.copy(pairs)

    def _copies(self) -> list[Params]:
        """Return what is in these places, in new memory."""
        arrays = [(array,) for memory in self._memories for array in memory.values()]
        copied = iter(pointwise(lambda a, xp: (a,), arrays, xp=self.backend.xp))
        return [{name: next(copied)[0] for name in memory} for memory in self._memories]

    def _ordered(self, params: Params, state: Any) -> list[Params]:
        """Return parameters and slots in the order of their places, whatever that of the dict."""
        return [params, *(state.slots[slot] for slot in self._state.slots)]

    @property
    def _memories(self) -> list[Params]:
        """The places of the parameters and of the optimiser's slots."""
        return self._ordered(self._params, self._state)
