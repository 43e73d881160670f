"""What `benchmarks/learn` learns: a task trains a network and says what it came to."""

from __future__ import annotations

import dataclasses

import numpy as np

import rnn_xp as rx
from rnn_xp.training.callbacks import Progress

HEADINGS = (
    "task", "network", "on a fresh test set", "goal", "trivial answers", "published",
    "seconds (CPU)", "epochs",
)  # fmt: skip


@dataclasses.dataclass
class Outcome:
    """What one task came to. ``numbers`` are the measured ones, for other programs."""

    task: str
    network: str
    text: str
    goal: str
    reached: bool
    baseline: str
    published: str
    epochs: int
    numbers: dict[str, float]
    sample: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def row(self) -> str:
        goal = f"{self.goal}: {'reached' if self.reached else '**not reached**'}"
        seconds = f"{self.seconds:.1f} ({self.cpu_seconds:.1f})"
        return table_row(
            self.task, self.network, self.text, goal, self.baseline, self.published,
            seconds, str(self.epochs),
        )  # fmt: skip


def table_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def train(net, x, y, *plan, seed, **options):
    """Train by a plan of (optimiser, epochs); the result, the network in words, all epochs."""
    params, total = None, 0
    for stage, (optimizer, epochs) in enumerate(plan):
        with Progress(lines=0) as progress:
            result = rx.fit(
                net, x, y, optimizer=optimizer, epochs=epochs, params=params, seed=seed + stage,
                workers=1, callbacks=[progress], **options,
            )  # fmt: skip
        params, total = result.params, total + len(result.history["loss"])
    names = [f"{type(o).__name__} {getattr(o, 'learning_rate', '')}".strip() for o, _ in plan]
    kind = f"{net.cell.upper()} {net.num_layers}x{net.hidden_size}"
    return result, f"{kind}, {net.num_parameters:,} parameters, {', then '.join(names)}", total


def predict(net, result, x, state=None):
    """Predictions for host data, as a NumPy array, and the final state."""
    backend = result.backend
    pred, state = net.forward(result.params, backend.asarray(x.astype(backend.dtype_name)), state)
    return backend.to_numpy(pred), state


def one_hot(symbols, classes):
    return np.eye(classes, dtype=bool)[symbols]
