"""``rnn-xp info | evaluate | forecast``: describe, judge and use the model of a run."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

from rnn_xp import checkpoint
from rnn_xp.backend import get_backend
from rnn_xp.cli import options
from rnn_xp.cli.features import KINDS, load_ahead, load_features
from rnn_xp.cli.messages import say
from rnn_xp.cli.report import about, report
from rnn_xp.cli.run_folder import column_label, read_metrics, recorded_data
from rnn_xp.cli.targets import FORCE, check_file, check_plots
from rnn_xp.cli.task import check_parts, judge_test_part
from rnn_xp.data.datasets import Series
from rnn_xp.data.dates import following_dates
from rnn_xp.data.windows import time_split
from rnn_xp.forecasting import Forecaster, plotting
from rnn_xp.forecasting.backtest import as_dict
from rnn_xp.forecasting.intervals import IntervalError, read_levels

__all__ = ["add_command"]

_SHOWN = 60  # past values in a picture


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


def _load(
    args: argparse.Namespace,
) -> tuple[Forecaster, Series, dict[str, Any], dict[str, Any]]:
    """Load the model, the series, its features, and the configuration of the run."""
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
    chosen |= {f"{kind}_features": config.get(f"{kind}_features") for kind in KINDS}
    series = options.load_series(argparse.Namespace(**chosen))
    return forecaster, series, load_features(argparse.Namespace(**chosen), series), config


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
    forecaster, series, features, config = _load(args)
    fraction = args.train_fraction
    if fraction is None:
        fraction = config.get("train_fraction", 0.8)
    plain = bool(config.get("plain", True))  # of what was not trained here nothing else is known
    cut = len(time_split(series.values, fraction)[0])
    seq_length, horizon = forecaster.seq_length, forecaster.horizon
    check_parts(cut, len(series.values), seq_length, horizon, plain=plain)
    result = judge_test_part(forecaster.fitted, series, cut, plain=plain, features=features)
    if args.html is not None:
        facts = about(series, {**config, "run": args.source, "train_fraction": fraction})
        checkpoint.atomic_write(args.html, report(series, result, facts).encode())
    if args.json:
        print(json.dumps({"data": series.name, "sha256": series.sha256, **as_dict(result)}))
    else:
        say(f"data     {series.name}: test part from row {cut} of {len(series.values)}")
        say(result)
        if args.html is not None:
            say(f"wrote    {args.html}")
    return 0


def _forecast(args: argparse.Namespace) -> int:
    options.check_whole("--steps", args.steps, 1)
    check_file("--csv", args.csv, force=args.force)
    check_file("--png", args.png, force=args.force, suffix=".png")
    check_plots("--png", args.png)
    forecaster, series, features, config = _load(args)
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
    ahead = forecaster.apply(series, **features)
    values = ahead.predict(steps, future=future)
    levels, bounds = args.level or [forecaster.level], []
    if forecaster.intervals is not None:
        try:
            count = min(steps, forecaster.horizon)
            near = None if future is None else future[: max(count, reach)]
            low, high = ahead.predict_interval(count, level=levels, future=near)
            bounds = [
                _Interval(share, low[name], high[name]) for name, share in read_levels(levels)
            ]
        except IntervalError as error:
            if args.level is not None:
                raise
            notes.append(f"no interval: {error}")
    outlook = _Outlook(series, values, following_dates(series.dates, steps), bounds, notes)
    if args.csv is not None:
        checkpoint.atomic_write(args.csv, outlook.csv())
    if args.png is not None:
        checkpoint.atomic_write(args.png, outlook.png())
    if args.json:
        print(json.dumps(outlook.summary()))
        return 0
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


@dataclasses.dataclass(frozen=True)
class _Interval:
    """The ends of intervals of one nominal coverage, for the first steps, up to the horizon."""

    level: float
    low: Any
    high: Any

    @property
    def percent(self) -> str:
        return f"{100 * self.level:g}"


@dataclasses.dataclass(frozen=True)
class _Outlook:
    """A forecast as text, CSV, plot and JSON.

    Attributes
    ----------
    series : Series
    values : ndarray (steps,)
    dates : list of str or None
    bounds : list of _Interval
        Empty if there are none.
    notes : list of str
    """

    series: Series
    values: Any
    dates: list[str] | None
    bounds: list[_Interval]
    notes: list[str]

    def _bounds_of(self, step: int) -> list[tuple[float, float]]:
        return [
            (float(each.low[step]), float(each.high[step]))
            for each in self.bounds
            if step < len(each.low)
        ]

    def lines(self) -> list[str]:
        series = self.series
        on_date = f" on {series.dates[-1]}" if series.dates else ""
        unit = f" {series.unit}" if series.unit else ""
        last = f"last value {series.values[-1]:g}{unit}{on_date}"
        lines = [f"data     {series.name}: {len(series.values)} rows, {last}"]
        if self.bounds:
            lines.append(f"interval {', '.join(f'{each.percent} %' for each in self.bounds)}")
        for step, value in enumerate(self.values):
            interval = "".join(f"  [{low:.6g}, {high:.6g}]" for low, high in self._bounds_of(step))
            lines.append(
                f"{self.dates[step] if self.dates else step + 1:>10}  {value:.6g}{interval}"
            )
        return [*lines, *(f"note     {note}" for note in self.notes)]

    def csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        dated = ["date"] if self.dates else []
        several = len(self.bounds) > 1
        ends = [
            f"{end}_{each.percent}" if several else end
            for each in self.bounds
            for end in ("low", "high")
        ]
        writer.writerow(["step", *dated, "forecast", *ends])
        for step, value in enumerate(self.values):
            date = [self.dates[step]] if self.dates else []
            bounds = [f"{end:.9g}" for pair in self._bounds_of(step) for end in pair]
            row = bounds or [""] * len(ends)
            writer.writerow([step + 1, *date, f"{value:.9g}", *row])
        return text.getvalue().encode()

    def png(self) -> bytes:
        series, dates = self.series, self.dates
        unit = f" ({series.unit})" if series.unit else ""
        ahead = "1 step" if len(self.values) == 1 else f"{len(self.values)} steps"
        widest = max(self.bounds, key=lambda each: each.level, default=None)
        shown = (*series.dates[-_SHOWN:], *dates) if series.dates and dates else None
        return plotting.to_png(
            plotting.outlook(
                series.values[-_SHOWN:], self.values, dates=shown,
                title=f"{series.name}: {ahead} after the last value",
                label=f"{column_label(series)}{unit}",
                interval=None if widest is None else (widest.low, widest.high),
                interval_label=f"{widest.percent} % interval" if widest else "",
            )
        )  # fmt: skip

    def summary(self) -> dict[str, Any]:
        summary = {"data": self.series.name, "dates": self.dates, "forecast": self.values.tolist()}
        intervals = [
            {"level": each.level, "low": each.low.tolist(), "high": each.high.tolist()}
            for each in self.bounds
        ]
        if len(intervals) == 1:
            return {**summary, **intervals[0]}
        return {**summary, "intervals": intervals} if intervals else summary
