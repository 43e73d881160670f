"""``rnn-xp train``: train on the first part of a series and judge on the rest."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnn_xp.backend import Backend, get_backend
from rnn_xp.cli import options, ranks
from rnn_xp.cli.interrupts import Interrupts, signal_in
from rnn_xp.cli.optimizers import add_optimizer_options, choose_optimizer
from rnn_xp.cli.run_folder import RUN_FILES, RunFolder, load_arguments, new_folder_name
from rnn_xp.cli.summary import summarize, where
from rnn_xp.distributed import take_own_gpu
from rnn_xp.forecasting import (
    SplitSeries,
    compare,
    follows_last_value,
    score_table,
    verdict,
)
from rnn_xp.forecasting.model import Model, describe_model
from rnn_xp.network import Network
from rnn_xp.training.callbacks import Checkpoint, Epoch, Progress
from rnn_xp.training.inputs import split_rows
from rnn_xp.training.result import FitResult
from rnn_xp.training.trainer import fit
from rnn_xp.training.watch import DivergenceError

__all__ = ["add_command"]

# What may differ when a run is resumed; of these the settings of the run are only the defaults.
_FREE = {"data", "epochs", "patience", "workers", "backend", "device", "checkpoint_every"}
_NOT_OF_THE_RUN = {
    *("run", "argv", "json", "force", "out", "resume", "data_sha256", "config"),
}
_RESULTS = set(RUN_FILES) - {"config.toml", "last.safetensors", "best.safetensors"}


def add_command(commands: Any) -> None:
    """Add the command."""
    command = options.add_parser(
        commands,
        "train",
        description="Train on the first part of a series, test on the rest.",
        example="rnn-xp train --data prices.csv --column close --cell gru --epochs 100",
    )
    options.add_data_options(command)
    options.add_network_options(command)
    add = command.add_argument_group("training").add_argument
    add("--epochs", type=int, default=300, help="(%(default)s)")
    add("--batch-size", type=int, metavar="B", help="1..N; the full batch by default")
    add_optimizer_options(add)
    add("--validation", type=float, metavar="F", help="share of the training part to validate on")
    add("--patience", type=int, metavar="K", help="end after K epochs without a lower loss")
    add("--workers", type=int, help="threads on NumPy; all cores by default")
    add("--checkpoint-every", type=int, metavar="K", help="epochs; every 20 s by default")
    add("--reduction", default="exact", choices=["exact", "fast"], help="of ranks under mpiexec")
    add("--resume", type=Path, metavar="DIR", help="go on with an interrupted run")
    options.add_common_options(command, "runs/DATA-CELL")
    command.set_defaults(run=functools.partial(_train, command))


def _train(command: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    comm = ranks.join()  # before anything that could fail on one of them
    args = options.with_config(command, args)
    if args.resume is not None:
        args = _resumed(command, args)
    for option, value, low in (
        ("--epochs", args.epochs, 1),
        ("--workers", args.workers, 1),
        ("--seed", args.seed, 0),
        ("--warmup", args.warmup, 1),
        ("--patience", args.patience, 1),
        ("--checkpoint-every", args.checkpoint_every, 1),
    ):
        options.check_whole(option, value, low)
    if comm is not None:
        take_own_gpu(comm, args.device)
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    split = options.load_split(args, backend.dtype_name)
    if args.resume is not None and split.series.sha256 != args.data_sha256:
        raise ValueError(
            f"{args.data} has changed since the run in {args.resume} was begun. Give the file it "
            "was begun with as --data, or begin another run."
        )
    rows = _rows_trained_on(args, len(split.x))
    options.check_whole("--batch-size", args.batch_size, 1, rows)
    net = options.make_network(args)
    optimizer, reason = choose_optimizer(args, rows)
    settings = {
        "optimizer": optimizer,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "validation": args.validation,
        "patience": args.patience,
        "seed": args.seed,
        "workers": args.workers,
        "backend": backend,
        "comm": comm,
        "reduction": args.reduction,
    }
    if comm is not None and comm.rank:
        return ranks.follow(net, split, settings, args.resume)
    out = args.resume or args.out
    out = out or new_folder_name(Path("runs"), f"{split.series.name}-{args.cell}")
    config = _config(args, backend, optimizer)
    say = _silent if args.json else print
    with RunFolder(out, force=args.force or args.resume is not None) as folder:
        for line in (
            *_preamble(args, backend, split, net, reason, rows),
            *ranks.describe(comm),
        ):
            say(line)
        begin = _Begin(folder, config if args.resume is None else None)
        checkpoint = Checkpoint(
            folder.path,
            every=args.checkpoint_every,
            about={
                **describe_model(split.scaler, args.seq_length, args.horizon),
                "arguments": {**_arguments(args), **where(backend)},
                "data": split.series.sha256,
            },
        )
        try:
            with Progress(lines=0 if args.json else 10) as progress, Interrupts() as interrupts:
                result = fit(
                    net,
                    split.x,
                    split.y,
                    **settings,
                    resume=checkpoint.last if args.resume else None,
                    callbacks=[interrupts, begin, checkpoint, progress],
                )
            done = len(result.history["loss"])
            signal = interrupts.signal or signal_in(result.stopped)  # or another rank's
            if signal and done < args.epochs:
                print(
                    f"rnn-xp: {result.stopped} after epoch {done} of {args.epochs}; go on with: "
                    f"rnn-xp train --resume {folder.path}",
                    file=sys.stderr,
                )
                return 128 + signal
            summary = _finish(args, folder, backend, split, net, config, result, say)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_what_is_left(folder, checkpoint)) from None
        except DivergenceError as error:
            begin()
            folder.remove(_RESULTS)
            folder.write_history(error.history)
            folder.write_model(
                Model(net, error.params, split.scaler, args.seq_length, args.horizon)
            )
            print(f"the last good model is in {folder.path}/", file=sys.stderr)
            raise
        say(f"wrote    {folder.path}/")
    if args.json:
        print(json.dumps({"out": str(folder.path), **summary}, default=dataclasses.asdict))
    return 0


def _resumed(command: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """Parse again with the run's settings as defaults, and refuse what contradicts them."""
    if args.out is not None or args.force:
        raise ValueError("--resume goes on in the run's own folder: leave out --out and --force.")
    if args.resume.is_file():
        args.resume = args.resume.parent
    settings, args.data_sha256 = load_arguments(args.resume)
    if settings.keys() != _arguments(args).keys():
        raise ValueError(f"--resume {args.resume} is a run of another version.")
    if args.backend or os.environ.get("RNN_XP_BACKEND", "").strip():  # another than the run's
        settings["backend"] = settings["device"] = None
    command.set_defaults(**settings)
    kept = {"argv": args.argv, "resume": args.resume, "data_sha256": args.data_sha256}
    args = command.parse_args(args.argv[1:])
    vars(args).update(kept)
    for key, value in settings.items():
        if key not in _FREE and (given := getattr(args, key)) != value:
            option = f"--{key.replace('_', '-')}" + ("" if given is True else f" {given}")
            was = "without" if value is None or value is False else f"with {value}"
            raise ValueError(
                f"{option} contradicts --resume {args.resume}, which was begun {was}. Leave it out."
            )
    return args


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    return {key: value for key, value in vars(args).items() if key not in _NOT_OF_THE_RUN}


class _Begin:
    """Put a new run in the place of an old one, once its first epoch shows that it can be run."""

    def __init__(self, folder: RunFolder, config: dict[str, Any] | None) -> None:
        self.folder, self.config = folder, config

    def __call__(self, epoch: Epoch | None = None) -> None:
        if self.config is not None:
            self.folder.remove(RUN_FILES)
            self.folder.write_config(self.config)
            self.config = None


def _rows_trained_on(args: argparse.Namespace, windows: int) -> int:
    """How many windows the validation leaves."""
    if args.validation is None:
        return windows
    if not 0.0 < args.validation < 1.0:
        raise ValueError(f"--validation must be a share in (0, 1), got {args.validation:g}.")
    try:
        trained, _ = split_rows(windows, args.validation, args.seq_length + args.horizon - 1)
    except ValueError:
        raise ValueError(
            f"--validation {args.validation:g} leaves none of {windows} windows to train on. Give "
            "a smaller share or more data."
        ) from None
    return trained


def _what_is_left(folder: RunFolder, checkpoint: Checkpoint) -> str:
    """Say what a training leaves that ended at once."""
    if checkpoint.last.exists():
        return f"go on with: rnn-xp train --resume {folder.path}"
    return "nothing was written"


def _finish(
    args: argparse.Namespace,
    folder: RunFolder,
    backend: Backend,
    split: SplitSeries,
    net: Network,
    config: dict[str, Any],
    result: FitResult,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Judge what was trained, and write the files; returns what metrics.json says."""
    done = len(result.history["loss"])
    why = result.engine_reason and f": {result.engine_reason}"
    say(f"engine   {result.engine}{why}")
    if result.stopped:
        say(f"stopped after {_epochs(done)}: {result.stopped}")
    if result.best_epoch is not None:
        say(f"keeping the parameters of epoch {result.best_epoch}, whose validation loss is lowest")
    params = result.params if result.best_params is None else result.best_params
    model = Model(net, params, split.scaler, args.seq_length, args.horizon)
    forecasts = {**split.baselines(), args.cell: model.predict(split.x_test, backend)}
    scores = compare(split.truth(), forecasts, split.train)
    summary = {
        **summarize(config, backend, split, net, result, scores),
        "follows_last_value": follows_last_value(
            args.cell, forecasts[args.cell], split.truth(), split.last_values()
        ),
    }
    folder.write_config(config)  # of a resumed run, only now is it known to be the same
    folder.write_model(model)
    folder.write_history(result.history)
    folder.write_predictions(split, forecasts)
    folder.write_metrics(summary)
    for line in (*score_table(scores, split.series.unit), f"verdict  {verdict(scores)}"):
        say(line)
    if summary["follows_last_value"]:
        say(f"warning  {summary['follows_last_value']}")
    # Far from the others, the mean would flatten the picture; drift is all but persistence.
    drawn = {name: f for name, f in forecasts.items() if name not in ("drift", "mean")}
    try:
        folder.write_plots(result.history, split, drawn)
    except ImportError as error:
        say(f"no plots: {error}")
    return summary


def _preamble(
    args: argparse.Namespace,
    backend: Backend,
    split: SplitSeries,
    net: Network,
    reason: str,
    rows: int,
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
    if args.validation is not None:
        share = f"{args.validation:g} of the windows, the last of them, after a gap"
        lines.insert(3, f"         validation on {share}: {rows} are trained on")
    return [*lines, f"warning  {split.warning}"] if split.warning else lines


def _epochs(count: int) -> str:
    return f"{count} epoch" if count == 1 else f"{count} epochs"


def _config(args: argparse.Namespace, backend: Backend, optimizer: Any) -> dict[str, Any]:
    """Everything that defines the run, defaults resolved."""
    config = _arguments(args)
    del config["learning_rate"]
    for field in dataclasses.fields(optimizer):
        value = getattr(optimizer, field.name)
        flat = value if value is None or isinstance(value, bool | int | float) else repr(value)
        config[f"optimizer_{field.name}"] = flat
    return {**config, "optimizer": type(optimizer).__name__.lower(), **where(backend)}


def _silent(line: str) -> None:
    """Print nothing."""
