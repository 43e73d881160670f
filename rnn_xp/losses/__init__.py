"""Losses: the value and, in the same function, its gradient with respect to the prediction.

Every loss has the signature ``(pred, target, weight=None, total=None) -> (value, dpred)`` with::

    value = sum(w * l) / total        dpred = w * dl/dpred / total

where l is the loss of one entry: of one number of the target or, for `cross_entropy`, of one class.
``total`` is the weight of *all* counted entries. Whoever cuts a batch into blocks computes it once
over all rows and passes it to each block; then the blocks' values and gradients simply add up to
those of the whole batch, and a ragged last block is right without further thought.

A weight of exactly 0 hides an entry: whatever stands there, a class such as -1 or a NaN, reaches
neither value nor gradient. If all weights are 0, so are both of them.

Shapes must match exactly. Nothing is broadcast, because (N, 1) against (N,) would quietly become
(N, N).
"""

from rnn_xp.losses.classification import binary_cross_entropy, cross_entropy
from rnn_xp.losses.entries import total_weight
from rnn_xp.losses.names import resolve_loss, takes_classes, takes_logits
from rnn_xp.losses.regression import Huber, Pinball, mae, mse

__all__ = [
    "Huber",
    "Pinball",
    "binary_cross_entropy",
    "cross_entropy",
    "mae",
    "mse",
    "resolve_loss",
    "takes_classes",
    "takes_logits",
    "total_weight",
]
