"""``rnn-xp backtest``: train a forecaster on the first part of a series, judge it on the rest."""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
from pathlib import Path
from typing import Any

from rnn_xp import checkpoint
from rnn_xp.backend import get_backend
from rnn_xp.cli import options
from rnn_xp.cli.features import ALSO, add_feature_options, below_each_other, refuse_pictures
from rnn_xp.cli.messages import say, while_compiling
from rnn_xp.cli.report import about, report
from rnn_xp.cli.run_folder import column_label
from rnn_xp.cli.summary import where
from rnn_xp.cli.targets import FORCE, check_file, check_folder, check_plots
from rnn_xp.cli.task import (
    Task,
    add_forecaster_options,
    add_training_options,
    load_data,
    make_task,
    resolve,
)
from rnn_xp.data.datasets import Series
from rnn_xp.forecasting import Backtest, plotting
from rnn_xp.forecasting.backtest import Judged, as_dict

__all__ = ["add_command"]

_PLOTS = ("forecast.png", "residuals.png", "steps.png")


def add_command(commands: Any) -> None:
    """Add the command."""
    command = options.add_parser(
        commands,
        "backtest",
        description="Train on the first part of a series, forecast the rest from many origins.",
        example="rnn-xp backtest --data wti --horizon 5 --target logret --csv out.csv",
    )
    options.add_data_options(command, ALSO)
    add_feature_options(command)
    options.add_network_options(command)
    add_forecaster_options(command)
    add = add_training_options(command).add_argument
    add("--stride", type=int, default=1, metavar="K", help="steps between origins (%(default)s)")
    add("--retrain", type=int, metavar="K", help="train again after K origins; never by default")
    add = command.add_argument_group("backend and output").add_argument
    add("--config", type=Path, metavar="FILE", help="options from a TOML file")
    options.add_backend_options(add)
    add("--csv", type=Path, metavar="FILE", help="write every forecast to this file")
    add("--plots", type=Path, metavar="DIR", help="draw forecasts, errors by step and residuals")
    add("--force", action="store_true", help=FORCE)
    add("--html", type=Path, metavar="PAGE", help="write a report with scores and pictures")
    add("--json", action="store_true", help="print one line of JSON and nothing else")
    add("-h", "--help", action="help", help="show this page")
    command.set_defaults(run=functools.partial(_backtest, command))


def _backtest(command: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    args = resolve(options.with_config(command, args))
    check_file("--csv", args.csv, force=args.force)
    check_folder("--plots", args.plots, _PLOTS, force=args.force)
    check_plots("--plots", args.plots)
    check_file("--html", args.html, force=args.force)
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    for option, value in (("--stride", args.stride), ("--retrain", args.retrain)):
        options.check_whole(option, value, 1)
    if args.id is not None:
        refuse_pictures("--plots", args.plots, args.id)
        refuse_pictures("--html", args.html, args.id)
    task = make_task(args, backend, *load_data(args))
    series, members = task.series, task.members
    with while_compiling(backend):
        result = task.forecaster.backtest(
            series if members is None else members,
            task.cut if members is None else args.train_fraction,
            stride=args.stride, retrain=args.retrain or False, **task.features,
        )  # fmt: skip
    if args.json:
        print(json.dumps({"data": series.name, "sha256": series.sha256, **as_dict(result)}))
    else:
        _print(args, task, result)
    # Only now: what was computed is not lost if a disk is full.
    if args.csv is not None:
        named = [
            (part.name, _table(part, (members or {part.name: series})[part.name].dates).encode())
            for part in result.series
        ]
        text = named[0][1] if members is None else below_each_other(named)
        checkpoint.atomic_write(args.csv, text)
    written = [] if args.csv is None else [args.csv]
    if args.plots is not None:
        written += _draw(result, series, args.plots)
    if args.html is not None:
        facts = about(series, {**vars(args), **where(backend)})
        checkpoint.atomic_write(args.html, report(series, result, facts).encode())
        written.append(args.html)
    for path in () if args.json else written:
        say(f"wrote    {path}")
    return 0


def _print(args: argparse.Namespace, task: Task, result: Backtest) -> None:
    say(f"backend  {task.backend}")
    say(f"data     {options.describe_data(args, task.series)}")
    say(result)
    if result.series[0].truth.shape[1] > 1:
        say("by step  " + "  ".join(f"RMSE({k + 1}) {e:.4g}"
                                      for k, e in enumerate(result.per_step["rmse"])))  # fmt: skip


def _draw(result: Backtest, series: Series, folder: Path) -> list[Path]:
    """Write forecast.png, residuals.png and, for several steps, steps.png."""
    (part,) = result.series
    unit, label = series.unit, column_label(series)
    axes = {
        "forecast.png": plotting.backtest(
            result, dates=series.dates, label=f"{label} ({unit})" if unit else label,
            title=series.name,
        ),
        "residuals.png": plotting.residuals(
            part.truth[:, 0], part.forecast[:, 0], unit=unit, title=f"{series.name}, one step ahead"
        ),
    }  # fmt: skip
    if part.truth.shape[1] > 1:
        drawn = [score for score in result.scores if score.name not in ("drift", "mean")]
        axes["steps.png"] = plotting.step_errors(drawn, unit=unit, title=series.name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, ax in axes.items():
        checkpoint.atomic_write(folder / name, plotting.to_png(ax))
    return [folder / name for name in axes]


def _table(part: Judged, dates: tuple[str, ...] | None) -> str:
    """Return CSV text with a row for each origin and step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    bounds = ["low", "high"] if part.low is not None else []
    writer.writerow(["origin", "step", "truth", "forecast", *bounds, *part.baselines])
    for i, origin in enumerate(part.origins):
        for step in range(part.truth.shape[1]):
            arrays = [part.truth, part.forecast, part.low, part.high, *part.baselines.values()]
            row = [f"{a[i, step]:.9g}" for a in arrays if a is not None]
            writer.writerow([dates[origin] if dates else origin, step + 1, *row])
    return text.getvalue()
