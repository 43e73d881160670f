"""``rnn-xp info | evaluate | forecast``: describe, judge and use the model of a run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from rnn_xp import checkpoint
from rnn_xp.backend import get_backend
from rnn_xp.cli import options
from rnn_xp.cli.features import (
    KINDS,
    below_each_other,
    load_ahead,
    load_features,
    refuse_pictures,
)
from rnn_xp.cli.messages import say
from rnn_xp.cli.outlook import Interval, Outlook
from rnn_xp.cli.report import about, report
from rnn_xp.cli.run_folder import read_metrics, recorded_data
from rnn_xp.cli.targets import FORCE, check_file, check_plots
from rnn_xp.cli.task import check_parts, judge_members, judge_test_part, load_data
from rnn_xp.data.datasets import Series
from rnn_xp.data.dates import following_dates
from rnn_xp.data.windows import time_split
from rnn_xp.forecasting import Forecaster
from rnn_xp.forecasting.backtest import as_dict
from rnn_xp.forecasting.intervals import IntervalError, read_levels

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add the three commands."""
    command = commands.add_parser(
        "info",
        description="Show the network, the data and the scores of a run.",
        epilog="example: rnn-xp info runs/length_of_day-rnn-1",
    )
    _add_run(command)
    command.set_defaults(run=_info)
    command = commands.add_parser(
        "evaluate",
        description="Compare a trained network with the baselines on the last part of a series.",
        epilog="example: rnn-xp evaluate runs/length_of_day-rnn-1 --data newer.csv",
    )
    _add_run(command)
    _add_data(command)
    command.add_argument(
        "--train-fraction", type=float, metavar="F", help="part before it; the run's by default"
    )
    command.add_argument(
        "--html", type=Path, metavar="PAGE", help="write a report with scores and pictures"
    )
    command.add_argument("--force", action="store_true", help=FORCE)
    command.set_defaults(run=_evaluate)
    command = commands.add_parser(
        "forecast",
        description="Forecast what follows the last value. Beyond the horizon that was trained, "
        "forecasts are fed back in as inputs.",
        epilog="example: rnn-xp forecast runs/length_of_day-rnn-1 --steps 30 --csv out.csv",
    )
    _add_run(command)
    _add_data(command)
    add = command.add_argument
    add("--steps", type=int, metavar="K", help="number of steps; the run's horizon by default")
    add(
        "--level", type=_level, nargs="+", metavar="P",
        help="coverage of the intervals, such as 0.9, or 80 95; the run's by default",
    )  # fmt: skip
    words = "CSV file with the future features of the steps ahead, if the run has some"
    add("--future", type=Path, metavar="FILE", help=words)
    add("--csv", type=Path, metavar="FILE", help="write the forecasts to this file")
    add("--png", type=Path, metavar="FILE", help="draw the forecasts in this file")
    add("--force", action="store_true", help=FORCE)
    command.set_defaults(run=_forecast)


def _level(text: str) -> float:
    """Read a share or a percentage; 80 and 80.0 are the same."""
    number = float(text)
    return int(number) if number >= 2.0 and number.is_integer() else number


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", type=Path, metavar="RUN", help="folder of a run")
    command.add_argument("--json", action="store_true", help="print one line of JSON")


def _add_data(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", help="bundled series or CSV file; the run's own by default")
    add("--column", help="column of the CSV file, by name or by index from 0")
    add("--missing", choices=["error", "drop", "interpolate"])
    options.add_backend_options(add)


class _Loaded(NamedTuple):
    """A model, the series it goes on with, their features, and the configuration of the run."""

    forecaster: Forecaster
    series: Series
    members: dict[str, Series] | None
    features: dict[str, Any]
    config: dict[str, Any]


def _load(args: argparse.Namespace) -> _Loaded:
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    forecaster = Forecaster.load(args.source, backend)
    net = forecaster.predictor_.net
    folder = args.source if args.source.is_dir() else args.source.parent
    path = folder / "config.toml"  # which a run that was imported has not
    config = options.read_toml(path) if path.exists() else {}
    inputs = 1 + sum(len(config.get(f"{kind}_features", ())) for kind in KINDS)
    if net.topology != "many_to_one" or net.input_size != inputs:
        raise ValueError(
            f"{args.source} is not a model that forecasts a series: its network is {net.topology} "
            f"with {net.input_size} inputs."
        )
    if config and not (folder / "metrics.json").exists():
        print(
            f"rnn-xp: warning: the training of {args.source} diverged or did not end: it has no "
            "metrics.json. This is its last good model.",
            file=sys.stderr,
        )
    if forecaster.fitted.rows == (0,) and forecaster.fitted.designs[0].scaler.kind == "none":
        print(
            f"rnn-xp: warning: {args.source} was imported without a scaler: its network is given "
            "raw values. If it was trained on scaled ones, import it again with --scaler.",
            file=sys.stderr,
        )
    chosen = {key: getattr(args, key) for key in ("data", "column", "missing")}
    if args.data is None:
        if "data" not in config:
            raise ValueError(f"{args.source} does not name its training data: give --data.")
        chosen = {key: config.get(key) if value is None else value for key, value in chosen.items()}
        chosen["data"] = recorded_data(folder, str(config["data"]))
    chosen["missing"] = chosen["missing"] or "error"
    for key in ("id", *(f"{kind}_features" for kind in KINDS)):
        chosen[key] = config.get(key)
    given = argparse.Namespace(**chosen)
    series, members = load_data(given)
    return _Loaded(forecaster, series, members, load_features(given, series), config)


def _info(args: argparse.Namespace) -> int:
    forecaster = Forecaster.load(args.source, get_backend("numpy", device="cpu"))
    net, scaler = forecaster.predictor_.net, forecaster.fitted.designs[0].scaler
    metrics = read_metrics(args.source if args.source.is_dir() else args.source.parent)
    if args.json:
        about: dict[str, Any] = {
            "network": dataclasses.asdict(net),
            "scaler": dataclasses.asdict(scaler),
        }
        about |= {"seq_length": forecaster.seq_length, "horizon": forecaster.horizon}
        about |= {"target": forecaster.target, "intervals": forecaster.intervals}
        print(json.dumps({**about, "metrics": metrics}))
        return 0
    averaged = f", {forecaster.n_seeds} of them averaged" if forecaster.n_seeds > 1 else ""
    say(f"model    {options.describe_network(net)}{averaged}")
    target = "" if forecaster.target == "level" else f", target {forecaster.target}"
    say(
        f"windows  {forecaster.seq_length} values -> {forecaster.horizon} ahead, "
        f"scaler {scaler.kind}{target}"
    )
    if forecaster.intervals is not None:
        say(f"interval {100 * forecaster.level:g} %, {forecaster.intervals}")
    if not metrics:
        say("         no metrics.json: it was imported, or its training did not end")
        return 0
    data, backend = metrics["data"], metrics["backend"]
    span = f" {data['first']}..{data['last']}" if data["first"] else ""
    say(f"data     {data['name']}: {data['rows']} rows{span}, sha256 {data['sha256'][:8]}")
    say(f"trained  {metrics['epochs']} epochs in {metrics['seconds']:.1f} s on {backend['name']} "
          f"{backend['version']} ({backend['dtype']}), rnn_xp {metrics['rnn_xp']}")  # fmt: skip
    width = max(len(score["name"]) for score in metrics["scores"])
    for score in metrics["scores"]:
        print(f"{score['name']:{width}}  RMSE {score['rmse']:.4f}  MAE {score['mae']:.4f}")
    say(f"verdict  {metrics['verdict']}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    check_file("--html", args.html, force=args.force)
    forecaster, series, members, features, config = _load(args)
    fraction = args.train_fraction
    if fraction is None:
        fraction = config.get("train_fraction", 0.8)
    plain = bool(config.get("plain", True))  # of what was not trained here nothing else is known
    seq_length, horizon, parts = forecaster.seq_length, forecaster.horizon, []
    for each in (members or {"": series}).values():
        cut = len(time_split(each.values, fraction)[0])
        check_parts(cut, len(each.values), seq_length, horizon, plain=plain)
        parts.append(f"test part from row {cut} of {len(each.values)}")
    if members is None:
        result = judge_test_part(forecaster.fitted, series, cut, plain=plain, features=features)
    else:
        refuse_pictures("--html", args.html, config["id"])
        judged = argparse.Namespace(train_fraction=fraction, plain=plain)
        result = judge_members(forecaster.fitted, members, judged)
    if args.html is not None:
        facts = about(series, {**config, "run": args.source, "train_fraction": fraction})
        checkpoint.atomic_write(args.html, report(series, result, facts).encode())
    if args.json:
        print(json.dumps({"data": series.name, "sha256": series.sha256, **as_dict(result)}))
    else:
        part = parts[0] if members is None else f"the test parts of {len(members)} series"
        say(f"data     {series.name}: {part}")
        say(result)
        if args.html is not None:
            say(f"wrote    {args.html}")
    return 0


def _forecast(args: argparse.Namespace) -> int:
    options.check_whole("--steps", args.steps, 1)
    check_file("--csv", args.csv, force=args.force)
    check_file("--png", args.png, force=args.force, suffix=".png")
    check_plots("--png", args.png)
    forecaster, series, members, features, config = _load(args)
    if args.level is not None and forecaster.intervals is None:
        raise ValueError(
            f"{args.source} has no intervals: it was trained without. Leave out --level, or train "
            "without --plain and --intervals none."
        )
    steps = args.steps or forecaster.horizon
    notes = [] if steps <= forecaster.horizon else [
        f"from step {forecaster.horizon + 1} on, forecasts are fed back in as inputs"
        + (", and have no intervals" if forecaster.intervals is not None else "")
    ]  # fmt: skip
    reach = forecaster.fitted.settings.reach
    future = _future(args, config, series, max(steps, reach))
    ahead = forecaster.apply(series if members is None else members, **features)
    values = ahead.predict(steps, future=future)
    levels, ends = args.level or [forecaster.level], []
    if forecaster.intervals is not None:
        try:
            count = min(steps, forecaster.horizon)
            near = None if future is None else future[: max(count, reach)]
            low, high = ahead.predict_interval(count, level=levels, future=near)
            ends = [(share, low[name], high[name]) for name, share in read_levels(levels)]
        except IntervalError as error:
            if args.level is not None:
                raise
            notes.append(f"no interval: {error}")
    outlooks = [
        Outlook(
            each,
            values if members is None else values[name],
            following_dates(each.dates, steps),
            [
                Interval(share, *(a if members is None else a[name] for a in pair))
                for share, *pair in ends
            ],
            notes,
        )
        for name, each in (members or {"": series}).items()
    ]
    if members is not None:
        refuse_pictures("--png", args.png, config["id"])
    if args.csv is not None:
        named = [(each.series.name, each.csv()) for each in outlooks]
        text = named[0][1] if members is None else below_each_other(named)
        checkpoint.atomic_write(args.csv, text)
    if args.png is not None:
        checkpoint.atomic_write(args.png, outlooks[0].png())
    if args.json:
        summaries = {each.series.name: each.summary() for each in outlooks}
        print(json.dumps({"series": summaries} if members else outlooks[0].summary()))
        return 0
    for outlook in outlooks:
        for line in outlook.lines():
            say(line)
    for path in (args.csv, args.png):
        if path is not None:
            print(f"wrote    {path}")
    return 0


def _future(args: argparse.Namespace, config: dict[str, Any], series: Series, steps: int) -> Any:
    """Return the future features of the steps to forecast; None if the run has none."""
    names = config.get("future_features")
    if not names and args.future is not None:
        raise ValueError(
            f"--future {args.future}: {args.source} was trained without --future-features."
        )
    if not names:
        return None
    if args.future is None:
        raise ValueError(
            f"{args.source} was trained with --future-features {' '.join(names)}: give their "
            f"values for {steps} steps ahead, as columns of a CSV file, with --future FILE."
        )
    return load_ahead(args.future, names, series, steps)
