"""``rnn-xp import``: make a run from a model of another library, or from exported weights."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

from rnn_xp.backend import get_backend
from rnn_xp.checkpoint import CheckpointError
from rnn_xp.cli import options
from rnn_xp.cli.messages import say
from rnn_xp.cli.run_folder import RUN_FILES, RunFolder
from rnn_xp.data.scalers import Scaler, parse_scaler
from rnn_xp.forecasting.files import of_network, save_fitted
from rnn_xp.forecasting.fitted import Fitted
from rnn_xp.interchange import Loaded, load

__all__ = ["add_command"]

_HINTS = ("rnn", "readout", "topology", "activation", "read", "output_activation", "scaler")
_OPTION = re.compile(rf"\b({'|'.join(_HINTS)})=(?=(['\"])?)")


def add_command(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "import",
        description="Make a run from a model of PyTorch, Keras, Flax, Equinox, MLX, Paddle or "
        "ONNX, or from exported weights. The file's content says which it is; see "
        "docs/guide/interchange.md.",
        epilog="example: rnn-xp import lstm.pt --seq-length 10 --scaler standard:20:3 --out lstm",
    )
    add = command.add_argument
    add("source", type=Path, metavar="FILE", help="a .pt, .safetensors, .keras, .onnx, ... file")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add("--force", action="store_true", help="replace the files in an existing folder")
    add("--seq-length", type=int, metavar="T", help="values per window, if the file does not say")
    add("--rnn", metavar="NAMES", help="recurrent modules in the file: first,second or one+reverse")
    add("--readout", metavar="NAME", help="module of the readout; all others are then ignored")
    add("--topology", choices=["many_to_one", "many_to_many"], help="default: many_to_one")
    add("--activation", choices=["tanh", "relu"], help="activation of an RNN; default: tanh")
    add("--read", choices=["last", "mean", "max"], help="states the readout sees; default: last")
    add("--output-activation", choices=["identity", "sigmoid", "tanh", "softmax"])
    add("--scaler", type=_scaler, metavar="KIND:OFFSET:SCALE",
        help="scaler of the training, as standard:20:3, with commas between columns")  # fmt: skip
    command.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> int:
    options.check_whole("--seq-length", args.seq_length, 1)
    try:
        loaded = load(args.source, **{name: getattr(args, name) for name in _HINTS})
    except CheckpointError as error:
        raise CheckpointError(_OPTION.sub(_as_option, str(error))) from error
    except ImportError as error:
        raise ValueError(str(error)) from error
    model = _fitted(args, loaded)
    with RunFolder(args.out, force=args.force) as folder:
        save_fitted(folder.path / "model.safetensors", model)
        folder.remove(set(RUN_FILES) - {"model.safetensors"})  # those of an earlier run
        print(f"wrote    {folder.path}/model.safetensors")
        say(f"         {options.describe_network(model.predictor.net)}")
        say(f"         from a file of the kind: {loaded.kind}")
        for name, value in loaded.assumed.items():
            say(f"assumed  {name.replace('_', ' ')}: {value}")
    return 0


def _fitted(args: argparse.Namespace, loaded: Loaded) -> Fitted:
    about = loaded.about
    seq_length = about.get("seq_length", args.seq_length)
    if args.seq_length not in (None, seq_length):
        raise ValueError(
            f"--seq-length {args.seq_length} contradicts {args.source}, which says {seq_length}. "
            "Leave it out."
        )
    if seq_length is None:
        raise ValueError("the file does not say how long the windows are: give --seq-length T.")
    if "seq_length" not in about:
        columns = loaded.net.input_size
        scaler = loaded.scaler or Scaler("none", (0.0,) * columns, (1.0,) * columns)
        about = {"scaler": dataclasses.asdict(scaler), "seq_length": seq_length}
        about["horizon"] = loaded.net.output_size
    try:
        return of_network(loaded.net, loaded.params, get_backend("numpy", device="cpu"), about)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{args.source} does not describe a model: {error}.") from error


def _as_option(match: re.Match[str]) -> str:
    """Write an argument of `load` in a message, ``rnn='a'`` or ``rnn=``, as an option."""
    return f"--{match[1].replace('_', '-')}" + (" " if match[2] else "")


def _scaler(text: str) -> Scaler:
    try:
        return parse_scaler(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
