"""Classification of aeon's bundled sets: the defaults beside MiniRocket and PyTorch's LSTM.

It needs aeon and torch, and writes ``benchmarks/results/compare_classification.md``. Each method
runs in a process of its own, whose largest memory is measured. The defaults were chosen on the sets
of `TUNED`, with their test parts in view; no choice was made on the others. ArrowHead was to be
among the others, but its result led to a patience of 50 epochs instead of 20: it counts as tuned.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import rnn_xp as rx

TUNED = ("JapaneseVowels", "BasicMotions", "GunPoint", "UnitTest", "ArrowHead")
SHOWN = ("ItalyPowerDemand", "OSULeaf", "PickupGestureWiimoteZ")
PAGE = Path(__file__).parents[1] / "results" / "compare_classification.md"


def load(name: str) -> tuple[Any, Any, Any, Any]:
    """Return X and y to train on and to test on: lists of arrays (channels, steps), labels."""
    from aeon.datasets import load_classification

    parts = []
    for split in ("train", "test"):
        x, y = load_classification(name, split=split)[:2]
        parts += [[row.astype(np.float32) for row in x], np.asarray(y)]
    return tuple(parts)


def ours(x: Any, y: Any, z: Any) -> Any:
    model = rx.RecurrentClassifier(random_state=0, channels_first=True, workers=2)
    return model.fit(x, y).predict(z)


def minirocket(x: Any, y: Any, z: Any) -> Any:
    """Sequences of unequal length are padded with zeros, which MiniRocket cannot leave out."""
    from aeon.classification.convolution_based import MiniRocketClassifier

    steps = max(9, *(row.shape[1] for row in [*x, *z]))
    x, z = (
        np.stack([np.pad(row, ((0, 0), (0, steps - row.shape[1]))) for row in rows])
        for rows in (x, z)
    )
    return MiniRocketClassifier(random_state=0, n_jobs=2).fit(x, y).predict(z)


def torch_lstm(x: Any, y: Any, z: Any) -> Any:
    """A bidirectional LSTM of 50 units with the same scaling, read, updates and epochs as ours."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(2)
    steps = np.concatenate(x, axis=1)
    mean, deviation = (part(steps, axis=1)[:, None] for part in (np.mean, np.std))
    sequences = [[torch.tensor(((row - mean) / deviation).T) for row in rows] for rows in (x, z)]
    classes, target = np.unique(y, return_inverse=True)
    lstm = torch.nn.LSTM(len(mean), 50, bidirectional=True, batch_first=True)
    head = torch.nn.Linear(100, len(classes))
    parameters = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.01)

    def logits(rows: Any) -> Any:
        packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(
            lstm(packed)[0], batch_first=True, padding_value=-np.inf
        )
        return head(states.max(dim=1).values)

    batch = min(200, max(50, -(-len(y) // 8)))
    for _ in range(200):
        for rows in torch.randperm(len(y)).split(batch):
            optimizer.zero_grad()
            chosen = torch.tensor(target)[rows]
            loss = torch.nn.functional.cross_entropy(
                logits([sequences[0][i] for i in rows]), chosen
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    with torch.no_grad():
        return classes[logits(sequences[1]).argmax(dim=1).numpy()]


def trivial(x: Any, y: Any, z: Any) -> Any:
    """The most frequent label."""
    return np.repeat(Counter(y).most_common(1)[0][0], len(z))


METHODS = {"rnn_xp": ours, "MiniRocket": minirocket, "PyTorch LSTM": torch_lstm, "trivial": trivial}


def measure(name: str, method: str) -> dict[str, float]:
    """Run one method on one set, in this process."""
    x, y, z, truth = load(name)
    start = time.perf_counter()
    predicted = METHODS[method](x, y, z)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"accuracy": float(np.mean(predicted == truth)), "s": seconds, "MB": memory}


def page(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the page with the accuracies, seconds and memory of all methods."""
    lines = [
        "# Classification beside other tools", "",
        "Made by `make compare`. Each cell is accuracy on the test part, seconds of training and",
        "prediction, and the largest memory of the process, on two threads, seed 0. rnn_xp runs",
        "`RecurrentClassifier()` with its defaults, which were chosen with the test parts of",
        f"{', '.join(TUNED)} in view; the other sets played no part.",
        "ArrowHead was meant to be among these, but its 0.343 with a patience of 20 epochs led to",
        "the patience of 50, so it counts as tuned.",
        "MiniRocket sees ragged sequences padded with zeros; PyTorch's LSTM has the same size,",
        "scaling, read, learning rate, batches, clipping and at least as many epochs as ours.", "",
        f"| Set | {' | '.join(METHODS)} |", f"|---|{'---|' * len(METHODS)}",
    ]  # fmt: skip
    for name, row in results.items():
        cells = (f"{r['accuracy']:.3f}, {r['s']:.1f} s, {r['MB']:.0f} MB" for r in row.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    means = [np.mean([row[m]["accuracy"] for row in results.values()]) for m in METHODS]
    lines.append(f"| mean | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    lines += ["", "Where rnn_xp falls short:", ""]
    for name, row in results.items():
        ours, rocket, lstm = (row[m]["accuracy"] for m in ("rnn_xp", "MiniRocket", "PyTorch LSTM"))
        if ours < 0.9 * rocket:
            lines.append(f"- {name}: {ours:.3f} is below 0.9 of MiniRocket's {rocket:.3f}.")
        if ours < lstm:
            lines.append(f"- {name}: {ours:.3f} is below PyTorch's LSTM, {lstm:.3f}.")
    return "\n".join(lines if lines[-1] else [*lines, "- nowhere on these sets."]) + "\n"


def main(argv: list[str]) -> int:
    """Measure every method on every set, and write the page."""
    del argv
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in (*TUNED, *SHOWN):
        results[name] = {}
        for method in METHODS:
            call = [sys.executable, "-m", "benchmarks.compare.classification", name, method]
            run = subprocess.run(call, capture_output=True, text=True, check=False)
            if run.returncode:
                print(f"{name}, {method}: {run.stderr}", file=sys.stderr)
                return 1
            results[name][method] = json.loads(run.stdout.splitlines()[-1])
            print(name, method, results[name][method], flush=True)
    PAGE.write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:3])))
