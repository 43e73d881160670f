"""``rnn-xp bench``: time an epoch of training on this machine and backend."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np

from rnn_xp import optim
from rnn_xp.backend import get_backend
from rnn_xp.cells import CELLS
from rnn_xp.cli import options
from rnn_xp.network import Network
from rnn_xp.training.callbacks import Epoch
from rnn_xp.training.trainer import fit

__all__ = ["add_command"]

_WARM_UP = 3  # epochs in which memory is taken and kernels are compiled


def add_command(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "bench",
        description="Time epochs of Adam over a full batch of random windows.",
        epilog="example: RNN_XP_BACKEND=torch rnn-xp bench --cell gru --rows 8317",
    )
    add = command.add_argument
    add("--cell", default="rnn", choices=[*CELLS])
    add("--rows", type=int, default=8317, metavar="N", help="windows (%(default)s)")
    add("--seq-length", type=int, default=10, metavar="T", help="steps (%(default)s)")
    add("--inputs", type=int, default=1, metavar="I", help="values per step (%(default)s)")
    add("--hidden-size", type=int, default=50, metavar="H", help="hidden units (%(default)s)")
    add("--epochs", type=int, default=20, help="epochs to time (%(default)s)")
    add("--workers", type=int, help="threads on NumPy; all cores by default")
    options.add_backend_options(add)
    add("--json", action="store_true", help="print one line of JSON")
    command.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> int:
    for name in ("rows", "seq_length", "inputs", "hidden_size", "epochs", "workers"):
        options.check_whole(f"--{name.replace('_', '-')}", getattr(args, name), 1)
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    net = Network(cell=args.cell, input_size=args.inputs, hidden_size=args.hidden_size)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.rows, args.seq_length, args.inputs))
    y = rng.standard_normal((args.rows, 1))
    moments: list[float] = []

    def note(epoch: Epoch) -> None:
        backend.synchronize()
        moments.append(time.perf_counter())

    result = fit(
        net, x.astype(backend.dtype_name), y.astype(backend.dtype_name),
        optimizer=optim.adam(0.001), epochs=args.epochs + _WARM_UP, workers=args.workers,
        backend=backend, callbacks=[note],
    )  # fmt: skip
    # An engine may do several epochs at once and report them together.
    seconds = (moments[-1] - moments[_WARM_UP - 1]) / args.epochs
    each = [b - a for a, b in zip(moments[_WARM_UP - 1 :], moments[_WARM_UP:], strict=False)]
    median = statistics.median(each) or seconds
    measured = {
        "backend": backend.name, "device": backend.device_name, "dtype": backend.dtype_name,
        "engine": result.engine, "epochs": args.epochs, "mean_ms": 1e3 * seconds,
        "median_ms": 1e3 * median, "windows_per_second": args.rows / seconds,
    }  # fmt: skip
    if args.json:
        print(json.dumps(measured))
        return 0
    print(f"backend  {backend}, engine {result.engine}")
    print(f"model    {options.describe_network(net)}")
    print(f"data     {args.rows} windows of {args.seq_length} steps of {args.inputs}, random")
    print(f"epoch    {1e3 * seconds:.3g} ms, the mean of {args.epochs}, median "
          f"{1e3 * median:.3g} ms: {args.rows / seconds:,.0f} windows/s")  # fmt: skip
    return 0
