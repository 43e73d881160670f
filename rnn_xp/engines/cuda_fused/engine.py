"""The fused engine: full-batch epochs of a small network in two launches each, K to a CUDA graph.

Parameters, the optimiser's memory and the losses stay on the device from the first epoch of a
`FusedEngine.run` to the last. Numbers that depend on the update, such as the learning rate of a
schedule, are computed on the host for all K updates and passed as a table, so that the same graph
can be launched again.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, NamedTuple

from rnn_xp._typing import Array, Params
from rnn_xp.engines.blocks import Batch
from rnn_xp.engines.cuda_fused import layout
from rnn_xp.engines.cuda_fused.plan import Plan, has_kernel
from rnn_xp.engines.cuda_stream import OwnStream
from rnn_xp.engines.evaluations import Evaluations, FullBatch, ValueAndGrads
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import cross_entropy
from rnn_xp.optim import Adam

__all__ = ["FusedEngine"]

_PLAIN_SHARED_BYTES = 48 * 1024  # a kernel that needs more of it must say so


class _Chunk(NamedTuple):
    """K epochs that are launched together.

    Attributes
    ----------
    rates : Array (K, 2)
        Two numbers for each update, see `FusedEngine._rates`.
    losses : Array (K,)
        Filled by the kernels.
    launch : callable
        Launches the epochs on the current stream.
    """

    rates: Array
    losses: Array
    launch: Callable[[], None]


class FusedEngine:
    """Epochs of training on a CUDA device, for the trainings that ``plan.SUPPORTED`` lists.

    Adam and SGD have kernels, see `plan.has_kernel`. Other optimisers receive the loss and the
    gradient, from three launches, and compute the update themselves, as with the portable engine.

    The bits are the same on every device of a kind and for every K. They differ from the bits of
    the portable engine, because the blocks differ.

    Parameters
    ----------
    portable : PortableEngine
        The training. This engine also computes the validation losses.
    plan : Plan

    Attributes
    ----------
    matrix : Array (J*K,)
        M, see `layout`.
    slots : dict of str to Array (J*K,)
        The optimiser's memory, in the same form as M.
    partial : Array (blocks, J*K + 1)
        For each block, the gradient of M and the loss (times the total weight) in the latest epoch.
    """

    name = "cuda_fused"

    def __init__(self, portable: PortableEngine, plan: Plan) -> None:
        import cupy

        self.portable, self.plan = portable, plan
        self.backend, self.optimizer = portable.backend, portable.optimizer
        self.block_rows, self.workers = portable.block_rows, portable.workers
        self.ranks, self.reason = None, ""
        self._evaluated = Evaluations()
        self._chunks: dict[int, _Chunk] = {}
        source = resources.files(__package__).joinpath("kernels.cu").read_text(encoding="utf-8")
        data, self._has_kernel = portable.data, has_kernel(portable.optimizer)
        update = type(portable.optimizer).__name__.lower() if self._has_kernel else "gradient"
        # All memory is allocated here: a graph keeps the addresses that it was captured with.
        with self.backend.device:
            module = cupy.RawModule(code=source, options=plan.options)
            names = ("train", "place", update)
            self._train, self._place, self._update = map(module.get_function, names)
            if plan.shared_bytes > _PLAIN_SHARED_BYTES:
                self._train.max_dynamic_shared_size_bytes = plan.shared_bytes
            empty = functools.partial(cupy.empty, dtype=cupy.float32)
            self._x = cupy.ascontiguousarray(data.x)
            target = cupy.int32 if portable.loss is cross_entropy else cupy.float32
            self._y = cupy.ascontiguousarray(data.y, dtype=target)
            self.matrix = empty(plan.entries)
            self._weights = cupy.zeros(plan.weights, dtype=cupy.float32)
            self._workspace = empty(max(1, plan.blocks * plan.workspace))
            self.slots = {
                name: empty(plan.entries) for name in (("m", "v") if update == "adam" else ())
            }
            self.partial = empty((plan.blocks, plan.partial))
            self._total = empty(plan.partial)
            self._stream = OwnStream()

    @property
    def evaluations(self) -> int:
        """Number of times the loss and its gradient have been computed."""
        return self._evaluated.count

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
            The loss before each update.
        """
        if not self._has_kernel:
            return self._run_without_kernel(params, opt_state, epochs)
        if opt_state.slots.keys() != self.slots.keys():
            raise ValueError(
                f"{type(self.optimizer).__name__}: the state has {sorted(opt_state.slots)}, but "
                f"this optimiser remembers {sorted(self.slots)}. Take the state from its own init."
            )
        import cupy

        net, xp = self.portable.net, self.backend.xp
        with self.backend.device:
            chunk = self._chunk(epochs)
            chunk.rates[...] = cupy.asarray(self._rates(opt_state, epochs), dtype=cupy.float32)
            self._take(params)
            for name, slot in self.slots.items():
                slot[...] = xp.reshape(layout.pack(net, opt_state.slots[name], xp=xp), (-1,))
            with self._stream.working():
                chunk.launch()
            slots = {name: self._unpack(slot) for name, slot in self.slots.items()}
            self._evaluated.count += epochs
            opt_state = opt_state._replace(step=opt_state.step + epochs, slots=slots)
            return self._unpack(self.matrix), opt_state, chunk.losses.copy()

    def _run_without_kernel(
        self, params: Params, opt_state: Any, epochs: int
    ) -> tuple[Params, Any, Array]:
        """Train with an optimiser that computes its updates itself."""
        losses = []
        for _ in range(epochs):
            params, opt_state, value = self._evaluated.update(
                self.optimizer, params, opt_state, FullBatch(self._gradient)
            )
            losses.append(value)
        return params, opt_state, self.backend.xp.stack(losses)

    def _gradient(self, params: Params) -> ValueAndGrads:
        self._evaluated.count += 1
        return self.value_and_grad(params)

    def value_and_grad(self, params: Params) -> ValueAndGrads:
        """Return the loss and its gradient over all rows, for an optimiser without a kernel."""
        xp = self.backend.xp
        with self.backend.device:
            self._take(params)
            with self._stream.working():
                self._launch_place()
                self._launch_train()
                self._launch_update(self._total)
            return xp.reshape(self._total[-1:].copy(), ()), self._unpack(self._total[:-1])

    def loss_value(self, params: Params, batch: Batch) -> Array:
        """Return the loss of any rows, computed by the portable engine."""
        return self.portable.loss_value(params, batch)

    def total(self, batch: Batch) -> Any:
        """Return the total weight of all rows."""
        return self.portable.total(batch)

    def _take(self, params: Params) -> None:
        xp, net = self.backend.xp, self.portable.net
        self.matrix[...] = xp.reshape(layout.pack(net, params, xp=xp), (-1,))

    def _unpack(self, matrix: Array) -> Params:
        xp, net = self.backend.xp, self.portable.net
        columns = net.hidden_size + net.input_size + 1
        return layout.unpack(net, xp.reshape(matrix, (-1, columns)), xp=xp)

    def _rates(self, opt_state: Any, epochs: int) -> list[tuple[float, float]]:
        """Return two numbers for each update t: the rate, and Adam's correction of v."""
        optimizer: Any = self.optimizer
        table = []
        for step in range(opt_state.step, opt_state.step + epochs):
            rate, t = optimizer.rate(opt_state._replace(step=step)), step + 1
            if self.slots:
                correction = math.sqrt(1.0 - optimizer.beta2**t)
                table.append((rate / (1.0 - optimizer.beta1**t), correction))
            else:
                table.append((rate, 1.0))
        return table

    def _chunk(self, epochs: int) -> _Chunk:
        """Return K epochs, captured in a graph on the first request."""
        if epochs not in self._chunks:
            import cupy

            rates = cupy.ones((epochs, 2), dtype=cupy.float32)
            losses = cupy.empty(epochs, dtype=cupy.float32)
            self._chunks[epochs] = _Chunk(rates, losses, self._captured(rates, losses))
        return self._chunks[epochs]

    def _captured(self, rates: Array, losses: Array) -> Callable[[], None]:
        """Return a function that launches the epochs, as a graph or kernel by kernel."""
        with self._stream.working():
            epochs = self._stream.repeatable(functools.partial(self._launch_all, rates, losses))
        if epochs.reason:
            self.reason = epochs.reason
            warnings.warn(f"the fused engine is {self.reason}", stacklevel=2)
        return epochs.launch

    def _launch_all(self, rates: Array, losses: Array) -> None:
        """Launch the epochs of a chunk on the current stream."""
        import cupy

        real, optimizer = cupy.float32, self.optimizer
        hyper: tuple[Any, ...] = tuple(self.slots.values())
        if isinstance(optimizer, Adam):
            beta1, beta2 = optimizer.beta1, optimizer.beta2
            hyper += (*map(real, (beta1, 1.0 - beta1, beta2, 1.0 - beta2, optimizer.eps)),)
        self._launch_place()
        for epoch in range(losses.shape[0]):
            self._launch_train()
            self._launch_update(
                cupy.int32(epoch), rates, losses, self.matrix, self._weights, *hyper
            )

    def _launch_place(self) -> None:
        """Copy M into the layout that the products read."""
        self._place(self.plan.grid(256), (256,), (self.matrix, self._weights))

    def _launch_train(self) -> None:
        """Compute the partial sums of the gradient."""
        import cupy

        arrays = self._x, self._y, self._weights, self._workspace, self.partial
        rows = cupy.int32(self._x.shape[0])  # a Python number would be passed as 8 bytes
        self._train(
            (self.plan.blocks,), (self.plan.threads,), (*arrays, rows, self._inv_total()),
            shared_mem=self.plan.shared_bytes,
        )  # fmt: skip

    def _launch_update(self, *arguments: Any) -> None:
        """Add the partial sums, and update M or return the gradient."""
        import cupy

        first = self.partial, cupy.int32(self.plan.blocks), self._inv_total()
        self._update(self.plan.grid(32), (256,), (*first, *arguments), shared_mem=4 * 256)

    def _inv_total(self) -> Any:
        import cupy

        return cupy.float32(1.0 / self.portable.total_of_data)
