"""``rnn-xp info | evaluate | forecast``: what is in a run, what it is worth, and what it says."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp import checkpoint, plotting
from rnn_xp.backend import Backend, get_backend
from rnn_xp.cli import options
from rnn_xp.cli.run_folder import column_label
from rnn_xp.data.datasets import Series
from rnn_xp.forecasting.backtest import as_dict, judge, make_judged, origins_of
from rnn_xp.forecasting.design import Design, make_design
from rnn_xp.forecasting.model import Model, load_model
from rnn_xp.forecasting.predictor import Predictor

__all__ = ["add_command", "following_dates"]

_SHOWN = 60  # past values in a picture


def add_command(commands: Any) -> None:
    """Add the three commands."""
    command = commands.add_parser(
        "info",
        description="Show what a run is of.",
        epilog="example: rnn-xp info runs/length_of_day-rnn-1",
    )
    _add_run(command)
    command.set_defaults(run=_info)
    command = commands.add_parser(
        "evaluate",
        description="Judge a trained network beside the baselines, on the last part of a series.",
        epilog="example: rnn-xp evaluate runs/length_of_day-rnn-1 --data newer.csv",
    )
    _add_run(command)
    _add_data(command)
    command.add_argument("--train-fraction", type=float, metavar="F", help="of the run by default")
    command.set_defaults(run=_evaluate)
    command = commands.add_parser(
        "forecast",
        description="Forecast what follows the last value. Beyond the horizon that was trained, "
        "the forecast goes on from itself.",
        epilog="example: rnn-xp forecast runs/length_of_day-rnn-1 --steps 30 --csv out.csv",
    )
    _add_run(command)
    _add_data(command)
    add = command.add_argument
    add("--steps", type=int, metavar="K", help="how many; the run's horizon by default")
    add("--csv", type=Path, metavar="FILE", help="write them there")
    add("--png", type=Path, metavar="FILE", help="draw them there")
    command.set_defaults(run=_forecast)


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", type=Path, metavar="RUN", help="folder of a run")
    command.add_argument("--json", action="store_true", help="print one line of JSON")


def _add_data(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", help="bundled series or CSV file; the run's own by default")
    add("--column", help="column of the CSV file, by name or by index from 0")
    add("--missing", choices=["error", "drop", "interpolate"])
    options.add_backend_options(add)


def _load(args: argparse.Namespace) -> tuple[Model, Backend, Series, dict[str, Any]]:
    """The model, where to compute, the series, and how the run was configured."""
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    model = load_model(args.source, backend)
    if model.net.topology != "many_to_one" or model.net.input_size != 1:
        raise ValueError(
            f"{args.source} is not of a forecast of a series: its network is {model.net.topology} "
            f"with {model.net.input_size} inputs."
        )
    path = args.source / "config.toml"  # which a run that was imported has not
    config = options.read_toml(path) if path.exists() else {}
    if args.data is None:
        if "data" not in config:
            raise ValueError(f"{args.source} does not say what it was trained on: give --data.")
        chosen = {key: config.get(key) for key in ("data", "column", "missing")}
    else:
        chosen = {"data": args.data, "column": args.column, "missing": args.missing}
    chosen["missing"] = chosen["missing"] or "error"
    return model, backend, options.load_series(argparse.Namespace(**chosen)), config


def _prepare(model: Model, backend: Backend, series: Series) -> tuple[Predictor, Design]:
    none = np.empty((len(series.values), 0))
    design = make_design(
        np.asarray(series.values), none, none, target="level", scaler=model.scaler, train=0
    )
    networks = (model.params,)
    return Predictor(model.net, networks, backend, model.seq_length, model.horizon, 1), design


def _info(args: argparse.Namespace) -> int:
    model = load_model(args.source, get_backend("numpy", device="cpu"))
    path = args.source / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    scaler = model.scaler
    if args.json:
        about: dict[str, Any] = {
            "network": dataclasses.asdict(model.net),
            "scaler": dataclasses.asdict(scaler),
        }
        about |= {"seq_length": model.seq_length, "horizon": model.horizon, "metrics": metrics}
        print(json.dumps(about))
        return 0
    print(f"model    {options.describe_network(model.net)}")
    print(f"windows  {model.seq_length} values -> {model.horizon} ahead, scaler {scaler.kind}")
    if not metrics:
        print("         no metrics.json: it was imported, or its training did not end")
        return 0
    data, backend = metrics["data"], metrics["backend"]
    span = f" {data['first']}..{data['last']}" if data["first"] else ""
    print(f"data     {data['name']}: {data['rows']} rows{span}, sha256 {data['sha256'][:8]}")
    print(f"trained  {metrics['epochs']} epochs in {metrics['seconds']:.1f} s on {backend['name']} "
          f"{backend['version']} ({backend['dtype']}), rnn_xp {metrics['rnn_xp']}")  # fmt: skip
    width = max(len(score["name"]) for score in metrics["scores"])
    for score in metrics["scores"]:
        print(f"{score['name']:{width}}  RMSE {score['rmse']:.4f}  MAE {score['mae']:.4f}")
    print(f"verdict  {metrics['verdict']}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    model, backend, series, config = _load(args)
    predictor, design = _prepare(model, backend, series)
    fraction = args.train_fraction or config.get("train_fraction", 0.8)
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"--train-fraction must lie between 0 and 1, got {fraction:g}.")
    train = int(fraction * len(series.values))
    origins = origins_of(series.values, train + model.seq_length, model.horizon, 1)
    if not len(origins):
        raise ValueError(
            f"the test part of {len(series.values) - train} values is too short for windows of "
            f"{model.seq_length} and a horizon of {model.horizon}."
        )
    forecast = predictor.from_rows(design, origins, model.horizon)[:, :, 0]
    part = make_judged(series.name, design.levels, train, origins, forecast, None, model.seq_length)
    result = judge((part,), model.net.cell, None)
    if args.json:
        print(json.dumps({"data": series.name, "sha256": series.sha256, **as_dict(result)}))
    else:
        print(f"data     {series.name}: test part from row {train} of {len(series.values)}")
        print(result)
    return 0


def _forecast(args: argparse.Namespace) -> int:
    model, backend, series, _ = _load(args)
    options.check_whole("--steps", args.steps, 1)
    steps = args.steps or model.horizon
    predictor, design = _prepare(model, backend, series)
    if len(design.levels) < model.seq_length:
        raise ValueError(
            f"{series.name} has {len(design.levels)} values, but a forecast needs the last "
            f"{model.seq_length}: {model.seq_length - len(design.levels)} more."
        )
    ahead = np.empty((max(steps, model.horizon), 0))
    end = np.asarray([len(design.levels)])
    windows = design.windows(end, model.seq_length, model.horizon, ahead)
    values = predictor.forecast(design, windows, ahead[None], steps)[0, :, 0]
    dates = following_dates(series.dates, steps)
    unit = f" ({series.unit})" if series.unit else ""
    if args.csv is not None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", "date", "forecast"] if dates else ["step", "forecast"])
        for step, value in enumerate(values):
            date = [dates[step]] if dates else []
            writer.writerow([step + 1, *date, f"{value:.9g}"])
        checkpoint.atomic_write(args.csv, text.getvalue().encode())
    if args.png is not None:
        shown = (*series.dates[-_SHOWN:], *dates) if series.dates and dates else None
        ax = plotting.outlook(
            series.values[-_SHOWN:], values, dates=shown, title=series.name,
            label=f"{column_label(series)}{unit}",
        )  # fmt: skip
        checkpoint.atomic_write(args.png, plotting.to_png(ax))
    if args.json:
        print(json.dumps({"data": series.name, "dates": dates, "forecast": values.tolist()}))
        return 0
    of_date = f" of {series.dates[-1]}" if series.dates else ""
    last = f"last value {series.values[-1]:g} {series.unit}{of_date}"
    print(f"data     {series.name}: {len(series.values)} rows, {last}")
    for step, value in enumerate(values):
        print(f"{dates[step] if dates else step + 1:>10}  {value:.6g}")
    if steps > model.horizon:
        print(f"note     beyond step {model.horizon} the forecast goes on from itself")
    for path in (args.csv, args.png):
        if path is not None:
            print(f"wrote    {path}")
    return 0


def following_dates(dates: tuple[str, ...] | None, steps: int) -> list[str] | None:
    """Dates of the steps to come, where those before are evenly spaced, or weekdays.

    >>> following_dates(("2024-01-04", "2024-01-05", "2024-01-08"), 2)
    ['2024-01-09', '2024-01-10']
    """
    try:
        moments = [datetime.fromisoformat(date) for date in (dates or ())[-30:]]
        gaps = {b - a for a, b in itertools.pairwise(moments)}
    except (ValueError, TypeError):
        return None
    day = timedelta(days=1)
    weekdays = bool(gaps) and all(m.weekday() < 5 for m in moments) and max(gaps) <= 5 * day
    if len(gaps) != 1 and not (weekdays and min(gaps) == day):
        return None
    gap, now = min(gaps), moments[-1]
    found: list[str] = []
    while len(found) < steps:
        now += gap
        if len(gaps) == 1 or now.weekday() < 5:
            found.append(now.isoformat() if "T" in (dates or ("",))[-1] else str(now)[:10])
    return found
