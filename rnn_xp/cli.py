"""The command line: ``rnn-xp train | backends | datasets``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rnn_xp import __version__, datasets, optim
from rnn_xp.backend import Backend, BackendError, backends, get_backend
from rnn_xp.callbacks import Progress
from rnn_xp.forecasting import Score, SplitSeries, compare, split_series, verdict
from rnn_xp.network import Network
from rnn_xp.runs import Model, RunFolder, new_folder_name
from rnn_xp.trainer import DivergenceError, FitResult, fit

__all__ = ["main"]

_OPTIMIZERS = {"lbfgs": optim.LBFGS, "adam": optim.Adam, "sgd": optim.SGD}

# Errors that a user can repair; anything else is a fault of ours and shows its traceback.
_USER_ERRORS = (BackendError, ValueError, TypeError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 done, 1 training diverged, 2 bad input or backend, 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except DivergenceError as error:
        print(f"rnn-xp: {error}", file=sys.stderr)
        return 1
    except _USER_ERRORS as error:
        print(f"rnn-xp: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rnn-xp: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnn-xp",
        description="Recurrent networks with explicit backpropagation through time.",
    )
    parser.add_argument("--version", action="version", version=f"rnn-xp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    command = commands.add_parser("backends", help="what is installed and usable, and why not")
    command.add_argument("--json", action="store_true", help="print one line of JSON")
    command.set_defaults(run=_backends)
    command = commands.add_parser("datasets", help="the series that come with the package")
    command.set_defaults(run=_datasets)
    return parser


def _add_train(commands: Any) -> None:
    command = commands.add_parser(
        "train",
        help="train a network on a series and judge it beside the baselines",
        description="Train on the first part of a series, test on the rest.",
        epilog="example: rnn-xp train --data prices.csv --column close --hidden-size 32",
    )
    add = command.add_argument
    add("--data", default="length_of_day", help="a bundled series or a CSV file (%(default)s)")
    add("--column", help="column of the CSV file, by name or by index from 0")
    add("--missing", default="error", choices=["error", "drop", "interpolate"])
    add("--seq-length", type=int, default=10, metavar="T", help="values per window (%(default)s)")
    add("--horizon", type=int, default=1, help="steps ahead to forecast (%(default)s)")
    add("--train-fraction", type=float, default=0.8, metavar="F", help="(%(default)s)")
    add("--scaler", default="standard", choices=["standard", "minmax", "none"])
    add("--cell", default="rnn", choices=["rnn"])
    add("--hidden-size", type=int, default=50, metavar="H", help="(%(default)s)")
    add("--activation", default="tanh", choices=["tanh", "relu"])
    add("--epochs", type=int, default=300, help="(%(default)s)")
    add("--batch-size", type=int, metavar="B", help="1..N; the full batch by default")
    add("--optimizer", choices=list(_OPTIMIZERS), help="lbfgs for a full batch, else adam")
    add("--learning-rate", type=float, metavar="R", help="of adam (0.01) and sgd (0.1)")
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--workers", type=int, help="threads on NumPy; all cores by default")
    add("--backend", help="over RNN_XP_BACKEND: numpy, cupy, torch, jax, array_api_strict, auto")
    add("--device", help="over RNN_XP_DEVICE: cpu, cuda:0, ...")
    add("--dtype", help="over RNN_XP_DTYPE: float32 or float64")
    add("--out", type=Path, help="run folder (runs/DATA-CELL-1, -2, ...)")
    add("--force", action="store_true", help="replace the files of a run in an existing folder")
    add("--json", action="store_true", help="print one line of JSON and nothing else")
    command.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    split = split_series(
        _load_series(args),
        seq_length=args.seq_length,
        horizon=args.horizon,
        train_fraction=args.train_fraction,
        scaler=args.scaler,
        dtype=backend.dtype_name,
    )
    net = Network(
        cell=args.cell,
        input_size=1,
        hidden_size=args.hidden_size,
        output_size=args.horizon,
        activation=args.activation,
    )
    optimizer, reason = _choose_optimizer(args, len(split.x))
    out = args.out or new_folder_name(Path("runs"), f"{split.series.name}-{args.cell}")
    say = _silent if args.json else print
    for line in _preamble(args, backend, split, net, reason):
        say(line)

    with RunFolder(out, force=args.force) as folder:
        try:
            with Progress(lines=0 if args.json else 10) as progress:
                result = fit(
                    net,
                    split.x,
                    split.y,
                    optimizer=optimizer,
                    epochs=args.epochs,
                    batch_size=args.batch_size,
                    seed=args.seed,
                    workers=args.workers,
                    backend=backend,
                    callbacks=[progress],
                )
        except DivergenceError as error:
            folder.write_config(_config(args, backend, optimizer))
            folder.write_history(error.history["loss"])
            folder.write_model(
                Model(net, error.params, split.scaler, args.seq_length, args.horizon)
            )
            print(f"the last good model is in {folder.path}/", file=sys.stderr)
            raise
        if result.stopped:
            say(f"stopped after {len(result.history['loss'])} epochs: {result.stopped}")

        model = Model(net, result.params, split.scaler, args.seq_length, args.horizon)
        forecasts = {**split.baselines(), args.cell: model.predict(split.x_test, backend)}
        scores = compare(split, forecasts)
        summary = _summary(args, backend, split, net, optimizer, result, scores)
        folder.write_config(summary["config"])
        folder.write_model(model)
        folder.write_history(result.history["loss"])
        folder.write_predictions(split, forecasts)
        folder.write_metrics(summary)
        for line in _table(scores, split.series.unit):
            say(line)
        try:
            folder.write_plots(result.history["loss"], split, forecasts)
        except ImportError as error:
            say(f"no plots: {error}")
        say(f"wrote    {folder.path}/")
    if args.json:
        print(json.dumps({"out": str(folder.path), **summary}, default=dataclasses.asdict))
    return 0


def _load_series(args: argparse.Namespace) -> datasets.Series:
    if args.data in datasets.names():
        return datasets.load(args.data)
    if not Path(args.data).exists():
        raise ValueError(
            f"--data {args.data!r} is neither a bundled series "
            f"({', '.join(datasets.names())}) nor a file."
        )
    column = int(args.column) if args.column and args.column.isdecimal() else args.column
    return datasets.read_csv(args.data, column=column, missing=args.missing)


def _choose_optimizer(args: argparse.Namespace, rows: int) -> tuple[Any, str]:
    """Return the optimiser, and the sentence that says which and why."""
    full_batch = args.batch_size in (None, rows)
    name = args.optimizer or ("lbfgs" if full_batch else "adam")
    if args.learning_rate is not None and name == "lbfgs":
        raise ValueError(
            "--learning-rate has no meaning for lbfgs, whose line search finds the step; "
            "add --optimizer adam or sgd."
        )
    rates = {"adam": 0.01, "sgd": 0.1}
    optimizer = (
        _OPTIMIZERS[name](args.learning_rate or rates[name])
        if name in rates
        else _OPTIMIZERS[name]()
    )
    batch = f"full batch of {rows}" if full_batch else f"batches of {args.batch_size} from {rows}"
    why = {
        "lbfgs": "L-BFGS (a full-batch gradient is exact, so its curvature can be used)",
        "adam": "Adam",
        "sgd": "SGD",
    }[name]
    if not full_batch and not args.optimizer:
        why += " (gradients of minibatches are noisy; L-BFGS needs exact ones)"
    return optimizer, f"{batch}, {why}"


def _preamble(
    args: argparse.Namespace, backend: Backend, split: SplitSeries, net: Network, reason: str
) -> list[str]:
    series, windows = split.series, len(split.x)
    span = f" {series.dates[0]}..{series.dates[-1]}" if series.dates else ""
    lines = [
        f"backend  {backend}",
        f"data     {series.name}: {len(series.values)} rows{span}, sha256 {series.sha256[:8]}",
        f"split    train {len(split.train)} rows -> {windows} windows | "
        f"test {len(split.test)} rows -> {len(split.x_test)} windows (by time)",
        f"model    {net.cell.upper()} 1x{net.hidden_size} ({net.activation}) + readout "
        f"{net.output_size}: {net.num_parameters} parameters",
        f"training {reason}, {args.epochs} epochs, seed {args.seed}",
    ]
    return [*lines, f"warning  {split.warning}"] if split.warning else lines


def _table(scores: list[Score], unit: str) -> list[str]:
    width = max(len(score.name) for score in scores)
    of_unit = f" {unit}" if unit else ""
    columns = [f"RMSE{of_unit}", f"MAE{of_unit}", "MASE", "skill"]
    lines = [f"{'test':{width}}  " + "  ".join(f"{name:>9}" for name in columns)]
    for score in scores:
        cells = [
            f"{score.rmse:.4f}",
            f"{score.mae:.4f}",
            f"{score.mase:.3f}",
            f"{100 * score.skill:.1f} %",
        ]
        lines.append(
            f"{score.name:{width}}  "
            + "  ".join(f"{c:>{max(9, len(n))}}" for c, n in zip(cells, columns, strict=True))
        )
    return [*lines, f"verdict  {verdict(scores)}"]


def _config(args: argparse.Namespace, backend: Backend, optimizer: Any) -> dict[str, Any]:
    """Everything that defines the run, defaults resolved."""
    skip = {"run", "json", "force", "out", "learning_rate"}
    config = {key: value for key, value in vars(args).items() if key not in skip}
    return {
        **config,
        "optimizer": type(optimizer).__name__.lower(),
        **{f"optimizer_{k}": v for k, v in dataclasses.asdict(optimizer).items()},
        "backend": backend.name,
        "device": backend.device_name,
        "dtype": backend.dtype_name,
    }


def _summary(
    args: argparse.Namespace,
    backend: Backend,
    split: SplitSeries,
    net: Network,
    optimizer: Any,
    result: FitResult,
    scores: list[Score],
) -> dict[str, Any]:
    series, losses = split.series, result.history["loss"]
    packages = ("numpy", "array-api-compat", "safetensors", "threadpoolctl")
    return {
        "rnn_xp": __version__,
        "git": _git_revision(),
        "argv": sys.argv,
        "config": _config(args, backend, optimizer),
        "data": {
            "name": series.name,
            "column": series.column,
            "unit": series.unit,
            "source": series.source,
            "sha256": series.sha256,
            "rows": len(series.values),
            "first": series.dates[0] if series.dates else None,
            "last": series.dates[-1] if series.dates else None,
        },
        "split": {
            "train_rows": len(split.train),
            "test_rows": len(split.test),
            "train_windows": len(split.x),
            "test_windows": len(split.x_test),
        },
        "scaler": split.scaler,
        "parameters": net.num_parameters,
        "backend": {
            "name": backend.name,
            "version": backend.version,
            "device": backend.device_name,
            "dtype": backend.dtype_name,
        },
        "versions": {name: metadata.version(name) for name in packages},
        "engine": {
            "name": "portable",
            "block_rows": result.block_rows,
            "workers": result.workers,
        },
        "epochs": len(losses),
        "stopped": result.stopped,
        "evaluations": result.evaluations,
        "seconds": result.seconds,
        "seconds_per_epoch": result.seconds / len(losses),
        "final_loss": losses[-1],
        "scores": scores,
        "verdict": verdict(scores),
    }


def _git_revision() -> str | None:
    """Revision of the checkout this package runs from, if it is one and git is there."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _backends(args: argparse.Namespace) -> int:
    statuses = backends()
    if args.json:
        print(json.dumps([dataclasses.asdict(status) for status in statuses]))
        return 0
    rows = [("backend", "installed", "usable", "devices")]
    for status in statuses:
        version = status.version if status.installed else "no"
        usable = "yes" if status.usable else "no"
        rows.append((status.name, version or "yes", usable, ", ".join(status.devices) or "-"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join([*(f"{c:{w}}" for c, w in zip(row, widths, strict=False)), row[3]]))
    for status in statuses:
        if status.reason:
            print(f"{status.name}: {status.reason}")
    selected = os.environ.get("RNN_XP_BACKEND", "").strip() or "numpy (default)"
    print(f"selected by RNN_XP_BACKEND: {selected}")
    return 0


def _datasets(args: argparse.Namespace) -> int:
    for dataset in datasets.CATALOGUE.values():
        rows = len(datasets.load(dataset.name).values)
        print(f"{dataset.name:14} {rows} rows, {dataset.unit}: {dataset.title}")
        print(f"{'':14} source: {dataset.source}")
    return 0


def _silent(line: str) -> None:
    """Print nothing."""


if __name__ == "__main__":
    sys.exit(main())
