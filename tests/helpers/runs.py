"""Trainings that remember something from one epoch to the next, one of each kind."""

from __future__ import annotations

import functools

import numpy as np
import problems

import rnn_xp as rx

NET = rx.Network(hidden_size=8)
DROPPING = rx.Network(
    cell="gru", hidden_size=6, num_layers=2, dropout=0.3, recurrent_dropout=0.2, output_size=1
)
STREAMS = rx.Network(cell="lstm", hidden_size=5, topology="many_to_many")


windows = functools.partial(problems.windows, 90)


def streams(rows=12, steps=8):
    x = np.random.default_rng(0).standard_normal((rows, steps, 1))
    return x, np.cumsum(x, axis=1)


# Everything that a run may remember from one epoch to the next.
RUNS = {
    "adam": (NET, windows, {"optimizer": rx.optim.adam(0.02)}),
    "sgd": (NET, windows, {"optimizer": rx.optim.sgd(0.1)}),
    "momentum": (NET, windows, {"optimizer": rx.optim.sgd(0.05, 0.9, nesterov=True)}),
    "rmsprop": (NET, windows, {"optimizer": rx.optim.rmsprop(0.01, momentum=0.5)}),
    "adagrad": (NET, windows, {"optimizer": rx.optim.adagrad(0.1)}),
    "adamw": (NET, windows, {"optimizer": rx.optim.adamw(0.02, clip_norm=0.1)}),
    "lbfgs": (NET, windows, {"optimizer": rx.optim.lbfgs(history=3)}),
    "levenberg-marquardt": (NET, windows, {"optimizer": rx.optim.levenberg_marquardt()}),
    "levenberg-marquardt of a part": (
        NET,
        windows,
        {"optimizer": rx.optim.levenberg_marquardt(subsample=0.3)},
    ),
    "hessian-free": (NET, windows, {"optimizer": rx.optim.hessian_free(max_products=5)}),
    "cosine": (NET, windows, {"optimizer": rx.optim.adam(rx.optim.Cosine(0.05, 9))}),
    "warm-up": (NET, windows, {"optimizer": rx.optim.adam(rx.optim.WarmUp(7, 0.05))}),
    "plateau": (
        NET,
        windows,
        {"optimizer": rx.optim.sgd(rx.optim.ReduceOnPlateau(2.0, patience=1))},
    ),
    "minibatches": (NET, windows, {"optimizer": rx.optim.adam(0.02), "batch_size": 25}),
    "dropout": (DROPPING, windows, {"optimizer": rx.optim.adam(0.02)}),
    "dropout-minibatches": (
        DROPPING,
        windows,
        {"optimizer": rx.optim.adam(0.02), "batch_size": 40},
    ),
    "validation": (
        NET,
        windows,
        {"optimizer": rx.optim.adam(0.3), "validation": 0.2, "patience": 50},
    ),
    "segments": (STREAMS, streams, {"optimizer": rx.optim.adam(0.02), "truncate": (3, 5)}),
    "blocks": (NET, windows, {"optimizer": rx.optim.adam(0.02), "block_rows": 17}),
}


def fit(name, epochs, **options):
    net, data, settings = RUNS[name]
    return rx.fit(net, *data(), epochs=epochs, seed=3, **{**settings, **options})


def assert_same(found, expected):
    assert found.history == expected.history
    assert found.best_epoch == expected.best_epoch
    for mine, theirs in (
        (found.params, expected.params),
        (found.best_params, expected.best_params),
    ):
        assert (mine is None) == (theirs is None)
        for key in mine or {}:
            assert np.array_equal(mine[key], theirs[key]), key
