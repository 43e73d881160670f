"""``rnn-xp export``: write networks for other systems, and run what was written."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from rnn_xp import __version__, checkpoint, optim
from rnn_xp._typing import Params
from rnn_xp.backend import get_backend
from rnn_xp.cli import options
from rnn_xp.cli.messages import say
from rnn_xp.cli.targets import check_file
from rnn_xp.forecasting import exporting
from rnn_xp.forecasting.files import describe, load_fitted
from rnn_xp.forecasting.fitted import Fitted
from rnn_xp.interchange import (
    compact,
    consumers,
    example,
    files,
    keras_model,
    onnx,
    onnx_training,
    torch_module,
)
from rnn_xp.interchange.runtimes import RUNTIMES, is_installed
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
_ONLY = {
    "scaler": "onnx", "lengths": "onnx", "spelling": "onnx", "stateful": "onnx", "batch": "onnx",
    "steps": "onnx", "dtype": "onnx", "forecast": "onnx", "check": "onnx", "for": "onnx",
    "rows": "onnx-train", "optimizer": "onnx-train",
}  # fmt: skip
_WHOLE = {"torch": ".py", "keras": ".keras"}  # files of whole models rather than weights
_ALL = "all that are installed"


def add_command(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "export",
        description="Write the network of a run for other systems. See docs/guide/interchange.md.",
        epilog="example: rnn-xp export runs/length_of_day-rnn-1 --to onnx --scaler",
    )
    add = command.add_argument
    add(
        "source", type=Path, metavar="RUN",
        help="a run's folder, one of its safetensors files or, with --check alone, an ONNX file",
    )  # fmt: skip
    add("--to", choices=list(_FILES), help="target; onnx-train is a training step")
    add(
        "--out", type=Path, metavar="FILE",
        help=f"RUN/{' | '.join(_FILES.values())}; a name in .keras or .py: a whole model",
    )  # fmt: skip
    add("--force", action="store_true", help="replace the file if it exists")
    add("--scaler", action="store_true", help="onnx: input and output in the units of the data")
    add(
        "--forecast", action="store_true",
        help="onnx: values of the series in, forecasts out; scaling and differences are inside",
    )  # fmt: skip
    add("--lengths", action="store_true", help="onnx: a second input, the lengths of the rows")
    add("--stateful", action="store_true", help="onnx: the state goes in and comes out")
    add(
        "--spelling", choices=onnx.SPELLINGS,
        help="onnx: recurrent operators (native), or elementary ones that all runtimes agree on",
    )  # fmt: skip
    add("--batch", type=int, metavar="N", help="onnx: number of rows, if it is to be fixed")
    add("--steps", type=int, metavar="T", help="onnx: number of steps, if it is to be fixed")
    add(
        "--dtype", choices=["float32", "float16", "int8"],
        help="onnx: precision of the weights; what it costs is measured",
    )  # fmt: skip
    add("--for", choices=consumers.NAMES, help="onnx: refuse what this runtime computes wrongly")
    add(
        "--check", nargs="?", const=_ALL, choices=[_ALL, *RUNTIMES], metavar="RUNTIME",
        help=f"onnx: run the example in the file in {', '.join(RUNTIMES)} (all that are installed)",
    )  # fmt: skip
    add("--rows", type=int, metavar="N", help="onnx-train: batch size, which is fixed")
    add("--optimizer", choices=list(_OPTIMIZERS), help="onnx-train: optimiser; adam by default")
    command.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    if args.to is None:
        return _check_alone(args)
    model_of_its_own = args.out is not None and args.out.suffix == _WHOLE.get(args.to)
    for option, target in _ONLY.items():
        if option == "scaler" and model_of_its_own:
            continue
        if getattr(args, option) not in (None, False) and args.to != target:
            raise ValueError(f"--{option} is for --to {target}, not {args.to}.")
    if args.to == "onnx-train" and args.rows is None:
        raise ValueError("--to onnx-train needs --rows N, the size of the batch.")
    for option in ("rows", "batch", "steps"):
        options.check_whole(f"--{option}", getattr(args, option), 1)
    folder = args.source if args.source.is_dir() else args.source.parent
    path = args.out or folder / _FILES[args.to]
    if args.source.exists():  # otherwise an error names the run, and not the file
        check_file("--out", path, force=args.force)
    model, precise = _load(args.source, float32=args.to.startswith("onnx"))
    about = {**describe(model.settings, model.designs[0].scaler), "rnn_xp": __version__}
    notes = []
    if model_of_its_own:
        notes += _whole(args, model, path)
    elif args.to in files.LAYOUTS:
        notes += _weights(args, model, path, about)
    else:
        graph, more = _graph(args, model, about)
        checkpoint.atomic_write(path, graph.SerializeToString())
        notes += [options.describe_network(model.predictor.net), *more]
        if precise:
            notes.append("cast from float64 to float32")
    print(f"wrote    {path} ({path.stat().st_size / 1000:.1f} kB)")
    for note in notes:
        say(f"         {note}")
    return 0 if args.check is None else _check(path, args.check)


def _weights(
    args: argparse.Namespace, model: Fitted, path: Path, about: dict[str, Any]
) -> list[str]:
    """Write a file of weights, and return lines that describe it."""
    net, params = _network_of(args, model)
    if net.linear_lags:
        raise ValueError(
            f"--to {args.to} has no form for the linear path of {args.source}. Give --to onnx, "
            "or train without it: --no-linear, or --plain."
        )
    files.save(path, args.to, net, params, about)
    return [options.describe_network(net), f"gates {files.LAYOUTS[args.to][net.cell]}"]


def _whole(args: argparse.Namespace, model: Fitted, path: Path) -> list[str]:
    """Write a model of Keras, or a module of PyTorch with its weights; return lines about it."""
    net, params = _network_of(args, model)
    if args.scaler and model.settings.target != "level":
        raise ValueError("--scaler is for --target level: this network is given changes.")
    scaler = model.designs[0].scaler if args.scaler else None
    units = "the data's own" if args.scaler else "scaled"
    lines = [options.describe_network(net), f"units {units}"]
    if args.to == "torch":
        weights = path.with_suffix(".safetensors")
        check_file("--out", weights, force=args.force)
        state = torch_module.module_state(net, params)
        code = torch_module.module_code(net, scaler=scaler, weights=weights.name)
        checkpoint.atomic_write(weights, safetensors.numpy.save(state))
        checkpoint.atomic_write(path, code.encode())
        return [*lines, f"weights in {weights}"]
    try:
        keras = keras_model.to_model(net, params, scaler=scaler, steps=model.settings.seq_length)
    except ImportError as error:
        raise ValueError(str(error)) from error
    with tempfile.TemporaryDirectory() as folder:
        keras.save(Path(folder) / "model.keras")
        checkpoint.atomic_write(path, (Path(folder) / "model.keras").read_bytes())
    return lines


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
    try:
        if args.to == "onnx":
            if name := getattr(args, "for"):
                _check_consumer(args, name, model.predictor.net, model.settings.seq_length)
            return _forecaster(args, model) if args.forecast else _predictor(args, model, about)
        net, _ = _network_of(args, model)
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


def _check_consumer(args: argparse.Namespace, name: str, net: Network, window: int) -> None:
    """Refuse a graph that a runtime is known not to compute, and say which one it does."""
    fixed = args.steps
    if args.forecast:
        if name == "mnn":
            raise ValueError(
                "--for mnn: mnn 3.6.1 has no float64, in which the graph of a forecaster reads "
                "the series. Leave out --forecast to write the network alone."
            )
        fixed = window if args.batch else None
    refusal = consumers.refusal(
        name, net, spelling=args.spelling or "native", lengths=args.lengths, rows=args.batch,
        steps=fixed, stateful=args.stateful,
    )  # fmt: skip
    if refusal is not None:
        if args.forecast:  # its number of steps is that of the window, fixed with the rows
            refusal = refusal.partition(" Export with ")[0]
            refusal += " Export with --spelling portable --batch N."
        raise ValueError(f"--for {name}: {refusal}")


def _predictor(
    args: argparse.Namespace, model: Fitted, about: dict[str, Any]
) -> tuple[Any, list[str]]:
    """Return the graph of the network, and lines that describe it."""
    net, params = _network_of(args, model)
    target = model.settings.target
    if args.scaler and target != "level":
        raise ValueError(
            f"--scaler is for --target level: the network of {args.source} is given changes, not "
            f"the values of the series (--target {target}). Leave it out, or give --forecast."
        )
    if args.stateful and (net.bidirectional or net.linear_lags):
        what = "two directions" if net.bidirectional else "the linear path"
        need = "the steps after a piece" if net.bidirectional else "the steps before a piece"
        raise ValueError(
            f"--stateful is for predicting a stream piece by piece, and {what} of {args.source} "
            f"needs {need}, which the state does not hold. Leave it out, or train "
            f"without {what}."
        )
    scaler = model.designs[0].scaler if args.scaler else None
    sizes = {"rows": args.batch, "steps": args.steps}
    asked = {"scaler": scaler, "lengths": args.lengths, "stateful": args.stateful, **sizes}
    graph = onnx.to_onnx(
        net, params, **asked, spelling=args.spelling or "native", dtype=_stored(args),
        about={key: value for key, value in about.items() if key != "scaler"},
    )  # fmt: skip
    kept = example.make_example(net, params, **asked)
    lines: list[str] = []
    if args.dtype in ("float16", "int8"):
        rows = args.batch or 256
        steps = args.steps or max(model.settings.seq_length, net.linear_lags)
        many = example.make_example(
            net, params, **{**asked, "rows": rows, "steps": steps}, seed=1
        )  # fmt: skip
        small = compact.quantize(graph) if args.dtype == "int8" else graph
        graph, lines = _reduced(args, small, many, kept)
        kept = kept._replace(tolerance=_tolerance(graph, many, kept))
    example.write(graph, kept)
    units = "the data's own" if args.scaler else "scaled"
    return graph, [_signature(graph), f"units {units}", *lines]


def _forecaster(args: argparse.Namespace, model: Fitted) -> tuple[Any, list[str]]:
    """Return the graph of the whole forecaster, and lines that describe it."""
    for option in ("scaler", "lengths", "stateful", "steps"):
        if getattr(args, option) not in (None, False):
            raise ValueError(f"--{option} cannot be given with --forecast. Leave it out.")
    graph = exporting.to_onnx(
        model, spelling=args.spelling or "native", rows=args.batch, dtype=_stored(args)
    )
    kept = example.example_of(graph)
    lines: list[str] = []
    if args.dtype in ("float16", "int8"):
        small = compact.quantize(graph) if args.dtype == "int8" else graph
        graph, lines = _reduced(args, small, kept, kept)
        example.write(graph, kept._replace(tolerance=_tolerance(graph, kept)))
    return graph, [_signature(graph), "units the data's own", *lines]


def _stored(args: argparse.Namespace) -> str:
    return "float16" if args.dtype == "float16" else "float32"


def _reduced(
    args: argparse.Namespace, graph: Any, *examples: example.Example
) -> tuple[Any, list[str]]:
    loss = compact.measure_loss(graph, examples[0])
    return graph, [f"{args.dtype}: predictions differ by up to {loss:.1e} from those in float32"]


def _tolerance(graph: Any, *examples: example.Example) -> float:
    """Return twice the loss, within which an example in reduced precision is right."""
    losses = [compact.measure_loss(graph, each) for each in examples]
    return max(2.0 * max(losses), examples[-1].tolerance)


def _check_alone(args: argparse.Namespace) -> int:
    if args.check is None:
        raise ValueError(f"give --to, one of {', '.join(_FILES)}; or --check, with an ONNX file.")
    if not args.source.is_file():
        raise ValueError(f"--check without --to needs an ONNX file, and {args.source} is none.")
    return _check(args.source, args.check)


def _check(path: Path, runtime: str) -> int:
    """Run the example of a file; return 1 if a result is wrong or a named runtime refuses."""
    try:
        importlib.import_module("onnx")
        names = [name for name in RUNTIMES if is_installed(name)] if runtime == _ALL else [runtime]
        results = [example.check(path, name) for name in names]
    except ImportError as error:
        raise ValueError(
            f"--check needs onnx and the runtime, and one is not installed: {error}."
        ) from error
    failed = False
    for checked in results:
        what = f"check    {checked.runtime} {checked.version}: "
        if checked.error is None:
            say(f"{what}refuses the graph: {checked.message}")
            failed = failed or runtime != _ALL
        else:
            word = "equal, within" if checked.ok else "WRONG, by"
            say(f"{what}{word} {checked.error:.1e}")
            failed = failed or not checked.ok
    return int(failed)


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
