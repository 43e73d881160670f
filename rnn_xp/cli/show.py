"""``rnn-xp backends | datasets``: list the backends and the bundled series."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from typing import Any

from rnn_xp.backend import BackendError, backends
from rnn_xp.data import datasets

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add both commands."""
    command = commands.add_parser(
        "backends",
        epilog="example: RNN_XP_BACKEND=jax rnn-xp backends",
    )
    command.add_argument("--json", action="store_true", help="print one line of JSON")
    command.set_defaults(run=_backends)
    command = commands.add_parser(
        "datasets",
        epilog="example: rnn-xp datasets; rnn-xp train --data wti",
    )
    command.set_defaults(run=_datasets)


def _backends(args: argparse.Namespace) -> int:
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


def _datasets(args: argparse.Namespace) -> int:
    for dataset in datasets.CATALOGUE.values():
        rows = len(datasets.load(dataset.name).values)
        print(f"{dataset.name:14} {rows} rows, {dataset.unit}: {dataset.title}")
        print(f"{'':14} source: {dataset.source}")
    return 0
