"""How the tests call ``rnn-xp train``, and what it leaves."""

from __future__ import annotations

from pathlib import Path

from rnn_xp import cli

ROOT = Path(__file__).parents[2]


FILES = {
    "model.safetensors", "last.safetensors", "config.toml", "history.csv", "metrics.json",
    "predictions.csv", "report.html", "loss.png", "forecast.png",
}  # fmt: skip


def train(*options):
    """Train the plain network of the reference workload, as ``scripts/train.py`` does."""
    return cli.main(["train", "--plain", "--epochs", "3", *options])
