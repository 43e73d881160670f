"""Optimisers by the names that the estimators and the command line use."""

from __future__ import annotations

from typing import Any

from rnn_xp.optim.adaptive import Adagrad, Adam, AdamW, RMSprop
from rnn_xp.optim.hessian_free import HessianFree
from rnn_xp.optim.levenberg_marquardt import LevenbergMarquardt
from rnn_xp.optim.quasi_newton import LBFGS
from rnn_xp.optim.sgd import SGD

__all__ = ["OPTIMIZERS"]

OPTIMIZERS: dict[str, type[Any]] = {
    "lbfgs": LBFGS,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "sgd": SGD,
    "levenberg_marquardt": LevenbergMarquardt,
    "hessian_free": HessianFree,
}
"""Those that are `rnn_xp.optim.first_order.FirstOrder` take a learning rate first."""
