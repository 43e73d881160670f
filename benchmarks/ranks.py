"""Measure training on one rank and on two, and model it on more: kept apart.

    python -m benchmarks.ranks                               a minute or two
    python -m benchmarks.ranks --out results/ranks           as .md and, with matplotlib, as .png
    python -m benchmarks.ranks --large 10000000              and so many windows, from files

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

import rnn_xp as rx
from benchmarks.machine import processor
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
    options = {"optimizer": rx.optim.adam(0.01), "comm": comm, "workers": 1}
    if arguments.files:  # no rank opens those of another
        here = Path(arguments.files) / str(comm.rank)
        x, y = (rx.open_shards(sorted(here.glob(f"{name}-*.npy"))) for name in "xy")
        options["sharded"] = True
    else:
        x, y = rx.make_windows(series(arguments.windows), seq_length=STEPS)
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
        "-m", "benchmarks.ranks", "--rank", "--windows", str(windows), "--epochs", str(epochs),
        "--files", files,
    ]  # fmt: skip
    paths = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    settings = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def write_windows(folder, windows, ranks):
    """Write x (N, T, 1) and y (N, 1), each window in full: 44 bytes for each.

    Each rank has a folder, with a file for every 252 blocks of 1040 rows, or less.
    """
    values, piece = series(windows), 1040 * max(1, min(252, windows // (1040 * ranks)))
    starts = range(0, windows, piece)
    for rank, part in enumerate(np.array_split(np.asarray(starts), ranks)):
        here = Path(folder) / str(rank)
        here.mkdir()
        for number, start in enumerate(part):
            x, y = rx.make_windows(values[start : min(start + piece, windows) + STEPS], STEPS)
            np.save(here / f"x-{number:04}.npy", x)
            np.save(here / f"y-{number:04}.npy", y)


def large(windows, epochs=2, ranks=2):
    with tempfile.TemporaryDirectory() as folder:
        write_windows(folder, windows, ranks)
        files = len(list(Path(folder).rglob("x-*.npy")))
        found = launch(ranks, windows, epochs, folder)
    peaks = ", ".join(f"{peak / 1e9:.2f}" for peak in found["peaks"])
    return [
        "## Measured: data that no rank has all of",
        "",
        f"{windows} windows, each in full, in {2 * files} files of {windows * 44 / 1e6:.0f} MB, on "
        f"{ranks} ranks, each of which opens its own: {found['epoch']:.1f} s for an epoch, loss "
        f"{found['loss'][0]:.4g} to {found['loss'][-1]:.4g} in {epochs} epochs.",
        f"Peak resident memory of the ranks in GB, pages of the files included: {peaks}.",
    ]


def measure(windows, epochs):
    one, two = launch(1, windows, epochs), launch(2, windows, epochs)
    if one["bits"] != two["bits"]:
        sys.exit("one rank and two have other bits")
    weak = launch(2, 2 * windows, epochs)
    rows = (
        ("1 rank", one, windows, 1.0),
        ("2 ranks, strong", two, windows, one["epoch"] / two["epoch"]),
        ("2 ranks, weak", weak, 2 * windows, 2 * one["epoch"] / weak["epoch"]),
    )
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
    for name, found, count, gain in rows:
        lines.append(
            f"| {name} | {count} | {1e3 * found['epoch']:.1f} | {gain:.2f} | "
            f"{1e3 * found['exchange']:.3f} | {1e3 * found['alone']:.3f} |"
        )
    return rows, [
        *lines,
        "",
        "With waiting: in training, for a rank that comes late. Alone: a thousand in a row.",
    ]


def epochs_modelled(one):
    """Seconds that an epoch takes on one rank: as measured, and longer."""
    return one["epoch"], 0.1, 1.0, 10.0


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
    for compute in epochs_modelled(one):
        for name, (latency, per_byte) in NETWORKS.items():
            gains = [compute / modelled(compute, size, p, latency, per_byte) for p in RANKS]
            cells = " | ".join(f"{gain:.1f}" for gain in gains)
            lines.append(f"| {1e3 * compute:.1f} ms | {name} | {cells} |")
    return lines


def draw(rows, path):
    """Draw what was measured on the left, and what is only modelled on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    names = [f"{name.replace(', ', ': ')}\n{count} windows" for name, _, count, _ in rows]
    bars = left.bar(
        names, [1e-3 * count / found["epoch"] for _, found, count, _ in rows], color="C0"
    )
    left.bar_label(bars, [f"{gain:.2f} times" for *_, gain in rows])
    left.set(title="measured", ylabel="thousand windows a second")
    left.margins(y=0.12)
    one = rows[0][1]
    ranks = 2 ** np.arange(13)
    for number, compute in enumerate(epochs_modelled(one)):
        for (name, assumed), style in zip(NETWORKS.items(), ("-", "--"), strict=True):
            shares = [
                100 * compute / p / modelled(compute, one["bytes"], p, *assumed) for p in ranks
            ]
            label = f"{1e3 * compute:.0f} ms, {name}"
            right.plot(ranks, shares, style, color=f"C{number}", label=label)
    right.set_xscale("log", base=2)
    right.set_xticks(ranks[::2], [str(p) for p in ranks[::2]])
    right.set(title="modelled, not measured", xlabel="ranks", ylabel="efficiency, %", ylim=(0, 105))
    right.legend(fontsize="small", title="epoch on one rank, network", loc="lower left")
    for ax in (left, right):
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument(
        "--large",
        type=int,
        metavar="N",
        help="also N windows from files, of which each rank has its own",
    )
    parser.add_argument("--out", type=Path, help="a path without its ending")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--files", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank_main(arguments)
        return
    rows, lines = measure(arguments.windows, arguments.epochs)
    if arguments.large:
        lines += ["", *large(arguments.large)]
    lines += ["", *model(rows[0][1])]
    text = "\n".join(["# Several ranks", "", *lines, ""])
    print(text)
    if arguments.out is None:
        return
    try:
        draw(rows, arguments.out.with_suffix(".png"))
        text += f"\n![Measured and modelled]({arguments.out.name}.png)\n"
    except ImportError:
        print("no picture: it needs matplotlib")
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
