"""Trainings of a small network, which take no time."""

from __future__ import annotations

import numpy as np
from problems import windows

import rnn_xp as rx
from rnn_xp.losses import mse

NET = rx.Network(hidden_size=4)
FLOAT64 = rx.get_backend("numpy", dtype="float64")


def fit(**options):
    options = {"optimizer": rx.optim.adam(0.02), "backend": FLOAT64, "workers": 1, **options}
    return rx.fit(NET, *windows(), **options)


def assert_equal(params, expected):
    for name, p in expected.items():
        assert np.array_equal(params[name], p), name


def saying(values):
    """A loss of these values, one after the other, with the gradient of the real one."""
    values = iter(values)

    def loss(pred, target, weight=None, total=None):
        _, dpred = mse(pred, target, weight, total)
        return np.asarray(next(values)), dpred

    return loss
