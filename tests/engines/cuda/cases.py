"""What the fused kernels are tried on, and what the portable engine makes of it in float64."""

from __future__ import annotations

import dataclasses
import itertools
import random
import sys
from typing import Any

import numpy as np
from standin import SHARED_LIMIT, FakeCupy

import rnn_xp as rx
from rnn_xp.engines.blocks import Batch, default_block_rows
from rnn_xp.engines.cuda_fused import fastest, layout
from rnn_xp.engines.portable import PortableEngine
from rnn_xp.losses import resolve_loss

FLOAT64 = rx.get_backend("numpy", dtype="float64")

# One float32 operation rounds by 6e-8. An h_t carries the rounding of all steps before it, which
# weights of norm one neither amplify nor damp: by chance 6e-8 * sqrt(40) = 4e-7 at the longest T
# here, and its gradient as much. Sums over rows add their own, and average the others out. The
# worst of all cases is 8e-7 (NumPy's float32: 2e-6); a mistake is larger by orders of magnitude.
BOUND = 2e-6
"""For the gradient's error as a vector, relative to its norm, and for that of the loss."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "cell": ("tanh", "relu", "gru", "lstm"),
    "task": ("one-mse", "many-mse", "one-cross_entropy", "many-cross_entropy"),
    "optimizer": ("adam", "sgd"),
    # Blocks of 2 rows, of which the last is full or not or the only one; of 4, 8, 16, 32 and 64.
    "rows": (1, 63, 64, 65, 130, 301, 530, 1070, 2120, 8317),
    "steps": (1, 2, 10, 40),
    "hidden": (1, 7, 50, 64, 128),
    "inputs": (1, 3, 32),
    "outputs": (1, 2, 5, 8),
    "device": tuple(SHARED_LIMIT),  # decides what lies in shared memory
}


@dataclasses.dataclass(frozen=True)
class Case:
    cell: str = "tanh"
    task: str = "one-mse"
    optimizer: str = "adam"
    rows: int = 8317
    steps: int = 10
    hidden: int = 50
    inputs: int = 1
    outputs: int = 1
    device: str = "sm_90"

    def __str__(self) -> str:
        return "-".join(map(str, dataclasses.astuple(self)))

    @property
    def work(self) -> int:
        gates = {"gru": 3, "lstm": 4}.get(self.cell, 1)
        columns = self.hidden + self.inputs + self.outputs
        return self.rows * self.steps * gates * self.hidden * columns

    @property
    def possible(self) -> bool:
        """Two classes or more, and about a second of work at most."""
        return self.work < 150e6 and (self.outputs > 1 or "entropy" not in self.task)

    @property
    def loss(self) -> str:
        return self.task.partition("-")[2]

    @property
    def net(self) -> rx.Network:
        plain = self.cell in ("tanh", "relu")
        return rx.Network(
            cell="rnn" if plain else self.cell,
            activation=self.cell if plain else "tanh",
            input_size=self.inputs,
            hidden_size=self.hidden,
            output_size=self.outputs,
            topology=f"many_to_{self.task.partition('-')[0]}",
        )

    def update_rule(self, **options: Any) -> Any:
        return {"adam": rx.optim.adam, "sgd": rx.optim.sgd}[self.optimizer](0.01, **options)

    def problem(self) -> tuple[dict[str, np.ndarray], Batch]:
        """Parameters and data in float32; no bias is zero."""
        rng = np.random.default_rng(0)
        params = {
            name: np.asarray(p + 0.3 * rng.standard_normal(p.shape) / np.sqrt(self.hidden), "f4")
            for name, p in self.net.init(0, FLOAT64).items()
        }
        x = rng.standard_normal((self.rows, self.steps, self.inputs)).astype("f4")
        lead = x.shape[:2] if self.task.startswith("many") else x.shape[:1]
        if self.loss == "cross_entropy":
            return params, Batch(x, rng.integers(0, self.outputs, lead))
        return params, Batch(x, rng.standard_normal((*lead, self.outputs)).astype("f4"))


def pairs(case: Case) -> set[tuple[tuple[str, Any], ...]]:
    return set(itertools.combinations(dataclasses.asdict(case).items(), 2))


def all_pairs() -> tuple[list[Case], set[Any]]:
    """Cases in which every possible pair of choices occurs, and the pairs that are not possible."""
    generator = random.Random(0)
    chosen = [Case(), Case(optimizer="sgd", device="sm_80")]
    left = {
        ((a, u), (b, v))
        for a, b in itertools.combinations(CHOICES, 2)
        for u in CHOICES[a]
        for v in CHOICES[b]
    } - set().union(*map(pairs, chosen))
    impossible = set()
    while left:
        pair = min(left, key=repr)
        drawn = (
            Case(
                **{name: generator.choice(values) for name, values in CHOICES.items()} | dict(pair)
            )
            for _ in range(300)
        )
        best = max(
            (case for case in drawn if case.possible),
            key=lambda case: (len(pairs(case) & left), -case.work),
            default=None,
        )
        if best is None:
            impossible.add(pair)
            left.discard(pair)
        else:
            chosen.append(best)
            left -= pairs(best)
    return chosen, impossible


def make_engine(case: Case, cupy: FakeCupy, batch: Batch, optimizer: Any = None) -> Any:
    """Make the engine that `fit` would use on this device."""
    sys.modules["cupy"] = cupy  # until the end of the test, see the fixture `no_cupy`
    portable = PortableEngine(
        net=case.net,
        loss=resolve_loss(case.loss),
        optimizer=optimizer or case.update_rule(),
        backend=cupy.backend,
        data=batch,
        block_rows=default_block_rows(cupy.backend, batch.x.shape[0], case.net.hidden_size),
    )
    engine = fastest(portable)
    assert engine.name == "cuda_fused", engine.reason
    return engine


def doubled(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: p.astype("f8") for name, p in params.items()}


def portable64(case: Case, batch: Batch, optimizer: Any = None) -> PortableEngine:
    y = batch.y if case.loss == "cross_entropy" else batch.y.astype("f8")
    return PortableEngine(
        net=case.net,
        loss=resolve_loss(case.loss),
        optimizer=optimizer or case.update_rule(),
        backend=FLOAT64,
        data=Batch(batch.x.astype("f8"), y),
        block_rows=1040,
    )


def gradient(engine: Any) -> dict[str, np.ndarray]:
    """Sum the partial sums of the latest epoch, in float64."""
    net = engine.portable.net
    total = np.sum(engine.partial[:, :-1], axis=0, dtype="f8")
    matrix = total.reshape(-1, net.hidden_size + net.input_size + 1)
    return layout.unpack(net, matrix, xp=engine.backend.xp)


def distance(found: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float:
    """Norm of the difference of two vectors, relative to the second."""
    assert found.keys() == right.keys()
    difference = [np.ravel(found[name] - right[name]) for name in right]
    norm = np.linalg.norm(np.concatenate([np.ravel(p) for p in right.values()]))
    return float(np.linalg.norm(np.concatenate(difference)) / norm)


def error(case: Case, cupy: FakeCupy) -> float:
    """Larger of the errors of loss and gradient; NaN if one is NaN."""
    params, batch = case.problem()
    engine = make_engine(case, cupy, batch)
    _, _, losses = engine.run(params, engine.optimizer.init(params), 1)
    value, grads = portable64(case, batch).value_and_grad(doubled(params))
    return float(np.maximum(abs(losses[0] / value - 1.0), distance(gradient(engine), grads)))
