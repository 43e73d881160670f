"""Measure training on one rank and on two, and model it on more: two tables, kept apart.

    python scripts/scaling.py                               a minute or two
    python scripts/scaling.py --out docs/results/scaling.md
    python scripts/scaling.py --large 10000000              and so many windows, from a file

Trains the reference network (H = 50, T = 10, float32, full batch, Adam). Strong scaling: the same
windows on more ranks; weak: the same windows for each rank. The ranks' bits are compared first.
Needs mpi4py and an MPI library, whose mpiexec is taken from beside this Python or from the path.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import processor

import rnn_xp as rx
from rnn_xp.distributed import fingerprint, mpi

STEPS, HIDDEN, WINDOWS = 10, 50, 8317
# Latency in s, 1 / bandwidth and 1 / speed of adding in s per byte: assumed, not measured.
NETWORKS = {"HDR InfiniBand": (2e-6, 1 / 20e9), "10 GbE, TCP": (30e-6, 1 / 1.1e9)}
ADD = 1 / 10e9
RANKS = (2, 16, 128, 1024, 4096)


def series(windows):
    """Return a random walk that stays near zero, long enough for so many windows."""
    shocks = np.random.default_rng(0).standard_normal(windows + STEPS, dtype=np.float32)
    walk = np.cumsum(shocks, dtype=np.float64)
    return (np.sin(walk / 10) + 0.1 * shocks).astype(np.float32)


def modelled(compute, size, ranks, latency, per_byte):
    """Seconds of an epoch on ranks that exchange their sums pair by pair, log2(ranks) times."""
    return compute / ranks + math.ceil(math.log2(ranks)) * (latency + size * (per_byte + ADD))


class Timed:
    """Ranks whose exchanges are timed: what one waits for the other is a part of it."""

    def __init__(self, comm):
        self.comm, self.seconds = comm, []
        self.rank, self.size, self.local_rank = comm.rank, comm.size, comm.local_rank
        self.sharing, self.device_buffers = comm.sharing, comm.device_buffers
        self.gather, self.total = comm.gather, comm.total

    def exchange(self, *given):
        begun = time.perf_counter()
        self.comm.exchange(*given)
        self.seconds.append(time.perf_counter() - begun)


def rank_main(arguments):
    """Train as a rank; the first prints what it measured."""
    comm = Timed(mpi())
    if arguments.files:
        x, y = (np.load(Path(arguments.files) / f"{name}.npy", mmap_mode="r") for name in "xy")
    else:
        x, y = rx.make_windows(series(arguments.windows), seq_length=STEPS)
    options = {"optimizer": rx.optim.adam(0.01), "comm": comm, "workers": 1}
    net, backend = rx.Network(hidden_size=HIDDEN), rx.get_backend("numpy", dtype="float32")
    if not arguments.files:
        rx.fit(net, x, y, epochs=3, backend=backend, **options)  # compiles what is compiled
    times = []

    def watch(epoch):
        times.append(time.perf_counter())

    comm.seconds.clear()
    begun = time.perf_counter()
    found = rx.fit(
        net, x, y, epochs=arguments.epochs, backend=backend, callbacks=[watch], **options
    )
    exchange = float(np.median(comm.seconds or [0.0]))
    alone = exchange_alone(comm, net.num_parameters + 3)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peaks = comm.gather(np.asarray([kilobytes], dtype=np.int64)).ravel().tolist()
    epochs = np.diff([begun, *times])
    if not comm.rank:
        result = {
            "epoch": float(np.median(epochs)),
            "exchange": exchange,
            "alone": alone,
            "bits": fingerprint(found.params),
            "bytes": 4 * (net.num_parameters + 3),
            "peaks": [1024 * peak for peak in peaks],
            "loss": found.history["loss"],
        }
        print(json.dumps(result))


def exchange_alone(comm, entries):
    """Median seconds of an exchange of so many numbers between ranks that do nothing else."""
    if comm.size == 1:
        return 0.0
    send, receive = np.ones(entries, np.float32), np.empty(entries, np.float32)
    comm.seconds.clear()
    for _ in range(1000):
        comm.exchange(1 - comm.rank, send, receive)
    return float(np.median(comm.seconds))


def launch(ranks, windows, epochs, files=""):
    launcher = Path(sys.executable).with_name("mpiexec")
    command = [
        str(launcher if launcher.exists() else "mpiexec"), "-n", str(ranks), sys.executable,
        __file__, "--rank", "--windows", str(windows), "--epochs", str(epochs), "--files", files,
    ]  # fmt: skip
    paths = [str(Path(rx.__file__).parents[1]), *filter(None, sys.path)]
    settings = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def write_windows(folder, windows):
    """Write x (N, T, 1) and y (N, 1) in pieces, each window in full: 44 bytes for each."""
    values = series(windows)
    x = np.lib.format.open_memmap(
        Path(folder) / "x.npy", mode="w+", dtype=np.float32, shape=(windows, STEPS, 1)
    )
    y = np.lib.format.open_memmap(
        Path(folder) / "y.npy", mode="w+", dtype=np.float32, shape=(windows, 1)
    )
    for start in range(0, windows, 2**18):
        part = values[start : min(start + 2**18, windows) + STEPS]
        stop = start + len(part) - STEPS
        x[start:stop], y[start:stop] = rx.make_windows(part, seq_length=STEPS)


def large(windows, epochs=2, ranks=2):
    with tempfile.TemporaryDirectory() as folder:
        write_windows(folder, windows)
        found = launch(ranks, windows, epochs, folder)
    peaks = ", ".join(f"{peak / 1e9:.2f}" for peak in found["peaks"])
    return [
        "## Measured: data larger than a rank reads",
        "",
        f"{windows} windows, each in full in mapped files of {windows * 44 / 1e6:.0f} MB, on "
        f"{ranks} ranks: {found['epoch']:.1f} s for an epoch, loss {found['loss'][0]:.4g} to "
        f"{found['loss'][-1]:.4g} in {epochs} epochs.",
        f"Peak resident memory of the ranks in GB, pages of the file included: {peaks}.",
    ]


def measure(windows, epochs):
    one, two = launch(1, windows, epochs), launch(2, windows, epochs)
    if one["bits"] != two["bits"]:
        sys.exit("one rank and two have other bits")
    weak = launch(2, 2 * windows, epochs)
    lines = [
        "## Measured",
        "",
        f"{processor()}, Python {platform.python_version()}, NumPy "
        f"{np.__version__}; one thread for each rank, {windows} windows, {epochs} epochs, medians. "
        "One rank and two have the same bits.",
        "",
        "| | windows | epoch, ms | speed-up | exchange with waiting, ms | alone, ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, found, count, gain in (
        ("1 rank", one, windows, 1.0),
        ("2 ranks, strong", two, windows, one["epoch"] / two["epoch"]),
        ("2 ranks, weak", weak, 2 * windows, 2 * one["epoch"] / weak["epoch"]),
    ):
        lines.append(
            f"| {name} | {count} | {1e3 * found['epoch']:.1f} | {gain:.2f} | "
            f"{1e3 * found['exchange']:.3f} | {1e3 * found['alone']:.3f} |"
        )
    return one, [
        *lines,
        "",
        "With waiting: in training, for a rank that comes late. Alone: a thousand in a row.",
    ]


def model(one):
    size = one["bytes"]
    lines = [
        "## Modelled, not measured",
        "",
        "Seconds of an epoch: compute / p + ceil(log2 p) (a + n b + n c), with n the "
        f"{size / 1e3:.1f} kB of a message; a latency, b and c seconds for each byte to send and "
        "to add, all assumed. No rank is ever late, and the windows can be cut as finely as need "
        "be. Speed-up over one rank:",
        "",
        "| epoch on one rank | network | " + " | ".join(f"p = {p}" for p in RANKS) + " |",
        "|---" * (2 + len(RANKS)) + "|",
    ]
    for compute in (one["epoch"], 0.1, 1.0, 10.0):
        for name, (latency, per_byte) in NETWORKS.items():
            gains = [compute / modelled(compute, size, p, latency, per_byte) for p in RANKS]
            cells = " | ".join(f"{gain:.1f}" for gain in gains)
            lines.append(f"| {1e3 * compute:.1f} ms | {name} | {cells} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--large", type=int, metavar="N", help="also N windows from a file")
    parser.add_argument("--out", type=Path, help="a Markdown file")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--files", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank_main(arguments)
        return
    one, lines = measure(arguments.windows, arguments.epochs)
    if arguments.large:
        lines += ["", *large(arguments.large)]
    lines += ["", *model(one)]
    text = "\n".join(["# Several ranks", "", *lines, ""])
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
