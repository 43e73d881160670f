"""``rnn-xp classify train | predict | report``: sequences in files, and the classes of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rnn_xp import __version__, checkpoint
from rnn_xp._checks import install
from rnn_xp.backend import Backend, get_backend
from rnn_xp.cells import CELLS
from rnn_xp.cli import options
from rnn_xp.cli.classified import (
    Found,
    about,
    arrays,
    check_features,
    check_fit,
    described,
    of_classes,
    page,
    split,
    usual,
)
from rnn_xp.cli.confusion import Confusion
from rnn_xp.cli.messages import say, while_compiling
from rnn_xp.cli.run_folder import RunFolder, new_folder_name
from rnn_xp.cli.summary import where
from rnn_xp.cli.targets import FORCE, check_file
from rnn_xp.data.labelled import Labelled, read_labelled
from rnn_xp.forecasting import plotting

__all__ = ["add_command"]

_MODEL, _METRICS, _PREDICTIONS = "model.safetensors", "metrics.json", "predictions.csv"
_REPORT, _PICTURE = "report.html", "confusion.png"
_FILES = ("history.csv", _MODEL, _METRICS, _PREDICTIONS, _REPORT, _PICTURE)


def add_command(commands: Any) -> None:
    """Add the command and the three that it has."""
    command = commands.add_parser(
        "classify",
        description="Train a classifier of sequences, use it, and judge it.",
        epilog="example: rnn-xp classify train --data gestures/",
    )
    parts = command.add_subparsers(required=True, metavar="train|predict|report")
    _add_train(parts)
    part = parts.add_parser(
        "predict",
        description="Predict the class of each sequence.",
        epilog="example: rnn-xp classify predict runs/gestures-gru-1 --data new.csv --csv out.csv",
    )
    _add_use(part)
    part.add_argument("--csv", type=Path, metavar="FILE", help="write the predictions to this file")
    part.set_defaults(run=_predict)
    part = parts.add_parser(
        "report",
        description="Judge a classifier on sequences whose classes are known.",
        epilog="example: rnn-xp classify report runs/gestures-gru-1 --data new/ --html page.html",
    )
    _add_use(part)
    part.add_argument("--html", type=Path, metavar="PAGE", help="write the report to this file")
    part.set_defaults(run=_judge)


def _add_data(add: Any) -> None:
    words = "a folder with a folder of CSV files for each class, a table (CSV), or a .ts file"
    add("--data", type=Path, required=True, help=words)
    for name in ("id", "time", "label"):
        words = f"column of a table ({name})"
        add(f"--{name}", dest=f"{name}_column", metavar="COLUMN", help=words)
    add("--missing", default="error", choices=["error", "drop", "interpolate"])


def _add_train(parts: Any) -> None:
    part = parts.add_parser(
        "train",
        usage="rnn-xp classify train --data DATA [options]",
        description="Train a classifier of sequences and judge it on those held out.",
        epilog="example: rnn-xp classify train --data Vowels_TRAIN.ts --test Vowels_TEST.ts",
    )
    add = part.add_argument_group("data").add_argument
    _add_data(add)
    add("--test", type=Path, metavar="DATA", help="sequences to judge it on")
    words = "without --test, the share of each class that is held out (0.25)"
    add("--test-fraction", type=float, metavar="F", help=words)
    add = part.add_argument_group("network and training").add_argument
    add("--cell", default="gru", choices=[*CELLS])
    add("--hidden-size", type=int, default=50, metavar="H", help="hidden units (%(default)s)")
    add("--layers", type=int, default=1, metavar="L", help="stacked layers (%(default)s)")
    add("--one-direction", action="store_true", help="read time forwards only")
    add("--read", default="max", choices=["last", "mean", "max"], help="states to read out")
    add("--dropout", type=float, default=0.0, metavar="P", help="dropout rate between layers")
    words = "steps that are read as one, or auto (%(default)s)"
    add("--patch-size", type=options.whole_or_auto, default="auto", metavar="K", help=words)
    add("--epochs", type=int, default=200, metavar="E", help="(%(default)s)")
    add("--learning-rate", type=float, default=0.01, metavar="R", help="of the first update")
    words = "sequences in an update, or auto (%(default)s)"
    add("--batch-size", type=options.whole_or_auto, default="auto", metavar="B", help=words)
    add("--class-weight", choices=["balanced"], help="give every class the same total weight")
    add("--networks", type=int, default=5, metavar="N", help="networks that are averaged")
    add("--seed", type=int, default=0, help="random seed (%(default)s)")
    add("--workers", type=int, metavar="W", help="threads on NumPy; all cores by default")
    add = part.add_argument_group("backend and output").add_argument
    options.add_backend_options(add)
    add("--out", type=Path, metavar="DIR", help="output folder (runs/DATA-CELL-1, -2, ...)")
    add("--force", action="store_true", help="replace the files in an existing folder")
    add("--json", action="store_true", help="print one line of JSON and nothing else")
    part.set_defaults(run=_train)


def _add_use(part: argparse.ArgumentParser) -> None:
    add = part.add_argument
    add("source", type=Path, metavar="RUN", help="folder of a run")
    _add_data(add)
    options.add_backend_options(add)
    add("--force", action="store_true", help=FORCE)
    add("--json", action="store_true", help="print one line of JSON and nothing else")


def _read(args: argparse.Namespace, path: Path) -> Labelled:
    return read_labelled(
        path, id_column=args.id_column, time_column=args.time_column,
        label_column=args.label_column, missing=args.missing,
    )  # fmt: skip


def _classifier() -> Any:
    try:
        from rnn_xp.estimators import RecurrentClassifier
    except ImportError as error:
        raise ValueError(
            f"rnn-xp classify needs scikit-learn. Install it with: {install('sklearn')}"
        ) from error
    return RecurrentClassifier


def _train(args: argparse.Namespace) -> int:
    kind = _classifier()
    if args.test is not None and args.test_fraction is not None:
        raise ValueError("--test-fraction holds out a part of --data; leave it out with --test.")
    options.check_whole("--seed", args.seed, 0)
    options.check_whole("--workers", args.workers, 1)
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    data = of_classes(_read(args, args.data), "--data")
    if args.test is None:
        trained, tested = split(data, args.test_fraction or 0.25, args.seed)
    else:
        trained, tested = data, of_classes(_read(args, args.test), "--test", least=1)
        check_fit(tested, sorted(set(trained.labels or ())), list(trained.features), "--test")
    model = kind(
        args.cell, args.hidden_size, num_layers=args.layers, bidirectional=not args.one_direction,
        read=args.read, dropout=args.dropout, patch_size=args.patch_size, max_iter=args.epochs,
        learning_rate_init=args.learning_rate, batch_size=args.batch_size,
        class_weight=args.class_weight, n_estimators=args.networks, random_state=args.seed,
        workers=args.workers, backend=backend, verbose=not args.json, channels_first=False,
    )  # fmt: skip
    tell = _silent if args.json else say
    tell(f"backend  {backend}")
    for word, part in (("train", trained), ("test", tested)):
        tell(f"{word:<8} {described(part)}")
    out = args.out or new_folder_name(Path("runs"), f"{data.name}-{args.cell}")
    with RunFolder(out, force=args.force) as folder:
        with while_compiling(backend):
            model.fit(arrays(trained, backend), np.array(trained.labels))
        tell(f"model    {options.describe_network(model.net_)}")
        if args.networks > 1:
            tell(f"         {args.networks} networks, whose probabilities are averaged")
        if model.patch_size_ > 1:
            tell(f"         reads {model.patch_size_} steps as one")
        found = Found(tested, model, backend)
        confusion = found.confusion(usual(trained))
        facts = _facts(args, data, trained, tested, model, backend)
        _write(folder, model, found, confusion, facts)
        if not args.json:
            print(*confusion.lines(), sep="\n")  # as they are, however wide
        tell(f"verdict  {confusion.verdict()}")
        tell(f"wrote    {folder.path}/")
    if args.json:
        print(json.dumps({"out": str(folder.path), **facts, **confusion.summary()}))
    return 0


def _write(
    folder: RunFolder, model: Any, found: Found, confusion: Confusion, facts: Mapping[str, Any]
) -> None:
    """Write the files of a run."""
    folder.remove(_FILES)
    model.save(folder.path / _MODEL)
    histories = [
        {"loss": member.losses}
        | ({"validation_loss": member.validation_losses} if member.validation_losses else {})
        for member in model._members
    ]
    folder.write_history(histories)
    checkpoint.atomic_write(folder.path / _PREDICTIONS, found.csv())
    folder.write_metrics({**facts, **confusion.summary()})
    folder.write_report(page(found, confusion, facts, histories[0]["loss"]))
    try:
        picture = plotting.to_png(confusion.plot(found.data.name))
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
    else:
        checkpoint.atomic_write(folder.path / _PICTURE, picture)


def _predict(args: argparse.Namespace) -> int:
    check_file("--csv", args.csv, force=args.force)
    found, _ = _use(args)
    if args.csv is not None:
        checkpoint.atomic_write(args.csv, found.csv())
    if args.json:
        print(json.dumps({"data": found.data.name, "predictions": found.rows()}))
        return 0
    say(f"data     {described(found.data)}")
    for row in found.rows():
        print(f"{row['sequence']}  {row['predicted']}  {row['probability']:.3f}")
    if args.csv is not None:
        say(f"wrote    {args.csv}")
    return 0


def _judge(args: argparse.Namespace) -> int:
    check_file("--html", args.html, force=args.force)
    found, run = _use(args)
    of_classes(found.data, "--data", least=1)
    known, features = list(map(str, found.model.classes_)), list(found.data.features)
    check_fit(found.data, known, features, "--data")
    confusion = found.confusion(str(run.get("most_frequent", known[0])))
    if args.html is not None:
        facts = {"run": str(args.source), "data": about(found.data), "rnn_xp": __version__}
        losses = found.model.loss_curve_
        checkpoint.atomic_write(args.html, page(found, confusion, facts, losses).encode())
    if args.json:
        print(json.dumps({"data": about(found.data), **confusion.summary()}))
        return 0
    say(f"data     {described(found.data)}")
    print(*confusion.lines(), sep="\n")
    say(f"verdict  {confusion.verdict()}")
    if args.html is not None:
        say(f"wrote    {args.html}")
    return 0


def _use(args: argparse.Namespace) -> tuple[Found, dict[str, Any]]:
    """Load a run and predict the classes of the data; return also what metrics.json says."""
    kind = _classifier()
    backend = get_backend(args.backend, device=args.device, dtype=args.dtype)
    model = kind.load(args.source, backend)
    path = (args.source if args.source.is_dir() else args.source.parent) / _METRICS
    run: dict[str, Any] = {}
    if path.exists():
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} is damaged: {error}. Remove it to go on without.") from error
    data = _read(args, args.data)
    check_features(data, run.get("features") or list(data.features), "--data")
    return Found(data, model, backend), run


def _facts(
    args: argparse.Namespace, data: Labelled, trained: Labelled, tested: Labelled, model: Any,
    backend: Backend,
) -> dict[str, Any]:  # fmt: skip
    packages = ("numpy", "scikit-learn", "array-api-compat", "safetensors")
    settings = {k: v for k, v in model.get_params().items() if k not in ("backend", "verbose")}
    return {
        "rnn_xp": __version__,
        "argv": list(args.argv),
        "data": about(data),
        "test": {"held_out": args.test_fraction or 0.25} if args.test is None else about(tested),
        "split": {"train": len(trained.names), "test": len(tested.names)},
        "features": list(data.features),
        "settings": settings,
        "parameters": model.net_.num_parameters,
        "patch_size": model.patch_size_,
        "epochs": model.n_iter_,
        "final_loss": model.loss_curve_[-1],
        "backend": {**where(backend), "version": backend.version},
        "versions": {name: metadata.version(name) for name in packages},
    }


def _silent(line: str) -> None:
    """Print nothing."""
