"""``rnn-xp export``: write networks for other systems."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp import __version__, checkpoint, optim
from rnn_xp._typing import Params
from rnn_xp.backend import get_backend
from rnn_xp.cli import options
from rnn_xp.cli.messages import say
from rnn_xp.cli.targets import check_file
from rnn_xp.forecasting.files import describe, load_fitted
from rnn_xp.forecasting.fitted import Fitted
from rnn_xp.interchange import files, onnx, onnx_training
from rnn_xp.network import Network

__all__ = ["add_command"]

_FILES = {
    "torch": "torch.safetensors",
    "keras": "keras.safetensors",
    "onnx": "model.onnx",
    "onnx-train": "train.onnx",
}
_OPTIMIZERS = {
    "adam": optim.adam,
    "adamw": optim.adamw,
    "rmsprop": optim.rmsprop,
    "adagrad": optim.adagrad,
    "sgd": optim.sgd,
}
_ONLY = {"scaler": "onnx", "lengths": "onnx", "rows": "onnx-train", "optimizer": "onnx-train"}


def add_command(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "export",
        description="Write the network of a run for other systems. See docs/guide/interchange.md.",
        epilog="example: rnn-xp export runs/length_of_day-rnn-1 --to onnx --scaler",
    )
    add = command.add_argument
    add("source", type=Path, metavar="RUN", help="a run's folder, or one of its safetensors files")
    add("--to", required=True, choices=list(_FILES), help="target; onnx-train is a training step")
    add("--out", type=Path, metavar="FILE", help=f"RUN/{' | '.join(_FILES.values())}")
    add("--force", action="store_true", help="replace the file if it exists")
    add("--scaler", action="store_true", help="onnx: input and output in the units of the data")
    add("--lengths", action="store_true", help="onnx: a second input, the lengths of the rows")
    add("--rows", type=int, metavar="N", help="onnx-train: batch size, which is fixed")
    add("--optimizer", choices=list(_OPTIMIZERS), help="onnx-train: optimiser; adam by default")
    command.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    for option, target in _ONLY.items():
        if getattr(args, option) not in (None, False) and args.to != target:
            raise ValueError(f"--{option} is for --to {target}, not {args.to}.")
    if args.to == "onnx-train" and args.rows is None:
        raise ValueError("--to onnx-train needs --rows N, the size of the batch.")
    options.check_whole("--rows", args.rows, 1)
    folder = args.source if args.source.is_dir() else args.source.parent
    path = args.out or folder / _FILES[args.to]
    if args.source.exists():  # otherwise an error names the run, and not the file
        check_file("--out", path, force=args.force)
    model, precise = _load(args.source, float32=args.to.startswith("onnx"))
    net, params = _network_of(args, model)
    about = {**describe(model.settings, model.designs[0].scaler), "rnn_xp": __version__}
    notes = [options.describe_network(net)]
    if args.to in files.LAYOUTS:
        if net.linear_lags:
            raise ValueError(
                f"--to {args.to} has no form for the linear path of {args.source}. Give --to onnx, "
                "or train without it: --no-linear, or --plain."
            )
        files.save(path, args.to, net, params, about)
        notes.append(f"gates {files.LAYOUTS[args.to][net.cell]}")
    else:
        graph, more = _graph(args, model, about)
        checkpoint.atomic_write(path, graph.SerializeToString())
        notes += more
        if precise:
            notes.append("cast from float64 to float32")
    print(f"wrote    {path} ({path.stat().st_size / 1000:.1f} kB)")
    for note in notes:
        say(f"         {note}")
    return 0


def _network_of(args: argparse.Namespace, model: Fitted) -> tuple[Network, Params]:
    """Return the network of a model, which must be the only one."""
    networks = model.predictor.networks
    if len(networks) > 1:
        raise ValueError(
            f"{args.source} averages {len(networks)} networks, but other systems are given one. "
            "Train with --seeds 1."
        )
    return model.predictor.net, networks[0]


def _graph(args: argparse.Namespace, model: Fitted, about: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return the graph, and lines that describe it."""
    net, params = _network_of(args, model)
    target = model.settings.target
    if args.scaler and target != "level":
        raise ValueError(
            f"--scaler is for --target level: the network of {args.source} is given changes, not "
            f"the values of the series (--target {target}). Leave it out."
        )
    try:
        if args.to == "onnx":
            scaler = model.designs[0].scaler if args.scaler else None
            graph = onnx.to_onnx(
                net, params, scaler=scaler, lengths=args.lengths,
                about={key: value for key, value in about.items() if key != "scaler"},
            )  # fmt: skip
            units = "the data's own" if args.scaler else "scaled"
            return graph, [_signature(graph), f"units {units}"]
        calm = dataclasses.replace(net, dropout=0.0, recurrent_dropout=0.0)
        optimizer = _OPTIMIZERS[args.optimizer or "adam"]()
        graph = onnx_training.to_training_step(
            calm,
            rows=args.rows,
            steps=model.settings.seq_length,
            optimizer=optimizer,
            about=about,
        )
    except ImportError as error:
        raise ValueError(str(error)) from error
    lines = [f"one update by {type(optimizer).__name__}, loss mse, x and y scaled"]
    lines += ["without dropout"] if calm != net else []
    return graph, [*lines, "the weights are inputs: pass the arrays of model.safetensors by name"]


def _signature(graph: Any) -> str:
    def show(value: Any) -> str:
        sizes = (d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
        return f"{value.name} ({', '.join(sizes)})"

    inputs, outputs = map(show, graph.graph.input), map(show, graph.graph.output)
    return f"{', '.join(inputs)} -> {', '.join(outputs)}"


def _load(source: Path, *, float32: bool) -> tuple[Fitted, bool]:
    """Load a model in its own precision or in float32; return True if its own is float64."""
    arrays, _ = checkpoint.load(source / "model.safetensors" if source.is_dir() else source)
    precise = any(
        array.dtype == np.float64 for name, array in arrays.items() if name.startswith("layer0.")
    )
    dtype = "float64" if precise and not float32 else "float32"
    return load_fitted(source, get_backend("numpy", device="cpu", dtype=dtype)), precise
