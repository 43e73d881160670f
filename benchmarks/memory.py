"""Measure that training needs no more memory for more data: beside them, the same at any size.

    python -m benchmarks.memory                                three sizes, about two minutes
    python -m benchmarks.memory --windows 8317 41585 --epochs 1
    python -m benchmarks.memory --out benchmarks/results/memory.md

Trains the reference network (H = 50, T = 10, float32, full batch, Adam) on more and more windows
of one series, each time in a fresh process. Exits with 1 if the memory of training on the most
windows is more than 1.1 times that on the fewest plus a few bytes per row.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from pathlib import Path

import numpy as np

import rnn_xp as rx
from benchmarks.machine import processor
from rnn_xp.engines.blocks import default_block_rows
from rnn_xp.network.memory import block_bytes

STEPS, HIDDEN = 10, 50
NAME = "benchmarks.memory"  # the module is __main__ itself
DEFAULTS = {"windows": [8317, 83_170, 831_700], "workers": [1, 2], "epochs": 2}
BYTES_PER_ROW = 2  # allowance for vectors with an entry per row; x and y of a row show 44 bytes
HEADINGS = (
    "windows", "workers", "series, MB", "windows copied, MB", "resident, MB", "allocated, MB",
    "estimate, MB",
)  # fmt: skip
BACKEND = rx.get_backend("numpy", dtype="float32")
NET = rx.Network(hidden_size=HIDDEN)


def series(windows):
    """Return a random walk that stays near zero, long enough for so many windows."""
    shocks = np.random.default_rng(0).standard_normal(windows + STEPS, dtype=np.float32)
    walk = np.cumsum(shocks, dtype=np.float64)
    return (np.sin(walk / 10) + 0.1 * shocks).astype(np.float32)


def train(x, y, workers, epochs):
    optimizer = rx.optim.adam(0.01)
    return rx.fit(NET, x, y, optimizer=optimizer, epochs=epochs, workers=workers, backend=BACKEND)


def give_back():
    """Return what is free to the system, so that none of it hides a part of what is measured."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


class Resident:
    """Peak of resident memory since a moment: the kernel's own mark, or else samples of it."""

    def __init__(self):
        self.sampled = 0
        self.done = threading.Event()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.exact = self.read("VmHWM") < 1.02 * self.read("VmRSS")
        except OSError:
            self.exact = False
        self.before = self.read("VmRSS")
        self.thread = threading.Thread(target=self.watch, daemon=True)
        if not self.exact:
            self.thread.start()

    @staticmethod
    def read(name):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise LookupError(name)

    def watch(self):
        while not self.done.wait(0.002):
            self.sampled = max(self.sampled, self.read("VmRSS"))

    def above(self):
        self.done.set()
        return (self.read("VmHWM") if self.exact else self.sampled) - self.before


def measure(windows, workers, epochs, allocated):
    """Measure in this process. The two kinds take turns: tracing slows down and takes memory."""
    x, y = rx.make_windows(series(windows), STEPS)
    # What the first training anywhere needs, such as imports, is no matter of the data.
    train(x[:100], y[:100], workers, 1)
    give_back()
    if allocated:
        tracemalloc.start()
        base = tracemalloc.get_traced_memory()[0]
    else:
        watched = Resident()
    train(x, y, workers, epochs)
    if allocated:
        return {"allocated": tracemalloc.get_traced_memory()[1] - base}
    return {
        "resident": watched.above(),
        "exact": watched.exact,
        "series": 4 * (windows + STEPS),
        "copied": x.nbytes + y.nbytes,
    }


def in_a_fresh_process(module, *given):
    """Return what ``measure`` of a module of the benchmarks returns."""
    command = [sys.executable, "-m", module, "--measure", json.dumps(given)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    return json.loads(done.stdout)


def machine():
    """Describe the processor and the versions."""
    return (
        f"{processor()}; {platform.system()}, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, rnn_xp {rx.__version__}"
    )


def row(found):
    megabytes = [
        f"{found[name] / 1e6:.2f}"
        for name in ("series", "copied", "resident", "allocated", "estimate")
    ]
    cells = [f"{found['windows']:,}", str(found["workers"]), *megabytes]
    return f"| {' | '.join(cells)} |"


def table(results):
    return [
        f"| {' | '.join(HEADINGS)} |", "|---:" * len(HEADINGS) + "|", *map(row, results)
    ]  # fmt: skip


def page(results, verdicts, command, epochs):
    exact = all(found["exact"] for found in results)
    how = "the kernel's mark of the peak" if exact else "samples every 2 ms"
    text = (
        f"The reference network (H = {HIDDEN}, T = {STEPS}, float32) trained with Adam on the full "
        f"batch for {epochs} epochs, each row in a fresh process. *Series* is what lies in memory: "
        "windows are views of it; *windows copied* is what they would need otherwise. *Resident* "
        f"is the peak of resident memory above its level with the data loaded, by {how}; "
        "*allocated* the peak of what Python and NumPy ask for beside the data, in a run of its "
        "own. *Estimate* is `block_bytes`, which must hold for any batch, times the workers."
    )
    lines = [
        "# Memory does not grow with the data", "", f"Written by `{command}`.", "",
        *textwrap.wrap(text, 100),
        "", *table(results), "", *(f"- {verdict}" for verdict in verdicts),
        "", f"Machine: {machine()}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def judge(results):
    """Compare the most windows with the fewest; a list of (passed, sentence)."""
    verdicts = []
    for workers in sorted({found["workers"] for found in results}):
        few, *_, many = (found for found in results if found["workers"] == workers)
        for kind in ("resident", "allocated"):
            extra = BYTES_PER_ROW * (many["windows"] - few["windows"])
            limit = 1.1 * few[kind] + extra
            word = "within" if many[kind] <= limit else "OVER"
            verdicts.append(
                (
                    many[kind] <= limit,
                    f"{workers} worker{'s'[: workers != 1]}, {kind}: {many[kind] / 1e6:.2f} MB for "
                    f"{many['windows'] / few['windows']:g} times the windows, {word} the limit of "
                    f"{limit / 1e6:.2f} MB (1.1 times {few[kind] / 1e6:.2f} MB and {BYTES_PER_ROW} "
                    "bytes per row).",
                )
            )
    return verdicts


def command(module, args, defaults):
    """Return what to type for the same run."""
    given = [
        f"--{name} {' '.join(map(str, value if isinstance(value, list) else [value]))}"
        for name, value in vars(args).items()
        if name in defaults and value != defaults[name]
    ]
    return " ".join([f"python -m {module}", *given])


def main(argv=None):
    parser = argparse.ArgumentParser(description="Measure the memory of training by size.")
    parser.add_argument("--windows", type=int, nargs="+", metavar="N", help="sizes, two or more")
    parser.add_argument("--workers", type=int, nargs="+", metavar="W", help="numbers of threads")
    parser.add_argument("--epochs", type=int)
    parser.set_defaults(**DEFAULTS)
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="also write a page")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return 0
    if len(args.windows) < 2 or min(*args.windows, *args.workers, args.epochs) < 1:
        parser.error("--windows: give two or more sizes. All numbers must be at least 1.")
    if not Path("/proc/self/status").exists():
        parser.error("resident memory is read from /proc, which only Linux has.")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"--out {args.out}: there is no such folder. Make it first.")
    results = []
    for workers in args.workers:
        for windows in sorted(args.windows):
            found = {"windows": windows, "workers": workers}
            for allocated in (False, True):
                found |= in_a_fresh_process(NAME, windows, workers, args.epochs, allocated)
            rows = default_block_rows(rx.get_backend("numpy"), windows, NET.hidden_size)
            blocks = min(workers, -(-windows // rows))
            found["estimate"] = blocks * block_bytes(NET, STEPS, min(windows, rows), 4)
            results.append(found)
            print(*(table(results) if len(results) == 1 else [row(found)]), sep="\n", flush=True)
    verdicts = judge(results)
    print("", *(verdict for _, verdict in verdicts), "", machine(), sep="\n")
    if args.out:
        words = command(NAME, args, DEFAULTS)
        text = page(results, [verdict for _, verdict in verdicts], words, args.epochs)
        args.out.write_text(text, encoding="utf-8")
    return 0 if all(passed for passed, _ in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
