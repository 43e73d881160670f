"""Options that the commands share: data, network, backend and output."""

from __future__ import annotations

import argparse
import functools
import os
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

from rnn_xp.backend.adapters import ADAPTERS
from rnn_xp.cells import CELLS
from rnn_xp.cli.run_folder import column_label
from rnn_xp.data import datasets
from rnn_xp.network import Network

__all__ = [
    "add_backend_options",
    "add_common_options",
    "add_data_options",
    "add_network_options",
    "add_parser",
    "check_whole",
    "describe_data",
    "describe_network",
    "load_series",
    "make_network",
    "read_toml",
    "whole_or_auto",
    "with_config",
]

_IN_ENVIRONMENT = {"backend", "device", "dtype"}  # as RNN_XP_BACKEND, ...
_NOT_IN_FILES = {"config", "help", "out", "force", "json", "resume", "csv", "plots"}


def add_parser(
    commands: Any, name: str, *, description: str, example: str
) -> argparse.ArgumentParser:
    """Add the parser of a command with many options, with a help that fits a screen."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        usage=f"rnn-xp {name} [options]",
        description=description,
        epilog=f"example: {example}",
        formatter_class=functools.partial(argparse.HelpFormatter, max_help_position=34),
        add_help=False,  # a group has it
    )
    return command


def add_data_options(command: argparse.ArgumentParser, also: str = "") -> None:
    """Add the options that select the series and cut it into windows; ``also`` names others."""
    add = command.add_argument_group(f"data{also}").add_argument
    add(
        "--data",
        default="length_of_day",
        help="bundled series or CSV file; ./wti means a file (%(default)s)",
    )
    add("--column", help="column of the CSV file, by name or index from 0")
    add("--missing", default="error", choices=["error", "drop", "interpolate"])
    words = "values per window, or auto (%(default)s)"
    add("--seq-length", type=whole_or_auto, default=10, metavar="T", help=words)
    add("--horizon", type=int, default=1, metavar="K", help="steps ahead to forecast (%(default)s)")
    add("--train-fraction", type=float, default=0.8, metavar="F", help="to train on (%(default)s)")
    add("--scaler", default="standard", choices=["standard", "minmax", "none"])


def add_network_options(command: argparse.ArgumentParser) -> Any:
    """Add the options of the network; return the group, which a command may extend."""
    group = command.add_argument_group(
        "network, also --bidirectional --layer-norm --residual --reset-before (the original gru)"
    )
    add = group.add_argument
    add("--cell", default="rnn", choices=[*CELLS])
    words = "hidden units, or auto (%(default)s)"
    add("--hidden-size", type=whole_or_auto, default=50, metavar="H", help=words)
    add("--layers", type=int, default=1, metavar="L", help="stacked layers (%(default)s)")
    for flag in ("--bidirectional", "--layer-norm", "--residual", "--reset-before"):
        add(flag, action="store_true", help=argparse.SUPPRESS)
    add("--activation", default="tanh", choices=["tanh", "relu"], help="activation of the cell rnn")
    add("--read", default="last", choices=["last", "mean", "max"], help="states to read out")
    add("--dropout", type=float, default=0.0, metavar="P", help="dropout rate between layers")
    add("--recurrent-dropout", type=float, default=0.0, metavar="P", help="dropout rate in a cell")
    add("--seed", type=int, default=0, help="random seed (%(default)s)")
    return group


def add_backend_options(add: Any) -> None:
    """Add the options of the backend."""
    names = "|".join((*ADAPTERS, "auto"))
    add("--backend", metavar="NAME", help=names)
    add("--device", help="overrides RNN_XP_DEVICE: cpu, cuda:0, ...")
    add("--dtype", help="overrides RNN_XP_DTYPE: float32 or float64")


def add_common_options(command: argparse.ArgumentParser, folder: str) -> None:
    """Add the options of the backend and of the output."""
    add = command.add_argument_group("backend and output").add_argument
    add_backend_options(add)
    add("--config", type=Path, metavar="FILE", help="options from a TOML file")
    add("--out", type=Path, metavar="DIR", help=f"output folder ({folder}-1, -2, ...)")
    add("--force", action="store_true", help="replace the files in an existing folder")
    add("--json", action="store_true", help="print one line of JSON and nothing else")
    add("-h", "--help", action="help", help="show this page")


def with_config(command: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """Parse again with the values of ``--config`` as defaults.

    The command line takes precedence over the environment, the environment over the file, and the
    file over the defaults.

    Raises
    ------
    ValueError
        If the file is not TOML, a name in it is not an option, or a value does not suit its option.
    """
    if args.config is None:
        return args
    if not args.config.exists():
        raise ValueError(f"--config {args.config}: there is no such file.")
    values = read_toml(args.config)
    known = {action.dest: action for action in command._actions if action.option_strings}
    settings = {}
    for key, value in values.items():
        if key.startswith("optimizer_"):  # a run's own file has them in full, for its record
            if key == "optimizer_learning_rate" and isinstance(value, float):
                settings["learning_rate"] = value
            continue
        action = known.get(key)
        if action is None or key in _NOT_IN_FILES:
            raise ValueError(
                f"--config {args.config}: {key!r} is not an option of {command.prog or 'this'}."
            )
        _check_value(args.config, key, value, action)
        if os.environ.get(f"RNN_XP_{key.upper()}", "").strip() and key in _IN_ENVIRONMENT:
            continue
        settings[key] = value
    command.set_defaults(**settings)
    again = command.parse_args(args.argv[1:])
    vars(again).update(argv=args.argv, run=args.run)
    return again


def read_toml(path: Path) -> dict[str, Any]:
    """Read options from a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error


def _check_value(path: Path, key: str, value: Any, action: argparse.Action) -> None:
    if action.choices is not None:
        fits, wanted = value in action.choices, f"one of {', '.join(map(str, action.choices))}"
    elif action.nargs == "+":
        fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
        wanted = "a list of names"
    elif action.nargs == 0:
        fits, wanted = isinstance(value, bool), "true or false"
    elif action.type is int:
        fits, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif action.type is whole_or_auto:
        number = isinstance(value, int) and not isinstance(value, bool)
        fits, wanted = number or value == "auto", "a whole number or 'auto'"
    elif action.type is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits, wanted = number, "a number"
    else:
        fits, wanted = isinstance(value, str), "a string"
    if not fits:
        raise ValueError(f"--config {path}: {key} must be {wanted}, got {value!r}.")


def whole_or_auto(text: str) -> int | str:
    """Read a whole number, or "auto" for what the training rows are to choose."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        words = f"a whole number or 'auto' is required, got {text!r}"
        raise argparse.ArgumentTypeError(words) from None


def check_whole(option: str, value: Any, low: int, high: int | None = None) -> None:
    """Check the range of an integer option; None means that it was not given."""
    if value == "auto":
        return
    if value is not None and (value < low or (high is not None and value > high)):
        bounds = f">= {low}" if high is None else f"in {low}..{high}, the number of windows"
        raise ValueError(f"{option} must be an integer {bounds}, got {value}.")


def load_series(args: argparse.Namespace) -> datasets.Series:
    """Load the series that the options name."""
    if args.data in datasets.names():
        for option, is_set in (
            (f"--column {args.column}", args.column is not None),
            (f"--missing {args.missing}", args.missing != "error"),
        ):
            if is_set:
                raise ValueError(
                    f"{option} is for a CSV file, but {args.data} is a bundled series, which has "
                    f"one column and no gaps. Leave it out, or give --data ./{args.data} if you "
                    "mean a file of that name."
                )
        return datasets.load(args.data)
    if Path(args.data).is_dir():
        raise ValueError(f"--data {args.data} is a folder; name a CSV file in it.")
    if not Path(args.data).exists():
        raise ValueError(
            f"--data {args.data!r} is neither a bundled series "
            f"({', '.join(datasets.names())}) nor a file."
        )
    return _read_csv(args, args.missing)


def _read_csv(args: argparse.Namespace, missing: str) -> datasets.Series:
    column = int(args.column) if args.column and args.column.isdecimal() else args.column
    return datasets.read_csv(args.data, column=column, missing=missing)


def make_network(args: argparse.Namespace, **more: Any) -> Network:
    """Make the network that the options describe, for a single series."""
    return Network(
        cell=args.cell,
        input_size=1,
        hidden_size=args.hidden_size,
        output_size=args.horizon,
        num_layers=args.layers,
        bidirectional=args.bidirectional,
        activation=args.activation,
        read=args.read,
        dropout=args.dropout,
        recurrent_dropout=args.recurrent_dropout,
        layer_norm=args.layer_norm,
        residual=args.residual,
        reset_after=not args.reset_before,
        **more,
    )


def describe_network(net: Network) -> str:
    """Return a line that describes the network, without unused options."""
    size = f"{net.cell.upper()} {net.num_layers}x{net.hidden_size}"
    parts = [f"{size} ({net.activation})" if net.cell == "rnn" else size]
    if net.topology != "many_to_one":
        parts.append(net.topology.replace("_", "-"))
    if net.topology == "one_to_many":
        parts.append(f"feed {net.feed}")
    choices = {
        "reset before the product": not net.reset_after,
        "bidirectional": net.bidirectional,
        f"read {net.read}": net.read != "last",
        f"dropout {net.dropout:g}": net.dropout,
        f"recurrent dropout {net.recurrent_dropout:g}": net.recurrent_dropout,
        "layer norm": net.layer_norm,
        "residual": net.residual,
        f"linear path from {net.linear_lags} steps": net.linear_lags,
    }
    parts += [words for words, chosen in choices.items() if chosen]
    readout = f"readout {net.output_size}"
    if net.output_activation != "identity":
        readout += f" ({net.output_activation})"
    return f"{', '.join(parts)} + {readout}: {net.num_parameters} parameters"


def describe_data(args: argparse.Namespace, series: datasets.Series) -> str:
    """Return a line that describes the data, and names changes and omitted checks."""
    span = f" {series.dates[0]}..{series.dates[-1]}" if series.dates else ""
    parts = [
        f"{series.name} ({column_label(series)}): {len(series.values)} rows{span}",
        _describe_missing(args, series),
        _describe_order(series.dates or ()),
        f"sha256 {series.sha256[:8]}",
    ]
    return ", ".join(part for part in parts if part)


def _describe_missing(args: argparse.Namespace, series: datasets.Series) -> str:
    """Return the number of rows that were dropped or filled, in words."""
    if args.missing == "error":
        return ""
    other, action = {
        "drop": ("interpolate", "dropped"),
        "interpolate": ("drop", "filled"),
    }[args.missing]
    try:
        count = str(abs(len(_read_csv(args, other).values) - len(series.values)))
    except ValueError:  # a gap at an end can be dropped, but not filled
        count = "some"
    return f"{count} missing {action}"


def _describe_order(dates: tuple[str, ...]) -> str:
    """Return a remark if the order of the rows could not be checked."""
    try:
        moments = [datetime.fromisoformat(date) for date in dates]
    except ValueError:
        return "dates not ISO 8601: order not checked"
    if len({moment.tzinfo is None for moment in moments}) > 1:
        return "dates with and without a time zone: order not checked"
    return ""
