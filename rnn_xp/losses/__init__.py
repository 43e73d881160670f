"""Losses: a value and, in the same function, its gradient with respect to the prediction.

Every loss has the signature ``(pred, target, weight=None, total=None) -> (value, dpred)`` with::

    value = sum(w * l) / total        dpred = w * dl/dpred / total

where l is the loss of one entry: of one number of the target or, for `cross_entropy`, of one class.
``total`` is the weight of *all* counted entries. If a batch is split into blocks, it is computed
once over all rows and passed to each block; the values and gradients of the blocks then add up to
those of the whole batch, and a shorter last block needs no correction.

A weight of exactly 0 hides an entry: a class such as -1, or a NaN, reaches neither the value nor
the gradient. If all weights are 0, both are 0.

Shapes must match exactly. Nothing is broadcast, because (N, 1) against (N,) would silently become
(N, N).

Any callable with this signature is a loss. `declare` says whether its targets are classes, whether
it takes logits, and between which limits its targets lie; `enter` checks its arguments and applies
the weights.
"""

from rnn_xp.losses.classification import binary_cross_entropy, cross_entropy
from rnn_xp.losses.entries import declare, enter, total_weight
from rnn_xp.losses.names import (
    curvature_rows,
    name_of,
    resolve_loss,
    takes_classes,
    takes_logits,
    valid_targets,
)
from rnn_xp.losses.regression import Huber, Pinball, mae, mse

__all__ = [
    "Huber",
    "Pinball",
    "binary_cross_entropy",
    "cross_entropy",
    "curvature_rows",
    "declare",
    "enter",
    "mae",
    "mse",
    "name_of",
    "resolve_loss",
    "takes_classes",
    "takes_logits",
    "total_weight",
    "valid_targets",
]
