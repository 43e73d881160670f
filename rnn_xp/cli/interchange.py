"""``rnn-xp export | import``: write networks for other systems, and read their weights."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from rnn_xp._typing import Params
from rnn_xp.backend import Backend, get_backend
from rnn_xp.checkpoint import CheckpointError, ForeignFileError
from rnn_xp.cli import options
from rnn_xp.cli.exporting import add_export
from rnn_xp.cli.messages import say
from rnn_xp.cli.run_folder import RUN_FILES, RunFolder
from rnn_xp.data.scalers import Scaler
from rnn_xp.forecasting.files import of_network, save_fitted
from rnn_xp.forecasting.fitted import Fitted
from rnn_xp.interchange import files, torch
from rnn_xp.network import Network

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add both commands."""
    add_export(commands)
    command = commands.add_parser(
        "import",
        description="Make a run from exported weights, or from a state_dict of PyTorch.",
        epilog="example: rnn-xp import gru.safetensors --foreign --seq-length 10 --out gru",
    )
    add = command.add_argument
    add("source", type=Path, metavar="FILE", help="torch.safetensors or keras.safetensors")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add("--force", action="store_true", help="replace the files in an existing folder")
    add("--foreign", action="store_true", help="a state_dict of PyTorch, which has no digest")
    add("--seq-length", type=int, metavar="T", help="values per window, if the file does not say")
    add("--activation", choices=["tanh", "relu"], help="activation of a foreign RNN (tanh)")
    add("--read", choices=["last", "mean", "max"], help="states that the readout sees (last)")
    command.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> int:
    options.check_whole("--seq-length", args.seq_length, 1)
    model = _foreign(args) if args.foreign else _own(args)
    with RunFolder(args.out, force=args.force) as folder:
        save_fitted(folder.path / "model.safetensors", model)
        folder.remove(set(RUN_FILES) - {"model.safetensors"})  # those of an earlier run
        print(f"wrote    {folder.path}/model.safetensors")
        say(f"         {options.describe_network(model.predictor.net)}")
    return 0


def _own(args: argparse.Namespace) -> Fitted:
    for option in ("activation", "read"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} is for --foreign files; other files contain it.")
    try:
        net, params, _, about = files.load(args.source)
    except ForeignFileError as error:
        raise ForeignFileError(f"{error} Give --foreign to take it as it is.") from error
    if "seq_length" not in about:
        return _model(net, params, args.seq_length)
    if args.seq_length not in (None, about["seq_length"]):
        raise ValueError(
            f"--seq-length {args.seq_length} contradicts {args.source}, which says "
            f"{about['seq_length']}. Leave it out."
        )
    try:
        return of_network(net, params, _host(), about)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{args.source} does not describe a model: {error}.") from error


def _foreign(args: argparse.Namespace) -> Fitted:
    asked = {"activation": args.activation, "read": args.read}
    state = files.read_foreign(args.source)
    choices = {key: value for key, value in asked.items() if value is not None}
    net, rnn, readout = torch.infer_network(state, **choices)
    params = torch.from_state_dict(net, state, rnn=rnn, readout=readout)
    return _model(net, params, args.seq_length)


def _model(net: Network, params: Params, seq_length: int | None) -> Fitted:
    if seq_length is None:
        raise ValueError("the file does not say how long the windows are: give --seq-length T.")
    columns = net.input_size
    scaler = Scaler("none", (0.0,) * columns, (1.0,) * columns)
    about = {"scaler": dataclasses.asdict(scaler), "seq_length": seq_length}
    return of_network(net, params, _host(), {**about, "horizon": net.output_size})


def _host() -> Backend:
    return get_backend("numpy", device="cpu")
