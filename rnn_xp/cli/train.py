"""``rnn-xp train``: train on the first part of a series and judge on the rest."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rnn_xp import __version__, optim
from rnn_xp.backend import Backend, get_backend
from rnn_xp.callbacks import Progress
from rnn_xp.cli import options
from rnn_xp.forecasting import Score, SplitSeries, compare, verdict
from rnn_xp.network import Network
from rnn_xp.runs import RUN_FILES, Model, RunFolder, new_folder_name
from rnn_xp.trainer import DivergenceError, FitResult, fit

__all__ = ["add_command"]

_OPTIMIZERS = {"lbfgs": optim.LBFGS, "adam": optim.Adam, "sgd": optim.SGD}


def add_command(commands: Any) -> None:
    """Add the command."""
    command = options.add_parser(
        commands,
        "train",
        help="train a network on a series and judge it beside the baselines",
        description="Train on the first part of a series, test on the rest.",
        example="rnn-xp train --data prices.csv --column close --cell gru --epochs 100",
    )
    options.add_data_options(command)
    options.add_network_options(command)
    add = command.add_argument_group("training").add_argument
    add("--epochs", type=int, default=300, help="(%(default)s)")
    add("--batch-size", type=int, metavar="B", help="1..N; the full batch by default")
    add("--optimizer", choices=list(_OPTIMIZERS), help="lbfgs for a full batch, else adam")
    add("--learning-rate", type=float, metavar="R", help="of adam (0.01) and sgd (0.1)")
    add("--workers", type=int, help="threads on NumPy; all cores by default")
    options.add_common_options(command, "runs/DATA-CELL")
    command.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    for option, value, low in (
        ("--epochs", args.epochs, 1),
        ("--workers", args.workers, 1),
        ("--seed", args.seed, 0),
    ):
        options.check_whole(option, value, low)
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    split = options.load_split(args, backend.dtype_name)
    options.check_whole("--batch-size", args.batch_size, 1, len(split.x))
    net = options.make_network(args)
    optimizer, reason = _choose_optimizer(args, len(split.x))
    out = args.out or new_folder_name(Path("runs"), f"{split.series.name}-{args.cell}")
    say = _silent if args.json else print
    with RunFolder(out, force=args.force) as folder:
        for line in _preamble(args, backend, split, net, reason):
            say(line)
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
        except KeyboardInterrupt:
            raise KeyboardInterrupt("nothing was written") from None
        except DivergenceError as error:
            folder.remove(RUN_FILES)
            folder.write_config(_config(args, backend, optimizer))
            folder.write_history(error.history["loss"])
            folder.write_model(
                Model(net, error.params, split.scaler, args.seq_length, args.horizon)
            )
            print(f"the last good model is in {folder.path}/", file=sys.stderr)
            raise
        if result.stopped:
            say(f"stopped after {_epochs(len(result.history['loss']))}: {result.stopped}")

        model = Model(net, result.params, split.scaler, args.seq_length, args.horizon)
        forecasts = {**split.baselines(), args.cell: model.predict(split.x_test, backend)}
        scores = compare(split, forecasts)
        summary = _summary(args, backend, split, net, optimizer, result, scores)
        folder.remove(RUN_FILES)
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


def _choose_optimizer(args: argparse.Namespace, rows: int) -> tuple[Any, str]:
    """Return the optimiser, and the sentence that says which and why."""
    full_batch = args.batch_size in (None, rows)
    noisy = bool(args.dropout or args.recurrent_dropout)
    name = args.optimizer or ("lbfgs" if full_batch and not noisy else "adam")
    if args.learning_rate is not None and name == "lbfgs":
        raise ValueError(
            "--learning-rate has no meaning for lbfgs, whose line search finds the step; "
            "add --optimizer adam or sgd."
        )
    if name == "lbfgs" and (noisy or not full_batch):
        given = "dropout" if full_batch else f"--batch-size {args.batch_size}"
        raise ValueError(
            f"--optimizer lbfgs needs the full batch of {rows} without dropout: its line search "
            f"compares losses, which must be those of one function. Leave out {given}, or take "
            "--optimizer adam."
        )
    rate = (
        {"adam": 0.01, "sgd": 0.1}.get(name) if args.learning_rate is None else args.learning_rate
    )
    optimizer = _OPTIMIZERS[name]() if rate is None else _OPTIMIZERS[name](rate)
    batch = f"full batch of {rows}" if full_batch else f"batches of {args.batch_size} from {rows}"
    why = {
        "lbfgs": "L-BFGS (a full-batch gradient is exact, so its curvature can be used)",
        "adam": "Adam",
        "sgd": "SGD",
    }[name]
    if not args.optimizer and name == "adam":
        noise = "gradients with dropout" if full_batch else "gradients of minibatches"
        why += f" ({noise} are noisy; L-BFGS needs exact ones)"
    return optimizer, f"{batch}, {why}"


def _preamble(
    args: argparse.Namespace, backend: Backend, split: SplitSeries, net: Network, reason: str
) -> list[str]:
    windows = len(split.x)
    lines = [
        f"backend  {backend}",
        f"data     {options.describe_data(args, split.series)}",
        f"split    train {len(split.train)} rows -> {windows} windows | "
        f"test {len(split.test)} rows -> {len(split.x_test)} windows (by time)",
        f"model    {options.describe_network(net)}",
        f"training {reason}, {_epochs(args.epochs)}, seed {args.seed}",
    ]
    return [*lines, f"warning  {split.warning}"] if split.warning else lines


def _epochs(count: int) -> str:
    return f"{count} epoch" if count == 1 else f"{count} epochs"


def _table(scores: list[Score], unit: str) -> list[str]:
    width = max(len(score.name) for score in scores)
    of_unit = f" {unit}" if unit else ""
    columns = [f"RMSE{of_unit}", f"MAE{of_unit}", "MASE", "skill"]
    lines = [f"{'test':{width}}  " + "  ".join(f"{name:>9}" for name in columns)]
    for score in scores:
        cells = [
            f"{score.rmse:.4f}",
            f"{score.mae:.4f}",
            "-" if score.mase is None else f"{score.mase:.3f}",
            "-" if score.skill is None else f"{100 * score.skill:.1f} %",
        ]
        lines.append(
            f"{score.name:{width}}  "
            + "  ".join(f"{c:>{max(9, len(n))}}" for c, n in zip(cells, columns, strict=True))
        )
    return [*lines, f"verdict  {verdict(scores)}"]


def _config(args: argparse.Namespace, backend: Backend, optimizer: Any) -> dict[str, Any]:
    """Everything that defines the run, defaults resolved."""
    skip = {"run", "argv", "json", "force", "out", "learning_rate"}
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
        "warning": split.warning or None,
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


def _silent(line: str) -> None:
    """Print nothing."""
