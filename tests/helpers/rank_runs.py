"""One small training, to be shared between ranks in every way."""

from __future__ import annotations

import functools

import problems

import rnn_xp as rx

NET = rx.Network(hidden_size=8)
EPOCHS = 30
SMALL_BLOCKS = {"block_rows": 7}  # so that three or four ranks have some, at uneven places
KINDS = {
    "adam": {"optimizer": rx.optim.adam(0.02)},
    "lbfgs": {"optimizer": rx.optim.lbfgs(history=5)},
    "levenberg-marquardt": {"optimizer": rx.optim.levenberg_marquardt()},
    "levenberg-marquardt of a part": {"optimizer": rx.optim.levenberg_marquardt(subsample=0.3)},
    "hessian-free": {"optimizer": rx.optim.hessian_free(max_products=3)},
    "minibatches": {"optimizer": rx.optim.adam(0.02), "batch_size": 32},
}


def fit(kind, comm=None, epochs=EPOCHS, rows=90, **options):
    x, y = problems.windows(rows)
    options = {**SMALL_BLOCKS, **KINDS[kind], "epochs": epochs, "workers": 1, **options}
    return rx.fit(NET, x, y, comm=comm, **options)


@functools.cache
def alone(kind):
    return fit(kind)
