"""The engine of CUDA graphs: a whole update of a network in kernels, captured once and replayed.

Where the fused engine does not compute a training, the kernels of layers do, in a dozen launches
and more for an update; CuPy's overhead for each is longer than most of them take. The update is
therefore captured: gather of the minibatch, forward pass, loss, backward pass, clipping, the
optimiser's rule. A graph reads and writes the same memory at every launch, so parameters and the
optimiser's memory have fixed places, and what differs between updates is in tables on the device::

    index    rows of the minibatch, sorted by length       numbers    of the optimiser's rule
    offsets  where the rows of each step begin             values     losses, which are written

The masks of dropout are drawn by the host, and are copied to their places before each launch.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Params, Workspace
from rnn_xp.backend import to_numpy
from rnn_xp.engines.blocks import Batch, weights_of
from rnn_xp.engines.cuda_stream import OwnStream
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels import make_workspace, pointwise
from rnn_xp.kernels.course import Ends
from rnn_xp.losses import total_weight
from rnn_xp.network import turns
from rnn_xp.network.call import Options
from rnn_xp.network.dropout import draw_masks, mask_shapes
from rnn_xp.network.gradients import loss_back
from rnn_xp.network.layers import Noise
from rnn_xp.optim.first_order import FirstOrder

__all__ = ["SUPPORTED", "GraphEngine", "unsupported"]

_UPDATES = 64  # of the tables, if these are several epochs
_NUMBERS = 64  # of an optimiser's rule


def _kernels_know(engine: PortableEngine) -> bool:
    data, noisy = engine.data, bool(engine.net.recurrent_dropout) and engine.noise is not None
    options = Options(
        None, data.lengths, data.mask, data.reset, workspace=make_workspace(engine.backend)
    )
    return turns.lent(engine.net, options, Noise([], [1.0 if noisy else None])) is not None


def _rows(engine: PortableEngine) -> int:
    rows: int = engine.data.x.shape[0]
    return rows if engine.batches is None else len(engine.batches(0)[0])


def _has_rules(engine: PortableEngine) -> bool:
    return (
        isinstance(engine.optimizer, FirstOrder)
        and type(engine.optimizer).update is FirstOrder.update
    )


SUPPORTED: tuple[tuple[str, Callable[[PortableEngine], bool]], ...] = (
    ("the backend cupy", lambda e: e.backend.name == "cupy"),
    ("the dtype float32", lambda e: e.backend.dtype_name == "float32"),
    ("an optimiser that uses one gradient per update", _has_rules),
    ("no truncation", lambda e: e.truncate is None),
    ("no memory budget", lambda e: e.block_budget is None),
    ("a single rank", lambda e: e.ranks is None),
    ("at most block_rows rows in an update", lambda e: _rows(e) <= e.block_rows),
    (
        "cells with kernels: rnn, gru with reset_after=True, lstm",
        lambda e: e.net.layers.has_kernels,
    ),
    ("no feedback", lambda e: not e.net.feedback),
    (
        "up to hidden_size = 128, with thread block clusters 256, if there are lengths, masks, "
        "resets, recurrent dropout or layer normalisation",
        _kernels_know,
    ),
)  # fmt: skip
"""Requirements of the engine: each as a sentence and as a test of the portable engine."""


def unsupported(engine: PortableEngine) -> str:
    """Return the first requirement that a training does not meet; empty if it meets all."""
    return next((needed for needed, holds in SUPPORTED if not holds(engine)), "")


class _Update(NamedTuple):
    """An update of so many rows: the places of what differs from one to the next, and its launch.

    Attributes
    ----------
    rows : Array (B,) of int32 or None
        Rows of the data; None for all.
    offsets : Array (T + 1,) of int32 or None
        Where the rows of each step begin, if there are lengths.
    numbers : Array (K,)
        Of the optimiser's rule.
    masks : dict of str to Array
        Of dropout.
    total : Array (1,)
        The total weight, if it depends on the number of rows alone.
    workspace : Workspace
        Of this graph alone: it may not grow any more.
    """

    rows: Array | None
    offsets: Array | None
    numbers: Array
    masks: dict[str, Array]
    total: Array
    workspace: Workspace | None


class _Planned(NamedTuple):
    """An update before it is launched: its rows, in the order in which they are computed."""

    step: int
    rows: Any  # host array (B,), or None for all
    order: Any  # host array (B,): how they were sorted, or None
    offsets: list[int] | None


class GraphEngine:
    """Updates of training on a CUDA device, for the trainings that `SUPPORTED` lists.

    Parameters
    ----------
    portable : PortableEngine
        The training. This engine also computes the validation losses.
    reason : str
        The reason why a faster engine is not used.
    """

    name = "cuda_graph"

    def __init__(self, portable: PortableEngine, reason: str = "") -> None:
        import cupy

        self.portable, self.reason, self.ranks = portable, reason, None
        self.backend, self.block_rows, self.workers = (
            portable.backend,
            portable.block_rows,
            portable.workers,
        )
        self.optimizer: Any = portable.optimizer
        self.evaluations = 0
        self._data, self._lengths = portable.data, None
        one_to_many = portable.net.topology == "one_to_many"
        self._steps = (self._data.y if one_to_many else self._data.x).shape[1]
        self._per_epoch = 1 if portable.batches is None else len(portable.batches(0))
        self._capacity = max(1, _UPDATES // self._per_epoch) * self._per_epoch
        self._launches: dict[tuple[int, str], tuple[_Update, Callable[[], None]]] = {}
        self._params: Params = {}
        self._sorted: _Planned | None = None
        self._told = False
        self._gathers = portable.batches is not None or self._data.lengths is not None
        with self.backend.device:
            self._stream, self._pool = OwnStream(), cupy.cuda.MemoryPool()
            if self._data.lengths is not None:
                self._lengths = to_numpy(self._data.lengths)
            ints, floats = (
                functools.partial(cupy.zeros, dtype=kind) for kind in ("int32", "float32")
            )
            self._at, self._values, self._totals = (
                ints(1),
                floats(self._capacity),
                floats(self._capacity),
            )
            steps = 1 if self._lengths is None else self._data.x.shape[1] + 1
            wide = _rows(portable) if self._gathers else 0
            self._index, self._offsets = ints((self._capacity, wide)), ints((self._capacity, steps))
            self._numbers = floats((self._capacity, _NUMBERS))

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
        xp, losses = self.backend.xp, []
        at_once = self._capacity // self._per_epoch
        with self.backend.device, self._stream.working():
            self._load(params, opt_state)
            for first in range(first_epoch, first_epoch + epochs, at_once):
                count = min(at_once, first_epoch + epochs - first)
                losses.append(self._epochs(first, count, opt_state))
                opt_state = self.optimizer.advanced(
                    opt_state, opt_state.slots, count * self._per_epoch
                )
            params, *slots = self._copies()
            opt_state = opt_state._replace(slots=dict(zip(opt_state.slots, slots, strict=True)))
            return params, opt_state, losses[0] if len(losses) == 1 else xp.concat(losses)

    def loss_value(self, params: Params, batch: Batch) -> Array:
        """Return the loss of any rows, computed by the portable engine."""
        return self.portable.loss_value(params, batch)

    def total(self, batch: Batch) -> Any:
        """Return the total weight of all rows."""
        return self.portable.total(batch)

    def _load(self, params: Params, opt_state: Any) -> None:
        """Copy parameters and the optimiser's memory to their places."""
        import cupy

        from rnn_xp.kernels.cuda import update
        from rnn_xp.kernels.cuda.arguments import contiguous

        if not self._params:
            self._params, *memories = (
                {name: cupy.empty(p.shape, dtype="float32") for name, p in params.items()}
                for _ in (params, *opt_state.slots)
            )
            self._state = opt_state._replace(
                slots=dict(zip(opt_state.slots, memories, strict=True))
            )
        given = [params, *opt_state.slots.values()]
        kept = [[contiguous(memory[name]) for name in params] for memory in given]
        update.copy([
            (from_, to) for memory, places in zip(kept, self._memories, strict=True)
            for from_, to in zip(memory, places.values(), strict=True)
        ])  # fmt: skip

    @property
    def _memories(self) -> list[Params]:
        """The places of the parameters and of the optimiser's slots."""
        return [self._params, *self._state.slots.values()]

    def _copies(self) -> list[Params]:
        arrays = [(array,) for memory in self._memories for array in memory.values()]
        copied = iter(pointwise(lambda a, xp: (a,), arrays, xp=self.backend.xp))
        return [{name: next(copied)[0] for name in memory} for memory in self._memories]

    def _epochs(self, first: int, count: int, opt_state: Any) -> Array:
        """Launch the updates of some epochs; return the losses of the epochs."""
        xp, planned = self.backend.xp, []
        for epoch in range(first, first + count):
            batches = [None] if self.portable.batches is None else self.portable.batches(epoch)
            planned += [
                self._planned(epoch * self._per_epoch + k, rows) for k, rows in enumerate(batches)
            ]
        rules = self._rules(opt_state, len(planned))
        self._fill(planned, [numbers for numbers, _ in rules])
        for plan, (_, text) in zip(planned, rules, strict=True):
            update, launch = self._captured(plan, text)
            self._draw(plan, update)
            launch()
        self.evaluations += len(planned)
        values, totals = (a[: len(planned)] for a in (self._values, self._totals))
        if self._per_epoch == 1:
            return values.copy()
        values, totals = (xp.reshape(a, (count, self._per_epoch)) for a in (values, totals))
        return xp.sum(values * totals, axis=1) / xp.sum(totals, axis=1)

    def _planned(self, step: int, rows: Any) -> _Planned:
        """Sort the rows of an update by length, the longest first."""
        if self._lengths is None:
            return _Planned(step, rows, None, None)
        if rows is None and self._sorted is not None:  # they are the same in every update
            return self._sorted._replace(step=step)
        lengths = self._lengths if rows is None else self._lengths[rows]
        order = (-lengths.astype("int64")).argsort(kind="stable")
        rising = lengths[order[::-1]]
        ended = rising.searchsorted(range(self._data.x.shape[1]), side="right")
        offsets = [0, *(len(rising) - ended).cumsum().tolist()]
        planned = _Planned(step, order if rows is None else rows[order], order, offsets)
        self._sorted = planned if rows is None else None
        return planned

    def _rules(self, opt_state: Any, count: int) -> list[tuple[list[float], str]]:
        """Return the numbers of the optimiser's rule for each update, and what uses them."""
        from rnn_xp.kernels import fusion

        rules = []
        for step in range(opt_state.step, opt_state.step + count):
            numbers: list[float] = []
            text = ""
            for _, entry in self.optimizer.rules(opt_state._replace(step=step), self._params):
                more, uses = fusion.numbers_of(entry, 2 + len(opt_state.slots))
                numbers, text = numbers + more, text + uses
            rules.append((numbers, text))
        return rules

    def _fill(self, planned: Sequence[_Planned], numbers: Sequence[list[float]]) -> None:
        """Write the tables; the first update is the next one."""
        import cupy

        self._at[...] = 0
        count = len(planned)
        wide = [[*row, *[0.0] * (_NUMBERS - len(row))] for row in numbers]
        self._numbers[:count] = cupy.asarray(wide, dtype=cupy.float32)
        if self._gathers:
            width = self._index.shape[1]
            index = [  # a short last minibatch is filled up
                plan.rows if len(plan.rows) == width else plan.rows.take(range(width), mode="clip")
                for plan in planned
            ]
            self._index[:count] = cupy.asarray(index, dtype=cupy.int32)
        if self._lengths is not None:
            offsets = [plan.offsets for plan in planned]
            self._offsets[:count] = cupy.asarray(offsets, dtype=cupy.int32)

    def _captured(self, plan: _Planned, text: str) -> tuple[_Update, Callable[[], None]]:
        """Return an update with so many rows by such a rule, captured on the first request."""
        import cupy

        rows = self._data.x.shape[0] if plan.rows is None else len(plan.rows)
        if (rows, text) not in self._launches:
            update = self._places(rows)
            self._draw(plan, update)
            memories = [self._at, *(a for memory in self._memories for a in memory.values())]
            kept = [array.copy() for array in memories]
            with cupy.cuda.using_allocator(self._pool.malloc):  # nobody else may use its memory
                made = self._stream.repeatable(functools.partial(self._work, update))
            for array, before in zip(memories, kept, strict=True):
                array[...] = before
            if made.reason and not self._told:
                self._told = True
                self.reason = made.reason
                warnings.warn(f"the updates are {made.reason}", stacklevel=2)
            self._launches[rows, text] = update, made.launch
        return self._launches[rows, text]

    def _places(self, rows: int) -> _Update:
        """Return the memory of an update with so many rows."""
        import cupy

        data, masks = self._data, {}
        if self.portable.noise is not None:
            masks = {
                name: cupy.empty(shape, dtype="float32")
                for name, shape in mask_shapes(self.portable.net, rows, self._steps).items()
            }
        workspace: Any = make_workspace(self.backend)
        workspace.own_products = True
        return _Update(
            cupy.zeros(rows, dtype="int32") if self._gathers else None,
            None if self._lengths is None else cupy.zeros(self._offsets.shape[1], dtype="int32"),
            cupy.zeros(_NUMBERS, dtype="float32"), masks,
            cupy.full(1, total_weight(data.y[:rows]), dtype="float32"), workspace,
        )  # fmt: skip

    def _draw(self, plan: _Planned, update: _Update) -> None:
        """Draw the masks of dropout as the portable engine does, and put them into their places."""
        if not update.masks or self.portable.noise is None:
            return
        xp, rng = self.backend.xp, self.portable.noise(plan.step, 0)
        rows = next(iter(update.masks.values())).shape[-2]
        drawn = draw_masks(self.portable.net, self._data.x[:rows], self._steps, rng, xp=xp)
        for name, mask in drawn.items():
            if plan.order is not None:
                order = self.backend.xp.asarray(plan.order, device=self.backend.device)
                mask = xp.take(mask, order, axis=len(mask.shape) - 2)
            update.masks[name][...] = mask

    def _work(self, update: _Update) -> None:
        """Compute one update: the work that is captured."""
        from rnn_xp.kernels import fusion
        from rnn_xp.kernels.cuda import update as tables

        net, data, xp, backend = self.portable.net, self._data, self.backend.xp, self.backend
        given = [(self._numbers, update.numbers)]
        ends = None
        if update.rows is not None:
            given.append((self._index, update.rows))
        if update.offsets is not None:
            given.append((self._offsets, update.offsets))
        tables.copy(given, self._at)
        if update.rows is not None:
            data = data.take(update.rows, xp=xp)
        if update.offsets is not None:
            ends = Ends(xp.astype(data.lengths, xp.int32), update.offsets)
        options = Options(
            None, data.lengths, data.mask, data.reset, update.masks or None,
            workspace=update.workspace, ends=ends,
        )  # fmt: skip
        total = total_weight(data.y, weights_of(net, data, backend))
        value, back, _ = loss_back(
            net, self._params, data.x, data.y, self.portable.loss, data.sample_weight, options,
            total=total,
        )  # fmt: skip
        with fusion.reading(update.numbers):
            params, state = self.optimizer.update(
                back.grads, self._state, self._params, value=value
            )
        made = [params, *state.slots.values()]
        tables.copy([
            (memory[name], place) for memory, places in zip(made, self._memories, strict=True)
            for name, place in places.items()
        ])  # fmt: skip
        total = update.total if isinstance(total, float) else xp.reshape(total, (1,))
        tables.record(value, total, self._values, self._totals, self._at)
