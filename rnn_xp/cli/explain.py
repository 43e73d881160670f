"""``rnn-xp explain``: the shapes, the gradient flow and the gradient check of a network."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp import checkpoint
from rnn_xp.backend import get_backend
from rnn_xp.cli import options
from rnn_xp.cli.attribution import Attribution, attribute
from rnn_xp.cli.messages import say
from rnn_xp.cli.run_folder import RunFolder, new_folder_name, recorded_data
from rnn_xp.cli.targets import check_file
from rnn_xp.data import datasets
from rnn_xp.data.datasets import Series
from rnn_xp.data.windows import time_split
from rnn_xp.explain import (
    GradientCheck,
    GradientFlow,
    Operation,
    check_network,
    measure_flow,
    shape_table,
    walk,
    walk_shapes,
)
from rnn_xp.forecasting import plotting
from rnn_xp.forecasting.files import load_fitted
from rnn_xp.forecasting.fitted import Fitted
from rnn_xp.forecasting.panel import as_panel
from rnn_xp.forecasting.prepared import prepare
from rnn_xp.forecasting.settings import Settings
from rnn_xp.forecasting.training import cut
from rnn_xp.network import Network

__all__ = ["add_command"]

_ROWS, _CHECK_ROWS = 256, 3
_FILES = (
    "explain.txt", "gradient_flow.csv", "gradient_flow.png", "attribution.csv", "attribution.png",
)  # fmt: skip


def add_command(commands: Any) -> None:
    """Add the command."""
    command = options.add_parser(
        commands,
        "explain",
        description="Show what backpropagation through time does, in shapes and on real data.",
        example="rnn-xp explain --cell lstm --seq-length 50 --check",
    )
    options.add_data_options(command)
    add = options.add_network_options(command).add_argument
    topologies = ["many_to_one", "many_to_many", "one_to_many"]
    add("--topology", default="many_to_one", choices=topologies)
    add("--feed", default="zeros", choices=["zeros", "repeat", "feedback"], help="for one_to_many")
    add = command.add_argument_group("explain").add_argument
    add("--run", dest="trained", type=Path, metavar="DIR", help="a trained run's network and data")
    add("--rows", type=int, metavar="N", help="training windows to use (256, or all if fewer)")
    add("--html", type=Path, metavar="PAGE", help="write a page for a browser, with every sum")
    add(
        "--attribution", nargs="?", const="last", metavar="DATE",
        help="what the run's forecast for a date rests on (the last training window)",
    )  # fmt: skip
    add("--check", action="store_true", help="check the gradients; exit status 1 if one is wrong")
    options.add_common_options(command, "runs/explain-DATA-CELL")
    command.set_defaults(run=functools.partial(_explain, command))


def _explain(command: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    args = options.with_config(command, args)
    options.check_whole("--seed", args.seed, 0)
    check_file("--html", args.html, force=args.force)
    if args.feed == "feedback" and args.horizon > 1:
        raise ValueError(
            f"--feed feedback needs --horizon 1, got {args.horizon}: each prediction, of one "
            "value, is the next input. The number of steps is --seq-length."
        )
    if args.attribution is not None and args.trained is None:
        raise ValueError("--attribution needs a trained network: give --run DIR.")
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    precise = get_backend(args.backend, device=args.device, dtype="float64") if args.check else None
    model = None
    if args.trained is not None:
        if not (args.trained / "model.safetensors").exists():
            raise ValueError(f"--run {args.trained} is not a run: it has no model.safetensors.")
        model = load_fitted(args.trained, backend)
        args = _take_settings(command, args, model)
    series = options.load_series(args)
    seen, _ = time_split(series.values, args.train_fraction)
    if model is None:
        net = options.make_network(args, topology=args.topology, feed=args.feed)
        windows, params = _plain_windows(args, seen), net.init(args.seed, backend)
    else:
        net, params = model.predictor.net, model.predictor.networks[0]
        windows = _windows_of(model, seen)
    x, y = _targets(net, *_choose(*windows, args.rows))
    rests = None
    if model is not None and args.attribution is not None:
        on_host = load_fitted(args.trained, get_backend("numpy", dtype="float64"))
        rests = attribute(on_host, windows, len(seen), series, args.attribution)
    page_rows = (x, y) if args.rows else _targets(net, *windows)
    explorer = None if args.html is None else walk(net, params, *page_rows, title=series.name)

    out = args.out or new_folder_name(Path("runs"), f"explain-{series.name}-{net.cell}")
    with RunFolder(out, force=args.force) as folder:
        flow = measure_flow(net, params, backend.asarray(x), backend.asarray(y))
        check = None
        if precise is not None:
            params = (
                net.init(args.seed, precise)
                if model is None
                else load_fitted(args.trained, precise).predictor.networks[0]
            )
            few = (precise.asarray(a[:_CHECK_ROWS]) for a in (x, y))
            check = check_network(net, params, *few)
        of_windows = f"{len(x)} of {len(windows[0])} windows"
        about = options.describe_data(args, series)
        shapes = walk_shapes(net, len(x), args.seq_length)
        page = _Page(net, series, about, shapes, flow, check, rests)
        head = f"backend  {backend}"
        if explorer is not None:
            explorer.save(args.html)
        if not args.json:
            say("\n".join([head, *page.lines(of_windows, shutil.get_terminal_size().columns)]))
        no_plots = _write(page, folder, head, of_windows)
        if no_plots and not args.json:
            say(f"no plots: {no_plots}")
    if args.json:
        print(json.dumps({"out": str(folder.path), "rows": len(x), **page.summary()}))
    else:
        say(f"wrote    {folder.path}/")
        if args.html is not None:
            say(f"wrote    {args.html}")
    return 0 if check is None or check.ok else 1


def _write(page: _Page, folder: RunFolder, head: str, of_windows: str) -> str:
    """Write text, tables and pictures; return the reason why there are no pictures."""
    folder.remove(_FILES)
    text = "\n".join([head, *page.lines(of_windows)]) + "\n"
    checkpoint.atomic_write(folder.path / "explain.txt", text.encode())
    checkpoint.atomic_write(folder.path / "gradient_flow.csv", page.csv())
    if page.rests is not None:
        checkpoint.atomic_write(folder.path / "attribution.csv", page.rests.csv())
    try:
        checkpoint.atomic_write(folder.path / "gradient_flow.png", page.png(of_windows))
        if page.rests is not None:
            checkpoint.atomic_write(folder.path / "attribution.png", page.rests.png())
    except ImportError as error:
        return str(error)
    return ""


def _plain_windows(args: argparse.Namespace, seen: Any) -> tuple[Any, Any]:
    """Return all scaled windows and targets of a training part, in float64."""
    settings = Settings(
        seq_length=args.seq_length, horizon=args.horizon, scaler=args.scaler, validation=None,
        intervals=None, target="level",
    )  # fmt: skip
    trained = prepare(settings, as_panel(seen)).trained
    return trained.x, trained.y


def _windows_of(model: Fitted, seen: Any) -> tuple[Any, Any]:
    """Return windows and targets in the form that the network takes, one target per quantile."""
    settings = model.settings
    (design,) = model.designs_of(as_panel(seen), None, None)
    windows, _ = cut(
        design, len(seen), settings.seq_length, settings.horizon, settings.reach, validate=False
    )
    return windows.x, np.repeat(windows.y, len(settings.levels_of_quantiles), axis=1)


def _take_settings(
    command: argparse.ArgumentParser, args: argparse.Namespace, model: Fitted
) -> argparse.Namespace:
    """Parse again with the run's settings as defaults, and refuse contradicting options."""
    net, path = model.predictor.net, args.trained / "config.toml"
    config = options.read_toml(path) if path.exists() else {}
    fixed = {
        "seq_length": model.settings.seq_length,
        "horizon": model.settings.horizon,
        "scaler": model.designs[0].scaler.kind,
        "layers": net.num_layers,
        "reset_before": not net.reset_after,
        **{key: value for key, value in dataclasses.asdict(net).items() if hasattr(args, key)},
        **{key: config[key] for key in ("seed",) if key in config},
    }
    data = {
        key: config[key] for key in ("data", "column", "missing", "train_fraction") if key in config
    }
    if net.input_size != 1:
        raise ValueError(
            f"--run {args.trained} has a network of {net.input_size} inputs; explain reads one "
            "column. In Python, rnn_xp.explain takes such networks and their windows."
        )
    given = any(word.split("=")[0] in ("--data", "--config") for word in args.argv)
    if "data" not in config and not given:
        raise ValueError(f"--run {args.trained} does not name its training data: give --data.")
    command.set_defaults(**fixed, **data)
    args = command.parse_args(args.argv[1:], argparse.Namespace(argv=args.argv))
    if args.data in datasets.names() and config.get("data") not in (None, args.data):
        command.set_defaults(column=None, missing="error")  # those were of the run's own file
        args = command.parse_args(args.argv[1:], argparse.Namespace(argv=args.argv))
    if "data" in config and args.data == config["data"]:
        args.data = recorded_data(args.trained, str(config["data"]))
    for key, value in fixed.items():
        if getattr(args, key) != value:
            raise ValueError(
                f"--{key.replace('_', '-')} {getattr(args, key)} contradicts --run {args.trained}, "
                f"which was trained with {value}. Leave it out."
            )
    return args


def _choose(x: Any, y: Any, rows: int | None) -> tuple[Any, Any]:
    """Select windows evenly spaced over the training part."""
    count = min(_ROWS, len(x)) if rows is None else rows
    if not 1 <= count <= len(x):
        raise ValueError(f"--rows must be in 1..{len(x)}, the number of windows, got {count}.")
    index = np.round(np.linspace(0, len(x) - 1, count)).astype(int)
    return x[index], y[index]


def _targets(net: Network, x: Any, y: Any) -> tuple[Any, Any]:
    """Return windows and targets that suit the topology of the network."""
    if net.topology == "many_to_one":
        return x, y
    values = np.concatenate([x[:, 1:, 0], y], axis=1)
    following = np.lib.stride_tricks.sliding_window_view(values, y.shape[1], axis=1)
    return (x[:, :1, :] if net.topology == "one_to_many" else x), following


@dataclasses.dataclass(frozen=True)
class _Page:
    """A network and its gradients as text, table, plot and JSON."""

    net: Network
    series: Series
    about: str
    walk: list[Operation]
    flow: GradientFlow
    check: GradientCheck | None
    rests: Attribution | None = None

    def lines(self, of_windows: str, width: int | None = None) -> list[str]:
        net, flow = self.net, self.flow
        sizes = f"I={net.input_size}, H={net.hidden_size}, O={net.output_size}"
        steps = len(next(iter(flow.dh.values())))
        noisy = net.dropout or net.recurrent_dropout
        off, on = (", dropout off", ", dropout on") if noisy else ("", "")
        lines = [
            f"data     {self.about}",
            f"model    {options.describe_network(net)}",
            f"sizes    N={of_windows}, T={steps}, {sizes}",
            "         [N], [T*N]: the product contracts the batch, so it is a sum over all",
            "         samples and, for T*N, over all time steps",
        ]
        for title, columns in (("rows", False), ("columns, as in books", True)):
            lines += [
                "",
                f"SHAPES, samples in {title}",
            ]
            lines += shape_table(self.walk, columns=columns, width=width)
        lines += ["", f"GRADIENT FLOW, loss {flow.loss:.6g} (mse, scaled){off}"]
        if flow.shares:
            lines.append("share: the part of dL/dw_hh that step t adds; the shares sum to 100 %")
        lines += [*flow.table(), "", *(f"verdict  {flow.verdict(name)}" for name in flow.dh)]
        if self.check is not None:
            lines += [
                "",
                f"GRADIENT CHECK, float64, {_CHECK_ROWS} windows{on}",
                *self.check.table(),
            ]
        return lines if self.rests is None else [*lines, *self.rests.lines()]

    def csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["layer", "t", "norm", "relative", "dw_hh_term", "share"])
        for name in self.flow.names:
            for t, *numbers in self.flow.rows(name):
                writer.writerow([name, t, *("" if math.isnan(n) else f"{n:.9g}" for n in numbers)])
        return text.getvalue().encode()

    def png(self, of_windows: str) -> bytes:
        ax = plotting.gradient_flow(
            {name: self.flow.relative(name) for name in self.flow.dh},
            {name: self.flow.relative_terms(name) for name in self.flow.terms},
            title=f"{options.describe_network(self.net)}\n{self.series.name}, {of_windows}",
        )
        return plotting.to_png(ax)

    def summary(self) -> dict[str, Any]:
        flow = self.flow
        shapes = [
            {
                "part": op.part,
                "equation": op.rows,
                "shapes": op.shapes(sizes=True),
                "equation_in_columns": op.columns,
                "shapes_in_columns": op.shapes(columns=True, sizes=True),
                "times": op.times,
                "sums_over": op.sums_over,
            }
            for op in self.walk
        ]
        keys = ("t", "norm", "relative", "dw_hh_term", "share")
        steps = {
            name: [
                {key: _number(value) for key, value in zip(keys, row, strict=True)}
                for row in flow.rows(name)
            ]
            for name in flow.names
        }
        return {
            "network": dataclasses.asdict(self.net),
            "data": {"name": self.series.name, "sha256": self.series.sha256},
            "loss": _number(flow.loss),
            "shapes": shapes,
            "flow": steps,
            "factor_per_step": {name: _number(flow.per_step(name)) for name in flow.dh},
            "verdict": {name: flow.verdict(name) for name in flow.dh},
            "check": None if self.check is None else dataclasses.asdict(self.check),
            "attribution": None if self.rests is None else self.rests.summary(),
        }


def _number(value: float) -> float | None:
    """Replace a number that is not finite by None, for JSON."""
    return value if math.isfinite(value) else None
