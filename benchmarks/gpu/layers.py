"""Layers beside the one case of the fused engine: ragged rows, stacks, two directions, wide layers.

A step is forward, the mean squared error of one prediction per row, backward and Adam, on the full
batch. PyTorch takes ragged rows as packed sequences, which a CUDA graph cannot capture. What
rnn_xp computes is compared with NumPy in float64 before it is timed: the gradient of its kernels,
and the losses of some updates in its graph.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

import rnn_xp as rx
from benchmarks.cpu import ADAM, GRADIENT_TOLERANCE
from benchmarks.cpu.libraries import missing
from benchmarks.gpu import LeftOutError, attempt
from benchmarks.gpu.tiers import UNIT, Tier
from benchmarks.gpu.timing import measure
from benchmarks.gpu.torch_peers import Torch, prepare
from rnn_xp.engines.blocks import Batch, default_block_rows
from rnn_xp.engines.cuda_graph import GraphEngine, unsupported
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.kernels import make_workspace
from rnn_xp.losses import mse

SECONDS, DRY_SECONDS = 0.3, 0.01
OURS, KERNELS, EAGER, GRAPH = (
    "rnn_xp, CUDA graph", "rnn_xp, kernels", "torch, eager", "torch, CUDA graph"
)  # fmt: skip
UPDATES, LOSS_TOLERANCE = 5, 1e-4  # of a training that is compared with NumPy's


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, and by which factors its step may be slower than a contender's."""

    cell: str
    size: tuple[int, int, int, int]  # N, T, I, H
    layers: int = 1
    directions: int = 1
    ragged: bool = False
    limits: tuple[tuple[str, float], ...] = ()

    def __str__(self):
        more = (", ragged" if self.ragged else "") + (
            f", {self.layers} layers, {self.directions} directions" if self.layers > 1 else ""
        )
        return f"{self.cell.upper()} {self.size}{more}"

    @property
    def net(self):
        return rx.Network(
            cell=self.cell, input_size=self.size[2], hidden_size=self.size[3],
            num_layers=self.layers, bidirectional=self.directions == 2,
        )  # fmt: skip

    @functools.cached_property
    def data(self):
        """x (N, T, I), y (N, 1) and, of ragged rows, lengths (N,), in float32."""
        N, T, I, _ = self.size  # noqa: E741
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((N, T, I)), rng.standard_normal((N, 1))
        lengths = rng.integers(1, T + 1, N) if self.ragged else None
        return x.astype(np.float32), y.astype(np.float32), lengths

    @functools.cached_property
    def weights(self):
        backend = rx.get_backend("numpy", dtype="float32")
        return self.net.init(0, backend)


def cases(dry):
    """All cases, the most telling ones first; in a dry run those of one cell, and tiny."""
    sizes = [(256, 100, 8, 128), (64, 200, 32, 256), (64, 100, 32, 128), (128, 50, 64, 512)]
    usual, wide, stacked, wider = [(9, 5, 2, 6)] * 4 if dry else sizes
    for cell in ("lstm",) if dry else ("lstm", "gru", "rnn"):
        yield Case(cell, usual, ragged=True, limits=((EAGER, 0.5),))
        yield Case(cell, usual, limits=((GRAPH, 0.8),))
        yield Case(cell, wide, limits=((GRAPH, 1.0 if cell == "rnn" else 0.5),))
        yield Case(cell, stacked, layers=2, directions=2, limits=((GRAPH, 0.8),))
        yield Case(cell, wider)  # step by step, in a graph


class Kernels(Tier):
    """rnn_xp through the kernels of its layers, on all rows at once."""

    def __init__(self, place, case):
        self.place, self.unit, self.name = place, UNIT, KERNELS
        self.engine, backend = portable(case, place.backend()), place.backend()
        self.params = {name: backend.asarray(weight) for name, weight in case.weights.items()}
        self.state = ADAM.init(self.params)
        self.losses = None


class Graph(Kernels):
    """The same kernels with all else of an update in a CUDA graph, as `fit` would have it."""

    def __init__(self, place, case):
        super().__init__(place, case)
        self.name = OURS
        if needed := unsupported(self.engine):
            raise LeftOutError(f"CUDA graphs need {needed}")
        self.engine = GraphEngine(self.engine)


def portable(case, backend):
    """The portable engine for a case, with all rows in one block."""
    x, y, lengths = case.data
    rows = max(len(x), default_block_rows(backend, len(x), case.net.hidden_size))
    return PortableEngine(
        net=case.net, loss=mse, optimizer=ADAM, backend=backend, block_rows=rows,
        data=Batch(
            backend.asarray(x), backend.asarray(y),
            lengths=None if lengths is None else backend.xp.asarray(lengths),
        ),
    )  # fmt: skip


class Eager(Torch):
    """PyTorch's layers with a readout; of ragged rows as packed sequences."""

    name = EAGER

    def __init__(self, place, case):
        self.torch, _, device = prepare(place, tf32=False)
        torch, self.on_gpu, self.case = self.torch, not place.dry, case
        if place.dry:
            torch.set_num_threads(1)  # its threads wait for each other longer than they compute
        x, y, lengths = case.data
        kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[case.cell]
        torch.manual_seed(0)
        self.model = kind(
            case.size[2], case.size[3], num_layers=case.layers, bidirectional=case.directions == 2
        ).to(device)
        self.readout = torch.nn.Linear(case.size[3] * case.directions, 1).to(device)
        self.xs = torch.tensor(x, device=device).transpose(0, 1).contiguous()
        self.y = torch.tensor(y, device=device)
        self.lengths = None
        if lengths is not None:
            order = np.argsort(-lengths, kind="stable")
            self.xs, self.y = self.xs[:, order].contiguous(), self.y[order]
            self.lengths = torch.tensor(lengths[order])
        self.weights = [*self.model.parameters(), *self.readout.parameters()]
        on_gpu = {"fused": True, "capturable": True} if self.on_gpu else {}
        self.adam = torch.optim.Adam(
            self.weights, ADAM.learning_rate, (ADAM.beta1, ADAM.beta2), ADAM.eps, **on_gpu
        )
        self.latest = torch.zeros((), device=device)

    def forward(self, xs):
        if self.lengths is not None:
            xs = self.torch.nn.utils.rnn.pack_padded_sequence(xs, self.lengths)
        final = self.model(xs)[1]
        h = final[0] if self.case.cell == "lstm" else final
        return self.readout(self.torch.cat([*h[-self.case.directions :]], dim=1))


class InGraph(Eager):
    """The step in a CUDA graph, which takes no packed sequences."""

    name, keeps_gradients = GRAPH, True

    def __init__(self, place, case):
        if case.ragged:
            raise LeftOutError("a CUDA graph takes no packed sequences")
        super().__init__(place, case)
        if self.on_gpu:
            self.capture()

    def capture(self):
        """Record a step; what it trains meanwhile does not matter to its time."""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.run(5)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.epoch()
        self.epoch = graph.replay


def agrees(place, case):
    """Loss and gradients of rnn_xp's kernels, against the portable code in float64."""
    net, (x, y, lengths) = case.net, case.data
    backend, host = place.backend(), rx.get_backend("numpy", dtype="float64")

    def compute(backend, workspace):
        params = {name: backend.asarray(weight) for name, weight in case.weights.items()}
        given = {} if lengths is None else {"lengths": backend.xp.asarray(lengths)}
        _, grads = net.value_and_grad(
            params, backend.asarray(x), backend.asarray(y), workspace=workspace, **given
        )
        return {name: backend.to_numpy(grad) for name, grad in grads.items()}

    made, exact = compute(backend, make_workspace(backend)), compute(host, None)
    error = max(
        float(np.abs(made[name] - grad).max() / np.abs(grad).max()) for name, grad in exact.items()
    )
    return {"error_of_gradient": error, "holds": error <= GRADIENT_TOLERANCE}


def trains(place, case):
    """Losses of some updates in a graph, against the portable engine in float64."""
    graph, host = Graph(place, case), rx.get_backend("numpy", dtype="float64")
    graph.run(UPDATES)
    made = graph.engine.backend.to_numpy(graph.losses)
    params = {name: host.asarray(weight) for name, weight in case.weights.items()}
    *_, exact = portable(case, host).run(params, ADAM.init(params), UPDATES)
    error = float(np.abs(made / exact - 1.0).max())
    holds = error <= LOSS_TOLERANCE and not graph.engine.reason
    return {"error_of_losses": error, "holds": holds, "detail": graph.engine.reason}


def timed(make, place, case):
    return measure(make(place, case), DRY_SECONDS if place.dry else SECONDS)


def layers(place):
    """Times of a step, and whether they are as short as they should be."""
    for case in cases(place.dry):
        yield attempt(f"{case}: agreement", agrees, place, case)
        yield attempt(f"{case}: agreement of a graph", trains, place, case)
        walls = {}
        for name, make in ((OURS, Graph), (KERNELS, Kernels), (EAGER, Eager), (GRAPH, InGraph)):
            if name in (EAGER, GRAPH) and missing("torch"):
                yield {"what": f"{case}: {name}", "note": "torch is not installed"}
                continue
            record = attempt(f"{case}: {name}", timed, make, place, case)
            walls[name] = record.get("wall")
            yield record
        for peer, limit in case.limits:
            if walls.get(OURS) and walls.get(peer):
                ratio = walls[OURS] / walls[peer]
                judged = {} if place.dry else {"holds": ratio <= limit}
                detail = f"{ratio:.2f}, at most {limit}"
                yield {"what": f"{case}: {OURS} ÷ {peer}", "detail": detail, **judged}
