"""Train on windows in files, alone or on ranks of MPI; the same command again goes on.

    python scripts/train_windows.py windows --out run
    mpiexec -n 4 python scripts/train_windows.py windows --out run
    mpiexec -n 4 python scripts/train_windows.py /local/windows --sharded --out run
    mpiexec -n 4 python scripts/train_windows.py windows/{rank} --sharded --out run

The folder has x-*.npy, each (n, T, I), and y-*.npy, each (n, O), which follow each other as their
names do as text. All ranks see the same files and read what they compute, or, with --sharded, each
has a folder of its own; {rank} in its name stands for the rank's number. Rank 0 writes
run/last.safetensors, which all must be able to read; a run goes on up to --epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rnn_xp as rx
from rnn_xp.distributed import launched_ranks, mpi, take_own_gpu
from rnn_xp.training.callbacks import Checkpoint, Progress


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", help="with x-*.npy and y-*.npy")
    add("--out", type=Path, required=True, help="folder of the checkpoint")
    add("--sharded", action="store_true", help="the folder is of this rank alone; full batch only")
    add("--cell", default="rnn", choices=["rnn", "gru", "lstm"], help="(default %(default)s)")
    add("--hidden-size", type=int, default=50, metavar="H", help="(default %(default)s)")
    add("--learning-rate", type=float, default=0.01, metavar="R", help="of Adam (default 0.01)")
    add("--epochs", type=int, default=50, help="(default %(default)s)")
    add("--batch-size", type=int, metavar="B", help="the full batch by default")
    args = parser.parse_args()

    comm = mpi() if launched_ranks() > 1 else None
    rank = 0 if comm is None else comm.rank
    if comm is not None:
        take_own_gpu(comm)  # before anything looks for a GPU
    folder = Path(args.folder.replace("{rank}", str(rank)))
    files = {name: sorted(folder.glob(f"{name}-*.npy")) for name in "xy"}
    if not all(files.values()):
        raise FileNotFoundError(f"{folder} has no x-*.npy, or no y-*.npy")
    x, y = (rx.open_shards(files[name]) for name in "xy")
    if (len(x.shape), len(y.shape)) != (3, 2):
        raise ValueError(f"x must be (n, T, I) and y (n, O); these are {x.shape} and {y.shape}")
    net = rx.Network(
        cell=args.cell, hidden_size=args.hidden_size, input_size=x.shape[-1],
        output_size=y.shape[-1],
    )  # fmt: skip
    last = args.out / "last.safetensors"
    resume = last if last.exists() else None
    if rank == 0:
        args.out.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        result = rx.fit(
            net, x, y,
            optimizer=rx.optim.adam(args.learning_rate), epochs=args.epochs,
            batch_size=args.batch_size, comm=comm, sharded=args.sharded, resume=resume,
            callbacks=[] if rank else [Checkpoint(args.out), progress],
        )  # fmt: skip
    if rank == 0:
        losses = result.history["loss"]
        print(f"loss {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} epochs, {last}")


if __name__ == "__main__":
    main()
