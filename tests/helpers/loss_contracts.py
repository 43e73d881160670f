"""All losses as the books write them, and data of every layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnn_xp import losses
from rnn_xp.losses import Huber, Pinball

N, T, O = 6, 5, 3  # noqa: E741
QUANTILES = np.asarray([0.1, 0.5, 0.8])
HIDDEN = {  # what may stand where the weight is 0, by the kind of target
    "numbers": np.nan,
    "probabilities": np.nan,
    "classes": -1,
}


def squared(pred, target):
    return (pred - target) ** 2


def absolute(pred, target):
    return np.abs(pred - target)


def huber(pred, target, delta=0.7):
    a = np.abs(pred - target)
    return np.where(a <= delta, a * a / 2, delta * a - delta * delta / 2)


def pinball(pred, target):
    return np.maximum(QUANTILES * (target - pred), (QUANTILES - 1) * (target - pred))


def softmax_then_log(pred, target):
    p = np.exp(pred) / np.exp(pred).sum(axis=-1, keepdims=True)
    picked = [-np.log(p[index][target[index]]) for index in np.ndindex(target.shape)]
    return np.reshape(picked, target.shape)


def sigmoid_then_log(pred, target):
    p = 1 / (1 + np.exp(-pred))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


@dataclasses.dataclass(frozen=True)
class Contract:
    loss: Any
    entries: Callable[..., Any]  # the loss of each entry, as the books write it
    target: str = "numbers"
    kinks: tuple[float, ...] = ()  # errors at which it has no derivative, or no second one
    name: str | None = None  # in messages

    @property
    def elementwise(self):
        return self.target != "classes"


LOSSES = {
    "mse": Contract(losses.mse, squared),
    "mae": Contract(losses.mae, absolute, kinks=(0.0,)),
    "huber": Contract(Huber(0.7), huber, kinks=(-0.7, 0.7), name="Huber"),
    "pinball": Contract(Pinball(tuple(QUANTILES)), pinball, kinks=(0.0,), name="Pinball"),
    "cross_entropy": Contract(losses.cross_entropy, softmax_then_log, "classes"),
    "binary_cross_entropy": Contract(
        losses.binary_cross_entropy, sigmoid_then_log, "probabilities"
    ),
}
LAYOUTS = {  # id: leading axes of pred, shape of the weights
    "many_to_one-unweighted": ((N,), None),
    "many_to_one-weighted": ((N,), (N,)),
    "sequence-unweighted": ((N, T), None),
    "sequence-weights_of_samples": ((N, T), (N,)),
    "sequence-weights_of_steps": ((N, T), (N, T)),
}
WEIGHTED = [name for name, (_, weights) in LAYOUTS.items() if weights]
every_loss = pytest.mark.parametrize("name", LOSSES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_weighted_layout = pytest.mark.parametrize("layout", WEIGHTED)


def draw(name, layout):
    """Random pred, target and weight (or None), with no error near a kink."""
    contract, (lead, weights) = LOSSES[name], LAYOUTS[layout]
    rng = np.random.default_rng(1)
    pred = rng.standard_normal((*lead, O))
    target = {
        "numbers": lambda: rng.standard_normal((*lead, O)),
        "classes": lambda: rng.integers(O, size=lead),
        "probabilities": lambda: rng.uniform(size=(*lead, O)).round(1),  # with 0 and 1 among them
    }[contract.target]()
    for kink in contract.kinks:
        near = np.abs(pred - target - kink) < 1e-2
        target = target - 0.05 * near
        assert np.abs(pred - target - kink).min() > 1e-3
    return pred, target, None if weights is None else rng.uniform(0.5, 2.0, weights)


def expected_value(name, pred, target, weight):
    """Weighted mean over all entries, by np.average and not by a total of our own."""
    entries = LOSSES[name].entries(pred, target)
    if weight is None:
        return np.mean(entries)
    full = np.ones(entries.shape)
    full *= weight.reshape(weight.shape + (1,) * (entries.ndim - weight.ndim))
    return np.average(entries, weights=full)


def on(case, *arrays):
    return [None if a is None else case.array(a) for a in arrays]


def double(case, array):
    """What the device holds, in double precision; indices stay integers."""
    if array is None:
        return None
    host = case.to_numpy(array)
    return host.astype("f8") if host.dtype.kind == "f" else host
