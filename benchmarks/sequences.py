"""Measure long sequences in little memory: the same bits, and how much more time they take.

    python -m benchmarks.sequences                        three cells and two topologies, a minute
    python -m benchmarks.sequences --cells lstm --rows 32 --steps 5000
    python -m benchmarks.sequences --out benchmarks/results/sequences.md

Each row computes the loss and its gradient of H = 50 hidden units in float32, once with all
activations in memory and once with a budget of a tenth of their estimate, each in a fresh process.
Exits with 1 if the bits differ, if the budget makes it take more than 1.4 times as long, or if the
peak of resident memory is above the budget or above 200 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import textwrap
import time
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.machine import kernels
from benchmarks.memory import Resident, command, give_back, in_a_fresh_process, machine
from rnn_xp.kernels import make_workspace
from rnn_xp.network.memory import block_bytes

NAME = "benchmarks.sequences"  # the module is __main__ itself
DEFAULTS = {"cells": ["rnn", "gru", "lstm"], "rows": 1, "steps": 100_000, "layers": 1}
TOPOLOGIES = ("many_to_one", "many_to_many")
SHARE, MOST_TIME, MOST_BYTES, REPEATS = 10, 1.4, 200e6, 3
BACKEND = rx.get_backend("numpy", device="cpu", dtype="float32")
HEADINGS = (
    "cell", "topology", "rows", "steps", "all, MB", "a tenth, MB", "all, s", "a tenth, s", "ratio",
    "bits",
)  # fmt: skip


def problem(cell, topology, rows, steps, layers):
    """Return the network, its parameters and data, with dropout where there are layers."""
    options = {"num_layers": layers, "dropout": 0.2} if layers > 1 else {}
    net = rx.Network(cell=cell, topology=topology, hidden_size=50, **options)
    x = np.random.default_rng(0).standard_normal((rows, steps, 1), dtype=np.float32)
    return net, net.init(0, BACKEND), x, x if topology == "many_to_many" else x[:, -1]


def measure(cell, topology, rows, steps, layers, limited):
    """Measure in this process: the peak of one pass, then the best time of some."""
    net, params, x, y = problem(cell, topology, rows, steps, layers)
    budget = block_bytes(net, steps, rows, 4) // SHARE if limited else None

    def gradient(until):
        memory = make_workspace(BACKEND) if until < steps else workspace
        rng = np.random.default_rng(1) if layers > 1 else None
        end = y if topology == "many_to_one" else y[:, :until]
        return net.value_and_grad(
            params, x[:, :until], end, rng=rng, workspace=memory,
            memory_budget=budget if until == steps else None,
        )  # fmt: skip

    gradient(min(300, steps - 1))  # what is compiled or imported on first use
    workspace = make_workspace(BACKEND)
    give_back()
    watched = Resident()
    value, grads = gradient(steps)
    peak, times = watched.above(), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        gradient(steps)
        times.append(time.perf_counter() - start)
    digest = hashlib.sha256(value.tobytes())
    for name in sorted(grads):
        digest.update(np.ascontiguousarray(grads[name]).tobytes())
    return {"peak": peak, "time": min(times), "bits": digest.hexdigest(), "budget": budget}


def compare(cell, topology, rows, steps, layers):
    everything, limited = (
        in_a_fresh_process(NAME, cell, topology, rows, steps, layers, few) for few in (False, True)
    )
    return {
        "cell": cell, "topology": topology, "rows": rows, "steps": steps,
        "all": everything["peak"], "tenth": limited["peak"], "budget": limited["budget"],
        "all_s": everything["time"], "tenth_s": limited["time"],
        "same": everything["bits"] == limited["bits"],
    }  # fmt: skip


def row(found):
    cells = [
        found["cell"], found["topology"], f"{found['rows']:,}", f"{found['steps']:,}",
        f"{found['all'] / 1e6:.1f}", f"{found['tenth'] / 1e6:.1f}", f"{found['all_s']:.3f}",
        f"{found['tenth_s']:.3f}", f"{found['tenth_s'] / found['all_s']:.2f}",
        "same" if found["same"] else "OTHER",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(results):
    return [
        f"| {' | '.join(HEADINGS)} |", "|---" * 2 + "|---:" * 7 + "|---|", *map(row, results)
    ]  # fmt: skip


def judge(results):
    """Return (passed, sentence) for each promise."""
    slowest = max(found["tenth_s"] / found["all_s"] for found in results)
    largest = max(found["tenth"] for found in results)
    fullest = max(found["tenth"] / found["budget"] for found in results)
    same = all(found["same"] for found in results)
    return [
        (same, f"The bits are {'the same' if same else 'OTHERS'} with a tenth of the memory."),
        (slowest <= MOST_TIME, f"It takes at most {slowest:.2f} times as long; limit {MOST_TIME}."),
        (fullest <= 1.0, f"The peak is at most {fullest:.2f} of the budget; limit 1."),
        (largest <= MOST_BYTES, f"The peak is at most {largest / 1e6:.0f} MB; limit 200 MB."),
    ]


def page(results, verdicts, command):
    text = (
        "The loss and its gradient of long sequences (H = 50, float32, one thread), with all "
        "activations in memory and with a budget of a tenth of what they are estimated at. Memory "
        "is the peak of resident memory above its level with the data loaded, time the best of "
        f"{REPEATS}, each in a fresh process. Kernels: {kernels(BACKEND)}."
    )
    lines = [
        "# Long sequences in little memory", "", f"Written by `{command}`.", "",
        *textwrap.wrap(text, 100), "", *table(results), "",
        *(f"- {verdict}" for verdict in verdicts), "", f"Machine: {machine()}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description="Measure long sequences in little memory.")
    parser.add_argument("--cells", nargs="+", choices=DEFAULTS["cells"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--layers", type=int, help="two or more have dropout between them")
    parser.set_defaults(**DEFAULTS)
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return 0
    if min(args.rows, args.layers) < 1 or args.steps < 2:
        parser.error("--rows and --layers must be at least 1, and --steps at least 2.")
    if not Path("/proc/self/status").exists():
        parser.error("resident memory is read from /proc, which only Linux has.")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    results = []
    for cell in args.cells:
        for topology in TOPOLOGIES:
            results.append(compare(cell, topology, args.rows, args.steps, args.layers))
            print(*(table(results) if len(results) == 1 else [row(results[-1])]), sep="\n")
    verdicts = judge(results)
    print("", *(verdict for _, verdict in verdicts), "", machine(), sep="\n")
    if args.out:
        text = page(results, [verdict for _, verdict in verdicts], command(NAME, args, DEFAULTS))
        args.out.write_text(text, encoding="utf-8")
    return 0 if all(passed for passed, _ in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
