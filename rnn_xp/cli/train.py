"""``rnn-xp train``: train a forecaster on the first part of a series, judge it on the rest."""

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

from rnn_xp.backend import get_backend
from rnn_xp.cli import options, ranks
from rnn_xp.cli.features import ALSO, add_feature_options, describe_features
from rnn_xp.cli.interrupts import Interrupts, signal_in
from rnn_xp.cli.messages import say, while_compiling
from rnn_xp.cli.report import report
from rnn_xp.cli.run_folder import (
    RUN_FILES,
    RunFolder,
    load_arguments,
    new_folder_name,
    recorded_data,
)
from rnn_xp.cli.summary import summarize, where
from rnn_xp.cli.task import (
    Task,
    add_forecaster_options,
    add_training_options,
    load_data,
    make_task,
    resolve,
)
from rnn_xp.distributed import take_own_gpu
from rnn_xp.forecasting import Forecaster, follows_last_value
from rnn_xp.forecasting.files import describe, save_fitted
from rnn_xp.forecasting.fitted import ALONE, unjudged
from rnn_xp.optim.names import OPTIMIZERS
from rnn_xp.training.callbacks import Callback, Checkpoint, Epoch, Progress
from rnn_xp.training.watch import DivergenceError

__all__ = ["add_command"]

# What may differ when a run is resumed; of these the settings of the run are only the defaults.
_FREE = {"data", "epochs", "patience", "workers", "backend", "device", "checkpoint_every"}
_NOT_OF_THE_RUN = {
    *("run", "argv", "json", "force", "out", "resume", "data_sha256", "done", "config"),
}
_RESULTS = set(RUN_FILES) - {"config.toml", "last.safetensors", "best.safetensors"}


def add_command(commands: Any) -> None:
    """Add the command."""
    command = options.add_parser(
        commands,
        "train",
        description="Train a forecaster on the first part of a series, test it on the rest.",
        example="rnn-xp train --data prices.csv --column close --cell gru --epochs 100",
    )
    options.add_data_options(command, ALSO)
    add_feature_options(command)
    options.add_network_options(command)
    add_forecaster_options(command)
    add = add_training_options(command).add_argument
    add("--workers", type=int, metavar="W", help="threads on NumPy; all cores by default")
    add("--checkpoint-every", type=int, metavar="K", help="write every K epochs (every 20 s)")
    add("--reduction", default="exact", choices=["exact", "fast"], help="sum over MPI ranks")
    add("--resume", type=Path, metavar="DIR", help="resume an interrupted run")
    options.add_common_options(command, "runs/DATA-CELL")
    command.set_defaults(run=functools.partial(_train, command))


def _train(command: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    comm = ranks.join()  # before anything that could fail on one of them
    args = options.with_config(command, args)
    if args.resume is not None:
        args = _resumed(command, args)
    for option, value in (
        ("--workers", args.workers),
        ("--checkpoint-every", args.checkpoint_every),
    ):
        options.check_whole(option, value, 1)
    begun = _arguments(args)
    args = resolve(args)
    if args.seeds > 1 and (args.resume or args.checkpoint_every):
        raise ValueError(
            f"--seeds {args.seeds} trains several networks, one after the other, which cannot be "
            "resumed. Leave out --resume and --checkpoint-every, or train one at a time."
        )
    if comm is not None:
        take_own_gpu(comm, args.device)
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    series, members = load_data(args)
    if args.resume is not None and series.sha256 != args.data_sha256:
        raise ValueError(
            f"{args.data} has changed since the run in {args.resume} was started. Give the file it "
            "was started with as --data, or start another run."
        )
    task = make_task(args, backend, series, members)
    computing = {"workers": args.workers, "comm": comm, "reduction": args.reduction}
    if comm is not None and comm.rank:
        return ranks.follow(task.forecaster, task.prepared, computing, args.resume)
    run = _Run(task, begun, say if not args.json else _silent)
    return run.train(computing, ranks.describe(comm))


@dataclasses.dataclass
class _Run:
    """A training, on the rank that prints and writes files.

    Attributes
    ----------
    task : Task
    begun : dict
        Arguments of the command line, which a resumed run takes over.
    say : callable
        ``say(line)`` prints a line or, with --json, does nothing.
    """

    task: Task
    begun: dict[str, Any]
    say: Callable[[str], None]

    def train(self, computing: dict[str, Any], of_ranks: list[str]) -> int:
        """Train, judge and write the results; return the exit status."""
        args, task = self.task.args, self.task
        out = args.resume or args.out
        out = out or new_folder_name(Path("runs"), f"{task.series.name}-{args.cell}")
        with RunFolder(out, force=args.force or args.resume is not None) as folder:
            for line in (*_preamble(task), *of_ranks, *_resuming(args)):
                self.say(line)
            begin = _Begin(folder, None if args.resume else _config(task, self.begun))
            checkpoint = self._checkpoint(folder)
            try:
                with (
                    Interrupts() as stop,
                    while_compiling(task.backend),
                    Progress(lines=0 if args.json else 10) as progress,
                ):
                    # Several networks follow each other, of which no file could hold the state.
                    keep: list[Callback] = [] if args.seeds > 1 else [checkpoint]
                    task.forecaster.fit_prepared(
                        task.prepared, stop=stop, callbacks=[begin, *keep, progress],
                        resume=checkpoint.last if args.resume else None, **computing,
                    )  # fmt: skip
                if status := self._interrupted(folder, stop):
                    return status
                summary = self._finish(folder)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_how_to_go_on(folder, checkpoint)) from None
            except DivergenceError as error:
                begin()
                folder.remove(_RESULTS)
                folder.write_history([error.history])
                fitted = unjudged(task.prepared, (error.params,), task.backend)
                save_fitted(folder.path / "model.safetensors", fitted)
                print(f"the last good model is in {folder.path}/", file=sys.stderr)
                raise
            self.say(f"wrote    {folder.path}/")
        if args.json:
            print(json.dumps({"out": str(folder.path), **summary}, default=dataclasses.asdict))
        return 0

    def _checkpoint(self, folder: RunFolder) -> Checkpoint:
        task = self.task
        about = {
            **describe(task.prepared.settings, task.prepared.designs[0].scaler),
            "arguments": {**self.begun, **where(task.backend)},
            "data": task.series.sha256,
        }
        return Checkpoint(folder.path, every=task.args.checkpoint_every, about=about)

    def _interrupted(self, folder: RunFolder, stop: Interrupts) -> int:
        """Print how to resume after a signal, and return the exit status; 0 without a signal."""
        args, results = self.task.args, self.task.forecaster.results_
        epochs = len(results[-1].history["loss"])
        signal = stop.signal or signal_in(results[-1].stopped)  # or another rank's
        again = [r.stopped for r in self.task.forecaster.refits_ if signal_in(r.stopped)]
        if not signal or (epochs == args.epochs and len(results) == 1 and not again):
            return 0
        if args.seeds > 1:
            folder.remove(RUN_FILES)
            how = "several networks cannot be resumed: nothing was written"
        else:
            how = f"resume with: rnn-xp train --resume {folder.path}"
        stopped = f"{results[-1].stopped} after epoch {epochs} of {args.epochs}"
        if again and not signal_in(results[-1].stopped):
            stopped = f"{again[0]} while training again on all rows"
        print(f"rnn-xp: {stopped}; {how}", file=sys.stderr)
        return 128 + signal

    def _finish(self, folder: RunFolder) -> dict[str, Any]:
        """Judge the trained model, write the files, and return the content of metrics.json."""
        task, args, forecaster = self.task, self.task.args, self.task.forecaster
        for line in _what_happened(forecaster):
            self.say(line)
        result = task.judge(forecaster.fitted)
        repeats = None
        if task.members is None:
            (part,) = result.series
            repeats = follows_last_value(
                args.cell, part.forecast, part.truth, part.baselines["persistence"][:, 0]
            )
        config = _config(task, self.begun)
        summary = {**summarize(task, config, result), "follows_last_value": repeats}
        histories = forecaster.history_
        folder.write_config(config)  # of a resumed run, only now is it known to be the same
        forecaster.save(folder.path / "model.safetensors")
        folder.write_history(histories)
        folder.write_predictions(task.members or {task.series.name: task.series}, result)
        folder.write_metrics(summary)
        if task.members is not None:
            for line in str(result).splitlines():
                self.say(line)
            return summary  # pictures and the page are of one series
        remarks = [repeats] if repeats and repeats not in result.notes else []
        folder.write_report(report(task.series, result, summary, histories[0], remarks))
        for line in result.table(task.series.unit):
            self.say(line)
        if repeats:
            self.say(f"warning  {repeats}")
        try:
            folder.write_plots(histories[0], task.series, result)
        except ImportError as error:
            self.say(f"no plots: {error}")
        return summary


def _resumed(command: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """Parse again with the run's settings as defaults, and refuse contradicting options."""
    if args.out is not None or args.force:
        raise ValueError("--resume continues in the run's own folder: leave out --out and --force.")
    if args.resume.is_file():
        args.resume = args.resume.parent
    settings, args.data_sha256, args.done = load_arguments(args.resume)
    if settings.keys() != _arguments(args).keys():
        raise ValueError(f"--resume {args.resume} is a run of another version.")
    if args.backend or os.environ.get("RNN_XP_BACKEND", "").strip():  # another than the run's
        settings["backend"] = settings["device"] = None
    command.set_defaults(**settings)
    kept = {key: getattr(args, key) for key in ("argv", "resume", "data_sha256", "done")}
    args = command.parse_args(args.argv[1:])
    vars(args).update(kept)
    if args.data == settings["data"]:
        args.data = recorded_data(args.resume, args.data)
    if args.epochs is not None and args.epochs < args.done:
        raise ValueError(
            f"--epochs {args.epochs} is less than the {args.done} epochs after which "
            f"{args.resume} was saved. Give the number of all epochs, or leave it out."
        )
    for key, value in settings.items():
        if key not in _FREE and (now := getattr(args, key)) != value:
            name = key.replace("_", "-")
            if isinstance(now, bool):
                option = f"--{name}" if now else f"--no-{name}"
            else:
                option = f"--{name} {now}"
            was = "without" if value is None or value is False else f"with {value}"
            raise ValueError(
                f"{option} contradicts --resume {args.resume}, which was started {was}. "
                "Leave it out."
            )
    return args


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    return {key: value for key, value in vars(args).items() if key not in _NOT_OF_THE_RUN}


class _Begin:
    """Replace an old run by a new one, after the first epoch has shown that it can run."""

    def __init__(self, folder: RunFolder, config: dict[str, Any] | None) -> None:
        self.folder, self.config = folder, config

    def __call__(self, epoch: Epoch | None = None) -> None:
        if self.config is not None:
            self.folder.remove(RUN_FILES)
            self.folder.write_config(self.config)
            self.config = None


def _how_to_go_on(folder: RunFolder, checkpoint: Checkpoint) -> str:
    """Return a remark on how to resume a training that was ended at once."""
    if checkpoint.last.exists():
        saved = f" after epoch {checkpoint.saved_epoch}" if checkpoint.saved_epoch else ""
        return f"saved{saved}; resume with: rnn-xp train --resume {folder.path}"
    return "nothing was written"


def _what_happened(forecaster: Forecaster) -> list[str]:
    """Return lines on how the trainings ended."""
    lines = []
    for number, result in enumerate(forecaster.results_):
        if number == 0:
            why = result.engine_reason and f": {result.engine_reason}"
            lines.append(f"engine   {result.engine}{why}")
        of = f"seed {number}: " if len(forecaster.results_) > 1 else ""
        if result.stopped:
            epochs = _epochs(len(result.history["loss"]))
            lines.append(f"{of}stopped after {epochs}: {result.stopped}")
        if result.best_epoch is not None:
            lines.append(
                f"{of}keeping the parameters of epoch {result.best_epoch}, whose validation loss "
                "is lowest"
            )
    if forecaster.fitted.alone:
        lines.append(ALONE.format(forecaster.cell))
    if forecaster.refits_:
        rows = len(forecaster.fitted.designs[0].levels)
        lines.append(f"trained again on all {rows} rows for as many epochs")
    return lines


def _preamble(task: Task) -> list[str]:
    args, series, prepared = task.args, task.series, task.prepared
    rows = len(prepared.trained.x)
    held_out = 0 if prepared.validated is None else len(prepared.validated.x)
    gap = len(task.members or [0]) * (args.seq_length + args.horizon - 1) if held_out else 0
    tested = f"{task.judged} {'windows' if args.plain else 'forecasts'}"
    of = "" if task.members is None else f"{len(task.members)} series, by {args.id}: "
    lines = [
        f"backend  {task.backend}",
        f"data     {of}{options.describe_data(args, series)}",
        f"split    train {task.cut} rows -> {rows + gap + held_out} windows | "
        f"test {len(series.values) - task.cut} rows -> {tested} (by time)",
        *describe_features(args),
        f"model    {options.describe_network(prepared.net)}",
        *(f"chosen   {choice}" for choice in prepared.choices),
        f"training {task.reason}, {_epochs(args.epochs)}, seed {args.seed}",
    ]
    if held_out:
        share = f"the last {100 * args.validation:g} % of the windows, after a gap"
        lines.insert(3, f"         validation: {share}; {rows} are trained on")
    return [*lines, f"warning  {task.warning}"] if task.warning else lines


def _resuming(args: argparse.Namespace) -> list[str]:
    """Return a line on where a resumed run goes on; no line for a new run."""
    if args.resume is None:
        return []
    if args.done == args.epochs:
        return [f"resuming {args.resume}: all {_epochs(args.done)} are done, none is trained"]
    return [f"resuming {args.resume} at epoch {args.done + 1}"]


def _epochs(count: int) -> str:
    return f"{count} epoch" if count == 1 else f"{count} epochs"


def _config(task: Task, begun: dict[str, Any]) -> dict[str, Any]:
    """Return everything that defines the run, with defaults resolved."""
    config = {key: getattr(task.args, key) for key in begun}
    del config["learning_rate"]
    optimizer: Any = task.prepared.settings.optimizer
    for field in dataclasses.fields(optimizer):
        value = getattr(optimizer, field.name)
        flat = value if value is None or isinstance(value, bool | int | float) else repr(value)
        config[f"optimizer_{field.name}"] = flat
    name = next(name for name, kind in OPTIMIZERS.items() if kind is type(optimizer))
    return {**config, "optimizer": name, **where(task.backend)}


def _silent(line: str) -> None:
    """Print nothing."""
