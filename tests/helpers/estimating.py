"""Data for the estimators, and a regressor that is quickly trained."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import rnn_xp as rx

# Tests that train for a few epochs expect to hear so.
FEW_EPOCHS = pytest.mark.filterwarnings("ignore:max_iter=:sklearn.exceptions.ConvergenceWarning")


def series(n=300):
    t = np.arange(n)
    return np.sin(t / 4.0) + 0.1 * np.cos(1.7 * t)


def windows(n=300, dtype="float64"):
    x, y = rx.make_windows(series(n).astype(dtype), seq_length=8)
    return x[:, :, 0].copy(), y[:, 0].copy()


def labelled(n=150):
    x = np.random.default_rng(0).standard_normal((n, 6))
    return x, np.where(x.sum(axis=1) > 0.5, "up", np.where(x.sum(axis=1) < -0.5, "down", "flat"))


def watch_fit(patch):
    """Arguments of the latest call of `fit` that an estimator makes."""
    named, original = {}, importlib.import_module("rnn_xp.estimators.members").fit

    def watched(*args, **given):
        named.update(given)
        return original(*args, **given)

    patch.setattr("rnn_xp.estimators.members.fit", watched)
    return named


def quick(**settings):
    few = {"hidden_size": 6, "random_state": 0, "max_iter": 5, "n_iter_no_change": None}
    return rx.RecurrentRegressor(**few | settings)
