"""A small `Forecaster`, and a series for it."""

from __future__ import annotations

import numpy as np

import rnn_xp as rx

QUICK = {
    "hidden_size": 4, "epochs": 8, "seq_length": 8, "target": "level", "fallback": False,
    "verbose": False,
}  # fmt: skip


def waves(rows=240, seed=0):
    """Two waves and a little noise."""
    t, rng = np.arange(rows), np.random.default_rng(seed)
    return np.sin(t / 3.0) + 0.5 * np.sin(t / 7.0) + 0.02 * rng.standard_normal(rows)


def quick(**options):
    return rx.Forecaster(**{**QUICK, **options})
