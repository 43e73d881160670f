"""One optimiser of each kind."""

from __future__ import annotations

import rnn_xp as rx

OPTIMIZERS = {
    "sgd": rx.optim.sgd(0.1),
    "nesterov": rx.optim.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": rx.optim.adam(0.01),
    "decaying adam": rx.optim.adam(0.01, weight_decay=0.1),
    "adamw": rx.optim.adamw(0.01),
    "rmsprop": rx.optim.rmsprop(0.01, momentum=0.5),
    "adagrad": rx.optim.adagrad(0.1),
    "clipped": rx.optim.adam(0.01, clip_value=0.1, clip_norm=0.01),
    "scheduled": rx.optim.adam(rx.optim.Cosine(0.01, 10)),
}
