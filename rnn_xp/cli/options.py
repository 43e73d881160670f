"""What the commands share: options of the data, the network, the backend and the output."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from rnn_xp import datasets
from rnn_xp.network import Network

__all__ = [
    "add_common_options",
    "add_data_options",
    "add_network_options",
    "add_parser",
    "describe_network",
    "describe_series",
    "load_series",
    "make_network",
]


def add_parser(
    commands: Any, name: str, *, help: str, description: str, example: str
) -> argparse.ArgumentParser:
    """Add the parser of a command with many options, whose help fits a screen."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        usage=f"rnn-xp {name} [options]",
        description=description,
        epilog=f"example: {example}",
        formatter_class=functools.partial(argparse.HelpFormatter, max_help_position=34),
        add_help=False,  # a group has it
    )
    return command


def add_data_options(command: argparse.ArgumentParser) -> None:
    """Which series, and how it becomes windows."""
    add = command.add_argument_group("data").add_argument
    add("--data", default="length_of_day", help="a bundled series or a CSV file (%(default)s)")
    add("--column", help="column of the CSV file, by name or by index from 0")
    add("--missing", default="error", choices=["error", "drop", "interpolate"])
    add("--seq-length", type=int, default=10, metavar="T", help="values per window (%(default)s)")
    add("--horizon", type=int, default=1, metavar="K", help="steps ahead to forecast (%(default)s)")
    add("--train-fraction", type=float, default=0.8, metavar="F", help="(%(default)s)")
    add("--scaler", default="standard", choices=["standard", "minmax", "none"])


def add_network_options(command: argparse.ArgumentParser) -> Any:
    """Which network; returns the group, to which a command may add."""
    group = command.add_argument_group("network")
    add = group.add_argument
    add("--cell", default="rnn", choices=["rnn", "gru", "lstm"])
    add("--hidden-size", type=int, default=50, metavar="H", help="(%(default)s)")
    add("--layers", type=int, default=1, metavar="L", help="stacked layers (%(default)s)")
    add("--bidirectional", action="store_true", help="a second set of layers, time reversed")
    add("--activation", default="tanh", choices=["tanh", "relu"], help="of the cell rnn")
    add("--read", default="last", choices=["last", "mean", "max"], help="which states are read")
    add("--dropout", type=float, default=0.0, metavar="P", help="rate between layers")
    add("--recurrent-dropout", type=float, default=0.0, metavar="P", help="rate within the cell")
    add("--layer-norm", action="store_true", help="layer normalisation inside the cell")
    add("--residual", action="store_true", help="layers from the second on add their input")
    add("--reset-before", action="store_true", help="the original gru: reset before the product")
    add("--seed", type=int, default=0, help="(%(default)s)")
    return group


def add_common_options(command: argparse.ArgumentParser, folder: str) -> None:
    """Where the computation happens, and where the results go."""
    add = command.add_argument_group("backend and output").add_argument
    names = "numpy|cupy|torch|jax|array_api_strict|auto"
    add("--backend", metavar="NAME", help=f"over RNN_XP_BACKEND: {names}")
    add("--device", help="over RNN_XP_DEVICE: cpu, cuda:0, ...")
    add("--dtype", help="over RNN_XP_DTYPE: float32 or float64")
    add("--out", type=Path, metavar="DIR", help=f"folder ({folder}-1, -2, ...)")
    add("--force", action="store_true", help="replace the files in an existing folder")
    add("--json", action="store_true", help="print one line of JSON and nothing else")
    add("-h", "--help", action="help", help="show this page")


def load_series(args: argparse.Namespace) -> datasets.Series:
    """Load the series that the options name."""
    if args.data in datasets.names():
        return datasets.load(args.data)
    if not Path(args.data).exists():
        raise ValueError(
            f"--data {args.data!r} is neither a bundled series "
            f"({', '.join(datasets.names())}) nor a file."
        )
    column = int(args.column) if args.column and args.column.isdecimal() else args.column
    return datasets.read_csv(args.data, column=column, missing=args.missing)


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
    """Say in a line what the network is, leaving out what it is not."""
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
    }
    parts += [words for words, chosen in choices.items() if chosen]
    readout = f"readout {net.output_size}"
    if net.output_activation != "identity":
        readout += f" ({net.output_activation})"
    return f"{', '.join(parts)} + {readout}: {net.num_parameters} parameters"


def describe_series(series: datasets.Series) -> str:
    """Say in a line what the data are."""
    span = f" {series.dates[0]}..{series.dates[-1]}" if series.dates else ""
    return f"{series.name}: {len(series.values)} rows{span}, sha256 {series.sha256[:8]}"
