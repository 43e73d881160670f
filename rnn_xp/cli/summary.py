"""What metrics.json says of a run."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rnn_xp import __version__
from rnn_xp.backend import Backend
from rnn_xp.forecasting import Score, SplitSeries, verdict
from rnn_xp.network import Network
from rnn_xp.training.result import FitResult

__all__ = ["summarize", "where"]


def where(backend: Backend) -> dict[str, str]:
    """Say where a run computes."""
    return {
        "backend": backend.name,
        "device": backend.device_name,
        "dtype": backend.dtype_name,
    }


def summarize(
    config: dict[str, Any],
    backend: Backend,
    split: SplitSeries,
    net: Network,
    result: FitResult,
    scores: list[Score],
) -> dict[str, Any]:
    """Give what metrics.json says, but for the judgement of the forecasts."""
    series, losses = split.series, result.history["loss"]
    packages = ("numpy", "array-api-compat", "safetensors", "threadpoolctl")
    return {
        "rnn_xp": __version__,
        "git": _git_revision(),
        "argv": sys.argv,
        "config": config,
        "data": {
            "name": series.name,
            "column": series.column,
            "unit": series.unit,
            "source": series.source,
            "sha256": series.sha256,
            "rows": len(series.values),
            "first": series.dates[0] if series.dates else None,
            "last": series.dates[-1] if series.dates else None,
        },
        "split": {
            "train_rows": len(split.train),
            "test_rows": len(split.test),
            "train_windows": len(split.x),
            "test_windows": len(split.x_test),
        },
        "warning": split.warning or None,
        "scaler": split.scaler,
        "parameters": net.num_parameters,
        "backend": {
            "name": backend.name,
            "version": backend.version,
            "device": backend.device_name,
            "dtype": backend.dtype_name,
        },
        "versions": {name: metadata.version(name) for name in packages},
        "engine": {
            "name": result.engine,
            "reason": result.engine_reason or None,
            "block_rows": result.block_rows,
            "workers": result.workers,
            "ranks": result.ranks,
        },
        "epochs": len(losses),
        "stopped": result.stopped,
        "best_epoch": result.best_epoch,
        "evaluations": result.evaluations,
        "seconds": result.seconds,
        "seconds_per_epoch": result.seconds / len(losses),
        "final_loss": losses[-1],
        "scores": scores,
        "verdict": verdict(scores),
    }


def _git_revision() -> str | None:
    """Revision of the checkout this package runs from, if it is one and git is there."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
