"""``rnn-xp backends | datasets``: list the backends and the bundled series."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
from typing import Any

import numpy as np

from rnn_xp import training
from rnn_xp.backend import BackendError, backends, get_backend
from rnn_xp.backend.adapters import ADAPTERS
from rnn_xp.backend.handle import DTYPES
from rnn_xp.data import datasets

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add both commands."""
    command = commands.add_parser(
        "backends",
        epilog="example: RNN_XP_BACKEND=jax rnn-xp backends",
    )
    command.add_argument("--json", action="store_true", help="print one line of JSON")
    command.add_argument(
        "--probe", metavar="MODULE", help="try all functions and tiny trainings on one library"
    )
    command.set_defaults(run=_backends)
    command = commands.add_parser(
        "datasets",
        epilog="example: rnn-xp datasets; rnn-xp train --data wti",
    )
    command.set_defaults(run=_datasets)


def _backends(args: argparse.Namespace) -> int:
    if args.probe is not None:
        return _probe(args.probe, as_json=args.json)
    statuses = backends()
    if args.json:
        print(json.dumps([dataclasses.asdict(status) for status in statuses]))
        return 0
    rows = [("backend", "installed", "usable", "devices")]
    for status in statuses:
        version = status.version if status.installed else "no"
        usable = "yes" if status.usable else "no"
        rows.append((status.name, version or "yes", usable, ", ".join(status.devices) or "-"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join([*(f"{c:{w}}" for c, w in zip(row, widths, strict=False)), row[3]]))
    for status in statuses:
        if status.reason:
            print(f"{status.name}: {status.reason}")
    selected = os.environ.get("RNN_XP_BACKEND", "").strip()
    known = {"": True, **{status.name: status.usable for status in statuses}, "auto": True}
    note = "" if known.get(selected) else " (not usable here)"
    if selected not in known:
        names = ", ".join(name for name in known if name)
        raise BackendError(f"RNN_XP_BACKEND={selected} is not known. Choose one of: {names}.")
    print(f"selected by RNN_XP_BACKEND: {selected or 'numpy (default)'}{note}")
    return 0


def _probe(module: str, *, as_json: bool) -> int:
    """Print what a library can do in each precision that it has; 1 if it cannot train."""
    probes = [training.backends(probe=array) for array in _arrays_of(module)]
    if as_json:
        print(json.dumps([dataclasses.asdict(probe) for probe in probes]))
    else:
        print("\n\n".join(map(str, probes)))
    return 0 if any(probe.works for probe in probes) else 1


def _arrays_of(module: str) -> list[Any]:
    """Return an array in each precision, from a backend or from any Array API namespace."""
    if not module.strip(" ."):
        raise BackendError(
            "--probe needs the name of a module, such as dask.array, or one of: "
            f"{', '.join(ADAPTERS)}."
        )
    if module in ADAPTERS:
        return [get_backend(module, dtype=dtype).asarray([0.0]) for dtype in _precisions(module)]
    try:
        xp = importlib.import_module(module)
        arrays = [xp.asarray(np.zeros(1, dtype)) for dtype in ("float32", "float64")]
    except ModuleNotFoundError as error:
        raise BackendError(
            f"--probe {module}: {error}. Name the module of an installed library that is an Array "
            f"API namespace, such as dask.array, or one of: {', '.join(ADAPTERS)}."
        ) from error
    except AttributeError as error:
        raise BackendError(
            f"--probe {module}: {error}, so it is no Array API namespace. Name the module that "
            "has the functions, such as dask.array for dask."
        ) from error
    return arrays


def _precisions(name: str) -> list[str]:
    """List the dtypes that the selected device of a backend has."""
    backend = get_backend(name, dtype="float32")
    known = backend.adapter.dtypes(backend.xp, backend.device)
    return [dtype for dtype in DTYPES if dtype in known]


def _datasets(args: argparse.Namespace) -> int:
    for dataset in datasets.CATALOGUE.values():
        rows = len(datasets.load(dataset.name).values)
        print(f"{dataset.name:14} {rows} rows, {dataset.unit}: {dataset.title}")
        print(f"{'':14} source: {dataset.source}")
    return 0
