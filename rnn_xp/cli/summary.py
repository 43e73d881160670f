"""Content of metrics.json."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rnn_xp import __version__
from rnn_xp.backend import Backend
from rnn_xp.cli.task import Task
from rnn_xp.forecasting import Backtest

__all__ = ["git_revision", "summarize", "where"]


def where(backend: Backend) -> dict[str, str]:
    """Return the backend, device and precision of a run."""
    return {
        "backend": backend.name,
        "device": backend.device_name,
        "dtype": backend.dtype_name,
    }


def summarize(task: Task, config: dict[str, Any], judged: Backtest) -> dict[str, Any]:
    """Return the content of metrics.json.

    Parameters
    ----------
    task : Task
        The trained forecaster and its series.
    config : dict
        Content of config.toml.
    judged : Backtest
        The scores on the test part.

    Returns
    -------
    dict
    """
    series, backend, prepared = task.series, task.backend, task.prepared
    results = task.forecaster.results_
    trainings = [*results, *task.forecaster.refits_]
    result, seconds = results[0], sum(each.seconds for each in trainings)
    losses = result.history["loss"]
    packages = ("numpy", "array-api-compat", "safetensors", "threadpoolctl")
    return {
        "rnn_xp": __version__,
        "git": git_revision(Path(__file__).parents[1]),
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
            "train_rows": task.cut,
            "test_rows": len(series.values) - task.cut,
            "train_windows": len(prepared.trained.x),
            "validation_windows": len(prepared.validated.x) if prepared.validated else 0,
            "test_windows": sum(len(part.origins) for part in judged.series),
        },
        "warning": task.warning or None,
        "scaler": prepared.designs[0].scaler,
        "parameters": prepared.net.num_parameters,
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
        "refit_epochs": [len(each.history["loss"]) for each in task.forecaster.refits_],
        "evaluations": result.evaluations,
        "seconds": seconds,
        "seconds_per_epoch": seconds / sum(len(each.history["loss"]) for each in trainings),
        "final_loss": losses[-1],
        "scores": judged.scores,
        "metrics": judged.metrics,
        "per_step": judged.per_step,
        "level": judged.level,
        "verdict": judged.verdict,
    }


def git_revision(package: Path) -> str | None:
    """Return the git revision of the checkout whose top folder contains a package.

    The result is None without git, or if the package merely lies within another repository, such as
    a project in whose virtual environment it is installed.

    Parameters
    ----------
    package : path

    Returns
    -------
    str or None
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(package), *words]
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return process.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != package.resolve().parent:
            return None
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None
